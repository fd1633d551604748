"""The figures of many nodules: means over their scores, and the file that `evaluate` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from LungNoduleKit.records import read_record_file
from LungNoduleUncertaintyLib.models.network_input import Averaging
from LungNoduleUncertaintyLib.models.outputs import calibration_problem

from ..data.nodule import DatasetError, Nodule
from ..runs import Conditions
from .reader_agreement import ReaderFigures, Slices, reader_figures
from .score import Score

_FAILED_BELOW = 0.3  # Dice of Final


@dataclass(frozen=True)
class Figures:
    """Means over a group of nodules; None is what a model doesn't have or what wasn't measured.

    final, hc, union, ged, jitter: means of the scores' figures, `_sd` their standard deviations. coverage: share of
    reader volumes inside the interval. width_ratio: median width of the interval over the readers' own width. failures:
    share of nodules with a Dice of Final below 0.3. errors: nodules without a result. Of several folds pooled also 95 %
    intervals of the means (`_interval`, a bootstrap over patients) and the standard deviation of the folds' means
    (`_folds_sd`).
    """

    nodules: int = 0
    patients: int | None = None
    final: float | None = None
    hc: float | None = None
    union: float | None = None
    final_sd: float | None = None
    hc_sd: float | None = None
    union_sd: float | None = None
    coverage: float | None = None
    width_ratio: float | None = None
    ged: float | None = None
    failures: float | None = None
    errors: int | None = None
    jitter: float | None = None
    final_interval: tuple[float, float] | None = None
    final_folds_sd: float | None = None
    hc_interval: tuple[float, float] | None = None
    hc_folds_sd: float | None = None
    union_interval: tuple[float, float] | None = None
    union_folds_sd: float | None = None
    coverage_interval: tuple[float, float] | None = None
    coverage_folds_sd: float | None = None
    ged_interval: tuple[float, float] | None = None
    ged_folds_sd: float | None = None


def summarize(scores: Sequence[Score]) -> Figures:
    """Figures of scores; those of HC, the union and the interval are None where a model has Final alone."""
    if not scores:
        return Figures(patients=0)
    has_interval = all(score.interval_mm3 is not None for score in scores)
    found: dict[str, Any] = {}
    for key in ("final", "hc", "union") if has_interval else ("final",):
        values = [getattr(score, key) for score in scores]
        found |= {key: float(np.mean(values)), f"{key}_sd": float(np.std(values))}
    if has_interval:
        found["coverage"] = float(np.mean([inside for score in scores for inside in score.readers_inside]))
        found["width_ratio"] = float(np.nanmedian([score.width_ratio for score in scores]))
    jitter = [score.jitter for score in scores if score.jitter is not None]
    return Figures(
        nodules=len(scores),
        patients=len({score.patient_id for score in scores}),
        ged=float(np.mean([score.ged for score in scores])),
        failures=float(np.mean([score.final < _FAILED_BELOW for score in scores])),
        errors=sum(bool(score.error) for score in scores),
        jitter=float(np.mean(jitter)) if jitter else None,
        **found,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` measured: `four` on nodules with four readers, `all` on all nodules; the readers' own figures on
    the same nodules (`human_four`, `human_all`); and of which model, data and conditions.
    """

    model: str
    combined: str = "one network"
    data: str
    fold: int | None = None
    slices: Slices
    thresholds: dict[str, float] = field(default_factory=dict)
    size_calibration: dict[str, float] = field(default_factory=dict)
    averaging: Averaging = field(default_factory=Averaging)
    conditions: Conditions = field(default_factory=Conditions)
    four: Figures
    all: Figures
    human_four: ReaderFigures
    human_all: ReaderFigures

    def problem(self) -> str:
        """What is wrong with the thresholds and slopes, or an empty text."""
        return calibration_problem(self.thresholds, self.size_calibration)


def evaluation_of(scores: Sequence[Score], nodules: Sequence[Nodule], **source: Any) -> Evaluation:
    """The evaluation of the nodules with these scores; `source` are the record's other fields."""
    return Evaluation(
        **source,
        four=summarize([score for score in scores if score.readers == 4]),
        all=summarize(scores),
        human_four=reader_figures([nodule for nodule in nodules if len(nodule.readers) == 4]),
        human_all=reader_figures(nodules),
    )


def read_evaluation(path: Path) -> Evaluation:
    """What `evaluate` wrote. Raises `DatasetError` for a file that isn't one, with the key and the reason."""
    return read_record_file(Evaluation, path, DatasetError)
