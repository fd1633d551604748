"""Soft masks: what the matting between the readers makes, and what networks with a soft output predict (DSNet)."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ...config import SoftLabel
from ...data.soft_labels import soft_label
from ..store import Experiment, Row, Store
from . import style
from .cases import Case, common_fold, evenly, load_cases, networks_words, profile_words, quantile_picks
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = "viridis"


def soft_masks(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn`: a row a nodule at quantiles of the readers' disagreement; CT, soft label, each network's soft mask.

    Empty where no row's network has a soft output. The label is the configuration's own, made from the stored slice.
    """
    fold, rows = common_fold(experiment, jobs)
    rows = [row for row in rows if "soft" in jobs.predictions(jobs.row_jobs(row)[fold])]
    if not rows:
        return []

    cases = load_cases(jobs.row_jobs(rows[0])[fold], jobs)
    quantiles = evenly(int((experiment.get("options") or {}).get("soft_nodules", 4)), 0.05, 0.95)
    picks = quantile_picks({case.nodule_id: case.disagreement for case in cases}, quantiles)
    known = {case.nodule_id: case for case in cases}
    chosen = [known[name] for name in picks]
    kind: SoftLabel = jobs.manifest(jobs.row_jobs(rows[0])[fold])["config"]["data"]["soft_label"] or "soft_mask"
    labels = {c.nodule_id: soft_label(kind, c.hu.astype(np.float32), c.readers, tuple(c.spacing)) for c in chosen}
    predicted, table = {}, []
    for row in rows:
        arrays = jobs.predictions(jobs.row_jobs(row)[fold])
        place = {str(name): i for i, name in enumerate(arrays["nodule_id"])}
        for case in chosen:
            if case.nodule_id in place:
                soft = arrays["soft"][place[case.nodule_id]].astype(np.float32)
                predicted[row["key"], case.nodule_id] = soft
                error = float(np.abs(soft - labels[case.nodule_id]).mean())
                table.append(
                    {"nodule": case.nodule_id, "network": row["label"], "mean_absolute_error": round(error, 4)}
                )
    places = ", ".join(f"{100 * q:.0f}" for q in quantiles)
    caption = (
        f"Soft label ({kind}) and predicted soft masks, from 0 (background) to 1 (nodule); white: what at least half "
        f"of the readers include; green: where the soft mask is 0.5. Nodules: those at the percentiles {places} of the "
        f"readers' disagreement among the {len(cases)} of test fold {fold}. {style.WINDOW_WORDS}. "
        f"{networks_words(rows, fold, jobs)}{profile_words(experiment)}"
    )
    figure = _draw(rows, chosen, labels, predicted)
    return [Drawn("soft-masks", "Soft masks, label and predicted", caption, figure, {"table": table, "fold": fold})]


def _draw(
    rows: Sequence[Row],
    cases: Sequence[Case],
    labels: Mapping[str, np.ndarray],
    predicted: Mapping[tuple[str, str], np.ndarray],
) -> "Figure":
    width = min(style.PAGE_WIDTH, 1.1 + 2.6 * (2 + len(rows)) + 0.75)
    letters = max(int(12.5 * (width - 1.85) / (2 + len(rows))), 8)
    heads = ["CT", "soft label", *(fill(row["label"], letters) for row in rows)]
    top = 0.55 + 0.15 * max(head.count("\n") for head in heads)
    figure, axes, _ = style.panel_grid(
        len(cases), 2 + len(rows), left=1.1, right=0.75, top=top, bottom=0.08, width=width
    )
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=9, color=style.TEXT, pad=3)
    for line, case in zip(axes, cases, strict=True):
        view = style.field_of_view(case.any_reader, case.spacing)
        words = [case.short_id, f"{case.diameter_mm:.1f} mm", f"disagree on {100 * case.disagreement:.0f} %"]
        style.row_label(figure, line[0], words)
        style.show_ct(line[0], case.hu, case.spacing, view)
        style.scale_bar(line[0], case.spacing, view)
        style.outline(line[0], case.consensus, "#f2f2f2", width=0.9)
        maps = [labels[case.nodule_id], *(predicted.get((row["key"], case.nodule_id)) for row in rows)]
        for axis, soft in zip(line[1:], maps, strict=True):
            if soft is None:
                style.bare(axis)
                continue
            shown = style.show(axis, soft, case.spacing, view, cmap=COLORS, vmin=0, vmax=1)
            style.outline(axis, case.consensus, "#f2f2f2", width=0.9)
            style.outline(axis, soft, style.FINAL, width=1.4)
    style.color_bar(figure, axes[0][-1], shown)
    entries: list[style.Entry] = [
        ("consensus of the readers", "#9a9a9a", "solid"),
        ("soft mask = 0.5", style.FINAL, "solid"),
    ]
    style.legend(figure, entries, y_inches=0.08)
    return figure
