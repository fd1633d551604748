"""Results become nodes: the soft mask a float volume, its binarized form a segment, the trimap a labelmap or segments.

All lie on the volume's own voxels, under its own parent transform; a segmentation that exists keeps its own. Whatever
fails, the scene is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.scene.labelmaps import new_segment, oriented_image, segment_names, set_reference_geometry
from LungNoduleKit.scene.lattices import ijk_to_ras, moved_start
from LungNoduleKit.scene.nodes import (
    all_or_nothing,
    fill_volume,
    nodes_of_class,
    one_event,
    place_beside,
    remove,
    show_as_map,
)
from LungNoduleKit.scene.transforms import Node, Scene, matrix_between

from ..errors import OutputError
from ..pipeline import SEGMENT_COLOR
from .frame import Frame
from .sources import PART_TAG, TAG_PREFIX, VALUES

SEGMENT_NAME = "Nodule binarized"
# The colors are Okabe and Ito's, safe for the color-blind.
TRIMAP_PARTS = {  # part: (label, name, color)
    "unknown": (1, "Unknown", (0xF0 / 255, 0xE4 / 255, 0x42 / 255)),
    "lesion": (2, "Lesion", (0xD5 / 255, 0x5E / 255, 0x00 / 255)),
}
_COLORS_MARK = TAG_PREFIX + "colors"
PREVIEW_MARK = TAG_PREFIX + "preview"


def add_soft_mask(alpha: sitk.Image, frame: Frame, name: str = "") -> Node:
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
        show_as_map(node)
        place_beside(node, volumeNode)
    return node


def add_segment(
    binary: sitk.Image,
    frame: Frame,
    segmentationNode: Node | None = None,
    tags: Mapping[str, Any] | None = None,
    name: str = SEGMENT_NAME,
) -> tuple[Node, str]:
    """Adds a mask (SimpleITK, on the frame's voxels) as a segment; returns (segmentation node, segment ID).

    A new segmentation node is made if none is given, under the volume's transform. The segment has the terminology
    Nodule in the Lung, a color and a layer of its own, and `tags`, {name: text}. Other segments aren't touched.
    """
    volumeNode = frame.volumeNode
    mask = sitk.GetArrayViewFromImage(binary) != 0
    with all_or_nothing(volumeNode.GetScene()) as add:
        node = segmentationNode or _new_segmentation(volumeNode, f"{volumeNode.GetName()} nodule", add)
        segment = _segment(mask, frame.start_of(binary), node, volumeNode, SEGMENT_COLOR, tags or {})
        segment_id = _add_to(node, segment, name, volumeNode)
    if node.GetDisplayNode() is not None:  # an outline, so that the soft mask beneath is seen
        node.GetDisplayNode().SetSegmentVisibility2DFill(segment_id, False)
    return node, segment_id


def add_trimap(trimap: sitk.Image, frame: Frame, name: str = "", preview: bool = False) -> Node:
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
            place_beside(node, frame.volumeNode)
    return node


def update_trimap(node: Node, trimap: sitk.Image, frame: Frame) -> None:
    """Puts another trimap into a labelmap node of `add_trimap`."""
    labels = np.searchsorted(VALUES, sitk.GetArrayViewFromImage(trimap)).astype(np.uint8)
    _fill(node, labels, frame.start_of(trimap), frame.volumeNode)


def remove_trimap(node: Node) -> None:
    """Removes a labelmap node of `add_trimap`, and the color table if no other node uses it."""
    scene = node.GetScene()
    if scene is None:
        return
    remove(scene, node)
    colors = _trimap_colors(scene)
    if colors is not None and not _users(scene, colors):
        scene.RemoveNode(colors)


def add_trimap_segments(trimap: sitk.Image, frame: Frame, name: str = "") -> Node:
    """Adds a trimap (SimpleITK, 0, 128, 255) as a segmentation with the segments Unknown and Lesion; returns the node.

    They can be edited in the Segment Editor; `sources` takes them for a trimap again.
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


def _fill(node: Node, array: np.ndarray, start: Sequence[int] | np.ndarray, volumeNode: Node) -> None:
    """Fills a volume node with an array (z, y, x) that begins at voxel `start` (i, j, k) of another volume."""
    with one_event(node):
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        fill_volume(node, array, moved_start(ijk_to_ras(volumeNode), start))


def _new_segmentation(volumeNode: Node, name: str, add: Callable[[Node], None]) -> Node:
    scene = volumeNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    add(node)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    place_beside(node, volumeNode)
    return node


def _segment(
    mask: np.ndarray,
    start: Sequence[int] | np.ndarray,
    segmentationNode: Node,
    volumeNode: Node,
    color: Sequence[float],
    tags: Mapping[str, Any],
) -> Any:
    if not mask.any():
        raise OutputError("the segment would be empty")
    between = matrix_between(volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode())
    if between is None:
        raise OutputError(f"segmentation {segmentationNode.GetName()!r}: a non-linear transform lies before it")
    return new_segment(oriented_image(mask, start, between @ ijk_to_ras(volumeNode)), color, tags)


def _add_to(segmentationNode: Node, segment: Any, name: str, volumeNode: Node) -> str:
    """Adds a segment under the first free `name`, `name 2`, ...; returns its ID."""
    segmentation = segmentationNode.GetSegmentation()
    taken, number = segment_names(segmentation), 1
    while (unique := name if number == 1 else f"{name} {number}") in taken:
        number += 1
    segment.SetName(unique)
    segment_id = segmentation.GenerateUniqueSegmentID(unique)
    with one_event(segmentationNode):
        if not segmentation.AddSegment(segment, segment_id):
            raise OutputError(f"segmentation {segmentationNode.GetName()!r}: it doesn't take the segment {unique!r}")
        set_reference_geometry(segmentationNode, volumeNode)
    return segment_id


def _trimap_colors(scene: Scene) -> Node | None:
    nodes = nodes_of_class(scene, "vtkMRMLColorTableNode")
    return next((node for node in nodes if node.GetAttribute(_COLORS_MARK)), None)


def _new_trimap_colors(scene: Scene) -> Node:
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", scene.GenerateUniqueName("Trimap colors"))
    node.SetAttribute(_COLORS_MARK, "1")
    node.SetTypeToUser()
    node.SetSaveWithScene(False)
    node.SetNumberOfColors(len(VALUES))
    node.SetColor(0, "Background", 0.0, 0.0, 0.0, 0.0)
    for label, name, color in TRIMAP_PARTS.values():
        node.SetColor(label, name, *color, 1.0)
    return node


def _users(scene: Scene, colors: Node) -> list[Node]:
    """Display nodes that show the trimap's colors."""
    displays = nodes_of_class(scene, "vtkMRMLDisplayNode")
    return [display for display in displays if display.GetColorNodeID() == colors.GetID()]
