"""PythonQt's manners on PySide6: what Slicer's Python sees of Qt.

Slicer's Python reaches Qt through PythonQt, where a Qt property is an attribute (`button.enabled = True`), everything
else is a method, a signal is connected by its signature (`widget.connect("clicked(bool)", function)`) or as
`widget.clicked.connect(function)`, lists come back as tuples, and keyword arguments don't exist. `Wrapped` gives a
PySide6 object these manners, and raises on every name that the object's Qt class doesn't have. `module(name)` makes the
modules `qt` and `ctk`.

Nothing waits for a person: dialogs are noted in `dialogs.shown` and answered from `dialogs.answers`. An exception in a
slot is kept in `errors` (Qt itself would only print it).
"""

import ctypes
import enum
import functools
import inspect
import sys
import traceback
import types
from dataclasses import dataclass, field

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_QT_MODULES = (QtWidgets, QtGui, QtCore, QtUiTools)
_PLAIN = (type(None), bool, int, float, str, bytes, enum.Enum)
_classes: dict = {}  # PySide6 class -> subclass of Wrapped
_alive: dict = {}  # address of a QObject -> its Wrapped, as PythonQt has one wrapper for each object
errors: list = []  # exceptions raised in slots


@dataclass
class Dialogs:
    """Dialogs that would have been shown, and what a test answers in the person's place.

    shown: (kind, arguments) in order; kind is as in "QFileDialog.getOpenFileName", "QMenu.exec_", "errorDisplay".
    answers: kind -> value, or a function of the arguments; a dialog without an answer is cancelled.
    """

    shown: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)

    def ask(self, kind, arguments, default):
        self.shown.append((kind, arguments))
        answer = self.answers.get(kind, default)
        return answer(*arguments) if callable(answer) else answer

    def clear(self):
        self.shown.clear()
        self.answers.clear()


dialogs = Dialogs()

if sys.version_info < (3, 12):
    # PySide6 6.12 hands out None, True and False without counting the reference, as is right from Python 3.12 on where
    # they are immortal; before that the interpreter ends with "deallocating None". So they get references to spare.
    for _constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(_constant)).value += 1 << 30

_BUTTON = QtWidgets.QMessageBox.StandardButton
_STATIC_DIALOGS = {  # PythonQt returns the value alone, without the filter or the flag
    **{("QFileDialog", name): "" for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory")},
    ("QFileDialog", "getOpenFileNames"): (),
    **{("QInputDialog", name): "" for name in ("getText", "getItem", "getMultiLineText")},
    **{("QInputDialog", name): 0 for name in ("getInt", "getDouble")},
    **{("QMessageBox", name): _BUTTON.Ok for name in ("information", "warning", "critical", "about")},
    ("QMessageBox", "question"): _BUTTON.No,
    ("QDesktopServices", "openUrl"): True,
}


def wrap(value):
    """A value from PySide6 as PythonQt would hand it out."""
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    if isinstance(value, _PLAIN) or not isinstance(value, shiboken6.Object):
        return value
    if isinstance(value, QtCore.QObject):
        known = _alive.get(_address(value))
        if known is not None and known._qt is value:
            return known
    wrapped = object.__new__(qt_class(type(value)))
    wrapped._adopt(value)
    return wrapped


def unwrap(value):
    """A value for PySide6: what `wrap` made is undone, functions become slots."""
    if isinstance(value, Wrapped):
        return value._qt
    if isinstance(value, type) and issubclass(value, Wrapped):
        return value._qt_class
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return slot(value)
    return value


@functools.cache
def meta(qt_class):
    """What a QObject class declares: properties {name: (type, writable)}, signals and slots [signature].

    Read once and kept: PySide6 drops its QMetaObject when an instance that was asked for it is deleted.
    """
    found = qt_class.staticMetaObject
    kinds = QtCore.QMetaMethod.MethodType
    properties = [found.property(n) for n in range(found.propertyCount())]
    methods = [found.method(n) for n in range(found.methodCount())]
    return types.SimpleNamespace(
        properties={p.name(): (p.typeName(), p.isWritable()) for p in properties},
        signals=[m.methodSignature().data().decode() for m in methods if m.methodType() == kinds.Signal],
        slots=[m.methodSignature().data().decode() for m in methods if m.methodType() == kinds.Slot],
    )


def _address(qobject):
    return shiboken6.getCppPointer(qobject)[0]


def accepted(function):
    """How many arguments a function takes (PythonQt leaves out the rest), or None: any number."""
    if not isinstance(function, (types.FunctionType, types.MethodType)):
        return None
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


def slot(function):
    """A function as PythonQt calls it from a signal: surplus arguments left out, exceptions kept in `errors`."""
    number = accepted(function)

    def call(*arguments):
        try:
            return function(*[wrap(argument) for argument in arguments[:number]])
        except Exception as error:
            errors.append(error)
            traceback.print_exc()

    return call


class Signal:
    """A signal of a widget, as in `button.clicked.connect(function)`; calling it emits it."""

    def __init__(self, owner, signature):
        self._owner, self._signature = owner, signature

    def connect(self, function):
        return self._owner.connect(self._signature, function)

    def disconnect(self, function):
        return self._owner.disconnect(self._signature, function)

    def emit(self, *arguments):
        self._owner._emit(self._signature, arguments)

    __call__ = emit


class _WrappedType(type):
    def __new__(mcs, name, bases, namespace, qt_class=None):
        cls = super().__new__(mcs, name, bases, namespace)
        cls._qt_class = qt_class or mcs._subclass(name, bases, namespace)
        return cls

    @staticmethod
    def _subclass(name, bases, namespace):
        """The PySide6 class behind a Python subclass: its virtual functions call the subclass's."""
        qt_base = next((base._qt_class for base in bases if getattr(base, "_qt_class", None)), None)
        if qt_base is None or namespace.get("_json") is not None:
            return qt_base

        def override(function, inherited):
            def call(qt_self, *arguments):
                wrapped = _alive.get(_address(qt_self))
                if wrapped is None:
                    return inherited(qt_self, *arguments)
                return unwrap(function(wrapped, *[wrap(argument) for argument in arguments]))

            return call

        overrides = {
            key: override(value, getattr(qt_base, key))
            for key, value in namespace.items()
            if isinstance(value, types.FunctionType) and not key.startswith("_") and hasattr(qt_base, key)
        }
        return type(name, (qt_base,), overrides)

    def __getattr__(cls, name):
        qt_base = cls.__dict__.get("_qt_class")
        if name.startswith("__") or qt_base is None or not hasattr(qt_base, name):
            raise AttributeError(f"{cls.__name__} has no {name!r}")
        if (qt_base.__name__, name) in _STATIC_DIALOGS:
            default = _STATIC_DIALOGS[qt_base.__name__, name]
            return lambda *arguments: dialogs.ask(f"{qt_base.__name__}.{name}", arguments, default)
        value = getattr(qt_base, name)
        return value if isinstance(value, type) or not callable(value) else _call(value)


def _call(function):
    """Calls a PySide6 function with what Slicer's code has at hand. PythonQt knows no keyword arguments."""

    def call(*arguments):
        return wrap(function(*[unwrap(argument) for argument in arguments]))

    return call


class Wrapped(metaclass=_WrappedType):
    """A PySide6 object with PythonQt's manners; see the module."""

    def __init__(self, *arguments):
        self._adopt(self._qt_class(*[unwrap(argument) for argument in arguments]))

    def _adopt(self, qt_object):
        object.__setattr__(self, "_qt", qt_object)
        object.__setattr__(self, "_connections", {})
        if isinstance(qt_object, QtCore.QObject):
            _alive[_address(qt_object)] = self

    def __eq__(self, other):
        return self._qt == other._qt if isinstance(other, Wrapped) else NotImplemented

    def __hash__(self):
        return hash(_address(self._qt)) if isinstance(self._qt, QtCore.QObject) else hash(str(self._qt))

    def __repr__(self):
        name = self._qt.objectName() if isinstance(self._qt, QtCore.QObject) else ""
        return f"<{type(self).__name__} {name!r}>"

    def __bool__(self):
        return True

    def className(self):
        return type(self).__name__

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return self._find(type(self)._qt_class, name)

    def _find(self, qt_class, name):
        """A property's value, a signal or a method that the Qt class has; the object may be of a subclass."""
        if isinstance(self._qt, QtCore.QObject):
            if name in ("name", "objectName"):  # PythonQt has the short one too
                return self._qt.objectName()
            if name in meta(qt_class).properties:
                return wrap(self._qt.property(name))
        if name in ("exec_", "exec") and isinstance(self._qt, (QtWidgets.QDialog, QtWidgets.QMenu)):
            kind = next(c.__name__ for c in qt_class.__mro__ if c.__module__.startswith("PySide6"))
            default = {"QMenu": None, "QMessageBox": _BUTTON.Cancel}.get(kind, 0)
            return lambda *arguments: dialogs.ask(f"{kind}.exec_", (self, *arguments), default)
        found = inspect.getattr_static(qt_class, name, None)
        if isinstance(found, QtCore.Signal):
            return Signal(self, next(s for s in meta(qt_class).signals if s.startswith(name + "(")))
        if found is None or not hasattr(qt_class, name):
            raise AttributeError(f"{type(self).__name__} has no {name!r}: no property, signal or method of its class")
        if (qt_class.__name__, name) in _STATIC_DIALOGS:
            return getattr(type(self), name)
        value = getattr(self._qt, name)
        return _call(value) if callable(value) and not isinstance(value, type) else value

    def __setattr__(self, name, value):
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif not self._set(type(self)._qt_class, name, value):
            if not self._is_python_subclass():
                raise AttributeError(f"{type(self).__name__} has no property {name!r} that can be set")
            object.__setattr__(self, name, value)

    def _is_python_subclass(self):
        return type(self) not in _classes.values()

    def _set(self, qt_class, name, value):
        """Sets a Qt property; False if the Qt class has none of that name."""
        if not isinstance(self._qt, QtCore.QObject):
            return False
        name = "objectName" if name == "name" else name
        if name not in meta(qt_class).properties:
            return False
        kind, writable = meta(qt_class).properties[name]
        if not writable:
            raise AttributeError(f"{type(self).__name__}.{name} is read only")
        check_type(kind, value, f"{type(self).__name__}.{name}")
        if not self._qt.setProperty(name, unwrap(value)):
            raise TypeError(f"{type(self).__name__}.{name} ({kind}) can't be {value!r}")
        return True

    def connect(self, signature, function):
        """Connects a signal, given by its exact signature, to a function; raises AttributeError if there is none."""
        signature = self._checked_signal(signature)
        if not callable(function):
            raise TypeError(f"{signature} of {self!r}: {function!r} can't be called")
        handle = self._attach(signature, slot(function))
        self._connections.setdefault((signature, function), []).append(handle)
        return True

    def disconnect(self, signature, function):
        signature = self._checked_signal(signature)
        for handle in self._connections.pop((signature, function), []):
            self._detach(signature, handle)
        return True

    def _checked_signal(self, signature):
        signature = _signature(signature)
        if not isinstance(self._qt, QtCore.QObject) or signature not in meta(type(self)._qt_class).signals:
            raise AttributeError(f"{type(self).__name__} has no signal {signature!r}")
        return signature

    def _attach(self, signature, function):
        return QtCore.QObject.connect(self._qt, QtCore.SIGNAL(signature), function)

    def _detach(self, signature, handle):
        QtCore.QObject.disconnect(handle)

    def _emit(self, signature, arguments):
        getattr(self._qt, signature.partition("(")[0]).emit(*[unwrap(argument) for argument in arguments])


def _signature(text):
    if "(" not in text:
        raise AttributeError(f"a signal is connected by its signature, as in 'clicked(bool)': {text!r}")
    return QtCore.QMetaObject.normalizedSignature(text.lstrip("2")).data().decode()


_TYPES = {"QString": str, "bool": (bool, int), "int": int, "double": (int, float), "QStringList": (list, tuple)}


def check_type(qt_type, value, what):
    """Raises TypeError if a value isn't of a property's or argument's type, as far as the type's name tells."""
    expected = _TYPES.get(qt_type)
    if expected is not None and not isinstance(value, expected):
        raise TypeError(f"{what} is a {qt_type}, not {value!r}")
    is_object = hasattr(value, "IsA") and value.IsA(qt_type.rstrip("*"))
    if qt_type.startswith("vtk") and qt_type.endswith("*") and value is not None and not is_object:
        raise TypeError(f"{what} is a {qt_type}, not {value!r}")


def qt_class(cls):
    """The class that Slicer's code sees for a PySide6 class."""
    if cls not in _classes:
        bases = tuple(qt_class(base) for base in cls.__bases__ if issubclass(base, shiboken6.Object)) or (Wrapped,)
        bases = tuple(base for base in bases if base._qt_class is not shiboken6.Object) or (Wrapped,)
        _classes[cls] = _WrappedType(cls.__name__, bases, {}, qt_class=cls)
    return _classes[cls]


def module(name, extra=None):
    """A module whose attributes are Qt's classes in PythonQt's manners, besides the extra ones.

    extra: function of a name that returns an attribute or raises AttributeError.
    """

    def attribute(key):
        if extra is not None:
            return extra(key)
        for source in _QT_MODULES:
            value = getattr(source, key, None)
            if value is not None and not key.startswith("_"):
                is_class = isinstance(value, type) and issubclass(value, shiboken6.Object) and key != "Qt"
                return qt_class(value) if is_class else value
        raise AttributeError(f"module {name!r} has no {key!r}")

    made = types.ModuleType(name)
    made.__getattr__ = attribute
    return made


def forget():
    """Deletes what a test left behind: top-level windows and wrappers."""
    for widget in QtWidgets.QApplication.topLevelWidgets():
        widget.deleteLater()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    _alive.clear()


def application():
    """The one QApplication, without a screen."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
