"""Metrics of several readers, the rows of a table, the row of one reader, and statistics over nodules."""

import csv
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from Training import metrics
from Training.data.folder import load_folder
from Training.metrics import MetricError


def squares(*sides, size=24):
    """Squares of given sides with one corner in common, (N, size, size)."""
    out = np.zeros((len(sides), size, size), bool)
    for mask, side in zip(out, sides, strict=True):
        mask[2 : 2 + side, 2 : 2 + side] = True
    return out


def noisy(number, seed, shape=(18, 18)):
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    distance = np.sqrt(sum((g - n / 2) ** 2 for g, n in zip(grid, shape, strict=True)))
    return np.stack([distance + rng.normal(0, 0.7, shape) <= r for r in rng.uniform(3, 7, number)])


# -- sets of masks


@pytest.mark.parametrize("shape", [(18, 18), (9, 10, 11)])
def test_pairwise_overlaps(shape):
    samples, readers = noisy(3, 1, shape), noisy(4, 2, shape)
    for matrix, metric in ((metrics.pairwise_iou, metrics.iou), (metrics.pairwise_dice, metrics.dice)):
        wanted = [[metric(s, r) for r in readers] for s in samples]
        assert matrix(samples, readers) == pytest.approx(np.array(wanted))
    empty = np.zeros((1, *shape), bool)
    assert metrics.pairwise_iou(empty, empty)[0, 0] == metrics.pairwise_dice(empty, empty)[0, 0] == 1.0


def ged_by_definition(samples, readers, weights):
    def expectation(first, second, w, v):
        pairs = itertools.product(zip(w, first, strict=True), zip(v, second, strict=True))
        return sum(p * q * (1 - metrics.iou(a, b)) for (p, a), (q, b) in pairs)

    uniform = np.full(len(readers), 1 / len(readers))
    cross = expectation(samples, readers, weights, uniform)
    own = expectation(samples, samples, weights, weights)
    return 2 * cross - own - expectation(readers, readers, uniform, uniform)


@pytest.mark.parametrize("weighted", [False, True])
def test_ged_is_its_definition(weighted):
    samples, readers = noisy(3, 3), noisy(4, 4)
    weights = np.array([0.2, 0.5, 0.3]) if weighted else np.full(3, 1 / 3)
    value = metrics.generalized_energy_distance(samples, readers, 10 * weights if weighted else None)
    assert value == pytest.approx(ged_by_definition(samples, readers, weights))
    assert 0 < value < 2


def test_ged_of_known_sets():
    a, b = squares(4, 8)
    # IoU 16 / 64. One sample, one reader: 2 d.
    assert metrics.generalized_energy_distance(a[None], b[None]) == pytest.approx(2 * 0.75)
    readers = np.stack([a, b])
    assert metrics.generalized_energy_distance(readers, readers) == pytest.approx(0)
    # One sample that equals a reader: 2 * d / 2 - d / 2.
    assert metrics.generalized_energy_distance(a[None], readers) == pytest.approx(0.75 / 2)
    # Weights that match the readers' frequencies are perfect: three of four readers drew `a`.
    four = np.stack([a, a, a, b])
    assert metrics.generalized_energy_distance(readers, four, [3, 1]) == pytest.approx(0)
    assert metrics.generalized_energy_distance(readers, four) > 0.05
    empty = np.zeros((2, 24, 24), bool)
    assert metrics.generalized_energy_distance(empty, empty) == 0.0
    assert metrics.generalized_energy_distance(empty[:1], b[None]) == pytest.approx(2.0)


def test_set_measures_do_not_depend_on_order():
    samples, readers = noisy(3, 5), noisy(4, 6)
    for measure in (metrics.generalized_energy_distance, metrics.dmax, metrics.hungarian_iou):
        assert measure(samples[::-1], readers[[2, 0, 3, 1]]) == pytest.approx(measure(samples, readers))
        # Repeating a whole set changes nothing.
        assert measure(np.tile(samples, (2, 1, 1)), readers) == pytest.approx(measure(samples, readers))


def test_dmax_takes_the_best_sample_for_each_reader():
    samples, readers = squares(4, 8), squares(4, 6, 8)
    best = max(metrics.dice(s, readers[1]) for s in samples)
    assert metrics.dmax(samples, readers) == pytest.approx((1 + best + 1) / 3)
    assert metrics.dmax(samples[:1], readers) < metrics.dmax(samples, readers)
    assert metrics.dmax(readers, samples) == 1.0


def test_hungarian_iou_is_the_best_assignment():
    a, b = squares(4, 8)
    # Two samples, each equal to one reader, in the other order.
    assert metrics.hungarian_iou(np.stack([b, a]), np.stack([a, b])) == 1.0
    # A greedy choice would give both readers the sample that fits both best; an assignment can't.
    samples, readers = squares(6, 12), squares(6, 7)
    wanted = (1 + metrics.iou(samples[1], readers[1])) / 2
    assert metrics.hungarian_iou(samples, readers) == pytest.approx(wanted)
    for seed, (s, r) in enumerate([(3, 3), (3, 2), (1, 4), (2, 4)]):
        samples, readers = noisy(s, seed), noisy(r, seed + 50)
        size = math.lcm(s, r)
        matrix = np.tile(metrics.pairwise_iou(samples, readers), (size // s, size // r))
        best = max(matrix[range(size), order].mean() for order in itertools.permutations(range(size)))
        assert metrics.hungarian_iou(samples, readers) == pytest.approx(best)


def test_sets_are_checked():
    with pytest.raises(MetricError, match="samples and readers of different shapes"):
        metrics.dmax(np.ones((2, 4, 4)), np.ones((2, 4, 5)))
    with pytest.raises(MetricError, match="readers"):
        metrics.dmax(np.ones((2, 4, 4)), np.ones((0, 4, 4)))
    for bad in ([1.0], [-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]):
        with pytest.raises(MetricError, match="weights"):
            metrics.generalized_energy_distance(np.ones((2, 4)), np.ones((2, 4)), bad)


# -- intervals and probabilities


def test_interval_coverage():
    assert metrics.interval_coverage([1, 2, 3, 4], 2, 3) == 0.5
    assert metrics.interval_coverage([5.0], 5, 5) == 1.0
    with pytest.raises(MetricError, match="lower end"):
        metrics.interval_coverage([1.0], 3, 2)
    with pytest.raises(MetricError, match="empty"):
        metrics.interval_coverage([], 0, 1)


def test_calibration_error():
    p, t = np.array([0.1, 0.12, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    # Two bins of ten: |0.11 - 0.5| and |0.975 - 0.5|, two pixels each.
    assert metrics.expected_calibration_error(p, t, 10) == pytest.approx((0.39 + 0.475) / 2)
    assert metrics.expected_calibration_error(p, t, 10, mask=[1, 1, 0, 0]) == pytest.approx(0.39)
    # 1.0 belongs to the last bin; a map that equals the readers' mean is calibrated.
    assert metrics.expected_calibration_error(np.ones(3), np.ones(3)) == 0.0
    soft = noisy(4, 8).mean(0)
    assert metrics.expected_calibration_error(soft, soft) == pytest.approx(0, abs=1e-15)
    # Draws from the stated probability are calibrated but for noise; overconfidence isn't.
    rng = np.random.default_rng(0)
    stated = rng.random(200_000)
    drawn = rng.random(200_000) < stated
    assert metrics.expected_calibration_error(stated, drawn) < 0.01
    assert metrics.expected_calibration_error(stated > 0.5, drawn) == pytest.approx(0.25, abs=0.01)
    for bad in ({"mask": np.zeros(4)}, {"mask": np.ones(3)}, {"bins": 0}):
        with pytest.raises(MetricError):
            metrics.expected_calibration_error(p, t, **bad)


def test_brier_score():
    readers = noisy(4, 9)
    p = np.random.default_rng(1).random(readers.shape[1:])
    mean = readers.mean(0)
    each = np.mean([metrics.brier_score(p, r) for r in readers])
    assert metrics.brier_score(p, mean) == pytest.approx(each - (mean * (1 - mean)).mean())
    assert metrics.brier_score(mean, mean) == 0.0


# -- one reader against the others


def test_one_against_others():
    readers = noisy(4, 10)
    a, b, c, d = readers
    assert metrics.one_against_others(readers, metrics.dice, "first") == pytest.approx(
        np.mean([metrics.dice(x, a) for x in (b, c, d)])
    )
    pairs = [metrics.dice(x, y) for x, y in itertools.combinations(readers, 2)]
    assert metrics.one_against_others(readers, metrics.dice, "pairwise") == pytest.approx(np.mean(pairs))
    # At least half of three others is two of them.
    majority = [metrics.dice(readers[i], np.delete(readers, i, 0).sum(0) >= 2) for i in range(4)]
    assert metrics.one_against_others(readers, metrics.dice) == pytest.approx(np.mean(majority))
    two = readers[:2]
    values = {metrics.one_against_others(two, metrics.iou, mode) for mode in ("first", "consensus", "pairwise")}
    assert values == {metrics.iou(a, b)}
    assert (metrics.consensus(readers) == (readers.sum(0) >= 2)).all()
    with pytest.raises(MetricError, match="at least two"):
        metrics.one_against_others(readers[:1], metrics.dice)
    with pytest.raises(MetricError, match="mode 'best'"):
        metrics.one_against_others(readers, metrics.dice, "best")


ENDS = ("label1", "consensus")


@pytest.mark.published("lidc-nodules")
def test_human_agreement_on_real_nodules(published):
    """Readers of real nodules agree as the data's description says: pairwise Dice 0.811 on the largest slice."""
    folder = published / "lidc-nodules"
    with open(folder / "nodules.csv", newline="", encoding="utf-8") as file:
        names = {row["nodule_id"] for row in list(csv.DictReader(file))[::10]}
    values = []
    for nodule in load_folder(folder, nodules=names, progress=False):
        readers = nodule.readers[:, int(nodule.row["largest_consensus_slice"])]
        values.append(metrics.one_against_others(readers, metrics.dice, "pairwise"))
        row = metrics.score_human(readers, nodule.spacing[1:])
        unbounded = {f"{name}_{end}" for name in ("con", "hce", "hce64", "hd", "assd", "rvd") for end in ENDS}
        assert all(0 <= value <= 1 for name, value in row.items() if name not in unbounded)
    assert np.mean(values) == pytest.approx(0.811, abs=0.02)


# -- rows


def test_row_of_a_perfect_model():
    readers = squares(8, 10, 12)
    maps = {"final": readers.mean(0), "union": readers.any(0), "intersection": readers.all(0)}
    row = metrics.score_nodule(readers, maps, spacing_mm=(0.7, 0.7))
    for name in ("dsc_consensus", "iou_consensus", "nsd1px_consensus", "nsd1mm_consensus", "hc_dice", "union_dice"):
        assert row[name] == 1.0
    for name in ("dmax", "hm_iou", "soft_dice_mean", "coverage", "width_ratio"):
        assert row[name] == pytest.approx(1.0)
    for name in ("ged", "ece", "brier"):
        assert row[name] == pytest.approx(0.0, abs=1e-12)
    assert row["dsc_label1"] == pytest.approx(2 * 64 / (64 + 100))
    # The final square is two pixels wider than the first reader's on two sides: 1.4 mm, and at 0.35 mm within 1 mm.
    assert row["nsd1px_label1"] < 1
    assert row["nsd1mm_label1"] < metrics.score_nodule(readers, maps, spacing_mm=(0.35, 0.35))["nsd1mm_label1"] == 1.0
    assert all(type(value) is float for value in row.values())


def test_row_of_a_single_map():
    readers = noisy(3, 12)
    final = np.random.default_rng(2).random(readers.shape[1:])
    row = metrics.score_nodule(readers, {"final": final})
    assert not {"hc_dice", "union_dice", "coverage", "width_ratio"} & set(row)
    mask = final >= 0.5
    assert row["dsc_label1"] == metrics.dice(mask, readers[0])
    assert row["ged"] == pytest.approx(metrics.generalized_energy_distance(mask[None], readers))
    assert row["hm_iou"] == pytest.approx(np.mean([metrics.iou(mask, r) for r in readers]))
    assert row["ece"] == metrics.expected_calibration_error(final, readers.mean(0))


def test_row_with_thresholds_and_nesting():
    readers = squares(6, 10)
    final, union, intersection = squares(8, 9, 10) * 0.6
    maps = {"final": final, "union": union, "intersection": intersection}
    row = metrics.score_nodule(readers, maps, {"union": 0.7})
    # The union map is empty at 0.7, HC is wider than final: areas are of the nested masks, 64 and 64.
    assert row["union_dice"] == 0.0
    assert row["hc_dice"] == pytest.approx(metrics.dice(intersection > 0, readers.all(0)))
    assert row["coverage"] == 0.0
    assert row["width_ratio"] == 0.0
    wide = metrics.score_nodule(readers, maps)
    assert wide["width_ratio"] == pytest.approx((81 - 64) / (100 - 36))
    assert np.isnan(metrics.score_nodule(squares(6, 6), maps)["width_ratio"])
    assert metrics.score_nodule(readers, maps, {"final": 0.61})["dsc_label1"] == 0.0


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "`final` is missing"),
        ({"final": np.zeros((24, 24)), "union": np.zeros((24, 24))}, "come together"),
        ({"final": np.zeros((24, 23))}, "map final: shape"),
        ({"final": np.full((24, 24), 1.1)}, "outside"),
        ({"final": np.full((24, 24), np.nan)}, "not finite"),
    ],
)
def test_rows_refuse(maps, message):
    with pytest.raises(MetricError, match=message):
        metrics.score_nodule(squares(6, 8), maps)
    with pytest.raises(MetricError, match="rows, columns"):
        metrics.score_nodule(np.ones((2, 3, 24, 24)), maps)


def test_human_row():
    readers = noisy(4, 14)
    row = metrics.score_human(readers, (0.7, 0.7))
    model = metrics.score_nodule(readers, {"final": readers[0].astype(float)}, spacing_mm=(0.7, 0.7))
    assert set(row) - {"coverage"} < set(model)
    assert not {"ged", "dmax", "hm_iou", "ece", "hc_dice", "width_ratio"} & set(row)
    assert row["dsc_label1"] == metrics.one_against_others(readers, metrics.dice, "first")
    assert row["dsc_consensus"] == metrics.one_against_others(readers, metrics.dice, "consensus")
    nsd = [metrics.normalized_surface_dice(r, readers[0], 1, (0.7, 0.7)) for r in readers[1:]]
    assert row["nsd1mm_label1"] == pytest.approx(np.mean(nsd))
    assert "coverage" not in metrics.score_human(readers[:2])
    same = metrics.score_human(np.repeat(readers[:1], 3, 0))
    errors = {"brier"} | {
        f"{name}_{end}" for name in ("hce", "hce64", "mae", "hd", "assd", "rvd", "missed") for end in ENDS
    }
    assert all(value == (0.0 if name in errors else 1.0) for name, value in same.items())


# -- statistics


def test_one_patient_gives_no_interval():
    a, b = np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.7, 0.6])
    result = metrics.paired_test(a, b, groups=["one"] * 3)
    assert (result.groups, result.low, result.high) == (1, -np.inf, np.inf)
    assert np.isfinite(metrics.paired_test(a, b, groups=["one", "one", "two"]).low)


def test_paired_test_of_known_differences():
    rng = np.random.default_rng(0)
    b = rng.normal(0.8, 0.05, 60)
    a = b + rng.normal(0.02, 0.04, 60)
    result = metrics.paired_test(a, b)
    assert result.n == result.groups == 60
    assert result.mean_difference == pytest.approx((a - b).mean())
    assert result.t_p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert result.wilcoxon_p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert result.dz == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    # The interval is near the one of the t distribution.
    interval = stats.ttest_rel(a, b).confidence_interval()
    assert result.low == pytest.approx(interval.low, abs=0.002)
    assert result.high == pytest.approx(interval.high, abs=0.002)
    assert metrics.paired_test(a, b) == result
    assert metrics.paired_test(a, b, seed=1) != result
    other = metrics.paired_test(b, a)
    assert (other.mean_difference, other.dz) == pytest.approx((-result.mean_difference, -result.dz))
    assert other.rank_biserial == pytest.approx(-result.rank_biserial)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(3)
    patients = np.repeat([f"P{i}" for i in range(30)], 8)
    effect = np.repeat(rng.normal(0.0, 0.1, 30), 8) + rng.normal(0, 0.01, 240)
    alone, grouped = (metrics.paired_test(effect, np.zeros(240), g) for g in (None, patients))
    assert grouped.groups == 30
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    order = rng.permutation(240)
    shuffled = metrics.paired_test(effect[order], np.zeros(240), patients[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((grouped.low, grouped.high))


def test_rank_biserial_and_degenerate_pairs():
    # Ranks 1, 2 favorable and 3 not: (3 - 3) / 6.
    assert metrics.paired_test([1, 2, 0], [0, 0, 3]).rank_biserial == 0.0
    assert metrics.paired_test([1, 2, 3], [0, 0, 0]).rank_biserial == 1.0
    same = metrics.paired_test([0.5, 0.7, 0.9], [0.5, 0.7, 0.9])
    assert (same.mean_difference, same.low, same.high, same.t_p, same.wilcoxon_p) == (0, 0, 0, 1, 1)
    assert same.dz == same.rank_biserial == 0
    constant = metrics.paired_test([0.6, 0.8, 1.0], [0.5, 0.7, 0.9])
    assert constant.dz == np.inf
    assert constant.t_p == 0.0
    with_gap = metrics.paired_test([1.0, np.nan, 2.0, 4.0], [0.0, 1.0, 1.0, np.nan])
    assert with_gap.n == 2
    for a, b in (([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([np.nan, 1.0], [1.0, 2.0])):
        with pytest.raises(MetricError):
            metrics.paired_test(a, b)
    with pytest.raises(MetricError, match="groups"):
        metrics.paired_test([1.0, 2.0], [0.0, 0.0], ["a"])


def test_sd_of_the_papers():
    """Table I: UGS-Net's five folds are stated as 87.65 with sd 0.57, which takes n in the denominator."""
    folds = [87.49, 87.72, 88.66, 86.93, 87.44]
    assert np.mean(folds) == pytest.approx(87.65, abs=0.005)
    assert metrics.population_sd(folds) == pytest.approx(0.57, abs=0.005)
    attention = [85.99, 86.11, 87.76, 86.50, 86.99]
    assert metrics.paired_test(folds, attention).t_p == pytest.approx(0.018, abs=0.0006)


def test_distribution_distance():
    rng = np.random.default_rng(0)
    x = rng.normal(-300, 100, 4000)
    shifted = metrics.distribution_distance(x, x + 50)
    assert shifted.wasserstein == pytest.approx(50)
    assert shifted.ks == pytest.approx(stats.ks_2samp(x, x + 50).statistic)
    assert shifted.ks_p < 1e-10
    same = metrics.distribution_distance(x.reshape(40, 100), x)
    assert (same.ks, same.ks_p, same.wasserstein) == (0, 1, 0)
    with pytest.raises(MetricError, match="second sample"):
        metrics.distribution_distance(x, [])
