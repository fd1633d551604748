"""Images, masks, segmentations and trimaps from files, checked before use; outputs that appear whole or not at all.

Positions are LPS millimeters (SimpleITK's). Segmentations are Slicer's `.seg.nrrd` (Slicer's developer guide,
"Segmentations").
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import SimpleITK as sitk

from .errors import ImageError, MaskError, OutputError, SoftMaskError, TrimapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import SimpleITK as sitk

# SNOMED CT codes: Morphologically Altered Structure, Nodule; Lung.
_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^27925004^Nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
# Gaps between slices may differ by this share of their median before slices count as missing.
_UNEVEN = 0.25
# Two grids are one if no voxel lies farther apart than this share of a voxel.
_SAME_GRID = 1e-3


def read_volume(path: str | Path) -> sitk.Image:
    """A scalar 3D image from a file (NRRD, NIfTI, MetaImage, ...) or from a folder with one DICOM series.

    Values are as stored, of DICOM after rescale slope and intercept (HU). A 2D file becomes one slice. Raises
    `ImageError` if it can't be read, has colors or more than three axes, or slices are missing.
    """
    path = Path(path)
    image = _read_dicom(path) if path.is_dir() else _read_file(path, ImageError)
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    check_volume(image, str(path), ImageError)
    return image


def read_masks(path: str | Path) -> dict[str, sitk.Image]:
    """The masks of a file: every segment of a `.seg.nrrd` by its name, or one mask, non-zero inside, of an image.

    Uint8 (0, 1) on the file's own grid, in the file's order; a name that occurs twice gets its number appended. Raises
    `MaskError` if the file can't be read, isn't a mask, or all of its masks are empty.
    """
    path = Path(path)
    image = _read_file(path, MaskError)
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if image.HasMetaDataKey("Segment0_LabelValue"):
        masks = _segments(image, path)
    else:
        check_volume(image, str(path), MaskError)
        masks = {"mask": _mask_like(sitk.GetArrayViewFromImage(image) != 0, image)}
    if not any(sitk.GetArrayViewFromImage(mask).any() for mask in masks.values()):
        raise MaskError(f"{path}: it is empty")
    return masks


def read_trimap(path: str | Path) -> sitk.Image:
    """A trimap (0 background, 128 unknown, 255 lesion) as uint8 on its own grid.

    Raises `TrimapError` if it can't be read or holds other values.
    """
    image = _read_file(path, TrimapError)
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    check_volume(image, str(path), TrimapError)
    values = np.unique(sitk.GetArrayViewFromImage(image))
    if not np.isin(values, (0, 128, 255)).all():
        raise TrimapError(f"{path}: a trimap holds 0, 128 and 255 only; this one has {values[:8].tolist()}")
    return sitk.Cast(image, sitk.sitkUInt8)


def on_grid(labels: sitk.Image, image: sitk.Image, name: str, notes: list[str] | None = None) -> sitk.Image:
    """Labels on the image's grid: as they are if they have it, otherwise by nearest neighbor, which `notes` is told.

    A cropped grid (Slicer writes segmentations so) is put in place exactly and without a note. Raises `MaskError` if
    nothing of non-empty labels lies inside the image.
    """
    if same_grid(labels, image):
        return labels
    if notes is not None and not _is_part(labels, image):
        notes.append(f"{name} lies on another grid than the image: resampled by nearest neighbor")
    moved = sitk.Resample(labels, image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0)
    if sitk.GetArrayViewFromImage(labels).any() and not np.any(sitk.GetArrayViewFromImage(moved)):
        raise MaskError(f"{name}: nothing of it lies inside the image")
    return moved


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether two volumes have the same voxels, within a thousandth of a voxel."""
    return one.GetSize() == other.GetSize() and _is_part(one, other, offset=(0, 0, 0))


def check_volume(image: sitk.Image, name: str, error: type[SoftMaskError]) -> None:
    """Raises `error` unless the image has three axes and one real number a voxel, and isn't empty."""
    if image.GetDimension() != 3:
        raise error(f"{name}: it is {image.GetDimension()}D {image.GetSize()}; a 3D volume is needed")
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise error(f"{name}: it has more than one number a voxel (colors, vectors or several layers)")
    if image.GetNumberOfPixels() == 0:
        raise error(f"{name}: the image is empty")


def image_writer(image: sitk.Image) -> Callable[[Path], None]:
    """A writer for `write_all`: the image, compressed, in the format of the path's ending."""
    return lambda path: sitk.WriteImage(image, str(path), useCompression=True)


def segment_writer(mask: sitk.Image, name: str, tags: dict[str, str] | None = None) -> Callable[[Path], None]:
    """A writer for `write_all`: a Slicer segmentation with one segment, tagged as a nodule of the lung."""
    filled = np.nonzero(sitk.GetArrayViewFromImage(mask))
    extent = [(int(axis.min()), int(axis.max())) if len(axis) else (0, -1) for axis in reversed(filled)]
    keys = {
        "Segment0_ID": "Segment_1",
        "Segment0_Name": name,
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": "0.929 0.541 0.227",
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Extent": " ".join(f"{low} {high}" for low, high in extent),
        "Segment0_Tags": "".join(
            f"{key}:{value.replace('|', '/')}|"
            for key, value in {"TerminologyEntry": _TERMINOLOGY, **(tags or {})}.items()
        ),
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    image = sitk.Cast(mask, sitk.sitkUInt8)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    for key, value in keys.items():
        image.SetMetaData(key, " ".join(value.split()))
    return image_writer(image)


def write_all(outputs: Iterable[tuple[Path, Callable[[Path], object]]]) -> None:
    """Calls `writer(temporary)` for every (path, writer), then moves all into place: all outputs appear, or none.

    A temporary file lies in its target's folder and has its endings, from which writers take the format. On failure
    the files that were there before stay. Raises `OutputError`.
    """
    pairs = []
    try:
        for path, writer in outputs:
            temporary = path.with_name(f".{uuid4().hex[:12]}{''.join(path.suffixes[-2:])}")
            pairs.append((temporary, path))
            with _told(path):
                if not path.parent.is_dir():
                    raise FileNotFoundError(2, "there is no such folder")
                if path.is_dir():
                    raise IsADirectoryError(21, "it is a folder")
                writer(temporary)
        for temporary, path in pairs:
            with _told(path):
                temporary.replace(path)
    finally:
        for temporary, _ in pairs:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def _told(path):
    """Turns what goes wrong while writing into an `OutputError` that names the output."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _itk_reason(error)
        raise OutputError(f"{path}: it can't be written ({reason})") from error


def _read_file(path, error):
    if not Path(path).is_file():
        raise error(f"{path}: there is no such file")
    with _quiet_itk():
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as reason:
            raise error(f"{path}: it can't be read ({_itk_reason(reason)})") from None
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    return image


def _read_dicom(folder):
    with _quiet_itk():
        found = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in _series(folder)}
        if not found:
            raise ImageError(f"{folder}: there is no DICOM series in this folder")
        if len(found) > 1:
            counts = ", ".join(f"{uid} ({len(files)} files)" for uid, files in found.items())
            raise ImageError(f"{folder}: it holds {len(found)} DICOM series, keep one in a folder: {counts}")
        (files,) = found.values()
        try:
            image = sitk.ReadImage(files)
            _check_gaps(folder, files)
        except RuntimeError as reason:
            raise ImageError(f"{folder}: the DICOM series can't be read ({_itk_reason(reason)})") from None
    return image


def _series(folder):
    return sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))


def _check_gaps(folder, files) -> None:
    """ITK takes the first gap for all: a series with missing slices would come out shifted."""
    origins = []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        origins.append(reader.GetOrigin())
    gaps = np.linalg.norm(np.diff(np.array(origins), axis=0), axis=1)
    if len(gaps) and not np.abs(gaps - np.median(gaps)).max() <= _UNEVEN * np.median(gaps):
        raise ImageError(f"{folder}: slices are missing or doubled: gaps from {gaps.min():.3g} to {gaps.max():.3g} mm")


def _segments(image, path):
    array = sitk.GetArrayViewFromImage(image)
    masks, number = {}, 0
    while image.HasMetaDataKey(f"Segment{number}_LabelValue"):
        layer, value, name = (_key(image, number, key) for key in ("Layer", "LabelValue", "Name"))
        name, layer, value = name or f"Segment {number + 1}", layer or "0", value or "1"
        if not (layer.isdigit() and value.isdigit()) or int(layer) >= image.GetNumberOfComponentsPerPixel():
            raise MaskError(f"{path}: segment {name} has label {value} in layer {layer}, which the file doesn't hold")
        labels = array[..., int(layer)] if array.ndim == 4 else array
        masks[name if name not in masks else f"{name} {number + 1}"] = _mask_like(labels == int(value), image)
        number += 1
    return masks


def _key(image, number, key):
    full = f"Segment{number}_{key}"
    return image.GetMetaData(full).strip() if image.HasMetaDataKey(full) else ""


def _mask_like(inside, image):
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    mask.CopyInformation(image)
    return mask


def _is_part(one, other, offset=None) -> bool:
    """Whether the first image's voxels are voxels of the other; `offset`: from which index on."""
    corners = [(0, 0, 0), *(tuple(n - 1 if axis == k else 0 for k, n in enumerate(one.GetSize())) for axis in range(3))]
    there = [other.TransformPhysicalPointToContinuousIndex(one.TransformIndexToPhysicalPoint(c)) for c in corners]
    start = np.rint(there[0]) if offset is None else np.asarray(offset)
    return bool(np.abs(np.asarray(there) - (np.asarray(corners) + start)).max() < _SAME_GRID)


def _itk_reason(error: Exception) -> str:
    """The one line of an ITK exception that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.split("ITK ERROR:")[-1] for line in lines if "ITK ERROR" in line] or lines[-1:]
    return (told or [type(error).__name__])[0].split("): ")[-1].strip().rstrip(".")[:160]


@contextmanager
def _quiet_itk():
    """Keeps ITK's C++ warnings off standard error; errors still raise."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
