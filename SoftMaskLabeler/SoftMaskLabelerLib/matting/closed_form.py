"""Closed-form matting of gray images: soft masks from an image and a trimap.

Levin, Lischinski and Weiss, 2008; section 2.1 of the DSNet papers, whose soft mask is alpha itself (lesion 1,
background 0). The known pixels are kept exactly: the reduced system L_UU a_U = -L_UK a_K is solved for the unknown
ones, as pymatting's `estimate_alpha_cf` does, and clipped to [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, TrimapError
from ..trimap.trimap import LESION, UNKNOWN
from .laplacian import assemble, matting_region
from .solvers import narrow_order, solve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# How far from [0, 1] an image may go (resampling overshoots) before it can't have been windowed.
_SLACK = 0.5


def closed_form_alpha(
    image: ArrayLike, trimap: ArrayLike, epsilon: float = 1e-7, radius: int = 1, *, dimension: int = 2
) -> np.ndarray:
    """The soft mask of an image: float32 in [0, 1], the image's shape; exactly 1 on known lesion, 0 on background.

    `image`: (y, x), or (z, y, x) of which every slice is solved by itself, windowed to [0, 1]. `trimap`: the same
    shape, 0 background, 128 unknown, 255 lesion. `epsilon`: weight of the slopes in the windows' fits, as pymatting
    means it for a gray image stacked to three channels (a gray Laplacian's own epsilon is a third); what counts is
    epsilon over the square of the contrast, so alpha stays the same when intensities are scaled by s and epsilon by
    s^2. `radius`: of the windows in pixels, 1 for 3 x 3. `dimension=3` solves a stack at once, with windows of
    (2 radius + 1)^3 voxels, and alpha runs smoothly through the slices; voxels should be close to cubes.

    A slice of a stack that lacks known lesion (background) gets 0 (1) on its unknown pixels, which is what the system
    says; an image that lacks either raises `TrimapError`, as do other values. `ImageError`: shapes that don't
    match, sides shorter than a window, intensities that aren't finite or far outside [0, 1] near the lesion.
    `SolverError`: no solution was found.
    """
    image, trimap = np.asarray(image), np.asarray(trimap)
    _check(image, trimap, epsilon, radius, dimension)
    lesion = trimap == LESION
    unknown = trimap == UNKNOWN
    _check_known(trimap, lesion, unknown)
    # In C order, whatever the trimap's: the solutions are written through a flat view.
    alpha = lesion.astype(np.float32, order="C")
    if image.ndim == dimension:
        _solve_into(alpha, image, lesion, unknown, epsilon, radius)
        return alpha
    for z in range(image.shape[0]):
        _solve_into(alpha[z], image[z], lesion[z], unknown[z], epsilon, radius)
    return alpha


def _solve_into(
    alpha: np.ndarray, image: np.ndarray, lesion: np.ndarray, unknown: np.ndarray, epsilon: float, radius: int
) -> None:
    """Fills in alpha on the unknown pixels of one system; arrays of one shape, `alpha` holds the known pixels."""
    positions = np.flatnonzero(unknown)
    if not positions.size:
        return
    region = matting_region(image, lesion, positions, radius, _check_windowed)
    order = narrow_order(region, radius)
    solution = solve(assemble(region, epsilon, radius, order), image.ndim)
    np.maximum(solution, 0.0, out=solution)
    np.minimum(solution, 1.0, out=solution)
    alpha.reshape(-1)[positions if order is None else positions[order]] = solution


def _check(image: np.ndarray, trimap: np.ndarray, epsilon: float, radius: int, dimension: int) -> None:
    if dimension not in (2, 3):
        raise ValueError(f"dimension is 2 or 3, not {dimension!r}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, not {epsilon!r}")
    if radius != int(radius) or radius < 1:
        raise ValueError(f"radius is a whole number of pixels from 1, not {radius!r}")
    if image.ndim not in (2, 3) or image.ndim < dimension:
        raise ImageError(f"the image has {image.ndim} axes; {dimension}D matting takes {dimension} to 3")
    if image.shape != trimap.shape:
        raise ImageError(f"the image has shape {image.shape}, its trimap {trimap.shape}")
    if min(image.shape[-dimension:]) < 2 * radius + 1:
        raise ImageError(f"the image's shape {image.shape} is smaller than a window of {2 * radius + 1} pixels a side")
    if image.dtype.kind not in "biuf":
        raise ImageError(f"the image holds {image.dtype}, not real numbers")


def _check_windowed(intensities: np.ndarray) -> None:
    """Only where the system looks, which is what can spoil the result; whole slices would take longer than solving."""
    low, high = float(intensities.min()), float(intensities.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ImageError(f"the image runs from {low} to {high} near the lesion; window it to [0, 1] first")


def _check_known(trimap: np.ndarray, lesion: np.ndarray, unknown: np.ndarray) -> None:
    lesions, unknowns = np.count_nonzero(lesion), np.count_nonzero(unknown)
    marked = np.count_nonzero(trimap)
    if marked != lesions + unknowns:
        values = np.unique(trimap)
        raise TrimapError(f"a trimap holds 0, 128 and 255 only; this one has {values[:8].tolist()}")
    if not unknowns:
        return
    if not lesions:
        raise TrimapError("the trimap has unknown pixels but no known lesion (255)")
    if marked == trimap.size:
        raise TrimapError("the trimap has unknown pixels but no known background (0)")
