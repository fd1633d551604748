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
from .observers import NodeObservers, SceneObserver

_POLL_MS = 100


class RunPanel:
    """Connects `widget.ui` with `widget.logic.runs`, a `LungNoduleKit.scene.runs.Runs`.

    What a panel requests and how it shows a result is in the methods that raise `NotImplementedError` here. It follows
    the scene: a node that goes is chosen no longer, and no other in its place; a scene that is closed or read is looked
    at once that is done.
    """

    failed = "The run failed"
    """What the error log says of an unexpected error"""

    def __init__(self, widget: Any):
        import qt
        import slicer

        self.widget, self.ui, self.logic, self.runs = widget, widget.ui, widget.logic, widget.logic.runs
        self._parameters: Any = None
        self._guiTag: Any = None
        self._updating = False
        self._parameter_observer, self.observers = NodeObservers(), NodeObservers()
        self.scene = SceneObserver(
            slicer.mrmlScene,
            closing=self.close,
            reading=lambda: self.setParameters(None),
            ended=self.reopen,
            removing=self.onRemoving,
            changed=self.onSceneChanged,
        )
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
            self._parameter_observer.release()
        self._parameters = parameters
        if parameters is None:
            self.observers.release()
            return
        # Of the two ways to bind widgets only this one returns the tag that unbinds them.
        self._guiTag = parameters.connectParametersToGui(bound_widgets(self.ui))
        changed = (vtk.vtkCommand.ModifiedEvent,)
        self._parameter_observer.observe("parameters", parameters.parameterNode, changed, self.onParameters)
        self.onParameters()

    def showParameters(self) -> None:
        """Puts what the parameters say into the widgets that aren't bound to them by themselves."""
        with self.updating():
            self.showChoices(self._parameters)

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
        if self.scene.waiting:
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

    # Scene -----------------------------------------------------------------------------------------------------------

    def onRemoving(self, node: Any) -> None:
        """A node is about to be removed: what it was chosen for has no choice now.

        A combo box would move on to another node, and the next run would use that.
        """
        parameters = self._parameters
        if parameters is not None:
            for name in parameters.allParameters:
                if parameters.getValue(name) is node:
                    parameters.setValue(name, None)
        self.observers.release_node(node)

    def onSceneChanged(self) -> None:
        """Nodes are gone, or many have changed: what can be done follows."""
        self.runs.steps.drop_gone()
        if self.idle:
            self.onParameters()

    def close(self) -> None:
        """The scene is being closed, or the module taken down: nothing more is stored, observed or kept."""
        from slicer.i18n import tr as _

        stopped = self.runs.busy
        self.timer.stop()
        self.runs.forget()
        self.logic.lastResult = None
        self.setParameters(None)
        self.report(_("The scene was closed. Nothing was added.") if stopped else "")
        self.update()

    def reopen(self) -> None:
        """The scene was closed or read to its end: if the panel is open, it shows what is there now."""
        self.runs.steps.drop_gone()
        if self.widget.parent.isEntered:
            self.widget.initializeParameterNode()

    def end(self) -> None:
        """The module is taken down."""
        self.close()
        self.scene.stop()
        self.runs.worker.stop()


def bound_widgets(ui: Any) -> dict[str, Any]:
    """The widgets of a `.ui` file that are bound to a parameter by the property `SlicerParameterName`, by parameter."""
    named = ((widget.property("SlicerParameterName"), widget) for widget in vars(ui).values())
    return {name: widget for name, widget in named if name}


def index_of(names: tuple[Any, ...], name: Any) -> int:
    """Where a choice stands among the names of a selector; the first one for a name that isn't there."""
    return names.index(name) if name in names else 0
