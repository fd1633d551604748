"""The comparison networks of the DSNet and IFE papers beyond the networks' contract: published sizes, and learning."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from LungNoduleUncertaintyLib import networks

SIDES = ["side_global", "side_5", "side_4", "final"]
# Name, options of a tiny form, its output keys.
FORMS = [
    ("unet3plus", {"width": 4}, ["final"]),
    ("unet3plus", {"width": 4, "deep_supervision": True}, ["final", "side_2", "side_3", "side_4", "side_5"]),
    ("deeplabv3plus", {"width": 8, "backbone": "resnet18"}, ["final"]),
    ("deeplabv3plus", {"width": 4, "backbone": "resnet50"}, ["final"]),
    ("ce_net", {"width": 8}, ["final"]),
    ("inf_net", {"width": 8}, [*SIDES, "edge"]),
    ("sinet_v2", {"width": 16}, SIDES),
    ("medt", {"width": 4, "size": 64}, ["final"]),
]
CLASSIFIER = 2048 * 1000 + 1000  # ImageNet's, which released encoders keep and nothing reads


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return networks.create(name, **options)


# --- published sizes ---


@pytest.mark.parametrize(
    ("name", "unused", "millions"),
    [
        ("unet3plus", 0, 26.972),
        ("deeplabv3plus", 0, 59.339),
        ("ce_net", 0, 29.003),
        ("inf_net", CLASSIFIER, 33.122),
        ("sinet_v2", CLASSIFIER, 26.976),
        # A biased 1x1 convolution per local block (16 to 128 channels), the local head, the background's logit.
        ("medt", 272 + 2 * 1_056 + 4 * 4_160 + 16_512 + 34 + 17, 1.560),
    ],
)
def test_published_sizes(name, unused, millions):
    """With three channels. Published figures count layers that never run (`unused`), which DDP refuses."""
    assert round((networks.network_class(name).PARAMETERS[3] + unused) / 1e6, 3) == millions


# The released DAC repeats three 3x3 convolutions on a 7x7 map whose results ours keeps.
REPEATED = 3 * 512 * 512 * 9 * 49
# At s = 0.125 the first stage's queries have one channel: three products per axis, which run as multiplications.
UNCOUNTED = 2 * 3 * 64 * 8 * 64 * 64


@pytest.mark.parametrize(
    ("name", "size", "extra", "giga"),
    [
        ("unet3plus", 64, 0, 12.4),
        ("unet3plus", 320, 0, 310),
        ("deeplabv3plus", 224, 0, 16.99),
        ("ce_net", 224, REPEATED, 5.48),
        ("inf_net", 352, 0, 13.9),
        ("inf_net", 64, 0, 0.46),
        ("sinet_v2", 352, 0, 12.24),
        ("sinet_v2", 224, 0, 4.96),
        ("medt", 128, UNCOUNTED, 1.24),
    ],
)
def test_multiplications_at_full_width(name, size, extra, giga, monkeypatch):
    """As the published figures count them: also two per element of a batch norm and four per upsampled element."""
    from torch.utils.flop_counter import FlopCounterMode

    others, interpolate = [0], functional.interpolate

    def counted(x, *args, **options):
        y = interpolate(x, *args, **options)
        others[0] += 4 * y.numel() * (y.ndim == 4)
        return y

    monkeypatch.setattr(functional, "interpolate", counted)
    with torch.device("meta"):
        network = networks.create(name, in_channels=3).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.register_forward_hook(lambda m, i, y: others.__setitem__(0, others[0] + 2 * y.numel()))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, size, size))
    assert (counter.get_total_flops() / 2 + others[0] + extra) / 1e9 == pytest.approx(giga, rel=0.004)


@pytest.mark.parametrize("name", ["unet3plus", "deeplabv3plus", "ce_net", "inf_net", "sinet_v2"])
def test_width_scales_every_layer(name):
    with torch.device("meta"):
        half, full = (parameters(networks.create(name, width=w)) for w in (32, 64))
    assert 3.8 < full / half < 4.05


# --- what goes in and out ---


@pytest.mark.parametrize(("name", "options", "keys"), FORMS, ids=lambda v: v if isinstance(v, str) else "")
def test_outputs_by_name(name, options, keys):
    network = build(name, in_channels=2, **options).eval()
    assert network.stride in (16, 32)
    with torch.no_grad():
        assert list(network(torch.randn(1, 2, 64, 64))) == keys


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("unet3plus", {"levels": 1}, "levels at least 2"),
        ("deeplabv3plus", {"backbone": "xception"}, "unknown backbone 'xception'; available: resnet101, resnet18"),
        ("deeplabv3plus", {"width": 0}, "width must be at least 1"),
        ("ce_net", {"width": 3}, "width must be at least 4, got 3"),
        ("inf_net", {"width": 2}, "width must be at least 4, got 2"),
        ("sinet_v2", {"width": 2}, "width must be at least 4, got 2"),
        ("sinet_v2", {"width": 24}, "width must be at most 16 or a multiple of 16, got 24"),
        ("medt", {"width": 12}, "width must be less than 8 or a multiple of 8, got 12"),
        ("medt", {"width": 0}, "width must be"),
        ("medt", {"patches": 0}, "patches must be at least 1"),
        ("medt", {"size": 66}, "size a multiple of 4"),
    ],
)
def test_wrong_configurations_are_refused(name, options, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        networks.create(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("unet3plus", 16), ("ce_net", 32), ("inf_net", 32), ("sinet_v2", 32)])
def test_the_smallest_image_trains_in_a_batch_of_two(name, size):
    network = build(name, width=8).train()
    assert torch.isfinite(network(torch.randn(2, 1, size, size))["final"]).all()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.randn(1, 1, size, size))


def test_deeplab_needs_two_images_to_train():
    network = build("deeplabv3plus", width=4, backbone="resnet18")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network.train()(torch.randn(1, 1, 64, 64))


# --- learning ---


@pytest.mark.parametrize(("name", "untrained"), [("inf_net", {"edge_head"}), ("sinet_v2", set())])
def test_final_alone_trains_all_but_the_edge_head(name, untrained):
    network = build(name, width=8)
    network(torch.randn(1, 1, 64, 64))["final"].square().mean().backward()
    missing = {key.split(".")[0] for key, parameter in network.named_parameters() if parameter.grad is None}
    assert missing == untrained


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("unet3plus", {"width": 4}, 20),
        ("deeplabv3plus", {"width": 8, "backbone": "resnet18"}, 20),
        ("ce_net", {"width": 8}, 60),
        ("inf_net", {"width": 8}, 20),
        ("sinet_v2", {"width": 16}, 20),
        ("medt", {"width": 4, "size": 64}, 20),
    ],
    ids=str,
)
def test_learns_to_segment_a_disc(name, options, steps):
    """Dice on the training images, noisy copies of their masks, with the batch's own statistics."""
    network = build(name, **options)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = torch.stack([((y - cy) ** 2 + (x - cx) ** 2 < 200).float() for cy, cx in ((24, 40), (36, 30))])[:, None]
    image = mask + 0.3 * torch.randn(mask.shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        out = network(image)
        out.pop("edge", None)
        sum(functional.binary_cross_entropy_with_logits(v, mask) for v in out.values()).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = network(image)["final"] > 0
    assert float(2 * (predicted * mask).sum() / (predicted.sum() + mask.sum())) > 0.7
