"""CT volumes and masks from files and DICOM folders, checked before use.

Positions are LPS millimeters, voxel values Hounsfield units (rescale slope and intercept applied by the DICOM reader).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .dicom import is_dicom, read_files, read_series
from .errors import ImageError, MaskError, NoduleError, PointError
from .files import read_image
from .geometry import Grid, swap_lps_ras
from .hounsfield import value_warnings
from .segmentation_file import is_segmentation, segments_of
from .warning_codes import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SAME_GRID = 1e-3  # two grids are one if no voxel lies farther apart than this share of a voxel


def read_ct(
    path: str | Path, series_uid: str | None = None, *, warn: Callable[[str], object] = warnings.warn
) -> sitk.Image:
    """A CT in HU from an image file (NRRD, NIfTI, MetaImage, ...), a DICOM file, or a folder of DICOM files.

    A folder is searched with its sub-folders. Without `series_uid` the CT series with the most slices is taken, frames
    of multi-frame images counted one by one; `UID#2` names the second of several stacks or phases in a series. Slices
    are ordered by position; those of a tilted gantry keep their places. Raises `ImageError` for a missing or unreadable
    file, a folder without a CT series or with several that are equally long, and slices that are missing, doubled or
    not alike (`docs/reference/odd-input.md` lists every case). `warn` is called with a line for each thing that is
    doubtful, such as files that were left out.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return read_series(path, series_uid, warn)
    if is_dicom(path):
        return read_files([str(path)], str(path), series_uid, warn, any_image=True)
    return read_image(path)


def read_volume(
    path: str | Path, series_uid: str | None = None, *, warn: Callable[[str], object] = warnings.warn
) -> sitk.Image:
    """A scalar volume from a file or a folder of DICOM, as `read_ct`; a 2D image becomes one slice.

    Raises `ImageError`, for colors and for more than three axes too.
    """
    image = _as_volume(read_ct(path, series_uid, warn=warn))
    check_volume(image, str(path))
    return image


def read_mask(path: str | Path, ct: sitk.Image | None = None) -> sitk.Image:
    """A mask from an image file, non-zero inside, or the union of a `.seg.nrrd`'s segments: uint8 (0, 1), own grid.

    Raises `ImageError` if it can't be read, isn't a scalar 3D image, is empty, or lies outside the CT if one is given.
    """
    image = read_image(path)
    masks = list(_masks(image, path).values())  # named: a view doesn't keep its image alive
    inside = np.any([sitk.GetArrayViewFromImage(mask) for mask in masks], axis=0)
    grid = Grid.of(image)
    _check_geometry(grid, str(path))
    if not inside.any():
        raise MaskError(f"{path}: the mask is empty")
    if ct is not None:
        k, j, i = np.nonzero(inside)
        where = Grid.of(ct).points_to_indices(grid.indices_to_points(np.stack([i, j, k], axis=-1)))
        if not ((where >= -0.5) & (where <= np.asarray(ct.GetSize()) - 0.5)).all(axis=1).any():
            raise MaskError(f"{path}: the mask lies outside the CT")
    return grid.image(inside.astype(np.uint8))


def read_masks(path: str | Path) -> dict[str, sitk.Image]:
    """The masks of a file: every segment of a `.seg.nrrd` by its name, or one mask, non-zero inside, of an image.

    Uint8 (0, 1) on the file's own grid, in the file's order; a 2D image becomes one slice. Raises `ImageError` if the
    file can't be read, and its `MaskError` if it isn't a mask or all of its masks are empty.
    """
    masks = _masks(_as_volume(read_image(path)), path)
    if not any(sitk.GetArrayViewFromImage(mask).any() for mask in masks.values()):
        raise MaskError(f"{path}: it is empty")
    return masks


def _masks(image: sitk.Image, path: str | Path) -> dict[str, sitk.Image]:
    if is_segmentation(image):
        return segments_of(image, str(path))
    check_volume(image, str(path), MaskError)
    return {"mask": Grid.of(image).image(sitk.GetArrayViewFromImage(image) != 0)}


def _as_volume(image: sitk.Image) -> sitk.Image:
    return sitk.JoinSeries(image) if image.GetDimension() == 2 else image


def on_grid(labels: sitk.Image, image: sitk.Image, name: str, notes: list[str] | None = None) -> sitk.Image:
    """Labels on the image's grid: as they are if they have it, otherwise by nearest neighbor, which `notes` is told.

    A cropped grid (Slicer writes segmentations so) is put in place exactly and without a note. Raises `MaskError` if
    nothing of non-empty labels lies inside the image.
    """
    if labels.GetSize() == image.GetSize() and _is_part(labels, image, offset=(0, 0, 0)):
        return labels
    if notes is not None and not _is_part(labels, image):
        notes.append(f"{name} lies on another grid than the image: resampled by nearest neighbor")
    moved = sitk.Resample(labels, image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0)
    if sitk.GetArrayViewFromImage(labels).any() and not np.any(sitk.GetArrayViewFromImage(moved)):
        raise MaskError(f"{name}: nothing of it lies inside the image")
    return moved


def _is_part(one: sitk.Image, other: sitk.Image, offset: tuple[int, int, int] | None = None) -> bool:
    """Whether the first image's voxels are voxels of the other; `offset`: from which index on."""
    corners = [(0, 0, 0), *(tuple(n - 1 if axis == k else 0 for k, n in enumerate(one.GetSize())) for axis in range(3))]
    there = [other.TransformPhysicalPointToContinuousIndex(one.TransformIndexToPhysicalPoint(c)) for c in corners]
    start = np.rint(there[0]) if offset is None else np.asarray(offset)
    return bool(np.abs(np.asarray(there) - (np.asarray(corners) + start)).max() < _SAME_GRID)


def check_ct(image: sitk.Image, name: str = "CT", check_region: Grid | None = None) -> list[str]:
    """Refuses what can't be segmented, with an `ImageError`; returns a line for each thing that is merely suspicious.

    Refused: color or vector voxels, 2D, 4D and single-slice images, empty images, a spacing that is zero, negative or
    not finite, directions that aren't finite or don't span space, NaN or infinite voxels. `check_region`, a sub-grid of
    the image, limits the search for the latter. Suspicious: values that don't look like HU, and a tilted gantry.
    """
    check_volume(image, name)
    grid = Grid.of(image)
    if min(grid.size) < 2:
        raise ImageError(f"{name}: it has a single slice {grid.size}; a volume is needed")
    _check_geometry(grid, name)
    array = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(array.dtype, np.floating):
        part = array
        if check_region is not None:
            first = np.rint(grid.points_to_indices(check_region.origin)).astype(int).clip(0)
            part = array[tuple(slice(f, f + n) for f, n in zip(first[::-1], check_region.shape, strict=True))]
        bad = sum(int(plane.size - np.isfinite(plane).sum()) for plane in part)
        if bad:
            raise ImageError(f"{name}: {bad} voxels are NaN or infinite")
    return [*_tilt_warning(grid, name), *value_warnings(array, name)]


def check_point(point: Sequence[float], image: sitk.Image, name: str = "point") -> tuple[float, float, float]:
    """The point as three floats (LPS millimeters); `PointError` if it isn't three finite numbers inside the volume."""
    try:
        values = np.asarray(point, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise PointError(f"{name} {point}: it isn't three finite numbers")
    grid = Grid.of(image)
    if not grid.contains(values):
        ends = [(-0.5, n - 0.5) for n in grid.size]
        corners = grid.indices_to_points(np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3))
        bounds = zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
        spans = ", ".join(f"{axis} {low:.1f} to {high:.1f}" for axis, low, high in bounds)
        hint = "; as RAS it would lie inside" if grid.contains(swap_lps_ras(values)) else ""
        place = ", ".join(f"{v:.1f}" for v in values)
        raise PointError(f"{name} ({place}): outside the volume, which spans {spans} mm (LPS){hint}")
    x, y, z = values.tolist()
    return x, y, z


def check_volume(image: sitk.Image, name: str, error: type[NoduleError] = ImageError) -> None:
    """Raises `error` unless the image has three axes and one real number a voxel, and isn't empty."""
    if image.GetNumberOfPixels() == 0:
        raise error(f"{name}: the image is empty")
    if image.GetNumberOfComponentsPerPixel() != 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise error(f"{name}: it has {count} values a voxel (color or vector); one is needed")
    if "complex" in image.GetPixelIDTypeAsString():
        raise error(f"{name}: its voxels are complex numbers")
    if image.GetDimension() != 3:
        raise error(f"{name}: it is {image.GetDimension()}D {image.GetSize()}; a 3D volume is needed")


def _check_geometry(grid: Grid, name: str) -> None:
    if not all(np.isfinite(s) and s > 0 for s in grid.spacing):
        raise ImageError(f"{name}: its spacing {grid.spacing} isn't three positive numbers")
    if not np.isfinite([*grid.direction, *grid.origin]).all():
        raise ImageError(f"{name}: its origin or direction isn't finite")
    if abs(np.linalg.det(np.reshape(grid.direction, (3, 3)))) < 1e-3:
        raise ImageError(f"{name}: its axes don't span space")


def _tilt_warning(grid: Grid, name: str) -> Iterator[str]:
    axes = np.reshape(grid.direction, (3, 3))
    between = np.degrees(np.arcsin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max())))
    if between > 0.1:
        yield CodedWarning("tilted-gantry", f"{name}: its axes are {between:.1f}° off a right angle (tilted gantry)")
