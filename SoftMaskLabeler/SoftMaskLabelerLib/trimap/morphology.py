"""Dilation and erosion by a disc (a ball) of a radius in millimeters, on grids of any spacing.

A pixel is reached when its center lies within the radius of a mask pixel's center. The disc is laid down row by row,
which costs as many array operations as its rows and needs no distance map.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

# Radii are sums of decimal fractions: a radius of three pixels must reach the third.
_TOLERANCE = 1e-6


def bounding_box(mask: np.ndarray, margin: tuple[int, ...]) -> tuple[slice, ...]:
    """Slices around the mask's pixels, widened by `margin` pixels per axis within the array; the mask isn't empty."""
    rest, box = np.flatnonzero(mask), []
    for axis in range(mask.ndim - 1, -1, -1):
        length = mask.shape[axis]
        if axis:
            rest, along = np.divmod(rest, length)
            low, high = int(along.min()), int(along.max())
        else:
            low, high = int(rest[0]), int(rest[-1])
        box.append(slice(max(low - margin[axis], 0), min(high + margin[axis] + 1, length)))
    return tuple(box[::-1])


def dilate(mask: np.ndarray, radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Every pixel within `radius_mm` of the mask: bool (y, x) or (z, y, x); `spacing` in mm per axis."""
    if mask.ndim == 2:
        return _dilate_planes(mask, radius_mm, spacing)
    out = np.zeros_like(mask)
    for step in range(min(int(radius_mm / spacing[0] + _TOLERANCE) + 1, len(mask))):
        left = max(radius_mm**2 - (step * spacing[0]) ** 2, 0.0) ** 0.5
        planes = _dilate_planes(mask, left, spacing[1:])
        out[step:] |= planes[: len(planes) - step]
        out[: len(out) - step] |= planes[step:]
    return out


def erode(mask: np.ndarray, radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Every mask pixel farther than `radius_mm` from all others; what lies beyond the array is no background."""
    return mask & ~dilate(~mask, radius_mm, spacing)


def deepest(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The mask's pixels with the largest distance to the background; a mask without background: itself."""
    if mask.all():
        return mask.copy()
    distances = distance_transform_edt(mask, spacing)
    return distances >= distances.max() - _TOLERANCE


def _dilate_planes(mask: np.ndarray, radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Dilation by a disc in the last two axes."""
    out = np.zeros_like(mask)
    rows, width, size = mask, 0, mask.shape[-2]
    # From the disc's rim to its middle: each row of the disc is at least as wide as the one before and grows from it.
    for step in range(int(radius_mm / spacing[0] + _TOLERANCE), -1, -1):
        left = max(radius_mm**2 - (step * spacing[0]) ** 2, 0.0) ** 0.5
        while width < int(left / spacing[1] + _TOLERANCE):
            wider = rows.copy()
            wider[..., 1:] |= rows[..., :-1]
            wider[..., :-1] |= rows[..., 1:]
            rows, width = wider, width + 1
        if step < size:
            out[..., step:, :] |= rows[..., : size - step, :]
            out[..., : size - step, :] |= rows[..., step:, :]
    return out
