"""What a job leaves of its network: predictions of the test nodules, their scores, and the readers' own."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from LungNoduleKit.files import write_whole

from ..config import Config, changed
from ..data.nodule import Nodule
from ..metrics import catalog
from ..metrics.per_nodule import score_human, score_nodule
from ..sampling.slice_images import SliceSet, cut_slices, predict_slices
from ..sampling.super_resolution import bicubic, enlarged_slices, measure

SCORES, READER_SCORES, PREDICTIONS = "scores.csv", "human.csv", "predictions.npz"
EXAMPLES = 6  # images that a super-resolution job keeps
Row = dict[str, Any]


def score_job(
    job: Path, network: torch.nn.Module, test: list[Nodule], config: Config, fold: int, fabric: Fabric
) -> dict[str, float]:
    """Predict the test nodules, write predictions and scores to the job's folder; figures over all of them."""
    if config.data.task == "super_resolution":
        return _score_super_resolution(job, network, test, config, fold, fabric)
    # One slice of each nodule is scored, also where the network has learned several.
    slices = cut_slices(test, changed(config, {"data": {"slices": 1}}))
    maps = predict_slices(network, slices, config, fabric)
    _write_arrays(job / PREDICTIONS, _predictions(slices, maps, config.input.slice_offsets.index(0)))
    scores, reader_scores, pooled = score(slices, maps, fold)
    write_rows(job / SCORES, scores)
    write_rows(job / READER_SCORES, reader_scores)
    return pooled


def _predictions(slices: SliceSet, maps: Mapping[str, np.ndarray], middle: int) -> dict[str, np.ndarray]:
    """What the report's figures need: slices (HU of channel `middle`), readers' masks and the network's maps."""
    return {
        "nodule_id": slices.nodule_id,
        "patient_id": slices.patient_id,
        "hu": np.round(slices.hu[:, middle]).astype(np.int16),
        "spacing_mm": slices.spacing_mm,
        "diameter_mm": slices.diameter_mm,
        "readers": slices.readers > 0,
        "valid": slices.valid,
        **{key: value.astype(np.float16) for key, value in maps.items()},
    }


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    write_whole(path, lambda target: np.savez_compressed(target, **arrays))  # type: ignore[arg-type]


def score(slices: SliceSet, maps: Mapping[str, np.ndarray], fold: int) -> tuple[list[Row], list[Row], dict[str, float]]:
    """(a row for each nodule, the readers' rows, figures over all nodules) of probability maps (N, H, W)."""
    rows, reader_rows = [], []
    for index in range(len(slices)):
        count = int(slices.valid[index].sum())
        readers = slices.readers[index, :count] > 0
        known = {
            "nodule_id": str(slices.nodule_id[index]),
            "patient_id": str(slices.patient_id[index]),
            "fold": fold,
            "readers": count,
            "diameter_mm": float(slices.diameter_mm[index]),
            **{key: str(words[index]) for key, words in (slices.labels or {}).items()},
        }
        own = {key: value[index].astype(np.float32) for key, value in maps.items()}
        spacing = tuple(float(v) for v in slices.spacing_mm[index])
        rows.append({**known, **score_nodule(readers, own, spacing_mm=spacing)})
        # An image with one mask has no other reader to compare with.
        reader_rows.append({**known, **(score_human(readers, spacing_mm=spacing) if count > 1 else {})})
    whole = catalog.Fold(maps["final"], slices.readers, slices.valid)
    return rows, reader_rows, {metric.name: metric.function(whole) for metric in catalog.of("fold")}


def _score_super_resolution(
    job: Path, network: torch.nn.Module, test: list[Nodule], config: Config, fold: int, fabric: Fabric
) -> dict[str, float]:
    """PSNR and SSIM of every test nodule's slice beside those of bicubic interpolation; images of the first ones."""
    network.eval()

    def enlarge(x: torch.Tensor) -> torch.Tensor:
        return network(x)["image"]

    ours, plain = measure(enlarge, test, config, fabric.device), measure(bicubic, test, config)
    rows: list[Row] = [
        {
            "nodule_id": nodule.nodule_id,
            "patient_id": nodule.patient_id,
            "fold": fold,
            **{key: float(values[i]) for key, values in ours.items()},
            **{f"{key}_bicubic": float(values[i]) for key, values in plain.items()},
        }
        for i, nodule in enumerate(test)
    ]
    write_rows(job / SCORES, rows)
    _write_arrays(job / PREDICTIONS, enlarged_slices(enlarge, test[:EXAMPLES], config, fabric.device))
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if "psnr" in key or "ssim" in key}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """A CSV of all rows' keys; a figure that a row lacks, or that isn't defined, is an empty cell."""
    names = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return f"{value:.6g}" if np.isfinite(value) else ""
        return value

    def write(target: Path) -> None:
        with target.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names, restval="")
            writer.writeheader()
            writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)

    write_whole(path, write)
