"""The panel's behavior: choices, Apply and Cancel, progress, status. Its widgets come from the module's `.ui` file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.panel.run_panel import RunPanel, index_of

from ..scene import nodules
from ..scene.points import last_point, line_middle, new_point_list
from ..scene.runs import SegmentationRequest, StoredNodule
from .list import NoduleList, jump
from .models import ModelChooser
from .parameters import (
    AVERAGING_CHOICES,
    DEVICES,
    INTERVAL_MAP_CHOICES,
    MAP_CHOICES,
    SOURCES,
    THRESHOLD_CHOICES,
)


class NodulePanel(RunPanel):
    """Connects `widget.ui` with `widget.logic`."""

    failed = "The nodule couldn't be segmented"

    def __init__(self, widget: Any):
        super().__init__(widget)
        self._fill_choices()
        self.models = ModelChooser(self.ui, self._onChoice, self.report)
        self.list = NoduleList(self.ui, self.runs, self.rerun, self.report)
        self._connect()

    def _fill_choices(self) -> None:
        from slicer.i18n import tr as _

        for selector, texts in (
            (self.ui.sourceSelector, (_("Point"), _("Segment"), _("RECIST line"))),
            (self.ui.deviceSelector, (_("Automatic"), _("CPU"), _("GPU (CUDA)"))),
            (self.ui.averagingSelector, (_("Set by the model"), _("One pass (fastest)"), _("Three views (slowest)"))),
        ):
            for text in texts:
                selector.addItem(text)

    def _connect(self) -> None:
        ui = self.ui
        for selector in (ui.sourceSelector, ui.deviceSelector, ui.averagingSelector):
            selector.connect("currentIndexChanged(int)", self._onChoice)
        ui.pointSelector.connect("markupsNodeChanged()", self._onChoice)
        ui.placeButton.connect("clicked(bool)", self.onPlace)
        ui.pointSelector.connect("activeMarkupsPlaceModeChanged(bool)", self._onPlacing)
        ui.segmentSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        ui.segmentSelector.connect("currentSegmentChanged(QString)", self._onChoice)
        ui.advancedButton.connect("contentsCollapsed(bool)", self._show_outputs)

    def onPlace(self, on: bool) -> None:
        """Lets the next click into a view place a point, in a new list if none is chosen; or ends that.

        The place widget's own buttons are hidden: they can't be used before a list was made by hand.
        """
        selector, parameters = self.ui.pointSelector, self._parameters
        if on and parameters is not None and parameters.points is None:
            parameters.points = new_point_list()
        selector.placeActive(on)
        self._onPlacing(selector.markupsPlaceWidget().placeModeEnabled)

    def _onPlacing(self, on: bool) -> None:
        self.ui.placeButton.checked = bool(on)

    # Parameters ------------------------------------------------------------------------------------------------------

    def showChoices(self, parameters: Any) -> None:
        ui = self.ui
        ui.sourceSelector.setCurrentIndex(index_of(SOURCES, parameters.source))
        ui.deviceSelector.setCurrentIndex(index_of(DEVICES, parameters.device))
        ui.averagingSelector.setCurrentIndex(index_of(tuple(AVERAGING_CHOICES), parameters.stacks))
        ui.pointSelector.setCurrentNode(parameters.points)
        ui.segmentSelector.setCurrentNode(parameters.markedSegmentation)
        ui.segmentSelector.setCurrentSegmentID(parameters.markedSegment)
        if parameters.model:
            self.models.choose(parameters.model)

    def setParameters(self, parameters: Any) -> None:
        """Shows a parameter node (wrapper) and keeps it up to date; None: stops observing the present one."""
        super().setParameters(parameters)
        if parameters is None:
            self.list.show(None)
        self._onChoice()

    def _onChoice(self, *_unused: Any) -> None:
        """A widget that isn't bound to the parameters by itself was changed."""
        if not self.idle:
            return
        ui, parameters = self.ui, self._parameters
        with self.updating():
            parameters.source = SOURCES[ui.sourceSelector.currentIndex]
            parameters.device = DEVICES[ui.deviceSelector.currentIndex]
            parameters.stacks = tuple(AVERAGING_CHOICES)[ui.averagingSelector.currentIndex]
            parameters.points = ui.pointSelector.currentNode()
            parameters.markedSegmentation = ui.segmentSelector.currentNode()
            parameters.markedSegment = ui.segmentSelector.currentSegmentID() or ""
            parameters.model = self.models.name
            if parameters.calibrated:
                self._show_calibrated()
        self.onParameters()

    def _show_calibrated(self) -> None:
        try:
            thresholds = self.models.summary().thresholds
        except NoduleError:
            return
        for name, output in THRESHOLD_CHOICES.items():
            if output in thresholds:
                setattr(self._parameters, name, float(thresholds[output]))

    def onParameters(self, *_unused: Any) -> None:
        """The parameters changed: what is shown and what can be done follows."""
        if not self.idle:
            return
        self.showParameters()
        ui, parameters = self.ui, self._parameters
        for source, widgets in {
            "point": (ui.pointSelector, ui.pointSelectorLabel, ui.placeButton),
            "segment": (ui.segmentSelector, ui.segmentSelectorLabel),
            "line": (ui.lineSelector, ui.lineSelectorLabel),
        }.items():
            for widget in widgets:
                widget.visible = parameters.source == source
        for slider in (ui.hcSlider, ui.finalSlider, ui.lcSlider):
            slider.enabled = not parameters.calibrated
        self._show_outputs()
        if parameters.calibrated:
            with self.updating():
                self._show_calibrated()
        self._observe()
        self.update()

    def _show_outputs(self, *_unused: Any) -> None:
        """Shows only the choices that the chosen model has."""
        from slicer.i18n import tr as _

        ui, outputs = self.ui, self.models.outputs
        if outputs is None:
            return
        if not ui.advancedButton.collapsed:  # what is collapsed is shown and hidden by the button itself
            for widget in (ui.hcSlider, ui.hcSliderLabel, ui.lcSlider, ui.lcSliderLabel):
                widget.visible = outputs.has_interval
            for widget in (ui.lcMapCheckBox, ui.confidenceMapCheckBox):
                widget.visible = "union" in outputs.probabilities
        box = ui.finalMapCheckBox
        if outputs.final_map == "soft":
            box.text = _("Soft mask as volume")
            box.toolTip = _("Adds the soft mask as a volume; Final is where it reaches the threshold.")
        else:
            box.text = _("Final probability as volume")
            box.toolTip = _("Adds a volume: the probability that at least half of the readers include a voxel.")

    def _has_map(self, name: str) -> bool:
        """Whether the chosen model has a map of `MAP_CHOICES`."""
        outputs = self.models.outputs
        return outputs is None or name not in INTERVAL_MAP_CHOICES or "union" in outputs.probabilities

    def _observe(self) -> None:
        """Points and ends of a line count as soon as they are placed; segments and the CTs that they were measured on
        as soon as they change."""
        import slicer
        import vtk

        parameters, markups, segmentation = self._parameters, slicer.vtkMRMLMarkupsNode, slicer.vtkSegmentation
        placed = (markups.PointPositionDefinedEvent, markups.PointPositionUndefinedEvent, markups.PointRemovedEvent)
        changed = (
            *(segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified),
            *(segmentation.SourceRepresentationModified, slicer.vtkMRMLTransformableNode.TransformModifiedEvent),
        )
        self.observers.observe("points", parameters.points, placed, self.update)
        self.observers.observe("line", parameters.line, placed, self.update)
        if self.observers.observe("segmentation", parameters.segmentation, changed, self._onSegments):
            self.list.show(parameters.segmentation)
        volume = slicer.vtkMRMLVolumeNode
        of_ct = (volume.ImageDataModifiedEvent, volume.TransformModifiedEvent, vtk.vtkCommand.ModifiedEvent)
        for number, ct in enumerate(self.list.cts()):
            self.observers.observe(f"CT {number}", ct, of_ct, self._onSegments)

    def onSceneChanged(self) -> None:
        super().onSceneChanged()
        self.list.refresh()

    def _onSegments(self, *_unused: Any) -> None:
        if not self._updating:
            self.list.refresh()

    # Apply and Cancel ------------------------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why Apply can't run now, or an empty text."""
        from slicer.i18n import tr as _

        parameters = self._parameters
        if parameters is None or parameters.volume is None:
            return _("Select a CT.")
        try:
            self._place()
        except NoduleError as error:
            return str(error)
        return self.models.problem()

    def _place(self) -> dict[str, Any]:
        """The nodule's place as a field of a request. Raises `NoduleError` while there is none."""
        from slicer.i18n import tr as _

        parameters = self._parameters
        if parameters.source == "point":
            if parameters.points is None:
                raise NoduleError(_("Place a point on the nodule."))
            return {"point": last_point(parameters.points)}
        if parameters.source == "line":
            if parameters.line is None:
                raise NoduleError(_("Draw a line along an axis of the nodule."))
            line_middle(parameters.line)
            return {"near": parameters.line}
        node, segment_id = parameters.markedSegmentation, parameters.markedSegment
        if node is None or node.GetSegmentation().GetSegment(segment_id) is None:
            raise NoduleError(_("Select a segment of the nodule."))
        return {"near": (node, segment_id)}

    def applyToolTip(self) -> str:
        from slicer.i18n import tr as _

        return _("Segment the nodule.")

    def request(self) -> SegmentationRequest:
        return self._request(**self._place())

    def _request(self, **more: Any) -> SegmentationRequest:
        parameters, outputs = self._parameters, self.models.outputs
        return SegmentationRequest(
            parameters.volume,
            segmentationNode=parameters.segmentation,
            model=parameters.model or None,
            device=parameters.device,
            thresholds=None
            if parameters.calibrated
            else {
                output: getattr(parameters, name)
                for name, output in THRESHOLD_CHOICES.items()
                if outputs is None or output in outputs.thresholds
            },
            averaging=AVERAGING_CHOICES[parameters.stacks],
            maps=tuple(MAP_CHOICES[name] for name in MAP_CHOICES if getattr(parameters, name) and self._has_map(name)),
            **more,
        )

    def rerun(self, key: str) -> None:
        """Segments a nodule of the list again, with the present settings, from the point that was placed."""

        def request() -> SegmentationRequest:
            nodule = nodules.find(self._parameters.segmentation, key)
            return self._request(point=nodule.point_ras(), replace=key)

        self.start(request)

    def prepared(self, make_request: Callable[[], Any]) -> Any:
        self.logic.ensurePackages(interactive=True)
        return make_request()

    def start(self, make_request: Callable[[], Any]) -> None:
        """Starts a run; what keeps it from running is said in the panel."""
        super().start(make_request)
        self.list.refresh()

    def cancel(self) -> None:
        """Stops a run; nothing of it reaches the scene."""
        super().cancel()
        self.list.refresh()

    def store(self) -> None:
        with self.updating():  # segments that are only half there aren't listed
            stored = self.runs.finish()
        self.showStored(stored)

    def showStored(self, stored: StoredNodule) -> None:
        """The views go to the new nodule, the list selects it."""
        from slicer.i18n import tr as _

        if self._parameters is not None:  # None: another scene was being read when the module was left
            self._parameters.segmentation = stored.segmentationNode
        if stored.created:  # all of it is ours: its surfaces are made in no time
            stored.segmentationNode.CreateClosedSurfaceRepresentation()
        self.list.refresh(stored.nodule.key)
        self.onParameters()
        jump(stored.nodule.center_ras())
        self.logic.lastResult = stored.result
        lines = []
        for one in (*stored.before, stored):
            lines += [_("{name} is done.").format(name=one.nodule.name), *one.result.warnings]
        lines += stored.notes
        if stored.removed:
            removed = _("{parts} of the run before were removed: the model has none. Undo brings them back.")
            lines.append(removed.format(parts=", ".join(stored.removed)))
        self.report("\n".join(lines))
