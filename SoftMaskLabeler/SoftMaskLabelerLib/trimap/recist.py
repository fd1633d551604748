"""RECIST marks measured on a mask: the longest axis in the slice and the longest perpendicular to it.

Eisenhauer et al., "New response evaluation criteria in solid tumours (RECIST 1.1)", 2009, for the long axis; the short
axis is the longest perpendicular one, as in DeepLesion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import MaskError
from .inputs import as_mask, as_spacing
from .morphology import erode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def recist_axes(mask: ArrayLike, spacing: Sequence[float] | None = None) -> np.ndarray:
    """End points of the two axes of a 2D mask: (4, 2) x, y in pixels, the long axis' two, then the short axis' two.

    `mask`: (y, x), non-zero inside; `spacing`: (y, x) in mm. Axes run from the outer edge of one rim pixel to that of
    another, half a pixel beyond their centers, so that they have a length even in a mask of one pixel. Raises
    `MaskError` for an empty mask or one that isn't 2D.
    """
    inside = as_mask(mask, "the mask")
    if inside.ndim != 2:
        raise MaskError(f"RECIST marks are made on one slice, not on a mask with {inside.ndim} axes")
    steps = np.array(as_spacing(spacing, 2))
    if not inside.any():
        raise MaskError("the mask is empty")
    padded = np.pad(inside, 1)
    rim = padded & ~erode(padded, float(steps.max()), tuple(steps))
    points = (np.argwhere(rim) - 1)[:, ::-1] * steps[::-1]
    difference = points[None] - points[:, None]
    lengths = np.hypot(difference[..., 0], difference[..., 1])
    first, second = np.unravel_index(lengths.argmax(), lengths.shape)
    along = difference[first, second] / lengths[first, second] if lengths.max() > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    half = steps.min() / 2
    long = np.array([points[first] - half * along, points[second] + half * along])
    # Pairs that are perpendicular to within a pixel; their rounding must not tilt the axis.
    wide = np.where(np.abs(difference @ along) <= steps.min(), difference @ across, -1.0)
    one, other = np.unravel_index(wide.argmax(), wide.shape)
    place = along * ((points[one] + points[other]) / 2 @ along)
    reach = np.array([points[one] @ across - half, points[other] @ across + half])
    short = place + reach[:, None] * across
    return np.concatenate([long, short]) / steps[::-1]
