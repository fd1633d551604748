"""Positions and images sent through MRML's transforms, linear or not; RAS millimeters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..geometry import as_triple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

# Slicer's classes are known inside Slicer alone.
Node: TypeAlias = Any  # a vtkMRMLNode
Scene: TypeAlias = Any  # a vtkMRMLScene
Transform: TypeAlias = Any  # a vtkAbstractTransform
Step: TypeAlias = np.ndarray | Transform | tuple[Node | None, Node | None]


def numpy_matrix(matrix: Any) -> np.ndarray:
    """A vtkMatrix4x4 as an array (4, 4) of float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(array: np.ndarray) -> Any:
    """An array (4, 4) as a vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row][column]))
    return matrix


def matrix_between(source: Node | None, target: Node | None) -> np.ndarray | None:
    """The 4x4 matrix from a transform node's coordinates to another's (None: the world); None if it isn't linear."""
    import slicer
    import vtk

    if source is target:
        return np.eye(4)
    one: Any
    one, other = (source, target) if source is not None else (target, source)
    if not one.IsTransformToNodeLinear(other):
        return None
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return numpy_matrix(matrix)


def transform_between(source: Node | None, target: Node | None) -> Transform:
    """vtkGeneralTransform from a transform node's coordinates to another's (None: the world)."""
    import slicer
    import vtk

    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def chain(*steps: Step) -> Transform:
    """One vtk transform that does the steps one after another.

    A step is a matrix (4, 4), a vtkAbstractTransform, or (source, target), two transform nodes (None: the world).
    """
    import vtk

    parts: list[Any] = [matrix_between(*step) if isinstance(step, tuple) else step for step in steps]
    if all(isinstance(part, np.ndarray) for part in parts):  # one matrix is much faster than a chain
        whole = np.eye(4)
        for part in parts:
            whole = part @ whole
        transform = vtk.vtkMatrixToLinearTransform()
        transform.SetInput(vtk_matrix(whole))
        return transform
    general = vtk.vtkGeneralTransform()
    general.PostMultiply()
    for step, part in zip(steps, parts, strict=True):
        if isinstance(part, np.ndarray):
            general.Concatenate(vtk_matrix(part))
        else:
            general.Concatenate(part if part is not None else transform_between(*step))
    return general


def transform_points(transform: Transform, points: ArrayLike) -> np.ndarray:
    """Positions (n, 3) sent through a vtkAbstractTransform, float64."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    source.SetData(numpy_to_vtk(np.ascontiguousarray(points, float), deep=True))
    target.SetDataTypeToDouble()
    transform.TransformPoints(source, target)
    return vtk_to_numpy(target.GetData()).copy()


def to_world(node: Node, point: Sequence[float]) -> tuple[float, float, float]:
    """A position (R, A, S) in a node's own coordinates, in the world."""
    return _moved(node.GetParentTransformNode(), None, point)


def from_world(node: Node, point: Sequence[float]) -> tuple[float, float, float]:
    """A position (R, A, S) in the world, in a node's own coordinates."""
    return _moved(None, node.GetParentTransformNode(), point)


def _moved(source: Node | None, target: Node | None, point: Sequence[float]) -> tuple[float, float, float]:
    if source is target:
        return as_triple(point)
    return as_triple(transform_points(transform_between(source, target), [point])[0])


def reslice(
    array: np.ndarray,
    transform: Transform,
    size: Sequence[int] | np.ndarray,
    *,
    outside: float = 0.0,
    linear: bool = True,
) -> np.ndarray:
    """An array (z, y, x) on other voxels, of its own type: interpolated linearly, or the nearest voxel's value.

    `transform` leads from a voxel's indices in the output, of `size` (i, j, k), to continuous indices in the input;
    `outside` is the value beyond the input's voxels.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    flat = np.ascontiguousarray(array).ravel()  # has to live as long as the filter that reads it
    image = vtk.vtkImageData()
    image.SetDimensions(*[int(n) for n in array.shape[::-1]])
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=False))
    sampler = vtk.vtkImageReslice()
    sampler.SetInputData(image)
    sampler.SetResliceTransform(transform)
    sampler.SetInterpolationModeToLinear() if linear else sampler.SetInterpolationModeToNearestNeighbor()
    sampler.SetOutputSpacing(1, 1, 1)
    sampler.SetOutputOrigin(0, 0, 0)
    sampler.SetOutputExtent(*[bound for n in size for bound in (0, int(n) - 1)])
    sampler.SetBackgroundLevel(outside)
    sampler.Update()
    output = sampler.GetOutput()
    return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(output.GetDimensions()[::-1]).copy()
