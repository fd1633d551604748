"""A training run becomes a bundle: averaged weights in half precision, metadata and a model card."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

from LungNoduleKit.records import read_record, record_dict
from LungNoduleUncertaintyLib.models.bundle import Model, write_bundle
from LungNoduleUncertaintyLib.models.card import model_card
from LungNoduleUncertaintyLib.models.metadata import BundleMetadata, MeasuredFigures, TrainingRecord
from LungNoduleUncertaintyLib.models.network_input import Averaging, NetworkInput
from LungNoduleUncertaintyLib.models.outputs import INTERVAL_MAPS, Outputs, outputs_of_network

from ..config import Config, ConfigError, changed
from ..runs import build_network, conditions, input_channels, load_run

DATA_LICENSE = (
    "Weights trained on LIDC-IDRI (CC BY 3.0): Armato et al. 2011, doi 10.1118/1.3528204; "
    "The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX"
)


def _run_states(folders) -> tuple[Config, list[dict]]:
    """The first run's configuration, and the weights of all. Raises ConfigError when they can't be averaged."""
    loaded = [load_run(folder) for folder in folders]
    config = loaded[0][0]
    for folder, (other, _) in zip(folders, loaded, strict=True):
        for key in ("network", "input"):
            if getattr(other, key) != getattr(config, key):
                raise ConfigError(f"{folder}: its {key} differs from that of {folders[0]}: the two can't be averaged")
    return config, [state for _, state in loaded]


def run_model(*folders, device="cpu") -> Model:
    """The best weights of one run, or of several to be averaged, as a `Model` with thresholds of 0.5.

    It gives HC, LC and Final whatever the network, so that all networks are calibrated and compared alike: HC and LC of
    one with a single map are cuts of that.
    """
    import torch

    config, states = _run_states(folders)
    built = []
    for state in states:
        network = build_network(config)
        network.load_state_dict(state)
        built.append(network.eval().to(device))
    metadata = _metadata(config, outputs_of_network(_outputs(built[0], config), intervals=True), built[0].stride)
    return Model(built, metadata, torch.device(device), folders[0])


def _outputs(network, config: Config) -> list[str]:
    """Names of what a network gives, from one pass over an empty input."""
    import torch

    size = _cube_sizes(config, network.stride)[0]
    with torch.inference_mode():
        found = network.eval()(torch.zeros(1, input_channels(config), size, size))
    return sorted(found)


def _cube_sizes(config: Config, stride: int) -> list[int]:
    """Edges of the cubes that prediction may look at: from the size of training on, in the network's steps.

    Of a network of the slice task only that size: it has never seen how a chest goes on beyond its crops, and
    where a cube grew it was seen to go on into the mediastinum.
    """
    first = config.data.net_size or config.data.crop
    if config.data.task == "slice":
        return [first]
    return [size for size in sorted({first, 64, 96, 128}) if size >= first and size % stride == 0]


def _metadata(config: Config, outputs: Outputs, stride: int) -> BundleMetadata:
    return BundleMetadata(
        name=config.name,
        version="0",
        license="Apache-2.0",
        network={**record_dict(config.network), "in_channels": input_channels(config)},
        input=NetworkInput(
            **{f.name: getattr(config.input, f.name) for f in fields(config.input)},
            spacing_mm=config.data.pixel_mm or None,  # None: the CT's in-plane spacing
            magnification=(config.data.net_size or config.data.crop) / config.data.crop,
            cube_sizes=tuple(_cube_sizes(config, stride)),
        ),
        outputs=outputs,
        thresholds=dict.fromkeys(outputs.thresholds, 0.5),
    )


def export_bundle(
    runs,
    output,
    *,
    thresholds: dict | None,
    averaging: dict | None,
    size_calibration: dict | None = None,
    figures: dict,
    version: str,
    name: str | None = None,
    data: str = "lidc-nodules",
    intervals: bool = False,
) -> Path:
    """Write the bundle of one run or of several, whose networks prediction averages; the card describes the first one.

    A network with branches for union and intersection gives HC, LC and Final; one with a single map gives Final alone,
    or with `intervals` all three, as cuts of that map at thresholds that were calibrated. The Final of a soft mask is
    its cut at 0.5, whatever was calibrated. `thresholds` None: 0.5, for a bundle that gives Final alone;
    `size_calibration`: slopes of the maps of a bundle that gives HC and LC (see Lib's size_calibration). `figures` are
    measured ones with their conditions; what a bundle gives goes from them into metadata and card. Raises ConfigError
    if thresholds are missing, or figures were measured at another threshold of final.
    """
    runs = [Path(run) for run in runs]
    run = runs[0]
    config, states = _run_states(runs)
    network = build_network(config)
    outputs = outputs_of_network(_outputs(network, config), intervals)
    thresholds = _thresholds(outputs, thresholds, config.name)
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    trained = json.loads((run / "conditions.json").read_text(encoding="utf-8"))
    start = Path(config.training.init_from)
    if start.name:  # the run that it started from, not where that lay
        config = changed(config, {"training": {"init_from": f"{start.parent.name}/{start.name}"}})
    training = TrainingRecord(
        configuration=record_dict(config),
        data=data,
        patients={part: len(value["patients"]) for part, value in split.items()},
        nodules={part: len(value["nodules"]) for part, value in split.items()},
        conditions=trained,
        averaged_runs=tuple(r.name for r in runs) if len(runs) > 1 else (),
    )
    metadata = replace(
        _metadata(config, outputs, network.stride),
        name=name or config.name,
        version=version,
        description=_description(config.network.name, outputs, thresholds),
        thresholds=thresholds,
        size_calibration=size_calibration or {} if outputs.has_interval else {},
        averaging=read_record(Averaging, averaging or {}, "averaging", ConfigError),
        data_license=DATA_LICENSE,
        intended_use="Research only, not for diagnosis. Chest CT of adults, one nodule of 3 to 40 mm at a point.",
        training=training,
        exported=conditions(),
        figures=read_record(MeasuredFigures, _figures(outputs, figures, thresholds), "figures", ConfigError),
    )
    return write_bundle(output, states, metadata, model_card(metadata))


def _thresholds(gives: Outputs, calibrated: dict | None, name: str) -> dict:
    """The thresholds of what a bundle gives."""
    if gives.has_interval:
        if calibrated is None:
            raise ConfigError(
                f"{name}: HC and LC need calibrated thresholds; run `calibrate` first or give --calibration"
            )
        return {key: calibrated[key] for key in INTERVAL_MAPS}
    if gives.final_map == "soft" or calibrated is None:
        return dict.fromkeys(gives.thresholds, 0.5)
    return {key: calibrated[key] for key in gives.thresholds}


_SPREAD = re.compile("_(folds_)?sd$|_interval$")  # what a figure's spread has behind the figure's name
_OF_INTERVALS = ("hc", "union", "coverage", "width_ratio", "ged")


def _figures(gives: Outputs, figures: dict, thresholds: dict) -> dict:
    """Measured figures without those of HC, LC and intervals that a bundle doesn't give."""
    if gives.has_interval or not gives.segments:
        return figures
    measured_at = figures.get("test_conditions", {}).get("thresholds", thresholds)["final"]
    if measured_at != thresholds["final"]:
        raise ConfigError(
            f"figures: measured at a threshold of final of {measured_at:g}, the bundle's is {thresholds['final']:g}; "
            "evaluate the bundle itself"
        )

    def kept(values: dict) -> dict:
        return {key: v for key, v in values.items() if _SPREAD.sub("", key) not in _OF_INTERVALS}

    # What was calibrated is the triple of thresholds, whose figures say nothing of this bundle.
    out = {key: value for key, value in figures.items() if key not in ("calibration", "calibrated_on")}
    if "test" in out:
        out["test"] = {group: kept(values) for group, values in out["test"].items()}
    return out


def _description(network: str, gives: Outputs, thresholds: dict) -> str:
    if "union" in gives.probabilities:
        return "UGS-Net for lung nodules: what every reader, some readers and most readers would include."
    if gives.has_interval:
        return f"{network} for lung nodules: one probability map, of which three thresholds make HC, LC and Final."
    if not gives.segments:
        return f"{network}: predicts {', '.join(gives.maps)}; it segments nothing."
    map_name = "soft mask" if gives.final_map == "soft" else "probability map"
    return f"{network} for lung nodules: one {map_name}; Final is where it reaches {thresholds['final']:g}."
