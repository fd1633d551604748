"""Numbers stay true: what is done to segments elsewhere marks them out of date; measuring again makes them right."""

import dataclasses
import json

import numpy as np
import pytest
import slicer
from scipy import ndimage

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.scene.labelmaps import tag
from LungNoduleUncertaintyLib.measuring import table as nodule_table
from LungNoduleUncertaintyLib.scene import nodules as scene_nodules
from LungNoduleUncertaintyLib.scene import outputs
from LungNoduleUncertaintyLib.scene.measured import MEASURED_TAG, NOT_NESTED, ct_of
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns
from LungNoduleUncertaintyLib.segments import MEASUREMENTS_TAG, SEGMENTS, TAG_PREFIX

INDICES = [(20, 18, 12), (34, 30, 20)]


@pytest.fixture
def runs(tools):
    runs = SegmentationRuns(tools.fake_segment)
    yield runs
    runs.worker.stop()


@pytest.fixture(params=["world", "moved"])
def two(request, scene, tools, runs):
    """(segmentation node, CT) with two nodules; the CT lies under a transform or not."""
    volume, points = tools.add_balls(scene, tools.oblique(left_handed=True), INDICES)
    if request.param == "moved":
        shift = np.diag([1.0, 1.0, 1.0, 1.0])
        shift[:3, 3] = (5, -7, 11)
        volume.SetAndObserveTransformNodeID(transform(scene, tools, shift).GetID())
        points = [np.add(point, (5, -7, 11)) for point in points]
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    return node, volume


def transform(scene, tools, matrix):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(tools.matrix_of(matrix))
    return node


def first(node):
    return scene_nodules.nodules(node)[0]


def edit(node, volume, segment_id, function, tools):
    array = function(tools.segment_array(node, segment_id, volume))
    slicer.util.updateSegmentBinaryLabelmapFromArray(array.astype(np.uint8), node, segment_id, volume)


def volume_of(node, volume, segment_id, tools):
    return tools.segment_array(node, segment_id, volume).sum() * np.prod(volume.GetSpacing())


def check_marked(node, *changes):
    """Nowhere a number of the first nodule; the second's stay."""
    nodule, other = scene_nodules.nodules(node)
    assert nodule.changes == list(changes)
    assert nodule.measurements is None
    assert other.measurements is not None
    row = outputs.table_rows(node, measure=False)[0]
    assert set(row.numbers.values()) == {None}
    assert row.warnings.startswith(f"out of date: {changes[0]}")
    line = nodule_table.as_csv([row]).splitlines()[1]
    assert not any(character.isdigit() for character in line.replace("Nodule 1", ""))


def test_numbers_of_a_run_are_up_to_date_and_measuring_again_gives_the_same(two):
    node, _ = two
    for nodule in scene_nodules.nodules(node):
        assert nodule.changes == []
        stored = nodule.measurements
        again = scene_nodules.measured.measure_again(node, nodule.key, nodule.ids, nodule.name)
        assert again["volumes_mm3"] == pytest.approx(stored["volumes_mm3"], rel=1e-9)
        assert again["mean_hu"] == pytest.approx(stored["mean_hu"], abs=1e-6)
        assert again["mean_axis_mm"] == pytest.approx(stored["mean_axis_mm"], abs=0.051)
        assert scene_nodules.find(node, nodule.key).changes == []


def test_an_edited_segment(two, tools):
    node, volume = two
    final = first(node).ids["Final"]
    before = first(node).measurements
    edit(node, volume, final, lambda mask: ndimage.binary_erosion(mask), tools)
    check_marked(node, "Final was edited")
    row = outputs.table_rows(node)[0]  # measured again before a table is written
    assert row.numbers["Volume [mm³]"] == pytest.approx(volume_of(node, volume, final, tools), abs=0.51)
    assert row.numbers["Volume [mm³]"] < before["volumes_mm3"]["final"] * 0.8
    assert first(node).changes == []
    assert first(node).measurements["interval"] == before["interval"]
    edit(node, volume, final, lambda mask: ndimage.binary_dilation(mask, iterations=4), tools)
    outputs.table_rows(node)
    assert NOT_NESTED in first(node).warnings


def test_an_edit_that_is_undone_leaves_no_mark(two, tools):
    node, volume = two
    final = first(node).ids["Final"]
    mask = tools.segment_array(node, final, volume).copy()
    edit(node, volume, final, lambda mask: np.roll(mask, 1, axis=2), tools)
    assert first(node).changes
    edit(node, volume, final, lambda _: mask, tools)
    assert first(node).changes == []
    node.GetSegmentation().CollapseBinaryLabelmaps(False)  # other labelmaps, the same voxels
    assert first(node).changes == []


@pytest.mark.parametrize("hardened", [False, True])
def test_a_transform_that_scales(two, scene, tools, hardened):
    node, _ = two
    before = first(node).measurements
    scale = transform(scene, tools, np.diag([1.3, 1.3, 1.3, 1.0]))
    scale.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    node.SetAndObserveTransformNodeID(scale.GetID())
    if hardened:
        slicer.vtkSlicerTransformLogic().hardenTransform(node)
    nodule = first(node)
    assert nodule.measurements is None
    assert "Final" in nodule.changes[0]
    outputs.table_rows(node)
    nodule = first(node)
    assert nodule.changes == []
    assert nodule.measurements["volumes_mm3"]["final"] == pytest.approx(
        before["volumes_mm3"]["final"] * 1.3**3, rel=0.02
    )
    assert nodule.measurements["mean_axis_mm"]["final"] == pytest.approx(
        before["mean_axis_mm"]["final"] * 1.3, rel=0.05
    )


def test_a_warp(two, scene, tools):
    node, _ = two
    import vtk

    warp, source, target = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
    center = np.array(first(node).center_ras())
    for offset in ((0, 0, 0), (30, 0, 0), (0, 30, 0), (0, 0, 30), (-30, 0, 0), (0, -30, 0), (0, 0, -30)):
        source.InsertNextPoint(*(center + offset))
        target.InsertNextPoint(*(center + np.array(offset) * (1.2 if any(offset) else 1)))
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    warp.SetBasisToR()
    parent = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    parent.SetAndObserveTransformToParent(warp)
    parent.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    node.SetAndObserveTransformNodeID(parent.GetID())
    assert first(node).measurements is None
    outputs.table_rows(node)
    assert first(node).changes == []
    assert first(node).measurements is not None


def test_deleted_parts(two):
    node, _ = two
    before = first(node)
    node.GetSegmentation().RemoveSegment(before.ids["HC"])
    check_marked(node, "HC was deleted")
    outputs.table_rows(node)
    assert first(node).measurements["volumes_mm3"] == {"final": before.measurements["volumes_mm3"]["final"]}
    assert "interval" not in first(node).measurements
    node.GetSegmentation().RemoveSegment(before.ids["Final"])
    row = outputs.table_rows(node)[0]
    assert set(row.numbers.values()) == {None}
    assert "Final was deleted; segment the nodule again" in row.warnings


def test_the_ct_is_changed_moved_or_deleted(two, scene, tools):
    node, volume = two
    array = slicer.util.arrayFromVolume(volume)
    array[...] = array + 100
    slicer.util.arrayFromVolumeModified(volume)
    before = json.loads(tag(first(node).segment("Final"), MEASUREMENTS_TAG))
    assert [n.changes for n in scene_nodules.nodules(node)] == [["the CT was changed or moved"]] * 2
    outputs.table_rows(node)
    assert first(node).measurements["mean_hu"]["final"] == pytest.approx(before["mean_hu"]["final"] + 100)
    assert first(node).measurements["volumes_mm3"] == pytest.approx(before["volumes_mm3"])
    shift = np.eye(4)
    shift[0, 3] = 2.0
    moved = transform(scene, tools, shift)
    before = volume.GetTransformNodeID()
    volume.SetAndObserveTransformNodeID(moved.GetID())
    assert first(node).changes == ["the CT was changed or moved"]
    volume.SetAndObserveTransformNodeID(before)
    assert first(node).changes == []
    scene.RemoveNode(volume)
    assert first(node).changes == []  # they are still those of the segments
    outputs.table_rows(node)
    assert ct_of(node, first(node).key) is None
    node.SetAndObserveTransformNodeID(transform(scene, tools, np.diag([2.0, 2.0, 2.0, 1.0])).GetID())
    row = outputs.table_rows(node)[0]
    assert set(row.numbers.values()) == {None}
    assert "the CT that it was measured on isn't in the scene" in row.warnings
    with pytest.raises(NoduleError, match="isn't in the scene"):
        outputs.plot_densities(first(node))


def copy_of(node, segment_id, name, target=None, new_id="copy"):
    """As Slicer's Segmentations module copies a segment: tags are copied too."""
    copy = slicer.vtkSegment()
    copy.DeepCopy(node.GetSegmentation().GetSegment(segment_id))
    copy.SetName(name)
    (target or node).GetSegmentation().AddSegment(copy, new_id)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_copied_segment_never_takes_the_originals_place(two, deleted):
    node, _ = two
    nodule = first(node)
    copy_of(node, nodule.ids["Final"], "my corrected outline")
    assert first(node).ids == nodule.ids
    if deleted:
        node.GetSegmentation().RemoveSegment(nodule.ids["Final"])
        assert set(first(node).ids) == {"HC", "LC"}
    scene_nodules.delete(first(node))
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
    assert names == [*(f"Nodule 2 {part}" for part in SEGMENTS), "my corrected outline"]
    assert [n.name for n in scene_nodules.nodules(node)] == ["Nodule 2"]


def test_a_copied_segmentation_has_nodules_and_a_table_of_its_own(two, scene, tools):
    node, volume = two
    table = outputs.measurement_table(node)
    clone = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    clone.Copy(node)
    clone.SetName("clone")
    assert [n.name for n in scene_nodules.nodules(clone)] == ["Nodule 1", "Nodule 2"]
    edit(clone, volume, first(clone).ids["Final"], lambda mask: ndimage.binary_erosion(mask), tools)
    assert first(node).changes == []
    assert first(clone).changes == ["Final was edited"]
    assert outputs.measurement_table(clone) is not table
    original = table.GetTable().GetColumnByName("Volume [mm³]").GetValue(0)
    assert original == pytest.approx(first(node).measurements["volumes_mm3"]["final"], abs=0.51)


def test_a_nodule_moved_to_another_segmentation(two, scene):
    node, volume = two
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    other.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    other.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    nodule = first(node)
    for part, segment_id in nodule.ids.items():
        copy_of(node, segment_id, f"moved {part}", other, f"free {part}")
        node.GetSegmentation().RemoveSegment(segment_id)
    (moved,) = scene_nodules.nodules(other)
    assert (moved.name, moved.changes) == ("moved", [])
    assert moved.measurements == nodule.measurements
    assert [n.name for n in scene_nodules.nodules(node)] == ["Nodule 2"]


def test_a_renamed_segment_stays_its_nodules(two):
    node, _ = two
    node.GetSegmentation().GetSegment(first(node).ids["Final"]).SetName("anything")
    assert set(first(node).ids) == set(SEGMENTS)
    assert first(node).changes == []


def test_tags_are_complete_after_each_run(two, runs, tools):
    node, volume = two
    nodule = first(node)

    def another(ct, point_lps, **more):
        result = tools.fake_segment(ct, point_lps, **more)
        return dataclasses.replace(result, warnings=["a warning"])

    node.GetSegmentation().RemoveSegment(nodule.ids["LC"])
    runs._segment = another
    runs.run(SegmentationRequest(volume, nodule.point_ras(), segmentationNode=node, replace=nodule.key))
    assert first(node).changes == []
    names = ("model", "measurements", "measured", "point_ras", "nodule", "warnings", "software", "point_lps", "segment")
    for part in SEGMENTS:
        for name in names:
            assert tag(first(node).segment(part), TAG_PREFIX + name), (part, name)
        assert tag(first(node).segment(part), MEASURED_TAG) == tag(first(node).segment("Final"), MEASURED_TAG)
    runs.undo()
    assert first(node).changes == ["LC was deleted"]


def test_numbers_of_a_file_without_what_they_were_measured_on(two, tools):
    node, volume = two
    for part in SEGMENTS:
        first(node).segment(part).RemoveTag(MEASURED_TAG)
    assert first(node).changes == []
    edit(node, volume, first(node).ids["Final"], lambda mask: ndimage.binary_erosion(mask), tools)
    assert first(node).changes == ["Final was edited"]


def test_it_is_told_after_a_scene_was_saved_and_read(two, scene, tools, tmp_path):
    node, volume = two
    final = first(node).ids["Final"]
    edit(node, volume, final, lambda mask: ndimage.binary_erosion(mask), tools)
    tools.allow_archives(scene, tmp_path)
    assert scene.WriteToMRB(str(tmp_path / "s.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "s.mrb"), True)
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    check_marked(node, "Final was edited")
    outputs.table_rows(node)
    assert first(node).changes == []
