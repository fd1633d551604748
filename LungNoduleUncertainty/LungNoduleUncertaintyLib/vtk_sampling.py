"""Arrays sampled through chains of VTK transforms, and VTK's matrices and points as arrays. Knows nothing of MRML."""


def numpy_matrix(matrix):
    """A vtkMatrix4x4 as an array (4, 4) of float64."""
    import numpy as np

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
    import numpy as np
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
    import numpy as np
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
