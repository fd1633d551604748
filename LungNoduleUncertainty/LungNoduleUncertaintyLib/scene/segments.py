"""Volume nodes become the library's images, its results become segments.

A volume's parent transform counts. What is segmented is the volume as it lies in the world. A linear transform, also a
nested, scaling, mirroring or shearing one, becomes part of the image's geometry, and no voxel changes. A non-linear one
is applied by sampling the volume on a lattice in the world that follows the volume's own axes. The segments are always
written on the voxels of the volume itself, in the coordinates of the segmentation's parent transform; a segmentation
that is created here gets the volume's parent transform.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, NoduleError, OutputError, PointError
from LungNoduleKit.geometry import AIR_HU, Grid, as_triple, swap_lps_ras
from LungNoduleKit.mask_parts import mask_parts
from LungNoduleKit.scene.labelmaps import (
    Segment,
    Segmentation,
    new_segment,
    oriented_array,
    oriented_image,
    segment_names,
    set_reference_geometry,
    tag,
)
from LungNoduleKit.scene.lattices import (
    fitted_lattice,
    ijk_to_ras,
    lattice_grid,
    moved_start,
    named,
    size_of,
    voxels_of,
)
from LungNoduleKit.scene.nodes import Node, all_or_nothing, one_event, place_beside
from LungNoduleKit.scene.transforms import (
    Transform,
    chain,
    from_world,
    matrix_between,
    reslice,
    to_world,
    transform_between,
    transform_points,
)

from ..outlining.finding import Point
from ..outlining.result import NoduleSegmentation
from ..segments import MEASUREMENTS_TAG, NODULE_TAG, PART_TAG, POINT_TAG, SEGMENTS, TAG_PREFIX, masks_of
from .display import show_parts
from .measured import remember
from .members import settle

_REACH_MM = 80.0  # half the width of what is sampled around a point: more than the largest cube that a model looks at
_ALIGNED = 1e-2  # voxels: grids that differ by less are one


def image_from_volume_node(
    volumeNode: Node, around_ras: Point | None = None, reach_mm: float = _REACH_MM
) -> sitk.Image:
    """A scalar volume node's voxels as a SimpleITK image that lies in the world (LPS mm), its own data type.

    Under a linear parent transform the image has the node's voxels in their order; under a non-linear one they are
    interpolated linearly, and what lies outside of the volume has the value of air or the smallest in the volume.
    `around_ras` (world, mm) and `reach_mm` limit the image to a neighborhood; only that part is copied. Raises
    `ImageError` for a node without a scalar 3D image or with a singular geometry, `PointError` if nothing of the volume
    lies around the point.
    """
    array = voxels_of(volumeNode)
    world = matrix_between(volumeNode.GetParentTransformNode(), None)
    size = array.shape[::-1]
    if world is not None:
        lattice = world @ ijk_to_ras(volumeNode)
        whole = lattice_grid(lattice, size, named(volumeNode))
        start, stop = _neighborhood(lattice, size, around_ras, reach_mm)
        part = array[tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))]
        return whole.part(start, stop - start).image(np.ascontiguousarray(part))
    if min(size) < 2:
        raise ImageError(f"{named(volumeNode)}: it has a single slice {size}; a volume is needed")
    parent, to_ras = volumeNode.GetParentTransformNode(), ijk_to_ras(volumeNode)
    lattice, size = fitted_lattice(
        to_ras, size, transform_between(parent, None), named(volumeNode), around_ras, reach_mm
    )
    steps = [lattice, transform_between(None, parent), np.linalg.inv(to_ras)]
    outside = max(AIR_HU, float(array.min()))
    return lattice_grid(lattice, size, named(volumeNode)).image(reslice(array, chain(*steps), size, outside=outside))


def check_point_in_volume(volumeNode: Node, point_ras: Point) -> None:
    """Raises `PointError`, with RAS positions as Slicer shows them, for a point (world, mm) outside of the volume, and
    `ImageError` for a volume whose axes span no space.
    """
    size = np.array(voxels_of(volumeNode).shape[::-1])
    world = matrix_between(volumeNode.GetParentTransformNode(), None)
    if world is not None:
        lattice_grid(
            world @ ijk_to_ras(volumeNode), size_of(volumeNode), named(volumeNode)
        )  # raises where its axes span no space
    local = from_world(volumeNode, point_ras)
    try:
        index = np.linalg.solve(ijk_to_ras(volumeNode), [*local, 1.0])[:3]
    except np.linalg.LinAlgError:
        raise ImageError(f"{named(volumeNode)}: its axes span no space") from None
    if (index < -0.5 - _ALIGNED).any() or (index > size - 0.5 + _ALIGNED).any():
        place = ", ".join(f"{v:.1f}" for v in point_ras)
        raise PointError(f"point ({place}) mm RAS: it lies outside of {named(volumeNode)}")


def _neighborhood(
    lattice: np.ndarray, size: Sequence[int], around_ras: Point | None, reach_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """First and last (exclusive) voxel (i, j, k) of a volume within reach of a point; all of it for a point outside."""
    everything = np.zeros(3, int), np.array(size)
    if around_ras is None:
        return everything
    inverse = np.linalg.inv(lattice)
    center = inverse[:3, :3] @ np.asarray(around_ras, float) + inverse[:3, 3]
    if (center < -0.5).any() or (center > everything[1] - 0.5).any():
        return everything  # whoever looks at the image says where the point lies
    reach = reach_mm * np.linalg.norm(inverse[:3, :3], axis=1)  # a ball's extent along each index axis
    start = np.floor(center - reach).astype(int).clip(0)
    return start, np.minimum(np.ceil(center + reach).astype(int) + 1, size)


def point_from_mask(near: Node | tuple[Node, str]) -> Point:
    """Centroid (R, A, S) in the world, mm, of a segment or a labelmap.

    `near` is (segmentation node, segment ID) or a labelmap volume node. Raises `PointError` if it is empty or missing.
    """
    node, array, matrix = _marked(near)
    indices = np.argwhere(array)[:, ::-1]
    local = indices @ matrix[:3, :3].T + matrix[:3, 3]
    world = transform_points(transform_between(node.GetParentTransformNode(), None), local)
    return as_triple(world.mean(axis=0))


def points_from_mask(near: Node | tuple[Node, str]) -> list[Point]:
    """A point (R, A, S) in the world, mm, in each part of a segment or a labelmap, the largest part first.

    `near` and errors as in `point_from_mask`; what is a part, see `mask_parts`.
    """
    node, array, lattice = _marked(near)
    mask = lattice_grid(lattice, array.shape[::-1], named(node)).image((array != 0).astype(np.uint8))
    return [to_world(node, as_triple(swap_lps_ras(part.point_lps))) for part in mask_parts(mask)]


def _marked(near: Node | tuple[Node, str]) -> tuple[Node, np.ndarray, np.ndarray]:
    """(node, array (z, y, x), lattice in the node's own coordinates) of what marks a nodule. Raises `PointError`."""
    import slicer

    if isinstance(near, (tuple, list)):
        node, segment_id = near
        check_segmentation(node)
        labelmap = slicer.vtkOrientedImageData()
        if node.GetSegmentation().GetSegment(segment_id) is None:
            raise PointError(f"segmentation {node.GetName()!r}: it has no segment {segment_id!r}")
        if not node.GetBinaryLabelmapRepresentation(segment_id, labelmap):
            raise PointError(f"segment {segment_id!r} of {node.GetName()!r}: it has no binary labelmap")
        array, matrix = oriented_array(labelmap)
        name = f"segment {segment_id!r} of {node.GetName()!r}"
    else:
        node, name = near, f"labelmap {near.GetName()!r}"
        array, matrix = voxels_of(node), ijk_to_ras(node)
    if not array.any():
        raise PointError(f"{name}: it is empty")
    return node, array, matrix


def add_result(
    result: NoduleSegmentation, volumeNode: Node, segmentationNode: Node | None = None, prefix: str = ""
) -> Node:
    """Adds the segments of a result to a segmentation node, a new one if none is given; returns the node.

    A new node is named after the volume, has its parent transform and stands beside it in the subject hierarchy.
    All or nothing: when this raises, the scene is as it was.
    """
    if segmentationNode is not None:
        add_segments(result, segmentationNode, volumeNode, prefix)
        return segmentationNode
    scene = volumeNode.GetScene()
    if scene is None:
        raise ImageError(f"{named(volumeNode)}: it is in no scene")
    with all_or_nothing(scene) as add:
        name = scene.GenerateUniqueName(f"{volumeNode.GetName()} nodule")
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        add(node)
        node.CreateDefaultDisplayNodes()
        _show_new(node)
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        add_segments(result, node, volumeNode, prefix)
        place_beside(node, volumeNode)
    return node


def add_segments(
    result: NoduleSegmentation, segmentationNode: Node, volumeNode: Node, prefix: str = ""
) -> dict[str, str]:
    """Adds a result's HC, LC and Final to a segmentation node; returns their IDs as {"HC": ID, "LC": ID, "Final": ID}.
    Of a result without HC and LC it adds Final alone.

    For `result` and the segments see `new_segments`. With a prefix such as "Nodule 2" names become "Nodule 2 HC"; if
    names without prefix are taken, the first free "Nodule N" is used. The volume becomes the segmentation's reference
    geometry unless it has one. Other segments aren't touched. All or nothing: when this raises, nothing was added.
    """
    check_segmentation(segmentationNode)
    segmentation = segmentationNode.GetSegmentation()
    segments = new_segments(result, segmentationNode, volumeNode, prefix or _free_prefix(segmentation))
    added: dict[str, str] = {}
    with one_event(segmentationNode):
        try:
            for part, segment in segments.items():
                segment_id = segmentation.GenerateUniqueSegmentID(segment.GetName())
                if not segmentation.AddSegment(segment, segment_id):
                    raise OutputError(f"segmentation {segmentationNode.GetName()!r}: it doesn't take segment {part}")
                added[part] = segment_id
            settle(segmentationNode, added)
            show_parts(segmentationNode, added, added)
            set_reference_geometry(segmentationNode, volumeNode)
            key = tag(segments["Final"], NODULE_TAG)
            remember(segmentationNode, key, added, volumeNode)
        except BaseException:
            for segment_id in added.values():
                segmentation.RemoveSegment(segment_id)
            raise
    return added


def new_segments(
    result: NoduleSegmentation, segmentationNode: Node, volumeNode: Node, prefix: str = ""
) -> dict[str, Segment]:
    """A result's vtkSegments {"HC": ..., "LC": ..., "Final": ...} for a segmentation node, not yet in it.

    `result` is a `NoduleSegmentation` whose images lie in the world; its provenance, warnings and measurements become
    tags. Each segment has a layer of its own, since Final overlaps HC and LC, the terminology Nodule in the Lung, and
    its own color.
    """
    masks, start = _on_volume(result, volumeNode)
    matrix = _segmentation_matrix(segmentationNode, volumeNode)
    tags = {TAG_PREFIX + key: value for key, value in result.tag_texts().items()}
    tags[NODULE_TAG] = uuid.uuid4().hex
    point = from_world(segmentationNode, as_triple(swap_lps_ras(result.provenance.point_lps)))
    tags[POINT_TAG] = " ".join(repr(v) for v in point)
    tags[MEASUREMENTS_TAG] = json.dumps(result.measurements, separators=(",", ":"))
    return {
        part: new_segment(
            oriented_image(mask, start, matrix),
            SEGMENTS[part].color,
            {PART_TAG: part, **tags},
            f"{prefix} {part}".strip(),
        )
        for part, mask in masks.items()
    }


def _free_prefix(segmentation: Segmentation) -> str:
    names = segment_names(segmentation)
    number, prefix = 1, ""
    while names & {f"{prefix} {part}".strip() for part in SEGMENTS}:
        number += 1
        prefix = f"Nodule {number}"
    return prefix


def _show_new(segmentationNode: Node) -> None:
    """Sets what concerns all segments, so only of a segmentation that is made here."""
    display = segmentationNode.GetDisplayNode()
    display.SetSliceIntersectionThickness(3)
    display.SetBackfaceCulling(True)  # LC is a shell: its inner wall coincides with HC's surface
    display.SetAmbient(0.2)
    segmentation = segmentationNode.GetSegmentation()
    segmentation.SetConversionParameter("Smoothing factor", "0.3")  # small nodules keep their size


def _on_volume(result: NoduleSegmentation, volumeNode: Node) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({part: bool array (z, y, x)} of a result's masks, first voxel (i, j, k)) on the volume's own voxels."""
    images = masks_of(result)
    grid = Grid.of(images["Final"])
    masks = {part: sitk.GetArrayViewFromImage(image) != 0 for part, image in images.items()}
    for part, mask in masks.items():
        if mask.shape != grid.shape or not mask.any():
            raise NoduleError(f"segment {part}: its mask is empty or on another grid than the final one's")
    parent = volumeNode.GetParentTransformNode()
    world = matrix_between(parent, None)
    if world is not None:
        own = lattice_grid(world @ ijk_to_ras(volumeNode), size_of(volumeNode), named(volumeNode))
        start = own.points_to_indices(grid.origin)
        end = own.points_to_indices(grid.indices_to_points(np.array(grid.size) - 1))
        expected = np.rint(start) + np.array(grid.size) - 1
        if np.allclose(start, np.rint(start), atol=_ALIGNED) and np.allclose(end, expected, atol=_ALIGNED):
            return masks, np.rint(start).astype(int)
    world_to_local, local_to_world = transform_between(None, parent), transform_between(parent, None)
    return _masks_on_lattice(
        masks, grid, ijk_to_ras(volumeNode), size_of(volumeNode), world_to_local, local_to_world, named(volumeNode)
    )


def _masks_on_lattice(
    masks: Mapping[str, np.ndarray],
    grid: Grid,
    to_ras: np.ndarray,
    size: Sequence[int],
    world_to_local: Transform,
    local_to_world: Transform,
    name: str,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({"HC", "LC", "Final": bool array (z, y, x)}, first voxel (i, j, k)) on a volume's voxels.

    `masks` are HC, LC and Final, or Final alone, on another grid, in the world; the volume has the lattice `to_ras` and
    `size` voxels in its own coordinates. A voxel is inside where an interpolated mask reaches one half; HC and LC stay
    disjoint, and Final between HC and both together. Raises `NoduleError` if the nodule lies outside of the volume or
    nothing of a mask is left.
    """
    union = np.any(list(masks.values()), axis=0)
    local = transform_points(world_to_local, swap_lps_ras(grid.indices_to_points(np.argwhere(union)[:, ::-1])))
    indices = (local - to_ras[:3, 3]) @ np.linalg.inv(to_ras[:3, :3]).T
    start = np.maximum(np.floor(indices.min(axis=0)).astype(int) - 2, 0)
    count = np.minimum(np.ceil(indices.max(axis=0)).astype(int) + 3, size) - start
    if (count < 1).any():
        raise NoduleError(f"{name}: the nodule lies outside of it")
    from_grid = np.linalg.inv(grid.matrix)
    to_grid = np.eye(4)
    to_grid[:3, :3], to_grid[:3, 3] = swap_lps_ras(from_grid), -from_grid @ grid.origin
    transform = chain(moved_start(to_ras, start), local_to_world, to_grid)

    def sampled(mask: np.ndarray) -> np.ndarray:
        values = reslice(mask.astype(np.float32), transform, count)
        inside = values >= 0.5
        return inside if inside.any() else values == max(values.max(), 1e-6)  # a mask of a voxel or two stays one

    union, final = sampled(union), sampled(masks["Final"])
    final &= union
    parts = {"Final": final}
    if "HC" in masks:
        hc = sampled(masks["HC"]) & final
        parts = {"HC": hc, "LC": union & ~hc, **parts}
    for part, mask in parts.items():
        if not mask.any():
            raise NoduleError(f"{name}: nothing of {part} is left on its voxels")
    return parts, start


def _segmentation_matrix(segmentationNode: Node, volumeNode: Node) -> np.ndarray:
    """The volume's index to RAS matrix in the coordinates of the segmentation's parent transform."""
    own, parent = volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode()
    between = matrix_between(own, parent)
    if between is None:
        raise OutputError(
            f"segmentation {segmentationNode.GetName()!r}: a non-linear transform lies between it and the volume "
            f"{volumeNode.GetName()!r}; put both under the same transform"
        )
    return between @ ijk_to_ras(volumeNode)


def check_segmentation(node: Node | None) -> None:
    """Raises `OutputError` for what isn't a segmentation node."""
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise OutputError(f"{node.GetName() if node else None!r}: it isn't a segmentation node")


def checked_point(point_ras: Iterable[float]) -> Point:
    """Three floats; raises `PointError` for anything but three finite numbers."""
    try:
        x, y, z = (float(v) for v in point_ras)
    except (TypeError, ValueError):
        x = y = z = math.nan
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise PointError(f"point {point_ras!r}: it isn't three finite numbers (RAS, mm)")
    return x, y, z
