"""Gains on the nodules that a baseline segments worst (UGS-Net, Table III), with the controls that such a table needs.

Whoever picks a network's worst nodules picks its bad luck as well: any other network does better there, even the same
one with another seed (regression to the mean). So every gain stands beside that of a second-seed baseline on the same
nodules, and beside the gain that the baseline has on the worst nodules of the other network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...metrics import MetricError, paired_test
from ..store import Experiment, JobError, Store
from ..summary import RowResult, human_row, load_rows
from ..text import show_percent, signed
from .table import Record

__all__ = ["METRICS", "complex_records", "complex_sentences", "interval", "join_rows", "points", "threshold_text"]

METRICS = {"dsc": "dsc_label1", "iou": "iou_label1"}


@dataclass
class Joined:
    """The nodules that baseline and ours both have: (N,) arrays. ``values[role][metric]``: share, NaN where absent."""

    fold: np.ndarray
    patient: np.ndarray
    values: dict[str, dict[str, np.ndarray]]
    labels: dict[str, str]


def join_rows(store: Store, experiment: Experiment) -> tuple[Joined | None, dict[str, Any]]:
    """(Joined, options); Joined is None before baseline and ours share a fold. Raises JobError."""
    options = experiment.get("options") or {}
    rows = {row.key: row for row in load_rows(store, experiment)}
    roles = {}
    for role in ("baseline", "ours", "control"):
        key = options.get(role)
        if key is None and role == "control":
            continue
        if key not in rows:
            raise JobError(f"experiment {experiment['name']}: option {role} names no row: {key!r}")
        roles[role] = rows[key]
    folds = sorted(set(roles["baseline"].scores) & set(roles["ours"].scores))
    if not folds:
        return None, options
    human = human_row(store, [], roles["baseline"])
    if human:
        roles["human"] = human
    parts = [_join_fold(roles, fold) for fold in folds]
    values = {
        role: {metric: np.concatenate([part[2][role][metric] for part in parts]) for metric in METRICS}
        for role in parts[0][2]
    }
    labels = {role: row.label for role, row in roles.items()}
    fold, patient = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Joined(fold, patient, values, labels), options


def _join_fold(
    roles: dict[str, RowResult], fold: int
) -> tuple[np.ndarray, np.ndarray, dict[str, dict[str, np.ndarray]]]:
    base = roles["baseline"].scores[fold]
    known = set(roles["ours"].scores[fold]["nodule_id"])
    keep = np.array([n in known for n in base["nodule_id"]], bool)
    ids = base["nodule_id"][keep]
    values = {
        role: {m: _looked_up(row, fold, column, ids) for m, column in METRICS.items()} for role, row in roles.items()
    }
    return np.full(len(ids), fold), base["patient_id"][keep], values


def _looked_up(row: RowResult, fold: int, column: str, ids: np.ndarray) -> np.ndarray:
    if fold not in row.scores:
        return np.full(len(ids), np.nan)
    table = dict(zip(row.scores[fold]["nodule_id"], row.values(column, fold), strict=True))
    return np.array([table.get(name, np.nan) for name in ids], np.float64)


def complex_records(joined: Joined, thresholds: Sequence[float]) -> list[Record]:
    """A dict for every threshold, network that selects (baseline, ours, control) and fold ("pooled" for all)."""
    records = []
    selectors = [role for role in ("baseline", "ours", "control") if role in joined.values]
    for threshold in thresholds:
        for selector in selectors:
            chosen = joined.values[selector]["dsc"] <= threshold
            for fold in ["pooled", *np.unique(joined.fold).tolist()]:
                mask = chosen if fold == "pooled" else chosen & (joined.fold == fold)
                within = len(mask) if fold == "pooled" else int((joined.fold == fold).sum())
                records.append(_record(joined, mask, threshold, selector, fold, within))
    return records


def _record(joined: Joined, mask: np.ndarray, threshold: float, selector: str, fold: int | str, within: int) -> Record:
    record = {"threshold": threshold, "selected_by": selector, "fold": fold, "nodules": int(mask.sum())}
    record |= {"of": within, "patients": len(np.unique(joined.patient[mask]))}
    for role, metrics in joined.values.items():
        for metric, values in metrics.items():
            kept = values[mask]
            kept = kept[np.isfinite(kept)]
            record[f"{role}_{metric}"] = float(kept.mean()) if kept.size else None
    pairs = {
        "gain": ("ours", "baseline"),
        "control_gain": ("control", "baseline"),
        "beyond_control": ("ours", "control"),
    }
    for name, (first, second) in pairs.items():
        for metric in METRICS:
            record |= _difference(joined, mask, first, second, metric, name if metric == "dsc" else f"{name}_{metric}")
    return record


def _difference(joined: Joined, mask: np.ndarray, first: str, second: str, metric: str, name: str) -> Record:
    if first not in joined.values or second not in joined.values:
        return {name: None}
    a, b = joined.values[first][metric][mask], joined.values[second][metric][mask]
    pairs = np.isfinite(a) & np.isfinite(b)
    record = {name: float((a - b)[pairs].mean()) if pairs.any() else None, f"{name}_n": int(pairs.sum())}
    try:
        test = paired_test(a, b, groups=joined.patient[mask])
    except MetricError:  # fewer than two nodules: no interval
        return record | {f"{name}_low": None, f"{name}_high": None, f"{name}_p": None, f"{name}_dz": None}
    return record | {
        f"{name}_low": test.low,
        f"{name}_high": test.high,
        f"{name}_p": test.wilcoxon_p,
        f"{name}_dz": test.dz,
    }


def points(value: float | None) -> str:
    """A difference in points of per cent, with its sign."""
    return signed(show_percent, value) if value is not None else "–"


def interval(record: Record, name: str) -> str:
    """ "low to high" of a difference, empty where there is none."""
    if record.get(f"{name}_low") is None:
        return ""
    return f"{points(record[f'{name}_low'])} to {points(record[f'{name}_high'])}"


def threshold_text(value: float) -> str:
    """ "≤ 60 %"."""
    return f"≤ {100 * value:.0f} %"


def complex_sentences(records: Sequence[Record], labels: dict[str, str]) -> list[str]:
    """What the controls say, a sentence or two a threshold, from the pooled numbers alone."""
    found = {(r["threshold"], r["selected_by"]): r for r in records if r["fold"] == "pooled"}
    sentences = []
    for threshold, selector in sorted(found):
        if selector == "baseline":
            record = found[threshold, selector]
            text = [f"DSC of {labels['baseline']} {threshold_text(threshold)}:"]
            text.append(_own_gain(record, labels))
            if record["nodules"]:
                text.append(_control_gain(record, labels))
            text.append(_reversed_gain(found[threshold, "ours"], labels))
            sentences.append(" ".join(part for part in text if part))
    return sentences


def _own_gain(record: Record, labels: dict[str, str]) -> str:
    if not record["nodules"]:
        return "no nodule falls in this group."
    change = "gains" if record["gain"] >= 0 else "loses"
    nodules = "nodule" if record["nodules"] == 1 else "nodules"
    return (
        f"on these {record['nodules']} {nodules} {labels['ours']} {change} {show_percent(abs(record['gain']))} points."
    )


def _control_gain(record: Record, labels: dict[str, str]) -> str:
    gain, control, beyond = record["gain"], record.get("control_gain"), record.get("beyond_control")
    if control is None or beyond is None:
        return "No second-seed network was run here, so it can't be told how much of it is regression to the mean."
    change = "gains" if control >= 0 else "loses"
    text = f"{labels['control']}, which differs in its seed alone, {change} {show_percent(abs(control))} points on them"
    if gain > 0 and 0 < control < gain:
        text += f", {100 * control / gain:.0f} % of that gain, by regression to the mean alone"
    elif gain > 0 and control >= gain:
        text += ", so that regression to the mean alone accounts for the whole gain"
    text += f". {labels['ours']} is {show_percent(abs(beyond))} points {'ahead of' if beyond >= 0 else 'behind'} it"
    if record.get("beyond_control_low") is None:
        return f"{text} (too few nodules for an interval)."
    low, high = record["beyond_control_low"], record["beyond_control_high"]
    verdict = "above zero" if low > 0 else "below zero" if high < 0 else "which includes zero: not shown to differ"
    return f"{text} (95 % interval {interval(record, 'beyond_control')}, {verdict})."


def _reversed_gain(record: Record, labels: dict[str, str]) -> str:
    if not record["nodules"]:
        return f"No nodule has a DSC of {labels['ours']} in this range."
    lead = -record["gain"]
    change = "gains" if lead >= 0 else "loses"
    nodules = "nodule" if record["nodules"] == 1 else "nodules"
    return (
        f"The other way round, on the {record['nodules']} {nodules} that {labels['ours']} segments that badly, "
        f"{labels['baseline']} {change} {show_percent(abs(lead))} points."
    )
