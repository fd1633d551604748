"""Points in the scene that mark a nodule: of point lists and of lines."""

from __future__ import annotations

from LungNoduleKit.errors import PointError
from LungNoduleKit.geometry import as_triple
from LungNoduleKit.scene.nodes import Node, line_ends

from ..outlining.finding import Point


def new_point_list() -> Node:
    """An empty point list, added to the scene."""
    import slicer

    scene = slicer.mrmlScene
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName("Nodule points"))
    node.CreateDefaultDisplayNodes()
    return node


def line_middle(lineNode: Node) -> Point:
    """Middle (R, A, S) of a markups line in the world, mm. Raises `PointError` unless both of its ends are placed."""
    if lineNode.GetNumberOfDefinedControlPoints() < 2:
        raise PointError(f"line {lineNode.GetName()!r}: place both of its ends on the nodule's outline first")
    return as_triple([(a + b) / 2 for a, b in zip(*line_ends(lineNode), strict=True)])


def last_point(markupsNode: Node) -> Point:
    """Position (R, A, S) in the world, mm, of a point list's last placed point. Raises `PointError` if it has none."""
    for number in reversed(range(markupsNode.GetNumberOfControlPoints())):
        if markupsNode.GetNthControlPointPositionStatus(number) == markupsNode.PositionDefined:
            position = [0.0, 0.0, 0.0]
            markupsNode.GetNthControlPointPositionWorld(number, position)
            return as_triple(position)
    raise PointError(f"point list {markupsNode.GetName()!r}: place a point on the nodule first")
