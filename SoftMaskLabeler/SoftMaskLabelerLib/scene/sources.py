"""What marks a lesion in the scene - segments, RECIST lines, a trimap node - as images on the volume's own voxels.

Everything is read here, on the main thread; what comes out knows no MRML, so that any thread can compute with it. Only
the part of the volume around the lesion is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.geometry import as_triple
from LungNoduleKit.scene.labelmaps import oriented_array, tag
from LungNoduleKit.scene.lattices import ijk_to_ras, named
from LungNoduleKit.scene.nodes import line_ends
from LungNoduleKit.scene.transforms import Node, chain, matrix_between, reslice, transform_points

from ..errors import ImageError, MaskError, RecistError, TrimapError
from ..trimap.trimap import BACKGROUND, LESION, UNKNOWN
from .frame import Frame

TAG_PREFIX = "SoftMaskLabeler."  # of every tag and attribute that says where a node or segment comes from
PART_TAG = TAG_PREFIX + "trimap"  # of a trimap's segments: lesion or unknown, whatever the segment's name is changed to
VALUES = (BACKGROUND, UNKNOWN, LESION)  # what the labels 0, 1 and 2 of a trimap's labelmap mean
_CONTEXT_MM = 20.0  # of the image around the marks, besides half of their extent and the dilation


@dataclass
class Source:
    """What marks the lesion: `segments` [(segmentation node, segment ID), ...], one mask or several readers' masks; or
    `lines` (long axis, short axis), two markups lines; or `trimap`, a labelmap node (0 background, 1 unknown, 2 lesion)
    or a segmentation node with the segments Unknown and Lesion.
    """

    segments: list[tuple[Node, str]] = field(default_factory=list)
    lines: tuple[Node, ...] = ()
    trimap: Node | None = None

    @property
    def kind(self) -> str:
        """mask, readers, recist or trimap."""
        if self.trimap is not None:
            return "trimap"
        return "recist" if self.lines else "mask" if len(self.segments) == 1 else "readers"


@dataclass
class Inputs:
    """`image` and what marks the lesion on it, as SimpleITK images in image space (see `frame`), LPS mm."""

    frame: Frame
    image: sitk.Image
    masks: list[sitk.Image] | None = None
    recist_points_lps: list[tuple[float, float, float]] | None = None
    trimap: sitk.Image | None = None


def read(volumeNode: Node, source: Source, reach_mm: float = 0.0) -> Inputs:
    """The volume around what marks the lesion, and the marks on the same voxels.

    `reach_mm`: of the dilation, so that it fits into the region. Raises `SoftMaskError` for a volume, a segment, a line
    or a trimap that can't be used, with its name and the reason. The scene isn't touched.
    """
    given = bool(source.segments) + bool(source.lines) + (source.trimap is not None)
    if given != 1:
        raise MaskError("give either segments, or two lines, or a trimap" + (", and only one of them" if given else ""))
    frame = Frame.of(volumeNode)
    if source.lines:
        points = _recist_points(frame, source.lines)
        start, size = _region(frame, points, _CONTEXT_MM + reach_mm)
        image = _cropped(frame, start, size)
        return Inputs(frame, image, recist_points_lps=[as_triple(p) for p in frame.grid.indices_to_points(points)])
    if source.trimap is not None:
        return _with_trimap(frame, source.trimap)
    labelmaps = [_segment_labelmap(node, segment_id) for node, segment_id in source.segments]
    corners = [_corners(frame, node, *parts) for (node, _), parts in zip(source.segments, labelmaps, strict=True)]
    start, size = _region(frame, np.vstack(corners), _CONTEXT_MM + reach_mm)
    masks = []
    for (node, segment_id), (array, lattice) in zip(source.segments, labelmaps, strict=True):
        mask = _covered(frame, node, array, lattice, start, size)
        if not mask.any():
            raise MaskError(f"{_segment_name(node, segment_id)}: it lies outside of {named(volumeNode)}")
        masks.append(frame.image(mask.astype(np.uint8), start))
    return Inputs(frame, _cropped(frame, start, size), masks=masks)


def check_lines(lines: Sequence[Node]) -> None:
    """Raises `RecistError` unless these are two markups lines with both of their ends placed."""
    if len(tuple(lines)) != 2 or any(line is None for line in lines):
        raise RecistError("two lines are needed: along the lesion's long axis and along its short axis")
    for line in lines:
        if not hasattr(line, "IsA") or not line.IsA("vtkMRMLMarkupsLineNode"):
            raise RecistError(f"{line.GetName() if hasattr(line, 'GetName') else line!r}: it isn't a markups line")
        if line.GetNumberOfDefinedControlPoints() < 2:
            raise RecistError(f"line {line.GetName()!r}: place both of its ends on the lesion's outline first")
    if lines[0] is lines[1]:
        raise RecistError(f"line {lines[0].GetName()!r}: it can't be both the long and the short axis")


def _recist_points(frame: Frame, lines: Sequence[Node]) -> np.ndarray:
    """Voxel indices (4, 3) of the long axis' ends, then the short axis'; whichever line was given first."""
    check_lines(lines)
    ends = [np.array(line_ends(line)) for line in lines]
    if np.linalg.norm(ends[0][1] - ends[0][0]) < np.linalg.norm(ends[1][1] - ends[1][0]):
        ends.reverse()
    points = frame.world_to_index(np.vstack(ends))
    if (points < -0.5).any() or (points > np.array(frame.grid.size) - 0.5).any():
        names = " and ".join(repr(line.GetName()) for line in lines)
        raise RecistError(f"lines {names}: an end lies outside of {named(frame.volumeNode)}")
    return points


def _segment_name(node: Node, segment_id: str) -> str:
    segment = node.GetSegmentation().GetSegment(segment_id)
    return f"segment {segment.GetName() if segment else segment_id!r} of {node.GetName()!r}"


def _segment_labelmap(node: Node, segment_id: str) -> tuple[np.ndarray, np.ndarray]:
    """(array (z, y, x), lattice in the segmentation's coordinates) of a segment. Raises `MaskError`."""
    import slicer

    if node is None or not hasattr(node, "IsA") or not node.IsA("vtkMRMLSegmentationNode"):
        raise MaskError(f"{node.GetName() if hasattr(node, 'GetName') else node!r}: it isn't a segmentation node")
    name = _segment_name(node, segment_id)
    if node.GetSegmentation().GetSegment(segment_id) is None:
        raise MaskError(f"{name}: there is no such segment")
    labelmap = slicer.vtkOrientedImageData()
    if not node.GetBinaryLabelmapRepresentation(segment_id, labelmap):
        raise MaskError(f"{name}: it has no binary labelmap; create that in the module Segmentations")
    array, lattice = oriented_array(labelmap)
    if not array.any():
        raise MaskError(f"{name}: it is empty")
    return array, lattice


def _corners(frame: Frame, node: Node, array: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Voxel indices of the volume (n, 3) that a labelmap's non-zero voxels reach."""
    used = [np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis))) for axis in (2, 1, 0)]
    # A warp can bulge between the corners: its box is looked at more closely.
    ends = [np.linspace(axis[0] - 0.5, axis[-1] + 0.5, 2 if frame.linear else 9) for axis in used]
    grid = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = (node.GetParentTransformNode(), frame.volumeNode.GetParentTransformNode())
    return transform_points(chain(lattice, steps, np.linalg.inv(frame.own)), grid)


def _region(frame: Frame, indices: np.ndarray, margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and size (i, j, k) of the column of voxels around positions, with a margin. Raises `MaskError`."""
    low, high = indices.min(axis=0), indices.max(axis=0)
    size = np.array(frame.grid.size)
    if not np.isfinite(indices).all() or (high < -0.5).any() or (low > size - 0.5).any():
        raise MaskError(f"what marks the lesion lies outside of {named(frame.volumeNode)}")
    margin = np.ceil(margin_mm / np.array(frame.grid.spacing) + (high - low) / 2)
    start = np.maximum(np.floor(low - margin), 0).astype(int)
    stop = np.minimum(np.ceil(high + margin) + 1, size).astype(int)
    start[2], stop[2] = 0, size[2]  # so that messages count the volume's slices
    return start, stop - start


def _cropped(frame: Frame, start: np.ndarray, size: np.ndarray) -> sitk.Image:
    part = tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))
    return frame.image(frame.array[part], start)


def _covered(
    frame: Frame, node: Node, array: np.ndarray, lattice: np.ndarray, start: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Where a labelmap of a node covers at least half of a voxel, in a part of the volume: bool (z, y, x)."""
    transform = chain(*frame.index_to(node, start), np.linalg.inv(lattice))
    return reslice((array != 0).astype(np.float32), transform, size) >= 0.5


def _with_trimap(frame: Frame, node: Node) -> Inputs:
    """The inputs for a trimap node, in the smallest region that the image needs around it."""
    if node.IsA("vtkMRMLSegmentationNode"):
        parts = trimap_segments(node)
        array, lattice = _segment_labelmap(node, parts["lesion"])
        corners = [_corners(frame, node, array, lattice)]
        unknown = None
        if "unknown" in parts:
            unknown = _segment_labelmap(node, parts["unknown"])
            corners.append(_corners(frame, node, *unknown))
        start, size = _region(frame, np.vstack(corners), _CONTEXT_MM)
        values = np.zeros(tuple(size[::-1]), np.uint8)
        if unknown is not None:
            values[_covered(frame, node, *unknown, start, size)] = UNKNOWN
        values[_covered(frame, node, array, lattice, start, size)] = LESION
    else:
        labels, lattice = _trimap_labels(node)
        start, size = _region(frame, _corners(frame, node, labels, lattice), _CONTEXT_MM)
        transform = chain(*frame.index_to(node, start), np.linalg.inv(lattice))
        values = np.array(VALUES, np.uint8)[reslice(labels, transform, size, linear=False)]
    if not (values == LESION).any():
        raise TrimapError(f"trimap {node.GetName()!r}: it has no known lesion in {named(frame.volumeNode)}")
    return Inputs(frame, _cropped(frame, start, size), trimap=frame.image(values, start))


def _trimap_labels(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """(labels 0, 1, 2 as uint8 (z, y, x), lattice) of a labelmap node; 0, 128, 255 are understood too."""
    from vtk.util.numpy_support import vtk_to_numpy

    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise TrimapError(f"trimap {node.GetName()!r}: it is neither a labelmap nor a segmentation")
    image = node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or scalars.GetNumberOfComponents() != 1:
        raise TrimapError(f"trimap {node.GetName()!r}: it has no labels")
    array = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    found = set(np.unique(array).tolist())
    if found <= set(VALUES) and found & {UNKNOWN, LESION}:
        array = np.searchsorted(VALUES, array)
    elif not found <= {0, 1, 2}:
        raise TrimapError(f"trimap {node.GetName()!r}: its labels must be 0, 1 and 2, not {sorted(found)[:6]}")
    if not array.any():
        raise TrimapError(f"trimap {node.GetName()!r}: it is empty")
    return array.astype(np.uint8), ijk_to_ras(node)


def trimap_segments(node: Node) -> dict[str, str]:
    """IDs of a trimap segmentation's segments {"lesion": ID, "unknown": ID}, by tag, else by name.

    `unknown` may be missing. Raises `TrimapError` if there is no segment of the lesion.
    """
    segmentation, parts = node.GetSegmentation(), dict[str, str]()
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        tagged = tag(segment, PART_TAG)
        part = tagged or segment.GetName().lower()
        if part in ("lesion", "unknown") and (tagged or part not in parts):
            parts[part] = segmentation.GetNthSegmentID(number)
    if "lesion" not in parts:
        raise TrimapError(f"trimap {node.GetName()!r}: it has no segment named Lesion")
    return parts


def check_target(segmentationNode: Node | None, volumeNode: Node) -> None:
    """Raises `ImageError` for a segmentation that can't take the volume's voxels."""
    if segmentationNode is None:
        return
    if not hasattr(segmentationNode, "IsA") or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        raise ImageError(f"{segmentationNode!r}: it isn't a segmentation node")
    if matrix_between(volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode()) is None:
        raise ImageError(
            f"{named(segmentationNode)}: a non-linear transform lies between it and {named(volumeNode)}; put both "
            "under the same transform"
        )
