"""Overlap of two masks (Dice, IoU) and of two soft maps, for arrays of any dimension. No argument is changed."""

import numpy as np
from numpy.typing import ArrayLike

from .checks import map_pair, mask_pair


def dice(a: ArrayLike, b: ArrayLike) -> float:
    """Dice similarity coefficient 2 |A and B| / (|A| + |B|) of two masks of one shape.

    Two empty masks agree (1.0); one empty mask against one that isn't gives 0.0. (UGS-Net's released metric returns
    NaN for two empty masks, which then spoils the mean over nodules.) Raises MetricError where shapes differ.
    """
    a, b = mask_pair(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union |A and B| / |A or B| (Jaccard index); empty masks as in `dice`."""
    a, b = mask_pair(a, b)
    common = np.count_nonzero(a & b)
    union = np.count_nonzero(a) + np.count_nonzero(b) - common
    return common / union if union else 1.0


def sensitivity(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of the truth that is predicted, TP / (TP + FN); an empty truth is all predicted (1.0)."""
    a, b = mask_pair(predicted, truth)
    total = np.count_nonzero(b)
    return np.count_nonzero(a & b) / total if total else 1.0


def positive_predictive_value(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of what is predicted that is true, TP / (TP + FP).

    Nothing predicted is 1.0 where there is nothing, and 0.0 otherwise.
    """
    a, b = mask_pair(predicted, truth)
    total = np.count_nonzero(a)
    if not total:
        return float(not b.any())
    return np.count_nonzero(a & b) / total


def soft_dice(probability: ArrayLike, target: ArrayLike) -> float:
    """Dice of two maps with values in [0, 1]: 2 sum(p t) / (sum(p^2) + sum(t^2)).

    The squares in the denominator (Milletari et al., V-Net, 3DV 2016, section 3) make identical maps score 1.0 even
    where they aren't binary; for masks the value is `dice`. Two maps of zeros agree (1.0). Raises MetricError for
    differing shapes and for values outside [0, 1].
    """
    p, t = map_pair(probability, target, ("probability", "target"))
    total = np.vdot(p, p) + np.vdot(t, t)
    return float(2 * np.vdot(p, t) / total) if total else 1.0
