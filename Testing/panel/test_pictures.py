"""The panels drawn off screen at three widths, with real nodules of the phantom; kept where PANEL_PICTURES says.

`PANEL_PICTURES=Resources/Screenshots pytest Testing/panel/test_pictures.py` draws the README's pictures again.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from LungNoduleUncertaintyLib.scene.sample import add_phantom


@pytest.fixture
def folder(tmp_path):
    return Path(os.environ.get("PANEL_PICTURES") or tmp_path)


def test_nodule_panel_with_the_phantoms_nodules(slicer_gui, repository, folder):
    volume, points = add_phantom(slicer_gui.scene)
    widget = slicer_gui.module_widget(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
    ui = widget.ui
    assert ui.volumeSelector.currentNode() is volume
    ui.pointSelector.setCurrentNode(points)
    slicer_gui.process_events()
    positions = []
    for number in range(points.GetNumberOfControlPoints()):
        positions.append([0.0, 0.0, 0.0])
        points.GetNthControlPointPositionWorld(number, positions[-1])
    points.RemoveAllControlPoints()
    for position in positions:
        points.AddControlPointWorld(position)
        slicer_gui.process_events()
        slicer_gui.click(ui.applyButton)
        slicer_gui.wait_until(lambda: not widget.logic.runs.busy, timeout=120)
    assert ui.noduleTable.rowCount == len(positions)
    for width in (360, 420, 600):
        drawn, _ = slicer_gui.render(widget.parent, folder / f"panel-{width}.png", width)
        assert drawn <= max(width, 420)
    assert not slicer_gui.dialogs.shown


def test_soft_mask_panel_with_a_readers_segments(slicer_gui, repository, folder):
    import slicer
    from PySide6 import QtCore

    volume, points = add_phantom(slicer_gui.scene)
    position = [0.0, 0.0, 0.0]
    points.GetNthControlPointPositionWorld(points.GetNumberOfControlPoints() - 1, position)
    array = slicer.util.arrayFromVolume(volume)
    k, j, i = np.indices(array.shape, sparse=True)
    center = np.array(position)
    node = slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Readers")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    r, a, s = volume.GetOrigin()
    dx, dy, dz = volume.GetSpacing()
    directions = [[0.0] * 3 for _ in range(3)]
    volume.GetIJKToRASDirections(directions)
    signs = [directions[axis][axis] for axis in range(3)]
    distance = np.sqrt(
        (r + signs[0] * dx * i - center[0]) ** 2
        + (a + signs[1] * dy * j - center[1]) ** 2
        + (s + signs[2] * dz * k - center[2]) ** 2
    )
    for number, radius in enumerate((4.0, 5.0, 6.0), 1):
        segment = node.GetSegmentation().AddEmptySegment(f"Reader {number}", f"Reader {number}")
        slicer.util.updateSegmentBinaryLabelmapFromArray((distance <= radius).astype(np.uint8), node, segment, volume)
    widget = slicer_gui.module_widget(repository / "SoftMaskLabeler" / "SoftMaskLabeler.py")
    ui = widget.ui
    ui.markedSegmentationSelector.setCurrentNode(node)
    for row in range(ui.segmentList.count):
        ui.segmentList.item(row).setCheckState(QtCore.Qt.CheckState.Checked)
    slicer_gui.process_events()
    slicer_gui.click(ui.applyButton)
    slicer_gui.wait_until(lambda: not widget.logic.runs.busy, timeout=120)
    for width in (360, 420, 600):
        drawn, _ = slicer_gui.render(widget.parent, folder / f"soft-panel-{width}.png", width)
        assert drawn <= width
