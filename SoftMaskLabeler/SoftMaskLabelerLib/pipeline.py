"""From an image and a source (one mask, several readers' masks, RECIST marks, an edited trimap) to its soft mask.

The whole of DSNet's annotation pipeline (section 4.1 of the DSNet papers) for a volume: window, trimap, matting,
binarization; on the image's own grid, at the cost of the lesion's region only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.hounsfield import value_warnings
from LungNoduleKit.images import check_volume, read_volume
from LungNoduleKit.masks import on_grid

from .errors import ImageError, MaskError, RecistError, TrimapError
from .matting.closed_form import closed_form_alpha
from .trimap.inputs import as_mask, as_spacing
from .trimap.morphology import bounding_box
from .trimap.trimap import (
    BACKGROUND,
    LESION,
    UNKNOWN,
    default_radius_mm,
    trimap_from_mask,
    trimap_from_readers,
    trimap_from_recist,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

NOTES_TAG = "SoftMaskLabeler.notes"  # of outputs: what was done otherwise than asked, or is odd about the input
# Alpha from which a pixel belongs to the binarized mask.
BINARY_FROM = 0.5
# Color (Okabe and Ito's reddish purple, safe for the color-blind) of the binarized mask's segment.
SEGMENT_COLOR = (0xCC / 255, 0x79 / 255, 0xA7 / 255)
# End points may be this many slices off theirs.
_OFF_SLICE = 0.51


@dataclass(frozen=True)
class Parameters:
    """What trimap and matting depend on; the defaults are those of `trimap` and `matting`."""

    window: tuple[float, float] = (-1000.0, 400.0)
    """Intensities (HU of a CT) that become 0 and 1"""
    erode_mm: float | None = None
    """Radius by which known lesion is shrunk; None: a tenth of the equivalent diameter, of several readers' masks 0"""
    dilate_mm: float | None = None
    """Radius beyond which background is known; None: as for `erode_mm`"""
    dimension: int = 2
    """2: every slice by itself, as in the papers; 3: the volume at once (not for RECIST marks)"""
    epsilon: float = 1e-7
    """Weight of the slopes in the matting windows' fits"""
    radius: int = 1
    """Radius of the matting windows in pixels"""
    iterations: int = 5
    """Of GrabCut, for RECIST marks"""

    def __post_init__(self) -> None:
        low, high = self.window
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"a window runs from a lower to a higher value, not from {low} to {high}")
        for name in ("erode_mm", "dilate_mm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is a length in mm from 0, not {value!r}")
        if self.dimension not in (2, 3):
            raise ValueError(f"dimension is 2 or 3, not {self.dimension!r}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"epsilon must be positive, not {self.epsilon!r}")
        for name in ("radius", "iterations"):
            if getattr(self, name) != int(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name} is a whole number from 1, not {getattr(self, name)!r}")


class SoftMaskResult(NamedTuple):
    """Soft mask of a volume, on the image's grid."""

    alpha: sitk.Image
    """float32 in [0, 1]"""
    trimap: sitk.Image
    """uint8: 0 background, 128 unknown, 255 lesion"""
    binary: sitk.Image
    """uint8 (0, 1): alpha >= 0.5"""
    notes: list[str]
    """A line for each thing that was done otherwise than asked, such as GrabCut's fallback, or that is odd"""


def soft_mask_volume(
    image: sitk.Image,
    *,
    masks: sitk.Image | Sequence[sitk.Image] | None = None,
    recist_points_lps: ArrayLike | None = None,
    trimap: sitk.Image | None = None,
    parameters: Parameters | None = None,
    progress: Callable[[str, float], object] | None = None,
) -> SoftMaskResult:
    """The soft mask of a lesion in a volume, from one of three sources.

    `image`: scalar 3D volume; slices are along its third axis. `masks`: one mask (strategy 1), or several readers'
    (strategy 2; a sequence of one counts as one mask), non-zero inside, on the image's grid or another that is
    resampled to it. `recist_points_lps`: (4, 3) LPS mm, the long axis' two end points, then the short axis' two, all on
    one slice (strategy 3). `trimap`: an edited one, used as it is. `progress(stage, share)` is called before every
    slice; what it raises ends the work. Raises `ImageError`, `MaskError`, `RecistError`, `TrimapError`, `SolverError`.
    """
    parameters, notes = parameters or Parameters(), list[str]()
    slices = _on_voxels(image, masks, recist_points_lps, trimap, parameters, notes)
    found = soft_mask_array(
        slices.image, slices.spacing, **slices.marks, parameters=parameters, progress=progress, notes=notes
    )
    alpha, labels = (slices.in_volume(part) for part in found)
    binary = (alpha >= BINARY_FROM).astype(np.uint8)
    return SoftMaskResult(_image_like(alpha, image), _image_like(labels, image), _image_like(binary, image), notes)


def trimap_volume(
    image: sitk.Image,
    *,
    masks: sitk.Image | Sequence[sitk.Image] | None = None,
    recist_points_lps: ArrayLike | None = None,
    parameters: Parameters | None = None,
    notes: list[str] | None = None,
) -> sitk.Image:
    """The trimap that `soft_mask_volume` works with, alone: uint8 (0, 128, 255) on the image's grid.

    Arguments and errors are those of `soft_mask_volume`; `notes`, if given, gets its notes.
    """
    parameters, notes = parameters or Parameters(), [] if notes is None else notes
    slices = _on_voxels(image, masks, recist_points_lps, None, parameters, notes)
    box, labels = _trimap(slices.image, slices.spacing, **slices.marks, parameters=parameters, notes=notes)
    return _image_like(slices.in_volume(_filled(labels, box, slices.image.shape)), image)


@dataclass(frozen=True)
class _Slices:
    """What of a volume is looked at (RECIST marks lie on one slice), and what marks the lesion there."""

    image: np.ndarray
    spacing: tuple[float, ...]
    marks: dict[str, Any]
    """One of the arguments masks, recist and trimap of `soft_mask_array`"""
    where: tuple[int, ...]
    shape: tuple[int, ...]
    images: list[sitk.Image]
    """Those that the arrays are views of, which don't keep them alive"""

    def in_volume(self, part: np.ndarray) -> np.ndarray:
        """An array on the slices that are looked at, in the volume; 0 elsewhere."""
        whole = np.zeros(self.shape, part.dtype)
        whole[self.where] = part
        return whole


def _on_voxels(
    image: sitk.Image,
    masks: sitk.Image | Sequence[sitk.Image] | None,
    points_lps: ArrayLike | None,
    trimap: sitk.Image | None,
    parameters: Parameters,
    notes: list[str],
) -> _Slices:
    """A volume and its one source as arrays on the volume's voxels."""
    if sum(source is not None for source in (masks, points_lps, trimap)) != 1:
        raise ValueError("give one of masks, recist_points_lps and trimap")
    check_volume(image, "the image")
    array, spacing = sitk.GetArrayViewFromImage(image), image.GetSpacing()[::-1]
    if parameters.window == Parameters.window:  # who chooses another one knows the values
        notes += value_warnings(array, "the image")
    if points_lps is not None:
        if parameters.dimension == 3:
            raise RecistError("RECIST marks lie on one slice: their soft mask is 2D, not 3D")
        z, points = points_in_slice(image, points_lps)
        return _Slices(array[z], spacing[1:], {"recist": points}, (z,), array.shape, [image])
    if trimap is not None:
        check_volume(trimap, "the trimap", TrimapError)
        moved = [on_grid(trimap, image, "the trimap", notes)]
        marks: dict[str, Any] = {"trimap": sitk.GetArrayViewFromImage(moved[0])}
    else:
        several = [masks] if isinstance(masks, sitk.Image) else list(masks or ())
        moved = []
        for number, mask in enumerate(several, 1):
            name = "the mask" if len(several) == 1 else f"the mask of reader {number}"
            check_volume(mask, name, MaskError)
            moved.append(on_grid(mask, image, name, notes))
        marks = {"masks": [sitk.GetArrayViewFromImage(mask) for mask in moved]}
    return _Slices(array, spacing, marks, (), array.shape, [image, *moved])


def soft_mask_array(
    image: np.ndarray,
    spacing: Sequence[float],
    *,
    masks: Sequence[np.ndarray] | None = None,
    recist: ArrayLike | None = None,
    trimap: np.ndarray | None = None,
    parameters: Parameters | None = None,
    progress: Callable[[str, float], object] | None = None,
    notes: list[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`soft_mask_volume` for arrays: alpha (float32) and trimap (uint8) of the image's shape (y, x) or (z, y, x).

    `spacing`: mm per axis. One of `masks` (one or several), `recist` ((4, 2) x, y in pixels, for a 2D image) and
    `trimap`. `notes`, if given, gets a line for each thing done otherwise than asked.
    """
    parameters, notes = parameters or Parameters(), [] if notes is None else notes
    progress = progress or (lambda stage, share: None)
    spacing = as_spacing(spacing, image.ndim)
    progress("trimap", 0.0)
    box, labels = _trimap(image, spacing, masks=masks, recist=recist, trimap=trimap, parameters=parameters, notes=notes)
    gray = windowed(image[box], parameters.window)
    found = _matting(gray, labels, parameters, progress, notes, 0 if image.ndim == 2 else box[0].start)
    return _filled(found, box, image.shape), _filled(labels, box, image.shape)


def _trimap(
    image: np.ndarray,
    spacing: tuple[float, ...],
    *,
    masks: Sequence[np.ndarray] | None = None,
    recist: ArrayLike | None = None,
    trimap: np.ndarray | None = None,
    parameters: Parameters,
    notes: list[str],
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The region that matters, as slices of the image, and the trimap there."""
    if masks is not None:
        return _trimap_of_masks(masks, image.shape, spacing, parameters, notes)
    if recist is not None:
        trimap = trimap_from_recist(
            windowed(image, parameters.window),
            recist,
            spacing,
            erode_mm=parameters.erode_mm,
            dilate_mm=parameters.dilate_mm,
            iterations=parameters.iterations,
            notes=notes,
        )
    if trimap is None:
        raise ValueError("give one of masks, recist and trimap")
    box = _box_of_trimap(trimap, image.shape, parameters.radius)
    return box, trimap[box].astype(np.uint8)


def windowed(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Intensities as float64 in [0, 1], the window's ends at 0 and 1; raises `ImageError` if some aren't finite."""
    values = image.astype(np.float64)
    if image.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("the image holds NaN or infinite values near the lesion")
    values -= window[0]
    values *= 1 / (window[1] - window[0])
    return values.clip(0.0, 1.0, out=values)


def _trimap_of_masks(
    masks: Sequence[np.ndarray],
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    parameters: Parameters,
    notes: list[str],
) -> tuple[tuple[slice, ...], np.ndarray]:
    named = [f"the mask of reader {n}" if len(masks) > 1 else "the mask" for n in range(1, len(masks) + 1)]
    masks = [as_mask(mask, name) for mask, name in zip(masks, named, strict=True)]
    if not masks:
        raise MaskError("there are no masks")
    for mask, name in zip(masks, named, strict=True):
        if mask.shape != shape:
            raise MaskError(f"{name} has shape {mask.shape}, the image {shape}")
    union = np.logical_or.reduce(masks) if len(masks) > 1 else masks[0]
    if not union.any():
        raise MaskError("the mask is empty" if len(masks) == 1 else f"all {len(masks)} readers' masks are empty")
    box = bounding_box(union, (0,) * len(shape))
    reach = parameters.dilate_mm
    if reach is None:
        # The widest that any slice's default can be.
        flat = union[box].sum(axis=(-2, -1)) if parameters.dimension == 2 else union[box].sum()
        steps = spacing[-2:] if parameters.dimension == 2 else spacing
        reach = default_radius_mm(int(np.max(flat)), steps)
    box = _grown(box, shape, [math.ceil(reach / step) + 2 * parameters.radius + 2 for step in spacing])
    parts, told = [mask[box] for mask in masks], list[str]()
    erode_mm, dilate_mm, dimension = parameters.erode_mm, parameters.dilate_mm, parameters.dimension
    if len(parts) == 1:
        labels = trimap_from_mask(
            parts[0], spacing, erode_mm=erode_mm, dilate_mm=dilate_mm, dimension=dimension, notes=told
        )
    else:
        # Readers differ enough to leave a band of their own.
        labels = trimap_from_readers(
            parts, spacing, erode_mm=erode_mm or 0.0, dilate_mm=dilate_mm or 0.0, dimension=dimension, notes=told
        )
    # Told of the region's slices; users count the image's.
    notes += [re.sub(r"^slice (\d+)", lambda found: f"slice {int(found[1]) + box[0].start}", note) for note in told]
    return box, labels


def _box_of_trimap(trimap: np.ndarray, shape: tuple[int, ...], radius: int) -> tuple[slice, ...]:
    if trimap.shape != shape:
        raise TrimapError(f"the trimap has shape {trimap.shape}, the image {shape}")
    if not np.isin(trimap, (BACKGROUND, UNKNOWN, LESION)).all():
        raise TrimapError(f"a trimap holds 0, 128 and 255 only; this one has {np.unique(trimap)[:8].tolist()}")
    if not (trimap == LESION).any():
        raise TrimapError("the trimap has no known lesion (255)")
    return _grown(bounding_box(trimap > 0, (0,) * len(shape)), shape, [2 * radius + 2] * len(shape))


def _grown(box: tuple[slice, ...], shape: tuple[int, ...], margins: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, length, margin in zip(box, shape, margins, strict=True)
    )


def _matting(
    gray: np.ndarray,
    labels: np.ndarray,
    parameters: Parameters,
    progress: Callable[[str, float], object],
    notes: list[str],
    first: int,
) -> np.ndarray:
    """Alpha of a region; a stack slice by slice unless the parameters say 3D. `first`: the region's first slice."""
    epsilon, radius = parameters.epsilon, parameters.radius
    if gray.ndim == 2 or parameters.dimension == 3:
        progress("matting", 0.1)
        return closed_form_alpha(gray, labels, epsilon, radius, dimension=gray.ndim)
    alpha = (labels == LESION).astype(np.float32)
    open_slices = np.flatnonzero((labels == UNKNOWN).any(axis=(1, 2)))
    for done, z in enumerate(open_slices):
        progress("matting", 0.1 + 0.9 * done / len(open_slices))
        lesion, background = (labels[z] == LESION).any(), (labels[z] == BACKGROUND).any()
        if lesion and background:
            alpha[z] = closed_form_alpha(gray[z], labels[z], epsilon, radius)
            continue
        # What the system says of a slice where only one of the two is known.
        lacking = "background" if lesion else "lesion"
        alpha[z] = (labels[z] > BACKGROUND) if lesion else 0.0
        where = f"slice {first + z}: "
        if not any(note.startswith(where) and f"no known {lacking}" in note for note in notes):
            notes.append(f"{where}no known {lacking} there")
    return alpha


def points_in_slice(image: sitk.Image, points_lps: ArrayLike) -> tuple[int, np.ndarray]:
    """The slice that RECIST marks lie on, and their x, y in its pixels."""
    try:
        points = np.asarray(points_lps, np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        points = np.empty((0, 3))
    if points.shape != (4, 3) or not np.isfinite(points).all():
        raise RecistError("RECIST marks have four finite end points of three coordinates each")
    indices = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
    depths = indices[:, 2]
    z = int(np.rint(depths.mean()))
    if np.abs(depths - z).max() > _OFF_SLICE:
        told = ", ".join(f"{depth:.1f}" for depth in depths)
        raise RecistError(f"the RECIST end points lie on different slices ({told}); they must lie on one")
    if not 0 <= z < image.GetSize()[2]:
        raise RecistError(f"the RECIST end points lie on slice {z}, outside the image with {image.GetSize()[2]} slices")
    return z, indices[:, :2]


def read_trimap(path: str | Path, nifti_frame: str | None = None) -> sitk.Image:
    """A trimap (0 background, 128 unknown, 255 lesion) from a file, as uint8 on its own grid; a 2D one is one slice.

    Raises `ImageError` if it can't be read and `TrimapError` if it holds other values.
    """
    image = read_volume(path, nifti_frame=nifti_frame)
    values = np.unique(sitk.GetArrayViewFromImage(image))
    if not np.isin(values, (BACKGROUND, UNKNOWN, LESION)).all():
        raise TrimapError(f"{path}: a trimap holds 0, 128 and 255 only; this one has {values[:8].tolist()}")
    return sitk.Cast(image, sitk.sitkUInt8)


def _filled(part: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """An array of the image's shape that holds a part in its box, and 0 around it."""
    whole = np.zeros(shape, part.dtype)
    whole[box] = part
    return whole


def _image_like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    out = sitk.GetImageFromArray(array)
    out.CopyInformation(image)
    return out
