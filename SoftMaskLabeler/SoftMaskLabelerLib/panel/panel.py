"""The panel's behavior: choices, preview, Apply and Cancel, progress, status. Its widgets come from the `.ui` file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from LungNoduleKit.panel.layers import OverlaidVolumes
from LungNoduleKit.panel.run_panel import RunPanel, index_of
from LungNoduleKit.scene.transforms import Node

from ..errors import SoftMaskError
from ..scene.runs import SoftMaskRequest, StoredSoftMask, parameters_of
from .parameters import DIMENSIONS, pipeline_parameters
from .preview import TrimapPreview
from .sources import SourceChooser

_LINES = 4  # of the status label


class SoftMaskPanel(RunPanel):
    """Connects `widget.ui` with `widget.logic`."""

    failed = "The soft mask couldn't be made"

    def __init__(self, widget: Any):
        from slicer.i18n import tr as _

        super().__init__(widget)
        self._shown_choices: Any = None
        for text in (_("2D, each by itself"), _("3D, all at once")):
            self.ui.dimensionSelector.addItem(text)
        for place in (self.ui.longPlaceWidget, self.ui.shortPlaceWidget):
            place.placeMultipleMarkups = place.ForcePlaceSingleMarkup
            place.deleteAllControlPointsOptionVisible = False
        self.overlaid = OverlaidVolumes("Foreground")
        self.sources = SourceChooser(self.ui, self.onParameters)
        self.preview = TrimapPreview(lambda: self.runs.trimap_computation(self.request()), self.report)
        self.ui.dimensionSelector.connect("currentIndexChanged(int)", self._onChoice)
        self.ui.trimapSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        self.ui.previewCheckBox.connect("toggled(bool)", self._onPreview)
        self.ui.editButton.connect("clicked(bool)", self.onEdit)
        self.ui.undoButton.connect("clicked(bool)", self.onUndo)

    # Parameters ------------------------------------------------------------------------------------------------------

    def setParameters(self, parameters: Any) -> None:
        """Shows a parameter node (wrapper) and keeps it up to date; None: stops observing the present one."""
        super().setParameters(parameters)
        if parameters is None:
            self.sources.show(None)
            self._shown_choices = None

    def showChoices(self, parameters: Any) -> None:
        self.ui.trimapSelector.setCurrentNode(parameters.trimap)
        self.ui.dimensionSelector.setCurrentIndex(index_of(DIMENSIONS, parameters.dimension))

    def _onChoice(self, *_unused: Any) -> None:
        """A widget that isn't bound to the parameters by itself was changed."""
        if not self.idle:
            return
        with self.updating():
            self._parameters.dimension = DIMENSIONS[self.ui.dimensionSelector.currentIndex]
            self._parameters.trimap = self.ui.trimapSelector.currentNode()
        self.onParameters()

    def onParameters(self, *_unused: Any) -> None:
        """The parameters changed: what is shown and what can be done follows."""
        if not self.idle:
            return
        self.showParameters()
        ui, parameters = self.ui, self._parameters
        with self.updating():
            self.sources.show(parameters)
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
        self._observe()
        self._schedule()
        self.update()

    def _schedule(self) -> None:
        """The preview follows what it depends on; showing a result in the panel doesn't count."""
        parameters = self._parameters
        nodes = (parameters.volume, parameters.markedSegmentation, parameters.longLine, parameters.shortLine)
        choices = (pipeline_parameters(parameters), parameters.source, tuple(parameters.markedSegments), nodes)
        if choices != self._shown_choices:
            self._shown_choices = choices
            self.preview.schedule()

    def _observe(self) -> None:
        """Marks count as soon as they are placed, painted or removed."""
        import slicer

        segmentation, markups = slicer.vtkSegmentation, slicer.vtkMRMLMarkupsNode
        segments = (
            *(segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified),
            *(segmentation.SourceRepresentationModified, segmentation.RepresentationModified),
        )
        points = (
            *(markups.PointModifiedEvent, markups.PointPositionDefinedEvent),
            *(markups.PointPositionUndefinedEvent, markups.PointRemovedEvent),
        )
        self.observers.observe("segmentation", self._parameters.markedSegmentation, segments, self._onMarks)
        for role, line in (("long", self._parameters.longLine), ("short", self._parameters.shortLine)):
            self.observers.observe(role, line, points, self._onMarks)

    def _onMarks(self, *_unused: Any) -> None:
        if self.idle:
            self.preview.schedule()
            self.onParameters()

    # Apply and Cancel ------------------------------------------------------------------------------------------------

    def request(self) -> SoftMaskRequest:
        from slicer.i18n import tr as _

        parameters = self._parameters
        if parameters is None or parameters.volume is None:
            raise SoftMaskError(_("Select an image."))
        if parameters.windowLow >= parameters.windowHigh:
            raise SoftMaskError(_("The window must run from a lower to a higher value."))
        given = pipeline_parameters(parameters)
        parameters_of(given)
        return SoftMaskRequest(parameters.volume, self.sources.source(parameters), given, parameters.segmentation)

    def prepared(self, make_request: Callable[[], SoftMaskRequest]) -> SoftMaskRequest:
        request = make_request()
        if request.source.lines:
            self.logic.ensurePackages(interactive=True)
        return request

    def applyToolTip(self) -> str:
        from slicer.i18n import tr as _

        return _("Make the soft mask.")

    def update(self, *_unused: Any) -> None:
        """Shows what can be done, and why not."""
        from slicer.i18n import tr as _

        super().update()
        ui, busy = self.ui, self.runs.busy
        problem = "" if busy or ui.applyButton.enabled else ui.applyButton.toolTip
        ownTrimap = self._parameters is not None and self._parameters.trimap is not None
        ui.editButton.enabled = ownTrimap or not (busy or problem)
        ui.editButton.toolTip = (
            _("Open the edited trimap in its editor.")
            if ownTrimap
            else problem or _("Keep the trimap as a segmentation and edit it; Apply then uses it as you left it.")
        )
        ui.undoButton.enabled = self.runs.can_undo and not busy

    def report(self, text: str) -> None:
        """What happened, in the panel; of many lines the first ones, all of them in the tooltip."""
        from slicer.i18n import tr as _

        lines = text.splitlines()
        if len(lines) > _LINES:
            lines[_LINES - 1 :] = [_("{n} more notes: see the tooltip.").format(n=len(lines) - _LINES + 1)]
        super().report("\n".join(lines))
        self.ui.statusLabel.toolTip = text

    def showStored(self, stored: StoredSoftMask) -> None:
        """The soft mask is laid over the image, the segmentation chosen for the next one."""
        from slicer.i18n import tr as _

        if self._parameters is not None:
            self.ui.previewCheckBox.checked = False
            self._parameters.segmentation = stored.segmentationNode
        self.overlaid.show(stored.softMaskNode, 0.5)
        name = stored.softMaskNode.GetName()
        self.report("\n".join([_("{name} is done.").format(name=name), *stored.notes]))

    # Trimap and undo -------------------------------------------------------------------------------------------------

    def _onPreview(self, on: bool) -> None:
        self.preview.switch(on)
        if not on:
            self.report("")

    def onEdit(self, *_unused: Any) -> None:
        """Keeps the trimap as a segmentation, which Apply uses from now on, and opens the Segment Editor."""

        def edit() -> None:
            node = self._parameters.trimap
            if node is None:
                node = self.runs.add_trimap(self.request(), segments=True)
                self._parameters.trimap = node
                self.ui.trimapSelector.setCurrentNode(node)
            open_editor(node, self._parameters.volume)

        self.guarded(edit)
        self.onParameters()

    def onUndo(self, *_unused: Any) -> None:
        self.undo()
        self.onParameters()

    # Scene -----------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Another module is opened: the preview goes; a run goes on."""
        self.ui.previewCheckBox.checked = False
        self.setParameters(None)

    def onRemoving(self, node: Any) -> None:
        self.overlaid.take_away(node)
        super().onRemoving(node)

    def close(self) -> None:
        self.leave()
        self.overlaid.forget()
        super().close()

    def end(self) -> None:
        super().end()
        self.preview.worker.stop()


def open_editor(node: Node, volumeNode: Node) -> None:
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
