"""The generated chest phantom as nodes: sample data that needs no download."""

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.scene.sampling import vtk_matrix

from ..phantom.chest import chest_phantom


def add_phantom(scene, name="LungNodulePhantom", seed=0):
    """Adds the phantom CT and a point list with a point on each of its nodules; returns (volume node, point list node).

    The last point lies on the first nodule, so that Apply segments that one.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    ct, nodules = chest_phantom(seed)
    if not nodules:
        raise ImageError("the phantom has no nodules")
    grid = Grid.of(ct)
    lattice = np.eye(4)
    lattice[:3, :3], lattice[:3, 3] = grid.matrix, grid.origin
    image = vtk.vtkImageData()
    image.SetDimensions(*grid.size)
    image.GetPointData().SetScalars(numpy_to_vtk(sitk.GetArrayViewFromImage(ct).ravel(), deep=True))
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    volume.SetAndObserveImageData(image)
    volume.SetIJKToRASMatrix(vtk_matrix(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lattice))
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(1500, -500)
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName(f"{name} nodules"))
    points.CreateDefaultDisplayNodes()
    for nodule in reversed(nodules):
        x, y, z = nodule.center_lps
        points.AddControlPoint([-x, -y, z])
    return volume, points
