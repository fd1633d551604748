"""The sample of the module: registered at the start of Slicer, loaded with a click, shown, and taken by the panel."""

import numpy as np
import pytest
import slicer

import sample_data
from panel_steps import apply, cells

NAME = "LungNodulePhantom"


@pytest.fixture
def started(slicer_gui, repository):
    """The module is loaded, and Slicer has started."""
    slicer_gui.module(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
    slicer_gui.emit(slicer_gui.app, "startupCompleted()")
    return slicer_gui


def test_what_sample_data_itself_checks(slicer_gui):
    register = sample_data.SampleDataLogic.registerCustomSampleDataSource
    with pytest.raises(TypeError):
        register("Own", "none", customDownloader=print)
    with pytest.raises(ValueError, match="same length"):
        register("Own", "lengths", uris=["a", "b"], fileNames=["a"], customDownloader=print)


def test_it_is_registered_and_nothing_is_downloaded_by_name(started):
    assert list(slicer.modules.sampleDataSources) == ["Lung Nodule Uncertainty"]
    logic = sample_data.SampleDataLogic()
    assert logic.downloadFromSource(logic.sourceForSampleName(NAME)) == []
    started.emit(started.app, "startupCompleted()")  # a reload of the module doesn't list it twice
    assert len(slicer.modules.sampleDataSources["Lung Nodule Uncertainty"]) == 1


def test_it_is_shown_in_the_slice_views(started):
    volume, points = sample_data.click(NAME)
    assert points.GetNumberOfControlPoints() == 3
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    for name in ("Red", "Yellow", "Green"):
        view = started.layoutManager.sliceWidget(name)
        assert view.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
        matrix = view.mrmlSliceNode().GetSliceToRAS()
        center = [matrix.GetElement(row, 3) for row in range(3)]
        assert np.allclose(center, [(a + b) / 2 for a, b in zip(bounds[::2], bounds[1::2], strict=True)], atol=2)
        shown = view.mrmlSliceNode().GetFieldOfView()
        view.sliceLogic().FitSliceToBackground()
        assert view.mrmlSliceNode().GetFieldOfView() == shown


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_panel_takes_the_ct_and_its_points(started, repository, when):
    if when == "after":
        sample_data.click(NAME)
    widget = started.module_widget(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
    if when == "before":  # an open panel
        sample_data.click(NAME)
        started.process_events()
    ui = widget.ui
    assert ui.volumeSelector.currentNode().GetName() == NAME
    assert ui.pointSelector.currentNode().GetName() == f"{NAME} nodules"
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (True, "Segment the nodule.")
    started.widget, started.ui = widget, ui
    apply(started)
    assert [row[0] for row in cells(started)] == ["Nodule 1"]
