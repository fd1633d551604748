"""The panel of the module, driven as a person would, on real nodes and widgets that know only what Slicer has."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from LungNoduleKit.errors import NoduleError
from LungNoduleUncertaintyLib.models import store as model_store
from LungNoduleUncertaintyLib.models.metadata import metadata_sha256
from LungNoduleUncertaintyLib.scene import packages as dependencies
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest
from panel_steps import apply, cells, place

MODULE = Path(__file__).resolve().parents[2] / "LungNoduleUncertainty"


def test_apply_is_off_with_a_reason_until_it_can_run(panel):
    ui = panel.ui
    assert ui.volumeSelector.currentNode() is panel.volume  # the only CT is chosen by itself
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Place a point on the nodule.")
    ui.volumeSelector.setCurrentNode(None)
    panel.process_events()
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Select a CT.")
    ui.volumeSelector.setCurrentNode(panel.volume)
    place(panel, "A")
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (True, "Segment the nodule.")
    ui.sourceSelector.setCurrentIndex(1)
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Select a segment of the nodule.")
    ui.sourceSelector.setCurrentIndex(2)
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Draw a line along an axis of the nodule.")
    assert not ui.pointSelector._qt.isVisible()
    assert ui.lineSelector._qt.isVisible()


def test_one_click_starts_placing_a_point(panel):
    ui, scene = panel.ui, panel.scene
    interaction = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert ui.pointSelector.currentNode() is None
    assert ui.placeButton._qt.isVisible()
    panel.click(ui.placeButton)  # with no list of points yet
    node = ui.pointSelector.currentNode()
    assert ui.placeButton.checked
    panel.place_point(node, panel.points["A"])
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert not ui.placeButton.checked
    assert ui.applyButton.enabled
    panel.click(ui.placeButton)
    panel.click(ui.placeButton)  # and back
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    panel.click(ui.placeButton)
    panel.place_point(node, panel.points["B"])
    assert ui.pointSelector.currentNode() is node
    assert node.GetNumberOfControlPoints() == 2
    ui.sourceSelector.setCurrentIndex(2)
    assert not ui.placeButton._qt.isVisible()


def test_three_nodules_make_three_rows_with_their_own_segments(panel, tools):
    node = apply(panel, "A")
    assert panel.ui.statusLabel.text == "Nodule 1 is done."
    for name in "BC":
        assert apply(panel, name) is node
    names = [f"Nodule {n} {part}" for n in (1, 2, 3) for part in ("HC", "LC", "Final")]
    assert list(tools.ids_by_name(node)) == names
    rows = cells(panel)
    assert [row[0] for row in rows] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    volumes = [float(row[1].split()[0]) for row in rows]
    assert volumes == sorted(volumes)
    assert panel.ui.noduleTable.currentRow() == 2
    assert "mm [" in panel.ui.sizeLabel.text
    assert not panel.dialogs.shown
    assert panel.asked[0]["device"] == "auto"
    assert panel.asked[0]["model"] == "ugsnet-compact"


def test_a_nodule_with_warnings_is_marked_and_says_them(panel):
    panel.warnings = ["the nodule reaches the border of the CT: its real size is larger"]
    apply(panel, "A")
    panel.warnings = []
    apply(panel, "B")
    marked, plain = cells(panel)
    assert marked[0] == "Nodule 1"  # the name stays what it is
    assert marked[3].endswith(" \u26a0")
    assert "\u26a0" not in plain[3]
    table = panel.ui.noduleTable
    said = "the nodule reaches the border of the CT: its real size is larger"
    assert [table.item(0, column).toolTip() for column in range(4)] == [said] * 4
    assert [table.item(1, column).toolTip() for column in range(4)] == [""] * 4
    assert said not in panel.ui.sizeLabel.text
    table.selectRow(0)
    assert panel.ui.sizeLabel.text.splitlines()[1:] == [said]


def test_selecting_a_row_moves_the_views_there(panel):
    import slicer

    slice_node = panel.scene.GetNodeByID("vtkMRMLSliceNodeRed") or panel.scene.GetFirstNodeByClass("vtkMRMLSliceNode")
    for name in "AB":
        apply(panel, name)
    assert np.allclose(center_of(slice_node), panel.points["B"], atol=1.0)
    panel.ui.noduleTable.selectRow(0)
    panel.process_events()
    assert np.allclose(center_of(slice_node), panel.points["A"], atol=1.0)
    assert slicer.mrmlScene is panel.scene


def center_of(slice_node):
    matrix = slice_node.GetSliceToRAS()
    return [matrix.GetElement(row, 3) for row in range(3)]


def test_segment_again_replaces_only_its_own_segments(panel, tools):
    node = apply(panel, "A")
    apply(panel, "B")
    segmentation = node.GetSegmentation()
    other = {i: segmentation.GetSegment(i) for i in tools.ids_by_name(node).values()}
    ids = list(other)
    segmentation.GetSegment(ids[2]).SetColor(1, 0, 1)
    before = tools.segment_array(node, ids[2], panel.volume).copy()
    panel.ui.noduleTable.selectRow(0)
    panel.ui.calibratedCheckBox.checked = False
    panel.ui.hcSlider.value = 0.9
    panel.process_events()
    panel.click(panel.ui.rerunButton)
    panel.wait_until(lambda: not panel.widget.logic.runs.busy)
    assert list(tools.ids_by_name(node).values()) == ids
    assert panel.asked[-1]["thresholds"]["intersection"] == pytest.approx(0.9)
    assert np.allclose(panel.asked[-1]["point_lps"], panel.asked[0]["point_lps"], atol=0.01)
    assert segmentation.GetSegment(ids[2]).GetColor() == (1, 0, 1)
    np.testing.assert_array_equal(tools.segment_array(node, ids[2], panel.volume), before)
    assert all(segmentation.GetSegment(i) is other[i] for i in ids)
    assert [row[0] for row in cells(panel)] == ["Nodule 1", "Nodule 2"]


def test_rename_delete_and_undo(panel, tools):
    node = apply(panel, "A")
    apply(panel, "B")
    panel.ui.noduleTable.item(0, 0).setText("Left upper lobe")
    panel.process_events()
    assert list(tools.ids_by_name(node))[:3] == [f"Left upper lobe {part}" for part in ("HC", "LC", "Final")]
    panel.ui.noduleTable.item(1, 0).setText("Left upper lobe")
    panel.process_events()
    assert panel.ui.statusLabel.text == "name 'Left upper lobe': another nodule of the segmentation has it"
    assert [row[0] for row in cells(panel)] == ["Left upper lobe", "Nodule 2"]
    panel.ui.noduleTable.selectRow(0)
    panel.click(panel.ui.deleteButton)
    assert [row[0] for row in cells(panel)] == ["Nodule 2"]
    panel.click(panel.ui.undoButton)
    assert [row[0] for row in cells(panel)] == ["Left upper lobe", "Nodule 2"]
    panel.click(panel.ui.undoButton)
    assert [row[0] for row in cells(panel)] == ["Nodule 1", "Nodule 2"]
    panel.click(panel.ui.undoButton)
    panel.click(panel.ui.undoButton)
    assert cells(panel) == []
    assert node.GetScene() is None  # it was made for the first nodule
    assert not panel.ui.undoButton.enabled


def test_cancel_half_way_leaves_the_scene_as_it_was(panel, tools):
    place(panel, "A")
    before = tools.snapshot(panel.scene)
    panel.gate.clear()
    panel.click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel"
    panel.wait_until(lambda: panel.ui.progressBar.value == 60)
    assert panel.ui.progressBar.format.startswith("outlining")
    assert panel.ui.progressBar._qt.isVisible()
    job = panel.widget.logic.runs.job
    panel.click(panel.ui.applyButton)
    assert (panel.ui.applyButton.text, panel.ui.applyButton.enabled) == ("Apply", True)
    assert job.wait(5)  # it really stops: the gate is still closed
    assert tools.snapshot(panel.scene) == before
    assert panel.ui.statusLabel.text == "Canceled. Nothing was added."
    panel.gate.set()
    assert apply(panel) is not None  # and the next one works


def test_leaving_the_module_while_it_runs_loses_nothing(panel):
    place(panel, "A")
    panel.gate.clear()
    panel.click(panel.ui.applyButton)
    if hasattr(panel.widget, "exit"):
        panel.widget.exit()
    panel.gate.set()
    panel.wait_until(lambda: not panel.widget.logic.runs.busy, timeout=60)
    panel.widget.enter()
    assert [row[0] for row in cells(panel)] == ["Nodule 1"]


def test_a_second_run_while_one_is_running_is_refused(panel):
    place(panel, "A")
    panel.gate.clear()
    panel.click(panel.ui.applyButton)
    with pytest.raises(NoduleError, match="is being segmented: wait for it or cancel it first"):
        panel.widget.logic.runs.start(SegmentationRequest(panel.volume, point=panel.points["B"]))
    panel.gate.set()
    panel.wait_until(lambda: not panel.widget.logic.runs.busy)


@pytest.mark.parametrize("what", ["scene", "volume", "segmentation"])
def test_what_is_closed_or_removed_while_running_gets_nothing(panel, what):
    node = apply(panel, "B")
    place(panel, "A")
    panel.gate.clear()
    panel.click(panel.ui.applyButton)
    job = panel.widget.logic.runs.job
    if what == "scene":
        panel.scene.Clear(0)
    else:
        panel.scene.RemoveNode(panel.volume if what == "volume" else node)
    panel.gate.set()
    assert job.wait(5)
    panel.wait_until(lambda: not panel.widget.logic.runs.busy)
    segmentations = panel.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    assert segmentations == (1 if what == "volume" else 0)
    if what != "scene":
        assert "was removed from the scene meanwhile" in panel.ui.statusLabel.text
    if what == "volume":
        assert len(cells(panel)) == 1


def test_errors_stand_in_the_panel_and_change_nothing(panel, tools):
    node = panel.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Far")
    panel.ui.pointSelector.setCurrentNode(node)
    node.AddControlPointWorld((500, 0, 0))
    panel.process_events()
    before = tools.snapshot(panel.scene)
    panel.click(panel.ui.applyButton)
    assert panel.ui.statusLabel.text == "point (500.0, 0.0, 0.0) mm RAS: it lies outside of volume 'CT'"
    assert tools.snapshot(panel.scene) == before
    assert panel.ui.applyButton.text == "Apply"
    assert not panel.dialogs.shown


def test_nodule_by_segment_and_by_line(panel, tools):
    node = apply(panel, "A")
    ui = panel.ui
    ui.sourceSelector.setCurrentIndex(1)
    ui.segmentSelector.setCurrentNode(node)
    ui.segmentSelector.setCurrentSegmentID(tools.ids_by_name(node)["Nodule 1 HC"])
    panel.process_events()
    apply(panel)
    assert np.allclose(panel.asked[-1]["point_lps"], panel.asked[0]["point_lps"], atol=0.6)
    line = panel.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "RECIST")
    ui.sourceSelector.setCurrentIndex(2)
    ui.lineSelector.setCurrentNode(line)
    panel.process_events()
    assert "place both of its ends" in ui.applyButton.toolTip
    for end in (-3, 3):
        line.AddControlPointWorld(np.add(panel.points["C"], (end, 0, 0)))
    panel.process_events()
    apply(panel)
    r, a, s = panel.points["C"]
    assert np.allclose(panel.asked[-1]["point_lps"], (-r, -a, s), atol=1e-6)


def test_maps_table_plot_text_and_csv_on_demand(panel, tmp_path):
    import slicer

    volumes = panel.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    panel.ui.lcMapCheckBox.checked = True
    panel.ui.confidenceMapCheckBox.checked = True
    apply(panel, "A")
    assert panel.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == volumes + 2
    panel.click(panel.ui.tableButton)
    table = slicer.util.getNode("CT nodule measurements")
    assert table.GetNumberOfRows() == 1
    assert panel.app.applicationLogic().GetSelectionNode().GetActiveTableID() == table.GetID()
    panel.click(panel.ui.plotButton)
    chart = panel.scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetTitle() == "Nodule 1: density of HC and LC"
    panel.click(panel.ui.copyButton)
    import qt

    text = qt.QApplication.clipboard().text()
    assert text.startswith("Nodule 1 (solid)\nVolume ")
    assert text.endswith("For research, not for diagnosis.")
    panel.dialogs.answers["QFileDialog.getSaveFileName"] = str(tmp_path / "n.csv")
    panel.click(panel.ui.csvButton)
    assert (tmp_path / "n.csv").read_text(encoding="utf-8-sig").splitlines()[1].startswith("Nodule 1,")
    apply(panel, "B")
    assert table.GetNumberOfRows() == 2  # kept up to date
    panel.ui.kindSelector.setCurrentIndex(2)
    panel.emit(panel.ui.kindSelector, "activated(int)", 2)
    assert table.GetTable().GetColumnByName("Nodule type").GetValue(1) == "ground-glass"


def test_a_saved_scene_restores_the_panel_and_the_list(panel, tools, tmp_path):
    apply(panel, "A")
    panel.ui.deviceSelector.setCurrentIndex(1)
    panel.ui.calibratedCheckBox.checked = False
    panel.ui.lcSlider.value = 0.31
    panel.process_events()
    rows = cells(panel)
    tools.allow_archives(panel.scene, tmp_path)
    assert panel.scene.WriteToMRB(str(tmp_path / "s.mrb"))
    panel.scene.Clear(0)
    panel.process_events()
    assert cells(panel) == []
    assert panel.ui.volumeSelector.currentNode() is None
    assert panel.scene.ReadFromMRB(str(tmp_path / "s.mrb"), True)
    panel.widget.enter()
    panel.process_events()
    assert panel.ui.volumeSelector.currentNode().GetName() == "CT"
    assert panel.ui.deviceSelector.currentIndex == 1
    assert panel.ui.lcSlider.value == pytest.approx(0.31)
    assert not panel.ui.calibratedCheckBox.checked
    assert cells(panel) == rows


def test_packages_are_asked_for_once_with_one_dialog(panel, monkeypatch):
    place(panel, "A")
    panel.widget.logic._segmentNodule = None
    monkeypatch.setattr(dependencies, "missing", lambda: ["safetensors>=0.4.3"])
    panel.click(panel.ui.applyButton)
    ((kind, arguments),) = panel.dialogs.shown
    assert kind == "confirmOkCancelDisplay"
    assert "safetensors>=0.4.3" in arguments[0]
    assert "weren't installed" in panel.ui.statusLabel.text
    panel.dialogs.shown.clear()


def test_models_are_shown_imported_and_removed(panel, tmp_path, monkeypatch):

    monkeypatch.setenv(model_store.FOLDER_VARIABLE, str(tmp_path / "models"))
    ui = panel.ui
    assert "Apache-2.0" in ui.modelInfoLabel.text or "CC" in ui.modelInfoLabel.text
    assert "Outlines HC, LC, Final" in ui.modelInfoLabel.text
    assert not ui.removeModelButton.enabled
    source = tmp_path / "mine"
    shutil.copytree(model_store.find_bundle(), source)
    outputs = {"segments": [], "probabilities": [], "maps": ["single"]}
    metadata = json.loads((source / "metadata.json").read_text()) | {"name": "mine", "outputs": outputs}
    del metadata["size_calibration"]
    metadata["sha256"] = metadata_sha256(metadata)
    (source / "metadata.json").write_text(json.dumps(metadata))
    panel.dialogs.answers["QFileDialog.getOpenFileName"] = str(source / "metadata.json")
    panel.click(ui.importModelButton)
    assert ui.modelSelector.currentText == "mine"
    assert ui.statusLabel.text == "Model mine was imported."
    place(panel, "A")
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "The model predicts single and no final.")
    assert ui.removeModelButton.enabled
    panel.dialogs.answers["confirmOkCancelDisplay"] = True
    panel.click(ui.removeModelButton)
    assert ui.modelSelector.currentText == "ugsnet-compact"
    assert not (tmp_path / "models" / "mine").exists()
    (source / "model.safetensors").write_bytes(b"broken")
    panel.click(ui.importModelButton)
    assert "corrupted or changed" in ui.statusLabel.text


def test_the_documentations_console_example_runs(panel, repository, monkeypatch):
    import slicer

    text = (repository / "docs/how-to/slicer-console.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    assert "(62.5, -31.0, -120.4)" in example
    line = panel.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L")
    for end in (-3, 3):
        line.AddControlPointWorld(np.add(panel.points["B"], (end, 0, 0)))
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: panel.widget.logic)
    names = {"slicer": slicer}
    exec(example.replace("(62.5, -31.0, -120.4)", repr(tuple(map(float, panel.points["A"])))), names)
    assert [nodule.name for nodule in names["logic"].nodules(names["segmentation"])] == ["Nodule 1"]
    assert names["table"].GetNumberOfRows() == 1  # the example's last line has taken the second nodule back
    assert not panel.dialogs.shown


def test_ui_file_and_code_use_only_what_slicer_has():
    from ui_check import check_ui, parameter_names

    ui = MODULE / "Resources" / "UI" / "LungNoduleUncertainty.ui"
    library = MODULE / "LungNoduleUncertaintyLib"
    names = parameter_names(ui)
    code = (library / "panel" / "parameters.py").read_text()
    assert names
    assert all(f"        {name}: " in code for name in names)
    files = [*sorted((library / "panel").glob("*.py")), *sorted((MODULE / "LungNoduleKit" / "panel").glob("*.py"))]
    assert check_ui(ui, python_files=[MODULE / "LungNoduleUncertainty.py", *files]) == []
