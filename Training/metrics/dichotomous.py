"""The measures of the IFE paper for one image (IFE 2023, section on evaluation), and the forms its released code has.

Masks are arrays of any dimension, human correction effort and `score_image` take images. What two empty masks and one
empty mask give is stated for each; nothing is hidden in a finite number that isn't one. `*_released` repeat the
released code's quirks under their own name, to compare with its figures only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, as_mask, mask_pair
from .correction_effort import SIDE, human_correction_effort, human_correction_effort_released
from .overlap import dice, iou
from .surface import average_symmetric_surface_distance, hausdorff_distance, surface_distances

BETA_SQUARED = 0.3


def conformity(predicted: ArrayLike, truth: ArrayLike) -> float:
    """1 - (FP + FN) / TP = (3 D - 2) / D with the Dice coefficient D (Chang et al., NeuroImage 2009).

    1 for equal masks, 0 at D = 2/3, and without a lower bound: minus infinity for masks without a common voxel (one of
    them empty, say). Two empty masks agree (1.0). Raises MetricError for differing shapes.
    """
    return _conformity(dice(predicted, truth))


def _conformity(overlap: float) -> float:
    return (3 * overlap - 2) / overlap if overlap else -np.inf


def conformity_released(predicted: ArrayLike, truth: ArrayLike) -> float:
    """`conformity`, but 0 for a Dice of at most 0.01, so that a miss ranks above a Dice of 0.5; two empty masks: 0."""
    predicted, truth = mask_pair(predicted, truth)
    overlap = dice(predicted, truth) if predicted.any() else 0.0
    return _conformity(overlap) if overlap > 0.01 else 0.0


def f_measure(predicted: ArrayLike, truth: ArrayLike, beta_squared: float = BETA_SQUARED) -> float:
    """(1 + b) P R / (b P + R) of precision P and recall R, b = beta squared (Achanta et al., CVPR 2009: 0.3).

    For masks of a fixed threshold; beta_squared 1 is Dice. Two empty masks agree (1.0), one empty mask gives 0.0.
    Raises MetricError for differing shapes.
    """
    predicted, truth = mask_pair(predicted, truth)
    # In counts, so that neither share needs a denominator of its own.
    weighed = beta_squared * np.count_nonzero(truth) + np.count_nonzero(predicted)
    if not weighed:
        return 1.0
    return float(min((1 + beta_squared) * np.count_nonzero(predicted & truth) / weighed, 1.0))


def f_measure_released(predicted: ArrayLike, truth: ArrayLike) -> float:
    """`f_measure` with 1e-4 in the denominator: 0.99992 for equal masks, 0 for two empty ones."""
    predicted, truth = mask_pair(predicted, truth)
    hits = np.count_nonzero(predicted & truth)
    if not hits:
        return 0.0
    precision, recall = hits / np.count_nonzero(predicted), hits / np.count_nonzero(truth)
    return (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall + 1e-4)


def mean_absolute_error(probability: ArrayLike, truth: ArrayLike) -> float:
    """Mean |p - g| of a probability map in [0, 1] (or a mask) and a mask of its shape, a share in [0, 1].

    The IFE paper prints it in %. Empty masks need no convention; an array without voxels gives 0.0. Raises MetricError
    for differing shapes and for values outside [0, 1].
    """
    probability, truth = _map_and_mask(probability, truth)
    if not truth.size:
        return 0.0
    # Sum of p outside of the mask and of 1 - p inside, without an array of differences.
    inside = probability[truth]
    return float(max(probability.sum() + len(inside) - 2 * inside.sum(), 0.0) / truth.size)


def mean_absolute_error_released(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean absolute error as the released code computes it: of 8-bit images, whose difference wraps around.

    The code subtracts unsigned bytes, 0 - 255 = 1: a missed pixel counts 1/255 of a wrong one. It is given the
    mask, so that is what should be given here; a map is rounded to 8 bits.
    """
    predicted, truth = _map_and_mask(predicted, truth)
    image = np.round(predicted * 255).astype(np.uint8)
    difference = image - truth.astype(np.uint8) * np.uint8(255)
    return float(difference.sum(dtype=np.int64) / (255.0 * truth.size + 1e-4))


def relative_volume_difference(predicted: ArrayLike, truth: ArrayLike) -> float:
    """| |P| / |G| - 1 |, without a sign; a share, which the IFE paper prints in %.

    Two empty masks: 0.0; an empty truth alone: infinite (the released code stops there); an empty prediction: 1.0.
    """
    predicted, truth = mask_pair(predicted, truth)
    ours, wanted = np.count_nonzero(predicted), np.count_nonzero(truth)
    if not wanted:
        return np.inf if ours else 0.0
    return abs(ours / wanted - 1)


def hausdorff_distance_released(predicted: ArrayLike, truth: ArrayLike) -> float:
    """`hausdorff_distance` in voxels, but 0, a perfect value, where a mask is empty."""
    distance = hausdorff_distance(predicted, truth)
    return distance if np.isfinite(distance) else 0.0


def average_surface_distance_released(predicted: ArrayLike, truth: ArrayLike) -> float:
    """What the released code calls ASD: mean of the two directed mean distances in voxels; 0 where a mask is empty."""
    distance = average_symmetric_surface_distance(predicted, truth, pooled=False)
    return distance if np.isfinite(distance) else 0.0


def minmax_cut(probability: ArrayLike, threshold: float = 0.5) -> np.ndarray:
    """The released inference's mask: the map stretched to [0, 1] by its own minimum and maximum, then thresholded.

    So something is found in every image, and the threshold floats; only a constant map gives an empty mask.
    """
    probability = np.asarray(probability, np.float64)
    if not probability.size:
        return np.zeros(probability.shape, bool)
    low, high = probability.min(), probability.max()
    return (probability - low) / (high - low + 1e-8) >= threshold


def score_image(
    probability: ArrayLike,
    mask: ArrayLike,
    spacing: float | Sequence[float] | None = None,
    threshold: float = 0.5,
    released: bool = True,
) -> dict[str, float]:
    """All measures of one image: probability map and true mask, both (rows, columns) -> {name: value}.

    Of the mask at `threshold` (in where p >= threshold): `con`, `dsc`, `jc` (intersection over union), `f`, `hce`
    (as large as the image is), `hce64` (resized to 64 x 64), `hd` (maximum) and `assd` in pixels or in the unit of
    `spacing` (rows, columns), `rvd`; of the map itself `mae`. Shares, not per cent. Infinite where the measure has no
    finite value: `con` without overlap, `hd` and `assd` with one mask empty, `rvd` for an empty truth.
    With `released` the same names + `_released`: of the mask of `minmax_cut`, in the released code's forms, in
    pixels; NaN where that code stops (`jc` of two empty masks, `rvd` of an empty truth).
    Raises MetricError for differing shapes, other than two axes, and values outside [0, 1].
    """
    probability, mask = _map_and_mask(probability, mask)
    if mask.ndim != 2:
        raise MetricError(f"mask of shape {mask.shape}; an image (rows, columns) is wanted")
    row = _of_masks(probability >= threshold, mask, spacing) | {"mae": mean_absolute_error(probability, mask)}
    if released:
        cut = minmax_cut(probability)
        row |= {f"{name}_released": value for name, value in _of_masks_released(cut, mask).items()}
    return {name: float(value) for name, value in row.items()}


def _of_masks(predicted: np.ndarray, mask: np.ndarray, spacing: float | Sequence[float] | None) -> dict[str, float]:
    overlap, effort = dice(predicted, mask), human_correction_effort(predicted, mask)
    forward, backward = surface_distances(predicted, mask, spacing)
    if len(forward) and len(backward):
        farthest = max(forward.max(), backward.max())
        mean = (forward.sum() + backward.sum()) / (len(forward) + len(backward))
    else:
        farthest = mean = np.inf if len(forward) or len(backward) else 0.0
    small = effort if mask.shape == (SIDE, SIDE) else human_correction_effort(predicted, mask, size=SIDE)
    return {
        "con": _conformity(overlap),
        "dsc": overlap,
        "jc": iou(predicted, mask),
        "f": f_measure(predicted, mask),
        "hce": effort,
        "hce64": small,
        "hd": farthest,
        "assd": mean,
        "rvd": relative_volume_difference(predicted, mask),
    }


def _of_masks_released(predicted: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    nothing = not (predicted.any() or mask.any())
    return {
        "con": conformity_released(predicted, mask),
        "dsc": 0.0 if nothing else dice(predicted, mask),
        "jc": np.nan if nothing else iou(predicted, mask),
        "f": f_measure_released(predicted, mask),
        "hce": human_correction_effort_released(predicted, mask),
        "mae": mean_absolute_error_released(predicted, mask),
        "hd": hausdorff_distance_released(predicted, mask),
        "assd": average_surface_distance_released(predicted, mask),
        "rvd": relative_volume_difference(predicted, mask) if mask.any() else np.nan,
    }


def _map_and_mask(probability: ArrayLike, mask: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probability, mask = np.asarray(probability, np.float64), as_mask(mask, "mask")
    if probability.shape != mask.shape:
        raise MetricError(f"map and mask of different shapes: {probability.shape} and {mask.shape}")
    # Written so that a NaN fails as well.
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise MetricError("map: values outside [0, 1] or not finite")
    return probability, mask
