"""Stand-ins for Slicer's and CTK's widget classes, generated from the list of names that PythonQt exposes of them.

The list (`slicer-widgets.json`, read from the headers) has for each class its properties, signals, public slots,
invokable methods and base. A stand-in has exactly these names, and those of its Qt base class as PySide6 knows them;
reading, setting or connecting any other raises AttributeError with the class and the name. What a class does beyond
that is in the `emulated_*.py` files; every other property keeps what it is given, `setX` sets property
or value `x`, and every other method is noted in `calls(widget)` and returns None.
"""

import inspect
import json
import types
from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

from pythonqt import Signal, Wrapped, _signature, _WrappedType, check_type, meta, qt_class, unwrap

WIDGET_NAMES = Path(__file__).with_name("slicer-widgets.json")

# Names that Slicer's own Python code (slicer.util) and documentation use but that the list lacks: a class that is
# in no public header of its own, members that are inherited from non-widgets, and enum values.
_SUPPLEMENT = {
    "qSlicerWidget": {
        "base": "QWidget",
        "properties": {},
        "signals": ["mrmlSceneChanged(vtkMRMLScene*)"],
        "slots": ["setMRMLScene(vtkMRMLScene*)"],
        "invokable": ["mrmlScene"],
    }
}
_EXTRA_METHODS = {"qSlicerCoreApplication": ["testingEnabled"]}
_ENUMS = {
    "qSlicerMarkupsPlaceWidget": {
        "ShowPlaceMultipleMarkupsOption": 0,
        "HidePlaceMultipleMarkupsOption": 1,
        "ForcePlaceSingleMarkup": 2,
        "ForcePlaceMultipleMarkups": 3,
    }
}
_DEFAULTS = {"bool": False, "QString": "", "int": 0, "double": 0.0, "QStringList": ()}
_widgets: dict = {}
_classes: dict = {}
emulations: dict = {}  # class name -> class with what the stand-in does


def widget_names() -> dict:
    """Class name -> {"base", "properties", "signals", "slots", "invokable"}."""
    if not _widgets:
        _widgets.update(json.loads(WIDGET_NAMES.read_text(encoding="utf-8"))["widgets"])
        _widgets.update({name: entry for name, entry in _SUPPLEMENT.items() if name not in _widgets})
    return _widgets


def is_slicer_class(name):
    return name in widget_names()


def qt_base(name):
    """The PySide6 class that a Slicer or CTK class derives from; QWidget where PySide6 lacks it."""
    names = widget_names()
    while name in names:
        name = names[name]["base"]
    for source in (QtWidgets, QtGui, QtCore):
        if hasattr(source, name):
            return getattr(source, name)
    return QtWidgets.QWidget


class Names:
    """All names of a class and its Slicer and CTK bases: properties {name: type}, slots {name: [signature]}."""

    def __init__(self, class_name):
        self.properties, self.signals, self.slots, self.invokable = {}, {}, {}, set()
        names = widget_names()
        while class_name in names:
            entry = names[class_name]
            for name, kind in entry["properties"].items():
                self.properties.setdefault(name, kind)
            for group, found in (("signals", self.signals), ("slots", self.slots)):
                for signature in entry[group]:
                    found.setdefault(signature.partition("(")[0], []).append(_signature(signature))
            self.invokable.update(entry["invokable"], _EXTRA_METHODS.get(class_name, ()))
            class_name = entry["base"]

    def __contains__(self, name):
        return name in self.properties or name in self.signals or name in self.slots or name in self.invokable


def arguments_of(signature):
    """The types in a signature: "f(int,QString)" -> ["int", "QString"]."""
    inside = signature.partition("(")[2].rstrip(")")
    return inside.split(",") if inside else []


def check_arguments(class_name, signatures, arguments):
    """Raises TypeError if arguments fit none of a slot's signatures (as far as the types' names tell)."""
    for number, signature in enumerate(signatures, 1):
        kinds = arguments_of(signature)
        try:
            if len(kinds) != len(arguments):
                raise TypeError(f"{class_name}.{signature} doesn't take {len(arguments)} arguments")
            for kind, argument in zip(kinds, arguments, strict=True):
                check_type(kind, argument, f"argument of {class_name}.{signature}")
            return
        except TypeError:
            if number == len(signatures):
                raise


def emulates(name):
    """Decorator: what the stand-in of a class does. Its public names must be in the list.

    Backing: the PySide6 class that is drawn. initial: values of properties. _setup(self): after construction.
    _changed(self, name, value): after a property was set.
    """

    def register(cls):
        emulations[name] = cls
        return cls

    return register


class Placeholder(QtWidgets.QFrame):
    """What a widget without an emulation looks like: a box with its class's name, unless it contains others."""

    label = ""

    def paintEvent(self, event):
        if self.layout() is None and self.label:
            painter = QtGui.QPainter(self)
            painter.setPen(QtGui.QPen(QtGui.QColor(150, 150, 150), 1, QtCore.Qt.PenStyle.DashLine))
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
            painter.drawText(self.rect(), QtCore.Qt.AlignmentFlag.AlignCenter, self.label)

    def minimumSizeHint(self):
        return super().minimumSizeHint() if self.layout() or not self.label else QtCore.QSize(120, 60)

    sizeHint = minimumSizeHint


class StandIn(Wrapped):
    """A widget of Slicer or CTK; see the module."""

    _json = ()  # marks stand-ins for pythonqt

    def __init__(self, *arguments):
        self._build([unwrap(argument) for argument in arguments])

    def _build(self, arguments=()):
        object.__setattr__(self, "_values", dict(type(self)._initial))
        object.__setattr__(self, "_listeners", {})
        object.__setattr__(self, "_calls", [])
        object.__setattr__(self, "_observed", [])
        self._adopt(self._make_backing(arguments))
        self._setup()

    def _make_backing(self, arguments):
        return type(self)._backing(*arguments)

    def _setup(self):
        pass

    def _changed(self, name, value):
        pass

    def _observe(self, subject, event, function, priority=0.0):
        """Observes a VTK object until `_unobserve`."""
        self._observed.append((subject, subject.AddObserver(event, function, priority)))

    def _unobserve(self, subject=None):
        for pair in list(self._observed):
            if subject is None or pair[0] is subject:
                pair[0].RemoveObserver(pair[1])
                self._observed.remove(pair)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        names = type(self)._names
        if name in names.properties:
            kind = names.properties[name].removesuffix(" (read only)")
            return self._values.get(name, _DEFAULTS.get(kind))
        if name in names.signals:  # of overloads the one with the most telling argument, for `.connect(function)`
            return Signal(self, min(names.signals[name], key=lambda s: arguments_of(s) in ([], ["bool"])))
        if name in names.slots or name in names.invokable:
            return lambda *arguments: self._call_generic(name, arguments)
        return self._find(type(self)._qt_class, name)

    def _call_generic(self, name, arguments):
        names = type(self)._names
        if name in names.slots and name not in names.invokable:
            check_arguments(type(self).__name__, names.slots[name], arguments)
        self._calls.append((name, arguments))
        if name.startswith("set") and len(arguments) == 1:
            stored = name[3:4].lower() + name[4:]
            if stored in names.properties:
                setattr(self, stored, arguments[0])
            else:
                stored = "mrmlScene" if name == "setMRMLScene" else stored
                self._values[stored] = arguments[0]
            if name == "setMRMLScene" and "mrmlSceneChanged" in names.signals:
                self._emit("mrmlSceneChanged(vtkMRMLScene*)", arguments)
            return None
        return self._values.get(name) if not arguments else None

    def _is_python_subclass(self):
        return type(self) is not _classes.get(type(self).__name__)

    def _set(self, qt_class, name, value):
        kind = type(self)._names.properties.get(name)
        if kind is None:
            if name in type(self)._names:
                raise AttributeError(f"{type(self).__name__}.{name} is a signal or method, it can't be set")
            return super()._set(qt_class, name, value)
        what = f"{type(self).__name__}.{name}"
        if kind.endswith("(read only)"):
            raise AttributeError(f"{what} is read only")
        check_type(kind, value, what)
        emulated = inspect.getattr_static(type(self), name, None)
        if isinstance(emulated, property):
            emulated.fset(self, value)
        else:
            self._store(name, tuple(value) if kind == "QStringList" else value)
        return True

    def _store(self, name, value):
        """Keeps a property's value, shows it and emits its signal if it is new."""
        if name in self._values and self._values[name] == value:
            return
        self._values[name] = value
        self._changed(name, value)
        for signature in type(self)._names.signals.get(f"{name}Changed", ()):
            if arguments_of(signature) == [type(self)._names.properties[name]]:
                self._emit(signature, (value,))

    def _checked_signal(self, signature):
        signature = _signature(signature)
        if signature in type(self)._names.signals.get(signature.partition("(")[0], ()):
            return signature
        if signature not in meta(type(self)._qt_class).signals:
            raise AttributeError(f"{type(self).__name__} has no signal {signature!r}")
        return signature

    def _is_listed_signal(self, signature):
        return signature.partition("(")[0] in type(self)._names.signals

    def _attach(self, signature, function):
        if not self._is_listed_signal(signature):
            return super()._attach(signature, function)
        self._listeners.setdefault(signature, []).append(function)
        return function

    def _detach(self, signature, handle):
        if not self._is_listed_signal(signature):
            super()._detach(signature, handle)
        else:
            self._listeners[signature].remove(handle)

    def _emit(self, signature, arguments=()):
        if not self._is_listed_signal(signature):
            super()._emit(signature, arguments)
            return
        signature = self._checked_signal(signature)
        check_arguments(type(self).__name__, [signature], arguments)
        if not self._qt.signalsBlocked():
            for listener in list(self._listeners.get(signature, ())):
                listener(*arguments)


def calls(widget):
    """[(method, arguments)] of the calls of a stand-in's listed methods."""
    return widget._calls


def _checked(class_name, name, function, names):
    """An emulated method that checks and notes its arguments as a generic one does."""

    def call(self, *arguments):
        if name in names.slots and name not in names.invokable:
            check_arguments(class_name, names.slots[name], arguments)
        self._calls.append((name, arguments))
        return function(self, *arguments)

    return call


def stand_in_class(name):
    """The stand-in for a class of the list; raises AttributeError if it isn't there."""
    if name in _classes:
        return _classes[name]
    if not is_slicer_class(name):
        raise AttributeError(f"Slicer and CTK have no widget class {name!r} (or it isn't in {WIDGET_NAMES.name})")
    import application  # noqa: F401  (these fill `emulations`)
    import emulated_ctk  # noqa: F401
    import emulated_mrml  # noqa: F401
    import emulated_views  # noqa: F401

    base_name, qt = widget_names()[name]["base"], qt_base(name)
    base = stand_in_class(base_name) if is_slicer_class(base_name) else None
    names, emulation = Names(name), emulations.get(name)
    namespace = {"_json": (), "_names": names}
    bases = (base,) if base else (StandIn, qt_class(qt))
    initial = dict(base._initial) if base else {}
    backing = base._backing_type if base else _default_backing(name, qt)
    if emulation is not None:
        members = {k: v for part in reversed(emulation.__mro__[:-1]) for k, v in vars(part).items()}
        for key, value in members.items():
            if not key.startswith("_") and key not in ("Backing", "initial") and key not in names:
                raise AttributeError(f"the emulation of {name} has {key!r}, which {name} hasn't")
            if key not in ("__dict__", "__weakref__", "__doc__", "__module__", "Backing", "initial"):
                public = isinstance(value, types.FunctionType) and not key.startswith("_")
                namespace[key] = _checked(name, key, value, names) if public else value
        backing = getattr(emulation, "Backing", backing)
        initial.update(getattr(emulation, "initial", {}))
    cls = _WrappedType(name, bases, namespace, qt_class=qt)
    cls._initial, cls._backing_type = initial, backing
    cls._backing = type(name, (backing,), {"label": name} if issubclass(backing, Placeholder) else {})
    for key, value in _ENUMS.get(name, {}).items():
        type.__setattr__(cls, key, value)
    _classes[name] = cls
    return cls


def _default_backing(name, qt):
    if qt is QtWidgets.QWidget:
        return Placeholder
    if qt is QtWidgets.QAbstractButton:
        return QtWidgets.QPushButton
    if issubclass(qt, QtWidgets.QLayout) and qt is QtWidgets.QLayout:
        return QtWidgets.QHBoxLayout
    return qt
