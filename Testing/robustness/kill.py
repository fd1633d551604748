"""Kills the commands at any moment (signal 9): nothing half-written may be left, and a second run must end the same.

    python Testing/robustness/kill.py                        200 kills in all, over segment, build, train and export
    python Testing/robustness/kill.py --rounds 20 --only train --seed 3

A command runs in a forked child of a process that has everything imported, so that the kills hit the work and not the
imports. Half of them come at a random time; the other half at a random one of its steps on the file system (a file is
opened, renamed, linked, deleted, a folder made), where half-written states are. Every other round begins with the
outputs of an earlier, other run. After a kill every output that is there is one of the whole ones of before or after;
then the same command runs to its end, and its outputs are those of a run that nobody disturbed, with nothing beside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_STEPS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@dataclass(frozen=True)
class Program:
    """A command: `prepare(folder)` makes its inputs, `run(inputs, output, other)` is the command itself, with other
    options where `other` is true; `appended` are outputs that grow line by line."""

    prepare: Callable[[Path], None]
    run: Callable[[Path, Path, bool], int]
    appended: tuple[str, ...] = ()


@dataclass
class Told:
    """What was done and found: kills that hit a command at work, those that came too late, and faults."""

    rounds: int = 0
    killed: int = 0
    late: int = 0
    leftovers: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def _make_ct(folder: Path) -> None:
    import SimpleITK as sitk

    from test_segmentation import ball_ct

    ct, center = ball_ct(size=(60, 60, 40))
    sitk.WriteImage(ct, str(folder / "ct.nrrd"))
    (folder / "point.json").write_text(json.dumps(center))


def _segment(folder: Path, output: Path, other: bool) -> int:
    from fake_model import bright_model
    from LungNoduleUncertaintyLib import __main__ as cli

    def load(*_: object) -> object:
        model = bright_model()
        model.metadata = (
            model.metadata
            if not other
            else type(model.metadata)(
                **{**model.metadata.__dict__, "thresholds": dict.fromkeys(model.metadata.thresholds, 0.6)}
            )
        )
        return model

    cli.load_model = load
    output.mkdir(exist_ok=True)
    x, y, z = json.loads((folder / "point.json").read_text())
    files = {"--output": "n.seg.nrrd", "--report": "r.json", "--probabilities": "maps"}
    options = [word for option, name in files.items() for word in (option, str(output / name))]
    return cli.main(["segment", str(folder / "ct.nrrd"), "--point", str(x), str(y), str(z), "--quiet", *options])


def _make_nodules(folder: Path) -> None:
    from lesion_cases import nodule_folder

    nodule_folder(folder / "nodules", count=4)


def _build(folder: Path, output: Path, other: bool) -> int:
    from SoftMaskLabelerLib.__main__ import main

    limit = ["--limit", "2"] if other else []
    return main(["build", str(folder / "nodules"), "--output", str(output), "--jobs", "1", "--quiet", *limit])


_CONFIG = """seed = 1
[network]
name = "unet"
width = 8
levels = 2
[input]
slice_offsets = [-1, 0, 1]
position = true
[data]
crop = 16
large_crop = 24
slices_per_nodule = 4
validation_share = 0.5
[training]
epochs = 2
batch = 4
ema = 0.9
"""


def _make_training(folder: Path) -> None:
    from training_data import write_folder

    write_folder(folder / "data", count=6)
    (folder / "toy.toml").write_text(_CONFIG)


def _train(folder: Path, output: Path, other: bool) -> int:
    from Training.__main__ import main

    del other  # another configuration's resume point is refused
    given = ["train", str(folder / "toy.toml"), "--data", str(folder / "data"), "--fold", "0", "--output", str(output)]
    return main([*given, "--device", "cpu", "--threads", "1", "--quiet"])


def _make_run(folder: Path) -> None:
    _make_training(folder)
    if _train(folder, folder / "run", False):
        raise RuntimeError("the toy network wasn't trained")


def _export(folder: Path, output: Path, other: bool) -> int:
    from Training.__main__ import main

    version = "1.0" if other else "2.0"
    return main(["export", str(folder / "run"), "--output", str(output), "--version", version])


PROGRAMS = {
    "segment": Program(_make_ct, _segment),
    "build": Program(_make_nodules, _build),
    "train": Program(_make_training, _train, appended=("log.jsonl",)),
    "export": Program(_make_run, _export),
}


def check(name: str, folder: Path, rounds: int, seed: int) -> Told:
    """`rounds` kills of one command, in a process of its own with everything imported."""
    paths = [REPOSITORY, *(REPOSITORY / p for p in ("LungNoduleUncertainty", "SoftMaskLabeler", "Testing/unit"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", name, str(folder), str(rounds), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return Told(faults=[f"{name}: the check itself failed: {done.stderr[-1500:]}"])
    return Told(**json.loads(done.stdout.splitlines()[-1]))


def _serve(name: str, folder: Path, rounds: int, seed: int) -> Told:
    program, chance, told, begun = PROGRAMS[name], random.Random(seed), Told(), time.monotonic()
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    if _child(lambda: program.prepare(inputs) or 0):
        raise RuntimeError(f"{name}: its inputs can't be made")
    expected, older = folder / "expected", folder / "older"
    first = time.monotonic()
    if _child(lambda: program.run(inputs, expected, False)) or _child(lambda: program.run(inputs, older, True)):
        raise RuntimeError(f"{name}: the undisturbed run failed")
    span = (time.monotonic() - first) / 2
    steps = _count(lambda: program.run(inputs, folder / "counted", False), folder / "count.txt")
    wanted, before = contents(expected), contents(older)
    for number in range(rounds):
        output = folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        if number % 2:
            shutil.copytree(older, output)
        at_step = chance.random() < 0.5

        def run(output: Path = output) -> int:
            return program.run(inputs, output, False)

        status = _killed(run, chance.randrange(1, steps + 1) if at_step else None, chance.random() * span)
        told.rounds, told.killed, told.late = told.rounds + 1, told.killed + (status < 0), told.late + (status == 0)
        where = f"{name}, round {number} of seed {seed}"
        if status > 0:
            told.faults.append(f"{where}: exit status {status}")
        left = contents(output) if output.exists() else {}
        told.leftovers += len(_unfinished(folder))
        for path, content in left.items():
            allowed = {wanted.get(path), before.get(path)}
            if path not in program.appended and content not in allowed and not _grows(name, path, output):
                told.faults.append(f"{where}: {path} is neither the file of before nor the one of after")
        if _child(run):
            told.faults.append(f"{where}: the second run failed")
        ended = contents(output)
        told.faults += [
            f"{where}: {path} differs after the second run" for path in wanted if ended.get(path) != wanted[path]
        ]
        told.faults += [f"{where}: {path} is left over" for path in ended if path not in wanted and path not in before]
        told.faults += [f"{where}: {path} is left over" for path in _unfinished(folder)]
    told.seconds = round(time.monotonic() - begun, 1)
    return told


def _grows(name: str, path: str, output: Path) -> bool:
    """Whether a file that has several whole states (more rows, more steps) is in one of them: it can be read."""
    file = output / path
    if name == "build" and path == "manifest.csv":
        from LungNoduleKit.tables import read_table

        return all(row["status"] == "ok" for row in read_table(file))
    if name == "build" and path.startswith("contact-sheets/"):
        from PIL import Image

        Image.open(file).load()
        return True
    if name == "train" and path == "last.ckpt":
        import torch

        return bool(torch.load(file, weights_only=True)["step"])
    if name == "train" and path == "best.safetensors":
        from safetensors.torch import load_file

        return bool(load_file(file))
    return False


def contents(folder: Path) -> dict[str, str]:
    """What counts of each file: its hash; of tables, reports and logs without the times that they state."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or ".unfinished-" in name or "tfevents" in name:
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            content = re.sub(rb'"(seconds|date)": [^,}\n]+', b"", content)
        if path.name == "last.ckpt":
            content = _state(path)
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _state(path: Path) -> bytes:
    """A resume point's values in one order: how they are packed depends on whether they were loaded or made."""
    import torch

    def told(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        if isinstance(value, dict):
            return sorted((str(key), told(item)) for key, item in value.items())
        return [told(item) for item in value] if isinstance(value, list | tuple) else repr(value)

    return json.dumps(told(torch.load(path, weights_only=True))).encode()


def _unfinished(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".unfinished-*")]


def _child(run: Callable[[], int]) -> int:
    """The exit status of a function in a forked child."""
    return os.waitstatus_to_exitcode(os.waitpid(_fork(run), 0)[1])


def _fork(run: Callable[[], int]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        status = run()
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    os._exit(status)


def _watched(run: Callable[[], int], seen: Callable[[], None]) -> int:
    """The function, with `seen` called at each of its steps on the file system that writes."""

    def hook(event: str, arguments: tuple) -> None:
        if event in _STEPS:
            reads = event == "open" and (
                arguments[1] in ("r", "rb") or (arguments[1] is None and not int(arguments[2] or 0) & 3)
            )
            if not reads:
                seen()

    sys.addaudithook(hook)
    return run()


def _count(run: Callable[[], int], file: Path) -> int:
    count = [0]

    def counted() -> int:
        def seen() -> None:
            count[0] += 1

        status = _watched(run, seen)
        steps = count[0]
        file.write_text(str(steps))
        return status

    _child(counted)
    return int(file.read_text())


def _killed(run: Callable[[], int], step: int | None, seconds: float) -> int:
    """The exit status of a run that is killed at a step, or after so many seconds; 0 where it ended before."""
    if step is None:
        process = _fork(run)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    left = [step]

    def seen() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return _child(lambda: _watched(run, seen))


def _import() -> None:
    """What the commands import when they run, so that children have it at once."""
    import matplotlib.figure  # noqa: F401

    import fake_model  # noqa: F401
    import lesion_cases  # noqa: F401
    import Training.evaluation.export
    import Training.trainers.train  # noqa: F401


def main() -> int:
    """The full check: prints figures and faults; exit status 1 if there is a fault."""
    if sys.argv[1:2] == ["--serve"]:
        name, folder, rounds, seed = sys.argv[2:6]
        _import()
        print(json.dumps(asdict(_serve(name, Path(folder), int(rounds), int(seed)))))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="kills of each command (50)")
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="this command (all four)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    args = parser.parse_args()
    faults = 0
    for name in args.only or PROGRAMS:
        with tempfile.TemporaryDirectory(prefix="killed-") as folder:
            told = check(name, Path(folder), args.rounds, args.seed)
        print(
            f"{name}: {told.rounds} rounds, {told.killed} killed at work, {told.late} had ended, {told.leftovers} "
            f"temporary files left by the kills, {len(told.faults)} faults, {told.seconds:.0f} s",
            flush=True,
        )
        for fault in told.faults:
            print(f"  {fault}")
        faults += len(told.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
