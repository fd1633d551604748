"""CT volumes from files and DICOM folders, checked before use.

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
from .errors import ImageError, NoduleError, PointError
from .files import read_image
from .geometry import Grid, swap_lps_ras
from .grid_checks import check_geometry, tilt_of
from .hounsfield import value_warnings
from .slice_jumps import slice_warnings
from .warning_codes import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def read_ct(
    path: str | Path,
    series_uid: str | None = None,
    *,
    nifti_frame: str | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> sitk.Image:
    """A CT in HU from an image file (NRRD, NIfTI, MetaImage, ...), a DICOM file, or a folder of DICOM files.

    A folder is searched with its sub-folders. Without `series_uid` the CT series with the most slices is taken, frames
    of multi-frame images counted one by one; `UID#2` names the second of several stacks or phases in a series. Slices
    are ordered by position; those of a tilted gantry keep their places. `nifti_frame` (sform or qform) decides where a
    NIfTI file states two different positions. Raises `ImageError` for a missing or unreadable file, a folder without a
    CT series or with several that are equally long, slices that are missing, doubled or not alike, and a NIfTI file
    whose two positions disagree (`docs/reference/odd-input.md` lists every case). `warn` is called with a line for each
    thing that is doubtful, such as files that were left out.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return read_series(path, series_uid, warn)
    if is_dicom(path):
        return read_files([str(path)], str(path), series_uid, warn, any_image=True)
    return read_image(path, nifti_frame=nifti_frame, warn=warn)


def read_volume(
    path: str | Path,
    series_uid: str | None = None,
    *,
    nifti_frame: str | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> sitk.Image:
    """A scalar volume from a file or a folder of DICOM, as `read_ct`; a 2D image becomes one slice.

    Raises `ImageError`, for colors and for more than three axes too.
    """
    image = as_volume(read_ct(path, series_uid, nifti_frame=nifti_frame, warn=warn))
    check_volume(image, str(path))
    return image


def as_volume(image: sitk.Image) -> sitk.Image:
    """A 2D image as a volume of one slice; others as they are."""
    return sitk.JoinSeries(image) if image.GetDimension() == 2 else image


def check_ct(
    image: sitk.Image, name: str = "CT", check_region: Grid | None = None, *, finite: bool = True
) -> list[str]:
    """Refuses what can't be segmented, with an `ImageError`; returns a line for each thing that is merely suspicious.

    Refused: color or vector voxels, 2D, 4D and single-slice images, empty images, a spacing that is zero, negative, not
    finite or no CT's, directions that aren't finite or don't span space, NaN or infinite voxels. `check_region`, a
    sub-grid of the image, limits the search for the latter; with `finite` False they are left to `check_finite`, where
    it is known which voxels count. Suspicious: values that don't look like HU, slices that fit neither of their
    neighbors, and a tilted gantry.
    """
    check_volume(image, name)
    grid = Grid.of(image)
    if min(grid.size) < 2:
        raise ImageError(f"{name}: it has a single slice {grid.size}; a volume is needed")
    check_geometry(grid, name)
    array = sitk.GetArrayViewFromImage(image)
    if finite:
        part = array
        if check_region is not None:
            first = np.rint(grid.points_to_indices(check_region.origin)).astype(int).clip(0)
            part = array[tuple(slice(f, f + n) for f, n in zip(first[::-1], check_region.shape, strict=True))]
        check_finite(part, name)
    return [*_tilt_warning(grid, name), *value_warnings(array, name), *slice_warnings(array, name)]


def check_finite(array: np.ndarray, name: str = "CT") -> None:
    """Raises `ImageError` where voxels (z, y, x) are NaN or infinite."""
    if np.issubdtype(array.dtype, np.floating):
        bad = sum(int(plane.size - np.isfinite(plane).sum()) for plane in array)
        if bad:
            raise ImageError(f"{name}: {bad} voxels are NaN or infinite")


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


def _tilt_warning(grid: Grid, name: str) -> Iterator[str]:
    between = tilt_of(grid)
    if between > 0.1:
        yield CodedWarning("tilted-gantry", f"{name}: its axes are {between:.1f}° off a right angle (tilted gantry)")
