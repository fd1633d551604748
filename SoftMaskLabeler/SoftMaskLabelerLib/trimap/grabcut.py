"""Lesion masks from RECIST marks: GrabCut seeded by the two axes, an ellipse where GrabCut finds no plausible lesion.

Rother, Kolmogorov and Blake, "GrabCut", 2004, in OpenCV's implementation; section 2.1 of the DSNet papers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..errors import ImageError, RecistError
from .inputs import as_spacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

# Sides of the region that GrabCut sees, and of the box in it that may be lesion, over those of the marks' box.
_REGION, _INNER = 2.0, 1.2
# Context in pixels that small marks get at least, on every side.
_CONTEXT = 6
# A result is plausible between these multiples of the ellipse's area.
_SMALLEST, _LARGEST = 0.4, 2.0


def mask_from_recist(
    image: ArrayLike,
    endpoints: ArrayLike,
    spacing: Sequence[float] | None = None,
    *,
    iterations: int = 5,
    notes: list[str] | None = None,
) -> np.ndarray:
    """The lesion that a RECIST mark measures, as a bool mask of the image's shape (y, x).

    `image`: (y, x), windowed to [0, 1]. `endpoints`: four (x, y) points in pixels, the long axis' two, then the short
    axis' two. `spacing`: (y, x) in mm, 1 by default; it matters where pixels aren't square. The axes, thickened to
    three pixels within the ellipse, are certain lesion; what lies outside 1.2 times the marks' box is certain
    background. Where OpenCV is missing, finds no model, or a mask whose area is far from the ellipse's, the
    ellipse on the two axes is returned and `notes`, if given, gets a line that says why. Raises `ImageError` and
    `RecistError`.
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype.kind not in "biuf" or not image.size:
        raise ImageError(f"RECIST marks need an image of numbers with two axes, not {image.dtype} with {image.ndim}")
    points = _as_points(endpoints, image.shape)
    height, width = as_spacing(spacing, 2)
    axes = _axis_pixels(points, image.shape)
    ellipse = ellipse_from_axes(points, image.shape, (height, width)) | axes
    try:
        mask = _grabcut(image, points, axes, ellipse, iterations)
        reason = _implausible(mask, ellipse)
    except _NoModelError as error:
        mask, reason = ellipse, str(error)
    if reason:
        if notes is not None:
            notes.append(f"GrabCut: {reason}; the ellipse on the two axes is used")
        return ellipse
    return mask


def ellipse_from_axes(points: np.ndarray, shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """The ellipse with the long axis' direction and both axes' lengths, bool (y, x).

    `points`: (4, 2) x, y in pixels. Its center lies halfway along each axis; pixels are inside by their centers.
    """
    scale = np.array([spacing[1], spacing[0]])
    first, second, third, fourth = points * scale
    long, short = second - first, fourth - third
    length = math.hypot(*long)
    along = long / length
    across = np.array([-along[1], along[0]])
    center = along * ((first + second) / 2 @ along) + across * ((third + fourth) / 2 @ across)
    y, x = np.ogrid[: shape[0], : shape[1]]
    dx, dy = x * scale[0] - center[0], y * scale[1] - center[1]
    u = (dx * along[0] + dy * along[1]) / (length / 2)
    v = (dx * across[0] + dy * across[1]) / (math.hypot(*short) / 2)
    return u * u + v * v <= 1.0


class _NoModelError(Exception):
    """GrabCut can't run on this image; the message says why."""


def _grabcut(
    image: np.ndarray, points: np.ndarray, axes: np.ndarray, ellipse: np.ndarray, iterations: int
) -> np.ndarray:
    """OpenCV's GrabCut in the region around the marks; bool (y, x)."""
    try:
        import cv2
    except ImportError as error:
        raise _NoModelError("OpenCV (opencv-python-headless) isn't installed") from error
    region, inner = _boxes(points, image.shape)
    part = image[region].astype(np.float64)
    low, high = float(part.min()), float(part.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("the image holds values that aren't finite around the RECIST marks")
    if high - low < 1e-6:
        raise _NoModelError("the image is flat around the marks")
    gray = np.round((part - low) * (255 / (high - low))).astype(np.uint8)
    seeds = np.full(image.shape, cv2.GC_BGD, np.uint8)
    seeds[inner] = cv2.GC_PR_FGD
    thick = ndimage.binary_dilation(axes, np.ones((3, 3), bool)) & ellipse
    seeds[thick] = cv2.GC_FGD
    # A copy: OpenCV writes into it, and wants it contiguous.
    seeds = seeds[region].copy()
    if not (seeds == cv2.GC_BGD).any():
        raise _NoModelError("the marks fill the image and leave no background")
    # GrabCut starts from a random clustering: with a fixed seed the same image always has the same mask.
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR),
            seeds,
            (0, 0, 0, 0),  # a mask is given, no rectangle
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            iterations,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error as error:
        raise _NoModelError(f"OpenCV found no model ({str(error).strip().splitlines()[-1]})") from error
    found = np.zeros(image.shape, bool)
    found[region] = (seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)
    labels, _ = ndimage.label(found)
    touched = np.unique(labels[axes])
    return ndimage.binary_fill_holes(np.isin(labels, touched[touched > 0]))


def _implausible(mask: np.ndarray, ellipse: np.ndarray) -> str:
    """Why a mask can't be the lesion, or nothing."""
    ratio = np.count_nonzero(mask) / np.count_nonzero(ellipse)
    if _SMALLEST <= ratio <= _LARGEST:
        return ""
    return f"its area is {ratio:.2f} times the ellipse's"


def _boxes(points: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The region that GrabCut sees and the box that may be lesion, as slices of the image."""
    low, high = points.min(axis=0), points.max(axis=0)
    center, half = (low + high) / 2, (high - low) / 2

    def box(reach: np.ndarray) -> tuple[slice, slice]:
        first = np.maximum(np.floor(center - reach).astype(int), 0)
        last = np.minimum(np.ceil(center + reach).astype(int) + 1, (shape[1], shape[0]))
        return slice(first[1], last[1]), slice(first[0], last[0])

    inner = np.maximum(half * _INNER, half + 1)
    return box(np.maximum(half * _REGION, inner + _CONTEXT)), box(inner)


def _axis_pixels(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels under the two axes, bool (y, x)."""
    drawn = np.zeros(shape, bool)
    for first, second in (points[:2], points[2:]):
        count = int(2 * np.abs(second - first).max()) + 2
        x, y = np.round(np.linspace(first, second, count)).astype(int).T
        drawn[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)] = True
    return drawn


def _as_points(endpoints: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    try:
        points = np.asarray(endpoints, np.float64)
    except (TypeError, ValueError) as error:
        raise RecistError(f"RECIST end points must be numbers: {error}") from error
    if points.shape == (8,):
        points = points.reshape(4, 2)
    if points.shape != (4, 2) or not np.isfinite(points).all():
        raise RecistError(f"RECIST marks have four finite (x, y) end points, not {np.asarray(endpoints).tolist()}")
    if (points < -0.5).any() or (points > np.array([shape[1], shape[0]]) - 0.5).any():
        raise RecistError(
            f"RECIST end points {points.tolist()} lie outside the image of {shape[1]} x {shape[0]} pixels"
        )
    for name, first, second in (("long", *points[:2]), ("short", *points[2:])):
        if math.hypot(*(second - first)) < 1e-6:
            raise RecistError(f"the {name} RECIST axis has no length")
    return points
