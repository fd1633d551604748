"""The panel's behavior: choices, Apply and Cancel, progress, status. Its widgets come from the module's `.ui` file."""

import logging

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.scene.worker import CancelledError

from ..outlining.prediction import Averaging
from ..scene import nodules as mrml_nodules
from ..scene import runs as mrml_runs
from .list import NoduleList, jump
from .models import ModelChooser
from .parameters import DEVICES, INTERVAL_MAPS, MAPS, SOURCES, STACKS, THRESHOLDS

_POLL_MS = 100


class Panel:
    """Connects `widget.ui` with `widget.logic`; `widget` observes nodes for it (VTKObservationMixin)."""

    def __init__(self, widget):
        import qt

        self.widget, self.ui, self.logic = widget, widget.ui, widget.logic
        self.runs = widget.logic.runs
        self._parameters = self._guiTag = self._observedPoints = self._observedLine = None
        self._observedSegmentation, self._updating = None, False
        self._fill_choices()
        self.models = ModelChooser(self.ui, self._onChoice, self.report)
        self.list = NoduleList(self.ui, self.runs, self.rerun, self.report)
        self.timer = qt.QTimer()
        self.timer.setInterval(_POLL_MS)
        self.timer.connect("timeout()", self._poll)
        self._connect()

    def _fill_choices(self):
        from slicer.i18n import tr as _

        for selector, texts in (
            (self.ui.sourceSelector, (_("Point"), _("Segment"), _("RECIST line"))),
            (self.ui.deviceSelector, (_("Automatic"), _("CPU"), _("GPU (CUDA)"))),
            (self.ui.averagingSelector, (_("As the model says"), _("Single pass, fastest"), _("Three views, slowest"))),
        ):
            for text in texts:
                selector.addItem(text)

    def _connect(self):
        ui = self.ui
        for selector in (ui.sourceSelector, ui.deviceSelector, ui.averagingSelector):
            selector.connect("currentIndexChanged(int)", self._onChoice)
        ui.pointSelector.connect("markupsNodeChanged()", self._onChoice)
        ui.segmentSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChoice)
        ui.segmentSelector.connect("currentSegmentChanged(QString)", self._onChoice)
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.advancedButton.connect("contentsCollapsed(bool)", self._show_outputs)

    # Parameters ------------------------------------------------------------------------------------------------------

    def setParameters(self, parameters):
        """Shows a parameter node (wrapper) and keeps it up to date; None: lets go of the present one."""
        import vtk

        if self._parameters is not None:
            self._parameters.disconnectGui(self._guiTag)
            self.widget.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self._parameters = parameters
        if parameters is None:
            return
        self._guiTag = parameters.connectGui(self.ui)
        self.widget.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self._updating = True
        try:
            ui = self.ui
            ui.sourceSelector.setCurrentIndex(_index(SOURCES, parameters.source))
            ui.deviceSelector.setCurrentIndex(_index(DEVICES, parameters.device))
            ui.averagingSelector.setCurrentIndex(_index(tuple(STACKS), parameters.stacks))
            ui.pointSelector.setCurrentNode(parameters.points)
            ui.segmentSelector.setCurrentNode(parameters.markedSegmentation)
            ui.segmentSelector.setCurrentSegmentID(parameters.markedSegment)
            if parameters.model:
                self.models.choose(parameters.model)
        finally:
            self._updating = False
        self._onChoice()

    def _onChoice(self, *_unused):
        """A widget that isn't bound to the parameters by itself was changed."""
        if self._updating or self._parameters is None:
            return
        ui, parameters = self.ui, self._parameters
        self._updating = True
        try:
            parameters.source = SOURCES[ui.sourceSelector.currentIndex]
            parameters.device = DEVICES[ui.deviceSelector.currentIndex]
            parameters.stacks = tuple(STACKS)[ui.averagingSelector.currentIndex]
            parameters.points = ui.pointSelector.currentNode()
            parameters.markedSegmentation = ui.segmentSelector.currentNode()
            parameters.markedSegment = ui.segmentSelector.currentSegmentID() or ""
            parameters.model = self.models.name
            if parameters.calibrated:
                self._show_calibrated()
        finally:
            self._updating = False
        self._onParameters()

    def _show_calibrated(self):
        try:
            thresholds = self.models.summary()["thresholds"]
        except NoduleError:
            return
        for name, output in THRESHOLDS.items():
            if output in thresholds:
                setattr(self._parameters, name, float(thresholds[output]))

    def _onParameters(self, *_unused):
        """The parameters changed: what is shown and what can be done follows."""
        if self._updating or self._parameters is None:
            return
        ui, parameters = self.ui, self._parameters
        for source, widgets in {
            "point": (ui.pointSelector, ui.pointSelectorLabel),
            "segment": (ui.segmentSelector, ui.segmentSelectorLabel),
            "line": (ui.lineSelector, ui.lineSelectorLabel),
        }.items():
            for widget in widgets:
                widget.visible = parameters.source == source
        for slider in (ui.hcSlider, ui.finalSlider, ui.lcSlider):
            slider.enabled = not parameters.calibrated
        self._show_outputs()
        if parameters.calibrated:
            self._updating = True
            self._show_calibrated()
            self._updating = False
        self._observe(parameters)
        self.update()

    def _show_outputs(self, *_unused):
        """Only what the chosen model gives can be set and asked for; what it lacks is hidden."""
        from slicer.i18n import tr as _

        ui, gives = self.ui, self.models.gives
        if gives is None:
            return
        if not ui.advancedButton.collapsed:  # what is collapsed is shown and hidden by the button itself
            for widget in (ui.hcSlider, ui.hcSliderLabel, ui.lcSlider, ui.lcSliderLabel):
                widget.visible = gives.has_interval
            for widget in (ui.lcMapCheckBox, ui.confidenceMapCheckBox):
                widget.visible = "union" in gives.probabilities
        box = ui.finalMapCheckBox
        if gives.final_map == "soft":
            box.text = _("Soft mask as volume")
            box.toolTip = _("Adds a float volume: the soft mask, of which Final is the cut.")
        else:
            box.text = _("Final probability as volume")
            box.toolTip = _("Adds a float volume: the probability that at least half of the readers include a voxel.")

    def _gives_map(self, name) -> bool:
        """Whether the chosen model gives a map of `panel_parameters.MAPS`."""
        gives = self.models.gives
        return gives is None or name not in INTERVAL_MAPS or "union" in gives.probabilities

    def _observe(self, parameters):
        """Points and ends of a line count as soon as they are placed; segments as soon as they come and go."""
        import slicer

        markups = slicer.vtkMRMLMarkupsNode
        placed = (markups.PointPositionDefinedEvent, markups.PointPositionUndefinedEvent, markups.PointRemovedEvent)
        segmentation = slicer.vtkSegmentation
        changed = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
        for attribute, node, events, callback in (
            ("_observedPoints", parameters.points, placed, self.update),
            ("_observedLine", parameters.line, placed, self.update),
            ("_observedSegmentation", parameters.segmentation, changed, self._onSegments),
        ):
            old = getattr(self, attribute)
            if old is node:
                continue
            for event in events:
                if old is not None:
                    self.widget.removeObserver(old, event, callback)
                if node is not None:
                    self.widget.addObserver(node, event, callback)
            setattr(self, attribute, node)
            if attribute == "_observedSegmentation":
                self.list.show(node)

    def _onSegments(self, *_unused):
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

    def _place(self) -> dict:
        """The nodule's place as a field of a request. Raises `NoduleError` if it isn't given yet."""
        from slicer.i18n import tr as _

        parameters = self._parameters
        if parameters.source == "point":
            if parameters.points is None:
                raise NoduleError(_("Place a point on the nodule."))
            return {"point": mrml_runs.last_point(parameters.points)}
        if parameters.source == "line":
            if parameters.line is None:
                raise NoduleError(_("Draw a line along an axis of the nodule."))
            mrml_runs.line_middle(parameters.line)
            return {"near": parameters.line}
        node, segment_id = parameters.markedSegmentation, parameters.markedSegment
        if node is None or node.GetSegmentation().GetSegment(segment_id) is None:
            raise NoduleError(_("Select a segment of the nodule."))
        return {"near": (node, segment_id)}

    def update(self, *_unused):
        """Shows whether Apply can run, and why not."""
        from slicer.i18n import tr as _

        button = self.ui.applyButton
        if self.runs.busy:
            button.text, button.enabled, button.toolTip = _("Cancel"), True, _("Stop; nothing is added to the scene.")
        else:
            problem = self.problem()
            button.text, button.enabled = _("Apply"), not problem
            button.toolTip = problem or _("Segment the nodule.")
        self.ui.progressBar.visible = self.runs.busy

    def report(self, text):
        """What happened, in the panel."""
        self.ui.statusLabel.text = text

    def _request(self, **more):
        parameters, gives = self._parameters, self.models.gives
        stacks = STACKS[parameters.stacks]
        return mrml_runs.Request(
            parameters.volume,
            segmentationNode=parameters.segmentation,
            model=parameters.model or None,
            device=parameters.device,
            thresholds=None
            if parameters.calibrated
            else {
                output: getattr(parameters, name)
                for name, output in THRESHOLDS.items()
                if gives is None or output in gives.thresholds
            },
            averaging=Averaging(**stacks) if stacks else None,
            maps=tuple(MAPS[name] for name in MAPS if getattr(parameters, name) and self._gives_map(name)),
            **more,
        )

    def onApply(self, *_unused):
        """Apply, or Cancel while a nodule is being segmented."""
        from slicer.i18n import tr as _

        if self.runs.busy:
            self.cancel()
            self.report(_("Cancelled. Nothing was added."))
            return
        self._start(lambda: self._request(**self._place()))

    def rerun(self, key):
        """Segments a nodule of the list again, with the present settings, from where it was pointed at."""

        def request():
            nodule = mrml_nodules.find(self._parameters.segmentation, key)
            return self._request(point=nodule.point_ras(), replace=key)

        self._start(request)

    def _start(self, make_request):
        from slicer.i18n import tr as _

        try:
            self.logic.ensurePackages(interactive=True)
            self.runs.start(make_request())
        except NoduleError as error:
            self.report(str(error))
        except Exception as error:
            logging.exception("The nodule can't be segmented")
            self.report(_("Failed: {reason}").format(reason=error))
        else:
            self.report("")
            self.timer.start()
            self._poll()
        self.update()
        self.list.refresh()

    def cancel(self):
        """Stops a run; nothing of it reaches the scene."""
        self.timer.stop()
        self.runs.drop()
        self.update()
        self.list.refresh()

    def _poll(self):
        """Shows how far the run is, and stores it when it is done."""
        from slicer.i18n import tr as _

        job = self.runs.job
        if job is None:
            self.timer.stop()
            return
        self.ui.progressBar.setValue(int(100 * job.share))
        self.ui.progressBar.setFormat(f"{job.stage} - %p%")
        if not job.finished:
            return
        self.timer.stop()
        try:
            self._updating = True  # segments that are only half there aren't listed
            stored = self.runs.finish()
        except CancelledError:
            self.report(_("Cancelled. Nothing was added."))
        except NoduleError as error:
            self.report(str(error))
        except Exception as error:
            logging.exception("The nodule couldn't be segmented")
            self.report(_("Failed: {reason}").format(reason=error))
        else:
            self._updating = False
            self._show(stored)
        finally:
            self._updating = False
        self.update()

    def _show(self, stored):
        """The views go to the new nodule, the list selects it."""
        from slicer.i18n import tr as _

        created = self._parameters.segmentation is None
        self._parameters.segmentation = stored.segmentationNode
        self._onParameters()
        if created:  # all of it is ours: its surfaces are made in no time
            stored.segmentationNode.CreateClosedSurfaceRepresentation()
        self.list.refresh(stored.nodule.key)
        jump(stored.nodule.center_ras())
        self.logic.lastResult = stored.result
        lines = [_("{name} is done.").format(name=stored.nodule.name), *stored.result.warnings]
        if stored.removed:
            removed = _("{parts} of the run before were removed: the model doesn't give them. Undo brings them back.")
            lines.append(removed.format(parts=", ".join(stored.removed)))
        self.report("\n".join(lines))

    # Scene -----------------------------------------------------------------------------------------------------------

    def close(self):
        """The scene or the module is being closed: nothing is stored any more, nothing is observed."""
        self.timer.stop()
        self.runs.forget()
        self.setParameters(None)
        for attribute in ("_observedPoints", "_observedLine", "_observedSegmentation"):
            setattr(self, attribute, None)
        self.list.show(None)
        self.update()


def _index(names, name):
    return names.index(name) if name in names else 0
