"""Loads a `.ui` file as Slicer does, with stand-ins for its own widget classes, and draws it into a picture."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from pythonqt import application, qt_class, wrap
from stand_ins import StandIn, arguments_of, is_slicer_class, stand_in_class

_CONVERT = {
    "bool": lambda text: text == "true",
    "number": int,
    "double": float,
    "string": lambda text: text or "",
    "cstring": lambda text: text or "",
}


class _Loader(QtUiTools.QUiLoader):
    """Makes stand-ins for the classes of Slicer and CTK; a class that neither they nor Qt have raises."""

    def __init__(self):
        super().__init__()
        self.made, self.failure = [], None

    def createWidget(self, class_name, parent=None, name=""):
        try:
            if is_slicer_class(class_name):
                made = stand_in_class(class_name)(*([] if parent is None else [wrap(parent)]))
            else:
                plain = super().createWidget(class_name, parent, name)
                if plain is None or type(plain).__name__ != (class_name if class_name != "Line" else "QFrame"):
                    raise AttributeError(f"neither Qt nor Slicer has a widget class {class_name!r}")
                made = wrap(plain)
        except Exception as error:  # Qt would go on with an empty place
            self.failure = self.failure or error
            return QtWidgets.QWidget(parent)
        made._qt.setObjectName(name)
        self.made.append(made)
        return made._qt


def property_value(element):
    """Value of a `<property>` of a `.ui` file, as far as stand-ins need it: enums and sets stay text."""
    value = element[0]
    if value.tag == "stringlist":
        return [child.text or "" for child in value]
    if value.tag == "color":
        red, green, blue = (int(value.findtext(channel, "0")) for channel in ("red", "green", "blue"))
        return qt_class(QtGui.QColor)(red, green, blue)
    return _CONVERT.get(value.tag, lambda text: text)(value.text)


def connect_ui(widgets, connection):
    """Makes a `<connection>` of a `.ui` file; widgets: by name. Raises AttributeError if an end doesn't exist."""
    sender, receiver = (widgets[connection.findtext(end)] for end in ("sender", "receiver"))
    signal, slot = connection.findtext("signal"), connection.findtext("slot")
    name, number = slot.partition("(")[0], len(arguments_of(slot))
    function = getattr(receiver, name) if slot != f"{name}()" or callable(getattr(receiver, name)) else None
    sender.connect(signal, lambda *arguments: function(*arguments[:number]))


def load_ui(path):
    """The top widget of a `.ui` file, in PythonQt's manners.

    Raises AttributeError for a class, property, signal or slot that Slicer, CTK and Qt don't have, RuntimeError if the
    file is missing or can't be read.
    """
    application()
    path = Path(path)
    if not path.is_file():
        raise RuntimeError(f"Could not load UI file: file not found {path}")
    tree = ElementTree.parse(path)
    later = []
    for widget in tree.iter("widget"):
        if not is_slicer_class(widget.get("class")):
            continue
        names = stand_in_class(widget.get("class"))._names
        for prop in list(widget.findall("property")):
            if prop.get("name") in names.properties:
                later.append((widget.get("name"), prop))
                widget.remove(prop)
    connections = [c for found in tree.iter("connections") for c in list(found)]
    for parent in tree.iter():
        for tag in ("connections", "customwidgets"):
            for child in parent.findall(tag):
                parent.remove(child)
    loader = _Loader()
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(tree.getroot(), encoding="utf-8"))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    top = loader.load(buffer)
    if loader.failure is not None:
        raise loader.failure
    if top is None:
        raise RuntimeError(f"Could not load UI file: {path}: {loader.errorString()}")
    widgets = {made.objectName: made for made in loader.made}
    for name, prop in later:
        setattr(widgets[name], prop.get("name"), property_value(prop))
    for connection in connections:
        connect_ui(widgets, connection)
    top = wrap(top)
    top._made = loader.made  # keeps the stand-ins
    return top


def _fonts():
    """A font for the letters: the system's, else the one that matplotlib brings."""
    if QtGui.QFontDatabase.families():
        return
    import matplotlib

    for file in sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf")):
        QtGui.QFontDatabase.addApplicationFont(str(file))


def render(widget, path, width=420, height=None):
    """Draws a widget into a PNG of a width in pixels (height: what it needs); returns (width, height) drawn.

    The width drawn is larger than asked for if the widget can't be that narrow.
    """
    application()
    _fonts()
    qt_widget = widget._qt
    qt_widget.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen)
    qt_widget.show()
    for _ in range(3):  # labels that wrap settle their height only when their width is known
        layout = qt_widget.layout()
        tall = layout.totalHeightForWidth(width) if layout and layout.hasHeightForWidth() else -1
        qt_widget.resize(width, height or max(tall, qt_widget.sizeHint().height()))
        QtWidgets.QApplication.processEvents()
    if not qt_widget.grab().save(str(path)):
        raise OSError(f"{path}: the picture can't be written")
    return qt_widget.width(), qt_widget.height()


def is_stand_in(widget):
    return isinstance(widget, StandIn)
