"""Lattices, masks and images under VTK transforms, linear or not. Knows nothing of MRML nodes or scenes.

A lattice is a matrix (4, 4) from voxel indices (i, j, k) to RAS millimeters, of a volume or of the world; a `Grid` is
in LPS. `name` stands for the input in messages.
"""

import numpy as np

from ..errors import ImageError, NoduleError, PointError
from ..geometry import Grid


def numpy_matrix(matrix):
    """A vtkMatrix4x4 as an array (4, 4) of float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(array):
    """An array (4, 4) as a vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row][column]))
    return matrix


def transform_points(transform, points):
    """Positions (n, 3) sent through a vtkAbstractTransform, float64."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    source.SetData(numpy_to_vtk(np.ascontiguousarray(points, float), deep=True))
    target.SetDataTypeToDouble()
    transform.TransformPoints(source, target)
    return vtk_to_numpy(target.GetData()).copy()


def reslice(array, steps, size, outside):
    """An array (z, y, x) of the input's type: the input, interpolated linearly, on a lattice of `size` (i, j, k).

    `steps` lead, one after another, from a voxel's indices in the output to continuous indices in the input; each is a
    4x4 matrix or a vtkAbstractTransform. `outside` is the value beyond the input's voxels.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    for step in steps:
        chain.Concatenate(vtk_matrix(step) if isinstance(step, np.ndarray) else step)
    flat = np.ascontiguousarray(array).ravel()  # has to live as long as the filter that reads it
    image = vtk.vtkImageData()
    image.SetDimensions(*[int(n) for n in array.shape[::-1]])
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=False))
    sampler = vtk.vtkImageReslice()
    sampler.SetInputData(image)
    sampler.SetResliceTransform(chain)
    sampler.SetInterpolationModeToLinear()
    sampler.SetOutputSpacing(1, 1, 1)
    sampler.SetOutputOrigin(0, 0, 0)
    sampler.SetOutputExtent(*[bound for n in size for bound in (0, int(n) - 1)])
    sampler.SetBackgroundLevel(outside)
    sampler.Update()
    output = sampler.GetOutput()
    return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(output.GetDimensions()[::-1]).copy()


def lattice_grid(lattice, size, name):
    """The LPS `Grid` of a lattice in RAS; `ImageError` if its matrix spans no space."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lattice
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if not np.isfinite(lps).all() or (spacing <= 0).any() or abs(np.linalg.det(lps[:3, :3] / spacing)) < 1e-6:
        raise ImageError(f"{name}: its spacing, directions or transform span no space")
    direction = (lps[:3, :3] / spacing).ravel()
    return Grid(
        tuple(int(n) for n in size), tuple(spacing.tolist()), tuple(lps[:3, 3].tolist()), tuple(direction.tolist())
    )


def fitted_lattice(to_ras, size, to_world, name, around_ras=None, reach_mm=0.0):
    """(lattice, size) in the world for a volume with the lattice `to_ras` under a non-linear transform `to_world`.

    The volume's own lattice, moved by the affine transform that comes nearest to the non-linear one, so that the
    voxels keep their directions and about their spacing; as large as the volume becomes, or cut to `reach_mm` around a
    point of the world. Raises `ImageError` for a transform that isn't finite or flattens the volume, and `PointError`
    if the point lies outside.
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
    lattice[:3, 3] += lattice[:3, :3] @ low
    return lattice, tuple(int(n) for n in high - low + 1)


def masks_on_lattice(masks, grid, to_ras, size, world_to_local, local_to_world, name):
    """({"HC", "LC", "Final": bool array (z, y, x)}, first voxel (i, j, k)) on a volume's voxels.

    `masks` are HC, LC and Final, or Final alone, on another grid, in the world; the volume has the lattice `to_ras` and
    `size` voxels in its own coordinates. Interpolated masks are cut at one half again; HC and LC stay disjoint, and
    Final between HC and both together. Raises `NoduleError` if the nodule lies outside of the volume or nothing of a
    mask is left.
    """
    union = np.any(list(masks.values()), axis=0)
    flip = np.array([-1.0, -1.0, 1.0])  # LPS and RAS
    local = transform_points(world_to_local, grid.indices_to_points(np.argwhere(union)[:, ::-1]) * flip)
    indices = (local - to_ras[:3, 3]) @ np.linalg.inv(to_ras[:3, :3]).T
    start = np.maximum(np.floor(indices.min(axis=0)).astype(int) - 2, 0)
    count = np.minimum(np.ceil(indices.max(axis=0)).astype(int) + 3, size) - start
    if (count < 1).any():
        raise NoduleError(f"{name}: the nodule lies outside of it")
    from_start = to_ras.copy()
    from_start[:3, 3] += to_ras[:3, :3] @ start
    to_grid = np.eye(4)
    to_grid[:3, :3] = np.linalg.inv(grid.matrix) * flip
    to_grid[:3, 3] = -np.linalg.inv(grid.matrix) @ grid.origin

    def sampled(mask):
        values = reslice(mask.astype(np.float32), [from_start, local_to_world, to_grid], count, 0.0)
        inside = values >= 0.5
        return inside if inside.any() else values == max(values.max(), 1e-6)  # a mask of a voxel or two stays one

    union, final = sampled(union), sampled(masks["Final"])
    final &= union
    parts = {"Final": final}
    if "HC" in masks:
        hc = sampled(masks["HC"]) & final
        parts = {"HC": hc, "LC": union & ~hc, **parts}
    for part, mask in parts.items():
        if not mask.any():
            raise NoduleError(f"{name}: nothing of {part} is left on its voxels")
    return parts, start


def oriented_image(mask, start, lattice):
    """A vtkOrientedImageData that holds a mask (z, y, x) from voxel `start` (i, j, k) on of a lattice."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    extent = [(int(first), int(first) + n - 1) for first, n in zip(start, mask.shape[::-1], strict=True)]
    image.SetExtent([bound for pair in extent for bound in pair])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
    image.SetImageToWorldMatrix(vtk_matrix(lattice))
    return image


def oriented_array(image):
    """(array (z, y, x), lattice that starts at its first voxel) of a vtkOrientedImageData."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    matrix, extent = vtk.vtkMatrix4x4(), image.GetExtent()
    image.GetImageToWorldMatrix(matrix)
    lattice = numpy_matrix(matrix)
    lattice[:3, 3] += lattice[:3, :3] @ extent[0::2]
    scalars = image.GetPointData().GetScalars()
    if scalars is None:
        return np.zeros((0, 0, 0), np.uint8), lattice
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]), lattice
