"""LIDC-IDRI outlines as masks: filled on the pixel lattice, stacked on the scan's slices, interpolated between them.

LIDC's readers marked the FIRST PIXELS OUTSIDE of a nodule (Armato et al. 2011, 10.1118/1.3528204), so the nodule is
what lies strictly inside of the outline. `include_contour=True` adds the outline's own pixels, as toolboxes and papers
do that take the outline for the nodule's border.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from LungNoduleKit.errors import NoduleError

if TYPE_CHECKING:
    from .database import Annotation, Contour


#: (row, column), whole pixels.
Pixels: TypeAlias = Sequence[int] | np.ndarray


def contour_pixels(ij: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """The pixels (n, 2) of a closed outline, each once; vertices that aren't neighbors are joined by a line.

    `ij` holds the vertices, (m, 2) whole pixels (row, column), m >= 1; the last one is joined to the first.
    """
    return np.unique(np.concatenate([_line(*step) for step in _steps(ij)]), axis=0)


def fill_contour(
    ij: np.ndarray | Sequence[Sequence[int]], start: Pixels, shape: Pixels
) -> tuple[np.ndarray, np.ndarray]:
    """(inside, outline), bool of `shape`, for the window of the slice that starts at pixel `start` (row, column).

    Inside are pixels that the outline winds around (so that an outline drawn twice, or one that crosses or touches
    itself, is filled, while a bay whose mouth it closes only by touching isn't) and that aren't the outline's own.
    Raises `NoduleError` if the outline leaves the window.
    """
    steps = _steps(ij) - np.asarray(start)
    pixels = contour_pixels(ij) - np.asarray(start)
    if (pixels < 0).any() or (pixels >= shape).any():
        raise NoduleError(f"contour: it leaves the window of {tuple(shape)} pixels at {tuple(start)}")
    outline = np.zeros(shape, bool)
    outline[tuple(pixels.T)] = True
    # Every edge changes the winding number of what lies to its right; half-open row spans count a vertex once.
    turns = np.zeros((shape[0], shape[1] + 1), np.int32)
    for (i0, j0), (i1, j1) in steps:
        if i0 != i1:
            rows = np.arange(min(i0, i1), max(i0, i1))
            columns = -((-(j0 * (i1 - i0) + (rows - i0) * (j1 - j0))) // (i1 - i0))  # rounded up, in whole numbers
            np.add.at(turns, (rows, columns), 1 if i1 > i0 else -1)
    inside = np.cumsum(turns[:, :-1], axis=1) != 0
    return inside & ~outline, outline


def slice_mask(
    contours: Iterable[Contour], start: Pixels, shape: Pixels, *, include_contour: bool = False, exclusions: bool = True
) -> np.ndarray:
    """One slice's mask, bool of `shape`, in the window that starts at pixel `start` (row, column).

    The union of what the inclusion contours surround, without the holes (what exclusion contours surround, and their
    own pixels). `include_contour` adds the inclusion contours' pixels; `exclusions=False` leaves holes filled.
    """
    mask, outlines = np.zeros(shape, bool), np.zeros(shape, bool)
    contours = list(contours)
    for contour in contours:
        if contour.inclusion:
            inside, outline = fill_contour(contour.ij, start, shape)
            mask |= inside
            outlines |= outline
    for contour in contours:
        if exclusions and not contour.inclusion:
            inside, outline = fill_contour(contour.ij, start, shape)
            mask &= ~(inside | outline)
    return mask | outlines if include_contour else mask


def bounding_box(annotations: Iterable[Annotation]) -> np.ndarray:
    """[[row, column], [row, column]]: the smallest and the largest pixel of the outlines, both included."""
    pixels = np.concatenate([c.ij for a in annotations for c in a.contours])
    return np.stack([pixels.min(0), pixels.max(0)])


def stacked_masks(
    annotations: Sequence[Annotation],
    heights: Sequence[float] | np.ndarray,
    start: Pixels,
    shape: Pixels,
    *,
    tolerance: float,
    **options: bool,
) -> np.ndarray:
    """Masks of several readers, bool (readers, z, y, x), on slices at ascending `heights` (z in mm).

    `start` and `shape` give the window in the slices (rows, columns). A contour belongs to the slice nearest to its
    z; `NoduleError` if none is within `tolerance` mm, so that a wrong or incomplete series is noticed.
    """
    heights = np.asarray(heights, float)
    masks = np.zeros((len(annotations), len(heights), *shape), bool)
    for mask, annotation in zip(masks, annotations, strict=True):
        slices: dict[int, list[Contour]] = {}
        for contour in annotation.contours:
            k = int(np.abs(heights - contour.z_mm).argmin())
            if abs(heights[k] - contour.z_mm) > tolerance:
                raise NoduleError(
                    f"annotation {annotation.annotation_id}: no slice at z = {contour.z_mm:g} mm; the nearest is at "
                    f"{heights[k]:g} mm"
                )
            slices.setdefault(k, []).append(contour)
        for k, contours in slices.items():
            mask[k] = slice_mask(contours, start, shape, **options)
    return masks


def interpolate_slices(
    masks: np.ndarray, heights: Sequence[float] | np.ndarray, wanted: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Masks (..., z, y, x) on slices at ascending `heights`, interpolated linearly along z at `wanted`.

    What reaches 0.5 is inside. Beyond the first and last slice there is background, reached within one slice spacing.
    """
    heights, wanted = np.asarray(heights, float), np.asarray(wanted, float)
    gaps = np.diff(heights) if len(heights) > 1 else np.ones(1)
    heights = np.concatenate([[heights[0] - gaps[0]], heights, [heights[-1] + gaps[-1]]])
    empty = np.zeros_like(masks[..., :1, :, :])
    masks = np.concatenate([empty, masks, empty], axis=-3)
    place = np.interp(wanted, heights, np.arange(len(heights)))
    below = np.minimum(place.astype(int), len(heights) - 2)
    weight = (place - below)[:, None, None]
    # Rounded, so that a slice halfway between two is inside on every machine.
    mixed = (1 - weight) * masks[..., below, :, :] + weight * masks[..., below + 1, :, :]
    return np.round(mixed, 6) >= 0.5


def _steps(ij: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Edges (m, 2, 2) of the closed outline: from each vertex to the next, the last to the first."""
    vertices = np.asarray(ij)
    if vertices.ndim != 2 or vertices.shape[1:] != (2,) or not len(vertices):
        raise NoduleError(f"contour: its vertices have shape {vertices.shape}; (n, 2) with n >= 1 is needed")
    vertices = vertices.astype(np.int64)
    return np.stack([vertices, np.roll(vertices, -1, axis=0)], axis=1)


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Pixels of an 8-connected line, both ends included."""
    count = int(np.abs(end - start).max())
    if count <= 1:
        return np.stack([start, end])
    steps = np.arange(count + 1)[:, None]
    return start + (2 * steps * (end - start) + count) // (2 * count)
