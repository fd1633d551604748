"""Surface metrics of two masks of any dimension: normalized surface Dice, Hausdorff distance, mean surface distance.

Borders are voxels (mask minus erosion with connectivity 1, see `neighbors.BorderPair`), every one with the same weight,
as in medpy and in MONAI without subvoxels. DeepMind's surface-distance weights surface elements by area instead:
its values are close, not equal.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, as_mask, mask_pair
from .neighbors import ROUNDING, TOLERANCE_OFFSETS, BorderPair, ball_size, near_radius, offsets_within


def _spacing(spacing: float | Sequence[float] | None, dimensions: int) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * dimensions
    values = tuple(float(s) for s in np.atleast_1d(spacing))
    if len(values) == 1:
        values *= dimensions
    if len(values) != dimensions or not all(0 < s < np.inf for s in values):
        raise MetricError(f"spacing {values}: {dimensions} positive numbers are wanted, one an axis")
    return values


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = mask_pair(a, b)
    if not a.ndim:
        raise MetricError("masks without an axis have no surface")
    return a, b


def _counts_within(
    pair: BorderPair, tolerance: float, spacing: tuple[float, ...], offsets: tuple[np.ndarray, np.ndarray] | None
) -> list[int]:
    """Border voxels of either mask that have a border voxel of the other within the tolerance."""
    counts = []
    for source in (0, 1):
        if offsets is not None:
            counts.append(len(pair.near(source, *offsets)[0]))
        else:
            # The bound of a KD-tree's query is exclusive, a tolerance isn't.
            bound = np.nextafter(tolerance * ROUNDING, np.inf)
            counts.append(int(np.isfinite(pair.far(source, pair.points[source], spacing, bound)).sum()))
    return counts


def _tolerance_search(
    a: np.ndarray, b: np.ndarray, tolerance: float, spacing: tuple[float, ...], whole: bool = False
) -> tuple[BorderPair, list[int]]:
    if not 0 <= tolerance < np.inf:
        raise MetricError(f"tolerance {tolerance}: a finite number, zero or more, is wanted")
    offsets, margin = None, (1,) * a.ndim
    if ball_size(spacing, tolerance) <= TOLERANCE_OFFSETS:
        offsets = offsets_within(spacing, float(tolerance))
        margin = tuple(int(m) for m in np.maximum(1, np.abs(offsets[0]).max(0)))
    pair = BorderPair(a, b, margin, whole)
    if not (len(pair.points[0]) and len(pair.points[1])):
        return pair, [0, 0]
    return pair, _counts_within(pair, float(tolerance), spacing, offsets)


def normalized_surface_dice(
    a: ArrayLike, b: ArrayLike, tolerance: float, spacing: float | Sequence[float] | None = None
) -> float:
    """Share of both borders that lies within a tolerance of the other border (NSD) of one image, in [0, 1].

    (|{x in dA: d(x, dB) <= tolerance}| + |{y in dB: d(y, dA) <= tolerance}|) / (|dA| + |dB|), after Nikolov et al.,
    "Clinically applicable segmentation of head and neck anatomy", JMIR 2021. tolerance in pixels where `spacing` is
    None, else in the unit of `spacing` (mm, one number an axis in the arrays' own order). The image's outside is
    background: a mask that reaches the image's edge has border there. Two empty masks agree (1.0), one empty mask gives
    0.0. Raises MetricError for differing shapes, a bad spacing or tolerance.
    """
    a, b = _pair(a, b)
    pair, counts = _tolerance_search(a, b, tolerance, _spacing(spacing, a.ndim))
    total = len(pair.points[0]) + len(pair.points[1])
    return sum(counts) / total if total else 1.0


def nsd_released(prediction_batch: ArrayLike, target_batch: ArrayLike, tolerance: float = 1) -> float:
    """NSD as UGS-Net's released code computes it: one number for a batch (B, 1, H, W). For comparison only.

    The released code hands the batch as a 4D volume with unit spacing to a border search with connectivity 1. The
    channel axis of size 1 makes every foreground pixel border, and the image before and after in the batch are at
    distance 1. The share within tolerance is taken for each mask and the two shares are averaged (nnU-Net's form).
    So a prediction that is too wide by 2 pixels everywhere scores about 0.96, where `normalized_surface_dice` of each
    image gives 0. Where one batch has no foreground at all (the released code stops there) 0.0, where neither has 1.0.
    """
    a, b = as_mask(prediction_batch, "prediction batch"), as_mask(target_batch, "target batch")
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 1:
        raise MetricError(f"batches of shapes {a.shape} and {b.shape}; both must be (B, 1, H, W)")
    pair, counts = _tolerance_search(a[:, 0], b[:, 0], tolerance, (1.0,) * 3, whole=True)
    sizes = [len(points) for points in pair.points]
    if not all(sizes):
        return 0.0 if any(sizes) else 1.0
    return (counts[0] / sizes[0] + counts[1] / sizes[1]) / 2


def surface_distances(
    a: ArrayLike, b: ArrayLike, spacing: float | Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of every border voxel of `a` to the border of `b`, and of `b` to `a`: two float64 arrays, unordered.

    In voxels where `spacing` is None, else in its unit (mm). The border of an empty mask has no voxel, and every
    distance to it is infinite.
    """
    a, b = _pair(a, b)
    spacing = _spacing(spacing, a.ndim)
    offsets, steps = offsets_within(spacing, near_radius(spacing))
    margin = tuple(int(m) for m in np.maximum(1, np.abs(offsets).max(0)))
    pair = BorderPair(a, b, margin)
    out = []
    for source in (0, 1):
        if not len(pair.points[1 - source]):
            out.append(np.full(len(pair.points[source]), np.inf))
            continue
        found, left = pair.near(source, offsets, steps)
        out.append(np.concatenate((found, pair.far(source, left, spacing))) if len(left) else found)
    return out[0], out[1]


def _percentile(values: np.ndarray, percentile: float) -> float:
    """`numpy.percentile` (linear) of a list that isn't empty; that function's overhead would double the time."""
    position = percentile / 100 * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    return float(ordered[below] + (position - below) * (ordered[above] - ordered[below]))


def hausdorff_distance(
    a: ArrayLike, b: ArrayLike, spacing: float | Sequence[float] | None = None, percentile: float = 100
) -> float:
    """Hausdorff distance: the larger of both directed distances, as their maximum or a percentile (95: HD95).

    The percentile is taken in each direction and the larger one returned (as MONAI does; medpy's `hd95` pools both
    directions). In voxels or the unit of `spacing`. Two empty masks: 0.0; one empty mask: infinite.
    """
    if not 0 <= percentile <= 100:
        raise MetricError(f"percentile {percentile}: a number from 0 to 100 is wanted")
    forward, backward = surface_distances(a, b, spacing)
    if not (len(forward) and len(backward)):
        return np.inf if len(forward) or len(backward) else 0.0
    if percentile == 100:
        return float(max(forward.max(), backward.max()))
    return max(_percentile(forward, percentile), _percentile(backward, percentile))


def average_symmetric_surface_distance(
    a: ArrayLike, b: ArrayLike, spacing: float | Sequence[float] | None = None, pooled: bool = True
) -> float:
    """Mean distance between two borders (ASSD), in voxels or the unit of `spacing`.

    pooled: the mean over the voxels of both borders (Heimann et al., IEEE TMI 2009; MONAI and medpy's `assd`), else the
    mean of the two directed means (what IFE's code reports as ASD). Two empty masks: 0.0; one empty mask: infinite.
    """
    forward, backward = surface_distances(a, b, spacing)
    if not (len(forward) and len(backward)):
        return np.inf if len(forward) or len(backward) else 0.0
    if pooled:
        return float((forward.sum() + backward.sum()) / (len(forward) + len(backward)))
    return float((forward.mean() + backward.mean()) / 2)
