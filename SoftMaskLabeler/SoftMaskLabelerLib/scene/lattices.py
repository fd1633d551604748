"""Lattices of MRML nodes, images and masks on them, and the transforms between; RAS millimeters.

A lattice is a matrix (4, 4) from voxel indices (i, j, k) to RAS. What is computed lies in *image space*: the world
under a linear parent transform of the volume, which then becomes part of the image's geometry, so that millimeters are
the world's; the volume's own coordinates under a non-linear one. Either way the voxels are the volume's own.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..errors import ImageError

_FLIP = (-1.0, -1.0, 1.0)  # between RAS and LPS


def named(node) -> str:
    """How messages call a node."""
    kind = "segmentation" if node.IsA("vtkMRMLSegmentationNode") else "volume"
    return f"{kind} {node.GetName()!r}"


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


def ijk_to_ras(volumeNode):
    """The lattice of a volume node in its own coordinates."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def voxels_of(volumeNode):
    """The voxels (z, y, x) of a scalar volume node, not copied. Raises `ImageError` for what isn't one."""
    from vtk.util.numpy_support import vtk_to_numpy

    if volumeNode is None or not hasattr(volumeNode, "IsA") or not volumeNode.IsA("vtkMRMLVolumeNode"):
        raise ImageError(f"{volumeNode.GetName() if hasattr(volumeNode, 'GetName') else volumeNode!r}: not a volume")
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or not scalars.GetNumberOfTuples():
        raise ImageError(f"{named(volumeNode)}: it has no voxels")
    if scalars.GetNumberOfComponents() != 1:
        raise ImageError(
            f"{named(volumeNode)}: {scalars.GetNumberOfComponents()} values per voxel; a gray image has one"
        )
    return vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


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


def chain(*steps):
    """One vtk transform that does the steps one after another; each is a matrix (4, 4) or (source, target) nodes."""
    import slicer
    import vtk

    matrices = [s if isinstance(s, np.ndarray) else matrix_between(*s) for s in steps]
    if all(m is not None for m in matrices):  # one matrix is much faster than a chain
        whole = np.eye(4)
        for matrix in matrices:
            whole = matrix @ whole
        transform = vtk.vtkMatrixToLinearTransform()
        transform.SetInput(vtk_matrix(whole))
        return transform
    general = vtk.vtkGeneralTransform()
    general.PostMultiply()
    for step, matrix in zip(steps, matrices, strict=True):
        if matrix is not None:
            general.Concatenate(vtk_matrix(matrix))
        else:
            between = vtk.vtkGeneralTransform()
            slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*step, between)
            general.Concatenate(between)
    return general


def transform_points(transform, points):
    """Positions (n, 3) sent through a vtkAbstractTransform, float64."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    source.SetData(numpy_to_vtk(np.ascontiguousarray(points, float), deep=True))
    target.SetDataTypeToDouble()
    transform.TransformPoints(source, target)
    return vtk_to_numpy(target.GetData()).copy()


def reslice(array, transform, size, *, linear):
    """An array (z, y, x) on other voxels: float32 interpolated, or the nearest voxel's value; 0 beyond the input.

    `transform` leads from a voxel's indices in the output, of `size` (i, j, k), to indices in the input.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    flat = np.ascontiguousarray(array, np.float32 if linear else np.uint8).ravel()  # has to outlive the filter
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
    sampler.SetBackgroundLevel(0)
    sampler.Update()
    output = sampler.GetOutput()
    return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(output.GetDimensions()[::-1]).copy()


@dataclass
class Frame:
    """A volume node's voxels and the image space that they lie in; see the module.

    `array` (z, y, x) isn't copied; `lattice` leads from its indices to image space, `own` to the node's coordinates.
    """

    volumeNode: object
    array: object
    own: object
    lattice: object
    linear: bool

    @classmethod
    def of(cls, volumeNode):
        """Raises `ImageError` for a node that isn't a gray volume, or whose geometry spans no space."""
        array, own = voxels_of(volumeNode), ijk_to_ras(volumeNode)
        world = matrix_between(volumeNode.GetParentTransformNode(), None)
        lattice = own if world is None else world @ own
        spacing = np.linalg.norm(lattice[:3, :3], axis=0)
        if not np.isfinite(lattice).all() or not (spacing > 0).all():
            raise ImageError(f"{named(volumeNode)}: its spacing, directions or transform span no space")
        if abs(np.linalg.det(lattice[:3, :3] / spacing)) < 1e-6:
            raise ImageError(f"{named(volumeNode)}: its spacing, directions or transform span no space")
        return cls(volumeNode, array, own, lattice, world is not None)

    @property
    def size(self):
        """Voxels (i, j, k)."""
        return self.array.shape[::-1]

    def index_to(self, node, start=(0, 0, 0)):
        """The steps for `chain` from voxel indices, counted from `start`, to the coordinates of another node."""
        own = self.own.copy()
        own[:3, 3] += own[:3, :3] @ [float(n) for n in start]
        return own, (self.volumeNode.GetParentTransformNode(), node.GetParentTransformNode())

    def world_to_index(self, points):
        """Continuous voxel indices (n, 3) of positions (n, 3) in the world."""
        return transform_points(
            chain((None, self.volumeNode.GetParentTransformNode()), np.linalg.inv(self.own)), points
        )

    def index_to_lps(self, indices):
        """Positions (n, 3) in image space, LPS mm, of continuous voxel indices (n, 3)."""
        return (np.asarray(indices) @ self.lattice[:3, :3].T + self.lattice[:3, 3]) * _FLIP

    def image(self, array, start):
        """A SimpleITK image in image space (LPS) that holds an array (z, y, x) from voxel `start` (i, j, k) on."""
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        axes = self.lattice[:3, :3] * np.array(_FLIP)[:, None]
        spacing = np.linalg.norm(axes, axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((axes / spacing).ravel().tolist())
        image.SetOrigin(self.index_to_lps([start])[0].tolist())
        return image

    def start_of(self, image):
        """First voxel (i, j, k) of a SimpleITK image that lies on the volume's voxels. Raises `ImageError` if not."""
        inverse = np.linalg.inv(self.lattice)
        origin = np.array(image.GetOrigin()) * _FLIP
        last = np.array(image.TransformIndexToPhysicalPoint([n - 1 for n in image.GetSize()])) * _FLIP
        start, end = (inverse[:3, :3] @ point + inverse[:3, 3] for point in (origin, last))
        first = np.rint(start).astype(int)
        end_expected = first + np.array(image.GetSize()) - 1
        if np.abs(start - first).max() > 1e-2 or np.abs(end - end_expected).max() > 1e-2:
            raise ImageError(f"{named(self.volumeNode)}: the result doesn't lie on its voxels")
        return first


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
