"""A lesion in a volume node, and what marks it: segments, lines; for the tests of Soft Mask Labeler's nodes."""

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

from SoftMaskLabelerLib.pipeline import Parameters, soft_mask_volume

SHAPE = (20, 56, 60)
MIDDLE = np.array([31, 27, 10])  # voxel (i, j, k)
RADIUS = 7.0


def distance(matrix):
    k, j, i = np.indices(SHAPE)
    center = matrix[:3, :3] @ MIDDLE + matrix[:3, 3]
    return np.linalg.norm(np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3] - center, axis=-1)


def add_lesion(tools, scene, matrix):
    """A volume with a soft-edged ball."""
    noise = np.random.default_rng(0).normal(0, 10, SHAPE)
    values = np.clip((RADIUS - distance(matrix)) / 3 + 0.5, 0, 1) * 890 - 850 + noise
    return tools.add_volume(scene, values.astype(np.int16), matrix)


def add_segments(scene, volume, masks, name="Readers"):
    """A segmentation under the volume's transform with a segment for each mask; returns [(node, ID), ...]."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    found = []
    for number, mask in enumerate(masks, 1):
        segment_id = node.GetSegmentation().AddEmptySegment(f"reader{number}", f"Reader {number}")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, volume)
        found.append((node, segment_id))
    return found


def add_line(scene, name, *ends):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
    for end in ends:
        node.AddControlPointWorld(vtk.vtkVector3d(*end))
    return node


def add_recist(scene, volume, half=RADIUS):
    """Two lines through the lesion's middle slice, on it in the world wherever the volume has been moved."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volume.GetParentTransformNode(), None, world)

    def place(offset):
        local = matrix.MultiplyPoint([*(MIDDLE + offset), 1.0])[:3]
        return world.TransformPoint(local)

    spacing = volume.GetSpacing()
    di, dj = half / spacing[0], (half - 0.5) / spacing[1]
    long = add_line(scene, "Long", place([-di, 0, 0]), place([di, 0, 0]))
    return long, add_line(scene, "Short", place([0, -dj, 0]), place([0, dj, 0]))


def turn(tools, scene, scale=1.0, name="Turn"):
    a = np.deg2rad(35)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) * scale
    matrix[:3, 3] = (12.0, -7.0, 40.0)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(tools.matrix_of(matrix))
    return node


def warp(scene, matrix):
    center = matrix[:3, :3] @ MIDDLE + matrix[:3, 3]
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in [center + 70.0 * np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]:
        source.InsertNextPoint(corner)
        target.InsertNextPoint(corner)
    source.InsertNextPoint(center)
    target.InsertNextPoint(center + np.array([4.0, -3.0, 2.0]))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    node.SetAndObserveTransformToParent(spline)
    return node


def on_volume(node, volume):
    """A cropped volume node's array in an array of the whole volume's shape; fails unless it lies on its voxels."""
    own, whole = (vtk.vtkMatrix4x4() for _ in range(2))
    node.GetIJKToRASMatrix(own)
    volume.GetRASToIJKMatrix(whole)
    start = np.array(whole.MultiplyPoint(own.MultiplyPoint([0, 0, 0, 1]))[:3])
    assert np.abs(start - np.rint(start)).max() < 1e-3
    step = np.array(whole.MultiplyPoint(own.MultiplyPoint([1, 1, 1, 1]))[:3]) - start
    np.testing.assert_allclose(step, 1, atol=1e-6)
    assert node.GetParentTransformNode() is volume.GetParentTransformNode()
    i, j, k = np.rint(start).astype(int)
    array = slicer.util.arrayFromVolume(node)
    full = np.zeros(slicer.util.arrayFromVolume(volume).shape, array.dtype)
    full[k : k + array.shape[0], j : j + array.shape[1], i : i + array.shape[2]] = array
    return full


def expected(volume_array, matrix, mask, **parameters):
    """The core library's result on plain arrays."""
    image, labels = sitk.GetImageFromArray(volume_array), sitk.GetImageFromArray(mask.astype(np.uint8))
    for one in (image, labels):
        one.SetSpacing(np.linalg.norm(matrix[:3, :3], axis=0).tolist())
    result = soft_mask_volume(image, masks=labels, parameters=Parameters(**parameters))
    return sitk.GetArrayFromImage(result.alpha), sitk.GetArrayFromImage(result.trimap)
