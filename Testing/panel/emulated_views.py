"""What the stand-ins of Slicer's markups, table and segment views do, on the real scene."""

from typing import ClassVar

from PySide6 import QtCore, QtGui, QtWidgets

from emulated_mrml import Column, Row
from pythonqt import wrap
from stand_ins import Placeholder, emulates, stand_in_class


@emulates("qSlicerMarkupsPlaceWidget")
class _MarkupsPlaceWidget:
    """Buttons for the current markups node: color, place, delete and more. The place button, which is off without a
    node, puts the scene's real interaction node into place mode.
    """

    Backing = Row
    initial: ClassVar = {"buttonsVisible": True, "placeMultipleMarkups": 0}

    def _setup(self):
        self._node = None
        self._options = {name: self._qt.add(QtWidgets.QToolButton()) for name in ("color", "place", "delete", "more")}
        for text, button in zip("■✛🗑…", self._options.values(), strict=True):
            button.setText(text)
        self._button = self._options["place"]
        self._button.setCheckable(True)
        self._button.setToolTip("Place a point")
        self._button.clicked.connect(lambda checked: self.setPlaceModeEnabled(checked))
        self._follow()

    def _changed(self, name, value):
        if name == "buttonsVisible":
            for button in self._options.values():
                button.setVisible(value)

    def setMRMLScene(self, scene):
        self._unobserve()
        self._values["mrmlScene"] = scene
        if self.interactionNode():
            self._observe(self.interactionNode(), "ModifiedEvent", lambda *_: self._follow())

    def interactionNode(self):
        scene = self._values.get("mrmlScene")
        return scene.GetFirstNodeByClass("vtkMRMLInteractionNode") if scene else None

    def selectionNode(self):
        scene = self._values.get("mrmlScene")
        return scene.GetFirstNodeByClass("vtkMRMLSelectionNode") if scene else None

    def currentNode(self):
        return self._node

    currentMarkupsNode = currentMarkupsFiducialNode = currentNode

    def setCurrentNode(self, node):
        if node is not self._node:
            self._node = node
            self._follow()

    def placeButton(self):
        return wrap(self._button)

    def deleteButton(self):
        return wrap(self._options["delete"])

    def setPlaceModeEnabled(self, enabled):
        interaction, selection = self.interactionNode(), self.selectionNode()
        if interaction is None or (enabled and self._node is None):
            return
        if enabled:
            selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            selection.SetActivePlaceNodeID(self._node.GetID())
            interaction.SetPlaceModePersistence(int(bool(self._values.get("placeModePersistency"))))
            interaction.SetCurrentInteractionMode(interaction.Place)
        else:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self._follow()

    def _placing(self):
        interaction = self.interactionNode()
        return (
            self._node is not None
            and interaction is not None
            and interaction.GetCurrentInteractionMode() == interaction.Place
            and self.selectionNode().GetActivePlaceNodeID() == self._node.GetID()
        )

    placeModeEnabled = property(_placing, setPlaceModeEnabled)

    def _follow(self):
        placing = self._placing()
        for button in self._options.values():
            button.setEnabled(self._node is not None)
        self._button.setChecked(placing)
        if placing != self._values.get("was placing", False):
            self._values["was placing"] = placing
            for kind in ("Markups", "MarkupsFiducial"):
                self._emit(f"active{kind}PlaceModeChanged(bool)", (placing,))

    def deleteAllPoints(self):
        self._node.RemoveAllControlPoints()


@emulates("qSlicerSimpleMarkupsWidget")
class _SimpleMarkupsWidget:
    """A point list with the buttons of a place widget (the "options", shown and hidden together), and a table of the
    points. A point list that a person chooses or that the combo box moves on to is placed into at once.
    """

    Backing = Column
    initial: ClassVar = {
        "nodeSelectorVisible": True,
        "optionsVisible": True,
        "jumpToSliceEnabled": False,
        "enterPlaceModeOnNodeChange": True,
    }

    def _setup(self):
        self._node = None
        self._selector = stand_in_class("qMRMLNodeComboBox")()
        self._selector.nodeTypes = ["vtkMRMLMarkupsFiducialNode"]
        self._selector.noneEnabled = self._selector.renameEnabled = True
        self._place = stand_in_class("qSlicerMarkupsPlaceWidget")()
        row = self._qt.add(Row())
        row.add(self._selector._qt, 1)
        row.add(self._place._qt)
        self._table = self._qt.add(QtWidgets.QTableWidget(0, 4))
        self._table.setHorizontalHeaderLabels(["Name", "R", "A", "S"])
        self._table.setMaximumHeight(90)
        self._selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self._selected(node))
        for kind in ("Markups", "MarkupsFiducial"):
            signature = f"active{kind}PlaceModeChanged(bool)"
            self._place.connect(signature, lambda on, signature=signature: self._emit(signature, (on,)))

    def _changed(self, name, value):
        if name == "nodeSelectorVisible":
            self._selector._qt.setVisible(value)
        elif name == "optionsVisible":
            self._place._qt.setVisible(value)

    def setMRMLScene(self, scene):
        self._values["mrmlScene"] = scene
        self._place.setMRMLScene(scene)
        self._selector.setMRMLScene(scene)

    def setNodeBaseName(self, name):
        self._selector.baseName = name

    def _selected(self, node):
        self.setCurrentNode(node)
        if self.enterPlaceModeOnNodeChange:
            self._place.setPlaceModeEnabled(node is not None)

    def setCurrentNode(self, node):
        if node is self._node:
            return
        self._node = node
        self._selector._qt.blockSignals(True)
        self._selector.setCurrentNode(node)
        self._selector._qt.blockSignals(False)
        self._unobserve()
        self._place.setCurrentNode(node)
        if node is not None:
            for event in (node.PointModifiedEvent, node.PointAddedEvent, node.PointRemovedEvent):
                self._observe(node, event, lambda *_: self._list())
        self._list()
        self._emit("markupsNodeChanged()")
        self._emit("markupsFiducialNodeChanged()")

    def _list(self):
        node = self.currentNode()
        self._table.setRowCount(node.GetNumberOfControlPoints() if node else 0)
        for row in range(self._table.rowCount()):
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(row, position)
            for column, text in enumerate([node.GetNthControlPointLabel(row), *(f"{v:.1f}" for v in position)]):
                self._table.setItem(row, column, QtWidgets.QTableWidgetItem(text))
        self._emit("updateFinished()")

    def currentNode(self):
        return self._selector.currentNode()

    getCurrentNode = currentNode

    def placeActive(self, place):
        self._place.setPlaceModeEnabled(place)

    def interactionNode(self):
        return self._place.interactionNode()

    def markupsPlaceWidget(self):
        return self._place

    def markupsSelectorComboBox(self):
        return self._selector

    def tableWidget(self):
        return wrap(self._table)


@emulates("qMRMLTableView")
class _TableView:
    def setMRMLTableNode(self, node):
        self._unobserve()
        self._values["mrmlTableNode"] = node
        if node is not None:
            self._observe(node, "ModifiedEvent", lambda *_: self._list())
        self._list()

    def _list(self):
        model, node = QtGui.QStandardItemModel(self._qt), self.mrmlTableNode()
        for column in range(node.GetNumberOfColumns() if node else 0):
            values = [node.GetCellText(row, column) for row in range(node.GetNumberOfRows())]
            model.appendColumn([QtGui.QStandardItem(value) for value in values])
            model.setHorizontalHeaderItem(column, QtGui.QStandardItem(node.GetColumnName(column)))
        self._qt.setModel(model)


@emulates("qMRMLSegmentsTableView")
class _SegmentsTableView:
    Backing = Column

    def _setup(self):
        self._table = self._qt.add(QtWidgets.QListWidget())
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.ExtendedSelection)
        nothing = QtCore.QItemSelection()
        signature = "selectionChanged(QItemSelection,QItemSelection)"
        self._table.itemSelectionChanged.connect(lambda: self._emit(signature, (wrap(nothing), wrap(nothing))))

    def setSegmentationNode(self, node):
        import slicer

        self._unobserve()
        self._values["segmentationNode"] = node
        if node is not None:
            segmentation = slicer.vtkSegmentation
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._observe(node.GetSegmentation(), event, lambda *_: self._list())
        self._list()

    def _list(self):
        node = self.segmentationNode()
        self._table.clear()
        for segment_id in node.GetSegmentation().GetSegmentIDs() if node else ():
            item = QtWidgets.QListWidgetItem(node.GetSegmentation().GetSegment(segment_id).GetName(), self._table)
            item.setData(QtCore.Qt.ItemDataRole.UserRole, segment_id)

    def _items(self):
        return [self._table.item(row) for row in range(self._table.count())]

    segmentCount = property(lambda self: self._table.count())

    def selectedSegmentIDs(self):
        return tuple(i.data(QtCore.Qt.ItemDataRole.UserRole) for i in self._items() if i.isSelected())

    def setSelectedSegmentIDs(self, segment_ids):
        for item in self._items():
            item.setSelected(item.data(QtCore.Qt.ItemDataRole.UserRole) in segment_ids)

    def clearSelection(self):
        self._table.clearSelection()


@emulates("qMRMLPlotView")
class _PlotView:
    Backing = type("_Plot", (Placeholder,), {"sizeHint": lambda self: QtCore.QSize(200, 160)})


@emulates("qMRMLSegmentationShow3DButton")
class _Show3DButton:
    def _setup(self):
        self._qt.setText("Show 3D")
        self._qt.setCheckable(True)
