"""Command line of the training package: `python -m Training COMMAND --help`."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from LungNoduleKit.records import read_record, record_dict

_EPILOG = """examples:
  python -m Training train ugsnet-compact --data lidc-nodules --fold 0 --output runs/compact-0
  python -m Training calibrate runs/compact-0 --data lidc-nodules
  python -m Training evaluate runs/compact-0 --data lidc-nodules --fold 0 --jitter 10
  python -m Training pool runs/compact-0/evaluation.json runs/compact-1/evaluation.json --output folds.json
  python -m Training export runs/compact-0 --output my-model --version 1.0
  torchrun --nproc-per-node 2 -m Training train ugsnet-compact --data DATA --fold 0   (the same, distributed)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Training",
        description="Train, calibrate, evaluate and export networks for lung nodules with several readers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser(
        "train",
        help="train a network; a killed run goes on where it stopped",
        description="Train a network. Running the same command again resumes the run exactly.",
    )
    train.add_argument("config", help="a TOML file, or a shipped configuration's name (see Training/configs)")
    train.add_argument("--data", required=True, type=Path, help="data folder (see prepare-lidc, prepare-images)")
    train.add_argument("--fold", type=int, help="fold to hold out as test set; without it all patients are trained on")
    train.add_argument("--output", type=Path, help="run folder (default: runs/NAME-foldK or runs/NAME-all)")
    train.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting")
    train.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train")
    train.add_argument(
        "--devices", default="1", help="how many devices (DDP through Lightning Fabric); torchrun works too"
    )
    train.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    calibrate = commands.add_parser(
        "calibrate",
        help="choose thresholds and slope for size on a run's validation patients; writes calibration.json",
        description="Choose thresholds and slope for size on four-reader nodules that the networks weren't fitted to. "
        "A run's validation patients alone are few; with the runs of other folds (--with) nearly all patients count.",
    )
    calibrate.add_argument("run", type=Path, nargs="+", help="run folder; of several the networks are averaged")
    calibrate.add_argument("--data", required=True, type=Path)
    calibrate.add_argument(
        "--with",
        dest="others",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of other folds: their maps of patients that they weren't fitted to count too, except for the "
        "patients that the calibrated run is to be measured on",
    )
    calibrate.add_argument(
        "--output", type=Path, metavar="FILE.json", help="(default: calibration.json of the one run)"
    )
    calibrate.add_argument(
        "--coverage", type=float, default=0.88, help="wanted share of reader volumes in the interval"
    )
    calibrate.add_argument(
        "--width", type=float, default=1.15, help="largest median width of the interval, times readers'"
    )
    _averaging_argument(calibrate)
    _slices_argument(calibrate)

    evaluate = commands.add_parser(
        "evaluate", help="3D Dice, interval coverage and stability on a fold; writes a CSV and a JSON summary"
    )
    evaluate.add_argument(
        "model",
        nargs="+",
        help="run folder (after calibrate), or a bundle's name or folder; the networks of several runs are averaged",
    )
    evaluate.add_argument("--calibration", type=Path, help="calibration.json (default: the one run's own)")
    evaluate.add_argument(
        "--members",
        action="store_true",
        help="several runs as an ensemble: HC, Final and union are what all, most and any of their outlines hold",
    )
    evaluate.add_argument("--data", required=True, type=Path)
    evaluate.add_argument("--fold", type=int, help="the held-out fold (refused if the run was trained on its patients)")
    _slices_argument(evaluate)
    evaluate.add_argument("--jitter", type=int, default=0, help="points moved by up to 1.5 mm per nodule")
    evaluate.add_argument("--min-readers", type=int, default=2, help="only nodules with at least so many readers")
    evaluate.add_argument("--limit", type=int, help="only the first N nodules")
    evaluate.add_argument("--output", type=Path, help="prefix of the two files (default: inside the run folder)")

    pool = commands.add_parser(
        "pool",
        help="several folds' evaluations as one: every patient once, with intervals",
        description="Take together what `evaluate` measured on several folds, each by a model that never saw it: "
        "figures over all nodules with 95 % intervals (bootstrap over patients), and each fold's own.",
    )
    pool.add_argument("evaluation", type=Path, nargs="+", help="JSON of `evaluate`, with its CSV beside it")
    pool.add_argument("--output", required=True, type=Path, metavar="FILE.json")

    export = commands.add_parser("export", help="write a run's bundle: safetensors, metadata.json, MODEL_CARD.md")
    export.add_argument("run", type=Path, nargs="+", help="run folder; several give a bundle that averages them")
    export.add_argument("--output", required=True, type=Path, help="bundle folder")
    export.add_argument("--version", required=True, help="version of the model, e.g. 1.0")
    export.add_argument("--name", help="name of the model (default: the configuration's)")
    export.add_argument("--calibration", type=Path, help="calibration.json (default: the run's own)")
    export.add_argument(
        "--intervals",
        action="store_true",
        help="HC and LC also of a network with a single map: cuts of it at calibrated thresholds (else Final alone)",
    )
    export.add_argument("--figures", type=Path, help="JSON of `evaluate` or `pool` whose figures go into the card")
    export.add_argument(
        "--figures-note", default="", help="a sentence that says which model and patients the figures are of"
    )

    from . import report
    from .data.images import prepare as prepare_images
    from .data.lidc import prepare as prepare_lidc
    from .evaluation import reader_agreement as panels
    from .experiments import runner

    readers = commands.add_parser("readers", help="how well a data folder's readers agree, and another panel would")
    panels.add_arguments(readers)
    _slices_argument(readers)
    experiment = commands.add_parser(
        "experiment",
        help="run a table or figure of the papers: every job trains, predicts and scores one network on one fold",
    )
    runner.add_arguments(experiment)
    runner.add_job_arguments(commands.add_parser("job", help="one prepared job of an experiment (engines call this)"))
    report.add_arguments(commands.add_parser("report", help="one page with the tables and figures of experiments"))
    prepare = commands.add_parser("prepare-lidc", help="build the data folder from LIDC-IDRI's DICOM series")
    prepare_lidc.add_arguments(prepare)
    prepare = commands.add_parser("prepare-images", help="build a data folder of single images with masks")
    prepare_images.add_arguments(prepare)
    merge = commands.add_parser("merge-images", help="several folders of prepare-images as one")
    prepare_images.add_merge_arguments(merge)
    return parser


def _slices_argument(parser) -> None:
    parser.add_argument(
        "--cubes",
        action="store_true",
        help="on the data folder's cubes as they are, interpolated along z; without, on the slices of the scans, where "
        "readers drew and a user's CT is (recovered from the cubes)",
    )


def _averaging_argument(parser):
    parser.add_argument(
        "--averaging",
        type=json.loads,
        default=None,
        metavar="JSON",
        help='test-time averaging, e.g. {"flips": [[], [1], [2], [1, 2]], "views": ["axial"]} (axes of z, y, x)',
    )


def _train(args) -> int:
    import torch

    from .config import load_config
    from .data.folder import load_folder
    from .data.splits import configured_split
    from .trainers.registry import make_trainer

    config = load_config(args.config, args.set)
    if args.threads:
        torch.set_num_threads(args.threads)
    nodules = load_folder(args.data, native_slices=config.data.native_slices, progress=not args.quiet)
    training, validation, _ = configured_split(nodules, args.fold, config)
    place = "all" if args.fold is None else f"fold{args.fold}"
    output = args.output or Path("runs") / f"{config.name}-{place}"
    how = {"device": args.device, "devices": int(args.devices), "progress": not args.quiet}
    trainer = make_trainer(config, training, validation, output, **how)
    best = trainer.train()
    trainer.fabric.print(f"best: {json.dumps(best)}\nrun folder: {output}")
    return 0


def _patients(run: Path, *parts: str) -> set[str]:
    """The patients of these parts of a run's split."""
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    return {patient for part in parts for patient in split[part]["patients"]}


def _calibrate(args) -> int:
    from LungNoduleUncertaintyLib.models.network_input import Averaging

    from .config import ConfigError
    from .data.folder import load_folder
    from .evaluation.calibration import calibrate, probability_cases
    from .evaluation.export import run_model

    output = args.output or (args.run[0] / "calibration.json" if len(args.run) == 1 else None)
    if output is None:
        raise ConfigError("calibrate: several runs have no calibration.json in common; say where with --output")
    nodules = [n for n in load_folder(args.data, native_slices=not args.cubes) if len(n.readers) == 4]
    averaging = read_record(Averaging, args.averaging or {}, "--averaging", ConfigError)
    known = set().union(*(_patients(run, "training", "validation") for run in args.run))  # the others are its test
    parts = [(args.run, set.intersection(*(_patients(run, "validation") for run in args.run)))]
    parts += [([run], known - _patients(run, "training")) for run in args.others]
    cases = []
    for runs, free in parts:
        cases += probability_cases(run_model(*runs), [n for n in nodules if n.patient_id in free], averaging)
    thresholds, slopes, figures = calibrate(cases, args.coverage, args.width)
    patients = sorted({c.nodule.patient_id for c in cases})
    distinct = len({c.nodule.nodule_id for c in cases})
    out = {
        "thresholds": thresholds,
        "size_calibration": slopes,
        "averaging": args.averaging or {"flips": [[]], "views": ["axial"]},
        "slices": "cubes" if args.cubes else "own",
        "calibrated_on": f"{distinct} four-reader nodules of {len(patients)} patients, unseen in training",
        "runs": [run.resolve().name for run in (*args.run, *args.others)],
        "patients": patients,
        "figures": figures,
    }
    output.write_text(json.dumps(out, indent=2), encoding="utf-8")
    print(json.dumps({key: value for key, value in out.items() if key != "patients"}, indent=2))
    return 0


def _load_for_evaluation(names: list[str], calibration: Path | None = None):
    """A bundle, or runs with their calibration; with the patients that they were fitted or calibrated to."""
    from LungNoduleUncertaintyLib import load_model
    from LungNoduleUncertaintyLib.models.network_input import Averaging

    from .config import ConfigError
    from .evaluation.export import run_model

    runs = [Path(name) for name in names]
    if not all((run / "config.json").is_file() for run in runs):
        if len(names) > 1:
            raise ConfigError(f"{' '.join(names)}: several models have to be run folders")
        return load_model(names[0]), None
    model = run_model(*runs)
    seen = set().union(*(_patients(run, "training", "validation") for run in runs))
    calibration = calibration or (runs[0] / "calibration.json" if len(runs) == 1 else None)
    if calibration and calibration.is_file():
        found = json.loads(calibration.read_text(encoding="utf-8"))
        model.metadata = replace(
            model.metadata,
            thresholds=found["thresholds"],
            averaging=read_record(Averaging, found["averaging"], str(calibration), ConfigError),
            size_calibration=found.get("size_calibration", {}),
        )
        seen |= set(found.get("patients", []))
    return model, seen


def _evaluate(args) -> int:
    from tqdm import tqdm

    from .config import ConfigError
    from .data.folder import load_folder
    from .evaluation.nodules import evaluate_ensemble, evaluate_nodule, summary_table, write_csv
    from .runs import conditions

    groups = [[name] for name in args.model] if args.members else [args.model]
    loaded = [_load_for_evaluation(group, args.calibration) for group in groups]
    nodules = [
        n for n in load_folder(args.data, native_slices=not args.cubes) if args.fold is None or n.fold == args.fold
    ]
    seen = set().union(*(known or () for _, known in loaded))
    if any(n.patient_id in seen for n in nodules):
        raise ConfigError(
            f"{' '.join(args.model)}: was trained or calibrated on patients of these nodules; give the held-out --fold"
        )
    nodules = [n for n in nodules if len(n.readers) >= args.min_readers][: args.limit]
    models = [model for model, _ in loaded]
    if args.members:
        scores = [evaluate_ensemble(n, models) for n in tqdm(nodules, desc="nodules")]
    else:
        scores = [evaluate_nodule(n, models[0], args.jitter) for n in tqdm(nodules, desc="nodules")]
    summary = {
        "model": ", ".join(Path(name).name for name in args.model),
        "combined": "members" if args.members else "average of networks" if len(args.model) > 1 else "one network",
        "data": Path(args.data).name,
        "fold": args.fold,
        "slices": "cubes" if args.cubes else "own",
        "thresholds": models[0].metadata.thresholds,
        "size_calibration": models[0].metadata.size_calibration,
        "averaging": record_dict(models[0].metadata.averaging),
        "conditions": conditions(),
        **summary_table(scores, nodules),
    }
    prefix = args.output or Path(args.model[0]) / "evaluation"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_csv(scores, prefix.with_suffix(".csv"))
    prefix.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    return 0


def _pool(args) -> int:
    from .evaluation.folds import pool

    pooled = pool(args.evaluation)
    args.output.write_text(json.dumps(pooled, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in pooled.items() if key != "folds"}, indent=2))
    return 0


def _export(args) -> int:
    from .config import ConfigError
    from .evaluation.export import export_bundle

    path = args.calibration or args.run[0] / "calibration.json"
    calibration, figures = {}, {}
    if path.is_file():
        calibration = json.loads(path.read_text(encoding="utf-8"))
        figures = {"calibration": calibration["figures"], "calibrated_on": calibration["calibrated_on"]}
    elif args.calibration:
        raise ConfigError(f"{path}: not found; run `calibrate` first")
    if args.figures:
        measured = json.loads(args.figures.read_text(encoding="utf-8"))
        figures["test"] = {k: measured[k] for k in ("four", "all", "human_four", "human_all")}
        wanted = ("model", "data", "fold", "thresholds", "size_calibration", "conditions")
        figures["test_conditions"] = {k: measured[k] for k in wanted if k in measured}
        if "folds" in measured:  # of `pool`
            figures["test_conditions"]["folds"] = [{k: f[k] for k in wanted if k in f} for f in measured["folds"]]
        figures["conditions"] = args.figures_note
    folder = export_bundle(
        args.run,
        args.output,
        thresholds=calibration.get("thresholds"),
        size_calibration=calibration.get("size_calibration"),
        averaging=calibration.get("averaging"),
        intervals=args.intervals,
        figures=figures,
        version=args.version,
        name=args.name,
    )
    size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
    print(f"{folder}: {size:.1f} MB")
    return 0


def main(argv=None) -> int:
    """Run a command; returns the exit status: 0 done, 1 the input can't be processed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    from LungNoduleKit.errors import NoduleError

    from . import report
    from .config import ConfigError
    from .data.images import prepare as prepare_images
    from .data.lidc import prepare as prepare_lidc
    from .data.nodule import DatasetError
    from .evaluation import reader_agreement as panels
    from .experiments import runner

    commands = {
        "train": _train,
        "calibrate": _calibrate,
        "evaluate": _evaluate,
        "pool": _pool,
        "export": _export,
        "readers": panels.run,
    }
    commands.update({"prepare-images": prepare_images.run, "merge-images": prepare_images.run_merge})
    commands.update(
        {"prepare-lidc": prepare_lidc.run, "experiment": runner.run, "job": runner.run_job, "report": report.run}
    )
    try:
        return commands[args.command](args)
    except (ConfigError, DatasetError, NoduleError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
