"""The connected parts of a mask: where each one's nodule is, and whether it can be one.

A detector's mask holds several nodules; their common centroid lies on none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from .errors import MaskError, PointError
from .geometry import Grid, as_triple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Longest side in mm of a nodule's or mass' mask; what is longer is something else, such as a lung.
LARGEST_MM = 100.0
#: Parts smaller than a ball of 3 mm, the smallest nodule that LIDC's readers outlined, are specks beside larger ones.
SPECK_MM3 = 14.0
#: Parts with a gap of at most this are one: readers' outlines of one nodule fall apart on thick slices.
GAP_MM = 3.0
_MOST_PARTS = 200


@dataclass(frozen=True)
class MaskPart:
    """One nodule of a mask: a point inside of it (LPS mm), its volume, and the longest side of its box."""

    point_lps: tuple[float, float, float]
    volume_mm3: float
    longest_mm: float


def mask_parts(mask: sitk.Image, warn: Callable[[str], object] | None = None) -> list[MaskPart]:
    """The parts of a mask image (non-zero inside), the largest first; parts equally large in the order of the voxels.

    A part's point is its centroid or, where that lies outside of the part (a bent or ring-shaped one), the point that
    lies deepest in it. Parts of less than `SPECK_MM3` beside a larger one are left out, which `warn` is told. Raises
    `PointError` when the mask is empty.
    """
    labels, count = _labeled(mask)
    if not count:
        raise PointError("the mask given as the nodule's place is empty")
    grid = Grid.of(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * grid.voxel_volume_mm3
    sizes[0] = 0.0
    # Of a mask full of specks the larger ones are enough.
    whole = np.arange(1, count + 1) if count <= _MOST_PARTS else np.argsort(-sizes, kind="stable")[:_MOST_PARTS]
    groups = _groups(labels, sorted(whole.tolist()), ndimage.find_objects(labels), grid)
    volumes = [float(sizes[group].sum()) for group in groups]
    kept = [group for group, size in zip(groups, volumes, strict=True) if size >= SPECK_MM3]
    kept = kept or [groups[int(np.argmax(volumes))]]
    left_out = count - sum(len(group) for group in kept)
    if left_out and warn:
        specks = "a speck" if left_out == 1 else f"{left_out} specks"
        warn(f"the mask given as the nodule's place: {specks} of less than {SPECK_MM3:g} mm3 left out")
    table = np.zeros(count + 1, np.uint16)
    for number, group in enumerate(kept, 1):
        table[group] = number
    numbers = table[labels]
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(grid.image(numbers))
    parts = [
        _part(numbers[box] == number, box, as_triple(shape.GetCentroid(number)), grid)
        for number, box in enumerate(ndimage.find_objects(numbers), 1)
    ]
    return sorted(parts, key=lambda part: -part.volume_mm3)


def place_of(mask: sitk.Image, part: int | None = None, warn: Callable[[str], object] | None = None) -> MaskPart:
    """The one part of a mask, or its part number `part`, counted from 1 by size.

    Raises `MaskError` for several parts without `part`, and for a number that there isn't; `PointError` when the mask
    is empty.
    """
    parts = mask_parts(mask, warn)
    if part is None and len(parts) > 1:
        raise MaskError(f"the mask given as the nodule's place has {described(parts)}; choose one (--part)")
    if part is not None and not 1 <= part <= len(parts):
        raise MaskError(f"the mask given as the nodule's place has no part {part}: it has {described(parts)}")
    return parts[(part or 1) - 1]


def described(parts: list[MaskPart]) -> str:
    """How many parts there are, with the number, volume and place of each."""
    told = [
        f"{number}: {part.volume_mm3:.0f} mm3 at ({', '.join(f'{v:.1f}' for v in part.point_lps)})"
        for number, part in enumerate(parts[:6], 1)
    ]
    more = f"; and {len(parts) - 6} more" if len(parts) > 6 else ""
    return f"{len(parts)} part{'s' * (len(parts) > 1)} ({'; '.join(told)}{more}; mm LPS)"


def check_plausible(mask: sitk.Image, name: str) -> None:
    """Raises `MaskError` where a connected part of the mask is longer than a nodule or mass (`LARGEST_MM`)."""
    array = sitk.GetArrayViewFromImage(mask)
    grid = Grid.of(mask)
    used = [np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if all(len(u) and (u[-1] - u[0] + 1) * s <= LARGEST_MM for u, s in zip(used, grid.spacing[::-1], strict=True)):
        return  # all parts together are small enough
    labels, _ = _labeled(mask)
    longest = max((_longest(box, grid) for box in ndimage.find_objects(labels)), default=0.0)
    if longest > LARGEST_MM:
        raise MaskError(f"{name}: it is {longest:.0f} mm long, no nodule (at most {LARGEST_MM:g} mm): a lung's mask?")


def _labeled(mask: sitk.Image) -> tuple[np.ndarray, int]:
    """Connected parts (z, y, x) by number, corners touching, and how many there are."""
    labels, count = ndimage.label(sitk.GetArrayViewFromImage(mask) != 0, np.ones((3, 3, 3)))
    return labels, int(count)


def _groups(labels: np.ndarray, numbers: list[int], boxes: list, grid: Grid) -> list[list[int]]:
    """Parts with small gaps between them, together."""
    points = {}
    for number in numbers if len(numbers) > 1 else ():
        box = boxes[number - 1]
        index = np.argwhere(labels[box] == number) + [side.start for side in box]
        points[number] = grid.indices_to_points(index[:, ::-1])
    groups = [[number] for number in numbers]
    for number in numbers:
        mine = next(group for group in groups if number in group)
        for other in numbers:
            if other not in mine and _near(points[number], points[other], grid):
                theirs = next(group for group in groups if other in group)
                groups.remove(theirs)
                mine += theirs
    return [sorted(group) for group in groups]


def _near(one: np.ndarray, other: np.ndarray, grid: Grid) -> bool:
    """Whether voxels of two parts come near: the gap is what lies between the voxels' sides."""
    reach = GAP_MM + max(grid.spacing)
    if (one.min(0) - reach > other.max(0)).any() or (other.min(0) - reach > one.max(0)).any():
        return False
    few, many = (one, other) if len(one) < len(other) else (other, one)
    return bool(cKDTree(many).query(few, distance_upper_bound=reach)[0].min() <= reach)


def _part(inside: np.ndarray, box: tuple[slice, ...], centroid: tuple[float, float, float], grid: Grid) -> MaskPart:
    """`inside` (z, y, x) is the part in its box."""
    start = np.array([side.start for side in box])
    index = np.rint(grid.points_to_indices(centroid)).astype(int)[::-1] - start
    fits = (index >= 0).all() and (index < inside.shape).all()
    point = centroid if fits and inside[tuple(index)] else _deepest(inside, index, start, grid)
    return MaskPart(point, float(inside.sum() * grid.voxel_volume_mm3), _longest(box, grid))


def _deepest(inside: np.ndarray, centroid: np.ndarray, start: np.ndarray, grid: Grid) -> tuple[float, float, float]:
    """Of the voxels that lie deepest in a part, the one nearest to its centroid (an index in its box): LPS mm."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=grid.spacing[::-1])[1:-1, 1:-1, 1:-1]
    candidates = np.argwhere(depth >= depth.max() - 1e-9)
    nearest = np.linalg.norm((candidates - centroid) * grid.spacing[::-1], axis=1).argmin()
    return as_triple(grid.indices_to_points((candidates[nearest] + start)[::-1]))


def _longest(box: Iterable[slice], grid: Grid) -> float:
    return max((side.stop - side.start) * step for side, step in zip(box, grid.spacing[::-1], strict=True))
