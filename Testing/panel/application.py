"""The parts of Slicer's application that panels reach: slicer.app, its layout with views, its module manager."""

import types

import pythonqt
from stand_ins import emulates, stand_in_class

SLICES = ("Red", "Yellow", "Green")


@emulates("qMRMLSliceWidget")
class _SliceWidget:
    """A slice view with its real slice logic, slice node and composite node."""

    def sliceLogic(self):
        return self._values.get("logic")

    logic = sliceLogic

    def mrmlSliceNode(self):
        return self.sliceLogic().GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self.sliceLogic().GetSliceCompositeNode()

    def sliceView(self):
        return self._view("qMRMLSliceView")

    def sliceController(self):
        return self._view("qMRMLSliceControllerWidget")

    def _view(self, kind):
        if kind not in self._values:
            self._values[kind] = stand_in_class(kind)()
        return self._values[kind]

    def fitSliceToBackground(self):
        self.sliceLogic().FitSliceToBackground()


@emulates("qMRMLThreeDWidget")
class _ThreeDWidget:
    def mrmlViewNode(self):
        return self._values.get("node")

    def threeDView(self):
        if "view" not in self._values:
            self._values["view"] = stand_in_class("qMRMLThreeDView")()
            self._values["view"].setMRMLViewNode(self.mrmlViewNode())
        return self._values["view"]

    def threeDController(self):
        if "controller" not in self._values:
            self._values["controller"] = stand_in_class("qMRMLThreeDViewControllerWidget")()
        return self._values["controller"]


@emulates("qMRMLLayoutManager")
class _LayoutManager:
    """Red, Yellow and Green with real slice logics, one 3D view; which views a layout shows isn't emulated."""

    def _start(self, scene, application_logic):
        import slicer
        import vtk

        logic = slicer.vtkMRMLLayoutLogic()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        self._values.update(layoutLogic=logic, mrmlScene=scene, layout=logic.GetLayoutNode().GetViewArrangement())
        self._slices, self._logics, self._three_d = {}, vtk.vtkCollection(), None
        for name in SLICES:
            node = scene.GetNodeByID(f"vtkMRMLSliceNode{name}")
            slice_logic = slicer.vtkMRMLSliceLogic()
            slice_logic.SetMRMLApplicationLogic(application_logic)
            slice_logic.SetMRMLScene(scene)
            slice_logic.SetSliceNode(node) if node is not None else slice_logic.AddSliceNode(name)
            self._logics.AddItem(slice_logic)
            self._slices[name] = stand_in_class("qMRMLSliceWidget")()
            self._slices[name]._values["logic"] = slice_logic
        application_logic.SetSliceLogics(self._logics)
        self._three_d = stand_in_class("qMRMLThreeDWidget")()
        view = scene.GetFirstNodeByClass("vtkMRMLViewNode")
        self._three_d._values["node"] = view or scene.AddNewNodeByClass("vtkMRMLViewNode", "View1")
        return self

    def _stop(self):
        """Lets go of the scene: the layout's logic doesn't outlive its nodes."""
        for logic in [self.layoutLogic(), *[self._logics.GetItemAsObject(n) for n in range(len(SLICES))]]:
            logic.SetMRMLScene(None)

    def _changed(self, name, value):
        if name == "layout":
            self.layoutLogic().GetLayoutNode().SetViewArrangement(value)

    def sliceViewNames(self):
        return SLICES

    def sliceWidget(self, name):
        return self._slices.get(name)

    def mrmlSliceLogics(self):
        return self._logics

    def threeDWidget(self, index):
        return self._three_d if index in (0, self._three_d.mrmlViewNode().GetName()) else None

    threeDViewCount = property(lambda self: 1)
    plotViewCount = property(lambda self: 1)
    tableViewCount = property(lambda self: 1)

    def activeMRMLThreeDViewNode(self):
        return self._three_d.mrmlViewNode()

    def plotWidget(self, index):
        return self._part("qMRMLPlotWidget")

    def tableWidget(self, index):
        return self._part("qMRMLTableWidget")

    def _part(self, kind):
        if kind not in self._values:
            self._values[kind] = stand_in_class(kind)()
        return self._values[kind]


@emulates("qMRMLPlotWidget")
class _PlotWidget:
    def plotView(self):
        if "view" not in self._values:
            self._values["view"] = stand_in_class("qMRMLPlotView")()
        return self._values["view"]


class qSlicerScriptedLoadableModule:
    """A scripted module as the module manager holds it; `path` is its file, `name` its class."""

    def __init__(self, path):
        self.path, self.name = str(path), path.stem
        self._representation = None

    def widgetRepresentation(self):
        return self._representation


@emulates("qSlicerScriptedLoadableModuleWidget")
class _ScriptedWidget:
    def self(self):
        return self._values.get("python")


@emulates("qSlicerModuleManager")
class _ModuleManager:
    def module(self, name):
        import slicer

        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self):
        import slicer

        return tuple(vars(slicer.modules))


@emulates("qSlicerApplication")
class _Application:
    """slicer.app on the one QApplication. Rendering isn't paused or resumed: it is noted like every other call."""

    def _make_backing(self, arguments):
        made = pythonqt.application()
        made.setOrganizationName("NA-MIC")
        made.setApplicationName("Slicer")
        return made

    def _start(self, scene, application_logic):
        self._values.update(scene=scene, applicationLogic=application_logic)
        self._values["layoutManager"] = stand_in_class("qSlicerLayoutManager")()._start(scene, application_logic)
        self._values["moduleManager"] = stand_in_class("qSlicerModuleManager")()
        return self

    def mrmlScene(self):
        return self._values["scene"]

    def settings(self):
        return pythonqt.module("qt").QSettings()

    userSettings = revisionUserSettings = settings

    def testingEnabled(self):
        return False


def simple_module(name, logic):
    """A module with a logic only, as slicer.modules holds it."""
    return types.SimpleNamespace(name=name, logic=lambda: logic, widgetRepresentation=lambda: None)
