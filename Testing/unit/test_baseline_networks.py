"""The baselines of UGS-Net's Table I beyond the networks' contract: published sizes, formulas, and that they learn."""

import copy
import sys
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch import nn

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks import channel_unet, unet

PACKAGE = "dynamic_network_architectures"
BASELINES = ("channel_unet", "fcn32s", "nested_unet", "r2_attention_unet", "r2_unet", "unet")
NNUNET = pytest.param(
    "nnunet", {}, marks=pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} isn't installed")
)
FORMS = [
    *((name, {}) for name in BASELINES),
    ("unet", {"up": "transposed"}),
    ("nested_unet", {"deep_supervision": True}),
    ("fcn32s", {"variant": "original"}),
    ("fcn32s", {"batch_norm": True}),
    NNUNET,
]
forms = pytest.mark.parametrize(("name", "options"), FORMS, ids=str)


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return networks.create(name, **{"width": 8, **options})


# --- published sizes ---


@pytest.mark.parametrize(
    ("name", "options", "three", "millions", "macs"),
    [
        ("unet", {}, 34_527_041, 34.527, 4.09),
        ("unet", {"up": "transposed"}, 31_043_521, 31.044, None),
        ("r2_unet", {}, 39_091_393, 39.091, 9.54),
        ("r2_attention_unet", {}, 39_442_925, 39.443, 9.61),
        ("nested_unet", {}, 9_163_329, 9.163, 2.17),
        ("channel_unet", {}, 49_151_681, None, 4.76),
        ("fcn32s", {}, 11_545_793, None, 1.41),
        ("fcn32s", {"variant": "original"}, 33_601_345, None, None),
        pytest.param("nnunet", {}, 20_617_697, None, 0.89, marks=NNUNET.marks),
    ],
)
def test_published_sizes(name, options, three, millions, macs):
    """Parameters with three channels; the multiplications of a 64 x 64 image, which leave out norms."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = networks.create(name, in_channels=3, **options).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 64, 64))
    assert parameters(network) == three
    assert millions is None or round(three / 1e6, 3) == millions
    assert macs is None or counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.01)


def test_published_sizes_count_layers_that_never_run():
    """Where ours is smaller than the published figure, the difference is exactly the layers that nothing reads."""
    with torch.device("meta"):
        norms = [nn.BatchNorm2d(c) for c in (64, 128, 256, 512)]
        assert parameters(networks.create("channel_unet", in_channels=3), *norms) == 49_153_601
        fcn = networks.create("fcn32s", in_channels=3)
        stage_five = [nn.Conv2d(512, 512, 3) for _ in range(3)]
        unused = [*stage_five, nn.ConvTranspose2d(64, 32, 3), nn.BatchNorm2d(32)]
        assert parameters(fcn, *unused) == 18_643_745


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} isn't installed")
def test_nnunet_leaves_out_only_the_deeper_heads():
    with torch.device("meta"):
        heads = [nn.Conv2d(c, 1, 1) for c in (64, 128, 256, 512)]
        assert round(parameters(networks.create("nnunet", in_channels=3), *heads) / 1e6, 3) == 20.619


@pytest.mark.parametrize("width", [8, 16, 24])
@forms
def test_width_scales_every_layer(name, options, width):
    with torch.device("meta"):
        half, full = (parameters(networks.create(name, width=w, **options)) for w in (width, 2 * width))
    assert 3.7 < full / half < 4.0


# --- options ---


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("unet", {"up": "bicubic"}, "unknown upsampling 'bicubic'; available: nearest, transposed"),
        ("unet", {"levels": 1}, "levels at least 2"),
        ("nested_unet", {"levels": 1}, "levels at least 2"),
        ("channel_unet", {"width": 0}, "width must be at least 1"),
        ("nnunet", {"stages": 1}, "levels at least 2"),
        ("r2_unet", {"recurrences": 0}, "recurrences must be at least 1, got 0"),
        ("fcn32s", {"variant": "8s"}, "unknown variant '8s'; available: zoo, original"),
        ("fcn32s", {"width": 0}, "width must be at least 1"),
    ],
)
def test_wrong_configurations_are_refused(name, options, reason):
    with pytest.raises(ValueError, match=reason):
        networks.create(name, **options)


@pytest.mark.parametrize("name", ["unet", "r2_unet", "r2_attention_unet", "nested_unet", "channel_unet"])
def test_levels_set_the_stride(name):
    network = build(name, levels=3).eval()
    assert network.stride == 4
    assert network(torch.zeros(1, 1, 12, 20))["final"].shape == (1, 1, 12, 20)


# --- learning ---


def dice_after_training(network, mask, steps, rate):
    """Dice on the training images, with the batch's own statistics: noisy copies of the mask (B, 1, H, W)."""
    image = mask + 0.3 * torch.randn(mask.shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(image)["final"], mask).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = network(image)["final"] > 0
    return float(2 * (predicted * mask).sum() / (predicted.sum() + mask.sum()))


@pytest.mark.parametrize(
    ("name", "options"), [form for form in FORMS if form != ("fcn32s", {"variant": "original"})], ids=str
)
def test_learns_to_segment_a_disc(name, options):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    discs = torch.stack([((y - cy) ** 2 + (x - cx) ** 2 < 150).float() for cy, cx in ((24, 40), (36, 30))])
    assert dice_after_training(build(name, **options), discs.unsqueeze(1), steps=25, rate=3e-3) > 0.7


def test_original_fcn_learns_what_its_grid_can_show():
    """Its features are a 2 x 2 map for a 64 x 64 image: quadrants instead of discs."""
    quadrants = torch.eye(4).view(4, 1, 2, 2).repeat_interleave(32, 2).repeat_interleave(32, 3)
    network = build("fcn32s", variant="original", batch_norm=True)
    assert dice_after_training(network, quadrants, steps=40, rate=1e-3) > 0.7


# --- recurrences ---


def test_recurrences_share_their_weights():
    once, thrice = (build("r2_unet", recurrences=t) for t in (1, 3))
    assert parameters(once) == parameters(thrice)
    thrice.load_state_dict(once.state_dict())
    x = torch.randn(1, 1, 32, 32)
    assert not torch.allclose(once.eval()(x)["final"], thrice.eval()(x)["final"])


@pytest.mark.parametrize("recurrences", [1, 2, 3])
def test_recurrence_equals_the_written_out_formula(recurrences):
    torch.manual_seed(0)
    layer = unet.RecurrentConv(4, recurrences).eval()
    convolution, norm, _ = layer.step
    calls = []
    convolution.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 4, 8, 8)
    got = layer(x)
    assert len(calls) == recurrences + 1
    state = torch.zeros_like(x)
    for _ in range(recurrences + 1):
        state = torch.relu(norm(convolution(x + state)))
    torch.testing.assert_close(got, state)


def test_residual_goes_around_both_recurrent_convolutions():
    torch.manual_seed(0)
    block = unet.RecurrentResidualBlock(3, 4).eval()
    x = torch.randn(2, 3, 8, 8)
    projected = block.project(x)
    first, second = block.recurrent
    torch.testing.assert_close(block(x), projected + second(first(projected)))


# --- global attention upsampling ---


def test_attention_upsampling_equals_the_written_out_formula():
    torch.manual_seed(0)
    gate = channel_unet.GlobalAttentionUpsample(6, 4).eval()
    high, low = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 10, 14)
    mean = torch.stack([high[b, c].mean() for b in range(2) for c in range(6)]).view(2, 6)
    weight = torch.relu(mean @ gate.context[1].weight.view(4, 6).T)
    detail, up = gate.detail(low), gate.upsample(high)
    expected = torch.stack([torch.stack([up[b, c] + weight[b, c] * detail[b, c] for c in range(4)]) for b in range(2)])
    torch.testing.assert_close(gate(high, low), expected.clamp_min(0))


def test_attention_upsampling_is_a_chain_of_its_own():
    network = build("channel_unet").eval()
    chain = []
    for gate in network.gate:
        gate.register_forward_hook(lambda _, inputs, output: chain.append((inputs[0], output)))
    network(torch.randn(1, 1, 32, 32))
    assert len(chain) == 4
    for (_, output), (following, _) in pairwise(chain):
        assert following is output


# --- gates ---


@pytest.mark.parametrize(("gated", "plain"), [("attention_unet", "unet"), ("r2_attention_unet", "r2_unet")])
def test_open_gates_leave_the_plain_network(gated, plain):
    source, target = build(gated).eval(), build(plain, seed=1).eval()
    for gate in source.backbone.gate:
        nn.init.zeros_(gate.weight[1].weight)
        nn.init.constant_(gate.weight[1].bias, 40.0)  # sigmoid(40) is 1 in single precision
    target.load_state_dict({k: v for k, v in source.state_dict().items() if ".gate." not in k})
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(source(x)["final"], target(x)["final"])


# --- nnU-Net's package ---


def test_nnunet_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    for name in [m for m in sys.modules if m.startswith(f"{PACKAGE}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match="pip install --no-deps dynamic-network-architectures") as caught:
        networks.create("nnunet")
    assert isinstance(caught.value, ImportError)
    assert "\n" not in str(caught.value)


def test_nnunet_needs_neither_timm_nor_torchvision(monkeypatch):
    pytest.importorskip(PACKAGE)
    for name in [m for m in sys.modules if m.startswith(f"{PACKAGE}.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    assert build("nnunet", stages=3).stride == 4


def test_nnunet_state_names_every_tensor_once():
    pytest.importorskip(PACKAGE)
    network = build("nnunet").eval()
    state = network.state_dict()
    assert len({v.data_ptr() for v in state.values()}) == len(state)
    assert sum(v.numel() for v in state.values()) == parameters(network)
    x = torch.randn(1, 1, 64, 64)
    other = build("nnunet", seed=1).eval()
    other.load_state_dict(state)
    twin = copy.deepcopy(network)
    torch.testing.assert_close(other(x)["final"], network(x)["final"], rtol=0, atol=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert not network(x)["final"].any()  # what forward uses is what is registered
    torch.testing.assert_close(twin(x)["final"], other(x)["final"], rtol=0, atol=0)
    torch.testing.assert_close(twin.double()(x.double())["final"].float(), other(x)["final"], rtol=1e-3, atol=1e-4)


def test_nnunet_refuses_one_bottleneck_pixel():
    pytest.importorskip(PACKAGE)
    with pytest.raises(ValueError, match="must exceed 32 x 32"):
        build("nnunet")(torch.zeros(1, 1, 32, 32))
