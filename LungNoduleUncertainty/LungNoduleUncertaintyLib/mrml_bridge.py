"""Slicer's nodes and the library's images, both ways; the only file of the package that knows MRML.

MRML positions are RAS millimeters, the library's are LPS millimeters: the change of sign happens here and nowhere else.

A volume's parent transform counts. What is segmented is the volume as it lies in the world. A linear transform, also a
nested, scaling, mirroring or shearing one, becomes part of the image's geometry, and no voxel changes. A non-linear one
is applied by sampling the volume on a lattice in the world that follows the volume's own axes. The segments are always
written on the voxels of the volume itself, in the coordinates of the segmentation's parent transform; a segmentation
that is created here gets the volume's parent transform.
"""

from .errors import ImageError, NoduleError, OutputError, PointError
from .segments import SEGMENTS, TAG_PREFIX
from .vtk_sampling import (
    fitted_lattice,
    lattice_grid,
    masks_on_lattice,
    numpy_matrix,
    oriented_array,
    oriented_image,
    reslice,
    transform_points,
)

PART_TAG = TAG_PREFIX + "part"  # HC, LC or Final, whatever the segment's name is changed to

_REACH_MM = 80.0  # half the width of what is sampled around a point: more than the largest cube that a model looks at
_ALIGNED = 1e-2  # voxels: grids that differ by less are one


def segment_volume_node(
    volumeNode,
    point_ras=None,
    segmentationNode=None,
    *,
    near=None,
    model=None,
    device="auto",
    prefix="",
    segment=None,
    progress=None,
):
    """Segments the nodule at a point of a volume node; returns the segmentation node with HC, LC and Final added.

    `point_ras` is (R, A, S) in the world, mm; or `near` marks the nodule, see `point_from_mask`. A new segmentation
    node is created if none is given. For the rest see `segment_result` and `add_result`. Raises `NoduleError`; the
    scene is then as it was.
    """
    if segmentationNode is not None:
        _check_segmentation(segmentationNode)
    result = segment_result(
        volumeNode, point_ras, near=near, model=model, device=device, segment=segment, progress=progress
    )
    return add_result(result, volumeNode, segmentationNode, prefix)


def segment_result(volumeNode, point_ras=None, *, near=None, model=None, device="auto", segment=None, progress=None):
    """The result of `segment_nodule` for a volume node; the scene isn't touched.

    `segment` stands in for `segmentation.segment_nodule` and is called as
    ``segment(ct, point_lps=..., model=..., device=...)``, with `progress` if that is given.
    """
    if (point_ras is None) == (near is None):
        raise PointError("give either a point (RAS, mm) or a mask that marks the nodule, and not both")
    point = point_from_mask(near) if point_ras is None else _checked_point(point_ras)
    ct = image_from_volume_node(volumeNode, around_ras=point)
    if segment is None:
        from .segmentation import segment_nodule as segment
    more = {} if progress is None else {"progress": progress}
    return segment(ct, point_lps=(-point[0], -point[1], point[2]), model=model, device=device, **more)


def image_from_volume_node(volumeNode, around_ras=None, reach_mm=_REACH_MM):
    """A scalar volume node's voxels as a SimpleITK image that lies in the world (LPS mm), its own data type.

    Under a linear parent transform the image has the node's voxels, all of them, in their order. Under a non-linear one
    they are interpolated linearly; then `around_ras` (world, mm) and `reach_mm` limit the image to a neighborhood, and
    what lies outside of the volume has the value of air or the smallest in the volume. Raises `ImageError` for a node
    without a scalar 3D image or with a singular geometry, `PointError` if nothing of the volume lies around the point.
    """
    import numpy as np

    from .geometry import AIR_HU

    array = _voxels(volumeNode)
    world = _matrix_between(volumeNode.GetParentTransformNode(), None)
    size = array.shape[::-1]
    if world is not None:
        return lattice_grid(world @ _ijk_to_ras(volumeNode), size, _named(volumeNode)).image(array)
    if min(size) < 2:
        raise ImageError(f"{_named(volumeNode)}: it has a single slice {size}; a volume is needed")
    parent, to_ras = volumeNode.GetParentTransformNode(), _ijk_to_ras(volumeNode)
    lattice, size = fitted_lattice(
        to_ras, size, _transform_between(parent, None), _named(volumeNode), around_ras, reach_mm
    )
    steps = [lattice, _transform_between(None, parent), np.linalg.inv(to_ras)]
    outside = max(AIR_HU, float(array.min()))
    return lattice_grid(lattice, size, _named(volumeNode)).image(reslice(array, steps, size, outside))


def point_from_mask(near):
    """Centroid (R, A, S) in the world, mm, of a segment or a labelmap.

    `near` is (segmentation node, segment ID) or a labelmap volume node. Raises `PointError` if it is empty or missing.
    """
    import numpy as np
    import slicer

    if isinstance(near, (tuple, list)):
        node, segment_id = near
        _check_segmentation(node)
        labelmap = slicer.vtkOrientedImageData()
        if node.GetSegmentation().GetSegment(segment_id) is None:
            raise PointError(f"segmentation {node.GetName()!r}: it has no segment {segment_id!r}")
        if not node.GetBinaryLabelmapRepresentation(segment_id, labelmap):
            raise PointError(f"segment {segment_id!r} of {node.GetName()!r}: it has no binary labelmap")
        array, matrix = oriented_array(labelmap)
        name = f"segment {segment_id!r} of {node.GetName()!r}"
    else:
        node, name = near, f"labelmap {near.GetName()!r}"
        array, matrix = _voxels(node), _ijk_to_ras(node)
    indices = np.argwhere(array)[:, ::-1]
    if not len(indices):
        raise PointError(f"{name}: it is empty")
    local = indices @ matrix[:3, :3].T + matrix[:3, 3]
    world = transform_points(_transform_between(node.GetParentTransformNode(), None), local)
    return tuple(float(v) for v in world.mean(axis=0))


def add_result(result, volumeNode, segmentationNode=None, prefix=""):
    """Adds the segments of a result to a segmentation node, a new one if none is given; returns the node.

    A new node is named after the volume, has its parent transform and stands beside it in the subject hierarchy.
    All or nothing: when this raises, the scene is as it was.
    """
    if segmentationNode is not None:
        add_segments(result, segmentationNode, volumeNode, prefix)
        return segmentationNode
    scene = volumeNode.GetScene()
    if scene is None:
        raise ImageError(f"{_named(volumeNode)}: it is in no scene")
    node = scene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{volumeNode.GetName()} nodule")
    )
    try:
        node.CreateDefaultDisplayNodes()
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        add_segments(result, node, volumeNode, prefix)
        _place_beside(node, volumeNode)
    except BaseException:
        for number in reversed(range(node.GetNumberOfDisplayNodes())):
            scene.RemoveNode(node.GetNthDisplayNode(number))
        scene.RemoveNode(node)
        raise
    return node


def add_segments(result, segmentationNode, volumeNode, prefix=""):
    """Adds a result's HC, LC and Final to a segmentation node; returns their IDs as {"HC": ID, "LC": ID, "Final": ID}.

    `result` has `hc`, `lc` and `final`, uint8 SimpleITK images (LPS, world) on one grid, and may have `provenance`, a
    dict of strings that become tags. Each segment has a layer of its own, since Final overlaps HC and LC, the
    terminology Nodule in the Lung, and its own color. With a prefix such as "Nodule 2" names become "Nodule 2 HC"; if
    names without prefix are taken, the first free "Nodule N" is used. The volume becomes the segmentation's reference
    geometry unless it has one. Other segments aren't touched. All or nothing: when this raises, nothing was added.
    """
    _check_segmentation(segmentationNode)
    masks, start = _on_volume(result, volumeNode)
    matrix = _segmentation_matrix(segmentationNode, volumeNode)
    segmentation = segmentationNode.GetSegmentation()
    prefix = prefix or _free_prefix(segmentation)
    provenance = getattr(result, "provenance", None) or {}
    segments = {
        part: _segment(part, f"{prefix} {part}".strip(), color, oriented_image(masks[part], start, matrix), provenance)
        for part, (_, color) in SEGMENTS.items()
    }
    added = {}
    modifying = segmentationNode.StartModify()
    try:
        for part, segment in segments.items():
            segment_id = segmentation.GenerateUniqueSegmentID(segment.GetName())
            if not segmentation.AddSegment(segment, segment_id):
                raise OutputError(f"segmentation {segmentationNode.GetName()!r}: it doesn't take segment {part}")
            added[part] = segment_id
        _show(segmentationNode, added)
        _set_reference_geometry(segmentationNode, volumeNode)
    except BaseException:
        for segment_id in added.values():
            segmentation.RemoveSegment(segment_id)
        raise
    finally:
        segmentationNode.EndModify(modifying)
    return added


def _segment(part, name, color, labelmap, provenance):
    import slicer

    from .seg_nrrd import NODULE_TERMINOLOGY

    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*color)
    segment.SetColorAutoGenerated(False)
    segment.SetTag(segment.GetTerminologyEntryTagName(), NODULE_TERMINOLOGY)
    segment.SetTag(PART_TAG, part)
    for key, value in provenance.items():
        # Slicer's file format ends a tag at | and its key at the first colon.
        text = " ".join(str(value).split()).replace("|", "/")
        segment.SetTag(TAG_PREFIX + str(key).replace(":", "_").replace("|", "_"), text)
    segment.AddRepresentation(_labelmap_name(), labelmap)
    return segment


def _labelmap_name():
    import slicer

    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def _free_prefix(segmentation):
    names = {segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())}
    number, prefix = 1, ""
    while names & {f"{prefix} {part}".strip() for part in SEGMENTS}:
        number += 1
        prefix = f"Nodule {number}"
    return prefix


def _show(segmentationNode, added):
    """Final as an outline alone, so that HC and LC are seen inside it."""
    display = segmentationNode.GetDisplayNode()
    if display is not None:
        display.SetSegmentVisibility2DFill(added["Final"], False)


def _set_reference_geometry(segmentationNode, volumeNode):
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    if segmentationNode.GetNodeReference(role) is None:
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)


def _place_beside(node, volumeNode):
    scene = volumeNode.GetScene()
    if not scene.GetNumberOfNodesByClass("vtkMRMLSubjectHierarchyNode"):
        return  # asking for the hierarchy would create one
    hierarchy = scene.GetSubjectHierarchyNode()
    item, own = (hierarchy.GetItemByDataNode(n) for n in (volumeNode, node))
    if not item:
        return
    if own:
        hierarchy.SetItemParent(own, hierarchy.GetItemParent(item))
    else:  # the application makes the item by itself
        hierarchy.CreateItem(hierarchy.GetItemParent(item), node)


def _on_volume(result, volumeNode):
    """({"HC", "LC", "Final": bool array (z, y, x)}, first voxel (i, j, k)) on the volume's own voxels."""
    import numpy as np
    import SimpleITK as sitk

    from .geometry import Grid

    images = {part: getattr(result, name) for part, (name, _) in SEGMENTS.items()}
    grid = Grid.of(images["Final"])
    masks = {part: sitk.GetArrayViewFromImage(image) != 0 for part, image in images.items()}
    for part, mask in masks.items():
        if mask.shape != grid.shape or not mask.any():
            raise NoduleError(f"segment {part}: its mask is empty or on another grid than the final one's")
    parent = volumeNode.GetParentTransformNode()
    world = _matrix_between(parent, None)
    if world is not None:
        own = lattice_grid(world @ _ijk_to_ras(volumeNode), _size(volumeNode), _named(volumeNode))
        start = own.points_to_indices(grid.origin)
        end = own.points_to_indices(grid.indices_to_points(np.array(grid.size) - 1))
        expected = np.rint(start) + np.array(grid.size) - 1
        if np.allclose(start, np.rint(start), atol=_ALIGNED) and np.allclose(end, expected, atol=_ALIGNED):
            return masks, np.rint(start).astype(int)
    world_to_local, local_to_world = _transform_between(None, parent), _transform_between(parent, None)
    return masks_on_lattice(
        masks, grid, _ijk_to_ras(volumeNode), _size(volumeNode), world_to_local, local_to_world, _named(volumeNode)
    )


def _segmentation_matrix(segmentationNode, volumeNode):
    """The volume's index to RAS matrix in the coordinates of the segmentation's parent transform."""
    own, parent = volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode()
    between = _matrix_between(own, parent)
    if between is None:
        raise OutputError(
            f"segmentation {segmentationNode.GetName()!r}: a non-linear transform lies between it and the volume "
            f"{volumeNode.GetName()!r}; put both under the same transform"
        )
    return between @ _ijk_to_ras(volumeNode)


def _check_segmentation(node):
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise OutputError(f"{node.GetName() if node else None!r}: it isn't a segmentation node")


def _checked_point(point_ras):
    import math

    try:
        point = tuple(float(v) for v in point_ras)
    except (TypeError, ValueError):
        point = ()
    if len(point) != 3 or not all(math.isfinite(v) for v in point):
        raise PointError(f"point {point_ras!r}: it isn't three finite numbers (RAS, mm)")
    return point


def _named(volumeNode):
    return f"volume {volumeNode.GetName()!r}"


def _size(volumeNode):
    return volumeNode.GetImageData().GetDimensions()


def _voxels(volumeNode):
    """The voxels (z, y, x) of a scalar volume node, not copied."""
    from vtk.util.numpy_support import vtk_to_numpy

    if volumeNode is None or not volumeNode.IsA("vtkMRMLVolumeNode"):
        raise ImageError(f"{volumeNode.GetName() if volumeNode else None!r}: it isn't a volume node")
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or not scalars.GetNumberOfTuples():
        raise ImageError(f"{_named(volumeNode)}: it has no voxels")
    if scalars.GetNumberOfComponents() != 1:
        raise ImageError(f"{_named(volumeNode)}: {scalars.GetNumberOfComponents()} values per voxel; a CT has one")
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


def _ijk_to_ras(volumeNode):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def _matrix_between(source, target):
    """The 4x4 matrix from a transform node's coordinates to another's (None: the world); None if it isn't linear."""
    import numpy as np
    import slicer
    import vtk

    if source is target:
        return np.eye(4)
    one, other = (source, target) if source is not None else (target, source)
    if not one.IsTransformToNodeLinear(other):
        return None
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return numpy_matrix(matrix)


def _transform_between(source, target):
    import slicer
    import vtk

    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform
