"""Comparisons over nodules: paired tests with effect sizes, and distances between two distributions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .checks import MetricError

# Resamples drawn at once, to bound memory.
BOOTSTRAP_CHUNK = 500


@dataclass(frozen=True)
class PairedTest:
    """First minus second, per nodule.

    n: pairs with two finite values. mean_difference with its 95 % bootstrap interval [low, high]. t_p, wilcoxon_p:
    two-sided p-values of the paired t test and of Wilcoxon's signed-rank test; both take nodules as independent, the
    interval doesn't where groups were given. dz: Cohen's d of the differences (mean / sample sd). rank_biserial:
    (favorable - unfavorable rank sum) / total rank sum, in [-1, 1] (Kerby 2014). groups: number of clusters.
    """

    n: int
    mean_difference: float
    low: float
    high: float
    t_p: float
    wilcoxon_p: float
    dz: float
    rank_biserial: float
    groups: int


@dataclass(frozen=True)
class DistributionDistance:
    """Two-sample Kolmogorov-Smirnov statistic and p-value, and Wasserstein-1 distance in the values' unit (HU)."""

    ks: float
    ks_p: float
    wasserstein: float


def cluster_means(values: np.ndarray, cluster: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Mean of each resample; whole clusters are drawn with replacement."""
    sums, sizes = np.bincount(cluster, weights=values), np.bincount(cluster)
    rng = np.random.default_rng(seed)
    means = []
    for begin in range(0, resamples, BOOTSTRAP_CHUNK):
        drawn = rng.integers(0, len(sums), (min(BOOTSTRAP_CHUNK, resamples - begin), len(sums)))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def mean_interval(
    values: ArrayLike, groups: Sequence[str] | Sequence[int] | np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of values (N,) that draws whole groups (N,), such as patients.

    A single group gives one without ends (-inf, inf): drawn again and again it tells nothing about others.
    """
    cluster = np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    if not cluster.any():
        return -np.inf, np.inf
    low, high = np.percentile(cluster_means(np.asarray(values, np.float64), cluster, resamples, seed), [2.5, 97.5])
    return float(low), float(high)


def paired_test(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[str] | Sequence[int] | np.ndarray | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Compare two methods on the same nodules: a, b (N,) of one metric, groups (N,) patient of each nodule or None.

    Pairs with a value that isn't finite are left out (`n` tells). The percentile bootstrap of the mean difference draws
    whole groups, because nodules of one patient aren't independent; the same seed gives the same interval, and a single
    group gives one without ends (-inf, inf). Equal values everywhere give p-values of 1 and effect sizes of 0. Raises
    MetricError for differing lengths or fewer than two usable pairs.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise MetricError(f"paired values of shapes {a.shape} and {b.shape}; two lists of one length are wanted")
    if groups is not None and len(groups) != len(a):
        raise MetricError(f"groups: {len(groups)} for {len(a)} pairs")
    usable = np.isfinite(a) & np.isfinite(b)
    difference = (a - b)[usable]
    n = len(difference)
    if n < 2:
        raise MetricError(f"paired values: {n} usable pairs; at least two are wanted")
    labels = np.arange(n) if groups is None else np.asarray(groups)[usable]
    low, high = mean_interval(difference, labels, resamples, seed)
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    if not difference.any():
        t_p = wilcoxon_p = 1.0
        dz = biserial = 0.0
    else:
        nonzero = difference[difference != 0]
        ranks = stats.rankdata(np.abs(nonzero))
        biserial = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
        wilcoxon_p = float(stats.wilcoxon(difference).pvalue)
        # Differences that are all the same (but for rounding) have no spread: a certain effect of infinite size.
        constant = sd <= 1e-12 * abs(mean)
        t_p = 0.0 if constant else float(stats.ttest_1samp(difference, 0.0).pvalue)
        dz = float(np.copysign(np.inf, mean)) if constant else mean / sd
    return PairedTest(n, mean, low, high, t_p, wilcoxon_p, dz, biserial, len(np.unique(labels)))


def population_sd(values: ArrayLike) -> float:
    """Standard deviation with n in the denominator (ddof = 0), as the ± of the UGS-Net papers over five folds."""
    return float(np.std(np.asarray(values, np.float64)))


def distribution_distance(x: ArrayLike, y: ArrayLike) -> DistributionDistance:
    """How far apart two samples of values are (HU inside real and predicted HC or LC). Raises MetricError if one is
    empty or not finite. Pixels of one nodule aren't independent: the p-value says less than the two distances."""
    x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    for values, name in ((x, "first"), (y, "second")):
        if not values.size or not np.isfinite(values).all():
            raise MetricError(f"{name} sample: empty or with values that aren't finite")
    test = stats.ks_2samp(x, y)
    return DistributionDistance(float(test.statistic), float(test.pvalue), float(stats.wasserstein_distance(x, y)))
