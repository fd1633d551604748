"""A nodule's cube: the CT around it at the scan's pixel spacing in all directions, with its readers' masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.geometry import Grid, sample
from LungNoduleUncertaintyLib.measuring.measurements import equivalent_diameter_mm

from .contours import bounding_box, interpolate_slices, stacked_masks
from .dicom import slice_heights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import SimpleITK as sitk

    from .database import Annotation, Scan

AIR_HU = -1024.0


class CubeError(NoduleError):
    """A nodule of which no cube can be made: too large, outside of the series, or empty."""


@dataclass
class Cube:
    """CT in HU, int16 (z, y, x), and masks, bool (readers, z, y, x), on one isotropic grid (LPS mm)."""

    grid: Grid
    hu: np.ndarray = field(repr=False)
    readers: np.ndarray = field(repr=False)


def nodule_cube(
    image: sitk.Image, annotations: Sequence[Annotation], *, size: int = 64, margin: int = 6, **options
) -> Cube:
    """The cube of one nodule from the scan's CT (see `dicom.read_scan`); one mask for each annotation, in their order.

    In plane it has `size` x `size` of the image's own pixels around the nodule, without interpolation. Along z it is
    sampled at the pixel spacing, from `margin` voxels below to `margin` above the nodule, at most `size` slices. Masks
    are interpolated linearly between slices, and what reaches 0.5 is inside; options as for `contours.slice_mask`.
    Outside of the image there is air. Raises `CubeError` if a reader's mask is empty or the nodule leaves the cube.
    """
    spacing = image.GetSpacing()[0]
    heights = slice_heights(image)
    order = np.argsort(heights)
    low, high = bounding_box(annotations)
    if (high - low + 1 > size).any():
        raise CubeError(f"the outlines span {high - low + 1} pixels, more than the cube's {size}")
    start = (low + high + 1) // 2 - size // 2
    gap = abs(heights[1] - heights[0])
    masks = stacked_masks(annotations, heights[order], start, (size, size), tolerance=gap / 2, **options)[:, order]
    empty = [a.annotation_id for a, mask in zip(annotations, masks, strict=True) if not mask.any()]
    if empty:
        raise CubeError(f"annotation {empty[0]} has no pixel inside of its outlines")
    used = np.flatnonzero(masks.any(axis=(0, 2, 3)))
    steps = image.GetSpacing()[2] / spacing
    # Positions along the image's own third axis in slices; the middle of the nodule is the middle of the grid.
    middle, reach = (used[0] + used[-1]) / 2, ceil((used[-1] - used[0] + 2) * steps / 2)
    wanted = middle + np.arange(-reach, reach + 1) / steps
    part = slice(max(used[0] - 1, 0), used[-1] + 2)
    readers = interpolate_slices(masks[:, part], np.arange(len(heights))[part], wanted)
    inside = np.flatnonzero(readers.any(axis=(0, 2, 3)))
    if not readers.any(axis=(1, 2, 3)).all():
        raise CubeError("a reader's mask is lost between the slices")
    count = inside[-1] - inside[0] + 1
    if count > size:
        raise CubeError(f"the nodule spans {count} slices of {spacing:.3f} mm, more than the cube's {size}")
    added = min(margin, (size - count) // 2)
    first, last = inside[0] - added, inside[-1] + added
    padding = ((0, 0), (max(0, -first), max(0, last + 1 - len(wanted))), (0, 0), (0, 0))
    readers = np.pad(readers, padding)[:, first + padding[1][0] : last + 1 + padding[1][0]]
    bottom = wanted[0] + first / steps
    whole = Grid.of(image)
    origin = whole.indices_to_points((float(start[1]), float(start[0]), float(bottom)))
    grid = Grid((size, size, readers.shape[1]), (spacing,) * 3, tuple(origin.tolist()), whole.direction)
    hu = np.clip(np.rint(sample(image, grid, AIR_HU)), -32768, 32767).astype(np.int16)
    return Cube(grid, hu, readers)


def cube_row(
    nodule_id: str, scan: Scan, fold: int, cube: Cube, annotations: Sequence[Annotation], slice_mm: float
) -> dict[str, str]:
    """The nodule's line of `nodules.csv`: counts, spacings, volumes in mm³ and mean ratings, as text."""
    voxel = cube.grid.voxel_volume_mm3
    consensus = 2 * cube.readers.sum(0) >= len(cube.readers)
    volume = consensus.sum() * voxel
    ratings = {name: np.mean([a.ratings[name] for a in annotations]) for name in annotations[0].ratings}
    return {
        "nodule_id": nodule_id,
        "patient_id": scan.patient_id,
        "scan_id": str(scan.scan_id),
        "fold": str(fold),
        "readers": str(len(annotations)),
        "annotation_ids": " ".join(str(a.annotation_id) for a in annotations),
        "pixel_spacing_mm": f"{cube.grid.spacing[0]:.6f}",
        "z_spacing_mm": f"{cube.grid.spacing[2]:.6f}",
        "ct_slice_spacing_mm": f"{slice_mm:.4f}",
        "slices": str(cube.grid.size[2]),
        "largest_consensus_slice": str(int(consensus.sum(axis=(1, 2)).argmax())),
        "consensus_volume_mm3": f"{volume:.2f}",
        "consensus_equivalent_diameter_mm": f"{equivalent_diameter_mm(volume):.2f}",
        "intersection_volume_mm3": f"{cube.readers.all(0).sum() * voxel:.2f}",
        "union_volume_mm3": f"{cube.readers.any(0).sum() * voxel:.2f}",
        "reader_volumes_mm3": " ".join(f"{mask.sum() * voxel:.2f}" for mask in cube.readers),
        **{name: f"{value:.2f}" for name, value in ratings.items()},
    }
