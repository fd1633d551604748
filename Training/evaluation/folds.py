"""Folds that were measured one by one, taken together: every patient once, by the model that never saw them."""

import json
from pathlib import Path

import numpy as np

from ..data.nodule import DatasetError
from ..metrics import mean_interval
from .nodules import Score, read_csv, summarize

_INTERVALS = ("final", "hc", "union", "coverage", "ged")
_OF_FOLD = ("model", "fold", "thresholds", "size_calibration", "conditions", "four", "all", "human_four", "human_all")


def pool(paths: list[Path]) -> dict:
    """Figures over the nodules of several evaluations (JSON files of `evaluate`, each with its CSV beside it).

    `four` and `all` are as in one evaluation, over all nodules, with 95 % intervals of the means (`final_interval` ...:
    a bootstrap that draws whole patients) and the standard deviation of the folds' means (`final_folds_sd` ...).
    `human_four` and `human_all` are the readers' rows of the same nodules. Raises `DatasetError` if a nodule was
    measured twice, some were measured on own slices and others on cubes, or a file isn't of an evaluation.
    """
    folds, scores, slices = [], [], set()
    for path in map(Path, paths):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"four", "all", "data"} <= set(found):
            raise DatasetError(f"{path}: isn't the summary of an evaluation")
        own = read_csv(path.with_suffix(".csv"))
        known = {s.nodule_id for s in scores}
        twice = sorted(s.nodule_id for s in own if s.nodule_id in known)
        if twice:
            raise DatasetError(f"{path}: {twice[0]} (and {len(twice) - 1} more) are in an earlier evaluation too")
        slices.add(found.get("slices", "cubes"))  # before there was a choice they were measured on cubes
        if len(slices) > 1:
            raise DatasetError(f"{path}: some were measured on own slices and others on cubes")
        folds.append(found)
        scores += own
    groups = {"four": [s for s in scores if s.readers == 4], "all": scores}
    return {
        "data": folds[0]["data"],
        "fold": [fold["fold"] for fold in folds],
        "slices": slices.pop(),
        **{key: _group(key, chosen, folds) for key, chosen in groups.items()},
        **{key: _humans([fold[key] for fold in folds]) for key in ("human_four", "human_all")},
        "folds": [{key: fold[key] for key in _OF_FOLD if key in fold} for fold in folds],
    }


def _group(name: str, scores: list[Score], folds: list[dict]) -> dict:
    out = summarize(scores)
    patients = [s.patient_id for s in scores]
    for key in (key for key in _INTERVALS if key in out):
        # Coverage counts reader volumes, of which a nodule has as many as readers.
        rows = [(p, x) for p, s in zip(patients, scores, strict=True) for x in _values(s, key)]
        if len(set(patients)) > 1:  # one patient tells nothing about others
            out[f"{key}_interval"] = list(mean_interval([x for _, x in rows], [p for p, _ in rows]))
        means = [fold[name][key] for fold in folds if fold[name]["nodules"]]
        if len(means) > 1:
            out[f"{key}_folds_sd"] = float(np.std(means, ddof=1))
    return out


def _values(score: Score, key: str) -> list[float]:
    return [float(x) for x in score.readers_inside] if key == "coverage" else [getattr(score, key)]


def _humans(rows: list[dict]) -> dict:
    weights = [row["nodules"] for row in rows]
    if not sum(weights):
        return {"nodules": 0}
    mean = {k: sum(w * row.get(k, 0.0) for w, row in zip(weights, rows, strict=True)) for k in ("final", "coverage")}
    return {**{key: value / sum(weights) for key, value in mean.items()}, "nodules": sum(weights)}
