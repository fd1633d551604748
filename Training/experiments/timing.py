"""Time of a forward pass of an experiment's networks, alternately in one run, into a file with its conditions.

Nothing is trained: weights don't change how long a pass takes. What was measured is written down and never measured
again for the report, because another machine would have other times.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from LungNoduleKit.files import write_record
from LungNoduleKit.records import read_record, read_record_file, record_dict

from ..config import ConfigError, read_config
from ..runs import Conditions, build_network, conditions, input_channels
from .definition import Experiment

FILE = "timing.json"
WARM_UP = 2  # passes that aren't counted: memory is allocated and kernels are chosen in them
LEAST = 3  # rounds, however long they take


@dataclass(frozen=True)
class TimedRow:
    """A row whose network is timed. network, input: tables of its configuration; size: pixels of its input's edge."""

    key: str
    label: str
    paper: dict[str, Any]
    network: dict[str, Any]
    input: dict[str, Any]
    size: int


@dataclass(frozen=True)
class Settings:
    """What is measured. repeats: rounds at most; seconds: time for one batch size after which no further round begins.

    reference: the row that others are compared with; enlarged: the first row whose input is enlarged beforehand.
    """

    batches: tuple[int, ...]
    repeats: int
    seconds: float
    reference: str
    rows: tuple[TimedRow, ...]
    enlarged: str | None = None


@dataclass(frozen=True)
class Times:
    """Milliseconds of a whole batch, one number for each round, and the network's parameters."""

    key: str
    batch: int
    parameters: int
    ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Timing(Settings):
    """What was measured: `timing.json`. id: a hash of the settings."""

    id: str
    profile: str
    conditions: Conditions
    times: tuple[Times, ...]


def path_of(experiment: str, output: Path) -> Path:
    """The file of an experiment's times in the runner's output folder."""
    return Path(output) / experiment / FILE


def read_timing(path: Path) -> Timing:
    """What `run` wrote. Raises ConfigError that names the file and the key."""
    return read_record_file(Timing, path, ConfigError)


def timing_of(values: Mapping[str, Any], source: str) -> Timing:
    """The same from the values of the file, whose name `source` is."""
    return read_record(Timing, values, source, ConfigError)


def settings(experiment: Experiment) -> Settings:
    """What is measured, from the definition's options: `size`, pixels of the input's edge; `enlarged`, rows whose input
    is bicubically enlarged by four beforehand, outside of the measured time; `batches`, `repeats`, `seconds`.

    Raises ConfigError for options that don't fit.
    """
    options = experiment.options
    keys = {row.key for row in experiment.rows}
    enlarged = options.enlarged or ()
    if not set(enlarged) <= keys or options.reference not in keys:
        raise ConfigError(
            f"{experiment.name}: options reference and enlarged name rows; there are {', '.join(sorted(keys))}"
        )
    size = options.size or 64
    rows = [
        TimedRow(
            key=row.key,
            label=row.label,
            paper=row.paper,
            network=record_dict(row.config.network),
            input=record_dict(row.config.input),
            size=size * (4 if row.key in enlarged else 1),
        )
        for row in experiment.rows
    ]
    return Settings(
        batches=options.batches or (1,),
        repeats=options.repeats or 20,
        seconds=60.0 if options.seconds is None else options.seconds,
        reference=options.reference,
        enlarged=next(iter(enlarged), None),
        rows=tuple(rows),
    )


def is_done(experiment: Experiment, output: Path) -> bool:
    """Whether the times of just these settings are there."""
    path = path_of(experiment.name, output)
    return path.is_file() and read_timing(path).id == _identity(settings(experiment))


def _identity(given: Settings) -> str:
    return hashlib.sha256(json.dumps(record_dict(given), sort_keys=True).encode()).hexdigest()[:16]


def run(experiment: Experiment, output: Path, *, device: str = "auto", threads: int = 0) -> Timing:
    """Measure and write, or read what was measured with the same settings; returns the file's content."""
    path = path_of(experiment.name, output)
    if is_done(experiment, output):
        return read_timing(path)
    given = settings(experiment)
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        where = torch.device("cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
        if device == "cuda" and where.type == "cpu":
            raise ConfigError("--device cuda: PyTorch sees no CUDA device")
        times = measure(given, where)
        known = replace(conditions(), precision="float32", processor=_processor())
        if where.type == "cpu":  # conditions name the CUDA device wherever there is one
            known = replace(known, device=f"CPU, {torch.get_num_threads()} threads")
    finally:
        torch.set_num_threads(before)
    own = {f.name: getattr(given, f.name) for f in fields(Settings)}
    timing = Timing(id=_identity(given), profile=experiment.profile, conditions=known, times=tuple(times), **own)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, timing, indent=1)
    return timing


def measure(given: Settings, device: torch.device) -> list[Times]:
    """Times of every batch size and row. In a round every network makes one pass, one after another, so that whatever
    else the machine does meets all.
    """
    built = []
    for row in given.rows:
        torch.manual_seed(0)
        config = read_config({"network": row.network, "input": row.input}, row.key)
        built.append((row, build_network(config).eval().to(device), input_channels(config)))
    found = []
    for batch in given.batches:
        images = [torch.rand(batch, channels, row.size, row.size, device=device) for row, _, channels in built]
        taken = _rounds([network for _, network, _ in built], images, given, device)
        for (row, network, _), ms in zip(built, taken, strict=True):
            parameters = sum(p.numel() for p in network.parameters())
            found.append(Times(row.key, batch, parameters, tuple(round(t, 4) for t in ms)))
    return found


def _rounds(
    networks: list[torch.nn.Module], images: list[torch.Tensor], given: Settings, device: torch.device
) -> list[list[float]]:
    """For each network its milliseconds, one number for each counted round."""
    taken: list[list[float]] = [[] for _ in networks]
    begun = time.perf_counter()
    with torch.inference_mode():
        for number in range(WARM_UP + given.repeats):
            if number == WARM_UP:
                begun, taken = time.perf_counter(), [[] for _ in networks]
            if number >= WARM_UP + LEAST and time.perf_counter() - begun > given.seconds:
                break
            for network, image, ms in zip(networks, images, taken, strict=True):
                ms.append(1000 * _seconds(network, image, device))
    return taken


def _seconds(network: torch.nn.Module, image: torch.Tensor, device: torch.device) -> float:
    """Seconds of one pass, until the device has finished it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    network(image)
    wait()
    return time.perf_counter() - begun


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def summary(timing: Timing) -> list[dict[str, Any]]:
    """A row of a table for every batch size and row of the experiment: least and median milliseconds of a slice.

    `ratio` is the least time over the reference's, `ratio_median` the median over rounds of the ratio within a round,
    `ratio_to_enlarged` the least time over that of the first row with an enlarged input.
    """
    rows = {row.key: row for row in timing.rows}
    of = {(t.batch, t.key): np.array(t.ms) for t in timing.times}
    found = []
    for entry in timing.times:
        taken, base = of[entry.batch, entry.key], of[entry.batch, timing.reference]
        row, large = rows[entry.key], of.get((entry.batch, timing.enlarged or ""))
        found.append(
            {
                "key": entry.key,
                "network": row.label,
                "input": f"{row.size} x {row.size}",
                "parameters": entry.parameters,
                "batch": entry.batch,
                "rounds": len(taken),
                "least_ms_a_slice": round(float(taken.min() / entry.batch), 3),
                "median_ms_a_slice": round(float(np.median(taken) / entry.batch), 3),
                "ratio": round(float(taken.min() / base.min()), 3),
                "ratio_median": round(float(np.median(taken / base)), 3),
                "ratio_to_enlarged": None if large is None else round(float(taken.min() / large.min()), 3),
                "paper_ms": row.paper.get("ms"),
            }
        )
    return found
