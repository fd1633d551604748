"""The stand-in for Slicer itself: what exists works, what Slicer doesn't have raises, and dialogs never wait."""

import sys
import types
from typing import Annotated

import numpy as np
import pytest
import slicer

from small_panel import small


@pytest.fixture
def ui(slicer_gui, write):
    """The small panel's widgets on the scene."""
    import slicer

    top = slicer.util.loadUI(str(write(small())))
    top.setMRMLScene(slicer_gui.scene)
    widgets = slicer.util.childWidgetVariables(top)
    widgets.top = top
    return widgets


@pytest.fixture
def volume(slicer_gui, tools):
    return tools.add_volume(slicer_gui.scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "CT")


def test_properties_are_attributes_as_in_pythonqt(slicer_gui):
    import qt

    button = qt.QPushButton("Apply")
    assert (button.text, button.enabled, button.checkable) == ("Apply", True, False)
    button.text, button.enabled, button.name = "Cancel", False, "apply"
    assert (button._qt.text(), button.isEnabled(), button.objectName) == ("Cancel", False, "apply")
    assert type(button) is qt.QPushButton
    assert isinstance(button, qt.QWidget)
    layout = qt.QVBoxLayout()
    holder = qt.QWidget()
    holder.setLayout(layout)
    layout.addWidget(button)
    assert holder.layout() is layout
    assert holder.findChildren(qt.QPushButton) == (button,)
    assert button.parent() is holder


@pytest.mark.parametrize(
    "wrong",
    [
        lambda qt, button: button.notThere,
        lambda qt, button: setattr(button, "notThere", 1),
        lambda qt, button: button.connect("clicked(int)", print),
        lambda qt, button: button.connect("clicked", print),
        lambda qt, button: qt.QNotThere,
        lambda qt, button: setattr(qt.QTableWidgetItem("a"), "text", "b"),
        lambda qt, button: setattr(button, "width", 3),
    ],
)
def test_what_qt_lacks_raises(slicer_gui, wrong):
    import qt

    with pytest.raises(AttributeError, match=r"Q\w+|signature"):
        wrong(qt, qt.QPushButton("Apply"))


def test_signals_give_only_the_arguments_that_the_function_takes(slicer_gui):
    import qt

    got = []
    box = qt.QSpinBox()
    box.connect("valueChanged(int)", got.append)
    box.valueChanged.connect(lambda: got.append("none"))
    keep = lambda value, more=0: got.append((value, more))  # noqa: E731
    box.connect("valueChanged(int)", keep)
    box.value = 7
    assert got == [7, "none", (7, 0)]
    box.disconnect("valueChanged(int)", keep)
    box.value = 8
    assert got[3:] == [8, "none"]


def test_an_exception_in_a_slot_reaches_the_test(slicer_gui):
    import qt
    import vtk

    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        slicer_gui.click(button)
    tag = slicer_gui.scene.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: 1 / 0)
    slicer_gui.scene.Modified()
    slicer_gui.scene.RemoveObserver(tag)
    with pytest.raises(ZeroDivisionError):
        slicer_gui.process_events()
    button.enabled = False
    with pytest.raises(AssertionError, match="disabled"):
        slicer_gui.click(button)


def test_tables_menus_timers_and_the_clipboard(slicer_gui):
    import qt

    table, item, done = qt.QTableWidget(), qt.QTableWidgetItem("Nodule 1"), []
    table.setColumnCount(2)
    table.rowCount = 3
    table.setItem(2, 1, item)
    item.setData(qt.Qt.UserRole, "id")
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    assert (table.item(2, 1).text(), table.item(2, 1).data(qt.Qt.UserRole)) == ("Nodule 1", "id")
    assert table.item(0, 0) is None
    menu = qt.QMenu(table)
    action = menu.addAction("Rename")
    action.triggered.connect(lambda: done.append("rename"))
    action.trigger()
    qt.QTimer.singleShot(0, lambda: done.append("timer"))
    slicer_gui.wait_until(lambda: len(done) == 2)
    qt.QApplication.clipboard().setText("6.8 mm")
    assert qt.QApplication.clipboard().text() == "6.8 mm"


def test_dialogs_are_noted_and_answered(slicer_gui):
    import qt
    import slicer

    assert qt.QFileDialog.getOpenFileName(None, "Model") == ""
    slicer_gui.dialogs.answers.update({"QInputDialog.getText": "New name", "confirmOkCancelDisplay": True})
    assert qt.QInputDialog.getText(None, "Rename", "Name:") == "New name"
    assert slicer.util.confirmOkCancelDisplay("Delete?")
    slicer.util.errorDisplay("It failed")
    slicer_gui.dialogs.answers["QDialog.exec_"] = lambda dialog: dialog.windowTitle
    dialog = qt.QDialog()
    dialog.windowTitle = "Card"
    assert dialog.exec_() == "Card"
    kinds = ["QFileDialog.getOpenFileName", "QInputDialog.getText", "confirmOkCancelDisplay", "errorDisplay"]
    assert [kind for kind, _ in slicer_gui.dialogs.shown] == [*kinds, "QDialog.exec_"]


def test_every_listed_class_can_be_made_and_has_its_names(slicer_gui):
    import ctk
    import slicer

    from stand_ins import widget_names

    for name, entry in widget_names().items():
        if name.endswith("Application"):
            continue
        widget = getattr(ctk if name.startswith("ctk") else slicer, name)()
        for signature in entry["signals"]:
            widget.connect(signature, lambda: None)
        for listed in (*entry["properties"], *entry["invokable"]):
            assert hasattr(widget, listed), f"{name}.{listed}"


@pytest.mark.parametrize(
    ("use", "names"),
    [
        (lambda w: w.currentNodes, "qMRMLNodeComboBox.*currentNodes"),
        (lambda w: setattr(w, "noneAllowed", True), "qMRMLNodeComboBox.*noneAllowed"),
        (lambda w: w.connect("currentNodeChanged(vtkMRMLVolumeNode*)", print), "qMRMLNodeComboBox.*VolumeNode"),
        (lambda w: w.setNoneEnabled(True), "qMRMLNodeComboBox.*setNoneEnabled"),
        (lambda w: w.currentIndex, "qMRMLNodeComboBox.*currentIndex"),
        (lambda w: setattr(w, "currentNode", None), "qMRMLNodeComboBox.*currentNode"),
    ],
)
def test_what_slicer_lacks_raises_with_class_and_name(slicer_gui, use, names):
    import slicer

    with pytest.raises(AttributeError, match=names):
        use(slicer.qMRMLNodeComboBox())


def test_values_of_the_wrong_type_and_unknown_classes_raise(slicer_gui):
    import ctk
    import slicer

    with pytest.raises(AttributeError, match="ctkNotThere"):
        _ = ctk.ctkNotThere
    with pytest.raises(TypeError, match="nodeTypes is a QStringList"):
        slicer.qMRMLNodeComboBox().nodeTypes = "vtkMRMLScalarVolumeNode"
    with pytest.raises(TypeError, match="value is a double"):
        ctk.ctkSliderWidget().value = "0.5"
    with pytest.raises(TypeError, match="vtkMRMLNode"):
        slicer.qMRMLNodeComboBox().setCurrentNode(3)


def test_node_selector_follows_the_scene(slicer_gui, ui, volume, tools):
    assert ui.volumeSelector.currentNode() is None  # not even the only one is chosen by itself
    ui.volumeSelector.setCurrentNode(volume)
    seen = []
    ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    other = tools.add_volume(slicer_gui.scene, np.zeros((4, 5, 6), np.int16), np.eye(4), "Other")
    label = slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nodules")
    ui.volumeSelector.setCurrentNode(other)
    assert ui.volumeSelector.currentNodeID == other.GetID()
    other.SetName("Renamed")
    assert ui.volumeSelector._qt.currentText() == "Renamed"
    ui.volumeSelector.setCurrentNode(label)  # isn't of its types
    assert ui.volumeSelector.currentNode() is None
    ui.volumeSelector.currentNodeID = other.GetID()
    slicer_gui.scene.RemoveNode(other)
    assert seen == [other, None, other, volume]
    slicer_gui.scene.Clear(0)
    assert ui.volumeSelector.currentNode() is None


@pytest.mark.parametrize(("current", "then"), [(0, 1), (1, 2), (2, 1), (None, None)])
def test_node_selector_moves_on_when_its_node_goes(slicer_gui, tools, current, then):
    nodes = [slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in "ABC"]
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes, selector.noneEnabled = ["vtkMRMLSegmentationNode"], True
    selector.setMRMLScene(slicer_gui.scene)
    assert selector.currentNode() is None
    selector.setCurrentNode(None if current is None else nodes[current])
    slicer_gui.scene.RemoveNode(nodes[current or 0])
    assert selector.currentNode() is (None if then is None else nodes[then])


def test_node_selector_looks_at_a_scene_that_is_read_at_the_end(slicer_gui, ui, volume):
    scene, seen = slicer_gui.scene, []
    ui.volumeSelector.setCurrentNode(volume)
    ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    scene.StartState(scene.ImportState)
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Read")
    assert ui.volumeSelector.nodeCount() == 1
    scene.EndState(scene.ImportState)
    assert ui.volumeSelector.nodeCount() == 2
    assert seen == [None]


def test_subject_hierarchy_complains_of_what_has_no_item(slicer_gui):
    node = slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nodules")
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().AddEmptySegment("first", "HC")
    hierarchy = slicer_gui.subject_hierarchy
    assert hierarchy.segment_items(node) == ["HC"]
    modified = node.StartModify()
    node.GetSegmentation().RemoveSegment("first")
    slicer_gui.scene.RemoveNode(node)
    node.EndModify(modified)
    node.InvokeEvent(node.DisplayModifiedEvent)
    assert [text.partition(":")[0] for text in hierarchy.complaints] == [
        "onSegmentRemoved",
        "updateAllSegmentsFromMRML",
    ]
    hierarchy.complaints.clear()


def test_point_is_placed_with_the_real_interaction_node(slicer_gui, ui):
    modes = []
    node = slicer_gui.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Point")
    ui.pointSelector.setCurrentNode(node)
    ui.pointSelector.connect("activeMarkupsPlaceModeChanged(bool)", modes.append)
    with pytest.raises(AssertionError):
        slicer_gui.place_point(node, (1, 2, 3))
    slicer_gui.click(ui.pointSelector.markupsPlaceWidget().placeButton())
    assert ui.pointSelector.markupsPlaceWidget().placeModeEnabled
    slicer_gui.place_point(node, (1, 2, 3))
    assert modes == [True, False]
    assert ui.pointSelector.tableWidget().rowCount == 1


def test_segment_selector_lists_segments(slicer_gui, ui):
    node = slicer_gui.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nodules")
    node.GetSegmentation().AddEmptySegment("first", "Nodule 1 HC")
    node.GetSegmentation().AddEmptySegment("second", "Nodule 2 HC")
    ui.segmentSelector.setCurrentNode(node)
    assert ui.segmentSelector.currentNode() is node
    assert ui.segmentSelector.currentSegmentID() == "first"
    ui.segmentSelector.setCurrentSegmentID("second")
    node.GetSegmentation().RemoveSegment("second")
    assert ui.segmentSelector.segmentIDs() == ("first",)
    assert ui.segmentSelector.currentSegmentID() == "first"


def test_collapsed_contents_are_hidden(slicer_gui, ui):
    ui.top.show()
    assert ui.advanced.collapsed
    assert not ui.threshold.visible
    ui.advanced.collapsed = False
    assert ui.threshold.visible
    ui.threshold.value = 7
    assert ui.threshold.value == 1.0  # the maximum of the file


def test_parameter_node_and_widgets_follow_each_other(slicer_gui, ui, volume):
    import slicer
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    @parameterNodeWrapper
    class Parameters:
        inputVolume: slicer.vtkMRMLScalarVolumeNode
        threshold: Annotated[float, WithinRange(0, 1)] = 0.25
        label: str = "Nodule"

    logic = ScriptedLoadableModuleLogic()
    logic.moduleName = "Panel"
    node = logic.getParameterNode()
    assert logic.getParameterNode() is node
    parameters = Parameters(node)
    tag = parameters.connectParametersToGui({"inputVolume": ui.volumeSelector, "threshold": ui.threshold})
    assert ui.threshold.value == 0.25
    assert ui.volumeSelector.currentNode() is None  # the node's value wins when they are connected
    ui.volumeSelector.setCurrentNode(volume)
    ui.threshold.value = 0.5
    assert (parameters.inputVolume, parameters.threshold) == (volume, 0.5)
    assert node.GetNodeReferenceID("inputVolume") == volume.GetID()
    assert Parameters(node).threshold == 0.5  # a second wrapper, as after a scene is loaded
    parameters.threshold = 0.75
    assert ui.threshold.value == 0.75
    for wrong, error in ((2.0, ValueError), ("0.5", TypeError)):
        with pytest.raises(error, match=r"threshold|within"):
            parameters.threshold = wrong
    parameters.disconnectGui(tag)
    ui.threshold.value = 0.1
    assert parameters.threshold == 0.75
    assert parameters.connectGui(ui) is None  # so what it has bound stays bound
    parameters.disconnectGui(None)
    ui.threshold.value = 0.2
    assert parameters.threshold == 0.2


def test_a_pair_that_slicer_cannot_bind_raises(slicer_gui):
    import ctk
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        keep: bool

    box = ctk.ctkCheckBox()
    box.setProperty("SlicerParameterName", "keep")
    parameters = Parameters(slicer_gui.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    with pytest.raises(RuntimeError, match="ctkCheckBox"):
        parameters.connectGui(types.SimpleNamespace(box=box))


def test_real_slicer_util_works_on_the_stand_ins(slicer_gui, volume):
    import slicer

    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    red = slicer.app.layoutManager().sliceWidget("Red")
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    slicer.modules.markups.logic().JumpSlicesToLocation(1, 2, 3, True)
    assert red.sliceLogic().GetSliceOffset() == pytest.approx(3)
    slicer.util.resetSliceViews()
    assert slicer_gui.calls(slicer_gui.layoutManager)[-1] == ("resetSliceViews", ())
    with pytest.raises(ZeroDivisionError), slicer.util.tryWithErrorDisplay("No", waitCursor=True):
        _ = 1 / 0
    assert slicer_gui.dialogs.shown[0][0] == "errorDisplay"
    with slicer.util.WaitCursor():
        pass


MODULE = """
import slicer
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin
class HarnessProbe(ScriptedLoadableModule):
    pass
class HarnessProbeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic, self.closed = HarnessProbeLogic(), 0
        widget = slicer.util.loadUI(self.resourcePath("UI/Panel.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
    def onApply(self):
        self.ui.applyButton.text = "Done"
    def onClose(self, caller, event):
        self.closed += 1
    def cleanup(self):
        self.removeObservers()
class HarnessProbeLogic(ScriptedLoadableModuleLogic):
    pass
"""


def test_a_module_runs_and_is_drawn(slicer_gui, tmp_path, write):
    import slicer

    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    write(small(), "Resources/UI/Panel.ui")
    widget = slicer_gui.module_widget(write(MODULE, "HarnessProbe.py"))
    slicer_gui.click(widget.ui.applyButton)
    assert widget.ui.applyButton.text == "Done"
    assert slicer.util.getModuleLogic("HarnessProbe") is widget.logic
    slicer_gui.scene.Clear(0)
    assert widget.closed == 1
    widths = [slicer_gui.render(widget.parent, tmp_path / f"{width}.png", width)[0] for width in (500, 360)]
    assert widths == [500, 360]
    from PySide6.QtGui import QImage

    picture = QImage(str(tmp_path / "500.png")).convertToFormat(QImage.Format.Format_Grayscale8)
    values = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), -1)[:, : picture.width()]
    assert values.min() < 60 < 200 < values.max()  # dark letters on light ground
    sys.modules.pop("HarnessProbe", None)
