"""The generated chest phantom as nodes: sample data that needs no download."""

from __future__ import annotations

import SimpleITK as sitk

from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid, ras_lattice, swap_lps_ras
from LungNoduleKit.scene.nodes import Node, Scene, fill_volume

from ..phantom.chest import chest_phantom


def add_phantom(scene: Scene, name: str = "LungNodulePhantom", seed: int = 0) -> tuple[Node, Node]:
    """Adds the phantom CT and a point list with a point on each of its nodules; returns (volume node, point list node).

    The last point lies on the first nodule, so that Apply segments that one.
    """
    ct, nodules = chest_phantom(seed)
    if not nodules:
        raise ImageError("the phantom has no nodules")
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    fill_volume(volume, sitk.GetArrayViewFromImage(ct), ras_lattice(Grid.of(ct)))
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(1500, -500)
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName(f"{name} nodules"))
    points.CreateDefaultDisplayNodes()
    for nodule in reversed(nodules):
        points.AddControlPoint(swap_lps_ras(nodule.center_lps).tolist())
    return volume, points
