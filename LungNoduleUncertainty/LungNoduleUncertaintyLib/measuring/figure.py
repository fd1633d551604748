"""One page that shows a result: three planes with outlines, the probability map, a row of slices, the measurements."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import printable
from LungNoduleKit.files import write_whole
from LungNoduleKit.geometry import Grid, crop, put_back, region_of_interest

from ..segments import COLORS, Masks
from .measurements import Measurements

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


class _Outline(NamedTuple):
    """How a mask's outline is drawn, and what the legend says of it."""

    label: str
    color: str
    style: Literal["solid"] | tuple[float, tuple[float, float]]


_OUTLINES = {
    "union": _Outline("HC and LC together: any reader", COLORS["LC"], (0, (3, 1.5))),
    "final": _Outline("Final: most readers", COLORS["Final"], "solid"),
    "hc": _Outline("HC: every reader", COLORS["HC"], "solid"),
}
_LONE_OUTLINE = _OUTLINES["final"]._replace(label="Final")  # of a model that has nothing else
_HALO = "#FFFFFF"  # around HC's blue, which is dark on dark lung
_WARNING, _LINE = "#B00020", 150  # color of warnings, characters in a line of them
_WINDOW = (-1350, 150)  # lung window, HU
_AXIS_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards smaller and larger LPS coordinates


class FigureSource(Masks, Protocol):
    """What is drawn, e.g. a `NoduleSegmentation`."""

    @property
    def probability_final(self) -> sitk.Image: ...
    @property
    def multi_confidence_map(self) -> sitk.Image | None: ...
    @property
    def final_map(self) -> str: ...
    @property
    def measurements(self) -> Measurements: ...
    @property
    def warnings(self) -> list[str]: ...


def measurement_lines(measurements: Measurements) -> list[tuple[str, str, str]]:
    """Rows (name, value, interval) of the measurement table, with units; intervals are empty where there are none."""
    m = measurements
    long_short = f"{m['long_axis_mm']['final']:.1f} × {m['short_axis_mm']['final']:.1f} mm"
    if "interval" not in m:
        return [
            ("volume", f"{m['volumes_mm3']['final']:.0f} mm³", ""),
            ("mean of long and short axis", f"{m['mean_axis_mm']['final']:.1f} mm", ""),
            ("long × short axis", long_short, ""),
            ("mass", f"{m['mass_mg']['final']:.0f} mg", ""),
            ("mean density", f"{m['mean_hu']['final']:.0f} HU", ""),
            ("solid share", f"{100 * m['solid_share']:.0f} %", ""),
        ]
    interval = m["interval"]
    volume, axis, mass = interval["volume_mm3"], interval["mean_axis_mm"], interval["mass_mg"]
    return [
        ("volume", f"{m['volumes_mm3']['final']:.0f} mm³", f"{volume[0]:.0f} to {volume[1]:.0f}"),
        ("mean of long and short axis", f"{m['mean_axis_mm']['final']:.1f} mm", f"{axis[0]:.1f} to {axis[1]:.1f}"),
        (
            "long × short axis",
            long_short,
            " to ".join(f"{m['long_axis_mm'][k]:.1f} × {m['short_axis_mm'][k]:.1f}" for k in ("hc", "union")),
        ),
        ("mass", f"{m['mass_mg']['final']:.0f} mg", f"{mass[0]:.0f} to {mass[1]:.0f}"),
        (
            "mean density",
            f"{m['mean_hu']['final']:.0f} HU",
            f"HC {m['mean_hu']['hc']:.0f}, LC {m['mean_hu']['lc']:.0f}",
        ),
        ("LC share of the union", f"{100 * m['lc_share']:.0f} %", ""),
    ]


def axis_letters(direction: Sequence[float]) -> list[tuple[str, str]]:
    """For each axis of an image, the patient letters at its low and high end, from the direction cosines."""
    letters = []
    for axis in range(3):
        column = [direction[3 * row + axis] for row in range(3)]
        main = max(range(3), key=lambda row: abs(column[row]))
        low, high = _AXIS_LETTERS[main]
        letters.append((low, high) if column[main] > 0 else (high, low))
    return letters


def result_figure(
    ct: sitk.Image,
    result: FigureSource,
    path: str | Path,
    *,
    title: str = "",
    model: str = "",
    margin_mm: float = 14.0,
) -> None:
    """Draw a result as a PNG; the file appears whole or not at all (OutputError).

    Planes run along the CT's own axes through the nodule's center; L, R, A, P, S and I mark patient directions. `model`
    is named at the bottom of the page, below the result's warnings.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = _View(ct, result, margin_mm)
    warned = [line for warning in result.warnings for line in textwrap.wrap(f"Warning: {warning}", _LINE)]
    figure = Figure(figsize=(13.2, 9.4), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3, 12, height_ratios=(3.6, 1.7, 2.0), left=0.03, right=0.97, top=0.885, bottom=0.06, hspace=0.24, wspace=0.35
    )
    if warned:
        grid.update(bottom=0.06 + 0.018 * len(warned))
        text = "\n".join(warned)
        figure.text(0.03, 0.045, text, fontsize=10, weight="bold", color=_WARNING, va="bottom", linespacing=1.1)
    shown = printable(title).replace("$", r"\$") or "Lung nodule"  # as it is, not as a formula
    figure.text(0.03, 0.955, shown, fontsize=17, weight="bold", color="#222222")
    subtitle = "The model outlines Final alone, without an interval"
    if result.hc is not None:
        subtitle = "What every reader, most readers and any reader would include"
    figure.text(0.03, 0.927, subtitle, fontsize=11, color="#555555")
    for number in range(3):
        view.plane(figure.add_subplot(grid[0, 4 * number : 4 * number + 4]), number)
    view.legend(figure)
    for number, slice_index in enumerate(view.montage(6)):
        view.axial_slice(figure.add_subplot(grid[1, 2 * number : 2 * number + 2]), slice_index)
    view.probability(figure, figure.add_subplot(grid[2, 0:4]))
    _table(figure.add_subplot(grid[2, 4:12]), result.measurements)
    note = "Research use only, not for diagnosis."
    if model:
        note += f"  Model {model}."
    figure.text(0.03, 0.02, note, fontsize=9, color="#777777")
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


class _View:
    """The CT around the nodule and the outlines, as arrays whose first index is the slice nearest to axial."""

    def __init__(self, ct: sitk.Image, result: FigureSource, margin_mm: float):
        region = Grid.of(result.final)
        masks = {"final": sitk.GetArrayFromImage(result.final) > 0}
        if result.hc is not None and result.lc is not None:
            masks["hc"] = sitk.GetArrayFromImage(result.hc) > 0
            masks["union"] = masks["hc"] | (sitk.GetArrayFromImage(result.lc) > 0)
        self.widest = "union" if "union" in masks else "final"
        used = np.argwhere(masks[self.widest])[:, ::-1]
        corners = region.indices_to_points([used.min(0), used.max(0)])
        self.grid = region_of_interest(ct, corners, margin_mm)
        # The CT's axis that lies nearest to the patient's long axis is the one that slices are stacked along.
        self.through = max(range(3), key=lambda a: abs(self.grid.direction[6 + a]))
        self.order = [self.through, *(a for a in (2, 1, 0) if a != self.through)]
        self.letters = axis_letters(self.grid.direction)
        self.spacing = self.grid.spacing

        def turned(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array.transpose([2 - a for a in self.order]))

        self.hu = turned(sitk.GetArrayFromImage(crop(ct, self.grid)).astype(float))
        self.masks = {
            key: turned(put_back(masks[key].astype(np.float32), region, self.grid)) for key in _OUTLINES if key in masks
        }
        shown, self.map_title = result.multi_confidence_map, "confidence (mean of union and intersection)"
        if shown is None:
            shown = result.probability_final
            self.map_title = "soft mask, with Final" if result.final_map == "soft" else "probability of Final"
        self.map = turned(put_back(sitk.GetArrayFromImage(shown), region, self.grid))
        self.center = np.round(np.argwhere(self.masks["final"] >= 0.5).mean(0)).astype(int)

    def _image(
        self,
        axes: Axes,
        array: np.ndarray,
        row_axis: int,
        column_axis: int,
        outlines: dict[str, np.ndarray],
        **options: Any,
    ) -> AxesImage:
        """One image with physical aspect, patient-up and patient-right on the left as radiologists expect."""
        from matplotlib.patheffects import withStroke

        height, width = array.shape
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        aspect = self.spacing[row_axis] / self.spacing[column_axis]
        shown = axes.imshow(array, extent=extent, aspect=aspect, interpolation="bicubic", **options)
        for key, mask in outlines.items():
            if (mask >= 0.5).any():
                _, color, style = _OUTLINES[key]
                drawn = axes.contour(mask, levels=[0.5], colors=[color], linestyles=[style], linewidths=1.7)
                if key == "hc":
                    drawn.set_path_effects([withStroke(linewidth=2.9, foreground=_HALO)])
        # Up is anterior in axial planes and superior in the others; left is the patient's right or anterior.
        if self.letters[row_axis][0] in "PI":
            axes.invert_yaxis()
        if self.letters[column_axis][0] in "LP":
            axes.invert_xaxis()
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        return shown

    def _take(self, number: int, index: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, int, int]:
        """HU, masks and map of plane 0 (a slice), 1 or 2 (across the slices) at an index; its row and column axis."""
        row, column = [(1, 2), (0, 2), (0, 1)][number]
        pick = tuple(index if a == number else slice(None) for a in range(3))
        masks = {key: value[pick] for key, value in self.masks.items()}
        return self.hu[pick], masks, self.map[pick], self.order[row], self.order[column]

    def plane(self, axes: Axes, number: int) -> None:
        """Draws plane 0 (a slice), 1 or 2 (across the slices) through the nodule's center, with letters and a scale."""
        from matplotlib.patheffects import withStroke

        hu, masks, _, row, column = self._take(number, self.center[number])
        self._image(axes, hu, row, column, masks, cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1])
        through = "".join(sorted(self.letters[self.order[number]]))
        axes.set_title({"IS": "axial", "AP": "coronal", "LR": "sagittal"}[through], fontsize=11, loc="left")
        left, right = self._ends(axes, column, horizontal=True)
        top, bottom = self._ends(axes, row, horizontal=False)
        dark = [withStroke(linewidth=2.5, foreground="#333333")]  # legible on bright tissue too
        style: dict[str, Any] = {"fontsize": 10, "weight": "bold", "color": "white", "path_effects": dark}
        style["transform"] = axes.transAxes
        axes.text(0.02, 0.5, left, va="center", **style)
        axes.text(0.98, 0.5, right, va="center", ha="right", **style)
        axes.text(0.5, 0.98, top, va="top", ha="center", **style)
        axes.text(0.5, 0.02, bottom, ha="center", **style)
        length = 10 / self.spacing[column] / hu.shape[1]
        line: dict[str, Any] = {"color": "white", "transform": axes.transAxes}
        wide = [withStroke(linewidth=5, foreground="#333333")]
        axes.plot([0.05, 0.05 + length], [0.07, 0.07], linewidth=3, path_effects=wide, **line)
        axes.text(0.05, 0.095, "10 mm", fontsize=9, path_effects=dark, **line)

    def _ends(self, axes: Axes, axis: int, horizontal: bool) -> tuple[str, str]:
        low, high = self.letters[axis]
        inverted = axes.xaxis_inverted() if horizontal else not axes.yaxis_inverted()
        return (high, low) if inverted else (low, high)

    def montage(self, count: int) -> np.ndarray:
        """Slices that cover the nodule from end to end, feet to head."""
        used = np.flatnonzero((self.masks[self.widest] >= 0.5).any((1, 2)))
        chosen = np.unique(np.round(np.linspace(used[0], used[-1], count)).astype(int))
        return chosen if self.letters[self.through][0] == "I" else chosen[::-1]

    def axial_slice(self, axes: Axes, index: int) -> None:
        """Draws a slice with the outlines; its title is the distance from the center towards the head."""
        hu, masks, _, row, column = self._take(0, index)
        self._image(axes, hu, row, column, masks, cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1])
        offset = (index - self.center[0]) * self.spacing[self.through]
        offset = offset if self.letters[self.through][1] == "S" else -offset
        axes.set_title(f"{offset:+.1f} mm" if index != self.center[0] else "center", fontsize=9, color="#555555")

    def probability(self, figure: Figure, axes: Axes) -> None:
        """Draws the central slice of the map, with Final and a color bar."""
        _, masks, values, row, column = self._take(0, self.center[0])
        shown = self._image(axes, values, row, column, {"final": masks["final"]}, cmap="cividis", vmin=0, vmax=1)
        axes.set_title(self.map_title, fontsize=10, loc="left")
        bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=0)

    def legend(self, figure: Figure) -> None:
        """Says which outline is which."""
        from matplotlib.lines import Line2D

        shown = list(_OUTLINES.values()) if "union" in self.masks else [_LONE_OUTLINE]
        handles = [Line2D([], [], color=c, linestyle=s, linewidth=2.2, label=t) for t, c, s in shown]
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.975, 0.985), fontsize=10, frameon=False)


def _table(axes: Axes, measurements: Measurements) -> None:
    axes.axis("off")
    axes.set_xlim(0, 1)
    rows = measurement_lines(measurements)
    step = 1 / (len(rows) + 1.6)
    has_interval = "interval" in measurements
    middle, right = (0.62, 0.97) if has_interval else (0.7, 0.7)
    for place, text, align in (
        (0.10, "", "left"),
        (middle, "Final", "right"),
        (right, "HC to HC and LC together" if has_interval else "", "right"),
    ):
        axes.text(place, 1 - 0.5 * step, text, ha=align, fontsize=10, color="#777777", va="center")
    for number, (name, value, interval) in enumerate(rows):
        height = 1 - (number + 1.5) * step
        axes.plot([0.1, right], [height + step / 2] * 2, color="#dddddd", linewidth=0.8)
        axes.text(0.10, height, name, fontsize=11, color="#333333", va="center")
        axes.text(middle, height, value, fontsize=12, weight="bold", ha="right", color="#111111", va="center")
        axes.text(right, height, interval, fontsize=11, ha="right", color="#333333", va="center")
