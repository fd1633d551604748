"""Slicer's scene and logics without the application: MRML from the slicer-core wheel, the rest as bare stand-ins."""

import importlib
import sys
import types
import unittest

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core isn't installed", exc_type=ImportError)
if not hasattr(slicer, "vtkMRMLScene"):  # PyPI has another package of that name
    pytest.skip("the package 'slicer' isn't slicer-core", allow_module_level=True)

import SimpleITK as sitk  # noqa: E402
import vtk  # noqa: E402
from vtk.util.numpy_support import numpy_to_vtk  # noqa: E402

from LungNoduleUncertaintyLib.measuring.measurements import measure  # noqa: E402
from LungNoduleUncertaintyLib.models.network_input import Averaging  # noqa: E402
from LungNoduleUncertaintyLib.models.outputs import INTERVAL_MAPS  # noqa: E402
from LungNoduleUncertaintyLib.outlining.result import NoduleSegmentation, Provenance  # noqa: E402

AIR, TISSUE = -850, 40


def pytest_collection_modifyitems(items):
    for item in items:
        if "scene" in item.path.parts:
            item.add_marker(pytest.mark.mrml)


class _Base:
    """What a scripted module inherits from; the application's own bases need Qt."""

    def __init__(self, parent=None):
        self.parent = parent if parent is not None else types.SimpleNamespace()


def _stand_ins():
    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in ("", "Widget", "Logic"):
        setattr(scripted, f"ScriptedLoadableModule{kind}", type(f"ScriptedLoadableModule{kind}", (_Base,), {}))
    scripted.ScriptedLoadableModuleTest = type("ScriptedLoadableModuleTest", (unittest.TestCase,), {})
    scripted.ScriptedLoadableModuleTest.delayDisplay = lambda self, message, msec=0: None
    translation = types.ModuleType("slicer.i18n")
    translation.tr = lambda text: text
    translation.translate = lambda context, text: text
    return {module.__name__: module for module in (scripted, translation)}


@pytest.fixture
def scene(monkeypatch):
    """A fresh MRML scene with real module logics, reachable as in Slicer: slicer.mrmlScene, slicer.modules."""
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    colors = slicer.vtkMRMLColorLogic()
    colors.SetMRMLScene(scene)
    application.SetModuleLogic("Colors", colors)
    modules = types.SimpleNamespace()
    for name, kind in {
        "Volumes": slicer.vtkSlicerVolumesLogic,
        "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
        "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
    }.items():
        logic = kind()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
        setattr(modules, name.lower(), types.SimpleNamespace(logic=lambda logic=logic: logic))
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    monkeypatch.setattr(slicer, "_application_logic", application, raising=False)  # keeps it alive
    for name, module in _stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(slicer, name.rpartition(".")[2], module, raising=False)
    yield scene
    scene.Clear(1)


def matrix_of(transform_or_array):
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(transform_or_array[row][column]))
    return matrix


def oblique(spacing=(0.7, 0.8, 1.6), origin=(-60.0, 35.0, 120.0), left_handed=False):
    """Index to RAS matrix of an anisotropic volume that is turned about all three axes."""
    a, b, c = np.deg2rad([17, -11, 23])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    axes = x @ y @ z
    if left_handed:
        axes[:, 2] *= -1
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = origin
    return matrix


def add_volume(scene, array, matrix, name="CT", kind="vtkMRMLScalarVolumeNode"):
    """A volume node with a copy of an array (z, y, x) and an index to RAS matrix."""
    node = scene.AddNewNodeByClass(kind, name)
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    components = array.shape[3] if array.ndim == 4 else 1
    image.GetPointData().SetScalars(numpy_to_vtk(array.reshape(-1, components).copy(), deep=True))
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix_of(matrix))
    return node


def ball(shape, matrix, center, radius):
    """Bool array (z, y, x): whose voxel centers lie in a ball, center and radius in mm of the matrix's space."""
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.linalg.norm(points - center, axis=-1) <= radius


def add_balls(scene, matrix, indices, shape=(28, 40, 44)):
    """(CT with a ball of tissue about each index (x, y, z), the balls' centers in RAS); radii are 4, 5, ... mm."""
    centers = [tuple((matrix @ [*index, 1])[:3]) for index in indices]
    inside = np.any([ball(shape, matrix, c, 4.0 + n) for n, c in enumerate(centers)], axis=0)
    return add_volume(scene, np.where(inside, TISSUE, AIR).astype(np.int16), matrix), centers


def fake_segment(ct, point_lps, model=None, device="auto", margin=3, progress=None, thresholds=None, averaging=None):
    """In place of `segment_nodule`: the tissue around the point, its core as HC, cropped to its region."""
    from scipy import ndimage

    array = sitk.GetArrayFromImage(ct)
    labels, _ = ndimage.label(array > (AIR + TISSUE) / 2)
    i, j, k = ct.TransformPhysicalPointToIndex(point_lps)
    final = labels == labels[k, j, i]
    assert labels[k, j, i], "the point isn't in tissue"
    hc, union = ndimage.binary_erosion(final), ndimage.binary_dilation(final)
    used = np.argwhere(union)
    low = np.maximum(used.min(0) - margin, 0)
    high = np.minimum(used.max(0) + margin + 1, array.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def image(values):
        out = sitk.GetImageFromArray(values[box])
        out.SetSpacing(ct.GetSpacing())
        out.SetDirection(ct.GetDirection())
        out.SetOrigin(ct.TransformIndexToPhysicalPoint([int(v) for v in low[::-1]]))
        return out

    if progress:
        progress("outlining", 0.5)
    masks = {"hc": hc, "lc": union & ~hc, "final": final}
    masks = {name: image(mask.astype(np.uint8)) for name, mask in masks.items()}
    maps = {
        f"probability_{name}": image(m.astype(np.float32))
        for name, m in zip(INTERVAL_MAPS, (union, hc, final), strict=True)
    }
    measurements = measure(image(array), **masks)
    return NoduleSegmentation(**masks, **maps, measurements=measurements, provenance=provenance(point_lps, thresholds))


def provenance(point_lps, thresholds=None):
    """Provenance of a stand-in's result; its model has a name that Slicer's file format can't hold as it is."""
    point = tuple(float(v) for v in point_lps)
    return Provenance("fake|model", "0", "0" * 64, "tests", dict(thresholds or {}), Averaging(), point)


def segment_array(node, segment_id, volume):
    """A segment as bool array (z, y, x) on a volume's voxels."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume).astype(bool)


def ids_by_name(node):
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return {segmentation.GetSegment(i).GetName(): i for i in ids}


def allow_archives(scene, folder):
    """Lets a scene read `.mrb` archives, as the application's scene can: they are unpacked in a cache folder."""
    (folder / "cache").mkdir()
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(str(folder / "cache"))
    cache.SetMRMLScene(scene)
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(manager)


def snapshot(scene):
    """What must not change when something fails: all nodes, and the segments of all segmentations."""
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    segments = {
        node.GetID(): sorted(ids_by_name(node).items()) for node in nodes if node.IsA("vtkMRMLSegmentationNode")
    }
    return [(node.GetID(), node.GetName()) for node in nodes], segments


@pytest.fixture
def tools():
    """The functions above, for test files (which can't import a conftest by name)."""
    return types.SimpleNamespace(**{k: v for k, v in globals().items() if callable(v)}, AIR=AIR, TISSUE=TISSUE)


@pytest.fixture(params=[False, True], ids=["right-handed", "left-handed"])
def matrix(request, tools):
    """An oblique lattice (4, 4) from voxel indices to RAS mm, in either handedness."""
    return tools.oblique(left_handed=request.param)


@pytest.fixture
def labeler(scene, monkeypatch):
    """The module file SoftMaskLabeler, imported anew."""
    monkeypatch.delitem(sys.modules, "SoftMaskLabeler", raising=False)
    yield importlib.import_module("SoftMaskLabeler")
    sys.modules.pop("SoftMaskLabeler", None)


@pytest.fixture
def labeler_logic(labeler):
    return labeler.SoftMaskLabelerLogic()
