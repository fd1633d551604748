"""What all figures share: colors, a grid of square panels, a CT panel with outlines, the scale bar."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from LungNoduleUncertaintyLib.segments import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: What a panel shows: (row limits, column limits) in pixels.
View = tuple[tuple[float, float], tuple[float, float]]
#: A line's style: its name, or (offset, (length, gap)) in line widths.
LineStyle = Literal["solid", "dashed"] | tuple[float, tuple[float, float]]
#: A line of a legend: words, color, line style.
Entry = tuple[str, str, LineStyle]

HC, LC, FINAL = COLORS.values()
TEXT, MUTED = "#222222", "#555555"
WINDOW = (-1350, 150)  # lung window, HU
WINDOW_WORDS = f"CT window {WINDOW[0]} to {WINDOW[1]} HU".replace("-", "−")
PAGE_WIDTH = 12.0  # inches


def new_figure(width: float, height: float) -> "Figure":
    """A `Figure` with its own Agg canvas, in inches; pyplot isn't involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(
    rows: int,
    columns: int,
    *,
    left: float = 1.2,
    right: float = 0.08,
    top: float = 0.6,
    bottom: float = 0.1,
    gap: float = 0.06,
    groups: int = 1,
    width: float | None = None,
) -> tuple["Figure", list[list["Axes"]], float]:
    """(figure, axes[row][column], panel side in inches): square panels that fill the page's width.

    left, right, top, bottom: margins in inches. groups: columns are set apart in that many equal groups.
    """
    width = width or PAGE_WIDTH
    apart = 3 * gap
    side = (width - left - right - gap * (columns - 1) - (groups - 1) * apart) / columns
    height = top + bottom + rows * side + (rows - 1) * gap
    figure = new_figure(width, height)
    axes = []
    for row in range(rows):
        line = []
        for column in range(columns):
            x = left + column * (side + gap) + (column // (columns // groups)) * apart
            y = height - top - row * (side + gap) - side
            line.append(figure.add_axes((x / width, y / height, side / width, side / height)))
        axes.append(line)
    return figure, axes, side


def place(figure: "Figure", x_inches: float, y_inches: float) -> tuple[float, float]:
    """Figure coordinates of a point given in inches from the left and from the top."""
    width, height = figure.get_size_inches()
    return x_inches / width, 1 - y_inches / height


def field_of_view(masks: ArrayLike, spacing: np.ndarray, least_mm: float = 16.0, factor: float = 1.9) -> View:
    """(row limits, column limits) in pixels of a square around everything in `masks`, which are (..., H, W) bool.

    spacing: pixel size in mm (row, column). The side is `factor` times the masks' extent, at least `least_mm`, and
    no more than the grid, within which the square stays.
    """
    masks = np.asarray(masks, bool)
    together = masks.reshape(-1, *masks.shape[-2:]).any(0)
    used = np.argwhere(together)
    size, spacing = np.array(together.shape, float), np.asarray(spacing, float)
    if not len(used):
        return (-0.5, size[0] - 0.5), (-0.5, size[1] - 0.5)
    low, high = used.min(0) - 0.5, used.max(0) + 0.5
    side = min(max(factor * ((high - low) * spacing).max(), least_mm), (size * spacing).min()) / spacing
    start = np.clip((low + high) / 2 - side / 2, -0.5, size - 0.5 - side)
    rows, columns = ((float(a), float(a + s)) for a, s in zip(start, side, strict=True))
    return rows, columns


def bare(axes: "Axes") -> None:
    """No ticks and a thin gray frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#bbbbbb")
        side.set_linewidth(0.6)


def show(axes: "Axes", image: np.ndarray, spacing: np.ndarray, view: View, **options: Any) -> "AxesImage":
    """An image (H, W) at its physical aspect; `view` is what is seen of it (see `field_of_view`)."""
    options = {"interpolation": "bilinear", **options}
    shown = axes.imshow(image, aspect=float(spacing[0] / spacing[1]), **options)
    axes.set_ylim(view[0][1], view[0][0])
    axes.set_xlim(*view[1])
    bare(axes)
    return shown


def show_ct(axes: "Axes", hu: np.ndarray, spacing: np.ndarray, view: View) -> "AxesImage":
    """The CT in the lung window."""
    return show(axes, hu, spacing, view, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])


def outline(
    axes: "Axes",
    values: ArrayLike,
    color: str,
    *,
    style: LineStyle = "solid",
    width: float = 1.5,
    halo: str | None = "#000000",
) -> None:
    """The 0.5 contour of a mask or a probability map (H, W), over a wider halo that keeps it visible on any gray."""
    from matplotlib.patheffects import Normal, Stroke

    values = np.asarray(values, np.float32)
    if not (values >= 0.5).any() or (values >= 0.5).all():
        return
    lines = axes.contour(values, levels=[0.5], colors=[color], linestyles=[style], linewidths=width)
    if halo:
        lines.set(path_effects=[Stroke(linewidth=width + min(1.2, width), foreground=halo, alpha=0.65), Normal()])


def scale_bar(axes: "Axes", spacing: np.ndarray, view: View) -> None:
    """A bar of 1, 2, 5, 10 or 20 mm, at most about two fifths of the panel's width, with its length."""
    from matplotlib.patheffects import withStroke

    (_, bottom), (left, right) = view
    extent = (right - left) * spacing[1]
    length = max((mm for mm in (1, 2, 5, 10, 20) if mm <= 0.42 * extent), default=1)
    height = view[0][1] - view[0][0]
    x, y = left + 0.06 * (right - left), bottom - 0.07 * height
    dark = "#222222"
    axes.plot(
        [x, x + length / spacing[1]],
        [y, y],
        color="white",
        linewidth=3,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=5, foreground=dark)],
    )
    axes.annotate(
        f"{length} mm",
        (x, y),
        (0, 5),
        textcoords="offset points",
        color="white",
        fontsize=7.5,
        va="bottom",
        path_effects=[withStroke(linewidth=2, foreground=dark)],
    )


def note(axes: "Axes", text: str, *, corner: str = "lower right", size: float = 8.5, color: str = "white") -> None:
    """Words in a corner of a CT panel, legible on any gray."""
    from matplotlib.patheffects import withStroke

    low, right = corner.startswith("lower"), corner.endswith("right")
    axes.text(
        0.97 if right else 0.03,
        0.03 if low else 0.97,
        text,
        transform=axes.transAxes,
        ha="right" if right else "left",
        va="bottom" if low else "top",
        fontsize=size,
        color=color,
        path_effects=[withStroke(linewidth=2.2, foreground="#222222")],
    )


def row_label(figure: "Figure", axes: "Axes", lines: list[str], x_inches: float = 0.08) -> None:
    """Words left of a row's first panel, wrapped to what room there is: the first of `lines` bold, the others muted."""
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    room = box.x0 * width - x_inches
    looks = [("bold", TEXT, 9, 0.088), *[("normal", MUTED, 8.5, 0.075)] * (len(lines) - 1)]  # the last: inches a letter
    shown = [(part, look) for line, look in zip(lines, looks, strict=True) for part in wrap(line, int(room / look[3]))]
    step = 0.17 / height
    y = (box.y0 + box.y1) / 2 + step * (len(shown) - 1) / 2
    for number, (part, (weight, color, size, _)) in enumerate(shown):
        place_y = y - number * step
        figure.text(x_inches / width, place_y, part, fontsize=size, weight=weight, color=color, va="center")


def legend(
    figure: "Figure",
    entries: Sequence[Entry],
    *,
    y_inches: float = 0.02,
    columns: int | None = None,
    x_inches: float = 0.08,
) -> None:
    """A row of (words, color, line style) at the top left of the figure."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, linestyle=s, linewidth=2.0, label=t) for t, c, s in entries]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place(figure, x_inches, y_inches),
        ncols=columns or len(handles),
        fontsize=9,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.6,
        borderaxespad=0,
    )


def color_bar(figure: "Figure", axes: "Axes", shown: "AxesImage") -> None:
    """The scale of `shown`, the image of a panel, right of that panel; it wants 0.75 inches there."""
    width, _ = figure.get_size_inches()
    box = axes.get_position()
    bar = figure.add_axes((box.x1 + 0.09 / width, box.y0 + 0.06 * box.height, 0.11 / width, 0.88 * box.height))
    figure.colorbar(shown, cax=bar)
    bar.tick_params(labelsize=8, length=2)
    for spine in bar.spines.values():
        spine.set_visible(False)
