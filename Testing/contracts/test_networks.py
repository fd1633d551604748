"""What every network of the registry keeps. A new one is tested by being there: nothing in this file names it.

Networks are built small: with `width` 8 and a small `teacher` where they have such options.
"""

import inspect
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks.blocks import Network

SMALL = {"width": 8, "teacher": {"width": 4, "blocks": 1}}
# Forms beside the default ones whose layers differ, so that they keep the contract, too.
VARIANTS = [
    ("deeplabv3plus", {"backbone": "resnet18"}),
    ("fcn32s", {"variant": "original"}),
    ("fcn32s", {"batch_norm": True}),
    ("nested_unet", {"deep_supervision": True}),
    ("sinet_v2", {"width": 16}),
    ("unet", {"up": "transposed"}),
    ("unet3plus", {"deep_supervision": True}),
    ("unet", {"teacher": SMALL["teacher"]}),
    *(
        (name, {"preset": preset})
        for name in networks.available()
        for preset in networks.presets(name)
        if preset not in ("default", "released")  # what was released has parameters that nothing trains
    ),
]
every_name = pytest.mark.parametrize("name", networks.available())
every_form = pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in networks.available()), *VARIANTS], ids=str
)


def build(name, seed=0, full=False, **options):
    """A small network, or one of full size, with weights from a seed."""
    known = inspect.signature(networks.network_class(name)).parameters
    small = {key: value for key, value in SMALL.items() if key in known and not full}
    torch.manual_seed(seed)
    try:
        return networks.create(name, **{**small, **options})
    except ImportError as missing:
        pytest.skip(str(missing))


def batch(network, count, height, width):
    """Random input (count, in_channels, height, width), the same at every call."""
    return torch.randn(count, network.in_channels, height, width, generator=torch.Generator().manual_seed(7))


def other_size(network):
    """A legal size other than 64 x 64 and not square: three and four strides, from 12 x 16 up."""
    step = network.stride * -(-4 // network.stride)
    return 3 * step, 4 * step


def assert_equal_to_rounding(one, other):
    """Outputs in double precision agree: in single precision a hard threshold inside a network could fall elsewhere."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, other[key], rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


@every_name
def test_the_class_is_a_documented_network(name):
    cls = networks.network_class(name)
    assert issubclass(cls, Network)
    assert cls.__doc__
    assert "in_channels" in inspect.signature(cls).parameters
    assert "default" in networks.presets(name)


def test_listing_names_loads_no_torch():
    code = "from LungNoduleUncertaintyLib import networks; networks.available(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown network 'unett'; available: attention_unet, "):
        networks.create("unett")
    with pytest.raises(ValueError, match="network 'ugsnet' has no preset 'best'; available: default, "):
        networks.create("ugsnet", preset="best")


@every_name
def test_unknown_options_are_refused(name):
    with torch.device("meta"), pytest.raises(ValueError, match=r"unknown key 'network.widht'"):
        networks.create(name, widht=8)


@every_name
def test_parameters_of_the_default_form(name):
    with torch.device("meta"):
        for in_channels, count in networks.network_class(name).PARAMETERS.items():
            network = build(name, in_channels=in_channels, full=True)
            assert sum(parameter.numel() for parameter in network.parameters()) == count


@every_form
def test_outputs_at_64_and_at_another_size(name, options):
    """Logits of the input's size, whatever the batch; `image` is the input enlarged."""
    network = build(name, **options).eval()
    for count, height, width in ((1, 64, 64), (2, *other_size(network))):
        with torch.no_grad():
            out = network(batch(network, count, height, width))
        assert "final" in out or list(out) == ["image"]
        for key, value in out.items():
            scale = network.scale if key == "image" else 1
            channels = network.in_channels if key == "image" else 1
            assert value.shape == (count, channels, scale * height, scale * width), key
            assert torch.isfinite(value).all(), key


@every_form
def test_wrong_inputs_are_refused(name, options):
    network = build(name, **options)
    channels, stride = network.in_channels, network.stride
    expected = rf"^expected a tensor \(B, {channels}, H, W\), got shape "
    with pytest.raises(ValueError, match=expected + rf"\(1, {channels + 1}, 64, 64\)$"):
        network(torch.zeros(1, channels + 1, 64, 64))
    with pytest.raises(ValueError, match=expected + r"\(64, 64\)$"):
        network(torch.zeros(64, 64))
    if stride > 1:
        wrong = rf"^height and width must be multiples of {stride}, got {64 + stride - 1} x 64$"
        with pytest.raises(ValueError, match=wrong):
            network(torch.zeros(1, channels, 64 + stride - 1, 64))


@every_form
def test_gradients_reach_every_parameter_and_are_finite(name, options):
    """All outputs together. What a network has frozen gets none."""
    network = build(name, **options).train()
    size = max(2 * network.stride, 16)
    sum(value.square().mean() for value in network(batch(network, 2, size, size)).values()).backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
        else:
            assert parameter.grad is None, key


@every_form
def test_evaluation_is_deterministic_and_treats_samples_alone(name, options):
    network = build(name, **options).double().eval()
    x = batch(network, 2, *other_size(network)).double()
    with torch.no_grad():
        first, second, alone = network(x), network(x), network(x[1:])
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert_equal_to_rounding(alone, {key: value[1:] for key, value in first.items()})


@every_form
def test_saved_weights_are_the_whole_network(name, options, tmp_path):
    """Through a safetensors file, which wants every tensor once, to a network with other weights."""
    network, other = build(name, **options).eval(), build(name, seed=1, **options).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = batch(network, 1, *other_size(network))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(network(x).values(), other(x).values(), strict=True))


@every_form
def test_channels_last_is_the_same_to_rounding(name, options):
    network = build(name, **options).double().eval()
    x = batch(network, 1, *other_size(network)).double()
    with torch.no_grad():
        out = network(x)
        last = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert_equal_to_rounding(last, out)
