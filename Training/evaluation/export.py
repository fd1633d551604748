"""A training run becomes a bundle: averaged weights in half precision, metadata and a model card.

`python -m Training export` writes it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from LungNoduleKit.records import read_record, record_dict
from LungNoduleUncertaintyLib.models.bundle import load_model, write_bundle
from LungNoduleUncertaintyLib.models.card import model_card
from LungNoduleUncertaintyLib.models.metadata import MeasuredFigures, RareNodules, TrainingRecord
from LungNoduleUncertaintyLib.models.network_input import Averaging
from LungNoduleUncertaintyLib.models.outputs import INTERVAL_MAPS, Outputs, outputs_of_network

from ..config import Config, ConfigError, changed
from ..runs import build_network, conditions, read_conditions, read_split
from .calibration import CALIBRATION, Calibration, read_calibration
from .folds import PooledEvaluation, read_figures
from .models import load_runs, maps_of, prediction_metadata
from .summary import Evaluation

DATA_LICENSE = (
    "Weights trained on LIDC-IDRI (CC BY 3.0): Armato et al. 2011, doi 10.1118/1.3528204; "
    "The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX"
)
INTENDED_USE = "Research only, not for diagnosis. Chest CT of adults, one nodule of 3 to 40 mm at a point."
_GROUPS = ("four", "all", "human_four", "human_all")
_MEASURED_WITH = ("model", "data", "fold", "thresholds", "size_calibration", "conditions")


def export_bundle(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    thresholds: dict[str, float] | None,
    averaging: Averaging | None,
    size_calibration: dict[str, float] | None = None,
    figures: dict[str, Any],
    version: str,
    name: str | None = None,
    data: str = "lidc-nodules",
    intervals: bool = False,
) -> Path:
    """Write the bundle of one run or of several, whose networks prediction averages; the card describes the first one.

    A network with branches for union and intersection has the outputs HC, LC and Final; one with a single map has Final
    alone, or with `intervals` all three, as masks of that map at thresholds that were calibrated. The threshold of a
    soft mask's Final is 0.5, whatever was calibrated. `thresholds` None: 0.5, for a bundle with Final alone;
    `size_calibration`: slopes of the maps of a bundle with HC and LC (see
    LungNoduleUncertaintyLib.models.size_calibration). `figures` are measured ones with their conditions; those of the
    bundle's outputs go into metadata and card. Raises ConfigError if thresholds are missing, or figures were measured
    at another threshold of Final.
    """
    folders = [Path(run) for run in runs]
    config, states = load_runs(folders)
    network = build_network(config)
    outputs = outputs_of_network(maps_of(network, config), intervals)
    thresholds = _thresholds(outputs, thresholds, config.name)
    averaged = tuple(folder.name for folder in folders) if len(folders) > 1 else ()
    training = replace(_training_record(folders[0], config, data), averaged_runs=averaged)
    metadata = replace(
        prediction_metadata(config, outputs, network.stride),
        name=name or config.name,
        version=version,
        description=_description(config.network.name, outputs, thresholds),
        thresholds=thresholds,
        size_calibration=size_calibration or {} if outputs.has_interval else {},
        averaging=averaging or Averaging(),
        data_license=DATA_LICENSE,
        intended_use=INTENDED_USE,
        training=training,
        exported=record_dict(conditions()),
        figures=read_record(MeasuredFigures, _figures(outputs, figures, thresholds), "figures", ConfigError),
    )
    return write_bundle(output, states, metadata, model_card(metadata))


def _thresholds(has: Outputs, calibrated: dict[str, float] | None, name: str) -> dict[str, float]:
    """The thresholds of a bundle's outputs."""
    if has.has_interval:
        if calibrated is None:
            raise ConfigError(
                f"{name}: HC and LC need calibrated thresholds; run `calibrate` first or give --calibration"
            )
        return {key: calibrated[key] for key in INTERVAL_MAPS}
    if has.final_map == "soft" or calibrated is None:
        return dict.fromkeys(has.thresholds, 0.5)
    return {key: calibrated[key] for key in has.thresholds}


def add_rare_network(
    bundle: str | Path, run: str | Path, output: str | Path, version: str, description: str = ""
) -> Path:
    """Write a bundle again with the network of a run for rare nodules beside its own.

    `description`: what was measured of it, for the model card. Raises ConfigError if the run's network or input isn't
    the bundle's.
    """
    model, (config, states) = load_model(bundle, "cpu"), load_runs([run])
    network = build_network(config)
    own = prediction_metadata(config, model.outputs, network.stride)
    for key in ("network", "input"):
        if getattr(own, key) != getattr(model.metadata, key):
            raise ConfigError(
                f"{run}: its {key} differs from that of {bundle}: it can't be the bundle's second network"
            )
    training = _training_record(run, config, model.metadata.training.data if model.metadata.training else "")
    rare, exported = RareNodules(training, description), record_dict(conditions())
    metadata = replace(model.metadata, version=version, rare=rare, exported=exported)
    usual = [network.state_dict() for network in model.networks]
    return write_bundle(output, usual, metadata, model_card(metadata), rare=states[0])


def _training_record(run: str | Path, config: Config, data: str) -> TrainingRecord:
    """How a run was trained, without the path of what it started from."""
    split, start = read_split(run), Path(config.training.init_from)
    if start.name:  # the run that it started from, not where that lay
        config = changed(config, {"training": {"init_from": f"{start.parent.name}/{start.name}"}})
    return TrainingRecord(
        configuration=record_dict(config),
        data=data,
        patients={part: len(getattr(split, part).patients) for part in ("training", "validation")},
        nodules={part: len(getattr(split, part).nodules) for part in ("training", "validation")},
        conditions=record_dict(read_conditions(run)),
    )


_SPREAD = re.compile("_(folds_)?sd$|_interval$")  # what a figure's spread has behind the figure's name
_OF_INTERVALS = ("hc", "union", "coverage", "width_ratio", "ged")


def _figures(has: Outputs, figures: dict[str, Any], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Measured figures without those of HC, LC and intervals that a bundle doesn't have."""
    if has.has_interval or not has.segments:
        return figures
    measured_at = figures.get("test_conditions", {}).get("thresholds", thresholds)["final"]
    if measured_at != thresholds["final"]:
        raise ConfigError(
            f"figures: measured at a threshold of final of {measured_at:g}, the bundle's is {thresholds['final']:g}; "
            "evaluate the bundle itself"
        )

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {key: v for key, v in values.items() if _SPREAD.sub("", key) not in _OF_INTERVALS}

    # What was calibrated is the triple of thresholds, whose figures say nothing of this bundle.
    out = {key: value for key, value in figures.items() if key not in ("calibration", "calibrated_on")}
    if "test" in out:
        out["test"] = {group: kept(values) for group, values in out["test"].items()}
    return out


def _description(network: str, has: Outputs, thresholds: Mapping[str, float]) -> str:
    if "union" in has.probabilities:
        return "UGS-Net for lung nodules: what every reader, some readers and most readers would include."
    if has.has_interval:
        return f"{network} for lung nodules: one probability map, of which three thresholds make HC, LC and Final."
    if not has.segments:
        return f"{network}: predicts {', '.join(has.maps)}; it segments nothing."
    map_name = "soft mask" if has.final_map == "soft" else "probability map"
    return f"{network} for lung nodules: one {map_name}; Final is where it reaches {thresholds['final']:g}."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    parser.description = (
        "Write a run as a model bundle, which the module and the library load: weights (safetensors), metadata.json "
        "and MODEL_CARD.md."
    )
    parser.add_argument("run", type=Path, nargs="+", help="run folder; prediction averages the networks of several")
    parser.add_argument(
        "--rare",
        type=Path,
        metavar="RUN",
        help="with a bundle in place of a run: the bundle again, with this run's network for rare nodules (cavitary, "
        "large, on vessels) beside its own",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="bundle folder")
    parser.add_argument("--version", required=True, help="version of the model, e.g. 1.0")
    parser.add_argument("--name", help="name of the model (the configuration's)")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE.json", help="what `calibrate` wrote (calibration.json of the one run)"
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="HC and LC also of a network with a single map: its masks at calibrated thresholds (else Final alone)",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE.json",
        help="what `evaluate` or `pool` wrote; its figures go into the card",
    )
    parser.add_argument(
        "--figures-note",
        default="",
        metavar="TEXT",
        help="a sentence that says which model and patients the figures are of",
    )


def run(args: argparse.Namespace) -> int:
    """The command `export`; returns its exit status."""
    if args.rare:
        folder = add_rare_network(args.run[0], args.rare, args.output, args.version, args.figures_note)
        print(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB")
        return 0
    path = args.calibration or args.run[0] / CALIBRATION
    if args.calibration and not path.is_file():
        raise ConfigError(f"{path}: not found; run `calibrate` first")
    calibration = read_calibration(path) if path.is_file() else None
    folder = export_bundle(
        args.run,
        args.output,
        thresholds=calibration.thresholds if calibration else None,
        size_calibration=calibration.size_calibration if calibration else None,
        averaging=calibration.averaging if calibration else None,
        intervals=args.intervals,
        figures=_measured(calibration, read_figures(args.figures) if args.figures else None, args.figures_note),
        version=args.version,
        name=args.name,
    )
    size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
    print(f"{folder}: {size:.1f} MB")
    return 0


def _measured(
    calibration: Calibration | None, figures: Evaluation | PooledEvaluation | None, note: str
) -> dict[str, Any]:
    """The `figures` of a bundle's metadata: on calibration nodules, on test nodules, and how they were measured."""
    out: dict[str, Any] = {}
    if calibration:
        out |= {"calibration": record_dict(calibration.figures), "calibrated_on": calibration.calibrated_on}
    if figures:
        found = record_dict(figures)
        out["test"] = {group: found[group] for group in _GROUPS}
        out["test_conditions"] = {key: found[key] for key in _MEASURED_WITH if key in found}
        if isinstance(figures, PooledEvaluation):
            kept = [{key: fold[key] for key in _MEASURED_WITH if key in fold} for fold in found["folds"]]
            out["test_conditions"]["folds"] = kept
        out["conditions"] = note
    return out
