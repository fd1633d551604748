"""A made-up output folder of `experiment` for the report's tests: disks as nodules, readers and predictions."""

import csv
import json
from pathlib import Path

import numpy as np

from Training.metrics import score_human, score_nodule

SIZE = 28
FOLDS = (0, 1)
NODULES = 14
SHA = "ab" * 32
#: key, label, noise of the outline, whether union and intersection are predicted, folds that are done
NETWORKS = (
    ("unet", "U-Net <b>& co</b>", 1.5, False, (0, 1)),
    ("unet_seed2", "U-Net, second seed", 1.5, False, (0, 1)),
    ("attention_unet", "Attention U-Net", 1.3, False, (0,)),
    ("ugsnet", "UGS-Net", 1.0, True, (0, 1)),
)


def _disk(center, radius, softness=0.0):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = radius - np.hypot(rows - center[0], columns - center[1])
    return 1 / (1 + np.exp(-distance / softness)) if softness else distance > 0


def _predictions(fold, noise, several, seed):
    """Arrays of predictions.npz: the readers are the same for every network of a fold, the maps aren't."""
    shared, own = np.random.default_rng(100 + fold), np.random.default_rng(seed)
    arrays = {"nodule_id": [], "patient_id": [], "hu": [], "diameter_mm": [], "readers": [], "valid": [], "final": []}
    arrays |= {"union": [], "intersection": []} if several else {}
    for i in range(NODULES):
        center, radius = shared.uniform(11, 17, 2), shared.uniform(3, 8)
        count = int(shared.integers(2, 5))
        readers = [_disk(center + shared.normal(0, 0.6, 2), radius + shared.normal(0, 0.6)) for _ in range(4)]
        valid = np.arange(4) < count
        arrays["readers"].append(np.array(readers) & valid[:, None, None])
        arrays["valid"].append(valid)
        arrays["hu"].append((-800 + 700 * _disk(center, radius, 1.5) + shared.normal(0, 40, (SIZE, SIZE))).astype("i2"))
        arrays["nodule_id"].append(f"F{fold}-{i // 2:02d}-{i % 2}")
        arrays["patient_id"].append(f"F{fold}-{i // 2:02d}")
        arrays["diameter_mm"].append(2 * radius * 0.7)
        moved, grown = center + own.normal(0, noise, 2), radius + own.normal(0, noise / 2)
        grown = max(grown, 2.0)
        arrays["final"].append(_disk(moved, grown, 0.6))
        if several:
            arrays["union"].append(_disk(moved, grown + 0.8, 0.6))
            arrays["intersection"].append(_disk(moved, max(grown - 0.8, 1.0), 0.6))
    kinds = {"final": np.float16, "union": np.float16, "intersection": np.float16, "diameter_mm": np.float32}
    out = {name: np.array(values).astype(kinds.get(name) or np.array(values).dtype) for name, values in arrays.items()}
    out["spacing_mm"] = np.full((NODULES, 2), 0.7, np.float32)
    return out


def _write_csv(path, rows):
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in rows)


def _write_job(folder, key, fold, noise, several, seed):
    folder.mkdir(parents=True)
    arrays = _predictions(fold, noise, several, seed)
    np.savez_compressed(folder / "predictions.npz", **arrays)
    scores, human = [], []
    for i in range(NODULES):
        readers = arrays["readers"][i][arrays["valid"][i]]
        maps = {m: arrays[m][i].astype(np.float32) for m in ("final", "union", "intersection") if m in arrays}
        known = {"nodule_id": arrays["nodule_id"][i], "patient_id": arrays["patient_id"][i], "fold": fold}
        known |= {"readers": len(readers), "diameter_mm": float(arrays["diameter_mm"][i])}
        scores.append(known | score_nodule(readers, maps, spacing_mm=(0.7, 0.7)))
        human.append(known | score_human(readers, spacing_mm=(0.7, 0.7)))
    _write_csv(folder / "scores.csv", scores)
    _write_csv(folder / "human.csv", human)
    config = {"network": {"name": key.removesuffix("_seed2"), "width": 16}, "seed": seed, "training": {"epochs": 40}}
    manifest = {
        "job": folder.name,
        "network": config["network"]["name"],
        "config": config,
        "fold": fold,
        "data": {"name": "made-up", "sha256": SHA, "nodules": 140},
        "split": {p: {"patients": 7, "nodules": NODULES} for p in ("training", "validation", "test")},
        "patients_in_training_and_test": 0,
        "weights_sha256": "cd" * 32,
        "parameters": 1234567,
        "best": {"epoch": 31, "score": 0.8},
        "seconds": {"train": 600.0, "predict": 2.5},
        "conditions": {"date": "2026-01-02", "commit": "f" * 40, "torch": "2", "numpy": "2", "python": "3.11"}
        | {"device": "CPU, 1 threads"},
        "pooled": {"nsd_released": 0.9 + fold / 100, "ece": 0.012},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def write_results(folder: Path, folds=FOLDS) -> Path:
    """A made-up output folder of `experiment`: four networks, a table, complex nodules, densities; one fold failed."""
    rows = []
    for number, (key, label, noise, several, done) in enumerate(NETWORKS):
        jobs = {}
        for fold in (f for f in done if f in folds):
            jobs[str(fold)] = f"{key}-{number:010x}-fold{fold}"
            _write_job(folder / "jobs" / jobs[str(fold)], key, fold, noise, several, 10 * number + fold)
        failed = {"1": "out of memory <script>"} if key == "attention_unet" and 1 in folds else {}
        rows.append({"key": key, "label": label, "paper": {}, "jobs": jobs, "failed": failed})
    paper = {"dsc": 87.65, "iou": 78.78, "nsd": 95.62, "dsc_sd": 0.57, "folds": {"dsc": [87.49, 87.72, 88.66]}}
    rows[-1]["paper"] = paper
    shared = {
        "source": "Paper, Table",
        "profile": "compact",
        "preset": "default",
        "folds": list(folds),
        "notes": "N & M",
    }
    options = {"baseline": "unet", "ours": "ugsnet", "control": "unet_seed2", "thresholds": [0.7, 0.8]}
    options["paper"] = {"baseline": {"dsc": [60.08, 71.47]}, "ours": {"dsc": [70.39, 77.11]}}
    several = [
        {"name": "table1", "title": "Networks", "kind": "table", "options": {"reference": "ugsnet"}, "rows": rows},
        {"name": "table3", "title": "Complex", "kind": "complex", "options": options, "rows": rows},
        {"name": "densities", "title": "HU", "kind": "densities", "options": {}, "rows": rows[-1:]},
        {
            "name": "gradcam",
            "title": "Not started",
            "kind": "gradcam",
            "options": {},
            "rows": [{"key": "x", "label": "X"}],
        },
    ]
    for experiment in several:
        (folder / experiment["name"]).mkdir(parents=True)
        path = folder / experiment["name"] / "experiment.json"
        path.write_text(json.dumps(shared | experiment), encoding="utf-8")
    return folder
