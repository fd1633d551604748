"""Borders of masks and the distance from one border to another, on the masks' joint bounding box.

Reader and prediction mostly lie within a few voxels of each other. So the search looks at the neighbors of each border
voxel in order of distance, in one lookup of a flat padded array, and only what is left goes to a KD-tree.
"""

import math
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

# Neighbors looked up before the KD-tree takes over (bound of the box around them), and at most within a tolerance.
NEAR_OFFSETS = 350
TOLERANCE_OFFSETS = 3000
# Entries of one lookup, to bound memory.
LOOKUP_ENTRIES = 1 << 21
# A distance that equals a radius but for rounding counts as within.
ROUNDING = 1 + 1e-9


def joint_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, ...] | None:
    """Slices of the smallest box that holds the foreground of both masks; None when both are empty."""
    union = a | b
    if not union.size:
        return None
    box = []
    while True:
        rows = np.flatnonzero(union if union.ndim == 1 else union.reshape(len(union), -1).any(1))
        if not len(rows):
            return None
        box.append(slice(int(rows[0]), int(rows[-1]) + 1))
        if union.ndim == 1:
            return tuple(box)
        union = union[box[-1]].any(0)


@lru_cache(maxsize=64)
def offsets_within(spacing: tuple[float, ...], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Every grid offset (n, d) no farther than `radius`, in the unit of `spacing`, nearest first, and distances (n,).

    A distance that equals the radius up to rounding counts as within.
    """
    radius *= ROUNDING
    axes = [np.arange(-int(radius / s), int(radius / s) + 1) for s in spacing]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(spacing))
    distance = np.sqrt(((grid * np.array(spacing)) ** 2).sum(1))
    near = np.flatnonzero(distance <= radius)
    near = near[np.argsort(distance[near], kind="stable")]
    return grid[near], distance[near]


def ball_size(spacing: tuple[float, ...], radius: float) -> int:
    """Number of grid offsets in the box around a ball: an upper bound that costs nothing to compute."""
    return math.prod(2 * int(radius * ROUNDING / s) + 1 for s in spacing)


@lru_cache(maxsize=64)
def near_radius(spacing: tuple[float, ...]) -> float:
    """The largest radius, in steps of the finest spacing, with at most NEAR_OFFSETS offsets in the ball's box."""
    step = min(spacing)
    radius = step
    while ball_size(spacing, radius + step) <= NEAR_OFFSETS:
        radius += step
    return radius


class BorderPair:
    """Borders of two masks on a common padded grid, with searches from one to the other.

    A border voxel is a foreground voxel with a background voxel among its 2d face neighbors (the mask minus its
    erosion with connectivity 1, as medpy and MONAI take it). What lies outside of the image is background, so
    foreground at the image's edge is border. margin: voxels of padding an axis, at least 1 and at least the reach of
    the offsets that are looked up.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, margin: tuple[int, ...], whole: bool = False):
        box = joint_box(a, b)
        if box is None:
            a, b = np.zeros((2, *(1,) * a.ndim), bool)
            box = (slice(0, 1),) * a.ndim
        self.shape = tuple(s.stop - s.start + 2 * m for s, m in zip(box, margin, strict=True))
        strides = np.cumprod((1, *self.shape[:0:-1]))[::-1]
        self.strides = strides.astype(np.intp)
        inside = tuple(slice(m, n - m) for m, n in zip(margin, self.shape, strict=True))
        self.flat, self.points = [], []
        for mask in (a, b):
            padded = np.zeros(self.shape, bool)
            padded[inside] = mask[box]
            flat = padded.ravel()
            if not whole:
                flat = flat & ~self._eroded(flat)
            self.flat.append(flat)
            self.points.append(np.flatnonzero(flat))

    def _eroded(self, flat: np.ndarray) -> np.ndarray:
        """Erosion with the cross of 2d neighbors; the padding keeps a row's ends apart, so flat shifts suffice."""
        out = flat.copy()
        for stride in self.strides:
            out[stride:] &= flat[:-stride]
            out[:-stride] &= flat[stride:]
        return out

    def near(self, source: int, offsets: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(found, left): distances of the border voxels of mask `source` with a border voxel of the other mask among
        `offsets`, and flat indices of those without."""
        other = self.flat[1 - source]
        shared = other[self.points[source]]
        left = self.points[source][~shared]
        found = [np.zeros(len(shared) - len(left))]
        steps = offsets @ self.strides
        # The face neighbors first: mostly they leave few voxels for the many offsets after them.
        begin, width = 1, 2 * len(self.shape)
        while begin < len(steps) and len(left):
            end = min(begin + min(width, max(1, LOOKUP_ENTRIES // len(left))), len(steps))
            hits = other[left[:, None] + steps[begin:end]]
            first = hits.argmax(1)
            hit = hits[np.arange(len(left)), first]
            found.append(distances[begin + first[hit]])
            left = left[~hit]
            begin, width = end, 4 * width
        return np.concatenate(found), left

    def coordinates(self, flat_indices: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
        """Positions (n, d) of flat indices, in the unit of `spacing`."""
        return np.stack(np.unravel_index(flat_indices, self.shape), 1) * np.array(spacing)

    def far(
        self, source: int, flat_indices: np.ndarray, spacing: tuple[float, ...], bound: float = np.inf
    ) -> np.ndarray:
        """Distances of voxels of mask `source` to the other border through a KD-tree; beyond `bound` they are inf."""
        tree = cKDTree(self.coordinates(self.points[1 - source], spacing), compact_nodes=False, balanced_tree=False)
        return tree.query(self.coordinates(flat_indices, spacing), distance_upper_bound=bound)[0]
