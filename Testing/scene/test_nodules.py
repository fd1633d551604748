"""Nodules of a scene: several in one segmentation, run again, undone, measured, mapped, saved and read back."""

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from LungNoduleKit.errors import NoduleError, OutputError, PointError
from LungNoduleKit.scene.labelmaps import tag
from LungNoduleUncertaintyLib.measuring import table as nodule_table
from LungNoduleUncertaintyLib.panel.parameters import MAP_CHOICES
from LungNoduleUncertaintyLib.scene import nodules as scene_nodules
from LungNoduleUncertaintyLib.scene import outputs as scene_outputs
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns
from LungNoduleUncertaintyLib.scene.sample import add_phantom
from LungNoduleUncertaintyLib.segments import KIND_TAG, SEGMENTS, TAG_PREFIX

SHAPE = (28, 40, 44)
INDICES = [(20, 18, 12), (34, 30, 20), (8, 28, 10)]


@pytest.fixture
def ct(scene, tools):
    """A CT with three balls, oblique and anisotropic; its `points` are their centers (RAS)."""
    return tools.add_balls(scene, tools.oblique(left_handed=True), INDICES)


@pytest.fixture
def runs(tools):
    runs = SegmentationRuns(tools.fake_segment)
    yield runs
    runs.worker.stop()


def masks(node, volume, tools):
    return {name: tools.segment_array(node, i, volume).copy() for name, i in tools.ids_by_name(node).items()}


@pytest.fixture
def three(ct, runs):
    """(segmentation node, volume, points) with three nodules."""
    volume, points = ct
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    for point in points[1:]:
        runs.run(SegmentationRequest(volume, point, segmentationNode=node))
    return node, volume, points


def test_each_nodule_has_its_segments_measurements_and_place(three):
    node, _, points = three
    found = scene_nodules.nodules(node)
    assert [n.name for n in found] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    assert len({n.key for n in found}) == 3
    for nodule, point, radius in zip(found, points, (4.0, 5.0, 6.0), strict=True):
        assert list(nodule.ids) == list(SEGMENTS)
        assert nodule.measurements["volumes_mm3"]["final"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)
        assert np.allclose(nodule.center_ras(), point, atol=0.5)
        assert np.allclose(nodule.point_ras(), point, atol=0.01)
        assert nodule.model == "fake/model"


def test_a_transform_on_the_segmentation_moves_the_point_along(three, scene, tools):
    node, _, points = three
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = (10, -20, 30)
    transform.SetMatrixTransformToParent(tools.matrix_of(shift))
    node.SetAndObserveTransformNodeID(transform.GetID())
    found = scene_nodules.nodules(node)[1]
    assert np.allclose(found.point_ras(), np.add(points[1], (10, -20, 30)), atol=0.01)
    assert np.allclose(found.center_ras(), np.add(points[1], (10, -20, 30)), atol=0.5)


def test_segmenting_again_touches_no_other_segment_and_can_be_undone(three, runs, tools):
    node, volume, points = three
    second = scene_nodules.nodules(node)[1]
    before = masks(node, volume, tools)
    segments = {i: node.GetSegmentation().GetSegment(i) for i in tools.ids_by_name(node).values()}

    def smaller(ct, point_lps, **more):
        result = tools.fake_segment(ct, point_lps, **more)
        provenance = dataclasses.replace(result.provenance, model="another")
        return dataclasses.replace(result, final=result.hc, provenance=provenance)

    runs._segment = smaller
    stored = runs.run(SegmentationRequest(volume, points[1], segmentationNode=node, replace=second.key))
    assert (stored.nodule.name, stored.nodule.key) == (second.name, second.key)
    after = masks(node, volume, tools)
    assert list(after) == list(before)
    assert [n for n in after if not np.array_equal(after[n], before[n])] == ["Nodule 2 Final"]
    assert scene_nodules.nodules(node)[1].model == "another"
    assert runs.undo() == "segment Nodule 2 again"
    restored = masks(node, volume, tools)
    assert all(np.array_equal(restored[n], before[n]) for n in before)
    assert scene_nodules.nodules(node)[1].model == "fake/model"
    assert all(node.GetSegmentation().GetSegment(i) is s for i, s in segments.items())


def test_a_part_that_was_deleted_comes_back_when_segmented_again(three, runs, tools):
    node, volume, points = three
    first = scene_nodules.nodules(node)[0]
    node.GetSegmentation().RemoveSegment(first.ids["LC"])
    stored = runs.run(SegmentationRequest(volume, points[0], segmentationNode=node, replace=first.key))
    assert set(stored.nodule.ids) == set(SEGMENTS)
    assert runs.undo()
    assert set(scene_nodules.nodules(node)[0].ids) == {"HC", "Final"}


def test_undo_goes_back_step_by_step_to_the_empty_scene(ct, runs, scene, tools):
    volume, points = ct
    start = tools.snapshot(scene)
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    one = tools.snapshot(scene)
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    runs.rename(node, scene_nodules.nodules(node)[1].key, "apex")
    runs.delete(node, scene_nodules.nodules(node)[0].key)
    assert list(tools.ids_by_name(node)) == ["apex HC", "apex LC", "apex Final"]
    runs.undo()
    assert list(tools.ids_by_name(node))[:3] == ["Nodule 1 HC", "Nodule 1 LC", "Nodule 1 Final"]
    runs.undo()
    runs.undo()
    assert tools.snapshot(scene) == one
    runs.undo()
    assert tools.snapshot(scene) == start
    assert runs.undo() == ""
    assert not runs.can_undo


def test_undo_leaves_what_others_did_meanwhile(three, runs, tools):
    node, _, _ = three
    own = slicer.vtkSegment()
    own.SetName("mine")
    node.GetSegmentation().AddSegment(own, "mine")
    runs.undo()
    assert "mine" in tools.ids_by_name(node)
    assert "Nodule 3 HC" not in tools.ids_by_name(node)
    assert "Nodule 2 HC" in tools.ids_by_name(node)


@pytest.mark.parametrize("bad", ["", "  ", "a|b", "Nodule 2"])
def test_bad_names_are_refused_and_change_nothing(three, runs, tools, bad):
    node, _, _ = three
    before = tools.ids_by_name(node)
    with pytest.raises(OutputError, match="name "):
        runs.rename(node, scene_nodules.nodules(node)[0].key, bad)
    assert tools.ids_by_name(node) == before


def test_bad_requests_leave_the_scene_as_it_was(three, runs, scene, tools):
    node, volume, points = three
    line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L")
    before = tools.snapshot(scene)
    for request, match in (
        (SegmentationRequest(volume), "either a point"),
        (SegmentationRequest(volume, points[0], near=line), "not both"),
        (SegmentationRequest(volume, near=line), "place both of its ends"),
        (SegmentationRequest(volume, (1e4, 0, 0)), "outside of volume 'CT'"),
        (SegmentationRequest(volume, near=(node, "nothing")), "it has no segment 'nothing'"),
        (SegmentationRequest(volume, points[0], segmentationNode=volume), "isn't a segmentation node"),
        (SegmentationRequest(volume, points[0], segmentationNode=node, replace="gone"), "isn't there any more"),
        (SegmentationRequest(volume, points[0], segmentationNode=node, maps=("Depth",)), "map 'Depth'"),
    ):
        with pytest.raises(NoduleError, match=match):
            runs.run(request)
        with pytest.raises(NoduleError, match=match):
            runs.start(request)
        assert not runs.busy
    assert tools.snapshot(scene) == before


def test_a_failing_map_takes_the_segments_back(ct, runs, scene, tools, monkeypatch):
    volume, points = ct
    before = tools.snapshot(scene)
    monkeypatch.setattr(scene_outputs, "show_as_map", lambda node: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runs.run(SegmentationRequest(volume, points[0], maps=tuple(MAP_CHOICES.values())))
    assert tools.snapshot(scene) == before
    assert not runs.can_undo


@pytest.mark.parametrize("moved", [False, True])
def test_maps_lie_on_the_volumes_voxels(ct, runs, scene, tools, moved):
    volume, points = ct
    if moved:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        shift = np.eye(4)
        shift[:3, 3] = (5, 6, 7)
        transform.SetMatrixTransformToParent(tools.matrix_of(shift))
        volume.SetAndObserveTransformNodeID(transform.GetID())
    point = np.add(points[2], (5, 6, 7) if moved else 0)
    stored = runs.run(SegmentationRequest(volume, tuple(point), maps=("Final probability", "LC probability")))
    final, low = stored.maps
    assert [node.GetName() for node in stored.maps] == ["Nodule 1 Final probability", "Nodule 1 LC probability"]
    assert final.GetImageData().GetScalarTypeAsString() == "float"
    assert final.GetTransformNodeID() == volume.GetTransformNodeID()
    to_volume = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(to_volume)
    start = np.rint(to_volume.MultiplyPoint([*final.GetOrigin(), 1.0])[:3]).astype(int)
    assert np.allclose(to_volume.MultiplyPoint([*final.GetOrigin(), 1.0])[:3], start, atol=1e-3)
    array = slicer.util.arrayFromVolume(final)
    box = tuple(slice(a, a + n) for a, n in zip(start[::-1], array.shape, strict=True))
    whole = np.zeros(SHAPE, bool)
    whole[box] = array > 0.5
    np.testing.assert_array_equal(
        whole, tools.segment_array(stored.segmentationNode, stored.nodule.ids["Final"], volume)
    )
    display = low.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetLowerThreshold()) == (1.0, 0.5, 0.02)
    assert display.GetApplyThreshold()


def test_table_has_a_row_for_each_nodule_and_follows(three, runs):
    node, _, _ = three
    scene_outputs.update_table(node)
    assert node.GetNodeReference(scene_outputs.TABLE_ROLE) is None
    table = scene_outputs.measurement_table(node)
    assert [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())] == nodule_table.columns()
    assert [table.GetCellText(n, 0) for n in range(3)] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    volumes = slicer.util.arrayFromTableColumn(table, "Volume [mm³]")
    for nodule, volume in zip(scene_nodules.nodules(node), volumes, strict=True):
        assert volume == round(nodule.measurements["volumes_mm3"]["final"])
    low, high = (slicer.util.arrayFromTableColumn(table, f"Volume {end} [mm³]") for end in ("low", "high"))
    assert (low <= volumes).all()
    assert (volumes <= high).all()
    runs.delete(node, scene_nodules.nodules(node)[0].key)
    assert table.GetNumberOfRows() == 2
    runs.undo()
    assert table.GetNumberOfRows() == 3
    scene_nodules.set_kind(scene_nodules.nodules(node)[2], "ground-glass")
    assert scene_outputs.measurement_table(node) is table
    assert table.GetTable().GetColumnByName("Nodule type").GetValue(2) == "ground-glass"
    with pytest.raises(OutputError, match="nodule type 'cyst'"):
        scene_nodules.set_kind(scene_nodules.nodules(node)[2], "cyst")


def test_warnings_are_kept_with_the_nodule_until_it_is_segmented_again(ct, tools, tmp_path):
    said, volume, points = ["the border cuts it", 'a "|" and a : in a name'], *ct

    def segment(*args, **options):
        result = tools.fake_segment(*args, **options)
        codes = tuple("input" for _ in said)
        made = dataclasses.replace(result.provenance, warning_codes=codes)
        return dataclasses.replace(result, warnings=list(said), provenance=made)

    runs = SegmentationRuns(segment)
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    shown = ["the border cuts it", 'a "/" and a : in a name']  # | ends a tag in Slicer's file format
    (nodule,) = scene_nodules.nodules(node)
    assert nodule.warnings == shown
    for part in nodule.ids:
        assert tag(nodule.segment(part), TAG_PREFIX + "warning_codes") == "input input"
    table = scene_outputs.measurement_table(node)
    assert table.GetTable().GetColumnByName("Warnings").GetValue(0) == "; ".join(shown)
    assert scene_outputs.table_rows(node)[0].warnings == "; ".join(shown)
    said.clear()
    runs.run(SegmentationRequest(volume, points[0], segmentationNode=node, replace=nodule.key))
    (nodule,) = scene_nodules.nodules(node)
    assert nodule.warnings == []
    assert table.GetTable().GetColumnByName("Warnings").GetValue(0) == ""
    runs.undo()
    assert scene_nodules.nodules(node)[0].warnings == shown
    runs.worker.stop()


def test_plot_shows_one_nodule_and_is_used_again(three, scene):
    node, _, _ = three
    first, second = scene_nodules.nodules(node)[:2]
    chart = scene_outputs.plot_densities(first)
    count = scene.GetNumberOfNodes()
    assert scene_outputs.plot_densities(second) is chart
    assert scene.GetNumberOfNodes() == count
    assert chart.GetTitle() == "Nodule 2: density of HC and LC"
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    series = chart.GetNthPlotSeriesNode(0)
    assert (series.GetName(), series.GetYColumnName()) == ("HC", "HC")
    hu = slicer.util.arrayFromTableColumn(series.GetTableNode(), "HU")
    density = slicer.util.arrayFromTableColumn(series.GetTableNode(), "HC")
    assert (density * np.diff(hu)[0]).sum() == pytest.approx(1.0, abs=1e-3)
    assert hu[density.argmax()] == pytest.approx(40, abs=15)  # the balls' tissue


def test_list_survives_files(three, runs, scene, tools, tmp_path):
    node, volume, _ = three
    scene_nodules.set_kind(scene_nodules.nodules(node)[1], "part-solid")
    before = scene_nodules.nodules(node)
    masks_before = masks(node, volume, tools)
    path = str(tmp_path / "nodules.seg.nrrd")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.WriteData(node)
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "read")
    assert storage.ReadData(other)
    read = scene_nodules.nodules(other)
    assert [(n.name, n.key, n.kind, n.measurements) for n in read] == [
        (n.name, n.key, n.kind, n.measurements) for n in before
    ]
    for name, mask in masks(other, volume, tools).items():
        np.testing.assert_array_equal(mask, masks_before[name])
    tools.allow_archives(scene, tmp_path)
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    runs.forget()
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    again = slicer.util.getNode("CT nodule")
    assert [(n.name, n.key, n.kind) for n in scene_nodules.nodules(again)] == [(n.name, n.key, n.kind) for n in before]
    terminology = slicer.vtkSegment.GetTerminologyEntryTagName()
    segment = again.GetSegmentation().GetNthSegment(0)
    assert "SCT^27925004^Nodule" in scene_nodules.tag(segment, terminology)
    assert "SCT^39607008^Lung" in scene_nodules.tag(segment, terminology)
    assert scene_nodules.tag(segment, TAG_PREFIX + "model_sha256") == "0" * 64
    stored = runs.run(
        SegmentationRequest(
            slicer.util.getNode("CT"), before[0].point_ras(), segmentationNode=again, replace=before[0].key
        )
    )
    assert stored.nodule.name == "Nodule 1"


def test_a_run_in_the_worker_gives_the_same_as_a_run_at_once(ct, runs, tools):
    volume, points = ct
    at_once = runs.run(SegmentationRequest(volume, points[1]))
    job = runs.start(SegmentationRequest(volume, points[1]))
    assert job.wait(60)
    later = runs.finish()
    assert not runs.busy
    assert later.segmentationNode is not at_once.segmentationNode
    one, two = (masks(s.segmentationNode, volume, tools) for s in (at_once, later))
    assert list(one) == list(two)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    with pytest.raises(NoduleError, match="no finished run"):
        runs.finish()


def test_only_the_neighborhood_of_the_point_is_read(scene, tools, runs):
    seen = []

    def segment(ct, point_lps, **more):
        seen.append(ct)
        return tools.fake_segment(ct, point_lps, **more)

    matrix = np.diag([1.0, 1.0, 2.0, 1.0])
    inside = tools.ball((150, 300, 310), matrix, (250, 40, 100), 6)
    volume = tools.add_volume(scene, np.where(inside, tools.TISSUE, tools.AIR).astype(np.int16), matrix)
    runs._segment = segment
    stored = runs.run(SegmentationRequest(volume, (250.0, 40.0, 100.0)))
    assert seen[0].GetSize() == (140, 121, 81)  # 80 mm each way, as far as the volume goes
    assert sitk.GetArrayViewFromImage(seen[0]).max() == tools.TISSUE
    np.testing.assert_array_equal(
        tools.segment_array(stored.segmentationNode, stored.nodule.ids["Final"], volume), inside
    )


def test_point_is_checked_in_the_volumes_own_space(ct, runs, scene, tools):
    volume, points = ct
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = (500, 0, 0)
    transform.SetMatrixTransformToParent(tools.matrix_of(shift))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(PointError, match="outside of volume"):
        runs.run(SegmentationRequest(volume, points[0]))
    assert runs.run(SegmentationRequest(volume, tuple(np.add(points[0], (500, 0, 0))))).nodule.name == "Nodule 1"


def test_tags_are_json_and_type_is_the_readers(three):
    node, _, _ = three
    nodule = scene_nodules.nodules(node)[0]
    segment = node.GetSegmentation().GetSegment(nodule.ids["Final"])
    assert json.loads(scene_nodules.tag(segment, TAG_PREFIX + "measurements")) == nodule.measurements
    assert scene_nodules.tag(segment, KIND_TAG) == ""
    assert nodule.kind == "solid"


def test_sample_data_is_a_ct_with_points_on_its_nodules(scene):
    volume, points = add_phantom(scene)
    array = slicer.util.arrayFromVolume(volume)
    to_ijk = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(to_ijk)
    assert points.GetNumberOfControlPoints() >= 2
    for number in range(points.GetNumberOfControlPoints()):
        position = [0.0, 0.0, 0.0]
        points.GetNthControlPointPositionWorld(number, position)
        i, j, k = (round(v) for v in to_ijk.MultiplyPoint([*position, 1.0])[:3])
        assert array[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].mean() > -700  # not lung
