"""IFE's measures: values by hand, empty masks, the released code's quirks, agreement with public implementations."""

import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest
from scipy import ndimage

from Training import metrics
from Training.metrics import MetricError, correction_effort

EMPTY = np.zeros((64, 64), bool)
NAMES = {"con", "dsc", "jc", "f", "hce", "hce64", "mae", "hd", "assd", "rvd"}


def box(rows, columns, shape=(64, 64)):
    out = np.zeros(shape, bool)
    out[slice(*rows), slice(*columns)] = True
    return out


def blobs(seed, size=64, sigma=4.0, threshold=0.4):
    """A mask with several parts and holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), sigma)
    return noise > threshold * noise.std()


@pytest.fixture(scope="module")
def sod():
    """The module of pysodmetrics with these metrics; the package itself imports scikit-learn for others."""
    spec = importlib.util.find_spec("py_sod_metrics")
    if spec is None:
        pytest.skip("pysodmetrics isn't installed")
    bare = types.ModuleType("py_sod_metrics")
    bare.__path__ = list(spec.submodule_search_locations)
    kept = sys.modules.get("py_sod_metrics")
    sys.modules["py_sod_metrics"] = bare
    try:
        return importlib.import_module("py_sod_metrics.sod_metrics")
    finally:
        if kept is None:
            del sys.modules["py_sod_metrics"]
        else:
            sys.modules["py_sod_metrics"] = kept


# -- values by hand


def test_values_by_hand():
    """Truth 20 x 20; prediction 20 x 30, of which two thirds are true."""
    truth, predicted = box((10, 30), (10, 30)), box((10, 30), (10, 40))
    row = metrics.score_image(np.where(predicted, 0.8, 0.1), truth)
    assert row["dsc"] == pytest.approx(0.8)
    assert row["con"] == pytest.approx((2.4 - 2) / 0.8)
    assert row["jc"] == pytest.approx(2 / 3)
    assert row["f"] == pytest.approx(1.3 * (2 / 3) / (0.3 * 2 / 3 + 1))
    assert row["rvd"] == pytest.approx(0.5)
    assert row["mae"] == pytest.approx((400 * 0.2 + 200 * 0.8 + (4096 - 600) * 0.1) / 4096)
    assert row["hd"] == 10
    assert metrics.f_measure(predicted, truth, 1) == pytest.approx(metrics.dice(predicted, truth))
    assert metrics.score_image(np.where(predicted, 0.8, 0.1), truth, spacing=(1, 0.5))["hd"] == 5
    assert set(row) == NAMES | {f"{name}_released" for name in NAMES - {"hce64"}}
    assert set(metrics.score_image(predicted, truth, released=False)) == NAMES


def test_one_predicted_pixel_in_excess_of_the_ratio():
    assert metrics.conformity(box((0, 1), (0, 2)), box((0, 1), (1, 3))) == pytest.approx(-1)  # Dice 0.5
    assert metrics.conformity(box((0, 1), (0, 2)), box((0, 1), (0, 4))) == pytest.approx(0)  # Dice 2/3


def test_clicks_by_hand():
    effort = metrics.human_correction_effort
    left, full = box((0, 64), (0, 32)), ~EMPTY
    assert effort(full, left) == 2  # a straight outline has two ends
    assert effort(left, full) == 1  # the wrong half touches no background: it is filled at once
    assert effort(full, EMPTY) == effort(EMPTY, full) == 1
    truth = box((12, 52), (12, 52))
    assert effort(truth & ~box((25, 39), (25, 39)), truth) == 1  # a hole
    apart = truth | box((1, 9), (2, 10)) | box((55, 63), (20, 40))
    assert effort(apart, truth) == 0  # both thinner than twice the relaxation
    assert effort(apart, truth, relax=3) == 2  # two regions to remove
    rim = ndimage.binary_dilation(truth, iterations=4)
    assert effort(rim, truth) == 0
    assert effort(rim, truth, relax=0) == 5  # a closed outline: four corners, and where it closes
    line = box((30, 32), (5, 60))
    assert effort(EMPTY, line) > 0  # thin, but the truth's skeleton
    assert effort(line, EMPTY) == 0


def test_clicks_depend_on_the_resolution_unless_resized():
    truth, predicted = blobs(1, 256, 16), blobs(1, 256, 16, 0.9)
    assert metrics.human_correction_effort(predicted, truth) > metrics.human_correction_effort(
        predicted, truth, size=64
    )
    small = [np.kron(mask[::4, ::4], np.ones((4, 4), bool)) for mask in (predicted, truth)]
    assert metrics.human_correction_effort(*small, size=64) == metrics.human_correction_effort(
        predicted[::4, ::4], truth[::4, ::4]
    )


# -- conventions


def test_empty_masks():
    some = box((20, 40), (20, 40))
    both = metrics.score_image(EMPTY.astype(float), EMPTY)
    perfect = {"con": 1, "dsc": 1, "jc": 1, "f": 1, "hce": 0, "hce64": 0, "mae": 0, "hd": 0, "assd": 0, "rvd": 0}
    assert {name: both[name] for name in NAMES} == perfect
    missed = metrics.score_image(EMPTY.astype(float), some)
    assert (missed["con"], missed["hd"], missed["assd"]) == (-np.inf, np.inf, np.inf)
    assert (missed["dsc"], missed["jc"], missed["f"], missed["rvd"]) == (0, 0, 0, 1)
    invented = metrics.score_image(some.astype(float), EMPTY)
    assert (invented["con"], invented["hd"], invented["assd"], invented["rvd"]) == (-np.inf, np.inf, np.inf, np.inf)
    assert (invented["dsc"], invented["f"], invented["hce"]) == (0, 0, 1)


def test_perfect_masks_are_perfect_and_arguments_stay():
    for seed in range(4):
        mask = blobs(seed)
        kept = mask.copy()
        row = metrics.score_image(mask.astype(float), mask, released=False)
        assert (row["con"], row["dsc"], row["jc"], row["f"]) == (1, 1, 1, 1)
        assert not any(row[name] for name in ("hce", "hce64", "mae", "hd", "assd", "rvd"))
        assert np.array_equal(mask, kept)


def test_order_of_measures_on_random_masks():
    for seed in range(12):
        predicted, truth = blobs(seed), blobs(seed + 100)
        row = metrics.score_image(predicted.astype(float), truth, released=False)
        assert row["jc"] <= row["dsc"]
        assert row["con"] <= row["dsc"]
        assert row["assd"] <= row["hd"]
        assert row["mae"] == pytest.approx(np.mean(predicted != truth))
        assert row["con"] == pytest.approx(1 - (predicted ^ truth).sum() / (predicted & truth).sum())


def test_clicks_stay_when_masks_are_moved_or_the_image_grows():
    for seed in range(12):
        predicted, truth = (np.pad(blobs(s, 40), 12) for s in (seed, seed + 50))
        here = metrics.human_correction_effort(predicted, truth)
        moved = [np.roll(mask, (5, -7), (0, 1)) for mask in (predicted, truth)]
        assert metrics.human_correction_effort(*moved) == here
        assert metrics.human_correction_effort(np.pad(predicted, 40), np.pad(truth, 40)) == here


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.score_image(np.zeros((4, 5)), np.zeros((5, 4))), r"map and mask of different shapes"),
        (lambda: metrics.score_image(np.full((4, 4), 1.5), np.zeros((4, 4))), r"values outside \[0, 1\]"),
        (lambda: metrics.score_image(np.full((4, 4), np.nan), np.zeros((4, 4))), "not finite"),
        (lambda: metrics.score_image(np.zeros((4, 4, 4)), np.zeros((4, 4, 4))), "an image .* is wanted"),
        (lambda: metrics.human_correction_effort(EMPTY[0], EMPTY[0]), "of images"),
        (lambda: metrics.human_correction_effort(EMPTY, EMPTY, relax=-1), "relax -1"),
        (lambda: metrics.conformity(EMPTY, EMPTY[1:]), "different shapes"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(call, words):
    with pytest.raises(MetricError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_without_opencv_the_reason_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MetricError, match="wants OpenCV"):
        metrics.human_correction_effort(EMPTY, ~EMPTY)


# -- the released code's quirks


def test_the_released_mean_absolute_error_hardly_sees_what_is_missed():
    """Five per cent of the pixels missed: 0.05 becomes 0.0002; the same in excess stays 0.05."""
    truth = box((0, 1), (0, 20), (20, 20))
    nothing = np.zeros_like(truth)
    assert metrics.mean_absolute_error(nothing, truth) == pytest.approx(0.05)
    assert metrics.mean_absolute_error_released(nothing, truth) == pytest.approx(0.05 / 255, rel=1e-6)
    assert metrics.mean_absolute_error_released(truth, nothing) == pytest.approx(0.05, rel=1e-6)
    assert metrics.mean_absolute_error_released(np.full((4, 4), 0.4), np.ones((4, 4))) == pytest.approx(103 / 255)


def test_released_values_of_empty_masks():
    some = box((20, 40), (20, 40))
    for pair in ((EMPTY, some), (some, EMPTY), (EMPTY, EMPTY)):
        assert metrics.hausdorff_distance_released(*pair) == metrics.average_surface_distance_released(*pair) == 0
        assert metrics.conformity_released(*pair) == metrics.f_measure_released(*pair) == 0
    assert metrics.f_measure_released(some, some) == pytest.approx(1.3 / 1.3001)
    row = metrics.score_image(EMPTY.astype(float), EMPTY)
    assert row["dsc_released"] == 0
    assert np.isnan(row["jc_released"])
    assert np.isnan(row["rvd_released"])
    touching = box((0, 1), (0, 1)) | some
    assert metrics.conformity_released(box((0, 1), (0, 1)), touching) == 0  # Dice 0.005
    assert metrics.conformity(box((0, 1), (0, 1)), touching) < -300


def test_minmax_cut_always_finds_something():
    faint = np.where(box((20, 40), (20, 40)), 0.02, 0.01)
    assert np.array_equal(metrics.minmax_cut(faint), faint > 0.015)
    assert not metrics.minmax_cut(np.full((8, 8), 0.9)).any()
    row = metrics.score_image(faint, box((20, 40), (20, 40)))
    assert (row["dsc"], row["dsc_released"]) == (0, 1)
    mask = blobs(3)
    assert np.array_equal(metrics.minmax_cut(mask), mask)


def test_released_clicks_are_the_same_on_64_pixels_and_count_grey_outlines_elsewhere():
    for seed in range(8):
        pair = blobs(seed), blobs(seed, threshold=0.7)
        assert metrics.human_correction_effort_released(*pair) == metrics.human_correction_effort(*pair)
    pairs = [(blobs(s, 150, 10), blobs(s, 150, 10, 0.7)) for s in range(8)]
    released = [metrics.human_correction_effort_released(*pair) for pair in pairs]
    clean = [metrics.human_correction_effort(*pair, size=64) for pair in pairs]
    assert released != clean
    assert metrics.human_correction_effort_released(EMPTY, EMPTY) == 0


# -- agreement


def test_clicks_agree_with_pysodmetrics_exactly(sod):
    measure = sod.HumanCorrectionEffortMeasure()
    for seed in range(40):
        size, sigma = (16, 64, 100, 129)[seed % 4], 1 + seed % 5
        truth = blobs(seed, size, sigma)
        predicted = blobs(seed, size, sigma, 0.9) if seed % 3 else blobs(seed + 500, size, sigma)
        for pair in ((predicted, truth), (truth, predicted), (np.zeros_like(truth), truth), (truth, ~truth)):
            assert metrics.human_correction_effort(*pair) == measure.cal_hce(pair[0].astype(float), pair[1])
    loose = sod.HumanCorrectionEffortMeasure(relax=2, epsilon=1.0)
    assert metrics.human_correction_effort(predicted, truth, 2, 1.0) == loose.cal_hce(predicted.astype(float), truth)


def test_mean_absolute_error_and_f_measure_agree_with_pysodmetrics(sod):
    rng = np.random.default_rng(5)
    for seed in range(10):
        truth, mask = blobs(seed, threshold=0.5), blobs(seed + 30, threshold=0.5)
        probability = rng.random((64, 64))
        assert metrics.mean_absolute_error(probability, truth) == pytest.approx(sod.MAE().cal_mae(probability, truth))
        # Of a mask, its adaptive threshold finds the mask itself.
        theirs = sod.Fmeasure(beta=0.3).cal_adaptive_fm(mask.astype(float), truth)
        assert metrics.f_measure(mask, truth) == pytest.approx(theirs)


def test_distances_agree_with_monai():
    import torch

    monai = pytest.importorskip("monai.metrics", reason="MONAI isn't installed")
    for seed in range(4):
        predicted, truth = blobs(seed), blobs(seed + 60)
        pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
        row = metrics.score_image(predicted.astype(float), truth, released=False)
        assert row["hd"] == pytest.approx(float(monai.compute_hausdorff_distance(*pair, include_background=True)))
        theirs = monai.compute_average_surface_distance(*pair, symmetric=True, include_background=True)
        assert row["assd"] == pytest.approx(float(theirs), rel=1e-5)
        directed = [
            float(monai.compute_average_surface_distance(*masks, include_background=True))
            for masks in (pair, pair[::-1])
        ]
        released = metrics.score_image(predicted.astype(float), truth)["assd_released"]
        assert released == pytest.approx(np.mean(directed), rel=1e-5)
        assert row["rvd"] == pytest.approx(abs(predicted.sum() / truth.sum() - 1))


# -- a nodule's row


def test_rows_of_nodules_and_readers_hold_the_measures():
    readers = np.stack([blobs(7), blobs(7, threshold=0.6), blobs(7, threshold=0.3)])
    final = np.clip(ndimage.gaussian_filter(readers[1].astype(float), 1.5), 0, 1)
    row, human = metrics.score_nodule(readers, {"final": final}), metrics.score_human(readers)
    alone = metrics.score_image(final, readers[0])
    consensus = metrics.score_image(final, metrics.consensus(readers))
    for name in (*NAMES - {"dsc", "jc"}, *(f"{n}_released" for n in NAMES - {"hce64"})):
        assert row[f"{name}_label1"] == pytest.approx(alone[name])
        assert row[f"{name}_consensus"] == pytest.approx(consensus[name])
    assert row["missed_consensus"] == 0
    assert human["hce_label1"] == np.mean(
        [correction_effort.human_correction_effort(r, readers[0]) for r in readers[1:]]
    )
    expected = [metrics.conformity(r, metrics.consensus(np.delete(readers, i, 0))) for i, r in enumerate(readers)]
    assert human["con_consensus"] == pytest.approx(np.mean(expected))
    assert not [name for name in human if "released" in name]
    assert metrics.score_nodule(readers, {"final": np.zeros((64, 64))})["missed_label1"] == 1
    strict = metrics.score_nodule(readers, {"final": final}, thresholds={"final": 0.9})
    assert strict["f_label1"] == pytest.approx(metrics.f_measure(final >= 0.9, readers[0]))
