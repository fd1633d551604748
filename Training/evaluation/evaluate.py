"""`python -m Training evaluate`: a bundle, a run or several runs measured on nodules that they weren't fitted to."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from LungNoduleKit.files import write_record
from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib import load_model
from LungNoduleUncertaintyLib.models.bundle import Model

from ..config import ConfigError
from ..data.folder import load_folder
from ..data.nodule import DatasetError, Nodule
from ..runs import conditions, is_run, patients_of
from .calibration import calibration_path, read_calibration
from .models import run_model
from .nodules import evaluate_ensemble, evaluate_nodule
from .reader_agreement import add_cubes_argument, slices_of
from .score import write_scores
from .summary import evaluation_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    parser.description = (
        "Outline every nodule from a point at its center, as a user would, and compare the masks in 3D with the "
        "readers': Dice of Final, HC and the union, coverage and width of the interval. Writes a CSV with a row for "
        "each nodule and a JSON file with the means, beside the readers' own figures on the same nodules."
    )
    parser.add_argument(
        "model",
        nargs="+",
        help="run folder (after calibrate), or a bundle's name or folder; the networks of several runs are averaged",
    )
    parser.add_argument("--calibration", type=Path, help="calibration.json (default: the one run's own)")
    parser.add_argument(
        "--members",
        action="store_true",
        help="several runs as an ensemble: HC, Final and union are what all, at least half and any of their Final "
        "masks include",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="data folder (see prepare-lidc)")
    parser.add_argument(
        "--fold", type=int, metavar="K", help="the held-out fold (refused if the run was trained on its patients)"
    )
    add_cubes_argument(parser)
    parser.add_argument(
        "--jitter",
        type=int,
        default=0,
        metavar="N",
        help="how much Final depends on the point: outline each nodule from N more points within 1.5 mm of its center "
        "along each axis; the figure is the mean Dice of their Final masks with each other (0)",
    )
    parser.add_argument(
        "--min-readers", type=int, default=2, metavar="N", help="only nodules with at least N readers (2)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N nodules")
    parser.add_argument(
        "--output", type=Path, metavar="PREFIX", help="the two files, without endings (evaluation in the run folder)"
    )


def run(args: argparse.Namespace) -> int:
    """The command; returns its exit status."""
    groups = [[name] for name in args.model] if args.members else [args.model]
    loaded = [load_models(group, args.calibration) for group in groups]
    models = [model for model, _ in loaded]
    nodules = _nodules(args, set().union(*(seen for _, seen in loaded)))
    progress = tqdm(nodules, desc="nodules")
    if args.members:
        scores = [evaluate_ensemble(nodule, models) for nodule in progress]
    else:
        scores = [evaluate_nodule(nodule, models[0], args.jitter) for nodule in progress]
    found = evaluation_of(
        scores,
        nodules,
        model=", ".join(Path(name).name for name in args.model),
        combined="members" if args.members else "average of networks" if len(args.model) > 1 else "one network",
        data=args.data.name,
        fold=args.fold,
        slices=slices_of(args),
        thresholds=models[0].metadata.thresholds,
        size_calibration=models[0].metadata.size_calibration,
        averaging=models[0].metadata.averaging,
        conditions=conditions(),
    )
    prefix = args.output or Path(args.model[0]) / "evaluation"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_scores(prefix.with_suffix(".csv"), scores)
    write_record(prefix.with_suffix(".json"), found)
    print(json.dumps(record_dict(found), indent=2))
    return 0


def _nodules(args: argparse.Namespace, seen: set[str]) -> list[Nodule]:
    """The nodules to measure on. Raises ConfigError if the models were fitted to some of their patients (`seen`)."""
    nodules = load_folder(args.data, native_slices=not args.cubes)
    nodules = [n for n in nodules if args.fold is None or n.fold == args.fold]
    if any(n.patient_id in seen for n in nodules):
        raise ConfigError(
            f"{' '.join(args.model)}: was trained or calibrated on patients of these nodules; give the held-out --fold"
        )
    nodules = [n for n in nodules if len(n.readers) >= args.min_readers][: args.limit]
    if not nodules:
        raise DatasetError(f"{args.data}: no nodule of this fold has {args.min_readers} readers")
    return nodules


def load_models(names: list[str], calibration: Path | None = None) -> tuple[Model, set[str]]:
    """A bundle, or runs with their calibration; with the patients that runs were fitted or calibrated to.

    Of a bundle these aren't known. Raises ConfigError or BundleError.
    """
    runs = [Path(name) for name in names]
    if not all(is_run(run) for run in runs):
        if len(names) > 1:
            raise ConfigError(f"{' '.join(names)}: several models have to be run folders")
        return load_model(names[0]), set()
    model = run_model(*runs)
    seen = set().union(*(patients_of(run, "training", "validation") for run in runs))
    path = calibration or calibration_path(runs)
    if path and (path.is_file() or calibration):
        found = read_calibration(path)
        model.metadata = replace(
            model.metadata,
            thresholds=found.thresholds,
            averaging=found.averaging,
            size_calibration=found.size_calibration,
        )
        seen |= set(found.patients)
    return model, seen
