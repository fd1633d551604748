"""The panel of Soft Mask Labeler on stand-ins of Slicer's widgets: choose, preview, edit, apply, cancel, undo."""

import importlib
import threading

import numpy as np
import pytest
import slicer
from PySide6 import QtCore

import ui_check
from SoftMaskLabelerLib.panel.parameters import parameter_class, pipeline_parameters
from SoftMaskLabelerLib.pipeline import soft_mask_volume
from SoftMaskLabelerLib.scene import packages as dependencies

SHAPE = (12, 48, 52)
MIDDLE = np.array([26, 24, 6])
RADIUS = 6.0
SPACING = np.array([0.8, 0.8, 1.5])
MODULE = "SoftMaskLabeler"


class Slow:
    """In place of `soft_mask_volume`: waits at each step until it is let go."""

    def __init__(self):
        self.go, self.steps, self.calls = threading.Event(), threading.Event(), []

    def __call__(self, image, *, parameters, progress, **marks):
        self.calls.append((parameters, marks))
        progress("matting", 0.4)
        self.steps.set()
        while not self.go.wait(0.01):
            progress("matting", 0.4)
        return soft_mask_volume(image, parameters=parameters, progress=progress, **marks)


@pytest.fixture
def inside():
    k, j, i = np.indices(SHAPE)
    return np.linalg.norm((np.stack([i, j, k], -1) - MIDDLE) * SPACING, axis=-1) <= RADIUS


@pytest.fixture
def volume(slicer_gui, tools, inside):
    k, j, i = np.indices(SHAPE)
    distance = np.linalg.norm((np.stack([i, j, k], -1) - MIDDLE) * SPACING, axis=-1)
    values = np.clip((RADIUS - distance) / 3 + 0.5, 0, 1) * 890 - 850
    matrix = np.diag([*SPACING, 1.0])
    return tools.add_volume(slicer_gui.scene, values.astype(np.int16), matrix, "CT")


@pytest.fixture
def segmentation(slicer_gui, volume, inside):
    node = slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Readers")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in (("A", inside), ("B", inside & np.roll(inside, 2, axis=2)), ("Empty", None)):
        node.GetSegmentation().AddEmptySegment(name, f"Reader {name}")
        if mask is not None:
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, name, volume)
    return node


@pytest.fixture
def widget(slicer_gui, repository, segmentation):
    return slicer_gui.module_widget(repository / MODULE / f"{MODULE}.py")


@pytest.fixture
def slow(widget):
    slow = Slow()
    widget.logic.runs._soft_mask = slow
    yield slow
    slow.go.set()


def choose_lines(widget, lines):
    widget.ui.sourceSelector.setCurrentIndex(1)
    widget.ui.longSelector.setCurrentNode(lines[0])
    widget.ui.shortSelector.setCurrentNode(lines[1])


def check_segments(slicer_gui, widget, segmentation, *names):
    """What a person does: choose the segmentation, check its segments' boxes."""
    widget.ui.markedSegmentationSelector.setCurrentNode(segmentation)
    for item in items(widget):
        item.setCheckState(QtCore.Qt.CheckState.Checked if item.text() in names else QtCore.Qt.CheckState.Unchecked)
    slicer_gui.process_events()


def items(widget):
    return [widget.ui.segmentList.item(row) for row in range(widget.ui.segmentList.count)]


def add_lines(slicer_gui, offset=0.0):
    lines = []
    center = MIDDLE * SPACING
    for name, reach in (("Long", [RADIUS, 0, 0]), ("Short", [0, RADIUS - 0.5, 0])):
        line = slicer_gui.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
        for sign in (-1, 1):
            line.AddControlPoint(center + sign * np.array(reach) + [0, 0, offset])
        lines.append(line)
    return lines


def finish(slicer_gui, widget):
    slicer_gui.wait_until(lambda: not widget.logic.runs.busy)


def preview_settled(slicer_gui, widget):
    slicer_gui.wait_until(lambda: not widget.panel.preview.busy)
    return widget.panel.preview.node


def shown_layers(slicer_gui):
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [(view.GetLabelVolumeID(), view.GetLabelOpacity()) for view in views]


def test_ui_file_fits_slicer_and_the_code(slicer_gui, repository):
    module = repository / MODULE
    files = [module / f"{MODULE}.py", *sorted((module / f"{MODULE}Lib" / "panel").glob("*.py"))]
    ui = module / "Resources" / "UI" / f"{MODULE}.ui"
    assert ui_check.check_ui(ui, python_files=files, parameters=parameter_class().allParameters) == []


def test_apply_says_what_is_missing(slicer_gui, widget, volume, segmentation):
    ui = widget.ui
    assert ui.volumeSelector.currentNode() is volume
    assert not ui.applyButton.enabled
    assert "Check the lesion's segment" in ui.applyButton.toolTip
    assert not ui.editButton.enabled
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    assert ui.applyButton.enabled
    assert ui.strategyLabel.text.startswith("One mask")
    check_segments(slicer_gui, widget, segmentation, "Reader A", "Reader B")
    assert ui.strategyLabel.text.startswith("2 readers")
    ui.windowLowSpinBox.value = 500.0
    assert not ui.applyButton.enabled
    assert "window" in ui.applyButton.toolTip
    ui.windowLowSpinBox.value = -1000.0
    ui.trimapSelector.setCurrentNode(segmentation)
    assert "'Readers': it has no segment named Lesion" in ui.applyButton.toolTip
    ui.trimapSelector.setCurrentNode(None)
    ui.sourceSelector.setCurrentIndex(1)
    assert "two lines" in ui.applyButton.toolTip
    assert ui.longSelector.visible
    assert not ui.segmentList.visible
    line = slicer_gui.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Half")
    line.AddControlPoint(MIDDLE * SPACING)
    ui.longSelector.setCurrentNode(line)
    ui.shortSelector.setCurrentNode(add_lines(slicer_gui)[1])
    assert "'Half': place both of its ends" in ui.applyButton.toolTip
    line.AddControlPoint(MIDDLE * SPACING + [5, 0, 0])
    assert ui.applyButton.enabled  # as soon as the point is placed
    slicer_gui.scene.RemoveNode(volume)
    assert ui.applyButton.toolTip == "Select an image."
    assert not slicer_gui.dialogs.shown


def test_list_follows_the_segmentation(slicer_gui, widget, segmentation):
    check_segments(slicer_gui, widget, segmentation, "Reader B")
    segmentation.GetSegmentation().GetSegment("B").SetName("Reader B again")
    segmentation.GetSegmentation().RemoveSegment("A")
    slicer_gui.process_events()
    assert [item.text() for item in items(widget)] == ["Reader B again", "Reader Empty"]
    assert widget.ui.applyButton.enabled
    segmentation.GetSegmentation().RemoveSegment("B")
    assert not widget.ui.applyButton.enabled


def test_apply_with_the_real_pipeline(slicer_gui, widget, volume, segmentation, inside):
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    slicer_gui.click(widget.ui.applyButton)
    finish(slicer_gui, widget)
    assert widget.ui.statusLabel.text.startswith("CT soft mask is done."), widget.ui.statusLabel.text
    (soft,) = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n is not volume]
    assert slicer.util.arrayFromVolume(soft).dtype == np.float32
    created = widget.ui.segmentationSelector.currentNode()
    assert created.GetSegmentation().GetNumberOfSegments() == 1
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert red.GetForegroundVolumeID() == soft.GetID()
    slicer_gui.click(widget.ui.applyButton)  # again: into the same segmentation
    finish(slicer_gui, widget)
    assert created.GetSegmentation().GetNumberOfSegments() == 2
    slicer_gui.click(widget.ui.undoButton)
    slicer_gui.click(widget.ui.undoButton)
    assert not widget.ui.undoButton.enabled
    assert soft.GetScene() is None
    assert created.GetScene() is None
    assert widget.ui.segmentationSelector.currentNode() is None
    assert not slicer_gui.dialogs.shown


def test_apply_with_recist_lines(slicer_gui, widget, volume):
    choose_lines(widget, add_lines(slicer_gui))
    assert widget.ui.longPlaceWidget.currentNode() is widget.ui.longSelector.currentNode()
    slicer_gui.click(widget.ui.applyButton)
    finish(slicer_gui, widget)
    soft = widget.ui.statusLabel.text.splitlines()[0].removesuffix(" is done.")
    array = slicer.util.arrayFromVolume(slicer.util.getNode(soft))
    assert (array.max(axis=(1, 2)) > 0).sum() == 1  # one slice
    assert not slicer_gui.dialogs.shown


def test_opencv_is_asked_for_once_and_an_ellipse_does_without(slicer_gui, widget, monkeypatch):
    monkeypatch.setattr(dependencies, "missing", lambda: ["opencv-python-headless>=4.8"])
    choose_lines(widget, add_lines(slicer_gui))
    slicer_gui.click(widget.ui.applyButton)
    finish(slicer_gui, widget)
    assert [kind for kind, _ in slicer_gui.dialogs.shown] == ["confirmOkCancelDisplay"]
    assert "is done" in widget.ui.statusLabel.text


def test_progress_and_what_the_pipeline_is_asked(slicer_gui, widget, slow, segmentation, tools):
    ui = widget.ui
    check_segments(slicer_gui, widget, segmentation, "Reader A", "Reader B")
    assert not ui.erosionSlider.enabled
    ui.automaticCheckBox.checked = False
    assert ui.erosionSlider.enabled
    ui.erosionSlider.value, ui.dilationSlider.value = 0.5, 1.5
    ui.dimensionSelector.setCurrentIndex(1)
    ui.windowHighSpinBox.value = 300.0
    ui.epsilonSpinBox.value = -6.0
    slicer_gui.click(ui.applyButton)
    slicer_gui.wait_until(slow.steps.is_set)
    slicer_gui.wait_until(lambda: ui.progressBar.value == 40)
    assert ui.progressBar.visible
    assert "matting" in ui.progressBar.format
    assert ui.applyButton.text == "Cancel"
    slow.go.set()
    finish(slicer_gui, widget)
    assert ui.applyButton.text == "Apply"
    assert not ui.progressBar.visible
    ((parameters, marks),) = slow.calls
    assert (parameters.erode_mm, parameters.dilate_mm, parameters.dimension) == (0.5, 1.5, 3)
    assert (*parameters.window, parameters.epsilon) == pytest.approx((-1000, 300, 1e-6))
    assert len(marks["masks"]) == 2
    assert marks["trimap"] is None


def test_cancel_adds_nothing(slicer_gui, widget, slow, segmentation, tools):
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    before = tools.snapshot(slicer_gui.scene)
    slicer_gui.click(widget.ui.applyButton)
    slicer_gui.wait_until(slow.steps.is_set)
    job = widget.logic.runs.job
    slicer_gui.click(widget.ui.applyButton)
    assert widget.ui.statusLabel.text == "Canceled. Nothing was added."
    assert widget.ui.applyButton.text == "Apply"
    slicer_gui.wait_until(lambda: job.finished)
    slicer_gui.process_events()
    assert tools.snapshot(slicer_gui.scene) == before


def test_what_fails_stands_in_the_panel(slicer_gui, widget, segmentation, tools):
    check_segments(slicer_gui, widget, segmentation, "Reader Empty")
    before = tools.snapshot(slicer_gui.scene)
    slicer_gui.click(widget.ui.applyButton)
    assert "'Reader Empty' of 'Readers': it" in widget.ui.statusLabel.text

    def broken(*arguments, **more):
        raise ZeroDivisionError("oh")

    widget.logic.runs._soft_mask = broken
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    slicer_gui.click(widget.ui.applyButton)
    finish(slicer_gui, widget)
    assert widget.ui.statusLabel.text == "Failed: oh"
    assert tools.snapshot(slicer_gui.scene) == before
    assert not slicer_gui.dialogs.shown


def test_scene_closed_while_running(slicer_gui, widget, slow, segmentation):
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    slicer_gui.click(widget.ui.applyButton)
    slicer_gui.wait_until(slow.steps.is_set)
    job = widget.logic.runs.job
    slicer_gui.scene.Clear(0)
    assert "scene was closed" in widget.ui.statusLabel.text
    slow.go.set()
    slicer_gui.wait_until(lambda: job.finished)
    slicer_gui.process_events()
    assert not slicer.util.getNodesByClass("vtkMRMLVolumeNode")
    assert widget.ui.applyButton.text == "Apply"


def test_preview_comes_follows_and_goes(slicer_gui, widget, volume, segmentation, tools, inside):
    before, layers = tools.snapshot(slicer_gui.scene), shown_layers(slicer_gui)
    widget.ui.previewCheckBox.checked = True  # with nothing chosen yet
    assert preview_settled(slicer_gui, widget) is None
    assert "Check the lesion's segment" in widget.ui.statusLabel.text
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    node = preview_settled(slicer_gui, widget)
    assert all(layer[0] == node.GetID() for layer in shown_layers(slicer_gui))
    labels = slicer.util.arrayFromVolume(node)
    assert set(np.unique(labels)) == {0, 1, 2}
    certain = (labels == 2).sum()
    widget.ui.automaticCheckBox.checked = False
    for value in (2.0, 2.5, 3.0):  # dragged: computed once it rests
        widget.ui.erosionSlider.value = value
    assert preview_settled(slicer_gui, widget) is node
    assert (slicer.util.arrayFromVolume(node) == 2).sum() < certain
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.roll(inside, 6, axis=1).astype(np.uint8), segmentation, "A", volume
    )
    origin = node.GetOrigin()
    preview_settled(slicer_gui, widget)
    assert node.GetOrigin() != origin
    check_segments(slicer_gui, widget, segmentation)
    assert preview_settled(slicer_gui, widget) is None
    check_segments(slicer_gui, widget, segmentation, "Reader B")
    assert preview_settled(slicer_gui, widget) is not None
    widget.ui.previewCheckBox.checked = False
    assert shown_layers(slicer_gui) == layers
    after = tools.snapshot(slicer_gui.scene)
    assert [n for n in after[0] if n not in before[0] and "LabelMapVolumeDisplay" not in n[0]] == []


def test_preview_follows_lines_and_goes_with_the_scene(slicer_gui, widget):
    long, short = add_lines(slicer_gui)
    choose_lines(widget, (long, short))
    widget.ui.previewCheckBox.checked = True
    node = preview_settled(slicer_gui, widget)
    size = (slicer.util.arrayFromVolume(node) > 0).sum()
    for line in (long, short):
        line.SetNthControlPointPosition(1, MIDDLE * SPACING)
    preview_settled(slicer_gui, widget)
    assert (slicer.util.arrayFromVolume(node) > 0).sum() < size
    slicer_gui.scene.Clear(0)
    assert not widget.ui.previewCheckBox.checked
    assert not slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")


def test_leaving_the_module_takes_the_preview_away(slicer_gui, widget, segmentation):
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    widget.ui.previewCheckBox.checked = True
    node = preview_settled(slicer_gui, widget)
    widget.exit()
    assert node.GetScene() is None
    widget.enter()
    assert [item.text() for item in items(widget) if item.checkState() == QtCore.Qt.CheckState.Checked] == ["Reader A"]
    assert widget.ui.applyButton.enabled


def test_edited_trimap_is_used(slicer_gui, widget, slow, volume, segmentation):
    slow.go.set()
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    widget.ui.previewCheckBox.checked = True
    preview_settled(slicer_gui, widget)
    slicer_gui.click(widget.ui.editButton)
    assert slicer_gui.selected == ["SegmentEditor"]
    slicer_gui.enter(widget)
    node = widget.ui.trimapSelector.currentNode()
    assert node.GetName() == "CT trimap"
    assert widget.panel.preview.node is None  # the segments are shown by themselves
    assert not widget.ui.automaticCheckBox.enabled
    assert "edited trimap" in widget.ui.strategyLabel.text
    slicer_gui.click(widget.ui.applyButton)
    finish(slicer_gui, widget)
    assert slow.calls[0][1]["masks"] is None
    assert slow.calls[0][1]["trimap"] is not None
    slicer_gui.click(widget.ui.editButton)  # the same one again
    slicer_gui.enter(widget)
    assert widget.ui.trimapSelector.currentNode() is node
    slicer_gui.click(widget.ui.undoButton)
    slicer_gui.click(widget.ui.undoButton)
    assert node.GetScene() is None
    assert widget.ui.trimapSelector.currentNode() is None
    assert widget.ui.strategyLabel.text.startswith("One mask")


def test_choices_are_kept_in_the_scene(slicer_gui, widget, segmentation):
    check_segments(slicer_gui, widget, segmentation, "Reader B")
    widget.ui.dimensionSelector.setCurrentIndex(1)
    widget.ui.radiusSpinBox.value = 2
    again = widget.logic.getParameterNode()
    assert list(again.markedSegments) == ["B"]
    assert pipeline_parameters(again)["dimension"] == 3
    assert pipeline_parameters(again)["radius"] == 2


def test_console_call_is_the_same_logic(slicer_gui, widget, volume, segmentation):
    logic = slicer.util.getModuleLogic(MODULE)
    node = logic.softMask(volume, segments=[(segmentation, "A")], dilate_mm=1.0)
    assert node.IsA("vtkMRMLScalarVolumeNode")
    errors = importlib.import_module("SoftMaskLabelerLib.errors")
    with pytest.raises(errors.RecistError):
        logic.softMask(volume, lines=(None, None))
    assert not slicer_gui.dialogs.shown


@pytest.mark.parametrize("width", [320, 420, 600])
def test_panel_fits_its_width(slicer_gui, widget, segmentation, tmp_path, width):
    check_segments(slicer_gui, widget, segmentation, "Reader A")
    assert slicer_gui.render(widget.parent, tmp_path / "panel.png", width)[0] <= width
