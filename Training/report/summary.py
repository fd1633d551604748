"""Scores of an experiment's rows, gathered over folds: means, their spread, the readers' own row, common nodules."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.stats import population_sd
from .store import Columns, Experiment, JobError, Manifest, Store

if TYPE_CHECKING:
    from .measures import Measure

__all__ = [
    "RowResult",
    "Summary",
    "common",
    "human_row",
    "load_rows",
    "mark_best",
    "same_nodules",
    "summarize",
]


@dataclass
class RowResult:
    """A row with the results of its finished jobs. ``scores``: {fold: {column: (N,) array}}; ``manifests``: by fold.
    ``over_folds``: {pooled measure: its mean, sd and n over folds}, where those of each fold weren't kept."""

    key: str
    label: str
    paper: dict[str, Any] = field(default_factory=dict)
    jobs: dict[int, str] = field(default_factory=dict)
    scores: dict[int, Columns] = field(default_factory=dict)
    manifests: dict[int, Manifest] = field(default_factory=dict)
    human: bool = False
    over_folds: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def parameters(self) -> int | None:
        """The network's number of parameters, or None before any job is done."""
        return next((m["parameters"] for m in self.manifests.values() if m.get("parameters")), None)

    def values(self, column: str, fold: int) -> np.ndarray:
        """(N,) float64 of one fold; NaN where the column is absent."""
        table = self.scores[fold]
        if column not in table:
            return np.full(len(table["nodule_id"]), np.nan)
        if table[column].dtype.kind != "f":
            raise JobError(f"scores.csv of {self.jobs.get(fold, self.key)}: column {column} holds words, not numbers")
        return table[column]

    def pooled(self, column: str, folds: Collection[int] | None = None) -> np.ndarray:
        """The column over folds (all, or the given ones), one after another."""
        chosen = [f for f in self.scores if folds is None or f in folds]
        return np.concatenate([self.values(column, f) for f in chosen]) if chosen else np.empty(0)

    def ids(self, column: str = "nodule_id", folds: Collection[int] | None = None) -> np.ndarray:
        """Ids in the order of ``pooled``."""
        chosen = [f for f in self.scores if folds is None or f in folds]
        return np.concatenate([self.scores[f][column] for f in chosen]) if chosen else np.empty(0, str)


@dataclass
class Summary:
    """Mean with its spread: population sd over folds (``over`` = "folds"), or over the nodules of the only fold.

    ``nodule_sd`` is the one over all nodules of all folds in any case.
    """

    mean: float | None = None
    sd: float | None = None
    over: str = ""
    n: int = 0
    folds: dict[int, float] = field(default_factory=dict)
    nodule_sd: float | None = None

    def record(self, key: str) -> dict[str, float | str | None]:
        """Flat, for CSV and JSON."""
        spread = {f"{key}_sd": self.sd, f"{key}_sd_over": self.over, f"{key}_sd_nodules": self.nodule_sd}
        return {key: self.mean, **spread, f"{key}_n": self.n}


def load_rows(store: Store, experiment: Experiment) -> list[RowResult]:
    """Every row of the experiment as RowResult, also those without a finished job. Raises JobError."""
    rows = []
    for row in experiment["rows"]:
        result = RowResult(str(row.get("key", "")), str(row.get("label") or row.get("key", "")), row.get("paper") or {})
        result.over_folds = row.get("over_folds") or {}
        result.jobs = store.row_jobs(row)
        result.scores = {fold: store.scores(job) for fold, job in result.jobs.items()}
        result.manifests = {fold: store.manifest(job) for fold, job in result.jobs.items()}
        rows.append(result)
    return rows


def human_row(store: Store, rows: Sequence[RowResult], reference: RowResult | None = None) -> RowResult | None:
    """One reader against the others, on the folds of the reference row (else of the row with most folds)."""
    if reference is None or not reference.jobs:
        reference = max(rows, key=lambda row: len(row.jobs), default=None)
    if reference is None or not reference.jobs:
        return None
    scores = {fold: store.human(job) for fold, job in reference.jobs.items()}
    return RowResult("human", "One reader against the others", jobs=dict(reference.jobs), scores=scores, human=True)


def summarize(row: RowResult, measure: "Measure") -> Summary:
    """Mean over folds of each fold's mean over nodules, with population sd (ddof 0), as the papers; with one fold, mean
    and sd over its nodules. A nodule without a value is left out. Pooled measures have one number a fold, and medians
    of one fold no sd."""
    if measure.pooled and measure.key in row.over_folds:
        known = row.over_folds[measure.key]
        return Summary(known["mean"], known["sd"], "folds", known["n"])
    if measure.pooled:
        found = {f: (m.get("pooled") or {}).get(measure.key) for f, m in row.manifests.items()}
        folds = {f: float(v) for f, v in found.items() if v is not None and np.isfinite(v)}
        n = len(folds)
    else:
        kept = {f: row.values(measure.key, f) for f in row.scores}
        kept = {f: v[np.isfinite(v)] for f, v in kept.items()}
        statistic = np.median if measure.median else np.mean
        folds = {f: float(statistic(v)) for f, v in kept.items() if v.size}
        n = sum(v.size for v in kept.values())
    if not folds:
        return Summary()
    means = np.array(list(folds.values()))
    of_nodules = not (measure.pooled or measure.median)
    nodule_sd = population_sd(np.concatenate(list(kept.values()))) if of_nodules else None
    if len(folds) > 1:
        return Summary(float(means.mean()), population_sd(means), "folds", n, folds, nodule_sd)
    return Summary(float(means[0]), nodule_sd, "nodules" if of_nodules else "", n, folds, nodule_sd)


def common(
    first: RowResult, second: RowResult, column: str, folds: Collection[int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of both rows on the nodules that both have: (a, b, patient_id), each (N,), in the first row's order.

    A nodule counts once a fold; nodules where either value is absent are left out.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for fold in first.scores:
        if fold not in second.scores or (folds is not None and fold not in folds):
            continue
        place = {name: i for i, name in enumerate(second.scores[fold]["nodule_id"])}
        pairs = [(i, place[n]) for i, n in enumerate(first.scores[fold]["nodule_id"]) if n in place]
        left, right = np.array(pairs, int).reshape(-1, 2).T
        values = first.values(column, fold)[left], second.values(column, fold)[right]
        parts.append((*values, first.scores[fold]["patient_id"][left]))
    if not parts:
        return np.empty(0), np.empty(0), np.empty(0, str)
    a, b, patients = (np.concatenate(part) for part in zip(*parts, strict=True))
    keep = np.isfinite(a) & np.isfinite(b)
    return a[keep], b[keep], patients[keep]


def mark_best(
    rows: Sequence[RowResult], summaries: Sequence[Summary], measure: "Measure", reference: RowResult | None
) -> set[int]:
    """Indices of the rows that are best by the measure, at the precision shown; ties are all marked, unless all tie.

    Only networks with the reference's test nodules are compared (without a reference: with those of the first row that
    has most folds); fewer than two of them have no best.
    """
    if not measure.better:
        return set()
    means = {i: s.mean for i, s in enumerate(summaries) if not rows[i].human and s.mean is not None}
    if not means:
        return set()
    base = reference or max((rows[i] for i in means), key=lambda row: len(row.jobs))
    means = {i: mean for i, mean in means.items() if same_nodules(rows[i], base)}
    if len(means) < 2:
        return set()
    shown = measure.show(max(means.values(), key=lambda mean: measure.better * mean))
    marked = {i for i, mean in means.items() if measure.show(mean) == shown}
    return marked if len(marked) < len(means) else set()


def same_nodules(first: RowResult, second: RowResult, folds: Collection[int] | None = None) -> bool:
    """Whether both rows were tested on the same nodules in the same folds (all folds, or the given ones)."""
    wanted = set(first.scores) | set(second.scores) if folds is None else set(folds)
    if not wanted <= set(first.scores) & set(second.scores):
        return False
    return all(set(first.scores[f]["nodule_id"]) == set(second.scores[f]["nodule_id"]) for f in wanted)
