"""The Multi-Confidence Mask of several nodules beside the maps that it is made of (UGS-Net, Fig. 7)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..store import Experiment, Store
from . import style
from .cases import Case, evenly, load_cases, network_words, profile_words, quantile_picks, uncertainty_row
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

COLUMNS = ("CT", "readers", "intersection", "union", "final", "Multi-Confidence Mask")
TINTS = {"intersection": style.HC, "union": style.LC, "final": style.FINAL}


def multi_confidence_mask(case: Case) -> np.ndarray:
    """MCM = (union + intersection) / 2 of the probability maps, (H, W) in [0, 1]; UGS-Net's Normal() is read as /2."""
    return (case.maps["union"] + case.maps["intersection"]) / 2


def _tint(color: str) -> "LinearSegmentedColormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("tint", ["white", color])


def gallery(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn`: `options["nodules"]` (8) nodules at even quantiles of the readers' disagreement, a row each."""
    row = uncertainty_row(experiment, jobs)
    if row is None:
        return []
    fold, job = next(iter(jobs.row_jobs(row).items()))
    cases = {case.nodule_id: case for case in load_cases(job, jobs)}
    quantiles = evenly(int((experiment.get("options") or {}).get("nodules", 8)), 0.05, 0.95)
    picks = quantile_picks({name: case.disagreement for name, case in cases.items()}, quantiles)
    if not picks:
        return []
    chosen = [cases[name] for name in picks]
    places = ", ".join(f"{100 * q:.0f}" for q in quantiles)
    caption = (
        f"Maps of {row['label']} on {len(chosen)} of the {len(cases)} nodules of test fold {fold}: those at the "
        f"percentiles {places} of the readers' disagreement (area of union without intersection over area of union), "
        "a rule that looks at no prediction. Maps are probabilities from 0 (white) to 1. The Multi-Confidence Mask is "
        "the mean of union and intersection, with HC (intersection at least 0.5), the border of HC and LC together "
        "(union at least 0.5) and final (at least 0.5) as outlines. Each nodule at its own scale; "
        f"{style.WINDOW_WORDS}. Network: {network_words(jobs.manifest(job))}.{profile_words(experiment)}"
    )
    table = [
        {
            "nodule": case.nodule_id,
            "diameter_mm": round(case.diameter_mm, 2),
            "readers": len(case.readers),
            "disagreement": round(case.disagreement, 4),
            "predicted_disagreement": _predicted_disagreement(case),
        }
        for case in chosen
    ]
    return [Drawn("gallery", "Multi-Confidence Masks", caption, _draw(chosen), {"table": table, "fold": fold})]


def _predicted_disagreement(case: Case) -> float | None:
    hc = case.maps["intersection"] >= 0.5
    union = (case.maps["union"] >= 0.5) | hc
    return round(float(1 - hc.sum() / union.sum()), 4) if union.any() else None


def _draw(cases: Sequence[Case]) -> "Figure":
    figure, axes, side = style.panel_grid(len(cases), len(COLUMNS), left=1.22, top=0.62, bottom=0.42)
    for column, name in enumerate(COLUMNS):
        axes[0][column].set_title(name, fontsize=10, color=style.TEXT, pad=4)
    for line, case in zip(axes, cases, strict=True):
        predicted = [case.maps[name] >= 0.5 for name in TINTS]
        view = style.field_of_view([case.any_reader, *predicted], case.spacing)
        words = [
            case.short_id,
            f"{case.diameter_mm:.1f} mm",
            f"{len(case.readers)} readers",
            f"disagree {100 * case.disagreement:.0f} %",
        ]
        style.row_label(figure, line[0], words)
        style.show_ct(line[0], case.hu, case.spacing, view)
        style.scale_bar(line[0], case.spacing, view)
        style.show_ct(line[1], case.hu, case.spacing, view)
        for reader in case.readers[:0:-1]:
            style.outline(line[1], reader, "#cccccc", width=0.9)
        style.outline(line[1], case.readers[0], "white", width=1.5)
        for axis, (name, color) in zip(line[2:5], TINTS.items(), strict=True):
            style.show(axis, case.maps[name], case.spacing, view, cmap=_tint(color), vmin=0, vmax=1)
            style.outline(axis, case.maps[name], "#222222", width=0.9, halo=None)
        style.show(line[5], multi_confidence_mask(case), case.spacing, view, cmap=_tint("#8a8a8a"), vmin=0, vmax=1)
        style.outline(line[5], case.maps["union"], style.LC, style=(0, (3, 1.2)), width=1.8, halo=None)
        style.outline(line[5], case.maps["final"], style.FINAL, width=1.8, halo="white")
        style.outline(line[5], case.maps["intersection"], style.HC, width=1.8, halo="white")
    entries: list[style.Entry] = [
        ("reader 1 (white; others thin)", "#9a9a9a", "solid"),
        ("HC: every reader", style.HC, "solid"),
        ("Final", style.FINAL, "solid"),
        ("HC and LC together: any reader", style.LC, (0, (3, 1.2))),
        ("probability 0.5", "#222222", "solid"),
    ]
    style.legend(figure, entries, y_inches=0.08)
    for axis, color in zip(axes[-1][2:], (*TINTS.values(), "#8a8a8a"), strict=True):
        _scale(figure, axis, color, side)
    return figure


def _scale(figure: "Figure", axes: "Axes", color: str, side: float) -> None:
    """A bar of the probability scale under a column."""
    width, height = figure.get_size_inches()
    box = axes.get_position()
    bar = figure.add_axes((box.x0 + 0.22 * side / width, 0.2 / height, 0.56 * side / width, 0.1 / height))
    bar.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=_tint(color), vmin=0, vmax=1)
    style.bare(bar)
    for x, text, align in ((-0.06, "0", "right"), (1.06, "1", "left")):
        bar.text(x, 0.5, text, transform=bar.transAxes, ha=align, va="center", fontsize=8, color=style.MUTED)
