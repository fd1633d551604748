"""Masks from files: labels, probabilities and Slicer segmentations become uint8 (0, 1) images, checked before use."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import MaskError
from .files import read_image
from .geometry import Grid
from .grid_checks import check_geometry
from .images import as_volume, check_volume
from .mask_parts import check_plausible
from .segmentation_file import is_segmentation, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable

PROBABILITY_FROM = 0.5
_SAME_GRID = 1e-3  # two grids are one if no voxel lies farther apart than this share of a voxel
_SOFT_VALUES = 16  # whole values up to 255 or 65535 are a soft mask if there are more different ones than this
_MOST_LABELS = 64  # more different whole values than this are no labels


def read_mask(
    path: str | Path,
    ct: sitk.Image | None = None,
    *,
    label: str | None = None,
    nifti_frame: str | None = None,
    plausible: bool = True,
    warn: Callable[[str], object] = warnings.warn,
) -> sitk.Image:
    """One mask from an image file or a `.seg.nrrd`, on its own grid: uint8 (0, 1), 3D.

    Of an image everything that isn't zero is the mask; of several labels `label` chooses one (a number), and
    probabilities, from 0 to 1 or as gray values up to 255 or 65535, count from 0.5 on, which `warn` is told. Of a
    `.seg.nrrd` the union of its segments is the mask, which `warn` is told, or the segment named `label`. With
    `plausible`, a mask with a part of more than 100 mm is refused (a lung's, by mistake).

    Raises `ImageError` if the file can't be read, and its `MaskError` if it isn't a mask, holds several labels without
    `label`, is empty, or lies outside the CT if one is given.
    """
    image = as_volume(read_image(path, nifti_frame=nifti_frame, warn=warn))
    masks = _masks(image, str(path), label, warn)
    grid = Grid.of(image)
    check_geometry(grid, str(path))
    if label is None and len(masks) > 1:
        warn(f"{path}: the union of its {len(masks)} segments is the mask")
    # The images are named: a view doesn't keep its image alive.
    inside = np.any([sitk.GetArrayViewFromImage(mask) for mask in masks.values()], axis=0)
    if not inside.any():
        raise MaskError(f"{path}: the mask is empty")
    mask = grid.image(inside.astype(np.uint8))
    if plausible:
        check_plausible(mask, str(path))
    if ct is not None:
        k, j, i = np.nonzero(inside)
        where = Grid.of(ct).points_to_indices(grid.indices_to_points(np.stack([i, j, k], axis=-1)))
        if not ((where >= -0.5) & (where <= np.asarray(ct.GetSize()) - 0.5)).all(axis=1).any():
            raise MaskError(f"{path}: the mask lies outside the CT")
    return mask


def read_masks(
    path: str | Path, *, nifti_frame: str | None = None, warn: Callable[[str], object] = warnings.warn
) -> dict[str, sitk.Image]:
    """The masks of a file: every segment of a `.seg.nrrd` by its name, or the one mask of an image, as `read_mask`.

    Uint8 (0, 1) on the file's own grid, in the file's order; a 2D image becomes one slice. Raises `ImageError` if the
    file can't be read, and its `MaskError` if it isn't a mask or all of its masks are empty.
    """
    image = as_volume(read_image(path, nifti_frame=nifti_frame, warn=warn))
    masks = _masks(image, str(path), None, warn)
    check_geometry(Grid.of(image), str(path))
    if not any(sitk.GetArrayViewFromImage(mask).any() for mask in masks.values()):
        raise MaskError(f"{path}: the mask is empty")
    return masks


def _masks(image: sitk.Image, name: str, label: str | None, warn: Callable[[str], object]) -> dict[str, sitk.Image]:
    if is_segmentation(image):
        segments = segments_of(image, name)
        if label is None:
            return segments
        if label not in segments:
            raise MaskError(f"{name}: it has no segment {label!r}; it has {', '.join(segments)}")
        return {label: segments[label]}
    check_volume(image, name, MaskError)
    return {"mask": Grid.of(image).image(_inside(image, name, label, warn))}


def _inside(image: sitk.Image, name: str, label: str | None, warn: Callable[[str], object]) -> np.ndarray:
    """Which voxels (z, y, x) of a scalar image are the mask."""
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MaskError(f"{name}: {int((~np.isfinite(array)).sum())} of its values are NaN or infinite")
    values, counts = _values(array)
    whole = bool((values == np.rint(values)).all())
    if label is None:
        highest = _probability_scale(values, whole)
        if highest is not None:
            warn(f"{name}: it holds probabilities; from {PROBABILITY_FROM:g} on they are the mask")
            inside = array >= PROBABILITY_FROM * highest
            if values.size and not inside.any():
                raise MaskError(f"{name}: the mask is empty (its largest probability is {values[-1] / highest:.2g})")
            return inside
    if not whole or len(values) > _MOST_LABELS:
        raise MaskError(
            f"{name}: it isn't a mask: {len(values)} different values from {values[0]:g} to {values[-1]:g} are neither "
            "labels nor probabilities"
        )
    if label is None:
        if len(values) > 1:
            raise MaskError(f"{name}: it holds {_labels(image, values, counts)}; choose one (--label)")
        return array != 0
    if not label.lstrip("-").isdigit() or int(label) not in values:
        raise MaskError(f"{name}: it has no label {label}; it holds {_labels(image, values, counts)}")
    return array == int(label)


def _values(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of an array except 0, ascending, and how often each occurs."""
    if array.dtype == np.uint8:
        every = np.bincount(array.ravel(), minlength=256)
        values = np.flatnonzero(every[1:]) + 1
        return values.astype(float), every[values]
    values, counts = np.unique(array[array != 0], return_counts=True)
    return values.astype(float), counts


def _probability_scale(values: np.ndarray, whole: bool) -> float | None:
    """What stands for a probability of 1, or None where the values aren't probabilities."""
    if not values.size or values[0] < 0:
        return None
    if not whole:
        return 1.0 if values[-1] <= 1 + 1e-3 else None  # a resampled mask may overshoot by a rounding
    soft = len(values) > _SOFT_VALUES and values[-1] in (255, 65535)
    return float(values[-1]) if soft else None


def _labels(image: sitk.Image, values: np.ndarray, counts: np.ndarray) -> str:
    voxel = Grid.of(image).voxel_volume_mm3
    told = [f"{value:g} ({count * voxel:.0f} mm3)" for value, count in zip(values, counts, strict=True)]
    more = f" and {len(told) - 8} more" if len(told) > 8 else ""
    return f"{'the label' if len(told) == 1 else f'{len(told)} labels:'} {', '.join(told[:8])}{more}"


def on_grid(labels: sitk.Image, image: sitk.Image, name: str, notes: list[str] | None = None) -> sitk.Image:
    """Labels on the image's grid: as they are if they have it, otherwise by nearest neighbor, which `notes` is told.

    A cropped grid (Slicer writes segmentations so) is put in place exactly and without a note. Raises `MaskError` if
    nothing of non-empty labels lies inside the image.
    """
    if labels.GetSize() == image.GetSize() and is_part(labels, image, offset=(0, 0, 0)):
        return labels
    if notes is not None and not is_part(labels, image):
        notes.append(f"{name} lies on another grid than the image: resampled by nearest neighbor")
    moved = sitk.Resample(labels, image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0)
    if sitk.GetArrayViewFromImage(labels).any() and not np.any(sitk.GetArrayViewFromImage(moved)):
        raise MaskError(f"{name}: nothing of it lies inside the image")
    return moved


def is_part(one: sitk.Image, other: sitk.Image, offset: tuple[int, int, int] | None = None) -> bool:
    """Whether the first image's voxels are voxels of the other, or would be if it went on; `offset`: from there on."""
    corners = [(0, 0, 0), *(tuple(n - 1 if axis == k else 0 for k, n in enumerate(one.GetSize())) for axis in range(3))]
    there = [other.TransformPhysicalPointToContinuousIndex(one.TransformIndexToPhysicalPoint(c)) for c in corners]
    start = np.rint(there[0]) if offset is None else np.asarray(offset)
    return bool(np.abs(np.asarray(there) - (np.asarray(corners) + start)).max() < _SAME_GRID)
