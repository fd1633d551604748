"""Outlines of every network beside reader 1's (UGS-Net, Fig. 6), and on the baseline's worst nodules (Fig. 10).

With the option `measures = "dsnet"` the readers' consensus takes reader 1's place, as in DSNet's papers.
"""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..store import Experiment, Record, Row, Store
from . import style
from .cases import (
    Case,
    baseline_row,
    common_fold,
    evenly,
    load_cases,
    networks_words,
    profile_words,
    quantile_picks,
    scored_dice,
)
from .drawn import Drawn
from .soft_masks import soft_masks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def qualitative(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """Nodules at quantiles of the baseline's DSC for all networks; `complex_nodules`; `soft_masks` if there are any."""
    fold, rows = common_fold(experiment, jobs)
    if not rows:
        return []
    baseline = baseline_row(experiment, rows)
    found = _Results(rows, fold, jobs, experiment)
    quantiles = evenly(int((experiment.get("options") or {}).get("nodules", 6)), 0.05, 0.95)
    chosen = quantile_picks(found.of_all(baseline["key"]), quantiles)
    if not chosen:
        return []
    caption = (
        f"Final outline of each network (green) and that of {found.whose} (white), with the DSC between the two on the "
        "slice. "
        f"Nodules: those at the percentiles {', '.join(f'{100 * q:.0f}' for q in quantiles)} of {baseline['label']}'s "
        f"DSC among the {len(found.cases)} nodules of test fold {fold}, so the first one lies in its worst decile. "
        f"Best DSC of a row in bold. {style.WINDOW_WORDS}. {networks_words(rows, fold, jobs)}"
        f"{profile_words(experiment)}"
    )
    table = [found.table_row(name) for name in chosen]
    figure = _draw_all(rows, [found.cases[name] for name in chosen], found)
    drawn = [Drawn("qualitative", "Every network on the same nodules", caption, figure, {"table": table, "fold": fold})]
    return drawn + complex_nodules(experiment, jobs) + soft_masks(experiment, jobs)


def complex_nodules(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn`: the `options["complex_nodules"]` (6) nodules with the baseline's lowest DSC, and what others gain.

    Rows: the baseline, option `ours` (else `reference`, `ugsnet` or the last row) and, if there, option `control` (a
    second baseline of another seed), which shows how much of the gain comes from the selection alone.
    """
    fold, rows = common_fold(experiment, jobs)
    if len(rows) < 2:
        return []
    options = experiment.get("options") or {}
    keys = {row["key"] for row in rows}
    baseline = baseline_row(experiment, rows)
    wanted = [options.get("ours"), options.get("reference"), "ugsnet", rows[-1]["key"], rows[0]["key"]]
    ours = next(key for key in wanted if key in keys and key != baseline["key"])
    by_key = {row["key"]: row for row in rows}
    shown = [baseline, by_key[ours]]
    control = options.get("control", f"{baseline['key']}_seed2")
    if control in keys and control not in (baseline["key"], ours):
        shown.append(by_key[control])
    found = _Results(shown, fold, jobs, experiment)
    score = found.of_all(baseline["key"])
    worst = sorted((value, name) for name, value in score.items() if math.isfinite(value))
    chosen = [name for _, name in worst[: int(options.get("complex_nodules", 6))]]
    if not chosen:
        return []
    means = {row["key"]: found.mean(row["key"], chosen) for row in shown}
    gains = ", ".join(f"{row['label']} {100 * means[row['key']]:.1f} %" for row in shown)
    caption = (
        f"Selected on {baseline['label']}'s failures: the {len(chosen)} nodules with its lowest DSC against "
        f"{found.whose} among the {len(found.cases)} of test fold {fold}. Chosen like this, any second network gains, "
        "even the same one trained again, as part of a low score is chance: read the gain against the control's, "
        + ("the last row. " if len(shown) > 2 else "which isn't among these jobs. ")
        + f"Mean DSC here: {gains}. White: {found.whose}; green: final. {style.WINDOW_WORDS}. "
        f"{networks_words(shown, fold, jobs)}{profile_words(experiment)}"
    )
    figure = _draw_complex(shown, [found.cases[name] for name in chosen], found)
    table = [found.table_row(name) for name in chosen]
    title = f"Complex nodules: {baseline['label']}'s lowest DSC"
    return [Drawn("complex-nodules", title, caption, figure, {"table": table, "fold": fold, "mean_dsc": means})]


class _Results:
    """Cases of the first row, every row's final maps and DSC by nodule, and what the DSC is against."""

    def __init__(self, rows: Sequence[Row], fold: int, jobs: Store, experiment: Experiment):
        self.rows = rows
        self.against_consensus = (experiment.get("options") or {}).get("measures") == "dsnet"
        self.whose = "the readers' consensus" if self.against_consensus else "reader 1"
        self.head = "consensus" if self.against_consensus else "reader 1"
        column = "dsc_consensus" if self.against_consensus else "dsc_label1"
        own = {row["key"]: jobs.row_jobs(row)[fold] for row in rows}
        self.dice = {key: scored_dice(job, jobs, column) for key, job in own.items()}
        loaded = {key: {case.nodule_id: case for case in load_cases(job, jobs)} for key, job in own.items()}
        self.cases = loaded[rows[0]["key"]]
        self.final = {key: {name: case.maps["final"] for name, case in by.items()} for key, by in loaded.items()}

    def of_all(self, key: str) -> dict[str, float]:
        """DSC by nodule of a row, for the nodules that every row has."""
        shared = set(self.cases).intersection(*(set(maps) for maps in self.final.values()))
        return {name: value for name, value in self.dice[key].items() if name in shared}

    def mean(self, key: str, names: Sequence[str]) -> float:
        """Mean DSC of a row over some nodules, those without one left out."""
        values = [self.dice[key].get(name, math.nan) for name in names]
        values = [value for value in values if math.isfinite(value)]
        return round(sum(values) / len(values), 4) if values else math.nan

    def table_row(self, name: str) -> Record:
        """A nodule's DSC of every row."""
        case = self.cases[name]
        dice = {row["label"]: self.dice[row["key"]].get(name, math.nan) for row in self.rows}
        shown = {label: round(value, 4) if math.isfinite(value) else None for label, value in dice.items()}
        return {"nodule": name, "diameter_mm": round(case.diameter_mm, 2), **shown}

    def truth(self, case: Case) -> np.ndarray:
        """What the DSC is against, (H, W) bool."""
        return case.consensus if self.against_consensus else case.readers[0]

    def view(self, case: Case) -> style.View:
        """Limits of a panel that holds the truth and every row's mask."""
        maps = [self.final[row["key"]][case.nodule_id] >= 0.5 for row in self.rows]
        return style.field_of_view([self.truth(case), *maps], case.spacing)

    def panel(
        self, axes: "Axes", case: Case, row: Row, view: style.View, bold: bool = False, size: float = 8.5
    ) -> None:
        style.show_ct(axes, case.hu, case.spacing, view)
        style.outline(axes, self.truth(case), "#f2f2f2", width=0.9)
        style.outline(axes, self.final[row["key"]][case.nodule_id], style.FINAL, width=1.5)
        value = self.dice[row["key"]].get(case.nodule_id, math.nan)
        words = f"{100 * value:.1f}" if math.isfinite(value) else "–"
        style.note(axes, words, size=size)
        if bold:
            axes.texts[-1].set_fontweight("bold")


def _draw_all(rows: Sequence[Row], cases: Sequence[Case], found: _Results) -> "Figure":
    left, gap = 1.02, 0.05
    letters = max(int(12.5 * ((style.PAGE_WIDTH - left) / (1 + len(rows)) - gap)), 8)
    heads = [fill(label, letters) for label in (found.head, *(row["label"] for row in rows))]
    tall = 0.4 + 0.15 * (1 + max(head.count("\n") for head in heads))
    figure, axes, side = style.panel_grid(len(cases), 1 + len(rows), left=left, top=tall, bottom=0.06, gap=gap)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=9, color=style.TEXT, pad=3)
    for line, case in zip(axes, cases, strict=True):
        view = found.view(case)
        style.row_label(figure, line[0], [case.short_id, f"{case.diameter_mm:.1f} mm"])
        style.show_ct(line[0], case.hu, case.spacing, view)
        style.outline(line[0], found.truth(case), "#f2f2f2", width=0.9)
        style.scale_bar(line[0], case.spacing, view)
        values = [found.dice[row["key"]].get(case.nodule_id, math.nan) for row in rows]
        best = max((v for v in values if math.isfinite(v)), default=math.nan)
        for axis, row, value in zip(line[1:], rows, values, strict=True):
            found.panel(axis, case, row, view, bold=value == best, size=8.5 if side > 1 else 7.5)
    _legend(figure, found)
    return figure


def _draw_complex(rows: Sequence[Row], cases: Sequence[Case], found: _Results) -> "Figure":
    figure, axes, _ = style.panel_grid(1 + len(rows), len(cases), left=1.22, top=0.78, bottom=0.06)
    for axis, case in zip(axes[0], cases, strict=True):
        axis.set_title(f"{case.short_id}\n{case.diameter_mm:.1f} mm", fontsize=9, color=style.TEXT, pad=3)
    views = [found.view(case) for case in cases]
    style.row_label(figure, axes[0][0], [found.head])
    for axis, case, view in zip(axes[0], cases, views, strict=True):
        style.show_ct(axis, case.hu, case.spacing, view)
        style.outline(axis, found.truth(case), "#f2f2f2", width=0.9)
        style.scale_bar(axis, case.spacing, view)
    for number, (line, row) in enumerate(zip(axes[1:], rows, strict=True)):
        role = ("nodules chosen on its DSC", "", "control")[number]
        style.row_label(figure, line[0], [row["label"], *([role] if role else [])])
        for axis, case, view in zip(line, cases, views, strict=True):
            found.panel(axis, case, row, view)
    _legend(figure, found)
    return figure


def _legend(figure: "Figure", found: _Results) -> None:
    entries: list[style.Entry] = [
        (found.whose, "#9a9a9a", "solid"),
        (f"Final, predicted; the number is its DSC against {found.whose} in %", style.FINAL, "solid"),
    ]
    style.legend(figure, entries, y_inches=0.08)
