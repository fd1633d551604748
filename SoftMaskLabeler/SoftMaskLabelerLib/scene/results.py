"""Results become nodes: the soft mask a float volume, its binarized form a segment, the trimap a labelmap or segments.

All lie on the volume's own voxels, under its own parent transform; a segmentation that exists keeps its own. Whatever
fails, the scene is as it was before.
"""

import contextlib

import numpy as np
import SimpleITK as sitk

from ..errors import OutputError
from .lattices import ijk_to_ras, matrix_between, oriented_image, vtk_matrix
from .sources import PART_TAG, TAG_PREFIX, VALUES

SEGMENT_NAME = "Nodule binarized"
# The colors are Okabe and Ito's, safe for the colour-blind.
_COLOR = (0xCC / 255, 0x79 / 255, 0xA7 / 255)
TRIMAP_PARTS = {  # part: (label, name, color)
    "unknown": (1, "Unknown", (0xF0 / 255, 0xE4 / 255, 0x42 / 255)),
    "lesion": (2, "Lesion", (0xD5 / 255, 0x5E / 255, 0x00 / 255)),
}
# SNOMED CT codes: Morphologically Altered Structure, Nodule; Lung.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^27925004^Nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)
_COLOR_TABLES = ("vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeRainbow", "vtkMRMLColorTableNodeGrey")
_COLORS_MARK = TAG_PREFIX + "colors"
PREVIEW_MARK = TAG_PREFIX + "preview"


def labelmap_name() -> str:
    """Slicer's name of the representation that a segment's voxels have."""
    import slicer

    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


@contextlib.contextmanager
def all_or_nothing(scene):
    """Removes what `add(node)` was told of, with its display nodes, if the block raises."""
    added = []
    try:
        yield added.append
    except BaseException:
        for node in reversed(added):
            remove(scene, node)
        raise


def remove(scene, node):
    """Removes a node with its display and storage nodes, if it is still there."""
    if node is None or node.GetScene() is not scene:
        return
    own = []
    if node.IsA("vtkMRMLDisplayableNode"):
        own = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
        own += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    scene.RemoveNode(node)
    for other in own:
        if other is not None and other.GetScene() is scene:
            scene.RemoveNode(other)


def add_soft_mask(alpha, frame, name=""):
    """Adds a soft mask (SimpleITK, float, on the frame's voxels) as a float32 volume node; returns the node.

    Shown in colors over [0, 1], and nothing below 0.02, so that it can be laid over the image.
    """
    volumeNode = frame.volumeNode
    scene = volumeNode.GetScene()
    array = sitk.GetArrayViewFromImage(alpha).astype(np.float32)
    with all_or_nothing(scene) as add:
        node = scene.AddNewNodeByClass(
            "vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name or f"{volumeNode.GetName()} soft mask")
        )
        add(node)
        _fill(node, array, frame.start_of(alpha), volumeNode)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        color = next((i for i in _COLOR_TABLES if scene.GetNodeByID(i) is not None), None)
        if color:
            display.SetAndObserveColorNodeID(color)
        display.AutoWindowLevelOff()
        display.SetWindowLevel(1.0, 0.5)
        display.AutoThresholdOff()
        display.SetThreshold(0.02, 1.0)
        display.ApplyThresholdOn()
        _place_beside(node, volumeNode)
    return node


def add_segment(binary, frame, segmentationNode=None, tags=None, name=SEGMENT_NAME):
    """Adds a mask (SimpleITK, on the frame's voxels) as a segment; returns (segmentation node, segment ID).

    A new segmentation node is made if none is given, under the volume's transform. The segment has the terminology
    Nodule in the Lung, a color and a layer of its own, and `tags`, {name: text}. Other segments aren't touched.
    """
    volumeNode = frame.volumeNode
    mask = sitk.GetArrayViewFromImage(binary) != 0
    with all_or_nothing(volumeNode.GetScene()) as add:
        node = segmentationNode or _new_segmentation(volumeNode, f"{volumeNode.GetName()} nodule", add)
        segment = _segment(mask, frame.start_of(binary), node, volumeNode, _COLOR, tags)
        segment_id = _add_to(node, segment, name, volumeNode)
    if node.GetDisplayNode() is not None:  # an outline, so that the soft mask beneath is seen
        node.GetDisplayNode().SetSegmentVisibility2DFill(segment_id, False)
    return node, segment_id


def add_trimap(trimap, frame, name="", preview=False):
    """Adds a trimap (SimpleITK, 0, 128, 255) as a labelmap node with the labels 0, 1 and 2 and colors of its own.

    `preview`: the node is kept from lists and from saved scenes. Returns the node.
    """
    scene = frame.volumeNode.GetScene()
    with all_or_nothing(scene) as add:
        node = scene.CreateNodeByClass("vtkMRMLLabelMapVolumeNode")
        node.UnRegister(None)  # the scene keeps it
        node.SetName(scene.GenerateUniqueName(name or f"{frame.volumeNode.GetName()} trimap{' preview' * preview}"))
        if preview:  # before it is added, so that nobody lists it for a moment
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            node.SetAttribute(PREVIEW_MARK, "1")
        scene.AddNode(node)
        add(node)
        update_trimap(node, trimap, frame)
        colors = _trimap_colors(scene)
        if colors is None:
            colors = _new_trimap_colors(scene)
            add(colors)
        colors.SetSaveWithScene(bool(colors.GetSaveWithScene()) or not preview)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
        node.GetDisplayNode().SetSaveWithScene(not preview)
        if not preview:
            _place_beside(node, frame.volumeNode)
    return node


def update_trimap(node, trimap, frame):
    """Puts another trimap into a labelmap node of `add_trimap`."""
    labels = np.searchsorted(VALUES, sitk.GetArrayViewFromImage(trimap)).astype(np.uint8)
    _fill(node, labels, frame.start_of(trimap), frame.volumeNode)


def remove_trimap(node):
    """Removes a labelmap node of `add_trimap`, and the color table if no other node uses it."""
    scene = node.GetScene()
    if scene is None:
        return
    remove(scene, node)
    colors = _trimap_colors(scene)
    if colors is not None and not _users(scene, colors):
        scene.RemoveNode(colors)


def add_trimap_segments(trimap, frame, name=""):
    """Adds a trimap (SimpleITK, 0, 128, 255) as a segmentation with the segments Unknown and Lesion; returns the node.

    They can be edited in the Segment Editor; `mrml_sources` takes them for a trimap again.
    """
    volumeNode, array = frame.volumeNode, sitk.GetArrayViewFromImage(trimap)
    with all_or_nothing(volumeNode.GetScene()) as add:
        node = _new_segmentation(volumeNode, name or f"{volumeNode.GetName()} trimap", add)
        for part, (label, title, color) in TRIMAP_PARTS.items():
            mask = array == VALUES[label]
            segment = _segment(mask, frame.start_of(trimap), node, volumeNode, color, {PART_TAG: part})
            _add_to(node, segment, title, volumeNode)
        # One layer, so that painting one takes away from the other, as the labels of a labelmap do.
        node.GetSegmentation().CollapseBinaryLabelmaps(False)
    return node


def _fill(node, array, start, volumeNode):
    """Gives a volume node an array (z, y, x) that begins at voxel `start` (i, j, k) of another volume."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    data = vtk.vtkImageData()
    data.SetDimensions(*array.shape[::-1])
    data.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    lattice = ijk_to_ras(volumeNode)
    lattice[:3, 3] += lattice[:3, :3] @ start
    modifying = node.StartModify()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetAndObserveImageData(data)
    node.SetIJKToRASMatrix(vtk_matrix(lattice))
    node.EndModify(modifying)


def _new_segmentation(volumeNode, name, add):
    scene = volumeNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    add(node)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    _place_beside(node, volumeNode)
    return node


def _segment(mask, start, segmentationNode, volumeNode, color, tags):
    import slicer

    if not mask.any():
        raise OutputError("the segment would be empty")
    between = matrix_between(volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode())
    if between is None:
        raise OutputError(f"segmentation {segmentationNode.GetName()!r}: a non-linear transform lies before it")
    segment = slicer.vtkSegment()
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*color)
    segment.SetColorAutoGenerated(False)
    segment.SetTag(segment.GetTerminologyEntryTagName(), TERMINOLOGY)
    for key, value in (tags or {}).items():
        # Slicer's file format ends a tag at | and its key at the first colon.
        segment.SetTag(key.replace(":", "_").replace("|", "_"), " ".join(str(value).split()).replace("|", "/"))
    segment.AddRepresentation(labelmap_name(), oriented_image(mask, start, between @ ijk_to_ras(volumeNode)))
    return segment


def _add_to(segmentationNode, segment, name, volumeNode):
    """Adds a segment under the first free `name`, `name 2`, ...; returns its ID."""
    segmentation = segmentationNode.GetSegmentation()
    taken = {segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())}
    number = 1
    while (unique := name if number == 1 else f"{name} {number}") in taken:
        number += 1
    segment.SetName(unique)
    segment_id = segmentation.GenerateUniqueSegmentID(unique)
    modifying = segmentationNode.StartModify()
    try:
        if not segmentation.AddSegment(segment, segment_id):
            raise OutputError(f"segmentation {segmentationNode.GetName()!r}: it doesn't take the segment {unique!r}")
        role = segmentationNode.GetReferenceImageGeometryReferenceRole()
        if segmentationNode.GetNodeReference(role) is None:
            segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    finally:
        segmentationNode.EndModify(modifying)
    return segment_id


def _trimap_colors(scene):
    nodes = [
        scene.GetNthNodeByClass(n, "vtkMRMLColorTableNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLColorTableNode"))
    ]
    return next((node for node in nodes if node.GetAttribute(_COLORS_MARK)), None)


def _new_trimap_colors(scene):
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", scene.GenerateUniqueName("Trimap colors"))
    node.SetAttribute(_COLORS_MARK, "1")
    node.SetTypeToUser()
    node.SetSaveWithScene(False)
    node.SetNumberOfColors(len(VALUES))
    node.SetColor(0, "Background", 0.0, 0.0, 0.0, 0.0)
    for label, name, color in TRIMAP_PARTS.values():
        node.SetColor(label, name, *color, 1.0)
    return node


def _users(scene, colors):
    """Display nodes that show the trimap's colors."""
    displays = [
        scene.GetNthNodeByClass(n, "vtkMRMLDisplayNode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLDisplayNode"))
    ]
    return [display for display in displays if display.GetColorNodeID() == colors.GetID()]


def _place_beside(node, volumeNode):
    """Into the same folder of the subject hierarchy."""
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
