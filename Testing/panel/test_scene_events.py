"""Both panels follow the scene: nodes that go, scenes that are closed or read, and what Slicer's log says of it."""

import gc
import types

import numpy as np
import pytest
import slicer

from LungNoduleUncertaintyLib.panel.list import NoduleList
from panel_steps import apply, cells, place


def add_segmentation(g, name):
    node = g.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def soft(slicer_gui, repository, tools):
    """The soft mask panel with a CT, a reader's segment, and another segmentation."""
    g = slicer_gui
    matrix = np.diag([0.8, 0.8, 1.5, 1.0])
    g.volume, centers = tools.add_balls(g.scene, matrix, [(26, 24, 6)], shape=(12, 48, 52))
    g.readers = add_segmentation(g, "Readers")
    g.readers.SetReferenceImageGeometryParameterFromVolumeNode(g.volume)
    g.readers.GetSegmentation().AddEmptySegment("A", "Reader A")
    mask = tools.ball((12, 48, 52), matrix, centers[0], 4.0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), g.readers, "A", g.volume)
    slicer.util.setSliceViewerLayers(background=g.volume)
    g.widget = g.module_widget(repository / "SoftMaskLabeler" / "SoftMaskLabeler.py")
    g.ui = g.widget.ui
    g.ui.markedSegmentationSelector.setCurrentNode(g.readers)
    item = g.ui.segmentList.item(0)
    item.setCheckState(type(item.checkState()).Checked)
    g.process_events()
    return g


def run(g):
    g.click(g.ui.applyButton)
    g.wait_until(lambda: not g.widget.logic.runs.busy, timeout=60)
    g.process_events()


def views(g):
    nodes = [g.layoutManager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("Red", "Yellow", "Green")]
    return [
        (n.GetBackgroundVolumeID(), n.GetForegroundVolumeID(), n.GetForegroundOpacity(), n.GetLabelVolumeID())
        for n in nodes
    ]


def test_after_undo_of_the_first_nodule_the_next_makes_a_new_segmentation(panel):
    other = add_segmentation(panel, "Somebody's")
    other.GetSegmentation().AddEmptySegment("lobe", "Lobe")
    apply(panel, "A")
    last = add_segmentation(panel, "Last")
    panel.click(panel.ui.undoButton)
    assert panel.ui.segmentationSelector.currentNode() is None
    assert panel.widget.logic.getParameterNode().segmentation is None
    assert not panel.ui.undoButton.enabled
    created = apply(panel)
    assert created not in (None, other, last)
    assert list(other.GetSegmentation().GetSegmentIDs()) == ["lobe"]
    assert last.GetSegmentation().GetNumberOfSegments() == 0


def test_after_undo_of_the_first_soft_mask_the_input_is_not_written_into(soft):
    before, layers = soft.readers.GetSegmentation().GetSegmentIDs(), views(soft)
    run(soft)
    assert views(soft) != layers
    run(soft)
    soft.click(soft.ui.undoButton)
    soft.click(soft.ui.undoButton)
    assert soft.ui.segmentationSelector.currentNode() is None
    assert views(soft) == layers  # the CT isn't left as foreground at 50 %
    run(soft)
    assert soft.ui.segmentationSelector.currentNode() is not soft.readers
    assert soft.readers.GetSegmentation().GetSegmentIDs() == before


@pytest.mark.parametrize("first", [0, 1])
def test_views_are_as_before_whichever_soft_mask_is_deleted_first(soft, first):
    layers, known = views(soft), set(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    run(soft)
    run(soft)
    masks = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n not in known]
    for node in (masks[first], masks[1 - first]):
        soft.scene.RemoveNode(node)
    assert views(soft) == layers


def test_a_view_that_was_changed_meanwhile_stays(soft, tools):
    run(soft)
    other = tools.add_volume(soft.scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "Other")
    red = soft.layoutManager.sliceWidget("Red").mrmlSliceCompositeNode()
    red.SetForegroundVolumeID(other.GetID())
    soft.click(soft.ui.undoButton)
    assert (red.GetForegroundVolumeID(), red.GetForegroundOpacity()) == (other.GetID(), 0.5)


def test_what_is_deleted_elsewhere_is_chosen_no_longer(panel, tools):
    ui, scene = panel.ui, panel.scene
    place(panel, "A")
    tools.add_volume(scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "Another CT")
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Other points")
    points.AddControlPointWorld(panel.points["B"])
    lines = [scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name) for name in "LM"]
    segmentations = [add_segmentation(panel, name) for name in "ST"]
    ui.lineSelector.setCurrentNode(lines[0])
    ui.segmentSelector.setCurrentNode(segmentations[0])
    ui.segmentationSelector.setCurrentNode(segmentations[0])
    for node in (ui.pointSelector.currentNode(), lines[0], segmentations[0], panel.volume):
        scene.RemoveNode(node)
    panel.process_events()
    parameters = panel.widget.logic.getParameterNode()
    for name in ("volume", "points", "line", "markedSegmentation", "segmentation"):
        assert parameters.getValue(name) is None, name
    for selector in (ui.pointSelector, ui.lineSelector, ui.segmentSelector, ui.segmentationSelector, ui.volumeSelector):
        assert selector.currentNode() is None
    assert ui.applyButton.toolTip == "Select a CT."
    interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() != interaction.Place


def test_the_segmentation_that_is_gone_leaves_nothing_to_undo(panel):
    node = apply(panel, "A")
    assert panel.ui.undoButton.enabled
    panel.scene.RemoveNode(node)
    panel.process_events()
    assert cells(panel) == []
    assert not panel.ui.undoButton.enabled


def saved(g, tools, tmp_path):
    tools.allow_archives(g.scene, tmp_path)
    assert g.scene.WriteToMRB(str(tmp_path / "s.mrb"))
    return str(tmp_path / "s.mrb")


@pytest.mark.parametrize("clear", [True, False], ids=["loaded", "added"])
def test_a_scene_that_is_read_while_the_panel_is_open(panel, tools, tmp_path, monkeypatch, clear):
    apply(panel, "A")
    rows = cells(panel)
    path = saved(panel, tools, tmp_path)
    panel.scene.Clear(0)
    panel.process_events()
    assert panel.ui.statusLabel.text == ""
    assert not panel.ui.undoButton.enabled
    count, refresh = [], NoduleList.refresh
    monkeypatch.setattr(NoduleList, "refresh", lambda self, *more: (count.append(1), refresh(self, *more)))
    assert panel.scene.ReadFromMRB(path, clear)
    panel.process_events()
    assert panel.ui.volumeSelector.currentNode().GetName() == "CT"
    assert panel.ui.pointSelector.currentNode().GetName() == "Points"
    assert cells(panel) == rows
    assert panel.ui.applyButton.enabled, panel.ui.applyButton.toolTip
    assert len(count) < 8  # and not once for each of the many events
    node = panel.ui.segmentationSelector.currentNode()
    assert apply(panel, "B") is node
    assert [row[0] for row in cells(panel)] == ["Nodule 1", "Nodule 2"]


def test_a_ct_that_is_loaded_while_the_panel_is_open(slicer_gui, repository, tools):
    widget = slicer_gui.module_widget(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
    assert widget.ui.applyButton.toolTip == "Select a CT."
    scene = slicer_gui.scene
    scene.StartState(scene.ImportState)
    label = tools.add_volume(scene, np.ones((4, 5, 6), np.uint8), np.eye(4), "Mask", "vtkMRMLLabelMapVolumeNode")
    ct = tools.add_volume(scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "CT")
    scene.EndState(scene.ImportState)
    slicer_gui.process_events()
    assert label.GetScene() is scene
    assert widget.ui.volumeSelector.currentNode() is ct


def test_a_scene_that_is_read_while_a_run_goes_on(panel, tools, tmp_path):
    place(panel, "A")
    panel.gate.clear()
    panel.click(panel.ui.applyButton)
    job = panel.widget.logic.runs.job
    scene = panel.scene
    scene.StartState(scene.ImportState)
    tools.add_volume(scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "Read")
    panel.gate.set()
    assert job.wait(30)
    panel.widget.panel._poll()  # a progress dialog lets timers run
    assert panel.widget.logic.runs.busy
    scene.EndState(scene.ImportState)
    panel.wait_until(lambda: not panel.widget.logic.runs.busy)
    assert [row[0] for row in cells(panel)] == ["Nodule 1"]
    assert panel.ui.volumeSelector.currentNode() is panel.volume


def test_a_closed_scene_is_let_go_of(panel):
    """A segmentation that something of the panel kept would make Slicer complain when its display node goes."""
    apply(panel, "A")
    apply(panel, "B")
    panel.ui.sourceSelector.setCurrentIndex(1)
    panel.ui.segmentSelector.setCurrentNode(panel.ui.segmentationSelector.currentNode())
    panel.process_events()
    close_and_look(panel)


def test_a_scene_that_is_closed_after_edit_trimap_is_let_go_of(soft):
    soft.readers = None
    run(soft)
    soft.click(soft.ui.editButton)
    assert soft.selected == ["SegmentEditor"]
    soft.enter(soft.widget)
    close_and_look(soft)


def close_and_look(g):
    """Closes the scene: none of its segmentations may be kept by anything but what the stand-ins note for tests."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert nodes
    g.scene.Clear(0)
    g.process_events()
    g.forget_calls()
    gc.collect()
    for node in nodes:
        keepers = [k for k in gc.get_referrers(node) if k is not nodes and not isinstance(k, types.FrameType)]
        assert keepers == []
    assert g.subject_hierarchy.complaints == []
