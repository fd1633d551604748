"""One computation at a time on the nodes of a scene, with its undo steps.

Nodes are read and results stored on the main thread; what lies between knows no MRML and runs in the worker's thread
while Slicer stays alive. The scene is touched only while storing, and storing is all or nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import NoduleError
from .undo import Undo, UndoSteps
from .worker import Progress, Worker, WorkerJob

Request = TypeVar("Request")
Found = TypeVar("Found")
Stored = TypeVar("Stored")


class Runs(ABC, Generic[Request, Found, Stored]):
    """Runs in one scene: `Request` says what to compute, `Found` is what was computed, `Stored` what was added."""

    running = "a run is going on"
    """What messages say of a run that goes on"""

    def __init__(self, worker: Worker):
        self.worker, self.steps = worker, UndoSteps()
        self.job: WorkerJob | None = None
        self.request: Request | None = None

    @abstractmethod
    def computation(self, request: Request) -> Callable[[Progress], Found]:
        """The function of the job, which may run in any thread: everything that it needs is read from the nodes here.

        Raises `NoduleError`.
        """

    @abstractmethod
    def store(self, request: Request, found: Found) -> Stored:
        """Adds what was found to the scene as one undo step. All or nothing."""

    @property
    def busy(self) -> bool:
        """Whether a started run hasn't been stored or dropped yet."""
        return self.job is not None

    def run(self, request: Request) -> Stored:
        """The whole way at once. Raises `NoduleError`; the scene is then as it was."""
        return self.store(request, self.computation(request)(lambda stage, share: None))

    def start(self, request: Request) -> WorkerJob:
        """Reads the nodes and starts computing in the worker's thread; returns its job. Raises `NoduleError`."""
        if self.busy:
            raise NoduleError(f"{self.running}: wait for it or cancel it first")
        computation = self.computation(request)
        self.request, self.job = request, self.worker.submit(computation)
        return self.job

    def finish(self) -> Stored:
        """Stores what the finished job found. Raises its error, or `NoduleError` if its nodes are gone."""
        job, request = self.job, self.request
        if job is None or request is None or not job.finished:
            raise NoduleError("no finished run to store")
        self.job = self.request = None
        if job.error is not None:
            raise job.error
        return self.store(request, job.result)

    def drop(self) -> None:
        """Cancels the run, if there is one; nothing of it is stored."""
        job, self.job, self.request = self.job, None, None
        if job is not None:
            job.cancel()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back whose nodes are still in the scene."""
        return self.steps.possible

    def undo(self) -> str:
        """Takes the last step back; returns what it was, or an empty text if there is none."""
        step = self.steps.undo()
        if step is None:
            return ""
        self.undone(step)
        return step.what

    def undone(self, step: Undo) -> None:
        """Called after a step was taken back."""

    def forget(self) -> None:
        """Drops the run and the undo steps: the scene is closed."""
        self.drop()
        self.steps.clear()
