"""Whether a grid can be a CT's: voxels of a possible size, axes that span space and lean no more than a gantry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import ImageError

if TYPE_CHECKING:
    from .geometry import Grid

POSSIBLE_SPACING_MM = (0.01, 20.0)
LARGEST_TILT = 45.0  # degrees; gantries tilt up to 30


def check_geometry(grid: Grid, name: str) -> None:
    """Raises `ImageError` unless the voxels have a size that a CT may have, all is finite, and the axes span space.

    Axes up to 45° off a right angle are a tilted gantry's.
    """
    if not all(np.isfinite(s) and s > 0 for s in grid.spacing):
        raise ImageError(f"{name}: its spacing {grid.spacing} isn't three positive numbers")
    if not np.isfinite([*grid.direction, *grid.origin]).all():
        raise ImageError(f"{name}: its origin or direction isn't finite")
    if abs(np.linalg.det(np.reshape(grid.direction, (3, 3)))) < 1e-3:
        raise ImageError(f"{name}: its axes don't span space")
    low, high = POSSIBLE_SPACING_MM
    if not all(low <= s <= high + 1e-6 for s in grid.spacing):
        raise ImageError(f"{name}: voxels of {' x '.join(f'{s:g}' for s in grid.spacing)} mm aren't a CT's")
    if tilt_of(grid) > LARGEST_TILT:
        raise ImageError(f"{name}: its axes are {tilt_of(grid):.0f}° off a right angle; no gantry tilts so far")


def tilt_of(grid: Grid) -> float:
    """Degrees that its axes are off a right angle, at most."""
    axes = np.reshape(grid.direction, (3, 3))
    return float(np.degrees(np.arcsin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max()))))
