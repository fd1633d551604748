"""Nodule-centered grids in patient space: sampled from any CT and put back on the CT's own grid.

All positions are LPS millimeters (SimpleITK's and DICOM's); `swap_lps_ras` is the one place where they become Slicer's
RAS, or RAS becomes LPS. Arrays are (z, y, x); sizes and indices are (i, j, k) along x, y and z.

A nodule's grid has the CT's own axes, permuted and flipped so that they lie nearest to patient left, posterior and
superior. Its voxels lie on a lattice that depends on the CT and the spacing alone, anchored at the CT's first voxel: a
point that moves a little moves the grid by whole voxels, and an isotropic CT is copied rather than interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import affine_transform, convolve1d

from .errors import ImageError, PointError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

AIR_HU = -1024.0
FINEST_SPACING_MM = 0.45
COARSEST_SPACING_MM = 1.0
SAME_SPACING = 0.01  # spacings that differ by at most this fraction count as one: the grid takes over the CT's
SMOOTH_BEYOND = 1.5  # a CT finer than the grid by more than this factor is smoothed before it is sampled
_ON_LATTICE = 1e-3  # voxels: nearer than this to a voxel's center is a file format's rounding, not a place between two


def swap_lps_ras(points: ArrayLike) -> np.ndarray:
    """Positions or directions (..., 3) in LPS as RAS, or in RAS as LPS: x and y change their signs; float64."""
    return np.asarray(points, float) * (-1.0, -1.0, 1.0) + 0.0  # + 0: no negative zeros


@dataclass(frozen=True)
class Grid:
    """Voxel (i, j, k) lies at ``origin + direction @ (spacing * (i, j, k))``, in LPS millimeters.

    `direction` has nine numbers, row by row as in SimpleITK: its columns are the directions of the grid's axes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid of a 3D SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) float64: column a is the step in millimeters from a voxel to the next one along axis a."""
        return np.reshape(np.asarray(self.direction, float), (3, 3)) * np.asarray(self.spacing, float)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of an array on this grid."""
        return self.size[::-1]

    @property
    def voxel_volume_mm3(self) -> float:
        """A voxel's volume, right for axes that aren't at right angles too."""
        return float(abs(np.linalg.det(self.matrix)))

    @property
    def center_lps(self) -> tuple[float, float, float]:
        """Center of the box that the grid's voxels fill."""
        return as_triple(self.indices_to_points([(n - 1) / 2 for n in self.size]))

    def indices_to_points(self, indices: ArrayLike) -> np.ndarray:
        """LPS positions (..., 3) of continuous indices (..., 3), each (i, j, k)."""
        return np.asarray(indices, float) @ self.matrix.T + np.asarray(self.origin, float)

    def points_to_indices(self, points: ArrayLike) -> np.ndarray:
        """Continuous indices (..., 3), each (i, j, k), of LPS positions (..., 3)."""
        return (np.asarray(points, float) - np.asarray(self.origin, float)) @ np.linalg.inv(self.matrix).T

    def contains(self, point_lps: ArrayLike) -> bool:
        """Whether the position lies in one of the grid's voxels (which reach half a voxel beyond their centers)."""
        index = self.points_to_indices(point_lps)
        return all(-0.5 - _ON_LATTICE <= i <= n - 0.5 + _ON_LATTICE for i, n in zip(index, self.size, strict=True))

    def part(self, start: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray) -> Grid:
        """The grid of the same lattice that starts at voxel `start` (which may be negative) and has `size` voxels."""
        origin = as_triple(self.indices_to_points(start)) if any(start) else self.origin
        i, j, k = (int(n) for n in size)
        return replace(self, size=(i, j, k), origin=origin)

    def image(self, array: np.ndarray | None = None) -> sitk.Image:
        """A SimpleITK image of `array` (z, y, x) on this grid; without an array, zeros of type uint8."""
        array = np.zeros(self.shape, np.uint8) if array is None else np.asarray(array)
        if array.shape != self.shape:
            raise ImageError(f"array: its shape {array.shape} isn't the grid's {self.shape} (z, y, x)")
        image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


def as_triple(values: ArrayLike) -> tuple[float, float, float]:
    """Three numbers (3,) as Python's floats."""
    x, y, z = np.asarray(values, float).tolist()
    return x, y, z


def ras_lattice(grid: Grid) -> np.ndarray:
    """(4, 4) float64: the matrix from a grid's indices (i, j, k, 1) to positions in RAS millimeters."""
    lattice = np.eye(4)
    lattice[:3, :3], lattice[:3, 3] = grid.matrix, grid.origin
    lattice[:3] = swap_lps_ras(lattice[:3].T).T
    return lattice


def nodule_grid(
    ct: sitk.Image,
    point_lps: Sequence[float] | np.ndarray,
    size: Sequence[int] = (64, 64, 64),
    spacing: float | Sequence[float] | None = None,
) -> Grid:
    """The grid of `size` voxels around a point, its axes nearest to patient left, posterior and superior.

    `spacing` in millimeters is a number or one number an axis (left, posterior, superior); None takes the CT's in-plane
    spacing, within [0.45, 1.0] mm, for all three. Along an axis whose CT spacing agrees within 1 % the CT's own spacing
    and voxel positions are used. The point lies within half a voxel of the grid's center. Raises `PointError` if the
    point isn't three finite numbers.
    """
    point = np.asarray(point_lps, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise PointError(f"point {point_lps}: it isn't three finite numbers")
    order, signs = _patient_axes(ct)
    ct_grid = Grid.of(ct)
    own = [ct_grid.spacing[axis] for axis in order]
    wanted = [_in_plane_spacing(own)] * 3 if spacing is None else np.broadcast_to(np.asarray(spacing, float), 3)
    used = as_triple([o if abs(w - o) <= SAME_SPACING * o else w for w, o in zip(wanted, own, strict=True)])
    columns = np.reshape(ct_grid.direction, (3, 3))[:, order] * signs
    i, j, k = (int(n) for n in size)
    lattice = Grid((i, j, k), used, ct_grid.origin, tuple(columns.ravel().tolist()))
    # The tiny shift keeps a point that lies right between two choices on one side of the rounding.
    start = np.floor(lattice.points_to_indices(point) - (np.asarray(size) - 1) / 2 + 0.5 + 1e-9)
    # Through the CT's own indices, so that a grid which starts at the CT's first voxel has exactly its origin.
    ct_start = np.zeros(3)
    ct_start[order] = start * signs * np.asarray(used) / own
    origin = ct_grid.indices_to_points(ct_start) if ct_start.any() else ct_grid.origin
    return replace(lattice, origin=as_triple(origin))


def grid_spacing(
    ct: sitk.Image, plane: float | None, magnification: float = 1.0, native_slices: bool = False
) -> tuple[float, float, float]:
    """Spacing (left, posterior, superior) in mm for `nodule_grid`.

    In plane `plane` or, if that is None, what `nodule_grid` takes by itself, over `magnification`. Along the body the
    same or, on the CT's native axial slices, the CT's, where that is the coarser one.
    """
    own = [ct.GetSpacing()[axis] for axis in _patient_axes(ct)[0]]
    plane = (plane or _in_plane_spacing(own)) / magnification
    return plane, plane, max(plane, own[2]) if native_slices else plane


def sample(ct: sitk.Image, grid: Grid, outside: float | None = AIR_HU) -> np.ndarray:
    """Linear interpolation of an image on a grid: float32 (z, y, x). Voxels outside the image get `outside` (air), or
    repeat the image's border if that is None (for a grid whose axes are parallel to the image's, as `nodule_grid`'s).

    Where the image is finer than the grid by more than 1.5 it is first smoothed along that axis by a Gaussian which
    widens its resolution to the grid's spacing. Only the part of the image that is needed is read and converted.
    """
    return _resample(sitk.GetArrayViewFromImage(ct), Grid.of(ct), grid, outside, smooth=True)


def put_back(values: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Values (z, y, x) on a nodule's grid, linearly interpolated on `target`: float32, 0 outside the nodule's grid."""
    return _resample(values, grid, target, 0.0, smooth=False)


def region_of_interest(ct: sitk.Image, region: Grid | ArrayLike, margin_mm: float = 0.0) -> Grid:
    """The CT's own sub-grid whose voxels' centers lie in a region of patient space, clipped to the CT.

    `region` is a `Grid` or LPS points (N, 3), whose bounding box along the CT's axes is taken; `margin_mm` widens it on
    each side. At least one voxel is returned along every axis; `PointError` if the region lies outside the CT.
    """
    ct_grid = Grid.of(ct)
    points = _corners(region) if isinstance(region, Grid) else np.atleast_2d(np.asarray(region, float))
    indices = ct_grid.points_to_indices(points)
    margin = margin_mm / np.asarray(ct_grid.spacing)
    low, high = indices.min(axis=0) - margin, indices.max(axis=0) + margin
    last = np.asarray(ct_grid.size) - 1
    if (high < -0.5 - _ON_LATTICE).any() or (low > last + 0.5 + _ON_LATTICE).any():
        raise PointError("region: it lies outside the volume")
    first = np.ceil(low - _ON_LATTICE).astype(int)
    end = np.floor(high + _ON_LATTICE).astype(int)
    # A region thinner than a voxel and between two centers: the voxel that its middle lies in.
    between = first > end
    nearest = np.floor((low + high) / 2 + 0.5).astype(int)
    first, end = np.where(between, nearest, first).clip(0, last), np.where(between, nearest, end).clip(0, last)
    return ct_grid.part(tuple(first.tolist()), tuple((end - first + 1).tolist()))


def crop(image: sitk.Image, grid: Grid) -> sitk.Image:
    """The part of an image that `grid`, one of its own sub-grids (see `region_of_interest`), covers: exact copy."""
    start = Grid.of(image).points_to_indices(grid.origin)
    index = np.rint(start).astype(int)
    fits = np.abs(start - index).max() < 1e-3 and np.allclose(Grid.of(image).matrix, grid.matrix, atol=1e-6)
    if not fits or (index < 0).any() or (index + grid.size > np.asarray(image.GetSize())).any():
        raise ImageError("grid: it isn't a part of the image's own grid")
    return sitk.RegionOfInterest(image, grid.size, index.tolist())


def _patient_axes(ct: sitk.Image) -> tuple[list[int], np.ndarray]:
    """For left, posterior, superior: which CT axis lies nearest, and whether it points there (+1) or away (-1)."""
    direction = np.reshape(ct.GetDirection(), (3, 3))
    order = max(permutations(range(3)), key=lambda axes: prod(abs(direction[row, a]) for row, a in enumerate(axes)))
    signs = np.array([1.0 if direction[row, axis] >= 0 else -1.0 for row, axis in enumerate(order)])
    return list(order), signs


def _in_plane_spacing(spacings: Sequence[float]) -> float:
    """The spacing that two axes share (the finest such), else the geometric mean of the finest two; clamped."""
    fine, middle, coarse = sorted(spacings)
    if middle - fine <= SAME_SPACING * fine:
        shared = fine
    elif coarse - middle <= SAME_SPACING * middle:
        shared = middle
    else:
        shared = (fine * middle) ** 0.5
    return min(max(shared, FINEST_SPACING_MM), COARSEST_SPACING_MM)


def _corners(grid: Grid) -> np.ndarray:
    """(8, 3) LPS positions of the corners of the box that the grid's voxels fill."""
    ends = [(-0.5, n - 0.5) for n in grid.size]
    return grid.indices_to_points(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3))


def _resample(array: np.ndarray, source: Grid, target: Grid, outside: float | None, smooth: bool) -> np.ndarray:
    """Linear interpolation of `array` (z, y, x on `source`) at the voxels of `target`; float32 (z, y, x)."""
    step = np.linalg.solve(source.matrix, target.matrix)  # source index = step @ target index + start
    start = source.points_to_indices(target.origin)
    largest = np.abs(step) == np.abs(step).max(axis=1, keepdims=True)
    rest = np.abs(np.where(largest, 0.0, step)) * (np.asarray(target.size) - 1)
    if (largest.sum(axis=0) == 1).all() and (largest.sum(axis=1) == 1).all() and rest.max() < _ON_LATTICE:
        return _resample_along_axes(array, source, target, step, start, outside, smooth)
    if outside is None:
        raise ValueError("outside: the border can only be repeated along axes that are parallel to the image's")
    return _resample_oblique(array, source, target, step, start, outside, smooth)


def _resample_along_axes(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    step: np.ndarray,
    start: np.ndarray,
    outside: float | None,
    smooth: bool,
) -> np.ndarray:
    """Axes parallel, in any order: one small matrix an axis. Coinciding voxels are copied exactly."""
    weights, parts, insides, order = [], [], [], []
    for axis in range(3):
        along = int(np.abs(step[axis]).argmax())
        positions = step[axis, along] * np.arange(target.size[along]) + start[axis]
        ratio = abs(step[axis, along]) if smooth else 1.0
        if outside is None:
            positions = positions.clip(0, source.size[axis] - 1)
        matrix, first, inside = _axis_weights(positions, source.size[axis], ratio)
        weights.append(matrix)
        parts.append(slice(first, first + matrix.shape[1]))
        insides.append(inside)
        order.append(along)
    block = np.asarray(array)[parts[2], parts[1], parts[0]].astype(np.float32)
    unknown = None if np.isfinite(block).all() else ~np.isfinite(block)
    if unknown is not None:
        block[unknown] = 0.0  # NaN times a weight of 0 would be NaN along whole lines
    block = _weighted(block, weights)
    if unknown is not None:
        block[_weighted(unknown.astype(np.float32), weights) > 0] = np.nan
    if not all(inside.all() for inside in insides):
        block[~np.logical_and.outer(np.logical_and.outer(insides[2], insides[1]), insides[0])] = outside
    # From the source's axes (z, y, x) to the target's.
    of_target = [2 - order.index(2 - position) for position in range(3)]
    return np.ascontiguousarray(block.transpose(of_target), dtype=np.float32)


def _weighted(block: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """The sums of a block (z, y, x) with one matrix an axis (x, y, z)."""
    block = np.matmul(block, weights[0].T)
    block = np.matmul(weights[1], block)
    return np.tensordot(weights[2], block, axes=1)


def _axis_weights(positions: np.ndarray, count: int, ratio: float) -> tuple[np.ndarray, int, np.ndarray]:
    """Rows of interpolation weights for `positions` (in voxels) on an axis of `count` voxels.

    Returns the weights (positions, voxels needed), the first voxel needed, and which positions lie on the axis.
    Positions in the outer half of the first and last voxel take that voxel's value.
    """
    inside = (positions >= -0.5 - _ON_LATTICE) & (positions <= count - 0.5 + _ON_LATTICE)
    nearest = np.rint(positions)
    positions = np.where(np.abs(positions - nearest) < _ON_LATTICE, nearest, positions).clip(0, count - 1)
    lower = np.floor(positions).astype(int)
    fraction = positions - lower
    kernel = _smoothing_kernel(ratio)
    radius = len(kernel) // 2
    taps = lower[:, None] + np.arange(-radius, radius + 2)
    values = np.zeros(taps.shape)
    values[:, :-1] += (1 - fraction)[:, None] * kernel
    values[:, 1:] += fraction[:, None] * kernel
    taps = taps.clip(0, count - 1)
    used = taps[inside] if inside.any() else taps[:1]
    first, last = int(used.min()), int(used.max())
    matrix = np.zeros((len(positions), last - first + 1), np.float32)
    rows = np.broadcast_to(np.flatnonzero(inside)[:, None], (int(inside.sum()), taps.shape[1]))
    np.add.at(matrix, (rows, taps[inside] - first), values[inside])
    return matrix, first, inside


def _smoothing_kernel(ratio: float) -> np.ndarray:
    """Gaussian weights that widen a resolution of one voxel (full width at half maximum) to `ratio` voxels."""
    if ratio <= SMOOTH_BEYOND:
        return np.ones(1)
    sigma = ((ratio**2 - 1) / (8 * np.log(2))) ** 0.5
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return kernel / kernel.sum()


def _resample_oblique(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    step: np.ndarray,
    start: np.ndarray,
    outside: float,
    smooth: bool,
) -> np.ndarray:
    """Axes at an angle to each other (a mask that was drawn on a reformatted volume, say)."""
    ranges = [np.arange(n, dtype=np.float64) for n in target.size]
    inside = np.ones(target.shape, bool)
    for row, begin, count in zip(step, start, source.size, strict=True):
        position = begin + row[0] * ranges[0] + (row[1] * ranges[1])[:, None] + (row[2] * ranges[2])[:, None, None]
        inside &= (position >= -0.5) & (position <= count - 0.5)
    if not inside.any():
        return np.full(target.shape, outside, np.float32)
    ratios = [min(target.spacing) / s if smooth else 1.0 for s in source.spacing]
    kernels = [_smoothing_kernel(ratio) for ratio in ratios]
    positions = source.points_to_indices(_corners(target))
    pads = np.array([len(kernel) // 2 + 2 for kernel in kernels])
    last = np.asarray(source.size)
    first = np.floor(positions.min(axis=0) - pads).astype(int).clip(0, last - 1)
    end = (np.ceil(positions.max(axis=0)).astype(int) + pads + 1).clip(first + 1, last)
    box = tuple(slice(a, b) for a, b in zip(first[::-1], end[::-1], strict=True))
    block = np.asarray(array)[box].astype(np.float32)
    for axis, kernel in enumerate(kernels):
        if len(kernel) > 1:
            block = convolve1d(block, kernel, axis=2 - axis, mode="nearest")
    result = affine_transform(
        block, step[::-1, ::-1], (start - first)[::-1], target.shape, np.float32, order=1, mode="nearest"
    )
    result[~inside] = outside
    return result
