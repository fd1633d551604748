"""Nodes of a scene: added all or none, removed with what belongs to them, filled, shown and put in their place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from .transforms import Node, Scene, vtk_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAP_MARK = "LungNoduleKit.map"  # attribute of volumes that hold a probability or a soft mask
_COLORS = ("vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeRainbow", "vtkMRMLColorTableNodeGrey")


@contextlib.contextmanager
def one_event(*nodes: Node) -> Iterator[None]:
    """However often the block changes the nodes, each tells of it once, at the end."""
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.EndModify, node.StartModify())
        yield


@contextlib.contextmanager
def all_or_nothing(scene: Scene) -> Iterator[Callable[[Node], None]]:
    """Removes what `add(node)` was told of, with its display and storage nodes, if the block raises."""
    added: list[Node] = []
    try:
        yield added.append
    except BaseException:
        for node in reversed(added):
            remove(scene, node)
        raise


def remove(scene: Scene, node: Node | None) -> None:
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


def fill_volume(node: Node, array: np.ndarray, lattice: np.ndarray) -> None:
    """Fills a volume node with an array (z, y, x), which is copied; `lattice` is in the node's own coordinates."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    data = vtk.vtkImageData()
    data.SetDimensions(*array.shape[::-1])
    data.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    with one_event(node):
        node.SetAndObserveImageData(data)
        node.SetIJKToRASMatrix(vtk_matrix(lattice))


def show_as_map(node: Node) -> None:
    """Colors over [0, 1] and nothing below 0.02, so that a map laid over the CT shows itself and not a gray box."""
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(MAP_MARK, "1")
    display, scene = node.GetDisplayNode(), node.GetScene()
    color = next((i for i in _COLORS if scene.GetNodeByID(i) is not None), None)
    if color:
        display.SetAndObserveColorNodeID(color)
    display.AutoWindowLevelOff()
    display.SetWindowLevel(1.0, 0.5)
    display.AutoThresholdOff()
    display.SetThreshold(0.02, 1.0)
    display.ApplyThresholdOn()


def place_beside(node: Node, volumeNode: Node) -> None:
    """Puts a node into the folder of the subject hierarchy that the volume is in."""
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


def nodes_of_class(scene: Scene, kind: str) -> list[Node]:
    """The scene's nodes of a class such as "vtkMRMLVolumeNode", its subclasses included."""
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]


def first_ct(scene: Scene) -> Node | None:
    """The first scalar volume of a scene that can be seen in lists and isn't a labelmap nor a map made here."""
    for node in nodes_of_class(scene, "vtkMRMLScalarVolumeNode"):
        plain = node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
        if plain and node.GetAttribute(MAP_MARK) is None:
            return node
    return None


def line_ends(lineNode: Node) -> list[list[float]]:
    """The two ends (R, A, S) of a markups line in the world, mm."""
    ends = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    for number, end in enumerate(ends):
        lineNode.GetNthControlPointPositionWorld(number, end)
    return ends
