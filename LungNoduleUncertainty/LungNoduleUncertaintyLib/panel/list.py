"""The part of the panel that lists a segmentation's nodules, with what can be done to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import write_whole
from LungNoduleKit.scene.nodes import Node

from ..measuring import table as nodule_table
from ..measuring.size_classes import KINDS, size_classes, size_sentence
from ..scene import nodules, outputs
from ..scene.measured import ct_of
from ..scene.runs import SegmentationRuns

_NAME = 0  # the column of names
_WARNING_SIGN = "\u26a0"
_CLASS_PIXELS = 66  # least width of the last column, which stretches: "3 to 4A"


class NoduleList:
    """Shows the nodules of `segmentationNode`. `rerun(key)` segments one again; `report(text)` says what happened."""

    def __init__(self, ui: Any, runs: SegmentationRuns, rerun: Callable[[str], None], report: Callable[[str], None]):
        import qt
        from slicer.i18n import tr as _

        self.ui, self.runs, self._rerun, self._report = ui, runs, rerun, report
        self.segmentationNode: Node | None = None
        self._nodules: list[nodules.SegmentedNodule] = []
        self._filling = False
        table = ui.noduleTable
        table.horizontalHeader().defaultSectionSize = _CLASS_PIXELS
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Nodule"), _("Volume mm³"), _("Mean axis mm"), _("Class")])
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().defaultAlignment = qt.Qt.AlignLeft
        table.verticalHeader().setVisible(False)
        for kind in KINDS:
            ui.kindSelector.addItem(kind)
        table.connect("itemSelectionChanged()", self.onSelected)
        table.connect("itemChanged(QTableWidgetItem*)", self.onRenamed)
        for button, function in (
            (ui.rerunButton, self.onRerun),
            (ui.deleteButton, self.onDelete),
            (ui.undoButton, self.onUndo),
            (ui.tableButton, self.onTable),
            (ui.plotButton, self.onPlot),
            (ui.copyButton, self.onCopy),
            (ui.csvButton, self.onSave),
            (ui.measureButton, self.onMeasure),
        ):
            button.connect("clicked(bool)", function)
        ui.kindSelector.connect("activated(int)", self.onKind)
        self.refresh()

    @property
    def selected(self) -> nodules.SegmentedNodule | None:
        """The selected nodule, or None."""
        row = self.ui.noduleTable.currentRow()
        return self._nodules[row] if 0 <= row < len(self._nodules) else None

    def cts(self) -> list[Node]:
        """The CTs that the listed nodules were measured on."""
        found = [ct_of(self.segmentationNode, nodule.key) for nodule in self._nodules]
        return [ct for number, ct in enumerate(found) if ct is not None and ct not in found[:number]]

    def show(self, segmentationNode: Node | None) -> None:
        """Lists another segmentation's nodules; None: nothing."""
        self.segmentationNode = segmentationNode
        self.ui.show3DButton.setSegmentationNode(segmentationNode)
        self.refresh()

    def refresh(self, select_key: str | None = None) -> None:
        """Reads the list anew from the segments, keeping the selection or selecting the nodule with a key."""
        import qt

        keep = select_key or (self.selected.key if self.selected else None)
        alive = self.segmentationNode is not None and self.segmentationNode.GetScene() is not None
        self._nodules = nodules.nodules(self.segmentationNode) if alive else []
        table, self._filling = self.ui.noduleTable, True
        try:
            table.setRowCount(len(self._nodules))
            for row, nodule in enumerate(self._nodules):
                for column, text in enumerate(self._cells(nodule)):
                    item = qt.QTableWidgetItem(text)
                    if column != _NAME:
                        item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                    item.setToolTip("\n".join(self._notes(nodule)))
                    table.setItem(row, column, item)
            keys = [nodule.key for nodule in self._nodules]
            if keep in keys:
                table.selectRow(keys.index(keep))
            else:
                table.clearSelection()
                table.setCurrentCell(-1, -1)
            table.resizeColumnsToContents()
        finally:
            self._filling = False
        if alive and any(nodule.changes for nodule in self._nodules):
            outputs.update_table(self.segmentationNode, measure=False)
        self._show_selected()

    @staticmethod
    def _notes(nodule: nodules.SegmentedNodule) -> list[str]:
        from slicer.i18n import tr as _

        if not nodule.changes:
            return nodule.warnings
        return [_("Out of date: {changes}.").format(changes=", ".join(nodule.changes)), *nodule.warnings]

    def _cells(self, nodule: nodules.SegmentedNodule) -> list[str]:
        from slicer.i18n import tr as _

        if not nodule.measurements:
            return [nodule.name, _("out of date") if nodule.changes else "", "", ""]
        classes = size_classes(nodule.measurements, nodule.kind)
        ends = sorted(set(classes.values()))
        shown = ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"
        mark = f" {_WARNING_SIGN}" if nodule.warnings else ""
        return [nodule.name, *nodule_table.interval_text(nodule.measurements), shown + mark]

    def _show_selected(self) -> None:
        nodule, ui = self.selected, self.ui
        measurements = nodule.measurements if nodule is not None else None
        measured = bool(measurements)
        lines = [size_sentence(measurements, nodule.kind)] if nodule and measurements else []
        ui.sizeLabel.text = "\n".join([*lines, *(self._notes(nodule) if nodule else [])])
        ui.measureButton.visible = any(n.changes for n in self._nodules)
        ui.measureButton.enabled = not self.runs.busy
        changed = nodule is not None and bool(nodule.changes)
        for button in (ui.rerunButton, ui.deleteButton):
            button.enabled = nodule is not None and not self.runs.busy
        for widget in (ui.plotButton, ui.copyButton, ui.kindSelector):
            widget.enabled = measured or (changed and widget is not ui.kindSelector)
        if nodule is not None:
            ui.kindSelector.setCurrentIndex(KINDS.index(nodule.kind))
        for button in (ui.tableButton, ui.csvButton):
            button.enabled = any(n.measurements or n.changes for n in self._nodules)
        ui.undoButton.enabled = self.runs.can_undo and not self.runs.busy

    def onSelected(self) -> None:
        """A row was selected: the views go to its nodule."""
        if self._filling:
            return
        self._show_selected()
        nodule = self.selected
        if nodule is not None:
            self._guarded(lambda: jump(nodule.center_ras()))

    def onRenamed(self, item: Any) -> None:
        """A name in the table was edited."""
        if self._filling or item.column() != _NAME:
            return
        nodule = self._nodules[item.row()]
        if item.text() != nodule.name:
            self._guarded(lambda: self.runs.rename(self.segmentationNode, nodule.key, item.text()))
        self.refresh()

    def onRerun(self, *_unused: Any) -> None:
        """Segments the selected nodule again."""
        if self.selected is not None:
            self._rerun(self.selected.key)

    def onDelete(self, *_unused: Any) -> None:
        """Deletes the selected nodule."""
        nodule = self.selected
        if nodule is not None:
            self._guarded(lambda: self.runs.delete(self.segmentationNode, nodule.key))
        self.refresh()

    def onUndo(self, *_unused: Any) -> None:
        """Takes the last change back."""
        from slicer.i18n import tr as _

        what = self.runs.undo()
        self._report(_("Undone: {what}.").format(what=what) if what else _("There is nothing to undo."))
        self.refresh()

    def onMeasure(self, *_unused: Any) -> None:
        """Measures all nodules again whose numbers are out of date."""
        self._measure()
        outputs.update_table(self.segmentationNode)
        self.refresh()

    def _measure(self) -> None:
        """Brings the numbers up to date; says which nodules can't be measured, and why."""
        failed = nodules.bring_up_to_date(self.segmentationNode)
        self._report("\n".join(failed.values()))

    def onKind(self, index: int) -> None:
        """Another type was chosen for the selected nodule."""
        if self.selected is None:
            return
        nodules.set_kind(self.selected, KINDS[index])
        outputs.update_table(self.segmentationNode)
        self.refresh()

    def onTable(self, *_unused: Any) -> None:
        """Shows the table of measurements in a layout with a table view."""
        import slicer

        self._measure()
        table = outputs.measurement_table(self.segmentationNode)
        self.refresh()
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetActiveTableID(table.GetID())
        application.PropagateTableSelection()

    def onPlot(self, *_unused: Any) -> None:
        """Shows the density plot of the selected nodule in a layout with a plot view."""
        import slicer

        if self.selected is None:
            return
        chart = self._made(lambda nodule: outputs.plot_densities(nodule))
        if chart is None:
            return
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetActivePlotChartID(chart.GetID())
        application.PropagatePlotChartSelection()

    def onCopy(self, *_unused: Any) -> None:
        """Copies the selected nodule's measurements as text."""
        import qt
        from slicer.i18n import tr as _

        nodule = self._made(nodules.up_to_date)
        if nodule is None or nodule.measurements is None:
            return
        text = nodule_table.as_text(nodule.name, nodule.measurements, nodule.kind, nodule.model, nodule.warnings)
        qt.QApplication.clipboard().setText(text)
        self._report(_("The measurements of {name} were copied.").format(name=nodule.name))

    def onSave(self, *_unused: Any) -> None:
        """Saves all nodules' measurements as CSV."""
        import qt
        import slicer
        from slicer.i18n import tr as _

        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save measurements"), "nodules.csv", _("Comma-separated values (*.csv)")
        )
        if path and self._guarded(lambda: save_csv(self.segmentationNode, path)):
            self._report(_("The measurements were written to {path}.").format(path=path))

    def _made(self, function: Callable[[nodules.SegmentedNodule], Any]) -> Any:
        """What a function returns for the selected nodule; None if there is none, or where it says why it can't."""
        made = []
        nodule = self.selected
        if nodule is not None and self._guarded(lambda: made.append(function(nodule))):
            self.refresh()
        return made[0] if made else None

    def _guarded(self, function: Callable[[], object]) -> bool:
        try:
            function()
        except NoduleError as error:
            self._report(str(error))
            return False
        return True


def save_csv(segmentationNode: Node, path: str | Path) -> None:
    """Writes the measurements of a segmentation's nodules as CSV (UTF-8), whole or not at all. Raises OutputError."""
    text = nodule_table.as_csv(outputs.table_rows(segmentationNode))
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode("utf-8-sig")))


def jump(ras: Sequence[float]) -> None:
    """Moves all slice views to a position (R, A, S) in the world, mm, and turns the 3D views' camera around it."""
    import slicer

    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    for number in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLCameraNode")):
        camera = slicer.mrmlScene.GetNthNodeByClass(number, "vtkMRMLCameraNode")
        shift = [new - old for new, old in zip(ras, camera.GetFocalPoint(), strict=True)]
        camera.SetPosition([p + s for p, s in zip(camera.GetPosition(), shift, strict=True)])
        camera.SetFocalPoint(ras)
        camera.ResetClippingRange()
