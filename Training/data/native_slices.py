"""The scan's native slices behind a cube that was interpolated linearly along z.

Readers draw on the scan's slices. A cube with voxels of one size holds up to five interpolated slices for each of them,
and its masks, which follow the nearest slice, change in steps. Given how far the slices are apart, their place is
found in the HU alone: between two slices a linear interpolation has no curvature. The slices' HU then follow by least
squares, to within the rounding of the cube's HU.
"""

from dataclasses import replace

import numpy as np

from .nodule import Nodule

FINEST = 1.2  # slices less than so many voxels apart are as good as the cube's own
_STEP = 0.02  # voxels: how finely places are tried
_RESIDUAL_HU = 3.0  # what may be left unexplained (root mean square; rounding to 5.2 HU leaves 1.5)


def _weights(count: int, first: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights (voxels, slices) of a linear interpolation, places of the slices in voxels).

    Slices beyond the cube's ends belong to it as far as they are the nearest one of some voxel.
    """
    steps = np.arange(-2, int(count / distance) + 3)
    places = first + distance * steps
    places = places[(places > -distance / 2) & (places < count - 1 + distance / 2)]
    return np.maximum(0, 1 - np.abs(np.arange(count)[:, None] - places) / distance), places


def find_slices(hu: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """(places of the scan's slices in voxels along z, their HU (slices, y, x) float32), or None if there are none.

    hu: (z, y, x); distance: of two slices, in voxels. None where slices are hardly farther apart than voxels, or where
    the cube isn't a linear interpolation of slices so far apart.
    """
    count = len(hu)
    if distance < FINEST:
        return None
    values = hu.reshape(count, -1).astype(np.float32)
    sampled, best = values[:, :: max(values.shape[1] // 600, 1)], (np.inf, 0.0)
    for first in np.arange(0, distance, _STEP):
        weights, places = _weights(count, first, distance)
        known = weights.sum(1) > 1 - 1e-6  # between two slices that take part
        spare = known.sum() - len(places)
        if spare < 2:
            continue
        basis, _ = np.linalg.qr(weights[known])
        rest = sampled[known] - basis @ (basis.T @ sampled[known])
        residual = float(np.sqrt((rest**2).sum() / (spare * sampled.shape[1])))
        if residual < best[0]:
            best = (residual, float(first))
    if best[0] > _RESIDUAL_HU:
        return None
    weights, places = _weights(count, best[1], distance)
    known = weights.sum(1) > 1 - 1e-6
    slices = np.linalg.lstsq(weights[known], values[known], rcond=None)[0]
    return places, slices.reshape(-1, *hu.shape[1:]).astype(np.float32)


def on_native_slices(nodule: Nodule) -> Nodule:
    """The nodule on its scan's native slices: their HU, and the readers' masks of the voxels nearest to them.

    The same nodule where there is nothing to find: the scan's slices (`ct_slice_spacing_mm`) are as near as the cube's
    voxels or nearer, their distance isn't known, or the cube isn't interpolated.
    """
    distance = float(nodule.row.get("ct_slice_spacing_mm") or 0) / nodule.spacing[0]
    found = find_slices(nodule.hu, distance) if nodule.soft is None else None
    if found is None:
        return nodule
    places, hu = found
    nearest = np.rint(places).astype(int).clip(0, len(nodule.hu) - 1)
    spacing = np.array([distance * nodule.spacing[0], *nodule.spacing[1:]])
    hu = np.rint(hu).clip(-32768, 32767).astype(np.int16)
    return replace(nodule, hu=hu, readers=nodule.readers[:, nearest], spacing=spacing)
