"""Numbers that are out of date in the panel: marked at once, measured again with a click or before they are written."""

import numpy as np
import pytest
import slicer
from scipy import ndimage

from LungNoduleUncertaintyLib.scene import nodules as scene_nodules
from panel_steps import apply, cells


@pytest.fixture
def edited(panel, tools):
    """Two nodules in the list; Final of the first was eroded in the Segment Editor."""
    panel.node = apply(panel, "A")
    apply(panel, "B")
    panel.click(panel.ui.tableButton)
    panel.before = cells(panel)
    erode(panel, tools)
    return panel


def erode(g, tools):
    final = scene_nodules.nodules(g.node)[0].ids["Final"]
    mask = ndimage.binary_erosion(tools.segment_array(g.node, final, g.volume))
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), g.node, final, g.volume)
    g.process_events()
    g.true = mask.sum() * np.prod(g.volume.GetSpacing())


def table_cell(g, title, row=0):
    return g.scene.GetFirstNodeByClass("vtkMRMLTableNode").GetTable().GetColumnByName(title).GetValue(row)


def test_an_edit_is_marked_at_once_and_measured_with_one_click(edited):
    ui = edited.ui
    assert cells(edited) == [["Nodule 1", "out of date", "", ""], edited.before[1]]
    assert ui.noduleTable.item(0, 1).toolTip() == "Out of date: Final was edited."
    ui.noduleTable.selectRow(0)
    edited.process_events()
    assert ui.sizeLabel.text == "Out of date: Final was edited."
    assert np.isnan(table_cell(edited, "Volume [mm³]"))
    assert table_cell(edited, "Warnings") == "out of date: Final was edited"
    assert ui.measureButton._qt.isVisible()
    edited.click(ui.measureButton)
    assert float(cells(edited)[0][1].split()[0]) == pytest.approx(edited.true, abs=0.51)
    assert table_cell(edited, "Volume [mm³]") == pytest.approx(edited.true, abs=0.51)
    assert not ui.measureButton._qt.isVisible()
    assert ui.noduleTable.currentRow() == 0


@pytest.mark.parametrize("button", ["tableButton", "plotButton", "copyButton", "csvButton"])
def test_it_is_measured_again_before_it_is_written(edited, tmp_path, button):
    import qt

    edited.dialogs.answers["QFileDialog.getSaveFileName"] = str(tmp_path / "n.csv")
    edited.ui.noduleTable.selectRow(0)
    edited.click(getattr(edited.ui, button))
    assert float(cells(edited)[0][1].split()[0]) == pytest.approx(edited.true, abs=0.51)
    if button == "csvButton":
        assert float((tmp_path / "n.csv").read_text("utf-8-sig").splitlines()[1].split(",")[1]) == round(edited.true)
    if button == "copyButton":
        assert qt.QApplication.clipboard().text().splitlines()[1].startswith(f"Volume {edited.true:.0f}")


def test_a_transform_and_another_ct_are_marked_at_once(panel, tools):
    node = apply(panel, "A")
    before = cells(panel)
    parent = panel.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(parent.GetID())
    assert cells(panel) == before
    parent.SetMatrixTransformToParent(tools.matrix_of(np.diag([1.3, 1.3, 1.3, 1.0])))
    assert cells(panel)[0][1] == "out of date"
    node.SetAndObserveTransformNodeID(None)
    assert cells(panel) == before
    slicer.util.arrayFromVolume(panel.volume)[...] += 50
    slicer.util.arrayFromVolumeModified(panel.volume)
    assert cells(panel)[0][1] == "out of date"


def test_what_cannot_be_measured_says_why(edited):
    edited.scene.RemoveNode(edited.volume)
    edited.process_events()
    edited.click(edited.ui.measureButton)
    assert edited.ui.statusLabel.text == "Nodule 1: the CT that it was measured on isn't in the scene"
    assert cells(edited)[0] == ["Nodule 1", "out of date", "", ""]
