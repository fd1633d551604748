"""Find the nodule: a nodule cube is moved and enlarged until the nodule at the point lies whole in its middle.

Kinds of nodules that training data have few of are looked for a second time: large ones, those with a cavity, and those
on a vessel that the outline has followed. That is done by the model's network for rare nodules, if it has one, and for
large ones also on pixels twice as wide, where they look half as large: at the CT's pixels a network sees nothing but
tissue around a point in a large mass, or nothing but air in a large cavity. What is found then counts only if it is of
such a kind; for every other nodule the result is that of the usual network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull

from LungNoduleKit import geometry
from LungNoduleKit.errors import NoNoduleError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import check_finite

from ..models.bundle import Model
from ..models.network_input import Averaging
from .prediction import Box, predict_cube

Point: TypeAlias = tuple[float, float, float]
Report: TypeAlias = Callable[[str, float], None]  # called with (stage, share done)

_WIDE_PIXELS = 2.0  # times the CT's pixels, for large nodules
_LARGE_MM = 30.0  # equivalent diameter from which on a nodule is looked for a second time
_MEASURED_MM = 40.0  # nodules as large as this had no part in the figures of any model
_LARGER = 1.25  # so many times the volume make it doubtful whether a cavity was left out
_MUCH_LARGER = 1.5  # so many times the volume count as another nodule, or as a part of one
_LONG_MM, _LONG = 25.0, 2.5  # an outline as long as this along the body, and so many times as in plane, is doubtful
_AIR_HU, _TISSUE_HU, _SOLID_HU = -700.0, -600.0, -300.0
_IN_TISSUE = 0.5  # share of what surrounds an outline that is solid: nodules at the pleura have up to 0.41
_CAVITY_SHARE, _CAVITY_MM3 = 0.05, 8.0  # of a nodule's volume, and at least, that is air deep inside it
_COMPACT = 0.6  # of its convex hull fills a nodule with a cavity; an outline that runs from bulla to bulla fills less
_BESIDE_MM, _GAP_MM, _PLANE = 2.0, 0.7, 128  # air beside a mask: how near, gaps in its wall, pixels looked at
_REACH_MM = 6.0  # a click this far beside the nodule still means it
# In widths of a pixel, of which a thick slice has several:
_BORDER = 3  # a nodule this near the cube's border makes the cube grow
_CONTEXT = 8  # what is computed outside the nodule's ends


class NoduleCube:
    """A nodule cube around a point: its grid, its HU (z, y, x), and the model applied to it.

    `clicked_lps` is the point that was given, which `point_lps`, the middle of this cube, may have moved away from.
    `pixels` are so many times as wide as the model's usual ones; the network takes them for those. `kind` says which
    rare kind a second look has found: `large`, `cavity` or `vessel`; `part` if it has found nothing larger although the
    outline lies in tissue; `air` if it has found no cavity but a larger nodule where air lies beside the outline; empty
    for every other nodule.
    """

    kind = ""

    def __init__(
        self,
        ct: sitk.Image,
        point_lps: Point,
        clicked_lps: Point,
        size: int,
        model: Model,
        native_slices: bool,
        pixels: float = 1.0,
    ):
        self.model, self.clicked_lps, self.pixels = model, clicked_lps, pixels
        options = model.metadata.input
        spacing = geometry.grid_spacing(ct, options.spacing_mm, options.magnification / pixels, native_slices)
        self.grid = geometry.nodule_grid(ct, point_lps, (size, size, size), spacing)
        # Outside the CT its border goes on: a step to air there would look like the nodule's end.
        self.hu = geometry.sample(ct, self.grid, outside=None)
        check_finite(self.hu, "CT, near the nodule")
        self.spacing = np.array(self.grid.spacing[::-1])
        self.point, self.clicked = (
            np.array(index)[::-1] for index in self.grid.points_to_indices([point_lps, clicked_lps])
        )
        self.outside = _outside(ct, self.grid)

    def predict(
        self,
        box: Box | None = None,
        averaging: Averaging | None = None,
        progress: Callable[[float], None] | None = None,
        networks: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Probability maps {output: float32 (z, y, x)}, zero outside the CT; see `predict_cube`."""
        spacing = self.spacing / self.pixels
        maps = predict_cube(self.model, self.hu, -self.point * spacing, spacing, box, averaging, progress, networks)
        for values in maps.values():
            for axis, outside in enumerate(self.outside):
                np.moveaxis(values, axis, 0)[outside] = 0.0
        return maps

    def slices(self, pixels: int) -> np.ndarray:
        """Per axis (z, y, x), how many slices are as thick together as so many pixels are wide."""
        return np.ceil(pixels * self.spacing[1] / self.spacing - 1e-6).astype(int)

    def around_point(self, pixels: int = 14) -> Box:
        """The part of the cube that is computed first: all of every slice, but only slices near the point."""
        middle, slices = round(float(self.point[0])), int(self.slices(pixels)[0])
        depth, height, width = self.hu.shape
        return (max(middle - slices, 0), min(middle + slices + 1, depth)), (0, height), (0, width)

    def around_mask(self, mask: np.ndarray, grid: Grid) -> Box:
        """Slices per axis that a mask (z, y, x) on another cube's grid occupies in this one, with context around it,
        so that the network sees where the nodule ends.
        """
        used = np.argwhere(mask)
        corners = grid.indices_to_points([used.min(0)[::-1], used.max(0)[::-1]])
        low, high = np.round(self.grid.points_to_indices(corners)).astype(int)[:, ::-1]
        z, y, x = (
            (int(np.clip(a - c, 0, n - 1)), int(np.clip(b + c + 1, 1, n)))
            for a, b, c, n in zip(low, high, self.slices(_CONTEXT), self.hu.shape, strict=True)
        )
        return z, y, x

    def nodule(self, maps: dict[str, np.ndarray], threshold: float) -> np.ndarray | None:
        """Mask of the part that was clicked or, of a click beside it, the part at the cube's point.

        A cube centered on two parts that were connected in an earlier one may have the wrong one at its point.
        """
        values, index = maps["final"], np.round(self.clicked).astype(int)
        seen = (index >= 0).all() and (index < values.shape).all() and values[tuple(index)] >= threshold
        return _nodule_at(values, threshold, self.clicked if seen else self.point, self.spacing)

    def touches_border(self, mask: np.ndarray, box: Box | None = None) -> bool:
        """Whether a mask comes near the border of the cube, or of a side of `box` where the cube goes on outside it."""
        inner = []
        for axis, (size, border) in enumerate(zip(mask.shape, self.slices(_BORDER), strict=True)):
            low, high = box[axis] if box else (0, size)
            counts_low, counts_high = box is None or low > 0, box is None or high < size
            inner.append(slice(low + border if counts_low else 0, high - border if counts_high else size))
        return bool(mask[tuple(inner)].sum() < mask.sum())

    @property
    def is_largest(self) -> bool:
        """Whether the model may look at no larger cube."""
        return self.hu.shape[0] >= self.model.metadata.input.cube_sizes[-1]

    def to_point(self, index_zyx: np.ndarray) -> Point:
        """LPS position (mm) of an index (z, y, x)."""
        x, y, z = self.grid.indices_to_points([tuple(index_zyx[::-1])])[0]
        return float(x), float(y), float(z)


Found: TypeAlias = tuple[NoduleCube, np.ndarray]  # with the nodule's mask (z, y, x) in the cube


def find_nodule(
    ct: sitk.Image, point_lps: Point, model: Model, native_slices: bool, threshold: float, report: Report
) -> Found:
    """(cube centered on the nodule and large enough for it, the nodule's mask (z, y, x) in it).

    The cube's `model` has the network for rare nodules if the nodule is of such a kind (see `NoduleCube.kind`). Raises
    NoNoduleError when no voxel of Final reaches `threshold` near the point.
    """

    def search(with_model: Model, pixels: float = 1.0) -> Found | None:
        with suppress(NoNoduleError):
            return _search(ct, point_lps, with_model, native_slices, pixels, threshold, report)
        return None

    usual = search(model)
    large, part, odd = (True, False, False) if usual is None else _doubts(*usual)
    air = bool(usual and model.rare and _air_beside(ct, *usual))
    if usual and not (large or part or (model.rare and (odd or air))):
        return usual
    rare = model.rare or model
    again = search(rare) if model.rare else usual
    if large or part or (again and _volume_mm3(*again) >= _ball_mm3(_LARGE_MM)):
        again = _larger(again, search(rare, _WIDE_PIXELS))
    kind = _kind(usual, again)
    if again and kind:
        again[0].kind = kind
        return again
    if usual is None:
        where = ", ".join(f"{v:.1f}" for v in point_lps)
        raise NoNoduleError(f"no nodule found within {_REACH_MM:g} mm of the point ({where}) mm LPS")
    beyond = _volume_mm3(*usual) >= _ball_mm3(_MEASURED_MM)
    left_out = air and again is not None and _volume_mm3(*again) > _LARGER * _volume_mm3(*usual)
    usual[0].kind = "part" if part else "large" if beyond else "air" if left_out else ""
    return usual


def _doubts(cube: NoduleCube, mask: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether a mask is large, may be a part of something large, or is long as a vessel."""
    large = _volume_mm3(cube, mask) >= _ball_mm3(_LARGE_MM)
    return large, not large and _lies_in_tissue(cube, mask), _is_long(cube, mask)


def _larger(narrow: Found | None, wide: Found | None) -> Found | None:
    """What was found on wide pixels, if that is much larger."""
    if wide is None or (narrow and _volume_mm3(*wide) < _MUCH_LARGER * _volume_mm3(*narrow)):
        return narrow
    return wide


def _kind(usual: Found | None, again: Found | None) -> str:
    """The rare kind that a second look has found; empty if it counts for nothing."""
    if again is None or again is usual:
        return ""
    own, volume = _volume_mm3(*usual) if usual else 0.0, _volume_mm3(*again)
    if _has_cavity(*again) and volume > 1.1 * own:
        return "cavity"
    if volume >= max(_ball_mm3(_LARGE_MM), _MUCH_LARGER * own):
        return "large"
    return "vessel" if usual and _is_long(*usual) and volume < own / _MUCH_LARGER else ""


def _volume_mm3(cube: NoduleCube, mask: np.ndarray) -> float:
    return float(mask.sum() * np.prod(cube.spacing))


def _ball_mm3(diameter_mm: float) -> float:
    return float(np.pi / 6 * diameter_mm**3)


def _is_long(cube: NoduleCube, mask: np.ndarray) -> bool:
    """Whether a mask is far longer along the body than in plane, as one that has followed a vessel is."""
    used = np.argwhere(mask)
    length = float(np.ptp(used[:, 0]) + 1) * cube.spacing[0]
    widest = mask.sum((1, 2)).max() * cube.spacing[1] * cube.spacing[2]
    return length > max(_LONG_MM, _LONG * 2 * np.sqrt(widest / np.pi))


def _lies_in_tissue(cube: NoduleCube, mask: np.ndarray) -> bool:
    """Whether a mask has tissue on most sides in plane, 1 to 4 pixels away, as a part of a mass has."""
    near, far = (ndimage.binary_dilation(mask, np.ones((1, 3, 3)), iterations=n) for n in (1, 4))
    return bool((cube.hu[far & ~near] > _SOLID_HU).mean() >= _IN_TISSUE)


def _has_cavity(cube: NoduleCube, mask: np.ndarray) -> bool:
    """Whether a mask is compact and has air deep inside it, farther from its border than outlines are loose."""
    deep = ndimage.binary_erosion(mask, np.ones((1, 3, 3)), iterations=2)
    air = (deep & (cube.hu < _AIR_HU)).sum()
    enough = air >= max(_CAVITY_SHARE * mask.sum(), _CAVITY_MM3 / np.prod(cube.spacing))
    return bool(enough and _share_of_hull(mask) >= _COMPACT)


def _share_of_hull(mask: np.ndarray) -> float:
    """How much of its convex hull a mask fills."""
    voxels = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    corners = voxels[:, None] + np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    return float(mask.sum() / ConvexHull(corners.reshape(-1, 3)).volume)


def _air_beside(ct: sitk.Image, cube: NoduleCube, mask: np.ndarray) -> bool:
    """Whether in axial slices there is air in or right beside a mask with tissue all around it, as a cavity's.

    Where a cavity's wall is thin it may look open, so gaps of `_GAP_MM` on either side count as closed.
    """
    spacing = cube.spacing
    where = cube.to_point(np.round(ndimage.center_of_mass(mask)))
    slices = int(np.ptp(np.argwhere(mask)[:, 0])) + 1 + 2 * int(np.ceil(_BESIDE_MM / spacing[0]))
    grid = geometry.nodule_grid(ct, where, (_PLANE, _PLANE, slices), cube.grid.spacing)
    hu = geometry.sample(ct, grid, outside=None)
    near = _distance_mm(cube, mask, grid) <= _BESIDE_MM
    gap = round(_GAP_MM / spacing[1])
    rows, columns = np.mgrid[-gap : gap + 1, -gap : gap + 1]
    disk = np.hypot(rows, columns) <= gap + 0.1
    enclosed = np.zeros_like(near)
    for number, one in enumerate(hu > _TISSUE_HU):
        if near[number].any():
            closed = ndimage.binary_fill_holes(ndimage.binary_dilation(one, disk))
            enclosed[number] = ndimage.binary_erosion(closed, disk, border_value=1)
    air = enclosed & near & (hu < _AIR_HU)
    return bool(air.sum() * grid.voxel_volume_mm3 >= _CAVITY_MM3)


def _distance_mm(cube: NoduleCube, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Of each voxel (z, y, x) of a grid with the cube's spacing, how far it lies from a mask in the cube."""
    placed = np.zeros(grid.shape, bool)
    first = np.rint(grid.points_to_indices(cube.grid.origin)).astype(int)[::-1]
    at = np.argwhere(mask) + first
    at = at[((at >= 0) & (at < grid.shape)).all(1)]
    placed[tuple(at.T)] = True
    return ndimage.distance_transform_edt(~placed, sampling=grid.spacing[::-1])


def _search(
    ct: sitk.Image,
    point_lps: Point,
    model: Model,
    native_slices: bool,
    pixels: float,
    threshold: float,
    report: Report,
) -> Found:
    """As `find_nodule`, by one network on pixels of one width."""
    sizes = model.metadata.input.cube_sizes

    def cube_at(point: Point, size: int) -> NoduleCube:
        return NoduleCube(ct, point, point_lps, size, model, native_slices, pixels)

    cube = cube_at(point_lps, sizes[0])
    box = cube.around_point()
    for attempt in range(2 * len(sizes) + 2):
        mask = _look(cube, box, threshold, attempt, report)
        # Moving by whole voxels keeps the lattice: clicks in the same voxel have the same result to the last bit.
        center = np.round(np.array(ndimage.center_of_mass(mask)))
        shift = np.abs(center - np.round(cube.point)).max()
        size = cube.hu.shape[0]
        grows = cube.touches_border(mask) and size < sizes[-1]
        settled = attempt and (shift < 1 or (attempt > 1 and shift < 2))  # it may swing between neighboring voxels
        if settled and not grows and not cube.touches_border(mask, box):
            break
        size = next(s for s in sizes if s > size) if grows else size
        previous, cube = cube, cube_at(cube.to_point(center), size)
        box = cube.around_mask(mask, previous.grid)
    return cube, mask


def _look(cube: NoduleCube, box: Box, threshold: float, attempt: int, report: Report) -> np.ndarray:
    """The nodule's mask in a cube, by one network alone: it only has to be found. Raises NoNoduleError."""
    begin = min(0.1 + 0.1 * attempt, 0.45)
    report("finding the nodule", begin)
    maps = cube.predict(box, progress=lambda share: report("finding the nodule", begin + 0.05 * share), networks=1)
    mask = cube.nodule(maps, threshold)
    if mask is None:
        where = ", ".join(f"{v:.1f}" for v in cube.clicked_lps)
        raise NoNoduleError(f"no nodule found within {_REACH_MM:g} mm of the point ({where}) mm LPS")
    return mask


def _nodule_at(
    probability: np.ndarray, threshold: float, point_index: np.ndarray, spacing: np.ndarray
) -> np.ndarray | None:
    """Mask of the connected part (final >= threshold) that holds the voxel `point_index` or lies within reach of it."""
    labels, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    if count == 0:
        return None
    index = np.clip(np.round(point_index).astype(int), 0, np.array(labels.shape) - 1)
    label = labels[tuple(index)]
    if label == 0:
        distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling=spacing, return_indices=True)
        if distance[tuple(index)] > _REACH_MM:
            return None
        label = labels[tuple(axis[tuple(index)] for axis in nearest)]
    return labels == label


def _outside(ct: sitk.Image, grid: Grid) -> Sequence[np.ndarray]:
    """Per axis (z, y, x), which slices of a grid lie outside the CT: there is no nodule there."""
    slices = []
    for axis in range(3):
        line = np.zeros((grid.size[axis], 3))
        line[:, axis] = np.arange(grid.size[axis])
        at = Grid.of(ct).points_to_indices(grid.indices_to_points(line))
        along = int(np.ptp(at, axis=0).argmax())  # the CT's axis that this one runs along
        slices.append((at[:, along] < -0.5) | (at[:, along] > ct.GetSize()[along] - 0.5))
    return slices[::-1]
