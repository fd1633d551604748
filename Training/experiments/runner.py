"""`python -m Training experiment`: prepare an experiment's jobs, run them, write what became of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config import ConfigError
from ..data.folder import IMAGES, is_image_set
from . import characteristics, definition, engines, jobs, timing
from .definition import Experiment
from .kinds import KINDS
from .outcome import JOBS, earlier_folds, write_outcome
from .rows import jobs_of, profiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `experiment`."""
    shipped, sizes = ", ".join(definition.available()), ", ".join(profiles())
    parser.description = (
        "Run tables and figures of the papers. Each row of a table is trained, predicts and is scored in one job for "
        "each fold; finished jobs are kept, so the same command again goes on where it stopped, and experiments share "
        "the jobs that they have in common. `report` shows the results."
    )
    add = parser.add_argument
    add("name", nargs="+", metavar="NAME", help=f"one or several of {shipped}; or all; or a .toml file of your own")
    add("--data", type=Path, required=True, metavar="DIR", help="data folder (see prepare-lidc, prepare-images)")
    add("--output", type=Path, default=Path("experiments"), metavar="DIR", help="jobs and results (experiments)")
    add("--profile", default="full", help=f"how large the networks are: {sizes} (full: the papers' widths, for a GPU)")
    add("--preset", default="default", choices=list(definition.BASES), help="the base configuration (default)")
    add("--folds", type=int, nargs="+", default=None, metavar="K", help="only these test folds (all)")
    add("--rows", nargs="+", metavar="KEY", help="only these rows (all)")
    add("--engine", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster (local)")
    add("--jobs", type=int, default=1, metavar="N", help="jobs side by side on this machine (1)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of each job (cores / jobs)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train (auto)")
    add("--devices", type=int, default=1, metavar="N", help="GPUs of each job; above 1 it runs under torchrun (1)")
    add("--retries", type=int, default=1, metavar="N", help="how often a failed job is tried again (1)")
    add("--list", action="store_true", help="prepare the jobs, list them and which are done; run none")
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run experiments; 0 when every job is done, 1 when some failed (they are named, and written down)."""
    experiments = _experiments(args)
    trained = [experiment for experiment in experiments if KINDS[experiment.kind].trained]
    timed = [experiment for experiment in experiments if experiment not in trained]
    data = jobs.DataSet.of(args.data, not args.quiet)
    waves = _prepared(trained, args, data)
    folders = [job for wave in waves for job in wave]
    if not args.quiet or args.list:
        print(f"{len(folders)} jobs, {_done(folders)} of them done")
    if args.list:
        _print_state(folders, timed, args.output)
        return 0
    failed: dict[Path, str] = {}
    folds = {e.name: sorted({*_folds(e, args.folds)} | earlier_folds(e, args.output)) for e in trained}
    folds |= {e.name: sorted(earlier_folds(e, args.output)) for e in timed}
    command = _command(args, experiments)

    def write(_: Path | None = None) -> None:
        for experiment in experiments:
            write_outcome(experiment, folds[experiment.name], data, args.output, failed, command)

    write()
    for experiment in trained:
        if KINDS[experiment.kind].ratings:
            characteristics.write(experiment.name, args.output, args.data)
    workers = max(args.jobs, 1)
    threads = args.threads or max((os.cpu_count() or 1) // workers, 1)
    launch = engines.Launch(args.data, args.device, threads, args.devices)
    follow = engines.Follow(retries=args.retries, progress=not args.quiet, finished=write)
    for wave in filter(None, waves):
        if args.engine == "ray":
            failed.update(engines.run_ray(wave, launch, follow))
        else:
            failed.update(engines.run_local(wave, launch, follow, workers=workers))
    for experiment in timed:  # at last and in this process, when none of the jobs runs any more
        timing.run(experiment, args.output, device=args.device, threads=args.threads)
    write()
    for job, reason in failed.items():
        print(f"error: {job.name}: {reason} (see {job / jobs.OUTPUT})", file=sys.stderr)
    done = f"{_done(folders)} of {len(folders)} jobs done"
    print(f"{done}; next: python -m Training report --experiments {args.output}")
    return 1 if failed else 0


def _experiments(args: argparse.Namespace) -> list[Experiment]:
    """The experiments that were named, or all that fit the data. Raises ConfigError for one that doesn't."""
    every = args.name == ["all"]
    names = definition.available() if every else args.name
    found = [definition.load(name, args.profile, args.preset) for name in names]
    fitting = [e for e in found if e.options.data != "images" or is_image_set(args.data)]
    if not every and len(fitting) < len(found):
        name = next(e.name for e in found if e not in fitting)
        raise ConfigError(f"{args.data}: {name} wants a set of images, with {IMAGES} (see `prepare-images --help`)")
    keys = {row.key for experiment in fitting for row in experiment.rows}
    unknown = set(args.rows or ()) - keys
    if unknown:
        raise ConfigError(f"--rows {' '.join(sorted(unknown))}: no such row; there are {', '.join(sorted(keys))}")
    return fitting


def _folds(experiment: Experiment, asked: Sequence[int] | None) -> list[int]:
    """The folds asked for, else all of the experiment: its option `folds`, or the five of nodules.csv."""
    return list(asked or experiment.options.folds or range(5))


def _prepared(experiments: Sequence[Experiment], args: argparse.Namespace, data: jobs.DataSet) -> list[list[Path]]:
    """Job folders in the order of running, each once: the jobs that others wait for, then the others.

    Fold by fold, so that a stopped run leaves whole columns.
    """
    first: dict[Path, None] = {}
    second: dict[Path, None] = {}
    for fold in sorted({fold for experiment in experiments for fold in _folds(experiment, args.folds)}):
        for experiment in experiments:
            for row in experiment.rows:
                if fold not in _folds(experiment, args.folds) or (args.rows and row.key not in args.rows):
                    continue
                *before, own = jobs_of(row, fold, data.sha256)
                for wave, (name, config) in [*((first, job) for job in before), (second, own)]:
                    wave[jobs.prepare(args.output / JOBS, jobs.Job(name, config, fold, data))] = None
    return [list(first), [job for job in second if job not in first]]


def _done(folders: Sequence[Path]) -> int:
    return sum(jobs.is_done(job) for job in folders)


def _print_state(folders: Sequence[Path], timed: Sequence[Experiment], output: Path) -> None:
    """What is done and what is open, a line each."""
    for job in folders:
        print(f"{'done' if jobs.is_done(job) else 'open'}  {job.name}")
    for experiment in timed:
        print(f"{'done' if timing.is_done(experiment, output) else 'open'}  {experiment.name} (times)")


def _command(args: argparse.Namespace, experiments: Sequence[Experiment]) -> str:
    """The command line that makes these results, for the report."""
    names = [experiment.name for experiment in experiments] if args.name == ["all"] else args.name
    options = f"--data DATA --profile {args.profile} --preset {args.preset}"
    return " ".join(["python -m Training experiment", *names, options])
