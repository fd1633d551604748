"""The panel of a module that computes one thing at a time: choices, Apply and Cancel, progress and status.

Its widgets come from the module's `.ui` file: applyButton, progressBar and statusLabel are used here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import NoduleError
from ..scene.worker import CancelledError
from .observers import NodeObservers

_POLL_MS = 100


class RunPanel:
    """Connects `widget.ui` with `widget.logic.runs`, a `LungNoduleKit.scene.runs.Runs`.

    `widget` observes nodes for it (VTKObservationMixin). What a panel requests and how it shows a result is in the
    methods that raise `NotImplementedError` here.
    """

    failed = "The run failed"
    """What the error log says of an unexpected error"""

    def __init__(self, widget: Any):
        import qt

        self.widget, self.ui, self.logic, self.runs = widget, widget.ui, widget.logic, widget.logic.runs
        self._parameters: Any = None
        self._guiTag: Any = None
        self._updating = False
        self.observers = NodeObservers(widget)
        self.timer = qt.QTimer()
        self.timer.setInterval(_POLL_MS)
        self.timer.connect("timeout()", self._poll)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)

    # What each panel says for itself ---------------------------------------------------------------------------------

    def showChoices(self, parameters: Any) -> None:
        """Puts what the parameters say into the widgets that aren't bound to them by themselves."""
        raise NotImplementedError

    def onParameters(self, *_unused: Any) -> None:
        """The parameters changed: what is shown and what can be done follows."""
        raise NotImplementedError

    def request(self) -> Any:
        """What Apply would start now. Raises `NoduleError`, with what is to be done, if the choices aren't complete."""
        raise NotImplementedError

    def showStored(self, stored: Any) -> None:
        """Shows what a run added to the scene."""
        raise NotImplementedError

    def applyToolTip(self) -> str:
        """What Apply does, for its tooltip."""
        raise NotImplementedError

    # Parameters ------------------------------------------------------------------------------------------------------

    def setParameters(self, parameters: Any) -> None:
        """Shows a parameter node (wrapper) and keeps it up to date; None: stops observing the present one."""
        import vtk

        if self._parameters is not None:
            self._parameters.disconnectGui(self._guiTag)
            self.widget.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self._parameters = parameters
        if parameters is None:
            return
        self._guiTag = parameters.connectGui(self.ui)
        self.widget.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        with self.updating():
            self.showChoices(parameters)
        self.onParameters()

    @contextmanager
    def updating(self) -> Iterator[None]:
        """While the panel changes something itself, it doesn't follow."""
        self._updating = True
        try:
            yield
        finally:
            self._updating = False

    @property
    def idle(self) -> bool:
        """Whether there are parameters to follow, and the panel isn't changing them itself."""
        return self._parameters is not None and not self._updating

    # Apply and Cancel ------------------------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why Apply can't run now, or an empty text."""
        try:
            self.request()
        except NoduleError as error:
            return str(error)
        return ""

    def update(self, *_unused: Any) -> None:
        """Shows whether Apply can run, and why not."""
        from slicer.i18n import tr as _

        button, busy = self.ui.applyButton, self.runs.busy
        if busy:
            button.text, button.enabled, button.toolTip = _("Cancel"), True, _("Stop; nothing is added to the scene.")
        else:
            problem = self.problem()
            button.text, button.enabled = _("Apply"), not problem
            button.toolTip = problem or self.applyToolTip()
        self.ui.progressBar.visible = busy

    def report(self, text: str) -> None:
        """What happened, in the panel."""
        self.ui.statusLabel.text = text

    def onApply(self, *_unused: Any) -> None:
        """Apply, or Cancel while a run goes on."""
        from slicer.i18n import tr as _

        if self.runs.busy:
            self.cancel()
            self.report(_("Canceled. Nothing was added."))
        else:
            self.start(self.request)

    def start(self, make_request: Callable[[], Any]) -> None:
        """Starts a run; what keeps it from running is said in the panel."""
        if self.guarded(lambda: self.runs.start(self.prepared(make_request))):
            self.report("")
            self.timer.start()
            self._poll()
        self.update()

    def prepared(self, make_request: Callable[[], Any]) -> Any:
        """The request of a run that is about to start; the place to ask for missing packages."""
        return make_request()

    def cancel(self) -> None:
        """Stops a run; nothing of it reaches the scene."""
        self.timer.stop()
        self.runs.drop()
        self.update()

    def _poll(self) -> None:
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
        self.guarded(self.store)
        self.update()

    def store(self) -> None:
        """Adds what the finished run found to the scene, and shows it."""
        self.showStored(self.runs.finish())

    def guarded(self, function: Callable[[], Any]) -> bool:
        """Whether a function came to its end; if not, the panel says why."""
        from slicer.i18n import tr as _

        try:
            function()
        except CancelledError:
            self.report(_("Canceled. Nothing was added."))
        except NoduleError as error:
            self.report(str(error))
        except Exception as error:
            logging.exception(self.failed)
            self.report(_("Failed: {reason}").format(reason=error))
        else:
            return True
        return False

    def undo(self) -> None:
        """Takes the last step back, and says what it was."""
        from slicer.i18n import tr as _

        what = self.runs.undo()
        self.report(_("Undone: {what}.").format(what=what) if what else _("There is nothing to undo."))


def index_of(names: tuple[Any, ...], name: Any) -> int:
    """Where a choice stands among the names of a selector; the first one for a name that isn't there."""
    return names.index(name) if name in names else 0
