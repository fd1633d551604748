"""One job: train a network on all folds but one, predict the nodules of that fold, score them.

A job is a folder. It can be killed at any moment: training goes on from its last checkpoint with the same result, the
rest is written whole or not at all, and `manifest.json`, written last, says that the job is done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import write_record
from LungNoduleKit.records import read_record_file
from LungNoduleUncertaintyLib.models.bundle import file_sha256

from ..config import Config
from ..data.folder import load_folder
from ..data.nodule import DatasetError, Nodule, fingerprint
from ..data.splits import configured_split
from ..runs import WEIGHTS, Conditions, build_network, conditions, load_run
from ..trainers.registry import make_trainer
from .scoring import score_job

JOB, MANIFEST, LOG, OUTPUT = "job.json", "manifest.json", "log.jsonl", "output.log"
_CHECKPOINT_SECONDS = 30.0


class JobError(NoduleError):
    """A job that can't be run."""


@dataclass(frozen=True)
class DataSet:
    """The data folder that a job is for: its name, the SHA-256 of its content (`fingerprint`), and how many nodules."""

    name: str
    sha256: str
    nodules: int

    @classmethod
    def of(cls, folder: Path, progress: bool = True) -> DataSet:
        """Of a data folder, which is read whole."""
        nodules = load_folder(folder, progress=progress)
        return cls(folder.name, fingerprint(nodules), len(nodules))


@dataclass(frozen=True)
class Job:
    """What is to be done: `job.json`. id: the folder's name; fold: the test fold."""

    id: str
    config: Config
    fold: int
    data: DataSet


@dataclass(frozen=True)
class Counts:
    """How many patients and nodules a part of a split has."""

    patients: int
    nodules: int

    @classmethod
    def of(cls, nodules: list[Nodule]) -> Counts:
        """Of a list of nodules."""
        return cls(len({nodule.patient_id for nodule in nodules}), len(nodules))


@dataclass(frozen=True)
class SplitCounts:
    """The sizes of a job's split."""

    training: Counts
    validation: Counts
    test: Counts


@dataclass(frozen=True)
class Seconds:
    """Time spent: on all epochs, on prediction and scoring, on training in the last session."""

    train: float
    predict: float
    last_session: float


@dataclass(frozen=True)
class Manifest:
    """What was done: `manifest.json`. best: figures of the best weights; pooled: figures over all nodules, None where
    one isn't defined.
    """

    job: str
    network: str
    config: Config
    fold: int
    data: DataSet
    split: SplitCounts
    patients_in_training_and_test: int
    weights_sha256: str
    parameters: int
    best: Mapping[str, float | None]
    seconds: Seconds
    conditions: Conditions
    processes: int
    pooled: Mapping[str, float | None]


def prepare(folder: Path, job: Job) -> Path:
    """The job's folder below `folder` with its `job.json`; nothing is touched if it is there already."""
    path = folder / job.id
    path.mkdir(parents=True, exist_ok=True)
    if not (path / JOB).is_file():
        write_record(path / JOB, job, indent=1)
    return path


def read_job(job: Path) -> Job:
    """What a job's folder is for. Raises JobError."""
    if not (job / JOB).is_file():
        raise JobError(f"{job / JOB}: not found; jobs are prepared by `experiment`")
    return read_record_file(Job, job / JOB, JobError)


def read_manifest(job: Path) -> Manifest:
    """What was done in a job's folder. Raises JobError."""
    return read_record_file(Manifest, job / MANIFEST, JobError)


def is_done(job: Path) -> bool:
    """Whether the job's result is complete."""
    return (job / MANIFEST).is_file()


@contextlib.contextmanager
def claimed(job: Path) -> Iterator[None]:
    """Hold the job for this process; the claim ends with the process. Raises JobError if another one holds it."""
    with (job / "lock").open("a") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: nothing keeps two runners from one job
            pass
        except BlockingIOError as error:
            raise JobError(f"{job}: another process is running this job") from error
        yield


def run_job(job: Path, data: Path, *, device: str = "auto", threads: int = 0, progress: bool = True) -> Manifest | None:
    """Run a prepared job to its end, or go on with it; returns its manifest. A finished job costs nothing.

    data: the data folder. Under torchrun only the first process has the manifest, None the others. Raises DatasetError
    when the data aren't those that the job was prepared for, JobError when another process runs it.
    """
    job = Path(job)
    given = read_job(job)
    if is_done(job):
        return read_manifest(job)
    if threads:
        torch.set_num_threads(threads)
    if int(os.environ.get("RANK", "0")):  # under torchrun the first process holds the job and writes its result
        _run(job, given, data, device, progress)
        return None
    with claimed(job):
        if not is_done(job):
            _run(job, given, data, device, progress)
    return read_manifest(job)


def _run(job: Path, given: Job, data: Path, device: str, progress: bool) -> None:
    config, fold = given.config, given.fold
    nodules = load_folder(data, progress=progress)
    if fingerprint(nodules) != given.data.sha256:
        raise DatasetError(f"{data}: isn't the data that {job.name} was prepared for")
    training, validation, test = configured_split(nodules, fold, config)
    begun = time.monotonic()
    trainer = make_trainer(
        config,
        training,
        validation,
        job,
        device=device,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        progress=progress,
        checkpoint_seconds=_CHECKPOINT_SECONDS,
    )
    best = trainer.train()
    trained, fabric = time.monotonic(), trainer.fabric
    if fabric.global_rank:
        return
    network = build_network(config)
    network.load_state_dict(load_run(job)[1])
    network = network.to(fabric.device)
    pooled = score_job(job, network, test, config, fold, fabric)
    manifest = Manifest(
        job=job.name,
        network=config.network.name,
        config=config,
        fold=fold,
        data=given.data,
        split=SplitCounts(Counts.of(training), Counts.of(validation), Counts.of(test)),
        patients_in_training_and_test=len({n.patient_id for n in training} & {n.patient_id for n in test}),
        weights_sha256=file_sha256(job / WEIGHTS),
        parameters=sum(p.numel() for p in network.parameters()),
        best=best,
        seconds=Seconds(_training_seconds(job), time.monotonic() - trained, trained - begun),
        conditions=conditions(),
        processes=fabric.world_size,
        pooled=pooled,
    )
    write_record(job / MANIFEST, manifest, indent=1)
    trainer.checkpoint.unlink(missing_ok=True)  # three times the weights, and of no use to a finished job


def _training_seconds(job: Path) -> float:
    """Seconds of all epochs, of every session that worked on them (an epoch begun twice counts its last part)."""
    lines = (job / LOG).read_text(encoding="utf-8").splitlines()
    return sum({entry["epoch"]: entry["seconds"] for entry in map(json.loads, lines)}.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `job`."""
    parser.description = "Run one job that `experiment` has prepared: train, predict and score one network on one fold."
    add = parser.add_argument
    add("folder", type=Path, metavar="JOB", help="the job's folder, with its job.json")
    add("--data", type=Path, required=True, metavar="DIR", help="the data folder that it was prepared for")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train (auto)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads (all cores)")
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The command `job`; returns its exit status."""
    run_job(args.folder, args.data, device=args.device, threads=args.threads, progress=not args.quiet)
    return 0
