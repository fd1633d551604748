"""Segments, RECIST lines and trimap nodes become soft masks, on Slicer's own MRML classes."""

import json
import types

import numpy as np
import pytest
import slicer
import vtk
from soft_lesion import (
    MIDDLE,
    RADIUS,
    SHAPE,
    add_lesion,
    add_recist,
    add_segments,
    distance,
    expected,
    on_volume,
    turn,
    warp,
)

from LungNoduleKit.terminology import NODULE_TERMINOLOGY
from SoftMaskLabelerLib.errors import ImageError
from SoftMaskLabelerLib.scene import results, sources
from SoftMaskLabelerLib.scene.runs import SoftMaskRequest


def test_segment_becomes_the_core_librarys_soft_mask(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.softMask(volume, segments=segments, erode_mm=1.5, dilate_mm=2.0)
    alpha = on_volume(node, volume)
    wanted, _ = expected(slicer.util.arrayFromVolume(volume), matrix, inside, erode_mm=1.5, dilate_mm=2.0)
    assert alpha.dtype == np.float32
    np.testing.assert_allclose(alpha, wanted, atol=1e-4)
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 0
    result = labeler_logic.lastResult
    binary = tools.segment_array(result.segmentationNode, result.segmentID, volume)
    np.testing.assert_array_equal(binary, alpha >= 0.5)
    assert np.prod(slicer.util.arrayFromVolume(node).shape) < np.prod(SHAPE) / 2  # cropped
    display = node.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetApplyThreshold()) == (1.0, 0.5, 1)


@pytest.mark.parametrize(
    "change",
    [np.eye(3), 2 * np.eye(3), np.diag([1.0, -1.0, 1.0]), np.eye(3) + 0.3 * np.eye(3, k=1)],
    ids=["rigid", "scaled", "mirrored", "sheared"],
)
def test_parent_transforms_count(scene, tools, matrix, labeler_logic, change):
    """Millimeters are the world's, and the same voxels come out wherever the nodes are moved."""
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    outer, whole = turn(tools, scene), np.eye(4)
    whole[:3, :3] = change
    inner = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Inner")
    inner.SetMatrixTransformToParent(tools.matrix_of(whole))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.softMask(volume, segments=segments, erode_mm=2.0, dilate_mm=2.0)
    wanted, _ = expected(slicer.util.arrayFromVolume(volume), whole @ matrix, inside, erode_mm=2.0, dilate_mm=2.0)
    np.testing.assert_allclose(on_volume(node, volume), wanted, atol=1e-4)
    created = labeler_logic.lastResult.segmentationNode
    assert created.GetParentTransformNode() is volume.GetParentTransformNode()
    binary = tools.segment_array(created, labeler_logic.lastResult.segmentID, volume)
    np.testing.assert_array_equal(binary, wanted >= 0.5)


def test_segmentation_and_target_under_other_transforms(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    whole = turn(tools, scene)
    volume.SetAndObserveTransformNodeID(whole.GetID())
    segments[0][0].SetAndObserveTransformNodeID(whole.GetID())
    segments[0][0].HardenTransform()  # now its own voxels are turned, and it has no transform
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Target")
    target.SetAndObserveTransformNodeID(turn(tools, scene, 1.0, "Other").GetID())
    node = labeler_logic.softMask(volume, segments=segments, segmentationNode=target)
    alpha = on_volume(node, volume)
    assert 2 * (alpha >= 0.5)[inside].sum() / ((alpha >= 0.5).sum() + inside.sum()) > 0.95
    binary = tools.segment_array(target, labeler_logic.lastResult.segmentID, volume)
    np.testing.assert_array_equal(binary, alpha >= 0.5)


def test_non_linear_transform_between_volume_and_source(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    volume.SetAndObserveTransformNodeID(warp(scene, matrix).GetID())
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.softMask(volume, segments=segments)
    wanted, _ = expected(slicer.util.arrayFromVolume(volume), matrix, inside)
    np.testing.assert_allclose(on_volume(node, volume), wanted, atol=1e-4)
    lines = add_recist(scene, volume)  # in the world, where the lesion has been moved to
    by_lines = on_volume(labeler_logic.softMask(volume, lines=lines), volume)
    inputs = sources.read(volume, sources.Source(lines=lines))
    points = [inputs.image.TransformPhysicalPointToContinuousIndex(p) for p in inputs.recist_points_lps]
    first = inputs.frame.start_of(inputs.image)
    reach = [[-10, 0, 0], [10, 0, 0], [0, -8.125, 0], [0, 8.125, 0]]
    np.testing.assert_allclose(points + first, MIDDLE + reach, atol=0.02)
    assert np.flatnonzero(by_lines.any(axis=(1, 2))).tolist() == [MIDDLE[2]]
    outside = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Elsewhere")
    before = tools.snapshot(scene)
    with pytest.raises(ImageError, match="'Elsewhere': a non-linear transform"):
        labeler_logic.softMask(volume, segments=segments, segmentationNode=outside)
    assert tools.snapshot(scene) == before


def test_readers_from_two_segmentations(scene, tools, matrix, labeler_logic):
    volume = add_lesion(tools, scene, matrix)
    small, large = distance(matrix) <= RADIUS - 1.5, distance(matrix) <= RADIUS + 1.5
    segments = [*add_segments(scene, volume, [small]), *add_segments(scene, volume, [large], "Second")]
    alpha = on_volume(labeler_logic.softMask(volume, segments=segments), volume)
    assert alpha[small].min() == 1
    assert alpha[~large].max() == 0
    assert 0.2 < alpha[large & ~small].mean() < 0.8
    tags = labeler_logic.lastResult.softMaskNode
    assert tags.GetAttribute("SoftMaskLabeler.source") == "readers"
    assert tags.GetAttribute("SoftMaskLabeler.marks") == "Reader 1, Reader 1"


def test_recist_lines_in_either_order_under_a_transform(scene, tools, matrix, labeler_logic):
    volume = add_lesion(tools, scene, matrix)
    volume.SetAndObserveTransformNodeID(turn(tools, scene).GetID())
    lines = add_recist(scene, volume)
    one, other = (on_volume(labeler_logic.softMask(volume, lines=pair), volume) for pair in (lines, lines[::-1]))
    np.testing.assert_array_equal(one, other)
    inside = distance(matrix)[MIDDLE[2]] <= RADIUS
    found = one[MIDDLE[2]] >= 0.5
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.9


def test_other_nodes_stay_and_undo_takes_everything_back(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    target = segments[0][0]
    before, array = tools.snapshot(scene), slicer.util.arrayFromVolume(volume).copy()
    labeler_logic.softMask(volume, segments=segments)
    labeler_logic.softMask(volume, segments=segments, segmentationNode=target)
    names = list(tools.ids_by_name(target))
    assert names == ["Reader 1", results.SEGMENT_NAME]
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), array)
    assert [labeler_logic.undo(), labeler_logic.undo(), labeler_logic.undo()] == ["soft mask", "soft mask", ""]
    assert tools.snapshot(scene) == before
    np.testing.assert_array_equal(tools.segment_array(target, "reader1", volume), inside)


def test_undo_after_the_user_removed_something(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.softMask(volume, segments=segments)
    created = labeler_logic.lastResult.segmentationNode
    created.GetSegmentation().AddEmptySegment("mine", "Mine")
    scene.RemoveNode(node)
    assert labeler_logic.undo() == "soft mask"
    assert list(tools.ids_by_name(created)) == ["Mine"]


def test_segment_says_where_it_comes_from(scene, tools, matrix, labeler_logic, tmp_path):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.softMask(volume, segments=segments, erode_mm=1.0, dilate_mm=1.0)
    result = labeler_logic.lastResult
    segment = result.segmentationNode.GetSegmentation().GetSegment(result.segmentID)
    value = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), value)
    assert str(value) == NODULE_TERMINOLOGY
    assert "27925004^Nodule" in str(value)
    assert "39607008^Lung" in str(value)
    assert segment.GetTag("SoftMaskLabeler.parameters", value)
    assert json.loads(str(value)) == {"dilate_mm": 1.0, "erode_mm": 1.0}
    assert segment.GetTag("SoftMaskLabeler.soft_mask", value)
    assert str(value) == node.GetName()
    role = result.segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert result.segmentationNode.GetNodeReference(role) is volume
    display = result.segmentationNode.GetDisplayNode()
    assert not display.GetSegmentVisibility2DFill(result.segmentID)

    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "nodule.seg.nrrd"))
    assert storage.WriteData(result.segmentationNode)
    again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Read again")
    assert storage.ReadData(again)
    read = again.GetSegmentation().GetNthSegment(0)
    assert read.GetTag("SoftMaskLabeler.source", value)
    assert str(value) == "mask"
    assert read.GetTag(read.GetTerminologyEntryTagName(), value)
    assert str(value) == NODULE_TERMINOLOGY
    alpha = on_volume(node, volume)
    read_array = tools.segment_array(again, again.GetSegmentation().GetNthSegmentID(0), volume)
    np.testing.assert_array_equal(read_array, alpha >= 0.5)

    storage = scene.AddNewNodeByClass("vtkMRMLNRRDStorageNode")
    storage.SetFileName(str(tmp_path / "soft.nrrd"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Soft again")
    assert storage.ReadData(again)
    np.testing.assert_allclose(on_volume(again, volume), alpha)
    assert slicer.util.arrayFromVolume(again).dtype == np.float32


def test_trimap_as_labelmap_is_edited_and_used(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    before = tools.snapshot(scene)
    node = labeler_logic.trimap(volume, segments=segments, erode_mm=1.5, dilate_mm=2.0)
    _, trimap = expected(slicer.util.arrayFromVolume(volume), matrix, inside, erode_mm=1.5, dilate_mm=2.0)
    labels = on_volume(node, volume)
    np.testing.assert_array_equal(labels, np.searchsorted([0, 128, 255], trimap))
    colors = node.GetDisplayNode().GetColorNode()
    assert [colors.GetColorName(n) for n in range(3)] == ["Background", "Unknown", "Lesion"]
    from_trimap = labeler_logic.softMask(volume, trimap=node)
    direct = labeler_logic.softMask(volume, segments=segments, erode_mm=1.5, dilate_mm=2.0)
    np.testing.assert_allclose(on_volume(from_trimap, volume), on_volume(direct, volume), atol=1e-4)
    array = slicer.util.arrayFromVolume(node)
    array[array == 1] = 2  # the person decides that all of it is lesion
    slicer.util.arrayFromVolumeModified(node)
    edited = on_volume(labeler_logic.softMask(volume, trimap=node), volume)
    np.testing.assert_array_equal(edited, (labels > 0).astype(np.float32))
    while labeler_logic.undo():
        pass
    assert tools.snapshot(scene) == before  # the colors are gone as well


def test_trimap_as_segmentation_for_the_segment_editor(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    volume.SetAndObserveTransformNodeID(turn(tools, scene).GetID())
    segments = add_segments(scene, volume, [inside])
    node = labeler_logic.trimap(volume, segments=segments, asSegmentation=True, erode_mm=1.5, dilate_mm=2.0)
    assert list(tools.ids_by_name(node)) == ["Unknown", "Lesion"]
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    _, trimap = expected(slicer.util.arrayFromVolume(volume), matrix, inside, erode_mm=1.5, dilate_mm=2.0)
    parts = sources.trimap_segments(node)
    for part, value in (("unknown", 128), ("lesion", 255)):
        np.testing.assert_array_equal(tools.segment_array(node, parts[part], volume), trimap == value)
    node.GetSegmentation().GetSegment(parts["lesion"]).SetName("Certain")  # the tag says what it is
    from_trimap = labeler_logic.softMask(volume, trimap=node)
    direct = labeler_logic.softMask(volume, segments=segments, erode_mm=1.5, dilate_mm=2.0)
    np.testing.assert_allclose(on_volume(from_trimap, volume), on_volume(direct, volume), atol=1e-4)
    assert labeler_logic.undo()
    assert labeler_logic.undo()
    assert labeler_logic.undo() == "trimap"
    assert node.GetScene() is None


def test_preview_node_stays_out_of_lists_and_files(scene, tools, matrix, labeler_logic):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    before = tools.snapshot(scene)
    request = SoftMaskRequest(volume, sources.Source(segments))
    trimap, frame, _ = labeler_logic.runs.trimap(request)
    node = results.add_trimap(trimap, frame, preview=True)
    assert node.GetHideFromEditors()
    assert not node.GetSaveWithScene()
    assert not node.GetDisplayNode().GetColorNode().GetSaveWithScene()
    results.remove_trimap(node)
    assert tools.snapshot(scene) == before


def test_notes_name_the_volumes_own_slices(scene, tools, labeler_logic):
    matrix = tools.oblique()
    volume = add_lesion(tools, scene, matrix)
    mask = np.zeros(SHAPE, bool)
    mask[10, 20:22, 30:32] = True  # too small to be eroded by 3 mm
    labeler_logic.softMask(volume, segments=add_segments(scene, volume, [mask]), erode_mm=3.0, dilate_mm=3.0)
    assert any(note.startswith("slice 10:") for note in labeler_logic.lastResult.notes), labeler_logic.lastResult.notes


def test_module_describes_itself_and_its_own_test_passes(labeler):
    parent = types.SimpleNamespace()
    labeler.SoftMaskLabeler(parent)
    assert (parent.title, parent.categories) == ("Soft Mask Labeler", ["Segmentation"])
    case = labeler.SoftMaskLabelerTest("test_SyntheticLesion")
    case.setUp()
    case.test_SyntheticLesion()
