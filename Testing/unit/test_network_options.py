"""Options of networks: whatever a configuration or a bundle says is built or refused, and the message names the key."""

import inspect

import pytest
import torch

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks.options import MOST_PARAMETERS, _parameters

ODD = ("", 0, -1, 50, 4096, 2**70, 0.5, float("nan"), True, None, [], {"x": 1}, [[]], [-1, -1], "x" * 5000)


@pytest.mark.parametrize("name", networks.available())
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_any_option_is_taken_or_refused_by_a_value_error(name):
    known = _parameters(networks.network_class(name))
    small = {key: value for key, value in {"width": 8, "levels": 2}.items() if key in known}
    refused = 0
    for key in [*known, "teacher"]:
        for value in ODD:
            options = {**small, key: value}
            try:
                with torch.device("meta"):
                    network = networks.create(name, **options)
            except ValueError:
                refused += 1
                continue
            assert 0 < sum(p.numel() for p in network.parameters()) <= MOST_PARAMETERS
    assert refused > len(known) * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": 16}, "unknown key 'network.widths'; known here: enhance, "),
        ({"width": ""}, "'network.width' must be a whole number, not ''"),
        ({"width": True}, "'network.width' must be a whole number, not True"),
        ({"width": 8.0}, "'network.width' must be a whole number, not 8.0"),
        ({"width": -8}, "'network.width' must be at least 0 and at most 4096, not -8"),
        ({"width": 65536}, "'network.width' must be at least 0 and at most 4096, not 65536"),
        ({"levels": 11}, "'network.levels' must be at least 0 and at most 10, not 11"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": 4096, "levels": 10}, "it would have .* parameters, more than any network"),
        ({"enhance": 1}, "'network.enhance' must be a text, not 1"),
        (
            {"enhance": "curvature", "enhance_ratios": [float("nan"), 0.5]},
            r"'network.enhance_ratios\[0\]' must be a finite number",
        ),
        ({"teacher": {"blocks": 65536}}, "'network.teacher.blocks' must be at least 0 and at most 256, not 65536"),
        ({"teacher": {"width": "x"}}, "'network.teacher.width' must be a whole number, not 'x'"),
        ({"teacher": {"teacher": {}}}, "unknown key 'network.teacher.teacher'"),
        ({"teacher": {"skip": "cubic"}}, "unknown skip 'cubic'"),
    ],
)
def test_the_message_names_the_option(options, message):
    with pytest.raises(ValueError, match=message):
        networks.create("unet", **options)


def test_options_of_a_base_class_and_of_feature_enhancement_are_known():
    assert networks.create("cf_cnn", width=8, chunk=100_000, evaluation_stride=2).chunk == 100_000
    assert networks.create("dsnet", width=8, enhance="entropy", teacher={"width": 8, "blocks": 1}).teacher is not None
    assert networks.create("unet", width=8, enhance_ratios=None).in_channels == 1
    with pytest.raises(ValueError, match=r"unknown key 'network.context'"):
        networks.create("mc_cnn", context=65)


@pytest.mark.parametrize("name", ["ugsnet", "dsnet", "deeplabv3plus"])
def test_the_look_at_the_size_changes_no_weight(name):
    options = networks.preset_options(name) | {"width": 8}
    torch.manual_seed(5)
    plain = networks.network_class(name)(**options).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    built = networks.create(name, **options).state_dict()
    assert all(torch.equal(built[key], value) for key, value in plain.items())
    assert torch.equal(drawn, torch.rand(1))


def test_a_network_that_does_not_fit_into_memory_is_refused(monkeypatch):
    cls = networks.network_class("unet")
    original = cls.__init__

    def init(self, *args, **options):
        if torch.empty(0).device.type == "cpu":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        original(self, *args, **options)

    init.__signature__ = inspect.signature(original)
    init.__annotations__ = original.__annotations__
    monkeypatch.setattr(cls, "__init__", init)
    with pytest.raises(ValueError, match=r"its .* parameters don't fit into memory"):
        networks.create("unet", width=8)
