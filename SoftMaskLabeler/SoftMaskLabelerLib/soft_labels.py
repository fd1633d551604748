"""The soft labels that DSNet is compared with: dilation labels (Kats), bilinear labels (SoftSeg), the readers' mean.

Kats, Goldberger and Greenspan, "Soft labeling by distilling anatomical knowledge for improved MS lesion segmentation",
ISBI 2019; Gros, Lemay and Cohen-Adad, "SoftSeg", Medical Image Analysis 2021. Both are used here as labels only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .trimap.inputs import as_mask, as_readers, check_dimension
from .trimap.trimap import LESION, UNKNOWN, trimap_from_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def dilation_label(
    mask: ArrayLike,
    spacing: Sequence[float] | None = None,
    *,
    value: float = 0.5,
    dilate_mm: float | None = None,
    dimension: int = 2,
) -> np.ndarray:
    """Kats' label: 1 in the mask, one constant in the ring that dilation adds, 0 beyond; float32 of the mask's shape.

    `mask`: (y, x) or (z, y, x), a stack slice by slice unless `dimension=3`; `spacing` in mm per axis. `value`: of
    the ring, in (0, 1). `dilate_mm`: by default the larger of one pixel and a tenth of the equivalent diameter, which
    makes the lesion 120 % as wide. Raises `MaskError` for an empty mask.
    """
    if not 0 < value < 1:
        raise ValueError(f"the ring's value lies between 0 and 1, not {value!r}")
    bands = trimap_from_mask(mask, spacing, erode_mm=0.0, dilate_mm=dilate_mm, dimension=dimension)
    levels = np.zeros(256, np.float32)
    levels[UNKNOWN], levels[LESION] = value, 1.0
    return levels[bands]


def bilinear_label(mask: ArrayLike, factor: int = 2, *, dimension: int = 2) -> np.ndarray:
    """SoftSeg's label: the mask brought to a coarser grid and back by linear interpolation, and left soft.

    `mask`: (y, x) or (z, y, x), resampled in the plane unless `dimension=3`; `factor`: pixels of the mask per coarse
    pixel and axis, 2 to 4 are usual. The coarse pixel is the mean of its pixels (at 2 that is linear interpolation);
    values are placed by pixel centers, edges are repeated. Float32 in [0, 1], of the mask's shape.
    """
    inside = as_mask(mask, "the mask")
    check_dimension(dimension, inside.ndim)
    if factor != int(factor) or factor < 1:
        raise ValueError(f"the factor is a whole number from 1, not {factor!r}")
    label = inside.astype(np.float32)
    for axis in range(inside.ndim - dimension, inside.ndim):
        label = _through_coarse(label, axis, int(factor))
    return label


def mean_of_readers(masks: np.ndarray | Sequence[ArrayLike]) -> np.ndarray:
    """The fraction of readers that drew each pixel: float32 in [0, 1]; `masks`: (readers, y, x) or (readers, z, y, x).

    Raises `MaskError` if there are no masks or their shapes differ.
    """
    return np.asarray(np.mean(as_readers(masks), axis=0, dtype=np.float64), np.float32)


def _through_coarse(label: np.ndarray, axis: int, factor: int) -> np.ndarray:
    """Down by block means and up by linear interpolation along one axis."""
    length = label.shape[axis]
    moved = np.moveaxis(label, axis, -1)
    blocks = -(-length // factor)
    padded = np.pad(moved, [(0, 0)] * (label.ndim - 1) + [(0, blocks * factor - length)], mode="edge")
    coarse = padded.reshape(*moved.shape[:-1], blocks, factor).mean(axis=-1)
    place = ((np.arange(length) + 0.5) / factor - 0.5).clip(0, blocks - 1)
    before = np.minimum(place.astype(int), max(blocks - 2, 0))
    weight = (place - before).astype(np.float32)
    after = np.minimum(before + 1, blocks - 1)
    return np.moveaxis(coarse[..., before] * (1 - weight) + coarse[..., after] * weight, -1, axis)
