"""How a set of predicted masks (or a probability map) agrees with the masks of several readers.

Sets are arrays (number, ...) of masks of one shape, in any dimension.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from .checks import MetricError, as_mask, map_pair, mask_set


def _sets(samples: ArrayLike, readers: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    samples, readers = mask_set(samples, "samples"), mask_set(readers, "readers")
    if samples.shape[1:] != readers.shape[1:]:
        raise MetricError(f"samples and readers of different shapes: {samples.shape[1:]} and {readers.shape[1:]}")
    return samples.reshape(len(samples), -1), readers.reshape(len(readers), -1)


def _overlaps(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|A and B| and |A| + |B| of every pair of flat masks (N, voxels) and (M, voxels): two float64 arrays (N, M)."""
    # float32 counts exactly up to 2^24 foreground voxels, and its matrix product is twice as fast.
    kind = np.float32 if first.shape[1] < 1 << 24 else np.float64
    common = (first.astype(kind) @ second.T.astype(kind)).astype(np.float64)
    return common, np.count_nonzero(first, 1)[:, None] + np.count_nonzero(second, 1)[None].astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The ratio of each pair; two empty masks agree (1.0)."""
    return np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator > 0)


def pairwise_iou(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """IoU of every mask of one set with every mask of another: (N, M) float64; two empty masks agree (1.0)."""
    common, total = _overlaps(*_sets(first, second))
    return _ratio(common, total - common)


def pairwise_dice(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Dice of every mask of one set with every mask of another: (N, M) float64; two empty masks agree (1.0)."""
    common, total = _overlaps(*_sets(first, second))
    return _ratio(2 * common, total)


def _weights(weights: ArrayLike | None, number: int) -> np.ndarray:
    if weights is None:
        return np.full(number, 1 / number)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (number,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise MetricError(f"weights of shape {weights.shape}: {number} numbers, none negative, with a sum above zero")
    return weights / weights.sum()


def generalized_energy_distance(samples: ArrayLike, readers: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Squared generalized energy distance (GED) between predicted masks (S, ...) and readers (R, ...); 0 is best.

    2 E[d(S, Y)] - E[d(S, S')] - E[d(Y, Y')] with d = 1 - IoU and d = 0 for two empty masks (Kohl et al., "A
    probabilistic U-Net", NeurIPS 2018, equation 4). Expectations run over all pairs, a mask with itself included, as
    published figures do; so GED never falls below 0, and depends on the number of samples and readers. weights: of
    the samples (normalized here), uniform by default; readers weigh the same.
    """
    samples, readers = _sets(samples, readers)
    w, v = _weights(weights, len(samples)), _weights(None, len(readers))
    both = np.concatenate((samples, readers))
    common, total = _overlaps(both, both)
    distance = 1 - _ratio(common, total - common)
    # The three expectations are one quadratic form in (w, -v): -(w, -v) D (w, -v).
    signed = np.concatenate((w, -v))
    return float(max(0.0, -signed @ distance @ signed))


def dmax(samples: ArrayLike, readers: ArrayLike) -> float:
    """D_max: for every reader the Dice of the sample that fits best, mean over readers; 1 is best.

    Rahman et al. (CIMD), CVPR 2023, "maximum Dice matching"; the D_max of Wu et al. (D-Persona), CVPR 2024, as that
    paper's code computes it for its test tables. It can only grow with the number of samples.
    """
    return float(pairwise_dice(samples, readers).max(0).mean())


def hungarian_iou(samples: ArrayLike, readers: ArrayLike) -> float:
    """HM-IoU: mean IoU of the best one-to-one assignment of samples to readers; 1 is best.

    Each set is repeated until both have as many masks as the least common multiple of their sizes, so every sample and
    every reader keeps its weight whatever the counts (Kohl et al., hierarchical probabilistic U-Net, arXiv 1905.13077).
    """
    matrix = pairwise_iou(samples, readers)
    size = math.lcm(*matrix.shape)
    matrix = np.tile(matrix, (size // matrix.shape[0], size // matrix.shape[1]))
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].mean())


def interval_coverage(volumes: ArrayLike, low: float, high: float) -> float:
    """Share of the readers' volumes (or areas) that lie within [low, high], both ends included."""
    volumes = np.asarray(volumes, np.float64)
    if not volumes.size:
        raise MetricError("volumes: empty; the coverage of no reader isn't defined")
    if not low <= high:
        raise MetricError(f"interval [{low}, {high}]: the lower end is above the upper one")
    return float(((volumes >= low) & (volumes <= high)).mean())


def expected_calibration_error(
    probability: ArrayLike, target: ArrayLike, bins: int = 15, mask: ArrayLike | None = None
) -> float:
    """Expected calibration error (ECE) of a foreground probability map, in [0, 1]; 0 is best.

    Pixels are sorted into `bins` equal intervals of probability [k / bins, (k + 1) / bins), the last one closed; ECE is
    the mean over bins of |mean probability - mean target|, weighted by the pixels in the bin (Guo et al., ICML 2017,
    in its binary form). target: a mask, or the mean of the readers' masks, in [0, 1]. mask: pixels that count; without
    it all do, and easy background makes the figure small. Raises MetricError for an empty selection.
    """
    p, t = map_pair(probability, target, ("probability", "target"))
    if bins < 1:
        raise MetricError(f"bins {bins}: at least one is wanted")
    if mask is not None:
        mask = as_mask(mask, "mask")
        if mask.shape != p.shape:
            raise MetricError(f"mask of shape {mask.shape} for maps of shape {p.shape}")
        p, t = p[mask], t[mask]
    if not p.size:
        raise MetricError("calibration: no pixel is selected")
    number = np.minimum((p.ravel() * bins).astype(np.intp), bins - 1)
    gap = np.bincount(number, weights=p.ravel() - t.ravel(), minlength=bins)
    return float(np.abs(gap).sum() / p.size)


def brier_score(probability: ArrayLike, target: ArrayLike) -> float:
    """Mean squared difference of a probability map and a target in [0, 1] (a mask or the readers' mean); 0 is best.

    Against the mean of the readers this is the Brier score averaged over readers (Brier 1950) minus the readers' own
    variance, which no map can lower.
    """
    p, t = map_pair(probability, target, ("probability", "target"))
    if not p.size:
        raise MetricError("probability: an empty map")
    return float(np.mean((p - t) ** 2))
