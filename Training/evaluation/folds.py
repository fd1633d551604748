"""Folds that were measured one by one, pooled: every patient counts once, by the model that wasn't trained on it.

`python -m Training pool` writes it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from LungNoduleKit.files import write_record
from LungNoduleKit.records import read_json, read_record, record_dict

from ..data.nodule import DatasetError
from ..metrics import mean_interval
from ..runs import Conditions
from .reader_agreement import ReaderFigures, Slices
from .score import Score, read_scores
from .summary import Evaluation, Figures, read_evaluation, summarize

_WITH_INTERVAL = ("final", "hc", "union", "coverage", "ged")


@dataclass(frozen=True, kw_only=True)
class FoldFigures:
    """One fold of a pooled evaluation: the fields of its `Evaluation` that differ between folds."""

    model: str
    fold: int | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    size_calibration: dict[str, float] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)
    four: Figures
    all: Figures
    human_four: ReaderFigures
    human_all: ReaderFigures


@dataclass(frozen=True, kw_only=True)
class PooledEvaluation:
    """Figures over the nodules of several folds, as of one `Evaluation`, and those of each fold."""

    data: str
    fold: tuple[int | None, ...]
    slices: Slices
    four: Figures
    all: Figures
    human_four: ReaderFigures
    human_all: ReaderFigures
    folds: tuple[FoldFigures, ...]


def pool(paths: Sequence[str | Path]) -> PooledEvaluation:
    """Figures over the nodules of several evaluations (JSON files of `evaluate`, each with its CSV beside it).

    `four` and `all` are as in one evaluation, over all nodules, with 95 % intervals of the means (a bootstrap that
    draws whole patients) and the standard deviation of the folds' means. `human_four` and `human_all` are the readers'
    figures on the same nodules. Raises `DatasetError` if a nodule was measured twice, some were measured on native
    slices and others on cubes, or a file isn't of an evaluation.
    """
    evaluations: list[Evaluation] = []
    scores: list[Score] = []
    for path in map(Path, paths):
        found, own = read_evaluation(path), read_scores(path.with_suffix(".csv"))
        known = {score.nodule_id for score in scores}
        twice = sorted(score.nodule_id for score in own if score.nodule_id in known)
        if twice:
            raise DatasetError(f"{path}: {twice[0]} (and {len(twice) - 1} more) are in an earlier evaluation too")
        if evaluations and found.slices != evaluations[0].slices:
            raise DatasetError(f"{path}: some were measured on native slices and others on cubes")
        evaluations.append(found)
        scores += own
    return PooledEvaluation(
        data=evaluations[0].data,
        fold=tuple(evaluation.fold for evaluation in evaluations),
        slices=evaluations[0].slices,
        four=_pooled([s for s in scores if s.readers == 4], [evaluation.four for evaluation in evaluations]),
        all=_pooled(scores, [evaluation.all for evaluation in evaluations]),
        human_four=_pooled_readers([evaluation.human_four for evaluation in evaluations]),
        human_all=_pooled_readers([evaluation.human_all for evaluation in evaluations]),
        folds=tuple(_fold_figures(evaluation) for evaluation in evaluations),
    )


def read_figures(path: Path) -> Evaluation | PooledEvaluation:
    """What `evaluate` or `pool` wrote. Raises `DatasetError` for a file of neither, with the key and the reason."""
    values = read_json(path, DatasetError)
    if "folds" in values:
        return read_record(PooledEvaluation, values, str(path), DatasetError)
    return read_record(Evaluation, values, str(path), DatasetError)


def _fold_figures(evaluation: Evaluation) -> FoldFigures:
    return FoldFigures(**{f.name: getattr(evaluation, f.name) for f in fields(FoldFigures)})


def _pooled(scores: list[Score], of_folds: list[Figures]) -> Figures:
    """Figures of the scores of all folds, with their intervals and how far the folds' figures differ."""
    figures = summarize(scores)
    patients = [score.patient_id for score in scores]
    spread: dict[str, Any] = {}
    for key in (key for key in _WITH_INTERVAL if getattr(figures, key) is not None):
        # Coverage counts reader volumes, of which a nodule has as many as readers.
        rows = [(p, x) for p, score in zip(patients, scores, strict=True) for x in _values(score, key)]
        if len(set(patients)) > 1:  # one patient says nothing about others
            spread[f"{key}_interval"] = mean_interval([x for _, x in rows], [p for p, _ in rows])
        means = [getattr(fold, key) for fold in of_folds if fold.nodules]
        if len(means) > 1:
            spread[f"{key}_folds_sd"] = float(np.std(means, ddof=1))
    return replace(figures, **spread)


def _values(score: Score, key: str) -> list[float]:
    return [float(x) for x in score.readers_inside] if key == "coverage" else [getattr(score, key)]


def _pooled_readers(rows: list[ReaderFigures]) -> ReaderFigures:
    """The readers' figures over the nodules of all folds."""
    count = sum(row.nodules for row in rows)
    if not count:
        return ReaderFigures()
    final, coverage = (
        sum(row.nodules * (getattr(row, key) or 0.0) for row in rows) / count for key in ("final", "coverage")
    )
    return ReaderFigures(final, coverage, count)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pool`."""
    parser.description = (
        "Pool what `evaluate` measured on several folds, each with a model that wasn't trained on it: figures over all "
        "nodules with 95 % intervals (bootstrap over patients), and those of each fold."
    )
    parser.add_argument(
        "evaluation", type=Path, nargs="+", help="JSON files of `evaluate`, each with its CSV beside it"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json", help="where the figures go")


def run(args: argparse.Namespace) -> int:
    """The command `pool`; returns its exit status."""
    pooled = pool(args.evaluation)
    write_record(args.output, pooled)
    print(json.dumps({key: value for key, value in record_dict(pooled).items() if key != "folds"}, indent=2))
    return 0
