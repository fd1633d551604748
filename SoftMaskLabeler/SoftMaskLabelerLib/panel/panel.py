"""The panel's behavior: choices, preview, Apply and Cancel, progress, status. Its widgets come from the `.ui` file."""

import logging

from LungNoduleKit.scene.worker import CancelledError

from ..errors import SoftMaskError
from ..scene.runs import Request, parameters_of
from .parameters import DIMENSIONS, pipeline_parameters
from .preview import TrimapPreview
from .sources import SourceChooser

_POLL_MS = 100
_LINES = 4  # of the status label


class Panel:
    """Connects `widget.ui` with `widget.logic`; `widget` observes nodes for it (VTKObservationMixin)."""

    def __init__(self, widget):
        import qt
        from slicer.i18n import tr as _

        self.widget, self.ui, self.logic, self.runs = widget, widget.ui, widget.logic, widget.logic.runs
        self._parameters = self._guiTag = None
        self._observed, self._updating = {}, False
        self._shown_choices = None
        for text in (_("2D, each by itself"), _("3D, all at once")):
            self.ui.dimensionSelector.addItem(text)
        for place in (self.ui.longPlaceWidget, self.ui.shortPlaceWidget):
            place.placeMultipleMarkups = place.ForcePlaceSingleMarkup
            place.deleteAllControlPointsOptionVisible = False
        self.sources = SourceChooser(self.ui, self._onParameters)
        self.preview = TrimapPreview(lambda: self.runs.trimap_computation(self._request()), self.report)
        self.timer = qt.QTimer()
        self.timer.setInterval(_POLL_MS)
        self.timer.connect("timeout()", self._poll)
        self.ui.dimensionSelector.connect("currentIndexChanged(int)", self._onChoice)
        self.ui.trimapSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        self.ui.previewCheckBox.connect("toggled(bool)", self._onPreview)
        for button, function in (
            (self.ui.applyButton, self.onApply),
            (self.ui.editButton, self.onEdit),
            (self.ui.undoButton, self.onUndo),
        ):
            button.connect("clicked(bool)", function)

    # Parameters ------------------------------------------------------------------------------------------------------

    def setParameters(self, parameters):
        """Shows a parameter node (wrapper) and keeps it up to date; None: lets go of the present one."""
        import vtk

        if self._parameters is not None:
            self._parameters.disconnectGui(self._guiTag)
            self.widget.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self._parameters = parameters
        if parameters is None:
            self._observe({})
            self.sources.show(None)
            self._shown_choices = None
            return
        self._guiTag = parameters.connectGui(self.ui)
        self.widget.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self._updating = True
        try:
            self.ui.trimapSelector.setCurrentNode(parameters.trimap)
            index = DIMENSIONS.index(parameters.dimension) if parameters.dimension in DIMENSIONS else 0
            self.ui.dimensionSelector.setCurrentIndex(index)
        finally:
            self._updating = False
        self._onParameters()

    def _onChoice(self, *_unused):
        """A widget that isn't bound to the parameters by itself was changed."""
        if self._updating or self._parameters is None:
            return
        self._updating = True
        try:
            self._parameters.dimension = DIMENSIONS[self.ui.dimensionSelector.currentIndex]
            self._parameters.trimap = self.ui.trimapSelector.currentNode()
        finally:
            self._updating = False
        self._onParameters()

    def _onParameters(self, *_unused):
        """The parameters changed: what is shown and what can be done follows."""
        if self._updating or self._parameters is None:
            return
        ui, parameters = self.ui, self._parameters
        self._updating = True
        try:
            self.sources.show(parameters)
        finally:
            self._updating = False
        ownTrimap, lines = parameters.trimap is not None, parameters.source == "lines"
        ui.automaticCheckBox.enabled = not ownTrimap
        for slider in (ui.erosionSlider, ui.dilationSlider):
            slider.enabled = not (ownTrimap or parameters.automatic)
        for widget in (ui.iterationsSpinBox, ui.iterationsSpinBoxLabel):
            widget.visible = lines and not ownTrimap
        for widget in (ui.dimensionSelector, ui.dimensionSelectorLabel):
            widget.visible = ownTrimap or not lines
        ui.previewCheckBox.enabled = not ownTrimap
        if ownTrimap:
            ui.previewCheckBox.checked = False
        self._observe(
            {"segmentation": parameters.markedSegmentation, "long": parameters.longLine, "short": parameters.shortLine}
        )
        self._schedule()
        self.update()

    def _schedule(self):
        """The preview follows what it depends on; showing a result in the panel doesn't count."""
        parameters = self._parameters
        nodes = (parameters.volume, parameters.markedSegmentation, parameters.longLine, parameters.shortLine)
        choices = (pipeline_parameters(parameters), parameters.source, tuple(parameters.markedSegments), nodes)
        if choices != self._shown_choices:
            self._shown_choices = choices
            self.preview.schedule()

    def _observe(self, nodes):
        """Marks count as soon as they are placed, painted or removed; nodes: {role: node or None}."""
        import slicer

        segmentation, markups = slicer.vtkSegmentation, slicer.vtkMRMLMarkupsNode
        names = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
        contents = (segmentation.SourceRepresentationModified, segmentation.RepresentationModified)
        points = (markups.PointModifiedEvent, markups.PointPositionDefinedEvent, markups.PointPositionUndefinedEvent)
        for role in {**self._observed, **nodes}:
            old, new = self._observed.get(role), nodes.get(role)
            if old is new:
                continue
            for event in (*names, *contents) if role == "segmentation" else (*points, markups.PointRemovedEvent):
                if old is not None:
                    self.widget.removeObserver(old, event, self._onMarks)
                if new is not None:
                    self.widget.addObserver(new, event, self._onMarks)
        self._observed = dict(nodes)

    def _onMarks(self, *_unused):
        if self._updating or self._parameters is None:
            return
        self.preview.schedule()
        self._onParameters()

    # Apply and Cancel ------------------------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why Apply can't run now, or an empty text."""
        try:
            self._request()
        except SoftMaskError as error:
            return str(error)
        return ""

    def _request(self):
        from slicer.i18n import tr as _

        parameters = self._parameters
        if parameters is None or parameters.volume is None:
            raise SoftMaskError(_("Select an image."))
        if parameters.windowLow >= parameters.windowHigh:
            raise SoftMaskError(_("The window must run from a lower to a higher value."))
        given = pipeline_parameters(parameters)
        parameters_of(given)
        return Request(parameters.volume, self.sources.source(parameters), given, parameters.segmentation)

    def update(self, *_unused):
        """Shows what can be done, and why not."""
        from slicer.i18n import tr as _

        ui, busy = self.ui, self.runs.busy
        problem = "" if busy else self.problem()
        button = ui.applyButton
        if busy:
            button.text, button.enabled, button.toolTip = _("Cancel"), True, _("Stop; nothing is added to the scene.")
        else:
            button.text, button.enabled = _("Apply"), not problem
            button.toolTip = problem or _("Make the soft mask.")
        ownTrimap = self._parameters is not None and self._parameters.trimap is not None
        ui.editButton.enabled = ownTrimap or not (busy or problem)
        ui.editButton.toolTip = (
            _("Open the edited trimap in its editor.")
            if ownTrimap
            else problem or _("Keep the trimap as a segmentation and edit it; Apply then uses it as you left it.")
        )
        ui.undoButton.enabled = self.runs.can_undo and not busy
        ui.progressBar.visible = busy

    def report(self, text):
        """What happened, in the panel; of many lines the first ones, all of them in the tooltip."""
        from slicer.i18n import tr as _

        lines = text.splitlines()
        if len(lines) > _LINES:
            lines[_LINES - 1 :] = [_("{n} more notes: see the tooltip.").format(n=len(lines) - _LINES + 1)]
        self.ui.statusLabel.text = "\n".join(lines)
        self.ui.statusLabel.toolTip = text

    def onApply(self, *_unused):
        """Apply, or Cancel while a soft mask is being computed."""
        from slicer.i18n import tr as _

        if self.runs.busy:
            self.cancel()
            self.report(_("Cancelled. Nothing was added."))
            return

        def start():
            request = self._request()
            if request.source.lines:
                self.logic.ensurePackages(interactive=True)
            self.runs.start(request)

        if self._guarded(start):
            self.report("")
            self.timer.start()
            self._poll()
        self.update()

    def cancel(self):
        """Stops a run; nothing of it reaches the scene."""
        self.timer.stop()
        self.runs.drop()
        self.update()

    def _poll(self):
        """Shows how far the run is, and stores it when it is done."""
        job = self.runs.job
        if job is None:
            self.timer.stop()
            return
        self.ui.progressBar.setValue(int(100 * job.share))
        self.ui.progressBar.setFormat(f"{job.stage} - %p%")
        if not job.finished:
            return
        self.timer.stop()
        self._guarded(lambda: self._show(self.runs.finish()))
        self.update()

    def _show(self, stored):
        """The soft mask is laid over the image, the segmentation chosen for the next one."""
        import slicer
        from slicer.i18n import tr as _

        if self._parameters is not None:
            self.ui.previewCheckBox.checked = False
            self._parameters.segmentation = stored.segmentationNode
        slicer.util.setSliceViewerLayers(foreground=stored.softMaskNode, foregroundOpacity=0.5)
        name = stored.softMaskNode.GetName()
        self.report("\n".join([_("{name} is done.").format(name=name), *stored.notes]))

    def _guarded(self, function) -> bool:
        """Whether a function came to its end; if not, the panel says why."""
        from slicer.i18n import tr as _

        try:
            function()
        except CancelledError:
            self.report(_("Cancelled. Nothing was added."))
        except SoftMaskError as error:
            self.report(str(error))
        except Exception as error:
            logging.exception("The soft mask couldn't be made")
            self.report(_("Failed: {reason}").format(reason=error))
        else:
            return True
        return False

    # Trimap and undo -------------------------------------------------------------------------------------------------

    def _onPreview(self, on):
        self.preview.switch(on)
        if not on:
            self.report("")

    def onEdit(self, *_unused):
        """Keeps the trimap as a segmentation, which Apply uses from now on, and opens the Segment Editor."""

        def edit():
            node = self._parameters.trimap
            if node is None:
                node = self.runs.add_trimap(self._request(), segments=True)
                self._parameters.trimap = node
                self.ui.trimapSelector.setCurrentNode(node)
            open_editor(node, self._parameters.volume)

        self._guarded(edit)
        self._onParameters()

    def onUndo(self, *_unused):
        from slicer.i18n import tr as _

        what = self.runs.undo()
        self.report(_("Undone: {what}.").format(what=what) if what else _("There is nothing to undo."))
        self._onParameters()

    # Scene -----------------------------------------------------------------------------------------------------------

    def leave(self):
        """Another module is opened: the preview goes; a run goes on."""
        self.ui.previewCheckBox.checked = False
        self.setParameters(None)

    def close(self):
        """The scene or the module is being closed: nothing is stored any more, nothing is observed."""
        from slicer.i18n import tr as _

        stopped = self.runs.busy
        self.timer.stop()
        self.runs.forget()
        self.leave()
        self.update()
        if stopped:
            self.report(_("The scene was closed. Nothing was added."))


def open_editor(node, volumeNode):
    """Opens a trimap for editing: a segmentation in the Segment Editor, with the image beneath."""
    import slicer

    if not node.IsA("vtkMRMLSegmentationNode"):
        slicer.util.selectModule("Volumes")
        return
    slicer.util.selectModule("SegmentEditor")
    editor = getattr(getattr(slicer.modules, "SegmentEditorWidget", None), "editor", None)
    if editor is not None:
        editor.setSegmentationNode(node)
        editor.setSourceVolumeNode(volumeNode)
