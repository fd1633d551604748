"""Starting from another run's weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from LungNoduleKit.records import record_dict
from Training.config import Config, ConfigError, changed, load_config
from Training.runs import build_network, input_channels
from Training.trainers.base import Trainer
from Training.trainers.warm_start import warm_start
from training_data import make_nodule


def config_of(offsets, init_from="", width=8):
    values = {
        "network": {"name": "ugsnet", "width": width, "levels": 2, "attention_pool": 4},
        "input": {"slice_offsets": offsets, "position": True},
        "data": {"crop": 16, "large_crop": 24, "slices_per_nodule": 2},
        "training": {"epochs": 1, "batch": 4, "init_from": str(init_from)},
    }
    return changed(Config(), values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network that sees three slices and the point."""
    folder = tmp_path_factory.mktemp("runs") / "narrow"
    nodules = [make_nodule(n) for n in range(4)]
    Trainer(config_of([-1, 0, 1]), nodules, [], folder, progress=False).train()
    return folder


def test_a_network_that_sees_more_begins_where_the_other_ended(run):
    narrow = build_network(config_of([-1, 0, 1])).eval()
    narrow.load_state_dict(load_file(run / "best.safetensors"))
    config = config_of([-3, -1, 0, 1, 2], run / "best.safetensors")
    wide = build_network(config).eval()
    warm_start(wide, config)
    image = torch.rand(2, input_channels(config), 16, 16)
    known = image[:, [1, 2, 3, 5]]  # the slices -1, 0, 1, and the point
    with torch.no_grad():
        for key, value in narrow(known).items():
            assert torch.allclose(wide(image)[key], value, atol=1e-5), key


def test_a_bundle_is_a_start_too(run, tmp_path):
    (tmp_path / "metadata.json").write_text(
        json.dumps({"input": {**record_dict(config_of([-1, 0, 1]).input), "cube_sizes": [16]}}), encoding="utf-8"
    )
    (tmp_path / "model.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    config = config_of([-2, -1, 0, 1, 2], tmp_path / "model.safetensors")
    network = build_network(config)
    warm_start(network, config)
    first = network.state_dict()["backbone.encoder.0.0.weight"]
    assert torch.equal(first[:, 1:4], load_file(run / "best.safetensors")["backbone.encoder.0.0.weight"][:, :3])
    assert not first[:, [0, 4]].any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of([0]), "sees what this network doesn't"),
        (config_of([1, 0, -1]), r"has its slices in another order: \[-1, 0, 1, 'position'\]"),
        (config_of([-1, 0, 1], width=16), "isn't of this network"),
    ],
)
def test_weights_that_do_not_fit_are_refused(run, config, message):
    config = changed(config, {"training": {"init_from": str(run / "best.safetensors")}})
    with pytest.raises(ConfigError, match=message):
        warm_start(build_network(config), config)


def test_a_missing_start_is_named(tmp_path):
    config = load_config("ugsnet-compact-refine", [f"training.init_from={tmp_path}/none.safetensors"])
    with pytest.raises(ConfigError, match=r"none\.safetensors not found"):
        warm_start(build_network(config), config)
