"""Training runs as models for prediction: one run, or several whose networks are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.models.metadata import BundleMetadata
from LungNoduleUncertaintyLib.models.network_input import NetworkInput
from LungNoduleUncertaintyLib.models.outputs import Outputs, outputs_of_network
from LungNoduleUncertaintyLib.networks.blocks import Network

from ..config import Config, ConfigError
from ..runs import build_network, input_channels, load_run

LICENSE = "Apache-2.0"  # of the code and the weights
State = dict[str, torch.Tensor]


def load_runs(folders: Sequence[str | Path]) -> tuple[Config, list[State]]:
    """The first run's configuration, and the weights of all. Raises ConfigError when they can't be averaged."""
    loaded = [load_run(folder) for folder in folders]
    config = loaded[0][0]
    for folder, (other, _) in zip(folders, loaded, strict=True):
        for key in ("network", "input"):
            if getattr(other, key) != getattr(config, key):
                raise ConfigError(f"{folder}: its {key} differs from that of {folders[0]}: the two can't be averaged")
    return config, [state for _, state in loaded]


def run_model(*folders: str | Path, device: str = "cpu") -> Model:
    """The best weights of one run, or of several to be averaged, as a `Model` with thresholds of 0.5.

    It has HC, LC and Final whatever the network, so that all networks are calibrated and compared alike: HC, LC and
    Final of a network with a single map are masks of that at three thresholds. Raises ConfigError.
    """
    config, states = load_runs(folders)
    built = []
    for state in states:
        network = build_network(config)
        network.load_state_dict(state)
        built.append(network.eval().to(device))
    outputs = outputs_of_network(maps_of(built[0], config), intervals=True)
    return Model(built, prediction_metadata(config, outputs, built[0].stride), torch.device(device), Path(folders[0]))


def maps_of(network: Network, config: Config) -> list[str]:
    """Names of the maps that a network computes, from one pass over an empty input."""
    size = cube_sizes(config, network.stride)[0]
    with torch.inference_mode():
        found = network.eval()(torch.zeros(1, input_channels(config), size, size))
    return sorted(found)


def cube_sizes(config: Config, stride: int) -> list[int]:
    """Edges of the nodule cubes that prediction may look at: from the size of training on, in the network's steps.

    Of a network of the slice task only that size: it has never seen how a chest goes on beyond its crops, and where a
    cube grew it was seen to go on into the mediastinum.
    """
    first = config.data.net_size or config.data.crop
    if config.data.task == "slice":
        return [first]
    return [size for size in sorted({first, 64, 96, 128}) if size >= first and size % stride == 0]


def prediction_metadata(config: Config, outputs: Outputs, stride: int) -> BundleMetadata:
    """What a bundle's metadata say of prediction: network, input, outputs, thresholds of 0.5, no averaging."""
    return BundleMetadata(
        name=config.name,
        version="0",
        license=LICENSE,
        network={**record_dict(config.network), "in_channels": input_channels(config)},
        input=NetworkInput(
            **{f.name: getattr(config.input, f.name) for f in fields(config.input)},
            spacing_mm=config.data.pixel_mm or None,  # None: the CT's in-plane spacing
            magnification=(config.data.net_size or config.data.crop) / config.data.crop,
            cube_sizes=tuple(cube_sizes(config, stride)),
        ),
        outputs=outputs,
        thresholds=dict.fromkeys(outputs.thresholds, 0.5),
    )
