"""Finished jobs in the layout of the experiments' runner: blobs, readers who draw them larger or smaller, maps."""

import csv
import json

import numpy as np
from safetensors.torch import save_file

from LungNoduleKit.records import record_dict
from Training.config import Config, read_config

SIZE, COUNT = 32, 12
UNCERTAIN = ("union", "intersection", "single", "final")


def nodules(seed: int = 0) -> dict:
    """Blobs on a grid of 32 x 32 with 2 to 4 readers who draw them larger or smaller: arrays of predictions.npz."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    out = {name: [] for name in ("nodule_id", "patient_id", "hu", "spacing_mm", "diameter_mm", "readers", "valid")}
    for number in range(COUNT):
        radius = rng.uniform(4, 9)
        distance = np.hypot(rows - SIZE / 2 - rng.normal(), columns - SIZE / 2 - rng.normal())
        count = 2 + number % 3
        spread = 0.4 + 0.15 * number  # readers of later nodules disagree more
        readers = np.zeros((4, SIZE, SIZE), bool)
        readers[:count] = distance < radius + spread * np.linspace(-1, 1, count)[:, None, None]
        out["nodule_id"].append(f"LIDC-IDRI-{number:04d}-1-1")
        out["patient_id"].append(f"LIDC-IDRI-{number // 2:04d}")
        hu = np.clip(20 - 900 / (1 + np.exp((radius - distance) * 1.5)) + rng.normal(0, 15, distance.shape), -1024, 300)
        out["hu"].append(hu.astype(np.int16))
        out["spacing_mm"].append([0.6, 0.6])
        out["diameter_mm"].append(2 * radius * 0.6)
        out["readers"].append(readers)
        out["valid"].append(np.arange(4) < count)
    arrays = {name: np.array(values) for name, values in out.items()}
    arrays["spacing_mm"] = arrays["spacing_mm"].astype(np.float32)
    return arrays


def noisy_maps(arrays: dict, names, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    any_reader = arrays["readers"].any(1)
    every = (arrays["readers"] | ~arrays["valid"][:, :, None, None]).all(1)
    sources = {"union": any_reader, "intersection": every, "single": arrays["readers"][:, 0]}
    sources["final"] = arrays["readers"][:, 0]
    maps = {}
    for name in names:
        mask = np.roll(sources[name], tuple(rng.integers(-1, 2, 2)), (1, 2))
        maps[name] = np.clip(mask * 0.8 + 0.1 + rng.normal(0, 0.04, mask.shape), 0, 1).astype(np.float16)
    return maps


def write_job(folder, config: Config, fold: int, maps: dict, arrays: dict, network=None) -> str:
    """A finished job in the layout of the experiments' runner; returns its id."""
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "predictions.npz", **arrays, **maps)
    final, first = maps["final"] >= 0.5, arrays["readers"][:, 0]
    dice = 2 * (final & first).sum((1, 2)) / (final.sum((1, 2)) + first.sum((1, 2)))
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["nodule_id", "patient_id", "fold", "dsc_label1", "ged"])
        for name, patient, value in zip(arrays["nodule_id"], arrays["patient_id"], dice, strict=True):
            writer.writerow([name, patient, fold, f"{value:.6f}", ""])
    (folder / "config.json").write_text(json.dumps(record_dict(config)), encoding="utf-8")
    if network is not None:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "best.safetensors")
    manifest = {"job": folder.name, "network": config.network.name, "config": record_dict(config), "fold": fold}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder.name


def make_config(name: str, **network) -> Config:
    return read_config({"network": {"name": name, "width": 8, "levels": 3, **network}}, "test")
