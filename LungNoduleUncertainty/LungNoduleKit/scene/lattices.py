"""Where voxels lie: the lattices of volume nodes, and those that follow a volume through a non-linear transform.

A lattice is a matrix (4, 4) from voxel indices (i, j, k) to RAS millimeters, of a node or of the world; a `Grid` is in
LPS. `name` stands for the input in messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, PointError
from ..geometry import Grid, as_triple, swap_lps_ras
from .transforms import numpy_matrix, transform_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .transforms import Node, Transform


def named(node: Node) -> str:
    """How messages call a node."""
    kind = "segmentation" if node.IsA("vtkMRMLSegmentationNode") else "volume"
    return f"{kind} {node.GetName()!r}"


def size_of(volumeNode: Node) -> tuple[int, int, int]:
    """Voxels (i, j, k)."""
    return volumeNode.GetImageData().GetDimensions()


def voxels_of(volumeNode: Node) -> np.ndarray:
    """The voxels (z, y, x) of a scalar volume node, not copied. Raises `ImageError` for what isn't one."""
    from vtk.util.numpy_support import vtk_to_numpy

    if volumeNode is None or not hasattr(volumeNode, "IsA") or not volumeNode.IsA("vtkMRMLVolumeNode"):
        name = volumeNode.GetName() if hasattr(volumeNode, "GetName") else repr(volumeNode)
        raise ImageError(f"{name}: it is not a volume")
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or not scalars.GetNumberOfTuples():
        raise ImageError(f"{named(volumeNode)}: it has no voxels")
    if scalars.GetNumberOfComponents() != 1:
        values = scalars.GetNumberOfComponents()
        raise ImageError(f"{named(volumeNode)}: {values} values per voxel; a CT or gray image has one")
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


def ijk_to_ras(volumeNode: Node) -> np.ndarray:
    """The lattice of a volume node in its own coordinates, without its parent transform."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def moved_start(lattice: np.ndarray, start: Sequence[float] | np.ndarray) -> np.ndarray:
    """The lattice whose first voxel is voxel `start` (i, j, k) of another."""
    moved = lattice.copy()
    moved[:3, 3] += lattice[:3, :3] @ np.asarray(start, float)
    return moved


def lattice_grid(lattice: np.ndarray, size: Sequence[int], name: str) -> Grid:
    """The LPS `Grid` of a lattice in RAS; `ImageError` if its matrix spans no space."""
    axes, origin = swap_lps_ras(lattice[:3, :3].T).T, swap_lps_ras(lattice[:3, 3])
    spacing = np.linalg.norm(axes, axis=0)
    sound = np.isfinite(lattice).all() and (spacing > 0).all()
    if not sound or abs(np.linalg.det(axes / spacing)) < 1e-6:
        raise ImageError(f"{name}: its spacing, directions or transform span no space")
    i, j, k = (int(n) for n in size)
    return Grid((i, j, k), as_triple(spacing), as_triple(origin), tuple((axes / spacing).ravel().tolist()))


def fitted_lattice(
    to_ras: np.ndarray,
    size: Sequence[int],
    to_world: Transform,
    name: str,
    around_ras: Sequence[float] | None = None,
    reach_mm: float = 0.0,
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """(lattice, size) in the world for a volume with the lattice `to_ras` under a non-linear transform `to_world`.

    The volume's own lattice, moved by the affine transform that comes nearest to the non-linear one, so that the
    voxels keep their directions and about their spacing; as large as the volume becomes, or limited to `reach_mm`
    around a point of the world. Raises `ImageError` for a transform that isn't finite or flattens the volume, and
    `PointError` if the point lies outside.
    """
    axes = np.meshgrid(*[np.linspace(-0.5, n - 0.5, 13) for n in size], indexing="ij")
    indices = np.stack(axes, axis=-1).reshape(-1, 3)
    world = transform_points(to_world, indices @ to_ras[:3, :3].T + to_ras[:3, 3])
    if not np.isfinite(world).all():
        raise ImageError(f"{name}: its transform isn't finite everywhere")
    lattice = np.eye(4)
    lattice[:3] = np.linalg.lstsq(np.hstack([indices, np.ones((len(indices), 1))]), world, rcond=None)[0].T
    spacing = np.array(lattice_grid(lattice, size, name).spacing)
    inverse = np.linalg.inv(lattice)
    reached = world @ inverse[:3, :3].T + inverse[:3, 3]
    low, high = np.floor(reached.min(axis=0)) - 1, np.ceil(reached.max(axis=0)) + 1
    if around_ras is not None:
        center = inverse[:3, :3] @ around_ras + inverse[:3, 3]
        if (center < low).any() or (center > high).any():
            where = ", ".join(f"{v:.1f}" for v in around_ras)
            raise PointError(f"point ({where}) mm RAS: it lies outside of the {name}")
        low = np.maximum(low, np.floor(center - reach_mm / spacing))
        high = np.minimum(high, np.ceil(center + reach_mm / spacing))
    i, j, k = (int(n) for n in high - low + 1)
    return moved_start(lattice, low), (i, j, k)
