"""Readers, consensus and networks: a map of who agrees with whom, and how far a network is ahead of each reader."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ...metrics import MetricError
from ...metrics.agreement import pair_numbers
from ..reader_rows import NAMES, ReaderRow, reader_rows
from ..store import Experiment, Store
from . import style
from .cases import profile_words
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_COLUMNS = 3
MARKERS = ("o", "s", "^", "D", "v", "P")
COLORS = (style.HC, style.FINAL, style.LC, "#CC79A7", "#56B4E9", "#D55E00")


def readers(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn`: mean Dice of every reader and network with every reader and consensus; differences per reader."""
    rows, _ = reader_rows(experiment, jobs)
    if not rows:
        return []
    first = rows[0]
    drew = int(first.agreement.complete.sum())
    caption = (
        "a: mean Dice of the row's masks with the column's over test nodules that all four readers marked "
        f"({_counts(rows)}); on {drew} of {first.label}'s nodules all four drew on the slice that is shown to the "
        "network. D1 to D4: readers in the order of the annotation files, which is anonymous and not the same persons "
        "in every scan. “All four”: what at least two of the four include, so a reader's own mask is part of it. "
        "“Others”: of each reader in turn, what at least two of the other three include; a network's value is the mean "
        "over the four such consensuses. b: network minus reader, nodule by nodule, both against the consensus of the "
        "other three, with the 95 % bootstrap interval over patients; right of zero the network is closer. Readers' "
        f"values: on {first.label}'s nodules.{profile_words(experiment)}"
    )
    return [Drawn("agreement", "Who agrees with whom", caption, _draw(rows))]


def _counts(rows: Sequence[ReaderRow]) -> str:
    words = {f"{len(r.nodules)} nodules of {len(set(r.patients))} patients, {_folds(r.folds)}" for r in rows}
    if len(words) == 1:
        return words.pop()
    return "; ".join(f"{r.label}: {len(r.nodules)} of {len(set(r.patients))} patients" for r in rows)


def _folds(folds: Sequence[int]) -> str:
    return f"fold{'s' * (len(folds) > 1)} " + ", ".join(map(str, folds))


def _matrix(rows: Sequence[ReaderRow]) -> np.ndarray:
    """Mean Dice: readers, then networks, by the readers, the consensus of all and that of the others; NaN: itself."""
    own, count = rows[0].agreement, len(NAMES)
    matrix = np.full((count + len(rows), count + 2), np.nan)
    for (i, j), value in zip(pair_numbers(count), own.pairs.mean(0), strict=True):
        matrix[i, j] = matrix[j, i] = value
    matrix[:count, count] = own.reader_consensus.mean(0)
    matrix[:count, count + 1] = own.reader_others.mean(0)
    for line, row in zip(matrix[count:], rows, strict=True):
        a = row.agreement
        line[:] = [*a.network_reader.mean(0), a.network_consensus.mean(), a.network_others.mean()]
    return 100 * matrix


def _draw(rows: Sequence[ReaderRow]) -> "Figure":
    matrix, count = _matrix(rows), len(NAMES)
    labels = [*NAMES, *(fill(row.label, 16) for row in rows)]
    legend_lines = -(-len(rows) // LEGEND_COLUMNS)
    top, bottom, tall = 0.4 + 0.22 * legend_lines, 0.5, 0.44 * len(labels)
    height = top + tall + bottom
    figure = style.new_figure(style.PAGE_WIDTH, height)
    axes = figure.add_axes((0.12, bottom / height, 0.405, tall / height))
    finite = matrix[np.isfinite(matrix)]
    shown = axes.imshow(matrix, cmap="viridis", aspect="auto", vmin=finite.min(), vmax=max(finite.max(), 1e-6))
    half = (finite.min() + finite.max()) / 2
    for (i, j), value in np.ndenumerate(matrix):
        text, color = ("–", style.MUTED) if np.isnan(value) else (f"{value:.1f}", "white" if value < half else "black")
        axes.text(j, i, text, ha="center", va="center", fontsize=9.5, color=color)
    axes.set_xticks(range(count + 2), [*NAMES, "all four", "others"], fontsize=9)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.axhline(count - 0.5, color="white", linewidth=3)
    axes.axvline(count - 0.5, color="white", linewidth=3)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.535, bottom / height, 0.01, tall / height)))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    _forest(figure.add_axes((0.67, bottom / height, 0.315, tall / height)), rows)
    titles = ((0.12, "a   mean Dice, %"), (0.67, "b   closer to the others' consensus than the reader?"))
    for x, text in titles:
        figure.text(x, 1 - 0.22 / height, text, fontsize=10.5, color=style.TEXT)
    return figure


def _forest(axes: "Axes", rows: Sequence[ReaderRow]) -> None:
    lines = [*NAMES, "mean of the four"]
    axes.axvline(0, color="#999999", linewidth=0.9)
    step = 0.7 / max(len(rows), 1)
    for number, row in enumerate(rows):
        try:
            tests = row.agreement.differences(row.patients)
        except MetricError:  # one nodule alone has no interval
            continue
        at = np.arange(len(lines)) + (number - (len(rows) - 1) / 2) * step
        middle = 100 * np.array([t.mean_difference for t in tests])
        ends = 100 * np.array([[t.mean_difference - t.low, t.high - t.mean_difference] for t in tests]).T
        axes.errorbar(
            middle,
            at,
            xerr=np.maximum(ends, 0),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=5,
            linewidth=1.4,
            capsize=2.5,
            label=row.label,
        )
    axes.set_yticks(range(len(lines)), lines, fontsize=9)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.axhline(len(lines) - 1.5, color="#cccccc", linewidth=0.8)
    axes.set_xlabel("network minus reader, points of Dice", fontsize=9, color=style.TEXT)
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=LEGEND_COLUMNS, fontsize=8.5, frameon=False)
