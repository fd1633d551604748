"""Networks that take instructive feature enhancement by configuration: sizes, training, bundles, what was picked."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from fake_model import bundle_metadata
from LungNoduleUncertaintyLib import load_model, networks
from LungNoduleUncertaintyLib.models.bundle import write_bundle
from LungNoduleUncertaintyLib.networks import feature_enhancement as ife

PACKAGE = "dynamic_network_architectures"
NNUNET = pytest.param(
    "nnunet", {}, marks=pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"{PACKAGE} isn't installed")
)
SMALL = [
    ("unet", {"width": 8}),
    ("attention_unet", {"width": 8}),
    ("ugsnet", {"width": 8, "attention_pool": 8}),
    ("ugsnet_v1", {"width": 8, "attention_pool": 8}),
    ("dsnet", {"width": 4, "detail": "none"}),
    ("deeplabv3plus", {"width": 8, "backbone": "resnet18"}),
    ("sinet_v2", {"width": 16}),
    pytest.param("nnunet", {"width": 4, "stages": 4}, marks=NNUNET.marks),
]
small_networks = pytest.mark.parametrize(("name", "options"), SMALL, ids=lambda value: value if value else "")


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def create(name, **options):
    torch.manual_seed(0)
    return networks.create(name, **options)


# --- networks ---


@pytest.mark.parametrize(
    ("name", "options", "ratios", "count", "millions"),
    [
        ("unet", {"up": "transposed"}, [0, 0], 31_043_521, 31.044),
        ("unet", {"up": "transposed"}, [0.75, 0.5], 31_449_025, 31.449),
        ("unet", {"up": "transposed"}, [0.5, 0.5], 31_412_161, 31.412),
        ("unet", {"up": "transposed"}, [1, 1], 31_780_801, 31.781),
        ("deeplabv3plus", {}, [0, 0], 59_339_169, 59.339),
        ("deeplabv3plus", {}, [0.75, 0], 59_422_113, 59.422),
        ("deeplabv3plus", {}, [0.75, 0.75], 59_864_481, 59.864),
        # Published with the encoder's classifier, 2,049,000 parameters that never run.
        ("sinet_v2", {}, [0.75, 0.75, 1], 24_977_426, 27.026 - 2.049),
    ],
)
def test_published_sizes(name, options, ratios, count, millions):
    with torch.device("meta"):
        network = networks.create(name, in_channels=3, enhance="entropy", enhance_ratios=ratios, **options)
    assert parameters(network) == count
    assert round(count / 1e6, 3) == pytest.approx(millions, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "extra"),
    [
        ("unet", {"up": "transposed"}, {"curvature": 405_504, "entropy": 368_640}),
        ("attention_unet", {}, {"curvature": 405_504, "entropy": 368_640}),
        ("ugsnet", {}, {"curvature": 405_504, "entropy": 368_640}),
        ("ugsnet_v1", {}, {"curvature": 405_504, "entropy": 368_640}),
        # A convolution and the projection around the block: ten weights a channel.
        ("dsnet", {}, {"curvature": 450_560, "entropy": 409_600}),
        ("deeplabv3plus", {"backbone": "resnet18"}, {"curvature": 82_944, "entropy": 82_944}),
        ("sinet_v2", {}, {"curvature": 50_784, "entropy": 50_784}),
        pytest.param("nnunet", {}, {"curvature": 101_376, "entropy": 101_376}, marks=NNUNET.marks),
    ],
)
def test_default_ratios_add_what_the_next_layer_needs(name, options, extra):
    with torch.device("meta"):
        plain = parameters(networks.create(name, **options))
        for enhance, more in extra.items():
            assert parameters(networks.create(name, enhance=enhance, **options)) == plain + more


@small_networks
def test_none_and_ratio_zero_are_the_plain_network(name, options):
    plain, x = create(name, **options).eval(), torch.rand(1, 1, 64, 64)
    zero = [0] * (3 if name == "sinet_v2" else 2)
    assert not any("enhance" in key for key in plain.state_dict())
    for variant in (
        create(name, enhance="none", **options).eval(),
        create(name, enhance="entropy", enhance_ratios=zero, **options).eval(),
    ):
        assert list(variant.state_dict()) == list(plain.state_dict())
        variant.load_state_dict(plain.state_dict())
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(variant(x).values(), plain(x).values(), strict=True))


@small_networks
@pytest.mark.parametrize("enhance", ["curvature", "entropy"])
def test_enhanced_networks_run_and_learn(name, options, enhance):
    network = create(name, enhance=enhance, **options)
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, 96, 96))["final"].shape == (1, 1, 96, 96)
    out = network.train()(torch.rand(2, 1, 64, 64))
    assert out["final"].shape == (2, 1, 64, 64)
    sum(value.square().mean() for value in out.values()).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_only_the_decoder_sees_the_copies():
    """The encoder's path is the plain one: the same weights give the same skips and the same bottleneck."""
    seen, x = {}, torch.rand(1, 1, 64, 64)
    for enhance in ("none", "curvature"):
        network = create("unet", width=8, enhance=enhance).eval()
        encoder = create("unet", width=8).backbone.encoder
        network.backbone.encoder.load_state_dict(encoder.state_dict())
        keep = seen.setdefault(enhance, [])
        for block in network.backbone.encoder:
            block.register_forward_hook(lambda _m, _i, out, keep=keep: keep.append(out))
        with torch.no_grad():
            network(x)
    assert all(torch.equal(a, b) for a, b in zip(seen["none"], seen["curvature"], strict=True))


def test_sinet_decodes_its_global_map_from_raw_features():
    plain, enhanced = (create("sinet_v2", width=16, enhance=e).eval() for e in ("none", "entropy"))
    enhanced.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        a, b = plain(x), enhanced(x)
    assert torch.equal(a["side_global"], b["side_global"])
    assert not torch.equal(a["final"], b["final"])


def test_with_ratio_one_the_criterion_is_irrelevant():
    x, out = torch.rand(2, 1, 32, 32), []
    for enhance in ("curvature", "entropy"):
        network = create("unet", width=8, enhance=enhance, enhance_ratios=[1, 1]).eval()
        with torch.no_grad():
            out.append(network(x)["final"])
    assert torch.equal(*out)


@pytest.mark.parametrize("enhance", ["curvature", "entropy"])
def test_an_enhanced_network_treats_samples_alone(enhance):
    network = create("unet", width=8, enhance=enhance).eval()
    x = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        together = network(x)["final"]
        other = network(torch.cat([x[:1] * 10, x[1:]]))["final"]
    assert torch.equal(together[1:], other[1:])


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("unet", {"enhance": "contrast"}, "unknown enhancement"),
        ("unet", {"enhance": "curvature", "enhance_ratios": [0.5]}, "must be 2 numbers"),
        ("sinet_v2", {"enhance": "curvature", "enhance_ratios": [0.5, 0.5]}, "must be 3 numbers"),
        ("unet", {"enhance_ratios": [0.5, 0.5]}, "need enhance"),
        ("unet", {"enhance": "entropy", "enhance_implementation": "exact"}, "unknown entropy"),
        ("dsnet", {"enhance": "curvature", "enhance_ratios": [0.5, 2]}, "between 0 and 1"),
        ("ugsnet", {"enhance": "curvature", "levels": 3, "width": 8}, "has 2"),
    ],
)
def test_configurations_that_networks_refuse(name, options, reason):
    with torch.device("meta"), pytest.raises(ValueError, match=reason):
        networks.create(name, **options)


def test_an_enhanced_network_in_a_bundle(tmp_path):
    options = {"width": 8, "in_channels": 3, "attention_pool": 2, "enhance": "entropy", "enhance_ratios": [0.25, 1]}
    network = create("ugsnet", **options).eval()
    metadata = bundle_metadata(network={"name": "ugsnet", **options})
    model = load_model(write_bundle(tmp_path / "enhanced", [network.state_dict()], metadata, ""), "cpu")
    loaded = model.networks[0]
    assert [place.ratio for place in loaded.backbone.enhance] == [0, 0.25, 1, 0]
    assert {place.score for place in loaded.backbone.enhance[1:3]} == {"entropy"}
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x)["final"], network(x)["final"], atol=0.02, rtol=0.02)


# --- what was picked, and a new network ---


def test_record_selection():
    network = create("unet", width=8, enhance="curvature").eval()
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        plain = network(x)["final"]
        with ife.record_selection(network) as picked:
            assert torch.equal(network(x)["final"], plain)
        network(torch.zeros_like(x))  # closed: no longer recorded
    assert sorted(picked) == ["backbone.enhance.1", "backbone.enhance.2"]
    first = picked["backbone.enhance.1"]
    assert first.features.shape == (2, 16, 16, 16)
    assert first.channels.shape == (2, 12)
    assert torch.equal(first.scores, ife.curvature_scores(first.features))
    assert torch.equal(first.channels, first.scores.argsort(dim=1, descending=True)[:, :12])
    assert not any(module._forward_hooks for module in network.modules())


def test_a_place_that_copies_everything_is_recorded_without_scores():
    """SINetV2's deepest map has 2 x 2 pixels at 64: too few to score, which a ratio of 1 doesn't need."""
    network = create("sinet_v2", width=8, enhance="curvature").eval()
    with torch.no_grad(), ife.record_selection(network) as picked:
        network(torch.rand(1, network.in_channels, 64, 64))
    assert len(picked) == 3
    assert min(min(selection.features.shape[2:]) for selection in picked.values()) == 2


def test_a_new_network_gets_it_in_a_few_lines():
    """The example of `enhancements`, which the README shows too."""
    lines = ife.enhancements.__doc__.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().startswith("class "))
    code = [line[8:] for line in lines[begin:] if line.startswith(" " * 8) or not line.strip()]
    scope = {"nn": nn, "enhancements": ife.enhancements}
    exec("\n".join(code), scope)
    for options, channels in (({}, 64), ({"enhance": "curvature"}, 112), ({"enhance": "entropy"}, 96)):
        network = scope["Net"](**options)
        assert network.merge.in_channels == channels
        assert network(torch.rand(2, 1, 16, 16))["final"].shape == (2, 1, 16, 16)
