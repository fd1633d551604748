"""Metrics of two masks: overlap and surfaces, against definitions written out, analytic values and other packages."""

import subprocess
import sys
import types

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial.distance import cdist

from Training import metrics
from Training.metrics import MetricError, neighbors

SHAPES = [(23,), (24, 31), (14, 17, 12), (4, 9, 10, 8)]
METRICS = {
    "dice": metrics.dice,
    "iou": metrics.iou,
    "nsd": lambda a, b: metrics.normalized_surface_dice(a, b, 1),
    "hd": metrics.hausdorff_distance,
    "assd": metrics.average_symmetric_surface_distance,
}


def ball(shape, radius, center=None):
    """All pixels within a distance of the center."""
    center = [n // 2 for n in shape] if center is None else center
    return sum((g - c) ** 2 for g, c in zip(np.indices(shape), center, strict=True)) <= radius**2


def blobs(shape, seed):
    """Two irregular overlapping masks, foreground at the image's edge included."""
    rng = np.random.default_rng(seed)
    base = ball(shape, min(shape) * 0.45) | (rng.random(shape) < 0.01)
    return base ^ (rng.random(shape) < 0.08), binary_dilation(base) ^ (rng.random(shape) < 0.05)


def border(mask):
    return mask & ~binary_erosion(mask)


def plain_distances(a, b, spacing):
    """Directed distances of both borders, by every pair of border voxels."""
    pairs = cdist(np.argwhere(border(a)) * spacing, np.argwhere(border(b)) * spacing)
    return pairs.min(1), pairs.min(0)


def plain_nsd(a, b, tolerance, spacing):
    first, second = plain_distances(a, b, spacing)
    return ((first <= tolerance).sum() + (second <= tolerance).sum()) / (len(first) + len(second))


# -- properties of all of them


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", SHAPES)
def test_symmetric_and_perfect_with_itself(name, shape):
    a, b = blobs(shape, 1)
    assert METRICS[name](a, b) == pytest.approx(METRICS[name](b, a), rel=1e-12)
    assert METRICS[name](a, a.copy()) == (0.0 if name in ("hd", "assd") else 1.0)
    assert METRICS[name](a, b) != METRICS[name](a, a)


@pytest.mark.parametrize("name", METRICS)
def test_translation_changes_nothing(name):
    a, b = np.zeros((2, 30, 30), bool)
    a[8:15, 9:18], b[9:17, 8:15] = True, True
    moved = [np.roll(m, (6, 11), (0, 1)) for m in (a, b)]
    assert METRICS[name](*moved) == METRICS[name](a, b)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", [(9,), (8, 8), (5, 6, 7), (0, 4)])
def test_empty_masks(name, shape):
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    distance = name in ("hd", "assd")
    assert METRICS[name](empty, empty) == (0.0 if distance else 1.0)
    if full.size:
        for pair in ((empty, full), (full, empty)):
            assert METRICS[name](*pair) == (np.inf if distance else 0.0)


@pytest.mark.parametrize("name", METRICS)
def test_arguments_are_not_changed_and_may_be_numbers(name):
    a, b = blobs((20, 20), 3)
    kept = a.copy(), b.copy()
    value = METRICS[name](a, b)
    assert (a == kept[0]).all()
    assert (b == kept[1]).all()
    a.flags.writeable = b.flags.writeable = False
    assert METRICS[name](a * np.uint8(255), b.astype(float)) == value
    assert METRICS[name](np.asfortranarray(a), b[::-1][::-1]) == value


@pytest.mark.parametrize("name", METRICS)
def test_shapes_must_agree(name):
    with pytest.raises(MetricError, match=r"\(4, 4\) and \(4, 5\)"):
        METRICS[name](np.ones((4, 4), bool), np.ones((4, 5), bool))
    # Broadcasting would hide the mistake.
    with pytest.raises(MetricError):
        METRICS[name](np.ones((1, 4), bool), np.ones((4, 4), bool))
    with pytest.raises(MetricError, match="mask holds bool or numbers"):
        METRICS[name](np.array(["a"]), np.array(["b"]))


# -- overlap


def test_overlap_of_known_masks():
    a, b = np.zeros((2, 10), bool)
    a[:6], b[4:8] = True, True
    assert metrics.dice(a, b) == pytest.approx(2 * 2 / 10)
    assert metrics.iou(a, b) == pytest.approx(2 / 8)
    for shape in SHAPES:
        a, b = blobs(shape, 5)
        d = metrics.dice(a, b)
        assert metrics.iou(a, b) == pytest.approx(d / (2 - d))


def test_soft_dice():
    a, b = blobs((20, 20), 2)
    assert metrics.soft_dice(a, b) == pytest.approx(metrics.dice(a, b))
    p, t = np.array([0.5, 1.0, 0.0]), np.array([1.0, 0.25, 0.0])
    assert metrics.soft_dice(p, t) == pytest.approx(2 * 0.75 / (1.25 + 1.0625))
    soft = np.random.default_rng(0).random((9, 9))
    assert metrics.soft_dice(soft, soft) == pytest.approx(1.0)
    assert metrics.soft_dice(np.zeros(4), np.zeros(4)) == 1.0
    assert metrics.soft_dice(np.zeros(4), np.ones(4)) == 0.0
    for bad in (-0.1, 1.5, np.nan):
        with pytest.raises(MetricError, match=r"probability: values outside \[0, 1\] or not finite"):
            metrics.soft_dice(np.array([bad, 0.5]), np.array([0.0, 1.0]))


# -- surfaces


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("anisotropic", [False, True])
def test_distances_are_those_of_the_definition(shape, anisotropic):
    spacing = np.array([2.5, 0.7, 0.65, 1.1][: len(shape)]) if anisotropic else np.ones(len(shape))
    for seed in range(4):
        a, b = blobs(shape, seed)
        # A far island makes the KD-tree take over as well.
        a[(-1,) * a.ndim] = True
        wanted = plain_distances(a, b, spacing)
        got = metrics.surface_distances(a, b, spacing if anisotropic else None)
        for one, other in zip(got, wanted, strict=True):
            assert np.sort(one) == pytest.approx(np.sort(other))
        assert metrics.hausdorff_distance(a, b, spacing) == pytest.approx(max(w.max() for w in wanted))
        percentiles = [np.percentile(w, 95) for w in wanted]
        assert metrics.hausdorff_distance(a, b, spacing, 95) == pytest.approx(max(percentiles))
        pooled = np.concatenate(wanted).mean()
        assert metrics.average_symmetric_surface_distance(a, b, spacing) == pytest.approx(pooled)
        halves = np.mean([w.mean() for w in wanted])
        assert metrics.average_symmetric_surface_distance(a, b, spacing, pooled=False) == pytest.approx(halves)
        for tolerance in (0, 0.7, 1, 2.1, 3):
            got = metrics.normalized_surface_dice(a, b, tolerance, spacing)
            assert got == pytest.approx(plain_nsd(a, b, tolerance + 1e-9, spacing))


def test_lookup_and_tree_agree(monkeypatch):
    a, b = blobs((20, 22, 18), 7)
    spacing = (1.25, 0.7, 0.7)
    for tolerance in (0.7, 1.4, 2.5):
        looked_up = metrics.normalized_surface_dice(a, b, tolerance, spacing)
        monkeypatch.setattr("Training.metrics.surface.TOLERANCE_OFFSETS", 0)
        assert metrics.normalized_surface_dice(a, b, tolerance, spacing) == looked_up
        monkeypatch.undo()
    whole = metrics.surface_distances(a, b, spacing)
    monkeypatch.setattr(neighbors, "LOOKUP_ENTRIES", 50)
    for one, other in zip(metrics.surface_distances(a, b, spacing), whole, strict=True):
        assert np.sort(one) == pytest.approx(np.sort(other))


def test_tolerance_only_raises_nsd():
    for shape in SHAPES:
        a, b = blobs(shape, 11)
        values = [metrics.normalized_surface_dice(a, b, t) for t in (0, 0.5, 1, 1.5, 2, 3, 5, 50)]
        assert values == sorted(values)
        assert values[0] < values[-1] == 1.0


def test_nsd_of_shifted_squares():
    a = np.zeros((40, 40), bool)
    a[10:20, 10:20] = True
    b = np.roll(a, 3, 1)
    # Each border has 36 pixels; 7 columns of both horizontal sides coincide, as far as the two reach.
    assert metrics.normalized_surface_dice(a, b, 0) == pytest.approx(14 / 36)
    assert metrics.normalized_surface_dice(a, b, 3) == 1.0
    assert metrics.hausdorff_distance(a, b) == 3.0
    assert metrics.hausdorff_distance(a, b, (1.0, 0.5)) == 1.5
    assert metrics.hausdorff_distance(a, b, 2) == 6.0
    # Pixels, not mm, without spacing; a tolerance that is a distance but for rounding counts as within.
    assert metrics.normalized_surface_dice(a, b, 0.3, (0.1, 0.1)) == 1.0
    assert metrics.normalized_surface_dice(a, b, 1, (0.7, 0.7)) < metrics.normalized_surface_dice(a, b, 1.4, (0.7, 0.7))


def test_concentric_circles():
    inner, outer = ball((200, 200), 50), ball((200, 200), 60)
    assert metrics.hausdorff_distance(inner, outer) == pytest.approx(10, abs=1)
    assert metrics.average_symmetric_surface_distance(inner, outer) == pytest.approx(10, abs=0.5)
    assert metrics.normalized_surface_dice(inner, outer, 8) == 0.0
    assert metrics.normalized_surface_dice(inner, outer, 12) == 1.0


def test_the_image_edge_is_border():
    full = np.ones((6, 6), bool)
    forward, _ = metrics.surface_distances(full, full)
    assert len(forward) == 20
    cut = np.zeros((6, 6), bool)
    cut[1:5, 1:5] = True
    assert metrics.normalized_surface_dice(full, cut, 1) == pytest.approx((16 + 12) / 32)
    assert metrics.hausdorff_distance(full, cut) == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: metrics.normalized_surface_dice(m, m, -1), "tolerance -1"),
        (lambda m: metrics.normalized_surface_dice(m, m, np.nan), "tolerance nan"),
        (lambda m: metrics.hausdorff_distance(m, m, (1.0, 0.0)), "positive"),
        (lambda m: metrics.hausdorff_distance(m, m, (1.0, 1.0, 1.0)), "2 positive numbers"),
        (lambda m: metrics.hausdorff_distance(m, m, None, 101), "percentile 101"),
        (lambda m: metrics.normalized_surface_dice(m[0, 0], m[0, 0], 1), "without an axis"),
        (lambda m: metrics.nsd_released(m, m), r"\(B, 1, H, W\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(MetricError, match=message):
        call(np.ones((5, 5), bool))


# -- UGS-Net's released NSD


def released_by_definition(a, b, tolerance):
    """nnU-Net's normalized surface dice on medpy's borders of the whole batch, written out with 4D distances."""
    shares = []
    for one, other in ((a, b), (b, a)):
        pairs = cdist(np.argwhere(border(one)), np.argwhere(border(other)))
        shares.append((pairs.min(1) <= tolerance).mean())
    return sum(shares) / 2


@pytest.mark.parametrize("tolerance", [0, 1, 2])
def test_released_nsd_is_the_4d_definition(tolerance):
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 3, 1, 16, 18)) < 0.15
    assert (border(a) == a).all(), "the channel axis makes all foreground border"
    assert metrics.nsd_released(a, b, tolerance) == pytest.approx(released_by_definition(a, b, tolerance))


@pytest.mark.parametrize(("pixels", "released", "proper"), [(1, 0.993, 0.93), (2, 0.961, 0.0), (5, 0.81, 0.0)])
def test_released_nsd_hides_over_segmentation(pixels, released, proper):
    """Discs drawn too wide everywhere: the released form hardly notices, the proper one drops to zero."""
    radii = np.random.default_rng(0).uniform(8, 16, 32)
    target = np.stack([ball((64, 64), r) for r in radii])
    wide = np.stack([ball((64, 64), r + pixels) for r in radii])
    value = metrics.nsd_released(wide[:, None], target[:, None])
    each = np.mean([metrics.normalized_surface_dice(w, t, 1) for w, t in zip(wide, target, strict=True)])
    assert value == pytest.approx(released, abs=0.035)
    assert each == pytest.approx(proper, abs=0.03 if proper else 0)


def test_released_nsd_depends_on_the_batch():
    """A wide prediction is excused by the next image of the batch: the trap of the released form."""
    small, large = ball((32, 32), 5), ball((32, 32), 9)
    alone = metrics.nsd_released(large[None, None], small[None, None])
    beside = metrics.nsd_released(np.stack([large, large])[:, None], np.stack([small, large])[:, None])
    assert alone < 0.9
    assert beside == 1.0
    empty = np.zeros((2, 1, 8, 8), bool)
    assert metrics.nsd_released(empty, empty) == 1.0
    assert metrics.nsd_released(~empty, empty) == metrics.nsd_released(empty, ~empty) == 0.0


# -- other packages


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("shape", [(40, 36), (16, 20, 18)])
def test_equal_to_monai(shape):
    import torch

    monai = pytest.importorskip("monai.metrics", reason="MONAI isn't installed")
    spacing = (1.25, 0.7, 0.65)[: len(shape)]
    for seed in range(3):
        a, b = blobs(shape, seed)
        pair = [torch.from_numpy(m)[None, None] for m in (a, b)]
        options = {"include_background": True, "spacing": spacing}
        for tolerance in (0.65, 1.0, 2.0):
            wanted = float(monai.compute_surface_dice(*pair, [tolerance], **options))
            assert metrics.normalized_surface_dice(a, b, tolerance, spacing) == pytest.approx(wanted, abs=1e-6)
        for percentile in (None, 95):
            wanted = float(monai.compute_hausdorff_distance(*pair, percentile=percentile, **options))
            assert metrics.hausdorff_distance(a, b, spacing, percentile or 100) == pytest.approx(wanted, rel=1e-5)
        wanted = float(monai.compute_average_surface_distance(*pair, symmetric=True, **options))
        assert metrics.average_symmetric_surface_distance(a, b, spacing) == pytest.approx(wanted, rel=1e-5)


def test_close_to_surface_distance(monkeypatch):
    """Surface elements weighted by area are another definition: near, and not wanted equal."""
    peer = pytest.importorskip("surface_distance.metrics", reason="surface-distance isn't installed")
    from scipy import ndimage

    monkeypatch.setattr(peer, "ndimage", types.SimpleNamespace(filters=ndimage, morphology=ndimage))
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    a, b = ball((64, 64), 20), ball((64, 64), 20, (32, 35))
    distances = peer.compute_surface_distances(a, b, (0.7, 0.7))
    wanted = peer.compute_robust_hausdorff(distances, 100)
    assert metrics.hausdorff_distance(a, b, (0.7, 0.7)) == pytest.approx(wanted, abs=0.7)
    wanted = np.mean(peer.compute_average_surface_distance(distances))
    assert metrics.average_symmetric_surface_distance(a, b, (0.7, 0.7)) == pytest.approx(wanted, abs=0.2)
    wanted = peer.compute_surface_dice_at_tolerance(distances, 1.5)
    assert metrics.normalized_surface_dice(a, b, 1.5, (0.7, 0.7)) == pytest.approx(wanted, abs=0.15)


def test_needs_no_torch(repository):
    """The package is NumPy and SciPy only: importing it must not bring in torch."""
    code = "import sys; import Training.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
