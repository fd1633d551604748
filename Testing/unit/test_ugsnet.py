"""UGS-Net, UGS-Net-V1 and their parts: filters, attention, distance, and the options of the papers."""

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks import ugsnet


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_the_papers():
    with torch.device("meta"):
        assert parameters(networks.create("ugsnet_v1", preset="released")) == 35_069_675
        assert parameters(networks.create("ugsnet").head) == 184_769


@pytest.mark.parametrize("name", ["ugsnet", "ugsnet_v1"])
def test_outputs_and_stride(name):
    network = networks.create(name, width=8, in_channels=2, levels=3).eval()
    assert network.stride == 4
    assert set(network(torch.randn(2, 2, 24, 16))) == {"final", "union", "intersection", "single"}


@pytest.mark.parametrize(
    "options",
    [
        {"combine": "add"},
        {"reduction": "per_channel"},
        {"reduction": "per_sample"},
        {"normalize": "none"},
        {"normalize": "softmax"},
        {"normalize": "sigmoid"},
        {"head": "single"},
        {"filters": False},
        {"otsu": "binary"},
        {"otsu": "quantize_released"},
        {"gabor_kernel": 1},
        {"gabor_kernel": 5},
        {"attention_pool": 2},
    ],
    ids=str,
)
def test_every_option_trains(options):
    network = networks.create("ugsnet", width=8, levels=2, **options)
    loss = sum(v.square().mean() for v in network(torch.randn(2, 1, 16, 16)).values())
    loss.backward()
    finite = [torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None]
    assert finite
    assert all(finite)


def test_presets_are_complete():
    assert set(networks.presets("ugsnet")) == {"default", "paper", "released"}


def test_attention_equals_the_written_out_formula():
    torch.manual_seed(0)
    layer = ugsnet.SelfAttention(16)
    x = torch.randn(2, 16, 6, 5)
    query, key, value = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
    weight = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
    expected = (value @ weight.transpose(1, 2)).view_as(x)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_attention_starts_switched_off_in_v1():
    network = networks.create("ugsnet_v1", width=8, levels=2)
    assert all(g.item() == 0 for g in network.gamma.values())


def test_distance_is_root_mean_square_over_channels():
    shared, enhanced = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    (weight,) = ugsnet.FeatureDistance()([enhanced], shared)
    expected = torch.linalg.vector_norm(enhanced - shared, dim=1, keepdim=True) / 8**0.5
    torch.testing.assert_close(weight, expected)
    same = shared.clone().requires_grad_()
    ugsnet.FeatureDistance()([same], shared)[0].sum().backward()
    assert torch.isfinite(same.grad).all()


def test_gabor_bank_follows_its_formula():
    bank = ugsnet.gabor_bank(4, 5)
    assert bank.shape == (4, 5, 5)
    assert float(bank.min()) == 0
    assert float(bank.max()) == 1
    wave, sigma = np.pi / 2, np.pi
    theta, raw = np.pi / 4, []
    for y in range(-2, 3):
        for x in range(-2, 3):
            envelope = wave**2 / sigma**2 * np.exp(-(wave**2) * (x * x + y * y) / (2 * sigma**2))
            raw.append(envelope * (np.cos(wave * (x * np.cos(theta) + y * np.sin(theta))) - np.exp(-(sigma**2) / 2)))
    raw = np.array(raw).reshape(5, 5)
    np.testing.assert_allclose(bank[1], (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-6)
    # The bank turned by 90 degrees is the bank of the orientation two steps on.
    torch.testing.assert_close(bank[0].T, bank[2], atol=1e-6, rtol=0)


def test_gabor_convolution_equals_the_expanded_input():
    torch.manual_seed(0)
    layer = ugsnet.GaborConv(6, 2, kernel=3, orientations=4)
    x = torch.randn(2, 6, 8, 8)
    weight = layer.weight.unflatten(1, (6, 4))  # (out, in, copies, k, k)
    full = weight.unsqueeze(1) * layer.bank[None, :, None, None]  # (out, orientation, in, copies, k, k)
    expected = torch.nn.functional.conv2d(x.repeat_interleave(4, 1), full.flatten(2, 3).flatten(0, 1), padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_otsu_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    planes = np.stack([rng.normal(rng.choice([-2, 3], size=(40, 40)), 0.7) for _ in range(6)]).astype(np.float32)
    ours = ugsnet.otsu_threshold(torch.from_numpy(planes).view(2, 3, 40, 40)).flatten()
    for plane, threshold in zip(planes, ours, strict=True):
        reference = threshold_otsu(plane, nbins=256)
        width = (plane.max() - plane.min()) / 256
        assert abs(float(threshold) - reference) <= 1.01 * width


def test_otsu_filter_gradients_and_constant_planes():
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    kept = ugsnet.OtsuFilter("masked")(x)
    kept.sum().backward()
    torch.testing.assert_close(x.grad, (kept != 0).float())
    x.grad = None
    binary = ugsnet.OtsuFilter("binary")(x)
    assert set(np.round(binary.detach().unique().numpy(), 5)) == {0.0, 1.0}
    binary.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    codes = ugsnet.OtsuFilter("quantize_released")(torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3))
    assert codes.flatten().tolist() == [0.0, 128.0, 255.0]
    assert torch.isfinite(ugsnet.OtsuFilter()(torch.full((1, 1, 4, 4), 3.0))).all()
