"""Slicer's Python side for a panel, without the application: `install` puts it in place, `Gui` is what a test holds.

The scene, the nodes and the logics are real (the slicer-core wheel), and so are all functions of slicer.util that don't
need Qt; widgets are stand-ins (`stand_ins.py`) and Qt is PySide6 in PythonQt's manners (`pythonqt.py`).
"""

import importlib
import importlib.util
import logging
import os
import sys
import time
import types
import unittest
from pathlib import Path

import slicer
from PySide6 import QtCore, QtWidgets

import application
import hierarchy
import parameter_node
import pythonqt
import sample_data
import stand_ins
import ui_loader

_LOGICS = {
    "Markups": "vtkSlicerMarkupsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Transforms": "vtkSlicerTransformLogic",
}
_ANSWERS = {  # of slicer.util's dialogs, as if the person had closed them
    "errorDisplay": None,
    "warningDisplay": None,
    "infoDisplay": None,
    "delayDisplay": None,
    "messageBox": QtWidgets.QMessageBox.StandardButton.Cancel,
    "confirmOkCancelDisplay": False,
    "confirmYesNoDisplay": False,
    "confirmRetryCloseDisplay": False,
}


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent, self.moduleName = parent, type(self).__name__
        for name in ("title", "helpText", "acknowledgementText"):
            setattr(parent, name, "")
        parent.categories, parent.dependencies, parent.contributors = [], [], []

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        return ""


class ScriptedLoadableModuleWidget:
    """`setup` adds nothing: the section for developers is off, as it is for users."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(pythonqt.module("qt").QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def onReload(self):
        """In the order of slicer.util.reloadScriptedModule: the file is read again, then the panel is made again."""
        registered = getattr(slicer.modules, self.moduleName.lower())
        spec = importlib.util.spec_from_file_location(self.moduleName, registered.path)
        python = sys.modules[self.moduleName] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(python)
        for child in self.parent.children():
            if hasattr(child, "hide"):
                child.hide()
        self.cleanup()
        while item := self.layout.itemAt(0):
            self.layout.removeItem(item)
        widget = getattr(python, f"{self.moduleName}Widget")(self.parent)
        self.parent._values["python"] = widget
        widget.setup()
        setattr(slicer.modules, f"{self.moduleName}Widget", widget)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self):
        """The module's parameter node: the scene's only one, or its first."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        return next(iter(self.getAllParameterNodes()), None) or slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *args, **kwargs):
        super().__init__("runTest")

    def delayDisplay(self, message, msec=0):
        logging.info(message)

    def runTest(self):
        """As in Slicer: what a module without tests of its own does."""


class Packaging(types.ModuleType):
    """slicer.packaging: notes in `calls` what it is asked; nothing is installed.

    missing: names of packages that aren't there; declines: whether the person says no.
    """

    def __init__(self):
        super().__init__("slicer.packaging")
        self.calls, self.missing, self.declines = [], set(), False

    def load_requirements(self, path):
        from packaging.requirements import Requirement

        lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line]

    def pip_check(self, requirement):
        many = requirement if isinstance(requirement, (list, tuple)) else [requirement]
        return not any(_package(one) in self.missing for one in many)

    def pip_ensure(self, requirements, **options):
        self.calls.append(("pip_ensure", requirements, options))
        if self.pip_check(requirements):
            return
        if self.declines:
            raise RuntimeError("the user declined to install packages")
        self.missing -= {_package(one) for one in requirements}

    def pip_install(self, requirements, **options):
        self.calls.append(("pip_install", requirements, options))

    def pip_uninstall(self, requirements, **options):
        self.calls.append(("pip_uninstall", requirements, options))

    def isPipInstallInProgress(self):
        return False


def _package(requirement):
    from packaging.requirements import Requirement

    return Requirement(str(requirement)).name


class Gui:
    """Slicer for a panel under test.

    scene, app (slicer.app), layoutManager; dialogs: `pythonqt.Dialogs`, what was shown and how to answer;
    packaging: `Packaging`; selected: modules that slicer.util.selectModule was asked for; errors: exceptions of slots
    and observers, which a test takes out if it expects them; subject_hierarchy: `hierarchy.SubjectHierarchy`, whose
    complaints fail the test.
    """

    def __init__(self, scene, app, packaging, monkeypatch):
        self.scene, self.app, self.packaging, self._monkeypatch = scene, app, packaging, monkeypatch
        self.layoutManager = app.layoutManager()
        self.dialogs, self.errors, self.selected, self._panels = pythonqt.dialogs, pythonqt.errors, [], []
        self.subject_hierarchy = hierarchy.SubjectHierarchy(scene)

    load_ui = staticmethod(ui_loader.load_ui)
    render = staticmethod(ui_loader.render)
    calls = staticmethod(stand_ins.calls)

    def module(self, path):
        """Imports a scripted module's file and registers the module; returns the Python module."""
        path = Path(path)
        self._monkeypatch.syspath_prepend(str(path.parent))
        self._monkeypatch.delitem(sys.modules, path.stem, raising=False)
        python = importlib.import_module(path.stem)
        registered = application.qSlicerScriptedLoadableModule(path)
        getattr(python, path.stem)(registered)
        setattr(slicer.modules, path.stem.lower(), registered)
        return python

    def module_widget(self, path):
        """The panel of a scripted module, set up, entered and shown: the module's `...Widget` object."""
        python = self.module(path)
        name = Path(path).stem
        parent = slicer.qSlicerScriptedLoadableModuleWidget()
        parent.setLayout(pythonqt.module("qt").QVBoxLayout())
        parent.setMRMLScene(self.scene)
        widget = getattr(python, f"{name}Widget")(parent)
        parent._values["python"] = widget
        getattr(slicer.modules, name.lower())._representation = parent
        self._panels.append(widget)
        widget.setup()
        parent.show()
        self.enter(widget)
        return widget

    def enter(self, widget):
        """Opens a panel, as choosing its module does."""
        widget.parent._values["isEntered"] = True
        if hasattr(widget, "enter"):
            widget.enter()
        self.process_events()

    def select(self, name):
        """slicer.util.selectModule: the panel that is open is left, also in the middle of what it is doing."""
        self.selected.append(name)
        for widget in self._panels:
            if widget.parent.isEntered:
                self.leave(widget)

    def leave(self, widget):
        """Another module is chosen."""
        widget.parent._values["isEntered"] = False
        if hasattr(widget, "exit"):
            widget.exit()

    def click(self, button):
        """A person's click: fails if the button can't be clicked, raises what its slots raise."""
        assert button._qt.isEnabled(), f"{button!r} is disabled: {button.toolTip}"
        button._qt.click()
        self.process_events()

    def emit(self, widget, signature, *arguments):
        """Emits a signal, given by its exact signature."""
        widget._emit(widget._checked_signal(signature), arguments)
        self.process_events()

    def place_point(self, node, position):
        """What a click in a view does while `node` is in place mode: a control point (R, A, S), the mode over."""
        interaction = self.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        selection = self.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        assert interaction.GetCurrentInteractionMode() == interaction.Place, "no point is being placed"
        assert selection.GetActivePlaceNodeID() == node.GetID(), f"{node.GetName()} isn't what is being placed"
        node.AddControlPointWorld(position)
        if not interaction.GetPlaceModePersistence():
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.process_events()

    def process_events(self):
        QtWidgets.QApplication.processEvents()
        self.raise_errors()

    def wait_until(self, predicate, timeout=10.0):
        """Runs the event loop until a condition holds; fails after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < end, f"not so after {timeout} s"
            QtWidgets.QApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 20)
            self.raise_errors()
            time.sleep(0.002)

    def raise_errors(self):
        """Raises the first exception that a slot or observer left."""
        if self.errors:
            error = self.errors[0]
            self.errors.clear()
            raise error

    def forget_calls(self):
        """Empties what `calls` returns for any widget, and so lets go of the nodes in it."""
        for wrapped in list(pythonqt._alive.values()):
            if isinstance(wrapped, stand_ins.StandIn):
                wrapped._calls.clear()

    def close(self):
        """Closes the panels as Slicer does at its end, and takes down everything that was built."""
        for widget in self._panels:
            if hasattr(widget, "exit"):
                widget.exit()
            widget.cleanup()
        while QtWidgets.QApplication.overrideCursor() is not None:
            QtWidgets.QApplication.restoreOverrideCursor()
            self.errors.append(AssertionError("the wait cursor was left on"))
        for wrapped in list(pythonqt._alive.values()):
            if isinstance(wrapped, stand_ins.StandIn):
                wrapped._unobserve()
                wrapped._listeners.clear()
        self.layoutManager._stop()
        self.subject_hierarchy.stop()
        pythonqt.forget()


def install(monkeypatch, scene, folder):
    """Puts qt, ctk and Slicer's Python side in place for a scene of the MRML fixtures; returns a `Gui`.

    folder: for settings and temporary files.
    """
    pythonqt.application()
    pythonqt.errors.clear()
    pythonqt.dialogs.clear()
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder))
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: pythonqt.errors.append(error))

    def put(target, name, value):
        monkeypatch.setattr(target, name, value, raising=False)

    logic = slicer._application_logic
    for name, kind in _LOGICS.items():
        made = getattr(slicer, kind)()
        made.SetMRMLApplicationLogic(logic)
        made.SetMRMLScene(scene)
        logic.SetModuleLogic(name, made)
        setattr(slicer.modules, name.lower(), application.simple_module(name, made))
    for name in stand_ins.widget_names():
        if name.startswith(("qMRML", "qSlicer")):
            put(slicer, name, stand_ins.stand_in_class(name))
    put(slicer, "qSlicerScriptedLoadableModule", application.qSlicerScriptedLoadableModule)
    app = stand_ins.stand_in_class("qSlicerApplication")()._start(scene, logic)
    app.temporaryPath = str(folder)
    put(slicer, "app", app)
    packaging = Packaging()
    gui = Gui(scene, app, packaging, monkeypatch)

    scripted = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in ("", "Widget", "Logic", "Test"):
        setattr(scripted, f"ScriptedLoadableModule{kind}", globals()[f"ScriptedLoadableModule{kind}"])
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    vars(wrapper).update({k: v for k, v in vars(parameter_node).items() if not k.startswith("_")})
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = lambda text: text, lambda context, text: text
    for module in (scripted, wrapper, i18n, packaging):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        put(slicer, module.__name__.rpartition(".")[2], module)
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    monkeypatch.setitem(sys.modules, "qt", pythonqt.module("qt"))
    monkeypatch.setitem(sys.modules, "ctk", pythonqt.module("ctk", stand_ins.stand_in_class))

    for name, default in _ANSWERS.items():
        put(slicer.util, name, _recorder(name, default))
    main_window = pythonqt.qt_class(QtWidgets.QMainWindow)()
    put(slicer.util, "mainWindow", lambda: main_window)
    put(slicer.util, "loadUI", ui_loader.load_ui)
    put(slicer.util, "selectModule", gui.select)
    return gui


def _recorder(kind, default):
    def show(text="", *arguments, **options):
        return pythonqt.dialogs.ask(kind, (text, *arguments, *options.items()), default)

    return show
