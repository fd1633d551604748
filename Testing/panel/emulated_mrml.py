"""What the stand-ins of Slicer's MRML widgets do, on the real scene; names checked against the list."""

from typing import ClassVar

from PySide6 import QtCore, QtWidgets

from stand_ins import emulates, stand_in_class


def _busy(scene):
    """Whether a scene is in a state in which Slicer's models don't follow it."""
    return bool(scene.IsImporting() or scene.IsClosing())


class _Combo(QtWidgets.QComboBox):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)


class Column(QtWidgets.QWidget):
    """Widgets below each other, or in a row."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.box = QtWidgets.QVBoxLayout(self)
        self.box.setContentsMargins(0, 0, 0, 0)

    def add(self, widget, stretch=0):
        self.box.addWidget(widget, stretch)
        return widget


class Row(Column):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.box.setDirection(QtWidgets.QBoxLayout.Direction.LeftToRight)


@emulates("qMRMLNodeComboBox")
class _NodeComboBox:
    """The nodes of the scene of the given types, as rows of a combo box; rows for actions may come after them.

    As in Slicer, the row of a node goes when the node is about to be removed, and a combo box whose current row goes
    moves on to the next row, or to the last node, or to "None". Nothing follows while a scene is imported or closed; at
    the end of either all rows are made anew, and nothing is chosen.
    """

    Backing = _Combo
    initial: ClassVar = {
        **dict.fromkeys(("addEnabled", "removeEnabled", "showChildNodeTypes"), True),
        **dict.fromkeys(("noneEnabled", "editEnabled", "renameEnabled", "showHidden"), False),
        "selectNodeUponCreation": True,
        "noneDisplay": "None",
    }

    def _setup(self):
        self._scene, self._current, self._attributes, self._nodes = None, None, [], []
        self._qt.activated.connect(lambda row: self._choose(self._qt.itemData(row)))

    def _changed(self, name, value):
        if name in self._initial or name in ("nodeTypes", "hideChildNodeTypes"):
            self._refresh()

    def setMRMLScene(self, scene):
        import vtk

        self._unobserve()
        self._scene = scene
        if scene is not None:

            def removing(scene, event, node):
                self._remove(node)

            removing.CallDataType = vtk.VTK_OBJECT
            self._observe(scene, scene.NodeAboutToBeRemovedEvent, removing)
            self._observe(scene, scene.NodeAddedEvent, lambda *_: self._refresh())
            for event in (scene.EndImportEvent, scene.EndCloseEvent):
                self._observe(scene, event, lambda *_: self._reset(), 10.0)
        self._refresh()
        if self._current is None and self._nodes and not self.noneEnabled:
            self._choose(self._nodes[0])

    def mrmlScene(self):
        return self._scene

    def _fits(self, node):
        kinds = self.nodeTypes
        fits = any(node.IsA(k) if self.showChildNodeTypes else node.GetClassName() == k for k in kinds)
        if not fits or node.GetClassName() in self.hideChildNodeTypes:
            return False
        for kind, name, value in self._attributes:
            if node.IsA(kind) and (node.GetAttribute(name) is None or value not in (None, node.GetAttribute(name))):
                return False
        return self.showHidden or not node.GetHideFromEditors()

    def _refresh(self):
        scene = self._scene
        if scene is not None and _busy(scene):
            return
        nodes = [] if scene is None else [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        nodes = [node for node in nodes if self._fits(node)]
        for node in self._nodes:
            if node not in nodes:
                self._unobserve(node)
        for node in nodes:
            if node not in self._nodes:
                self._observe(node, "ModifiedEvent", lambda *_: self._list())
        was_empty, self._nodes = not self._rows() + self._actions(), nodes
        self._list()
        if self._current not in nodes:
            self._choose(nodes[0] if was_empty and len(nodes) == 1 else None)

    def _rows(self):
        return [None] * bool(self.noneEnabled) + self._nodes

    def _actions(self):
        """Rows below the nodes, such as "Rename current volume"."""
        return [n for n in ("renameEnabled", "editEnabled", "addEnabled", "removeEnabled") if getattr(self, n)]

    def _remove(self, node):
        if node not in self._nodes or _busy(self._scene):
            return
        rows = self._rows()
        row = rows.index(self._current) if self._current in rows else -1
        self._unobserve(node)
        self._nodes.remove(node)
        self._list()
        if self._current is not node:
            return
        rows = self._rows()
        last = self._nodes[-1] if self._nodes else None
        self._choose(rows[row] if row < len(rows) else last)

    def _reset(self):
        self._choose(None)
        self._refresh()

    def _list(self):
        """Shows the names."""
        self._qt.clear()
        if self.noneEnabled:
            self._qt.addItem(self.noneDisplay, None)
        for node in self._nodes:
            self._qt.addItem(node.GetName() or node.GetID(), node)
        rows = [None] * bool(self.noneEnabled) + self._nodes
        self._qt.setCurrentIndex(rows.index(self._current) if self._current in rows else -1)

    def _choose(self, node):
        if node is self._current:
            return
        self._current = node
        self._list()
        self._emit("currentNodeChanged(vtkMRMLNode*)", (node,))
        self._emit("currentNodeChanged(bool)", (node is not None,))
        self._emit("currentNodeIDChanged(QString)", (self.currentNodeID,))

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node):
        if isinstance(node, str):
            node = next((n for n in self._nodes if n.GetID() == node), None)
        self._choose(node if node in self._nodes else None)

    setCurrentNodeID = setCurrentNode

    def setCurrentNodeIndex(self, index):
        self._choose(self._nodes[index] if 0 <= index < len(self._nodes) else None)

    currentNodeID = property(lambda self: self._current.GetID() if self._current else "", setCurrentNode)
    currentNodeId = currentNodeID

    def nodeCount(self):
        return len(self._nodes)

    def nodeFromIndex(self, index):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def addAttribute(self, node_type, name, value=None):
        self._attributes.append((node_type, name, value))
        self._refresh()

    def removeAttribute(self, node_type, name):
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, name)]
        self._refresh()

    def addNode(self, node_type=None):
        node = self._scene.AddNewNodeByClass(
            node_type or self.nodeTypes[0], self._scene.GenerateUniqueName(self.baseName or "Node")
        )
        for signal in ("nodeAdded", "nodeAddedByUser"):
            self._emit(f"{signal}(vtkMRMLNode*)", (node,))
        if self.selectNodeUponCreation:
            self._choose(node)

    def removeCurrentNode(self):
        self._scene.RemoveNode(self._current)


@emulates("qMRMLCheckableNodeComboBox")
class _CheckableNodeComboBox:
    def checkedNodes(self):
        return tuple(node for node in self._nodes if node in self._values.get("checked", ()))

    def uncheckedNodes(self):
        return tuple(node for node in self._nodes if node not in self._values.get("checked", ()))

    def check(self, node):
        self.setCheckState(node, 2)

    def uncheck(self, node):
        self.setCheckState(node, 0)

    def checkState(self, node):
        return QtCore.Qt.CheckState.Checked if node in self.checkedNodes() else QtCore.Qt.CheckState.Unchecked

    def setCheckState(self, node, state):
        checked = [n for n in self._values.get("checked", []) if n is not node]
        self._values["checked"] = [*checked, node] if state in (2, QtCore.Qt.CheckState.Checked) else checked
        self._emit("checkedNodesChanged()")

    def allChecked(self):
        return len(self.checkedNodes()) == len(self._nodes)

    def noneChecked(self):
        return not self.checkedNodes()


@emulates("qMRMLSegmentSelectorWidget")
class _SegmentSelector:
    """A segmentation and one of its segments; without `noneEnabled` the first ones are chosen by themselves."""

    Backing = Row
    initial: ClassVar = {"segmentationNodeSelectorVisible": True, "noneEnabled": False}

    def _setup(self):
        self._selector = stand_in_class("qMRMLNodeComboBox")()
        self._selector.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._qt.add(self._selector._qt, 1)
        self._segments = self._qt.add(_Combo(), 1)
        self._segment_id = ""
        self._segments.activated.connect(lambda row: self._choose(self._segments.itemData(row)))
        self._selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self._new_node(node))

    def _changed(self, name, value):
        if name == "noneEnabled":
            self._selector.noneEnabled = value
            self._refresh()
        elif name == "segmentationNodeSelectorVisible":
            self._selector._qt.setVisible(value)

    def setMRMLScene(self, scene):
        self._selector.setMRMLScene(scene)
        self._emit("mrmlSceneChanged(vtkMRMLScene*)", (scene,))

    def mrmlScene(self):
        return self._selector.mrmlScene()

    def _new_node(self, node):
        import slicer

        self._unobserve()
        if node is not None:
            segmentation = slicer.vtkSegmentation
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._observe(node.GetSegmentation(), event, lambda *_: self._refresh())
        self._refresh()
        self._emit("currentNodeChanged(vtkMRMLNode*)", (node,))
        self._emit("currentNodeChanged(bool)", (node is not None,))

    def segmentIDs(self):
        node = self.currentNode()
        return tuple(node.GetSegmentation().GetSegmentIDs()) if node else ()

    def _refresh(self):
        ids = self.segmentIDs()
        self._segments.clear()
        if self.noneEnabled:
            self._segments.addItem("None", "")
        for segment_id in ids:
            self._segments.addItem(self.currentNode().GetSegmentation().GetSegment(segment_id).GetName(), segment_id)
        first = ids[0] if ids and not self.noneEnabled else ""
        self._choose(self._segment_id if self._segment_id in ids else first)

    def _choose(self, segment_id):
        self._segments.setCurrentIndex(self._segments.findData(segment_id))
        if segment_id != self._segment_id:
            self._segment_id = segment_id
            self._emit("currentSegmentChanged(QString)", (segment_id,))

    def currentNode(self):
        return self._selector.currentNode()

    def currentNodeID(self):
        return self._selector.currentNodeID

    def setCurrentNode(self, node):
        self._selector.setCurrentNode(node)

    def setCurrentNodeID(self, node_id):
        self._selector.setCurrentNodeID(node_id)

    def currentSegmentID(self):
        return self._segment_id

    def setCurrentSegmentID(self, segment_id):
        self._choose(segment_id if segment_id in self.segmentIDs() else "")
