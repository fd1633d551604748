"""Instructive feature enhancement: its scores against slow loops by definition, and the selection."""

import itertools
import math
from collections import Counter

import pytest
import torch

from LungNoduleUncertaintyLib.networks import feature_enhancement as ife

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ife.IMPLEMENTATIONS)


def feature_map(*shape, seed=0):
    """Like activations after ReLU: about half of them 0, channels of different scale; multiples of 1/64."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2
    scale = 2.0 ** torch.arange(shape[1]).remainder(4)[:, None, None]
    return (torch.relu(noise) * 64).round() / 64 * scale


def zero_padded(plane, y, x):
    return float(plane[y, x]) if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1] else 0.0


def neighbor_mean(plane, y, x):
    around = [(dy, dx) for dy, dx in itertools.product((-1, 0, 1), repeat=2) if (dy, dx) != (0, 0)]
    return sum(zero_padded(plane, y + dy, x + dx) for dy, dx in around) / 8


def slow_curvature(plane):
    kernel, total = ife.CURVATURE_KERNEL, 0.0
    for y, x in itertools.product(range(plane.shape[0] - 2), range(plane.shape[1] - 2)):
        total += abs(sum(kernel[i][j] * float(plane[y + i, x + j]) for i in range(3) for j in range(3)))
    return total


def level(value, low, high, bins=256):
    return min(max(int((value - low) / (high - low) * bins), 0), bins - 1) if high > low else 0


def slow_entropies(maps, implementation, cells):
    """Entropy of each plane of (B, C, H, W), pixel by pixel; `cells` is the denominator of p."""
    planes = maps.flatten(0, 1)
    pairs = [
        [(float(p[y, x]), neighbor_mean(p, y, x)) for y, x in itertools.product(*map(range, p.shape))] for p in planes
    ]
    keys = [[100 * i + j for i, j in plane] for plane in pairs]
    ends = min(map(min, keys)), max(map(max, keys))
    out = []
    for plane, key, channel in zip(planes, keys, pairs, strict=True):
        if implementation == "paper2d":
            low, high = float(plane.min()), float(plane.max())
            codes = [(level(i, low, high), level(j, low, high)) for i, j in channel]
        else:
            codes = key if implementation == "unique" else [level(k, *ends) for k in key]
        out.append(-sum(f / cells * math.log2(f / cells) for f in Counter(codes).values()))
    return torch.tensor(out).view(maps.shape[:2])


# --- the scores ---


def test_curvature_by_hand():
    point, ramp = torch.zeros(5, 5), torch.arange(5.0).expand(5, 5)
    point[2, 2] = 1
    planes = torch.stack([torch.full((5, 5), 3.0), ramp, ramp**2, point])
    # A flat and a sloped plane don't curve; x^2 gives 6/16 at nine pixels; one point every element of the kernel once.
    expected = torch.tensor([0, 0, 9 * 6 / 16, 1 + 4 * 5 / 16 + 4 / 16])
    assert torch.equal(ife.curvature_scores(planes[None])[0], expected)
    assert torch.equal(ife.curvature_scores(planes[None], normalize=True)[0], expected / torch.tensor([1, 4, 16, 1]))


def test_entropy_by_hand():
    planes = torch.zeros(3, 3, 3)
    planes[0, 1, 1] = 1  # pair (1, 0) once and (0, 1/8) eight times
    planes[1] = 5  # constant: all in one cell, whatever the border
    planes[2] = torch.arange(9.0).view(3, 3)  # nine different values
    bits = torch.tensor([math.log2(9) - 8 / 9 * 3, 0, math.log2(9)])
    torch.testing.assert_close(ife.entropy_scores(planes[None])[0], bits)
    padded = ife.entropy_scores(planes[None], denominator="padded")[0]
    torch.testing.assert_close(padded, (9 * math.log2(25) - 9 * (math.log2(9) - bits)) / 25)


def test_curvature_against_the_loop():
    x = feature_map(2, 3, 5, 7)
    expected = torch.tensor([slow_curvature(p) for p in x.flatten(0, 1)]).view(2, 3)
    torch.testing.assert_close(ife.curvature_scores(x), expected)


@IMPLEMENTATIONS
@pytest.mark.parametrize("size", [(3, 3), (9, 6), (33, 32)])
def test_entropy_against_the_loop(implementation, size):
    x = feature_map(2, 3, *size)
    x[0, 0] = 0  # a dead channel
    # Ranges that are powers of two: no level depends on how a quotient is rounded.
    x.flatten(0, 1)[1:, 0, :2] = torch.tensor([0.0, 16.0])
    if implementation == "hist_batch":
        x = x.clamp(max=16)
        x[:, :, 0, :2] = 0
        x[1, 2] = 0
        x[1, 2, 1, 1] = 20.48  # the largest key is 2048
    for denominator, added in ife.DENOMINATORS.items():
        expected = slow_entropies(x, implementation, (size[0] + added) * (size[1] + added))
        got = ife.entropy_scores(x, implementation, denominator=denominator)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("pixels", [9, 1500])
def test_both_ways_of_counting_agree(dtype, pixels, monkeypatch):
    """The CPU counts with NumPy, accelerators and traced networks with torch."""
    codes = torch.randint(0, 40, (6, pixels)).to(dtype)
    codes[0] = 7
    fast = ife._sum_count_log_count(codes)
    expected = [sum(f * math.log2(f) for f in Counter(row.tolist()).values()) for row in codes]
    torch.testing.assert_close(fast, torch.tensor(expected), rtol=1e-6, atol=1e-4)
    monkeypatch.setattr(ife, "_traced", lambda: True)
    torch.testing.assert_close(ife._sum_count_log_count(codes), fast, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("score", [ife.curvature_scores, ife.entropy_scores])
def test_scores_dont_depend_on_batch_mates(score):
    x = feature_map(4, 16, 12, 12)
    scores = score(x)
    for other in (x[0] * 10, torch.full_like(x[0], 1e6), torch.zeros_like(x[0])):
        changed = score(torch.cat([other[None], x[1:]]))
        assert torch.equal(changed[1:], scores[1:])
    torch.testing.assert_close(score(x[1:2]), scores[1:2])


def test_the_released_histogram_depends_on_batch_mates():
    x = feature_map(4, 16, 12, 12)
    changed = ife.entropy_scores(torch.cat([x[:1] * 10, x[1:]]), "hist_batch")
    assert not torch.allclose(changed[1:], ife.entropy_scores(x, "hist_batch")[1:])


def test_scale_changes_curvature_and_not_entropy():
    x = feature_map(2, 8, 10, 10)
    torch.testing.assert_close(ife.entropy_scores(4 * x), ife.entropy_scores(x))
    torch.testing.assert_close(ife.curvature_scores(4 * x), 4 * ife.curvature_scores(x))
    torch.testing.assert_close(ife.curvature_scores(4 * x, True), ife.curvature_scores(x, True))


@IMPLEMENTATIONS
def test_the_denominator_doesnt_change_the_selection(implementation):
    x = feature_map(2, 16, 20, 20)
    ranks = [
        ife.entropy_scores(x, implementation, denominator=name).argsort(dim=1, stable=True) for name in ife.DENOMINATORS
    ]
    assert all(torch.equal(ranks[0], other) for other in ranks[1:])


def test_large_maps_are_scored_in_parts():
    x = feature_map(2, 5, 300, 301)  # more than one chunk
    for score in (ife.curvature_scores, ife.entropy_scores):
        parts = torch.stack([score(x[:, c : c + 1])[:, 0] for c in range(5)], dim=1)
        torch.testing.assert_close(score(x), parts)


@pytest.mark.parametrize("score", ["curvature", "entropy"])
def test_half_precision_and_memory_formats(score):
    module = ife.FeatureEnhancement(score)
    x = feature_map(2, 8, 10, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.scores(x), module.scores(x))
        scores = module.scores(x)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, module.scores(x))
    assert torch.equal(module.scores(x.to(memory_format=torch.channels_last)), scores)
    last = module(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, module(x))
    half = module.half()(x.half())
    assert half.dtype == torch.float16
    assert half.shape == (2, 12, 10, 12)


@pytest.mark.cuda
@IMPLEMENTATIONS
def test_the_accelerator_agrees(implementation):
    x = feature_map(3, 16, 24, 20)
    for cpu, cuda in (
        (ife.curvature_scores(x), ife.curvature_scores(x.cuda())),
        (ife.entropy_scores(x, implementation), ife.entropy_scores(x.cuda(), implementation)),
    ):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ife.curvature_scores(x[0]),
        lambda x: ife.curvature_scores(x[:, :, :2]),
        lambda x: ife.entropy_scores(x[..., :2]),
        lambda x: ife.entropy_scores(x, "paper3d"),
        lambda x: ife.entropy_scores(x, denominator="pixel"),
        lambda x: ife.entropy_scores(x, bins=257),
        lambda x: ife.top_channels(x.mean((2, 3)), 2, order="rank"),
        lambda x: ife.FeatureEnhancement("contrast"),
        lambda x: ife.FeatureEnhancement(ratio=1.5),
        lambda x: ife.FeatureEnhancement("entropy", implementation="exact"),
    ],
)
def test_what_is_refused(call):
    with pytest.raises(ValueError, match=r"expected a feature map|unknown|denominator|between 0 and 1"):
        call(torch.zeros(1, 4, 5, 5))


# --- selection ---


def test_the_best_channels_are_copied_best_first():
    x = feature_map(3, 10, 6, 6)
    for order in ife.ORDERS:
        module = ife.FeatureEnhancement("curvature", 0.45, order=order)
        out, scores = module(x), module.scores(x)
        assert out.shape == (3, 14, 6, 6)
        assert torch.equal(out[:, :10], x)
        for sample in range(3):
            best = sorted(range(10), key=lambda c: -scores[sample, c])[:4]
            assert torch.equal(out[sample, 10:], x[sample, best if order == "score" else sorted(best)])


def test_gradients_flow_through_the_copies_alone():
    x = feature_map(2, 6, 5, 5).requires_grad_()
    module = ife.FeatureEnhancement("curvature", 0.5)
    out = module(x)
    assert not module.scores(x).requires_grad
    weight = torch.rand_like(out)
    (out * weight).sum().backward()
    expected = weight[:, :6].clone()
    for sample, best in enumerate(ife.top_channels(module.scores(x), 3)):
        for slot, channel in enumerate(best):
            expected[sample, channel] += weight[sample, 6 + slot]
    torch.testing.assert_close(x.grad, expected)


def test_ratio_one_doubles_everything_and_zero_nothing():
    x = feature_map(2, 6, 5, 5)
    for score in ("curvature", "entropy"):
        assert torch.equal(ife.FeatureEnhancement(score, 1)(x), torch.cat([x, x], dim=1))
        assert ife.FeatureEnhancement(score, 0)(x) is x
        assert ife.FeatureEnhancement(score, 0.1)(x) is x  # less than one channel
    assert not ife.FeatureEnhancement("entropy", 1).state_dict()
