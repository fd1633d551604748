"""Trimaps: which pixels are lesion, which background, and where matting is to decide; section 2.1 of the DSNet papers.

Three strategies: one mask eroded and dilated, several readers' intersection and union, and RECIST marks. All take
pixel spacings, so that a trimap means the same at every resolution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MaskError
from .grabcut import mask_from_recist
from .inputs import as_mask, as_readers, as_spacing, check_dimension
from .morphology import bounding_box, deepest, dilate, erode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

BACKGROUND, UNKNOWN, LESION = 0, 128, 255
# Erosion and dilation of a single mask reach a tenth of its equivalent diameter to either side.
_BAND_OF_DIAMETER = 0.1


def trimap_from_mask(
    mask: ArrayLike,
    spacing: Sequence[float] | None = None,
    *,
    erode_mm: float | None = None,
    dilate_mm: float | None = None,
    dimension: int = 2,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Strategy 1: the eroded mask is lesion, beyond the dilated mask is background, between them is unknown.

    `mask`: (y, x) or (z, y, x), non-zero inside; of a stack every slice is treated by itself unless `dimension=3`.
    `spacing`: mm per axis in the array's order, 1 by default. `erode_mm`, `dilate_mm`: radii; by default the larger
    of one pixel and a tenth of the equivalent diameter (of the slice's area, or of the volume in 3D). An erosion that
    would leave nothing of a slice backs off to its deepest pixels, and says so in `notes`. Returns uint8 of the
    mask's shape: 0 background, 128 unknown, 255 lesion. Raises `MaskError` for an empty mask or one that is no array
    of two or three axes.
    """
    inside = as_mask(mask, "the mask")
    spacing = as_spacing(spacing, inside.ndim)
    _check_radii(erode_mm, dilate_mm)
    check_dimension(dimension, inside.ndim)
    if not inside.any():
        raise MaskError("the mask is empty")

    def one(part: np.ndarray, steps: tuple[float, ...], where: str) -> np.ndarray:
        return _band(part, part, steps, erode_mm, dilate_mm, where, notes)

    return _by_slices(one, inside, spacing, dimension)


def trimap_from_readers(
    masks: np.ndarray | Sequence[ArrayLike],
    spacing: Sequence[float] | None = None,
    *,
    erode_mm: float = 0.0,
    dilate_mm: float = 0.0,
    dimension: int = 2,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Strategy 2: what all readers drew is lesion, what none drew is background, the rest is unknown.

    `masks`: (readers, y, x) or (readers, z, y, x), any number of readers; `spacing`, `dimension` and the result as for
    `trimap_from_mask`. `erode_mm` and `dilate_mm` widen the unknown band on top of that, by default not at all.
    Where readers have no pixel in common, the eroded consensus of at least half of them is used as their intersection
    (slice by slice, or once in 3D); a slice without even that has no known lesion. `notes`, if given, collects a
    line for each of these. Raises `MaskError` if nobody drew anything, or if nowhere half of the readers agree.
    """
    stack = as_readers(masks)
    readers, axes = len(stack), stack.ndim - 1
    spacing = as_spacing(spacing, axes)
    _check_radii(erode_mm, dilate_mm)
    check_dimension(dimension, axes)
    votes = np.add.reduce(stack.view(np.uint8), axis=0, dtype=np.uint8 if readers < 256 else np.uint16)
    if not votes.any():
        raise MaskError(f"all {readers} readers' masks are empty")
    if 2 * int(votes.max()) < readers:
        raise MaskError(f"no pixel is in at least half of the {readers} readers' masks")
    if readers == 1:
        _note(notes, "one reader only: nothing is unknown; a trimap of one mask has a band")

    def one(part: np.ndarray, steps: tuple[float, ...], where: str) -> np.ndarray:
        union = part > 0
        core = part == readers
        if core.any():
            return _band(core, union, steps, erode_mm, dilate_mm, where, notes)
        core = part >= (readers + 1) // 2
        if core.any():
            _note(notes, f"{where}no pixel in all {readers} masks: lesion is the eroded consensus of half of them")
            return _band(core, union, steps, None, dilate_mm, where, notes)
        _note(notes, f"{where}no pixel in half of the {readers} masks: no known lesion there")
        return _band(core, union, steps, 0.0, dilate_mm, where, notes)

    return _by_slices(one, votes, spacing, dimension)


def trimap_from_recist(
    image: ArrayLike,
    endpoints: ArrayLike,
    spacing: Sequence[float] | None = None,
    *,
    erode_mm: float | None = None,
    dilate_mm: float | None = None,
    iterations: int = 5,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Strategy 3: GrabCut from a RECIST mark's two axes, then strategy 1.

    `image`: (y, x), windowed to [0, 1]. `endpoints`: four (x, y) points in pixels (pixel centers at whole numbers),
    the long axis' two, then the short axis' two. The rest as for `trimap_from_mask` and `mask_from_recist`, whose
    fallback to an ellipse is told in `notes`. Raises `RecistError`, `ImageError` or `MaskError`.
    """
    mask = mask_from_recist(image, endpoints, spacing, iterations=iterations, notes=notes)
    return trimap_from_mask(mask, spacing, erode_mm=erode_mm, dilate_mm=dilate_mm, notes=notes)


def default_radius_mm(pixels: int, spacing: Sequence[float]) -> float:
    """The larger of one pixel and a tenth of the equivalent diameter of so many pixels (voxels), in mm."""
    size = pixels * math.prod(spacing)
    diameter = 2 * (math.sqrt(size / math.pi) if len(spacing) == 2 else (0.75 * size / math.pi) ** (1 / 3))
    return max(min(spacing), _BAND_OF_DIAMETER * diameter)


def _band(
    core: np.ndarray,
    whole: np.ndarray,
    spacing: tuple[float, ...],
    erode_mm: float | None,
    dilate_mm: float | None,
    where: str,
    notes: list[str] | None,
) -> np.ndarray:
    """Trimap of one slice or volume: lesion is the eroded `core`, background what lies beyond the dilated `whole`."""
    if erode_mm is None:
        erode_mm = default_radius_mm(int(np.count_nonzero(core)), spacing)
    if dilate_mm is None:
        dilate_mm = default_radius_mm(int(np.count_nonzero(whole)), spacing)
    if not erode_mm and not dilate_mm:
        return _paint(core, whole)
    out = np.zeros(whole.shape, np.uint8)
    # A pixel more than the dilation reaches: erosion needs the background next to the mask.
    box = bounding_box(whole, tuple(int(dilate_mm / step) + 2 for step in spacing))
    core, whole = core[box], whole[box]
    if dilate_mm > 0:
        whole = dilate(whole, dilate_mm, spacing)
    if erode_mm > 0 and core.any():
        eroded = erode(core, erode_mm, spacing)
        if not eroded.any():
            _note(notes, f"{where}an erosion by {erode_mm:.3g} mm leaves nothing: lesion is the mask's deepest pixels")
            eroded = deepest(core, spacing)
        core = eroded
    out[box] = _paint(core, whole)
    return out


def _paint(core: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """255 in `core`, 128 in the rest of `whole`, which contains it; arithmetic is faster than assignment by mask."""
    return core.view(np.uint8) * (LESION - UNKNOWN) + whole.view(np.uint8) * UNKNOWN


def _by_slices(
    one: Callable[[np.ndarray, tuple[float, ...], str], np.ndarray],
    array: np.ndarray,
    spacing: tuple[float, ...],
    dimension: int,
) -> np.ndarray:
    """Applies `one` to an array, or to every slice of a stack that has anything in it."""
    if array.ndim == dimension:
        return one(array, spacing, "")
    out = np.zeros(array.shape, np.uint8)
    for z in np.flatnonzero(array.any(axis=(1, 2))):
        out[z] = one(array[z], spacing[1:], f"slice {z}: ")
    return out


def _note(notes: list[str] | None, text: str) -> None:
    if notes is not None:
        notes.append(text)


def _check_radii(*radii: float | None) -> None:
    for radius in radii:
        if radius is not None and not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"a radius is a length in mm from 0, not {radius!r}")
