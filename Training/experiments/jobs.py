"""One job: train a network on all folds but one, predict the nodules of that fold, score them.

A job is a folder. It can be killed at any moment: training goes on from its last checkpoint with the same result, the
rest is written whole or not at all, and `manifest.json`, written last, says that the job is done.
"""

import contextlib
import csv
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from LungNoduleKit.files import write_whole
from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib.models.bundle import file_sha256

from ..config import Config, ConfigError, read_config
from ..data.folder import load_folder
from ..data.nodule import DatasetError, fingerprint
from ..data.splits import configured_split
from ..metrics import catalog
from ..metrics.per_nodule import score_human, score_nodule

EXAMPLES = 6  # images that a super-resolution job keeps


def write_json(path: Path, content) -> None:
    """Write JSON whole or not at all."""
    write_whole(path, lambda target: Path(target).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def prepare(folder: Path, identity: str, config: Config, fold: int, data: dict) -> Path:
    """The job's folder with its `job.json`; nothing is touched if it is there already."""
    job = folder / identity
    job.mkdir(parents=True, exist_ok=True)
    if not (job / "job.json").is_file():
        write_json(job / "job.json", {"id": identity, "config": record_dict(config), "fold": fold, "data": data})
    return job


def is_done(job: Path) -> bool:
    """Whether the job's result is complete."""
    return (job / "manifest.json").is_file()


@contextlib.contextmanager
def claimed(job: Path):
    """Hold the job for this process; another one that wants it gets an OSError. The claim ends with the process."""
    stream = (job / "lock").open("a")
    try:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: two runners at once aren't guarded against
            pass
        except BlockingIOError as error:
            raise BlockingIOError(f"{job}: another process is running this job") from error
        yield
    finally:
        stream.close()


def run(job, data, *, device: str = "auto", threads: int = 0, progress: bool = True) -> dict:
    """Run a prepared job to its end, or go on with it; returns its manifest. A finished job costs nothing.

    data: the data folder. Raises DatasetError when its content isn't what the job was prepared for.
    """
    import torch

    job = Path(job)
    path = job / "job.json"
    if not path.is_file():
        raise ConfigError(f"{path}: not found; jobs are prepared by `experiment`")
    if is_done(job):
        return json.loads((job / "manifest.json").read_text(encoding="utf-8"))
    if threads:
        torch.set_num_threads(threads)
    given = json.loads(path.read_text(encoding="utf-8"))
    if int(os.environ.get("RANK", "0")):  # under torchrun the first process holds the job and writes its result
        _run(job, given, data, device, progress)
        return {}
    with claimed(job):
        if not is_done(job):
            _run(job, given, data, device, progress)
    return json.loads((job / "manifest.json").read_text(encoding="utf-8"))


def _run(job, given, data, device, progress):
    from ..runs import build_network, conditions, load_run
    from ..sampling import slice_images
    from ..trainers.registry import make_trainer

    # Options that have come since the job was prepared have their defaults.
    config, fold = read_config(given["config"], str(job / "job.json")), given["fold"]
    nodules = load_folder(data, progress=progress)
    if fingerprint(nodules) != given["data"]["sha256"]:
        raise DatasetError(f"{data}: isn't the data that {job.name} was prepared for")
    training, validation, test = configured_split(nodules, fold, config)
    begun = time.monotonic()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    how = {"device": device, "devices": devices, "progress": progress, "checkpoint_seconds": 30.0}
    trainer = make_trainer(config, training, validation, job, **how)
    best = trainer.train()
    trained = time.monotonic()
    fabric = trainer.fabric
    if fabric.global_rank:
        return
    _, state = load_run(job)
    network = build_network(config)
    network.load_state_dict(state)
    network = network.to(fabric.device)
    if config.data.task == "super_resolution":
        pooled = _finish_super_resolution(job, network, test, config, fold, fabric)
    else:
        # Scored is one slice a nodule, also where the network has learnt several.
        slices = slice_images.cut_slices(test, replace(config, data=replace(config.data, slices=1)))
        maps = slice_images.predict_slices(network, slices, config, fabric)
        _write_predictions(job / "predictions.npz", slices, maps, config)
        scores, human, pooled = score(slices, maps, fold)
        write_rows(job / "scores.csv", scores)
        write_rows(job / "human.csv", human)
    parts = {"training": training, "validation": validation, "test": test}
    manifest = {
        "job": job.name,
        "network": config.network.name,
        "config": record_dict(config),
        "fold": fold,
        "data": given["data"],
        "split": {
            part: {"patients": len({n.patient_id for n in nodules}), "nodules": len(nodules)}
            for part, nodules in parts.items()
        },
        "patients_in_training_and_test": len({n.patient_id for n in training} & {n.patient_id for n in test}),
        "weights_sha256": file_sha256(job / "best.safetensors"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "best": best,
        "seconds": {"train": _training_seconds(job), "predict": time.monotonic() - trained},
        "conditions": conditions(),
        "processes": fabric.world_size,
        "pooled": pooled,
    }
    manifest["seconds"]["last_session"] = trained - begun
    write_json(job / "manifest.json", manifest)
    (job / "last.ckpt").unlink(missing_ok=True)  # three times the weights, and of no use to a finished job


def _finish_super_resolution(job, network, test, config, fold, fabric) -> dict:
    """PSNR and SSIM of every test nodule's slice beside bicubic's; the images of the first ones for the figure."""
    from ..sampling.super_resolution import bicubic, enlarged_slices, measure

    network.eval()
    ours = measure(lambda x: network(x)["image"], test, config, fabric.device)
    plain = measure(bicubic, test, config)
    rows = [
        {
            "nodule_id": nodule.nodule_id,
            "patient_id": nodule.patient_id,
            "fold": fold,
            **{key: float(values[i]) for key, values in ours.items()},
            **{f"{key}_bicubic": float(values[i]) for key, values in plain.items()},
        }
        for i, nodule in enumerate(test)
    ]
    write_rows(job / "scores.csv", rows)
    images = enlarged_slices(lambda x: network(x)["image"], test[:EXAMPLES], config, fabric.device)
    write_whole(job / "predictions.npz", lambda target: np.savez_compressed(target, **images))
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if "psnr" in key or "ssim" in key}


def _training_seconds(job: Path) -> float:
    """Seconds of all epochs, of every session that worked on them (an epoch begun twice counts its last part)."""
    lines = (job / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return sum({entry["epoch"]: entry["seconds"] for entry in map(json.loads, lines)}.values())


def _write_predictions(path, slices, maps, config):
    middle = config.input.slice_offsets.index(0)
    arrays = {
        "nodule_id": slices.nodule_id,
        "patient_id": slices.patient_id,
        "hu": np.round(slices.hu[:, middle]).astype(np.int16),
        "spacing_mm": slices.spacing_mm,
        "diameter_mm": slices.diameter_mm,
        "readers": slices.readers > 0,
        "valid": slices.valid,
        **{key: value.astype(np.float16) for key, value in maps.items()},
    }

    write_whole(path, lambda target: np.savez_compressed(target, **arrays))


def score(slices, maps: dict, fold: int) -> tuple[list[dict], list[dict], dict]:
    """(a row a nodule, the readers' own rows, figures over all nodules) of probability maps (N, H, W)."""
    rows, human = [], []
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
        human.append({**known, **(score_human(readers, spacing_mm=spacing) if count > 1 else {})})
    fold_maps = catalog.Fold(maps["final"], slices.readers, slices.valid)
    pooled = {metric.name: metric.function(fold_maps) for metric in catalog.of("fold")}
    return rows, human, pooled


def write_rows(path: Path, rows: list[dict]) -> None:
    """A CSV of all rows' keys; a figure that a row lacks, or that isn't defined, is an empty cell."""
    names = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value):
        if isinstance(value, float):
            return f"{value:.6g}" if np.isfinite(value) else ""
        return value

    def write(target):
        with open(target, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names, restval="")
            writer.writeheader()
            writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)

    write_whole(path, write)
