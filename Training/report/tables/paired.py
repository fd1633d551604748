"""Paired tests of an experiment's rows against its reference row, nodule by nodule."""

import math
from collections.abc import Mapping, Sequence

from ...metrics import MetricError, paired_test
from ..measures import Measure, measure_set
from ..summary import RowResult, common, same_nodules
from ..text import fold_text, p_text, show, signed
from .table import Cell, Head, Record, Table

__all__ = ["holm", "paired_records", "paired_table"]


def _interval(measure: Measure, record: Record) -> str:
    """The ends as text; a dash where all nodules are of one patient, so that there is no interval."""
    if not math.isfinite(record["low"]):
        return "–"
    return f"{signed(measure.show, record['low'])} to {signed(measure.show, record['high'])}"


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family, in the given order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, running = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = running
    return adjusted


def paired_records(
    rows: Sequence[RowResult],
    reference: RowResult | None,
    tested: Sequence[Measure] | None = None,
    references: Mapping[str, RowResult] | None = None,
) -> list[Record]:
    """A dict for every row but the reference and every tested measure: row minus reference on their common folds.

    tested: measures (without them the usual ones); references: {key of a row: its own reference row} for rows that are
    compared with another one than `reference` (which may then be None: the others aren't tested). Rows with other test
    nodules in those folds (split by nodule, say) are left out.
    """
    records = []
    for measure in tested or measure_set({}).tested:
        family: list[Record] = []
        for row in rows:
            other = (references or {}).get(row.key, reference)
            if other is None or row is other:
                continue
            folds = set(row.jobs) & set(other.jobs)
            if not folds or not same_nodules(row, other, folds):
                continue
            a, b, patients = common(row, other, measure.key)
            try:
                test = paired_test(a, b, groups=patients)
            except MetricError:
                continue  # fewer than two common nodules, or a measure that the row doesn't have
            family.append(
                {
                    "measure": measure.key,
                    "row": row.key,
                    "label": row.label,
                    "reference": other.key,
                    "reference_label": other.label,
                    "folds": fold_text(folds),
                    "nodules": test.n,
                    "patients": test.groups,
                    "difference": test.mean_difference,
                    "low": test.low,
                    "high": test.high,
                    "wilcoxon_p": test.wilcoxon_p,
                    "t_p": test.t_p,
                    "dz": test.dz,
                    "rank_biserial": test.rank_biserial,
                }
            )
        for record, adjusted in zip(family, holm([r["wilcoxon_p"] for r in family]), strict=True):
            record["wilcoxon_p_holm"] = adjusted
        records += family
    return records


def paired_table(
    name: str, records: list[Record], reference: RowResult | None, tested: Sequence[Measure] | None = None
) -> Table:
    """The records for reading; reference: the row of all of them, or None where they have different ones."""
    measures = {m.key: m for m in tested or measure_set({}).tested}
    label = reference.label if reference else "its reference"
    table = Table(
        name,
        f"Paired tests against {label}." if reference else "Paired tests, each network against its own reference.",
        f"Row minus {label} nodule by nodule, over all folds that both have (for GED and other measures where "
        "less is better, below zero is better; in points of per cent where the measure is in %). The 95 % interval is "
        "a bootstrap that draws whole patients. Wilcoxon's signed-rank test and the paired t test take nodules as "
        "independent; Holm's correction is over the rows of one measure. dz: mean over standard deviation of the "
        "differences. Each row is one trained network a fold: the tests speak about these networks on new nodules, not "
        "about training them again.",
        [
            [
                Head("Network", False),
                *([] if reference else [Head("Reference", False)]),
                Head("Measure", False),
                Head("Nodules (patients)"),
                Head("Difference"),
                Head("95 % interval"),
                Head("p Wilcoxon"),
                Head("Holm"),
                Head("p t"),
                Head("dz"),
            ]
        ],
        records=records,
    )
    last = None
    for r in records:
        measure = measures[r["measure"]]
        sure = r["low"] > 0 or r["high"] < 0
        cells = [
            Cell(r["label"], False),
            *([] if reference else [Cell(r["reference_label"], False)]),
            Cell(measure.heading, False),
            Cell(f"{r['nodules']:,} ({r['patients']:,})"),
            Cell(signed(measure.show, r["difference"]), bold=sure),
            Cell(_interval(measure, r)),
            Cell(p_text(r["wilcoxon_p"])),
            Cell(p_text(r["wilcoxon_p_holm"])),
            Cell(p_text(r["t_p"])),
            Cell(show(r["dz"], 2) if math.isfinite(r["dz"]) else "∞"),
        ]
        kind = " ".join(
            k for k in ("human" if r["row"] == "human" else "", "start" if r["measure"] != last else "") if k
        )
        table.rows.append((kind, cells))
        last = r["measure"]
    table.caption += " Bold: the interval excludes zero."
    return table
