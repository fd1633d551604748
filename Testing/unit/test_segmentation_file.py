"""`.seg.nrrd` files: read back here, by Slicer's own storage node, and never half-written."""

import errno
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, OutputError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.segmentation_file import read_segmentation, write_segmentation
from LungNoduleKit.terminology import NODULE_TERMINOLOGY

TILT = 0.3
OBLIQUE = (np.cos(TILT), -np.sin(TILT), 0.0, np.sin(TILT), np.cos(TILT), 0.0, 0.0, 0.0, -1.0)
CT_GRID = Grid((40, 30, 20), (0.7, 0.8, 2.5), (-101.25, 33.1, 250.0), OBLIQUE)
GRID = CT_GRID.part((5, 7, 3), (12, 10, 8))
COLORS = [(0.9, 0.2, 0.1), (1.0, 0.8, 0.0), (0.1, 0.6, 1.0)]


def three_segments():
    """HC, LC and a final that overlaps both; no symmetry, so that a swapped axis is seen."""
    hc, lc = np.zeros((2, *GRID.shape), np.uint8)
    hc[2:5, 3:6, 4:9] = 1
    lc[1:7, 2:8, 3:11] = 1
    lc[hc > 0] = 0
    final = hc.copy()
    final[2:6, 3:7, 4:10] = 1
    return [
        (name, GRID.image(a), c)
        for (name, a), c in zip({"HC": hc, "LC": lc, "Final": final}.items(), COLORS, strict=True)
    ]


def test_masks_names_and_geometry_come_back(tmp_path):
    segments = three_segments()
    write_segmentation(tmp_path / "nodule.seg.nrrd", segments, reference=CT_GRID)
    back = read_segmentation(tmp_path / "nodule.seg.nrrd")
    assert list(back) == ["HC", "LC", "Final"]
    for name, mask, _ in segments:
        assert np.array_equal(sitk.GetArrayFromImage(back[name]), sitk.GetArrayFromImage(mask))
        assert np.allclose(Grid.of(back[name]).matrix, GRID.matrix, atol=1e-12)
        assert np.allclose(back[name].GetOrigin(), GRID.origin, atol=1e-12)
    assert [p.name for p in tmp_path.iterdir()] == ["nodule.seg.nrrd"]


def test_two_writes_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_segmentation(tmp_path / f"{name}.seg.nrrd", three_segments())
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_odd_names_single_and_empty_segments(tmp_path):
    mask = three_segments()[0][1]
    path = tmp_path / "odd.seg.nrrd"
    write_segmentation(path, [("Knoten:=|ä\n2", mask, COLORS[0]), ("Knoten:=|ä 2", GRID.image(), COLORS[1])])
    back = read_segmentation(path)
    assert list(back) == ["Knoten:=|ä 2", "Knoten:=|ä 2 2"]
    assert not sitk.GetArrayFromImage(back["Knoten:=|ä 2 2"]).any()
    write_segmentation(path, [("only", mask, COLORS[0])])
    assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt8  # a scalar image, as Slicer writes a single one
    assert np.array_equal(sitk.GetArrayFromImage(read_segmentation(path)["only"]), sitk.GetArrayFromImage(mask))


@pytest.mark.mrml
@pytest.mark.parametrize("reference", [CT_GRID, None], ids=["with the CT's geometry", "alone"])
def test_slicer_loads_it(tmp_path, reference):
    pytest.importorskip("slicer_core", reason="the slicer-core wheel isn't installed")
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    segments = three_segments()
    path = tmp_path / "nodule.seg.nrrd"
    write_segmentation(path, segments, tags={"Model": "test 1|0"}, reference=reference)
    scene = slicer.vtkMRMLScene()
    node = slicer.vtkMRMLSegmentationNode()
    scene.AddNode(node)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 3
    assert segmentation.GetNumberOfLayers() == 3
    for number, (name, mask, color) in enumerate(segments):
        identifier = segmentation.GetNthSegmentID(number)
        segment = segmentation.GetSegment(identifier)
        assert segment.GetName() == name
        assert np.allclose(segment.GetColor(), color)
        assert segment.HasTag("TerminologyEntry")
        text = vtk.reference("")
        assert segment.GetTag("TerminologyEntry", text)
        assert str(text) == NODULE_TERMINOLOGY
        assert segment.GetTag("Model", text)
        assert str(text) == "test 1/0"
        oriented = slicer.vtkOrientedImageData()
        assert node.GetBinaryLabelmapRepresentation(identifier, oriented)
        array = vtk_to_numpy(oriented.GetPointData().GetScalars()).reshape(oriented.GetDimensions()[::-1])
        to_world = vtk.vtkMatrix4x4()
        oriented.GetImageToWorldMatrix(to_world)
        matrix = np.array([[to_world.GetElement(r, c) for c in range(4)] for r in range(4)])
        k, j, i = np.nonzero(array)
        extent = oriented.GetExtent()
        index = np.stack([i + extent[0], j + extent[2], k + extent[4], np.ones_like(i)])
        in_slicer = (matrix @ index)[:3].T * (-1, -1, 1)
        k, j, i = np.nonzero(sitk.GetArrayFromImage(mask))
        expected = GRID.indices_to_points(np.stack([i, j, k], axis=-1))
        assert in_slicer.shape == expected.shape
        assert np.allclose(
            in_slicer[np.lexsort(in_slicer.T.round(3))], expected[np.lexsort(expected.T.round(3))], atol=1e-6
        )
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = slicer.vtkOrientedImageData()
    text = segmentation.GetConversionParameter(name)
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry, False)
    expected = reference or GRID
    assert geometry.GetDimensions() == expected.size
    assert np.allclose(geometry.GetOrigin(), np.array(expected.origin) * (-1, -1, 1))
    assert np.allclose(geometry.GetSpacing(), expected.spacing)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "nodule.seg.nrrd"
    write_segmentation(path, three_segments())
    before = path.read_bytes()

    def half(self, content):
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=r"nodule\.seg\.nrrd.*No space left"):
        write_segmentation(path, three_segments()[:1])
    with pytest.raises(OutputError):
        write_segmentation(tmp_path / "new.seg.nrrd", three_segments())
    assert [p.name for p in tmp_path.iterdir()] == ["nodule.seg.nrrd"]
    assert path.read_bytes() == before


def test_bad_input(tmp_path):
    name, mask, color = three_segments()[0]
    with pytest.raises(ImageError, match="no segments"):
        write_segmentation(tmp_path / "a.seg.nrrd", [])
    moved = GRID.part((1, 0, 0), GRID.size).image()
    with pytest.raises(ImageError, match=r"segment LC: .*another grid"):
        write_segmentation(tmp_path / "a.seg.nrrd", [(name, mask, color), ("LC", moved, color)])
    sitk.WriteImage(mask, str(tmp_path / "plain.nrrd"))
    with pytest.raises(ImageError, match="isn't a Slicer segmentation"):
        read_segmentation(tmp_path / "plain.nrrd")
    assert [p.name for p in tmp_path.iterdir()] == ["plain.nrrd"]


def test_readers_of_a_nodule(lidc_case):
    readers = read_segmentation(lidc_case / "PHANTOM-0001-1-1_readers.seg.nrrd")
    assert list(readers) == [f"Reader {n}" for n in (1, 2, 3, 4)]
    volumes = [sitk.GetArrayFromImage(m).sum() for m in readers.values()]
    assert volumes == [410, 413, 310, 310]
