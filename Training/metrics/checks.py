"""What every metric asks of its arrays; a violation is a `MetricError` with one line that names the argument."""

import numpy as np
from numpy.typing import ArrayLike


class MetricError(ValueError):
    """Arguments that a metric can't compare. The message is one line: which argument, and why."""


def as_mask(array: ArrayLike, name: str = "mask") -> np.ndarray:
    """A bool array without a copy where it is one already; every value other than 0 is foreground."""
    array = np.asarray(array)
    if array.dtype == bool:
        return array
    if not (np.issubdtype(array.dtype, np.number)):
        raise MetricError(f"{name}: {array.dtype} values; a mask holds bool or numbers")
    return array != 0


def mask_pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of one shape. Raises MetricError where the shapes differ (nothing is broadcast)."""
    a, b = as_mask(a, "first mask"), as_mask(b, "second mask")
    if a.shape != b.shape:
        raise MetricError(f"masks of different shapes: {a.shape} and {b.shape}")
    return a, b


def mask_set(masks: ArrayLike, name: str) -> np.ndarray:
    """A set of masks (N, ...) of one shape, N >= 1, as bool. Raises MetricError for another shape."""
    masks = as_mask(masks, name)
    if masks.ndim < 2 or not len(masks):
        raise MetricError(f"{name}: shape {masks.shape}; a set of masks is (number, ...) with at least one mask")
    return masks


def map_pair(first: ArrayLike, second: ArrayLike, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two maps of one shape as float64, every value within [0, 1]. Raises MetricError."""
    arrays = []
    for array, name in zip((first, second), names, strict=True):
        array = np.asarray(array, np.float64)
        # Written so that a NaN fails as well.
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise MetricError(f"{name}: values outside [0, 1] or not finite")
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise MetricError(f"{names[0]} and {names[1]} of different shapes: {arrays[0].shape} and {arrays[1].shape}")
    return arrays[0], arrays[1]
