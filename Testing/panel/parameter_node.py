"""A small stand-in for `slicer.parameterNodeWrapper`: typed fields on a parameter node, bound to widgets.

As in Slicer a field is kept on the real vtkMRMLScriptedModuleNode (a node as a node reference, the rest as text, an
enum by its name), is checked when it is set, and is bound to the widget whose dynamic property `SlicerParameterName`
has its name. Only the pairs of type and widget class that Slicer itself can bind are bound: others raise, as there.
Not here: parameter packs, and lists that can be changed in place (a list is read as a tuple).
"""

import enum
import json
import pathlib
import types
import typing
from dataclasses import dataclass

PROPERTY = "SlicerParameterName"


class Validator:
    """Base of what narrows a field's values in `Annotated[type, ...]`."""


class NotNone(Validator):
    def validate(self, value):
        if value is None:
            raise ValueError("value must not be None")


@dataclass
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} isn't within [{self.minimum}, {self.maximum}]")


@dataclass
class RangeBounds(WithinRange):
    def validate(self, value):
        super().validate(value.minimum)
        super().validate(value.maximum)


@dataclass
class Minimum(Validator):
    minimum: float

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is below {self.minimum}")


@dataclass
class Maximum(Validator):
    maximum: float

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is above {self.maximum}")


@dataclass
class Choice(Validator):
    choices: typing.Sequence

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} isn't one of {list(self.choices)}")


@dataclass
class Exclude(Validator):
    excludedValues: typing.Sequence

    def validate(self, value):
        if value in self.excludedValues:
            raise ValueError(f"{value!r} is excluded")


@dataclass
class Default:
    value: object


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


@dataclass
class FloatRange:
    minimum: float
    maximum: float


class _Field:
    """A field of a wrapper: its type, whether it may be None, what narrows it, its default, and how it is kept."""

    def __init__(self, owner, name, annotation):
        import slicer

        self.name, self.annotation = name, annotation
        self.type, *notes = typing.get_args(annotation) if hasattr(annotation, "__metadata__") else (annotation,)
        self.notes = [note() if isinstance(note, type) else note for note in notes]
        self.optional = type(None) in typing.get_args(self.type)
        if self.optional:
            (self.type,) = (t for t in typing.get_args(self.type) if t is not type(None))
        plain = typing.get_origin(self.type) or self.type
        self.is_node = isinstance(plain, type) and issubclass(plain, slicer.vtkMRMLNode)
        known = (str, int, float, bool, pathlib.Path, list, tuple, dict, FloatRange)
        if not (self.is_node or plain in known or issubclass(plain, enum.Enum)):
            raise TypeError(f"{owner.__name__}.{name}: no way to keep a {self.type}")
        self.plain = plain
        self.default = getattr(owner, name) if hasattr(owner, name) else self._default()

    def _default(self):
        given = self.note(Default)
        if given:
            return given.value
        if self.is_node or self.optional:
            return None
        if issubclass(self.plain, enum.Enum):
            return next(iter(self.plain))
        return FloatRange(0.0, 0.0) if self.plain is FloatRange else self.plain()

    def note(self, kind):
        return next((note for note in self.notes if isinstance(note, kind)), None)

    def check(self, value):
        if value is None:
            if not (self.is_node or self.optional):
                raise ValueError(f"{self.name}: value must not be None")
            return
        expected = {float: (int, float), list: (list, tuple), int: int}.get(self.plain, self.plain)
        if not isinstance(value, expected):
            raise TypeError(f"{self.name}: {value!r} isn't a {self.plain.__name__}")
        for validator in self.notes:
            if isinstance(validator, Validator):
                validator.validate(value)

    def write(self, node, value):
        self.check(value)
        modified = node.StartModify()
        try:
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            else:
                node.SetParameter(self.name, self._text(value))
        finally:
            node.EndModify(modified)

    def _text(self, value):
        if value is None:
            return "\0None"
        if isinstance(value, enum.Enum):
            return value.name
        if self.plain is FloatRange:
            return json.dumps([value.minimum, value.maximum])
        return json.dumps(value) if self.plain in (list, tuple, dict) else str(value)

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if text == "\0None":
            return None
        if issubclass(self.plain, enum.Enum):
            return self.plain[text]
        if self.plain is bool:
            return text == "True"
        if self.plain in (list, tuple, dict):
            value = json.loads(text)
            return types.MappingProxyType(value) if self.plain is dict else tuple(value)
        return FloatRange(*json.loads(text)) if self.plain is FloatRange else self.plain(text)


def _attribute(widget, name):
    return lambda: getattr(widget, name), lambda value: setattr(widget, name, value)


def _simple_binding(widget, field):
    """What `_bind` returns for a switch, a text, a path or a node; None for other fields."""
    kind, plain = type(widget).__name__, field.plain
    if plain is bool and kind == "QCheckBox":
        return "stateChanged(int)", *_attribute(widget, "checked")
    if plain is bool and kind == "QPushButton":
        widget.checkable = True
        return "toggled(bool)", *_attribute(widget, "checked")
    if plain is str and kind == "QLineEdit":
        return "textChanged(QString)", *_attribute(widget, "text")
    if plain is str and kind == "QTextEdit":
        return "textChanged()", lambda: widget.toPlainText(), lambda value: widget.setPlainText(value)
    if plain is pathlib.Path and kind in ("ctkPathLineEdit", "ctkDirectoryButton"):
        name = "currentPath" if kind == "ctkPathLineEdit" else "directory"
        read, write = _attribute(widget, name)
        return f"{name}Changed(QString)", lambda: pathlib.Path(read()), lambda value: write(str(value))
    if field.is_node and not field.optional and kind == "qMRMLNodeComboBox":
        widget.nodeTypes = [plain.__name__]
        return "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode
    return None


def _bind(widget, field):
    """(signal, read, write) of a widget for a field; prepares the widget's range and items. RuntimeError: no way."""
    kind, plain = type(widget).__name__, field.plain
    bounds = field.note(WithinRange)
    low = bounds.minimum if bounds else getattr(field.note(Minimum), "minimum", None)
    high = bounds.maximum if bounds else getattr(field.note(Maximum), "maximum", None)

    def numeric(lowest, highest):
        if kind in ("QSlider", "ctkSliderWidget") and (low is None or high is None):
            raise RuntimeError(f"{field.name}: a {kind} needs a type with bounds")
        for note, name in ((Decimals, "decimals"), (SingleStep, "singleStep")):
            if field.note(note):
                setattr(widget, name, field.note(note).value)
        widget.minimum, widget.maximum = (lowest if low is None else low), (highest if high is None else high)
        signature = "valueChanged(int)" if plain is int else "valueChanged(double)"
        return signature, *_attribute(widget, "value")

    def items(values, labels):
        widget.clear()
        for label in labels:
            widget.addItem(label)
        return (
            "currentIndexChanged(int)",
            lambda: values[widget.currentIndex],
            lambda value: setattr(widget, "currentIndex", values.index(value)),
        )

    if (simple := _simple_binding(widget, field)) is not None:
        return simple

    if plain is int and kind in ("QSlider", "QSpinBox"):
        return numeric(-(2**31), 2**31 - 1)
    if plain is float and kind in ("QDoubleSpinBox", "ctkSliderWidget"):
        return numeric(-1e308, 1e308)
    if plain is FloatRange and kind == "ctkRangeWidget" and isinstance(bounds, RangeBounds):
        widget.setRange(bounds.minimum, bounds.maximum)
        read, write = lambda: FloatRange(widget.minimumValue, widget.maximumValue), lambda v: v
        return "valuesChanged(double,double)", read, lambda v: widget.setValues(write(v).minimum, v.maximum)
    if kind == "QComboBox" and plain in (int, float, str, bool):
        if not field.note(Choice):
            raise RuntimeError(f"{field.name}: a QComboBox needs a type with Choice")
        values = list(field.note(Choice).choices)
        return items(values, [str(value) for value in values])
    if kind == "QComboBox" and issubclass(plain, enum.Enum):
        label = getattr(plain, "label", lambda member: member.name)
        return items(list(plain), [label(member) for member in plain])
    raise RuntimeError(f"{field.name}: Slicer can't bind a {field.annotation} to a {kind}")


def _widgets_of(gui):
    import qt

    widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
    return {widget.property(PROPERTY): widget for widget in widgets if widget.property(PROPERTY)}


class _Wrapper:
    """What the decorator adds to a class of annotated fields."""

    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._bound, self._tags, self._updating = {}, 0, False
        for field in self.allParameters.values():
            if not parameterNode.HasParameter(field.name):
                field.write(parameterNode, field.default)

    def _field(self, name):
        if name not in self.allParameters:
            raise ValueError(f"{type(self).__name__} has no parameter {name!r}: {', '.join(self.allParameters)}")
        return self.allParameters[name]

    def default(self, name):
        return Default(self._field(name).default)

    def isCached(self, name):
        return self._field(name).plain not in (list, tuple, dict)

    def dataType(self, name):
        return self._field(name).annotation

    def getValue(self, name):
        return self._field(name).read(self.parameterNode)

    def setValue(self, name, value):
        self._field(name).write(self.parameterNode, value)

    def connectGui(self, gui):
        """As in Slicer, where it returns no tag: what it binds can't be unbound again."""
        self.connectParametersToGui(_widgets_of(gui))

    def connectParametersToGui(self, mapping):
        """Binds {parameter: widget}: the widgets take the parameters' values, then each follows the other."""
        import vtk

        bound = {name: (widget, *_bind(widget, self._field(name))) for name, widget in mapping.items()}
        self._tags += 1
        self._bound[self._tags] = connected = []
        for name, (widget, signal, read, write) in bound.items():
            write(self.getValue(name))

            def changed(*_, name=name, read=read):
                if not self._updating:
                    self.setValue(name, read())

            widget.connect(signal, changed)
            connected.append((name, widget, signal, changed, write))
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_gui())
        return self._tags

    def disconnectGui(self, guiTag):
        for _, widget, signal, changed, _ in self._bound.pop(guiTag, ()):
            widget.disconnect(signal, changed)

    def _update_gui(self):
        if self._updating:
            return
        self._updating = True
        try:
            for connected in list(self._bound.values()):
                for name, *_, write in connected:
                    write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def parameterNodeWrapper(classtype=None):
    """Class decorator, as `slicer.parameterNodeWrapper.parameterNodeWrapper`."""
    if classtype is None:
        return parameterNodeWrapper
    fields = {
        name: _Field(classtype, name, annotation)
        for name, annotation in typing.get_type_hints(classtype, include_extras=True).items()
    }
    for name, field in fields.items():
        setter = property(lambda self, f=field: f.read(self.parameterNode), lambda s, v, f=field: s.setValue(f.name, v))
        setattr(classtype, name, setter)
    classtype.allParameters = fields
    for name, member in vars(_Wrapper).items():
        if isinstance(member, types.FunctionType):
            if name in fields:
                raise ValueError(f"{name!r} is reserved in a parameterNodeWrapper")
            setattr(classtype, name, member)
    return classtype


def isParameterNodeWrapper(classOrObject):
    return hasattr(classOrObject, "allParameters")


def findChildWidgetForParameter(widget, parameter):
    return _widgets_of(widget).get(parameter)
