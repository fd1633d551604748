"""The panel with a model that has Final and a soft mask alone: what it shows and lists."""

import dataclasses
import os
from pathlib import Path

import pytest
import SimpleITK as sitk

from LungNoduleKit.records import read_record
from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.measuring.measurements import measure
from LungNoduleUncertaintyLib.models import store as model_store
from LungNoduleUncertaintyLib.models.bundle import write_bundle
from LungNoduleUncertaintyLib.models.metadata import BundleMetadata
from panel_steps import apply, cells


@pytest.fixture
def soft_panel(panel, tools, tmp_path, monkeypatch):
    """The panel with a second model, a small DSNet with Final and a soft mask; the stand-in answers alike."""

    import torch

    monkeypatch.setenv(model_store.FOLDER_VARIABLE, str(tmp_path / "models"))
    torch.manual_seed(0)
    network = networks.create("dsnet", in_channels=3, width=4, levels=2, detail="none")
    metadata = {
        "name": "soft",
        "version": "1.0",
        "description": "DSNet for lung nodules: one soft mask; Final is where it reaches 0.5.",
        "license": "Apache-2.0",
        "network": {"name": "dsnet", "in_channels": 3, "width": 4, "levels": 2, "detail": "none"},
        "input": {"slice_offsets": [-1, 0, 1], "position": False, "window_hu": [-1000, 300], "spacing_mm": None},
        "outputs": {"segments": ["Final"], "probabilities": ["soft"], "maps": ["final", "soft"]},
        "thresholds": {"final": 0.5},
    }
    write_bundle(
        tmp_path / "models" / "soft", [network.state_dict()], read_record(BundleMetadata, metadata, "soft"), "# soft"
    )
    three = panel.widget.logic.runs._segment

    def segment(ct, point_lps, model=None, **more):
        result = three(ct, point_lps, model=model, **more)
        if model != "soft":
            return result
        measured = measure(sitk.Resample(ct, result.final), None, None, result.final)
        gone = dict.fromkeys(("hc", "lc", "probability_union", "probability_intersection"))
        return dataclasses.replace(result, **gone, measurements=measured, final_map="soft")

    panel.widget.logic.runs._segment = segment
    panel.widget.panel.models.fill()
    return panel


def choose_model(g, name):
    g.ui.modelSelector.setCurrentIndex(g.ui.modelSelector.findText(name))
    g.process_events()


def of_intervals(ui):
    return (ui.hcSlider, ui.hcSliderLabel, ui.lcSlider, ui.lcSliderLabel, ui.lcMapCheckBox, ui.confidenceMapCheckBox)


def test_only_what_the_model_gives_is_shown(soft_panel):
    ui = soft_panel.ui
    ui.advancedButton.collapsed = False
    assert not any(w._qt.isHidden() for w in of_intervals(ui))
    ui.lcMapCheckBox.checked = True  # remembered, but not asked of a model that doesn't have it
    ui.finalMapCheckBox.checked = True
    choose_model(soft_panel, "soft")
    assert ui.modelInfoLabel.text.endswith("Outlines Final, with a soft mask, without HC, LC and intervals.")
    assert all(w._qt.isHidden() for w in of_intervals(ui))
    assert not ui.finalSlider._qt.isHidden()
    assert ui.finalMapCheckBox.text == "Soft mask as volume"
    ui.calibratedCheckBox.checked = False
    ui.finalSlider.value = 0.4
    soft_panel.process_events()
    apply(soft_panel, "A")
    assert soft_panel.asked[-1]["thresholds"] == {"final": pytest.approx(0.4)}
    volumes = [soft_panel.scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode").GetName() for n in range(2)]
    assert volumes == ["CT", "Nodule 1 Soft mask"]
    choose_model(soft_panel, "ugsnet-compact")
    assert not any(w._qt.isHidden() for w in of_intervals(ui))
    assert ui.lcMapCheckBox.checked
    assert ui.finalMapCheckBox.text == "Final probability as volume"
    assert ui.modelInfoLabel.text.endswith("Outlines HC, LC, Final.")
    apply(soft_panel, "B")
    assert soft_panel.asked[-1]["thresholds"].keys() == {"intersection", "final", "union"}
    ui.advancedButton.collapsed = True
    choose_model(soft_panel, "soft")
    ui.advancedButton.collapsed = False  # chosen while the choices weren't to be seen
    assert all(w._qt.isHidden() for w in of_intervals(ui))


def test_a_nodule_of_final_alone_in_the_list_its_text_plot_and_csv(soft_panel, tools, tmp_path):
    import qt

    choose_model(soft_panel, "soft")
    node = apply(soft_panel, "A")
    assert list(tools.ids_by_name(node)) == ["Nodule 1 Final"]
    ((name, volume, axis, size),) = cells(soft_panel)
    assert (name, volume.split()[1:], axis.split()[1:]) == ("Nodule 1", ["[–]"], ["[–]"])
    assert size in ("2", "3", "4A")
    assert soft_panel.ui.sizeLabel.text == f"{axis.split()[0]} mm: Lung-RADS size class {size}"
    soft_panel.click(soft_panel.ui.plotButton)
    chart = soft_panel.scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetTitle() == "Nodule 1: density of Final"
    soft_panel.click(soft_panel.ui.copyButton)
    assert "no interval" in qt.QApplication.clipboard().text()
    soft_panel.dialogs.answers["QFileDialog.getSaveFileName"] = str(tmp_path / "n.csv")
    soft_panel.click(soft_panel.ui.csvButton)
    assert (tmp_path / "n.csv").read_text(encoding="utf-8-sig").splitlines()[1].split(",")[2:4] == ["", ""]
    soft_panel.click(soft_panel.ui.tableButton)


def test_segmenting_again_with_a_model_that_gives_less(soft_panel, tools):
    node = apply(soft_panel, "A")
    apply(soft_panel, "B")
    names = list(tools.ids_by_name(node))
    soft_panel.ui.noduleTable.selectRow(0)
    choose_model(soft_panel, "soft")
    soft_panel.click(soft_panel.ui.rerunButton)
    soft_panel.wait_until(lambda: not soft_panel.widget.logic.runs.busy)
    assert list(tools.ids_by_name(node)) == names[2:]
    assert [row[1].endswith("[–]") for row in cells(soft_panel)] == [True, False]
    assert "HC, LC of the run before were removed" in soft_panel.ui.statusLabel.text
    soft_panel.click(soft_panel.ui.undoButton)
    assert list(tools.ids_by_name(node)) == names
    assert not any(row[1].endswith("[–]") for row in cells(soft_panel))


def test_the_panel_of_a_model_of_final_alone_fits(soft_panel, tmp_path):
    apply(soft_panel, "B")
    choose_model(soft_panel, "soft")
    apply(soft_panel, "A")
    soft_panel.ui.advancedButton.collapsed = False
    folder = Path(os.environ.get("PANEL_PICTURES") or tmp_path)
    for width in (360, 420):
        drawn, _ = soft_panel.render(soft_panel.widget.parent, folder / f"panel-final-{width}.png", width)
        assert drawn <= max(width, 420)
