"""Nodules of models that have Final alone, in the scene: segments, display, maps, tables, plots, runs again, undo."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from LungNoduleUncertaintyLib.measuring import table as nodule_table
from LungNoduleUncertaintyLib.measuring.measurements import measure
from LungNoduleUncertaintyLib.panel.parameters import MAP_CHOICES
from LungNoduleUncertaintyLib.scene import nodules as scene_nodules
from LungNoduleUncertaintyLib.scene import outputs as scene_outputs
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns
from LungNoduleUncertaintyLib.segments import SEGMENTS

INDICES = [(20, 18, 12), (34, 30, 20)]


@pytest.fixture
def ct(scene, tools):
    """A CT with two balls, oblique and anisotropic; its `points` are their centers (RAS)."""
    return tools.add_balls(scene, tools.oblique(left_handed=True), INDICES)


@pytest.fixture
def final_alone(tools):
    """In place of `segment_nodule` with a DSNet: Final and its soft mask, nothing else."""

    def segment(ct, point_lps, **more):
        result = tools.fake_segment(ct, point_lps, **more)
        region = sitk.Resample(ct, result.final)
        measured = measure(region, None, None, result.final)
        return dataclasses.replace(
            result,
            hc=None,
            lc=None,
            probability_union=None,
            probability_intersection=None,
            measurements=measured,
            provenance=dataclasses.replace(result.provenance, model="soft"),
            final_map="soft",
        )

    return segment


@pytest.fixture
def runs(tools):
    runs = SegmentationRuns(tools.fake_segment)
    yield runs
    runs.worker.stop()


def names(node, tools):
    return list(tools.ids_by_name(node))


def test_the_scene_gets_final_only_shown_in_3d(ct, runs, final_alone, tools):
    volume, points = ct
    runs._segment = final_alone
    stored = runs.run(SegmentationRequest(volume, points[0]))
    node = stored.segmentationNode
    assert names(node, tools) == ["Nodule 1 Final"]
    (nodule,) = scene_nodules.nodules(node)
    assert list(nodule.ids) == ["Final"]
    assert "interval" not in nodule.measurements
    assert np.allclose(nodule.center_ras(), points[0], atol=0.5)
    assert np.allclose(nodule.point_ras(), points[0], atol=0.01)
    array = tools.segment_array(node, nodule.ids["Final"], volume)
    expected = slicer.util.arrayFromVolume(volume)[: array.shape[0]] > -400
    k, j, i = (round(float(v)) for v in np.argwhere(array).mean(0))
    assert expected[k, j, i]
    assert array.sum() == pytest.approx(4 / 3 * np.pi * 4.0**3 / (0.7 * 0.8 * 1.6), rel=0.1)
    display = node.GetDisplayNode()
    assert display.GetSegmentVisibility3D(nodule.ids["Final"])
    assert not display.GetSegmentVisibility2DFill(nodule.ids["Final"])
    assert runs.undo()
    assert node.GetScene() is None


def test_beside_a_nodule_with_all_three(ct, runs, final_alone, tools):
    volume, points = ct
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    runs._segment = final_alone
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    assert names(node, tools) == ["Nodule 1 HC", "Nodule 1 LC", "Nodule 1 Final", "Nodule 2 Final"]
    first, second = scene_nodules.nodules(node)
    display = node.GetDisplayNode()
    assert not display.GetSegmentVisibility3D(first.ids["Final"])
    assert display.GetSegmentVisibility3D(second.ids["Final"])
    assert scene_nodules.next_name(node) == "Nodule 3"
    runs.rename(node, second.key, "apex")
    assert names(node, tools)[3] == "apex Final"
    runs.delete(node, second.key)
    assert len(names(node, tools)) == 3
    runs.undo()
    assert names(node, tools)[3] == "apex Final"


def test_under_a_non_linear_transform(ct, runs, final_alone, scene, tools):
    """Masks are sampled onto the volume's voxels there, Final alone as well."""
    import vtk

    volume, points = ct
    transform = vtk.vtkThinPlateSplineTransform()
    transform.SetBasisToR()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for number, corner in enumerate(np.ndindex(2, 2, 2)):
        place = np.array([-60.0, 35.0, 120.0]) + np.array(corner) * 30
        source.InsertNextPoint(place)
        target.InsertNextPoint(place + (0.5 if number % 2 else -0.5))
    transform.SetSourceLandmarks(source)
    transform.SetTargetLandmarks(target)
    parent = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    parent.SetAndObserveTransformToParent(transform)
    volume.SetAndObserveTransformNodeID(parent.GetID())
    world = [0.0, 0.0, 0.0]
    transform.TransformPoint(points[0], world)
    runs._segment = final_alone
    node = runs.run(SegmentationRequest(volume, tuple(world))).segmentationNode
    (nodule,) = scene_nodules.nodules(node)
    assert np.allclose(nodule.center_ras(), world, atol=0.7)


@pytest.mark.parametrize("surface", [False, True])
def test_again_with_fewer_outputs_removes_hc_and_lc_and_undo_restores_them(ct, runs, final_alone, tools, surface):
    volume, points = ct
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    if surface:
        node.CreateClosedSurfaceRepresentation()
    before = {n: tools.segment_array(node, i, volume).copy() for n, i in tools.ids_by_name(node).items()}
    first, second = scene_nodules.nodules(node)
    segmentation, display = node.GetSegmentation(), node.GetDisplayNode()
    objects = {i: segmentation.GetSegment(i) for i in tools.ids_by_name(node).values()}
    display.SetSegmentOpacity2DFill(first.ids["LC"], 0.7)  # the user's own
    display.SetSegmentVisibility2DFill(first.ids["Final"], True)
    runs._segment = final_alone
    stored = runs.run(SegmentationRequest(volume, points[0], segmentationNode=node, replace=first.key))
    assert stored.removed == ("HC", "LC")
    assert names(node, tools) == ["Nodule 1 Final", *(f"Nodule 2 {part}" for part in SEGMENTS)]
    assert stored.nodule.key == first.key
    assert stored.nodule.ids == {"Final": first.ids["Final"]}
    assert stored.nodule.model == "soft"
    assert "interval" not in stored.nodule.measurements
    assert display.GetSegmentVisibility3D(first.ids["Final"])
    assert display.GetSegmentVisibility2DFill(first.ids["Final"])
    assert not display.GetSegmentVisibility3D(second.ids["Final"])
    if surface:
        closed = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        assert segmentation.GetSegment(first.ids["Final"]).GetRepresentation(closed) is not None
    runs.undo()
    after = {n: tools.segment_array(node, i, volume) for n, i in tools.ids_by_name(node).items()}
    assert list(after) == list(before)
    assert all(np.array_equal(after[n], before[n]) for n in before)
    assert all(segmentation.GetSegment(i) is s for i, s in objects.items())
    restored = scene_nodules.nodules(node)[0]
    assert restored.model == "fake/model"
    assert "interval" in restored.measurements
    assert display.GetSegmentOpacity2DFill(first.ids["LC"]) == pytest.approx(0.7)
    assert not display.GetSegmentVisibility3D(first.ids["Final"])


def test_again_with_more_outputs_adds_hc_and_lc_in_their_place(ct, runs, final_alone, tools):
    volume, points = ct
    runs._segment = final_alone
    stored = runs.run(SegmentationRequest(volume, points[0]))
    node = stored.segmentationNode
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    runs._segment = tools.fake_segment
    again = runs.run(SegmentationRequest(volume, points[0], segmentationNode=node, replace=stored.nodule.key))
    assert again.removed == ()
    assert names(node, tools) == [*(f"Nodule 1 {part}" for part in SEGMENTS), "Nodule 2 Final"]
    assert again.nodule.ids["Final"] == stored.nodule.ids["Final"]
    display = node.GetDisplayNode()
    assert not display.GetSegmentVisibility3D(again.nodule.ids["Final"])
    assert display.GetSegmentOpacity3D(again.nodule.ids["LC"]) == pytest.approx(0.3)
    runs.undo()
    assert names(node, tools) == ["Nodule 1 Final", "Nodule 2 Final"]
    assert display.GetSegmentVisibility3D(stored.nodule.ids["Final"])


def test_a_failure_while_running_again_brings_hc_and_lc_back(ct, runs, final_alone, scene, tools, monkeypatch):
    volume, points = ct
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    (nodule,) = scene_nodules.nodules(node)
    before = tools.snapshot(scene)
    runs._segment = final_alone

    def fails(*_unused):
        raise KeyboardInterrupt

    real, calls = scene_nodules._renew_surface, []
    monkeypatch.setattr(
        scene_nodules, "_renew_surface", lambda *a: (calls.append(a), fails() if len(calls) == 1 else real(*a))
    )
    with pytest.raises(KeyboardInterrupt):
        runs.run(SegmentationRequest(volume, points[0], segmentationNode=node, replace=nodule.key))
    assert tools.snapshot(scene) == before
    assert "interval" in scene_nodules.nodules(node)[0].measurements


def test_the_soft_mask_is_the_only_map(ct, runs, final_alone, scene, caplog):
    volume, points = ct
    runs._segment = final_alone
    stored = runs.run(SegmentationRequest(volume, points[0], maps=tuple(MAP_CHOICES.values())))
    assert [m.GetName() for m in stored.maps] == ["Nodule 1 Soft mask"]
    array = slicer.util.arrayFromVolume(stored.maps[0])
    assert array.dtype == np.float32
    assert array.max() == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert "Nodule 1: the model doesn't have the map LC probability" in caplog.text


def test_tables_leave_out_what_no_nodule_has_and_csv_keeps_its_columns(ct, runs, final_alone, tools):
    volume, points = ct
    runs._segment = final_alone
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    table = scene_outputs.measurement_table(node)
    titles = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    assert not [t for t in titles if "low" in t or "high" in t or "HC" in t or "LC" in t]
    assert {"Volume [mm³]", "Mass [mg]", "Mean density [HU]", "Solid share [%]"} <= set(titles)
    runs._segment = tools.fake_segment
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    assert [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())] == nodule_table.columns()
    low = table.GetTable().GetColumnByName("Volume low [mm³]")
    assert math.isnan(low.GetValue(0))
    assert low.GetValue(1) > 0
    rows = list(csv.DictReader(io.StringIO(nodule_table.as_csv(scene_outputs.table_rows(node)))))
    assert [row["Nodule"] for row in rows] == ["Nodule 1", "Nodule 2"]
    assert (rows[0]["Volume low [mm³]"], rows[0]["LC share [%]"]) == ("", "")
    assert float(rows[0]["Volume [mm³]"]) > 0
    assert float(rows[1]["Volume low [mm³]"]) > 0


def test_the_plot_is_of_final_and_follows_the_nodule(ct, runs, final_alone, tools):
    volume, points = ct
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    runs._segment = final_alone
    runs.run(SegmentationRequest(volume, points[1], segmentationNode=node))
    both, alone = scene_nodules.nodules(node)
    chart = scene_outputs.plot_densities(both)
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    assert scene_outputs.plot_densities(alone) is chart
    assert chart.GetTitle() == "Nodule 2: density of Final"
    (series,) = (chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes()))
    assert series.GetYColumnName() == "Final"
    table = series.GetTableNode()
    assert [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())] == ["HU", "Final"]
    scene_outputs.plot_densities(both)
    assert chart.GetTitle() == "Nodule 1: density of HC and LC"


def test_a_saved_scene_lists_final_alone_again(ct, runs, final_alone, scene, tools, tmp_path):
    volume, points = ct
    runs._segment = final_alone
    node = runs.run(SegmentationRequest(volume, points[0])).segmentationNode
    measured = scene_nodules.nodules(node)[0].measurements
    tools.allow_archives(scene, tmp_path)
    assert scene.WriteToMRB(str(tmp_path / "s.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "s.mrb"), True)
    (found,) = scene_nodules.nodules(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    assert list(found.ids) == ["Final"]
    assert found.measurements == measured
