"""Masks and spacings as they are given, checked and brought into one form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MaskError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def as_mask(mask: ArrayLike, name: str) -> np.ndarray:
    """A mask as bool array (y, x) or (z, y, x), non-zero inside; `name` is what a `MaskError` calls it."""
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3) or mask.dtype.kind not in "biuf":
        raise MaskError(f"{name} must be numbers with two or three axes, not {mask.dtype} with {mask.ndim}")
    return mask if mask.dtype == bool else mask != 0


def as_readers(masks: np.ndarray | Sequence[ArrayLike]) -> np.ndarray:
    """Readers' masks as one bool array (readers, [z,] y, x); raises `MaskError` if they don't fit each other."""
    if isinstance(masks, np.ndarray) and masks.dtype == bool and masks.ndim in (3, 4) and len(masks):
        return masks
    stack = [as_mask(mask, f"the mask of reader {number}") for number, mask in enumerate(masks, 1)]
    if not stack:
        raise MaskError("there are no readers' masks")
    for number, mask in enumerate(stack, 1):
        if mask.shape != stack[0].shape:
            raise MaskError(f"the mask of reader {number} has shape {mask.shape}, that of reader 1 {stack[0].shape}")
    return np.stack(stack)


def as_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    """Spacing in mm for every axis, checked."""
    if spacing is None:
        return (1.0,) * axes
    steps = tuple(float(step) for step in spacing)
    if len(steps) != axes or not all(math.isfinite(step) and step > 0 for step in steps):
        raise MaskError(f"the spacing must be {axes} positive lengths in mm, not {list(spacing)}")
    return steps


def check_dimension(dimension: int, axes: int) -> None:
    """Raises `ValueError` unless `dimension` is 2, or 3 for an array of three axes."""
    if dimension not in (2, 3) or dimension > axes:
        raise ValueError(f"dimension is 2, or 3 for a stack of slices; not {dimension!r} for {axes} axes")
