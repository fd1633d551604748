"""Slicer segmentations (`.seg.nrrd`) read and written without Slicer: names, colors, terminology, overlapping segments.

Every segment gets its own layer, so segments may overlap; a single one is a scalar image, as Slicer writes it. The
header keys are those that Slicer's segmentation storage node reads and writes (Slicer's developer guide,
"Segmentations", file format of `.seg.nrrd`).
"""

from __future__ import annotations

import gzip
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import ImageError, MaskError
from .files import read_image, write_whole
from .geometry import Grid, ras_lattice
from .grid_checks import check_geometry
from .terminology import NODULE_TERMINOLOGY, tag_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

_SEGMENT_KEY = re.compile(r"Segment([0-9]{1,6})_")
_NUMBER = re.compile(r"[0-9]{1,9}")
_REFERENCE_GEOMETRY = "Reference image geometry"


def write_segmentation(
    path: str | Path,
    segments: Iterable[tuple[str, sitk.Image, tuple[float, float, float]]],
    *,
    tags: Mapping[str, str] | None = None,
    reference: Grid | None = None,
) -> None:
    """Writes masks as a Slicer segmentation, gzip-compressed; the file appears whole or not at all.

    `segments` holds (name, mask, color) for each segment: masks on one common grid, non-zero inside; color as red,
    green, blue in [0, 1]. Each segment is tagged as a nodule in the lung; `tags` adds further tags (name to value) to
    every segment. `reference` is the grid of the CT, of which the masks' grid is a part: Slicer and DICOM SEG export
    use it as the segmentation's reference geometry. Raises `ImageError` for masks that don't share a grid, and
    `OutputError` if the file can't be written.
    """
    segments = list(segments)
    if not segments:
        raise ImageError(f"{path}: there are no segments to write")
    grid = Grid.of(segments[0][1])
    for name, mask, _ in segments:
        _check_on_grid(name, mask, grid)
    layers = np.stack([sitk.GetArrayViewFromImage(mask) != 0 for _, mask, _ in segments], axis=-1).astype(np.uint8)
    header = "\n".join(
        [*_geometry_lines(grid, len(segments)), *_key_lines(segments, layers, grid, tags or {}, reference)]
    )
    content = header.encode() + b"\n\n" + gzip.compress(layers.tobytes(), compresslevel=6, mtime=0)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def read_segmentation(path: str | Path, *, warn: Callable[[str], object] = warnings.warn) -> dict[str, sitk.Image]:
    """The segments of a `.seg.nrrd` by name, in the file's order: uint8 masks (0, 1) on the file's grid.

    A name that occurs twice gets its number in the file appended. `warn` is called with a line for what is doubtful.
    Raises `ImageError` if the file can't be read or isn't a segmentation.
    """
    image = read_image(path, warn=warn)
    if not is_segmentation(image):
        raise ImageError(f"{path}: it isn't a Slicer segmentation (.seg.nrrd)")
    check_geometry(Grid.of(image), str(path))
    return segments_of(image, str(path))


def is_segmentation(image: sitk.Image) -> bool:
    """Whether an image that was read from a file is a Slicer segmentation."""
    return image.GetDimension() == 3 and image.HasMetaDataKey("Segment0_LabelValue")


def segments_of(image: sitk.Image, name: str) -> dict[str, sitk.Image]:
    """As `read_segmentation`, of an image that was read already; `name` is what messages call it."""
    array = sitk.GetArrayViewFromImage(image)
    grid, masks = Grid.of(image), {}
    layers = [array[..., n] for n in range(array.shape[-1])] if array.ndim == 4 else [array]
    filled = [0] * len(layers)
    taken: set[tuple[int, int]] = set()
    for number in _segment_numbers(image, name):

        def value(key: str, default: str, number: int = number) -> str:
            full = f"Segment{number}_{key}"
            return (image.GetMetaData(full).strip() if image.HasMetaDataKey(full) else "") or default

        segment = value("Name", f"Segment {number + 1}")
        layer, label = value("Layer", "0" if len(layers) == 1 else "none"), value("LabelValue", "none")
        if not (_NUMBER.fullmatch(layer) and _NUMBER.fullmatch(label)) or int(layer) >= len(layers):
            raise MaskError(
                f"{name}: segment {segment} has label {label} in layer {layer}, which the file doesn't hold"
            )
        if (int(layer), int(label)) in taken:
            raise MaskError(f"{name}: two segments have label {int(label)} in layer {int(layer)}")
        taken.add((int(layer), int(label)))
        mask = layers[int(layer)] == int(label)
        filled[int(layer)] += int(np.count_nonzero(mask))
        masks[segment if segment not in masks else f"{segment} {number + 1}"] = grid.image(mask)
    for layer_number, (labels, count) in enumerate(zip(layers, filled, strict=True)):
        if np.count_nonzero(labels) != count:
            raise MaskError(f"{name}: layer {layer_number} has labels that are no segment's")
    return masks


def _segment_numbers(image: sitk.Image, name: str) -> list[int]:
    """The numbers of a file's segments, which are counted from 0. Raises MaskError where one is missing."""
    found = {int(key[1]) for text in image.GetMetaDataKeys() if (key := _SEGMENT_KEY.match(text))}
    numbers = sorted(found)
    if numbers != list(range(len(numbers))):
        raise MaskError(f"{name}: its header names segments {numbers}, but not all from 0 on")
    return numbers


def _check_on_grid(name: str, mask: sitk.Image, grid: Grid) -> None:
    if mask.GetDimension() != 3 or mask.GetNumberOfComponentsPerPixel() != 1:
        raise ImageError(f"segment {name}: its mask isn't a scalar 3D image")
    own = Grid.of(mask)
    same = own.size == grid.size and np.allclose(own.origin, grid.origin, atol=1e-4)
    if not same or not np.allclose(own.matrix, grid.matrix, atol=1e-6):
        raise ImageError(f"segment {name}: its mask lies on another grid than the first segment's")


def _geometry_lines(grid: Grid, count: int) -> list[str]:
    def vector(values: Iterable[float]) -> str:
        return "(" + ",".join(repr(float(v)) for v in values) + ")"

    layers = ("", "", "") if count == 1 else (f"{count} ", "none ", "list ")
    return [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        f"dimension: {3 if count == 1 else 4}",
        "space: left-posterior-superior",
        f"sizes: {layers[0]}" + " ".join(str(n) for n in grid.size),
        f"space directions: {layers[1]}" + " ".join(vector(step) for step in grid.matrix.T),
        f"kinds: {layers[2]}domain domain domain",
        "encoding: gzip",
        f"space origin: {vector(grid.origin)}",
    ]


def _key_lines(
    segments: list[tuple[str, sitk.Image, tuple[float, float, float]]],
    layers: np.ndarray,
    grid: Grid,
    tags: Mapping[str, str],
    reference: Grid | None,
) -> Iterator[str]:
    used: set[str] = set()
    for number, (name, _, color) in enumerate(segments):
        own = {"TerminologyEntry": NODULE_TERMINOLOGY, **tags}
        filled = np.nonzero(layers[..., number])
        # Slicer takes an extent that ends before it begins for an empty segment.
        extent = [(int(axis.min()), int(axis.max())) if len(axis) else (0, -1) for axis in reversed(filled)]
        keys = {
            "ID": _identifier(name, used),
            "Name": _one_line(name),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{float(c):.6g}" for c in color),
            "ColorAutoGenerated": "0",
            "LabelValue": "1",
            "Layer": str(number),
            "Extent": " ".join(f"{low} {high}" for low, high in extent),
            "Tags": "".join(f"{tag_text(key)}:{tag_text(value)}|" for key, value in own.items()),
        }
        yield from (f"Segment{number}_{key}:={value}" for key, value in keys.items())
    reference = grid if reference is None else reference
    start = reference.points_to_indices(grid.origin)
    aligned = np.allclose(start, np.rint(start), atol=1e-2) and np.allclose(reference.matrix, grid.matrix, atol=1e-6)
    offset = np.rint(start).astype(int).tolist() if aligned else (0, 0, 0)
    yield "Segmentation_ContainedRepresentationNames:=Binary labelmap|"
    yield f"Segmentation_ConversionParameters:={_REFERENCE_GEOMETRY}|{_ras_geometry(reference)}|&"
    yield "Segmentation_MasterRepresentation:=Binary labelmap"
    yield "Segmentation_ReferenceImageExtentOffset:=" + " ".join(str(n) for n in offset)


def _ras_geometry(grid: Grid) -> str:
    """A grid as Slicer writes it: the index-to-RAS matrix, row by row, and the extent."""
    extent = [bound for n in grid.size for bound in (0, n - 1)]
    numbers = [repr(float(value)) for value in ras_lattice(grid).ravel()] + [str(bound) for bound in extent]
    return "".join(f"{number};" for number in numbers)


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _identifier(name: str, used: set[str]) -> str:
    """A segment's ID: its name in letters that every reader keeps, unique in the file."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in _one_line(name)) or "Segment"
    identifier, number = stem, 1
    while identifier in used:
        number += 1
        identifier = f"{stem}_{number}"
    used.add(identifier)
    return identifier
