"""Time of a forward pass of an experiment's networks, alternately in one run, into a file with its conditions.

Nothing is trained: weights don't change how long a pass takes. What was measured is written down and never measured
again for the report, as another machine would tell something else.
"""

import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np

from LungNoduleKit.records import record_dict

from ..config import ConfigError, read_config
from . import jobs
from .definition import Experiment

FILE = "timing.json"
WARM_UP = 2  # passes that aren't counted: memory is allocated and kernels are chosen in them
LEAST = 3  # rounds, however long they take


def path_of(experiment: str, output) -> Path:
    """The file of an experiment's times in the runner's output folder."""
    return Path(output) / experiment / FILE


def settings(experiment: Experiment) -> dict:
    """What is measured: network and input of every row, batches, rounds. Raises ConfigError for options that don't fit.

    Options of the definition: `size`, pixels of the input's edge; `enlarged`, rows whose input is bicubically enlarged
    by four beforehand, outside of the measured time; `batches`; `repeats`, rounds at most; `seconds`, time for one
    batch size after which no further round begins.
    """
    options = experiment.options
    keys = {row.key for row in experiment.rows}
    enlarged, reference = set(options.get("enlarged", ())), options.get("reference")
    if not enlarged <= keys or reference not in keys:
        raise ConfigError(
            f"{experiment.name}: options reference and enlarged name rows; there are {', '.join(sorted(keys))}"
        )
    size = int(options.get("size", 64))
    return {
        "batches": [int(b) for b in options.get("batches", (1,))],
        "repeats": int(options.get("repeats", 20)),
        "seconds": float(options.get("seconds", 60)),
        "reference": reference,
        "enlarged": next(iter(options.get("enlarged", ())), None),
        "rows": [
            {
                "key": row.key,
                "label": row.label,
                "paper": row.paper,
                "network": record_dict(row.config.network),
                "input": record_dict(row.config.input),
                "size": size * (4 if row.key in enlarged else 1),
            }
            for row in experiment.rows
        ],
    }


def is_done(experiment: Experiment, output) -> bool:
    """Whether the times of just these settings are there."""
    path = path_of(experiment.name, output)
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["id"] == _identity(settings(experiment))


def _identity(given: dict) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def run(experiment: Experiment, output, *, device: str = "auto", threads: int = 0) -> dict:
    """Measure and write, or read what was measured with the same settings; returns the file's content."""
    import torch

    from ..runs import conditions

    path = path_of(experiment.name, output)
    if is_done(experiment, output):
        return json.loads(path.read_text(encoding="utf-8"))
    given = settings(experiment)
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        where = torch.device("cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
        if device == "cuda" and where.type == "cpu":
            raise ConfigError("--device cuda: PyTorch sees no CUDA device")
        times = measure(given, where)
        # Of what ran: the device of `conditions` is CUDA wherever there is one.
        known = conditions() | {"precision": "float32", "processor": _processor()}
        if where.type == "cpu":
            known["device"] = f"CPU, {torch.get_num_threads()} threads"
    finally:
        torch.set_num_threads(before)
    content = {"id": _identity(given), "profile": experiment.profile, **given, "conditions": known, "times": times}
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs.write_json(path, content)
    return content


def measure(given: dict, device) -> list[dict]:
    """A dict for every batch size and row: ms of a whole batch, one number a round, and the network's parameters.

    In a round every network makes one pass, one after another, so that whatever else the machine does meets all.
    """
    import torch

    from ..runs import build_network, input_channels

    found = []
    built = []
    for row in given["rows"]:
        torch.manual_seed(0)
        config = read_config({"network": row["network"], "input": row["input"]}, row["key"])
        built.append((row, build_network(config).eval().to(device), input_channels(config)))
    for batch in given["batches"]:
        images = [torch.rand(batch, channels, row["size"], row["size"], device=device) for row, _, channels in built]
        rounds: list[list[float]] = [[] for _ in built]
        begun = None
        with torch.inference_mode():
            for number in range(WARM_UP + given["repeats"]):
                if number == WARM_UP:
                    begun, rounds = time.perf_counter(), [[] for _ in built]
                enough = number >= WARM_UP + LEAST and time.perf_counter() - begun > given["seconds"]
                if enough:
                    break
                for (_, network, _), image, taken in zip(built, images, rounds, strict=True):
                    taken.append(1000 * _seconds(network, image, device))
        for (row, network, _), taken in zip(built, rounds, strict=True):
            found.append(
                {
                    "key": row["key"],
                    "batch": batch,
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "ms": [round(t, 4) for t in taken],
                }
            )
    return found


def _seconds(network, image, device) -> float:
    """Seconds of one pass, until the device has finished it."""
    import torch

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


def summary(content: dict) -> list[dict]:
    """A dict for every batch size and row: least and median ms of a slice, and how often the reference's time it takes.

    `ratio` is that of the least times, `ratio_median` the median over rounds of the ratio within a round,
    `ratio_to_enlarged` that of the least times to the first of the rows with an enlarged input.
    """
    labels = {row["key"]: row for row in content["rows"]}
    of = {(t["batch"], t["key"]): np.array(t["ms"]) for t in content["times"]}
    rows = []
    for entry in content["times"]:
        taken, base = of[entry["batch"], entry["key"]], of[entry["batch"], content["reference"]]
        row, large = labels[entry["key"]], of.get((entry["batch"], content["enlarged"]))
        ratios = taken / base
        rows.append(
            {
                "key": entry["key"],
                "network": row["label"],
                "input": f"{row['size']} x {row['size']}",
                "parameters": entry["parameters"],
                "batch": entry["batch"],
                "rounds": len(taken),
                "least_ms_a_slice": round(float(taken.min() / entry["batch"]), 3),
                "median_ms_a_slice": round(float(np.median(taken) / entry["batch"]), 3),
                "ratio": round(float(taken.min() / base.min()), 3),
                "ratio_median": round(float(np.median(ratios)), 3),
                "ratio_to_enlarged": None if large is None else round(float(taken.min() / large.min()), 3),
                "paper_ms": row["paper"].get("ms"),
            }
        )
    return rows
