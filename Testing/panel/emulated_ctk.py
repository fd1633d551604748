"""What the stand-ins of CTK's widgets do and how they look; the names are checked against the list of names."""

from typing import ClassVar

from PySide6 import QtCore, QtGui, QtWidgets

from stand_ins import emulates


class _Collapsible(QtWidgets.QAbstractButton):
    """A header with an arrow and a title; the contents lie below it in the widget's own layout."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.header = self.fontMetrics().height() + 8
        self.setContentsMargins(0, self.header, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)

    def hitButton(self, position):
        return position.y() < self.header

    def paintEvent(self, event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self.header)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        style = QtWidgets.QStyle.PrimitiveElement
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, self.header // 2 - 5, 10, 10)
        painter.drawPrimitive(style.PE_IndicatorArrowDown if self.isChecked() else style.PE_IndicatorArrowRight, arrow)
        box = QtCore.QRect(22, 0, self.width() - 22, self.header)
        painter.drawText(box, QtCore.Qt.AlignmentFlag.AlignVCenter, self.text())
        if self.isChecked():
            painter.setPen(self.palette().color(QtGui.QPalette.ColorRole.Mid))
            painter.drawRect(0, self.header, self.width() - 1, self.height() - self.header - 1)

    def minimumSizeHint(self):
        size = self.layout().totalMinimumSize() if self.layout() and self.isChecked() else QtCore.QSize()
        return size.expandedTo(QtCore.QSize(22 + self.fontMetrics().horizontalAdvance(self.text()), self.header))

    def sizeHint(self):
        size = self.layout().totalSizeHint() if self.layout() and self.isChecked() else QtCore.QSize()
        return size.expandedTo(self.minimumSizeHint())


def _show_contents(widget, hidden, shown):
    """Hides a widget's children, or shows those again that it had hidden."""
    for child in widget.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
        if shown and child in hidden:
            child.show()
        elif not shown and not child.isHidden():
            hidden.append(child)
            child.hide()
    if shown:
        hidden.clear()
    widget.updateGeometry()


@emulates("ctkCollapsibleButton")
class _CollapsibleButton:
    Backing = _Collapsible
    initial: ClassVar = {"collapsed": False, "flat": False}

    def _setup(self):
        self._hidden = []
        self._qt.toggled.connect(lambda checked: self._store("collapsed", not checked))

    def _changed(self, name, value):
        if name == "collapsed":
            _show_contents(self._qt, self._hidden, not value)
            self._qt.setChecked(not value)
            if self._qt.layout():
                self._qt.layout().setEnabled(not value)
            self._emit("contentsCollapsed(bool)", (value,))


@emulates("ctkCollapsibleGroupBox")
class _CollapsibleGroupBox:
    Backing = QtWidgets.QGroupBox

    def _setup(self):
        self._hidden = []
        self._qt.setCheckable(True)
        self._qt.toggled.connect(lambda checked: self._store("collapsed", not checked))

    def _changed(self, name, value):
        if name == "collapsed":
            _show_contents(self._qt, self._hidden, not value)
            self._qt.setChecked(not value)


class _Composite(QtWidgets.QWidget):
    """A row of widgets."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.row = row

    def add(self, widget, stretch=0):
        self.row.addWidget(widget, stretch)
        return widget


_STEPS = 1000  # of the drawn slider over the range


class _Number:
    """A value between a minimum and a maximum, in a spin box (`_boxes`) that a person can turn as well."""

    def _connect_box(self, box, name):
        self._boxes[name] = box
        box.setKeyboardTracking(False)
        box.valueChanged.connect(lambda value: self._store(name, value))

    def _limit(self, value):
        return min(max(float(value), self.minimum), self.maximum)

    def _show(self, name, value):
        for box in self._boxes.values():
            box.blockSignals(True)
            if name in ("minimum", "maximum", "decimals", "singleStep", "prefix", "suffix"):
                getattr(box, f"set{name[0].upper()}{name[1:]}")(value)
        for key, box in self._boxes.items():
            limited = self._limit(self._values[key])
            box.setValue(limited)
            box.blockSignals(False)
            if limited != self._values[key]:
                self._store(key, limited)


@emulates("ctkDoubleSpinBox")
class _DoubleSpinBox(_Number):
    Backing = QtWidgets.QDoubleSpinBox
    initial: ClassVar = {"minimum": 0.0, "maximum": 99.99, "value": 0.0, "singleStep": 1.0, "decimals": 2}

    def _setup(self):
        self._boxes = {}
        self._connect_box(self._qt, "value")
        self._qt.editingFinished.connect(lambda: self._emit("editingFinished()"))

    def _changed(self, name, value):
        if name == "readOnly":
            self._qt.setReadOnly(value)
        self._show(name, value)


@emulates("ctkSliderWidget")
class _SliderWidget(_Number):
    Backing = _Composite
    initial: ClassVar = {
        "minimum": 0.0,
        "maximum": 99.0,
        "value": 0.0,
        "singleStep": 1.0,
        "decimals": 2,
        "spinBoxVisible": True,
    }

    def _setup(self):
        self._values["spinBoxVisible"] = True
        self._boxes = {}
        self._slider = self._qt.add(QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), 1)
        self._slider.setRange(0, _STEPS)
        self._slider.sliderMoved.connect(
            lambda n: self._store("value", self.minimum + n / _STEPS * (self.maximum - self.minimum))
        )
        self._connect_box(self._qt.add(QtWidgets.QDoubleSpinBox()), "value")

    def _changed(self, name, value):
        self._show(name, value)
        if name == "spinBoxVisible":
            self._boxes["value"].setVisible(value)
        span = self.maximum - self.minimum
        self._slider.setValue(round((self.value - self.minimum) / span * _STEPS) if span > 0 else 0)


@emulates("ctkRangeWidget")
class _RangeWidget(_Number):
    Backing = _Composite
    initial: ClassVar = {"minimum": 0.0, "maximum": 99.0, "minimumValue": 0.0, "maximumValue": 99.0, "singleStep": 1.0}

    def _setup(self):
        self._boxes = {}
        self._connect_box(self._qt.add(QtWidgets.QDoubleSpinBox()), "minimumValue")
        self._qt.add(QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), 1)
        self._connect_box(self._qt.add(QtWidgets.QDoubleSpinBox()), "maximumValue")

    def _changed(self, name, value):
        self._show(name, value)
        if name in ("minimumValue", "maximumValue"):
            self._emit("valuesChanged(double,double)", (self.minimumValue, self.maximumValue))

    def setRange(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def setValues(self, minimum, maximum):
        self.minimumValue, self.maximumValue = minimum, maximum


@emulates("ctkPathLineEdit")
class _PathLineEdit:
    Backing = _Composite
    initial: ClassVar = {"showBrowseButton": True, "showHistoryButton": True}

    def _setup(self):
        self._edit = self._qt.add(QtWidgets.QLineEdit(), 1)
        self._button = self._qt.add(QtWidgets.QPushButton("..."))
        self._edit.textEdited.connect(lambda text: self._store("currentPath", text))

    def _changed(self, name, value):
        if name == "currentPath":
            self._edit.setText(value)
        elif name == "showBrowseButton":
            self._button.setVisible(value)


@emulates("ctkDirectoryButton")
class _DirectoryButton:
    Backing = QtWidgets.QPushButton

    def _changed(self, name, value):
        if name == "directory":
            self._qt.setText(value)


@emulates("ctkColorPickerButton")
class _ColorPickerButton:
    def _changed(self, name, value):
        if name == "color":
            pixmap = QtGui.QPixmap(16, 16)
            pixmap.fill(value._qt)
            self._qt.setIcon(QtGui.QIcon(pixmap))
