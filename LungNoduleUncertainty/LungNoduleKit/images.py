"""CT volumes and masks from files and DICOM folders, checked before use; outputs that appear whole or not at all.

Positions are LPS millimetres, voxel values Hounsfield units (rescale slope and intercept applied by the DICOM reader).
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import SimpleITK as sitk

from .errors import ImageError, OutputError, PointError
from .geometry import Grid

if TYPE_CHECKING:
    from collections.abc import Callable

    import SimpleITK as sitk

    from .geometry import Grid

AIR_BELOW_HU = -300.0
_LOOKED_AT = 2_000_000  # voxels that the check of the value range looks at


def read_ct(
    path: str | Path, series_uid: str | None = None, *, warn: Callable[[str], object] = warnings.warn
) -> sitk.Image:
    """A CT in HU from an image file (NRRD, NIfTI, MetaImage, ...) or from a folder of DICOM files.

    A folder is searched with its sub-folders. Without `series_uid` the CT series with the most slices is taken, and
    `warn` is called with a line if there were others of more than one slice. Slices are ordered by position. Raises
    `ImageError` for a missing or unreadable file, a folder without a CT series or with several that are equally long,
    and slices that are missing or doubled.
    """
    from .dicom import read_series

    path = Path(path)
    if path.is_dir():
        return read_series(path, series_uid, warn)
    return read_image(path)


def read_mask(path: str | Path, ct: sitk.Image | None = None) -> sitk.Image:
    """A mask from an image file, non-zero inside, or the union of a `.seg.nrrd`'s segments: uint8 (0, 1), own grid.

    Raises `ImageError` if it can't be read, isn't a scalar 3D image, is empty, or lies outside the CT if one is given.
    """
    image = read_image(path)
    if image.HasMetaDataKey("Segment0_LabelValue"):
        from .segmentation_file import read_segmentation

        masks = list(read_segmentation(path).values())
        inside = np.any([sitk.GetArrayViewFromImage(mask) for mask in masks], axis=0)
    else:
        _check_scalar_volume(image, str(path))
        inside = sitk.GetArrayViewFromImage(image) != 0
    grid = Grid.of(image)
    _check_geometry(grid, str(path))
    if not inside.any():
        raise ImageError(f"{path}: the mask is empty")
    if ct is not None:
        k, j, i = np.nonzero(inside)
        where = Grid.of(ct).points_to_indices(grid.indices_to_points(np.stack([i, j, k], axis=-1)))
        if not ((where >= -0.5) & (where <= np.asarray(ct.GetSize()) - 0.5)).all(axis=1).any():
            raise ImageError(f"{path}: the mask lies outside the CT")
    return grid.image(inside.astype(np.uint8))


def read_image(path: str | Path) -> sitk.Image:
    """Any image file that SimpleITK knows; a fourth axis of length one is dropped. `ImageError` if it can't be read."""
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file or folder")
    with quiet_itk():
        if not sitk.ImageFileReader.GetImageIOFromFileName(str(path)):
            raise ImageError(f"{path}: it isn't an image file of a known format")
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise ImageError(f"{path}: it can't be read ({itk_reason(error)})") from None
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    return image


def check_ct(image: sitk.Image, name: str = "CT", check_region: Grid | None = None) -> list[str]:
    """Refuses what can't be segmented, with an `ImageError`; returns a line for each thing that is merely suspicious.

    Refused: color or vector voxels, 2D, 4D and single-slice images, empty images, a spacing that is zero, negative or
    not finite, directions that aren't finite or don't span space, NaN or infinite voxels. `check_region`, a sub-grid of
    the image, limits the search for the latter. Suspicious: values that don't look like HU, and a tilted gantry.
    """
    _check_scalar_volume(image, name)
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
    return [*_tilt_warning(grid, name), *_value_warning(array, name)]


def check_point(point, image: sitk.Image, name: str = "point") -> tuple[float, float, float]:
    """The point as three floats (LPS millimetres); `PointError` if it isn't three finite numbers inside the volume."""
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
        hint = "; as RAS it would lie inside" if grid.contains(values * (-1, -1, 1)) else ""
        place = ", ".join(f"{v:.1f}" for v in values)
        raise PointError(f"{name} ({place}): outside the volume, which spans {spans} mm (LPS){hint}")
    return tuple(values.tolist())


def write_whole(path: str | Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer(temporary)` and moves what it wrote to `path`: the output appears whole or not at all.

    The temporary file lies in the same folder and has the same endings, from which writers take the format. It is
    removed on failure, and a file that was at `path` stays as it was. `OutputError` if the output can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex[:12]}{''.join(path.suffixes[-2:])}")
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "there is no such folder")
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        writer(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else itk_reason(error)
        raise OutputError(f"{path}: it can't be written ({reason})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def quiet_itk():
    """Keeps ITK's C++ warnings off standard error; errors still raise."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def itk_reason(error: Exception) -> str:
    """The one line of an ITK exception that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = (
        [line.split("ITK ERROR:")[-1] for line in lines if "ITK ERROR" in line] or lines[-1:] or [type(error).__name__]
    )
    return told[0].split("): ")[-1].strip().rstrip(".")[:160]


def _check_scalar_volume(image, name):
    if image.GetNumberOfPixels() == 0:
        raise ImageError(f"{name}: the image is empty")
    if image.GetNumberOfComponentsPerPixel() != 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise ImageError(f"{name}: it has {count} values a voxel (color or vector); one HU value is needed")
    if "complex" in image.GetPixelIDTypeAsString():
        raise ImageError(f"{name}: its voxels are complex numbers")
    if image.GetDimension() != 3:
        raise ImageError(f"{name}: it is {image.GetDimension()}D {image.GetSize()}; a 3D volume is needed")


def _check_geometry(grid, name):
    if not all(np.isfinite(s) and s > 0 for s in grid.spacing):
        raise ImageError(f"{name}: its spacing {grid.spacing} isn't three positive numbers")
    if not np.isfinite([*grid.direction, *grid.origin]).all():
        raise ImageError(f"{name}: its origin or direction isn't finite")
    if abs(np.linalg.det(np.reshape(grid.direction, (3, 3)))) < 1e-3:
        raise ImageError(f"{name}: its axes don't span space")


def _tilt_warning(grid, name):
    axes = np.reshape(grid.direction, (3, 3))
    between = np.degrees(np.arcsin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max())))
    if between > 0.1:
        yield f"{name}: its axes are {between:.1f}° off a right angle (tilted gantry)"


def _value_warning(array, name):
    step = max(1, round((array.size / _LOOKED_AT) ** (1 / 3)))
    some = array[::step, ::step, ::step]
    some = some[np.isfinite(some)] if np.issubdtype(some.dtype, np.floating) else some
    low, high = (float(some.min()), float(some.max())) if some.size else (0.0, 0.0)
    if low < AIR_BELOW_HU:
        return
    seen = f"values from {low:g} to {high:g}, no air below {AIR_BELOW_HU:g} HU"
    if low >= 0 and high <= 255:
        kind = "scaled to [0, 1]" if high <= 1 else "8-bit gray values"
        yield f"{name}: it doesn't seem to be in HU but {kind} ({seen})"
    elif low >= 0 and high > 1000:
        yield f"{name}: it doesn't seem to be in HU but to have an offset, such as HU + 1024 ({seen})"
    else:
        yield f"{name}: it doesn't seem to be a chest CT in HU ({seen})"
