"""`python -m Training experiment`: prepare an experiment's jobs, run them, write what became of them."""

import argparse
import json
import os
import sys
from pathlib import Path

from ..config import ConfigError
from ..data.folder import IMAGES, is_image_set, load_folder
from ..data.nodule import fingerprint
from . import characteristics, definition, engines, jobs, timing
from .kinds import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `experiment`."""
    shipped, sizes = ", ".join(definition.available()), ", ".join(definition.profiles())
    add = parser.add_argument
    add("name", nargs="+", metavar="NAME", help=f"one or several of {shipped}; or all; or a .toml of your own")
    add("--data", type=Path, required=True, metavar="DIR", help="data folder (see prepare-lidc, prepare-images)")
    add("--output", type=Path, default=Path("experiments"), metavar="DIR", help="jobs and results (experiments)")
    add("--profile", default="full", help=f"how large: {sizes} (full, the papers' widths, wants a GPU)")
    add("--preset", default="default", choices=list(definition.BASES), help="the base configuration (default)")
    add("--folds", type=int, nargs="+", default=None, metavar="K", help="test folds (all that it has)")
    add("--rows", nargs="+", metavar="KEY", help="only these rows (all)")
    add("--engine", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster (local)")
    add("--jobs", type=int, default=1, metavar="N", help="jobs side by side on this machine (1)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads a job (cores / jobs)")
    add("--device", default="auto", help="auto, cpu or cuda (auto)")
    add("--devices", type=int, default=1, metavar="N", help="GPUs a job; above 1 a job runs under torchrun (1)")
    add("--retries", type=int, default=1, metavar="N", help="times that a failed job is tried again (1)")
    add("--list", action="store_true", help="say which jobs there are and which are done; run nothing")
    add("--quiet", action="store_true", help="no progress bar")


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `job`, which engines call."""
    parser.add_argument("folder", type=Path, metavar="JOB", help="a prepared job's folder")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, metavar="N")
    parser.add_argument("--quiet", action="store_true")


def run_job(args) -> int:
    """`python -m Training job`: one job in this process."""
    jobs.run(args.folder, args.data, device=args.device, threads=args.threads, progress=not args.quiet)
    return 0


def _folds(experiment, asked) -> list[int]:
    """The folds asked for, else all of the experiment: its option `folds`, or the five of nodules.csv."""
    return list(asked or experiment.options.get("folds", range(5)))


def _prepared(experiments, keys, asked, output, data) -> list[list[Path]]:
    """Job folders in the order of running, each once: the jobs that others wait for, then the others.

    Fold by fold, so that a stopped run leaves whole columns.
    """
    waves: list[dict] = [{}, {}]
    for fold in sorted({fold for experiment in experiments for fold in _folds(experiment, asked)}):
        for experiment in experiments:
            for row in experiment.rows:
                if fold not in _folds(experiment, asked) or (keys and row.key not in keys):
                    continue
                *before, own = definition.jobs_of(row, fold, data["sha256"])
                for wave, (name, config) in [*((waves[0], job) for job in before), (waves[1], own)]:
                    wave[jobs.prepare(output / "jobs", name, config, fold, data)] = None
    return [list(waves[0]), [job for job in waves[1] if job not in waves[0]]]


def _earlier_folds(experiment, output: Path) -> set[int]:
    """Folds that an earlier run wrote down. Raises ConfigError when it was made with another profile or preset."""
    path = output / experiment.name / "experiment.json"
    if not path.is_file():
        return set()
    found = json.loads(path.read_text(encoding="utf-8"))
    if (found["profile"], found["preset"]) != (experiment.profile, experiment.preset):
        raise ConfigError(
            f"{path}: is of profile {found['profile']} and preset {found['preset']}; give another --output"
        )
    return set(found["folds"])


def _describe(experiment, folds, data, output, failed, command) -> dict:
    rows = []
    for row in experiment.rows:
        own = {f: output / "jobs" / definition.jobs_of(row, f, data["sha256"])[-1][0] for f in folds}
        rows.append(
            {
                "key": row.key,
                "label": row.label,
                "paper": row.paper,
                "jobs": {str(fold): job.name for fold, job in own.items() if jobs.is_done(job)},
                "failed": {str(fold): failed[job] for fold, job in own.items() if job in failed},
            }
        )
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "kind": experiment.kind,
        "profile": experiment.profile,
        "preset": experiment.preset,
        "folds": folds,
        "notes": experiment.notes,
        "options": experiment.options,
        "command": command,
        "rows": rows,
    }


def run(args) -> int:
    """Run experiments; 0 when every job is done, 1 when some failed (they are named, and written down)."""
    names = definition.available() if args.name == ["all"] else args.name
    experiments = [definition.load(name, args.profile, args.preset) for name in names]
    experiments = _fitting(experiments, args.data, args.name == ["all"])
    names = names if args.name != ["all"] else [experiment.name for experiment in experiments]
    keys = {row.key for experiment in experiments for row in experiment.rows}
    unknown = set(args.rows or ()) - keys
    if unknown:
        raise ConfigError(f"--rows {' '.join(sorted(unknown))}: no such row; there are {', '.join(sorted(keys))}")
    workers = max(args.jobs, 1)
    timed = [experiment for experiment in experiments if not KINDS[experiment.kind].trained]
    trained = [experiment for experiment in experiments if experiment not in timed]
    data = _data(args.data, not args.quiet)
    waves = _prepared(trained, args.rows, args.folds, args.output, data)
    folders = [job for wave in waves for job in wave]
    done = sum(jobs.is_done(job) for job in folders)
    if not args.quiet or args.list:
        print(f"{len(folders)} jobs, {done} of them done")
    if args.list:
        for job in folders:
            print(f"{'done' if jobs.is_done(job) else 'open'}  {job.name}")
        for experiment in timed:
            print(f"{'done' if timing.is_done(experiment, args.output) else 'open'}  {experiment.name} (times)")
        return 0
    threads = args.threads or max((os.cpu_count() or 1) // workers, 1)
    launch = engines.Launch(args.data, args.device, threads, args.devices)
    failed: dict = {}
    known = {e.name: sorted({*_folds(e, args.folds)} | _earlier_folds(e, args.output)) for e in trained}
    known |= {e.name: sorted(_earlier_folds(e, args.output)) for e in timed}
    command = " ".join(
        ["python -m Training experiment", *names, f"--data DATA --profile {args.profile} --preset {args.preset}"]
    )

    def write(_=None):
        for experiment in experiments:
            folder = args.output / experiment.name
            folder.mkdir(parents=True, exist_ok=True)
            content = _describe(experiment, known[experiment.name], data, args.output, failed, command)
            jobs.write_json(folder / "experiment.json", content)

    write()
    for experiment in trained:
        if KINDS[experiment.kind].ratings:
            characteristics.write(experiment.name, args.output, args.data)
    options = {"retries": args.retries, "progress": not args.quiet, "finished": write}
    for wave in filter(None, waves):
        if args.engine == "ray":
            failed.update(engines.run_ray(wave, launch, **options))
        else:
            failed.update(engines.run_local(wave, launch, workers=workers, **options))
    for experiment in timed:  # at last and in this process, when none of the jobs runs any more
        timing.run(experiment, args.output, device=args.device, threads=args.threads)
    write()
    for job, reason in failed.items():
        print(f"error: {job.name}: {reason} (see {job / 'output.log'})", file=sys.stderr)
    done = sum(jobs.is_done(job) for job in folders)
    print(f"{done} of {len(folders)} jobs done; next: python -m Training report --experiments {args.output}")
    return 1 if failed else 0


def _fitting(experiments: list, folder: Path, every: bool) -> list:
    """The experiments that the data are for: option `data = "images"` wants a set of images, and `all` leaves such ones
    out on nodules. Raises ConfigError for one that was named.
    """
    fitting = [e for e in experiments if e.options.get("data", "") != "images" or is_image_set(folder)]
    if not every and len(fitting) < len(experiments):
        name = next(e.name for e in experiments if e not in fitting)
        raise ConfigError(f"{folder}: {name} wants a set of images, with {IMAGES} (see `prepare-images --help`)")
    return fitting


def _data(folder: Path, progress: bool) -> dict:
    """Name, fingerprint and size of the data."""
    nodules = load_folder(folder, progress=progress)
    return {"name": folder.name, "sha256": fingerprint(nodules), "nodules": len(nodules)}
