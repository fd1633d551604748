"""Checks a `.ui` file against the names that Slicer, CTK and Qt have, and against the Python code that uses it."""

import ast
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from PySide6 import QtCore, QtWidgets

from pythonqt import meta
from stand_ins import Names, is_slicer_class, qt_base

_SCENE = ("mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")
_PASSIVE = ("QLabel", "QWidget", "QFrame", "QGroupBox", "QProgressBar", "QTabWidget", "QStackedWidget", "QScrollArea")
_PASSIVE += ("QTextBrowser", "QSplitter", "Line", "QDialogButtonBox", "QDialog", "qMRMLWidget", "qSlicerWidget")
_PASSIVE += ("ctkCollapsibleButton", "ctkCollapsibleGroupBox", "ctkFittedTextBrowser", "qMRMLPlotView")
_DYNAMIC = {"SlicerParameterName"}


def _qt_class(name):
    return QtWidgets.QFrame if name == "Line" else getattr(QtWidgets, name, None)


def _has_property(class_name, name):
    if is_slicer_class(class_name):
        return name in Names(class_name).properties or name in meta(qt_base(class_name)).properties
    return name in meta(_qt_class(class_name)).properties or (class_name, name) == ("Line", "orientation")


def _has_method(class_name, signature, kind):
    """Whether a class has a signal or slot of exactly this signature."""
    declared = meta(qt_base(class_name) if is_slicer_class(class_name) else _qt_class(class_name))
    found = [*(declared.signals if kind == "signal" else declared.slots)]
    if is_slicer_class(class_name):
        names = Names(class_name)
        for signatures in (names.signals if kind == "signal" else names.slots).values():
            found += signatures
    return signature in found


def parameter_names(path):
    """{SlicerParameterName: (widget's name, widget's class)} of a `.ui` file."""
    found = {}
    for widget in ElementTree.parse(path).iter("widget"):
        for prop in widget.findall("property"):
            if prop.get("name") == "SlicerParameterName":
                found[prop[0].text] = (widget.get("name"), widget.get("class"))
    return found


def ui_names(python_file):
    """{name: line} of all `self.ui.NAME` (and `ui.NAME`) that Python code uses."""
    found = {}
    for node in ast.walk(ast.parse(Path(python_file).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if (isinstance(owner, ast.Attribute) and owner.attr in ("ui", "_ui")) or (
            isinstance(owner, ast.Name) and owner.id == "ui"
        ):
            found.setdefault(node.attr, node.lineno)
    return found


def check_ui(path, *, python_files=(), parameters=None, dynamic=()):
    """What is wrong with a `.ui` file, one line each; [] if nothing is.

    Unknown widget classes, properties that the class doesn't have, object names given twice, input widgets without
    tooltip, widgets with a setMRMLScene slot that no mrmlSceneChanged reaches, connections whose signal or slot doesn't
    exist, and names that the code in `python_files` expects as `self.ui.NAME` but that aren't there.

    parameters: names of the parameter node's fields, where each SlicerParameterName must be among them. dynamic: names
    of dynamic properties that are meant (SlicerParameterName always is).
    """
    root = ElementTree.parse(path).getroot()
    widgets = list(root.iter("widget"))
    names = Counter(e.get("name") for tag in ("widget", "layout", "spacer", "action") for e in root.iter(tag))
    problems = [f"objectName {name!r} is given {n} times" for name, n in names.items() if name and n > 1]
    classes, found = _check_widgets(widgets, dynamic)
    connected, more = _check_connections(root, classes)
    problems += found + more
    top = widgets[0].get("name") if widgets else None
    for name, kind in classes.items():
        if is_slicer_class(kind) and name != top and name not in connected and "setMRMLScene" in Names(kind).slots:
            problems.append(f"{name}: {kind} isn't connected to the scene ({_SCENE[0]} -> {_SCENE[1]})")
    if parameters is not None:
        for parameter, (name, _) in parameter_names(path).items():
            if parameter not in parameters:
                problems.append(f"{name}: SlicerParameterName {parameter!r} isn't a field of the parameter node")
    for file in python_files:
        for name, line in ui_names(file).items():
            if name not in names:
                problems.append(f"{Path(file).name}:{line}: ui.{name} isn't in {Path(path).name}")
    return problems


def _check_widgets(widgets, dynamic):
    """({object name: class} of the widgets whose class is known, what is wrong with widgets)."""
    classes, problems = {}, []
    for widget in widgets:
        kind, name = widget.get("class"), widget.get("name")
        if not is_slicer_class(kind) and not (_qt_class(kind) and issubclass(_qt_class(kind), QtWidgets.QWidget)):
            problems.append(f"{name}: unknown class {kind}")
            continue
        classes[name] = kind
        given = {prop.get("name") for prop in widget.findall("property")}
        known = _DYNAMIC | set(dynamic)
        problems += [f"{name}: {kind} has no property {p!r}" for p in given - known if not _has_property(kind, p)]
        if kind not in _PASSIVE and "toolTip" not in given:
            problems.append(f"{name}: {kind} has no tooltip")
    return classes, problems


def _check_connections(root, classes):
    """(names of the widgets that get the scene, what is wrong with connections)."""
    connected, problems = set(), []
    for connection in root.iter("connection"):
        ends = {tag: connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")}
        for end, method in (("sender", "signal"), ("receiver", "slot")):
            normalized = QtCore.QMetaObject.normalizedSignature(ends[method]).data().decode()
            if ends[end] not in classes:
                problems.append(f"connection of an unknown widget {ends[end]!r}")
            elif not _has_method(classes[ends[end]], normalized, method):
                problems.append(f"{ends[end]}: {classes[ends[end]]} has no {method} {normalized!r}")
        if (ends["signal"], ends["slot"]) == _SCENE:
            connected.add(ends["receiver"])
    return connected, problems
