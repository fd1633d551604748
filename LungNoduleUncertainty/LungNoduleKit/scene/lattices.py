"""Where nodes lie: voxel lattices and parent transforms of MRML nodes, all in RAS millimeters."""

import numpy as np

from ..errors import ImageError
from .sampling import numpy_matrix, transform_points


def labelmap_name() -> str:
    """Slicer's name of the representation that a segment's voxels have."""
    import slicer

    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def to_world(node, point):
    """A position (R, A, S) in a node's own coordinates, in the world."""
    return _moved(node.GetParentTransformNode(), None, point)


def from_world(node, point):
    """A position (R, A, S) in the world, in a node's own coordinates."""
    return _moved(None, node.GetParentTransformNode(), point)


def _moved(source, target, point):
    if source is target:
        return tuple(float(v) for v in point)
    return tuple(float(v) for v in transform_points(transform_between(source, target), [point])[0])


def named(volumeNode) -> str:
    """How messages call a volume."""
    return f"volume {volumeNode.GetName()!r}"


def size_of(volumeNode):
    """Voxels (i, j, k)."""
    return volumeNode.GetImageData().GetDimensions()


def voxels_of(volumeNode):
    """The voxels (z, y, x) of a scalar volume node, not copied. Raises `ImageError` for what isn't one."""
    from vtk.util.numpy_support import vtk_to_numpy

    if volumeNode is None or not volumeNode.IsA("vtkMRMLVolumeNode"):
        raise ImageError(f"{volumeNode.GetName() if volumeNode else None!r}: it isn't a volume node")
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or not scalars.GetNumberOfTuples():
        raise ImageError(f"{named(volumeNode)}: it has no voxels")
    if scalars.GetNumberOfComponents() != 1:
        raise ImageError(f"{named(volumeNode)}: {scalars.GetNumberOfComponents()} values per voxel; a CT has one")
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


def ijk_to_ras(volumeNode):
    """Matrix (4, 4) from voxel indices to the RAS of the node, without its parent transform."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def matrix_between(source, target):
    """The 4x4 matrix from a transform node's coordinates to another's (None: the world); None if it isn't linear."""
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


def transform_between(source, target):
    """vtkGeneralTransform from a transform node's coordinates to another's (None: the world)."""
    import slicer
    import vtk

    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform
