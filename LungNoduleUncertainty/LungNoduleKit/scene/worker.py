"""One thread that lives on between jobs, so that what is loaded and warm serves the next one too.

Plain Python: no Qt and no MRML. A job tells how far it is by calling the function it is given; that call is also where
a canceled job ends.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..errors import NoduleError

_LOG = logging.getLogger(__name__)
Progress = Callable[[str, float], None]  # told the stage and the share (0 to 1) that is done


class CancelledError(NoduleError):
    """The job was canceled."""


class WorkerJob:
    """Work handed to a `Worker`. `stage` (text) and `share` (0 to 1) tell how far it is.

    After `finished`, `result` holds what the function returned, or `error` the exception that ended it; a canceled
    job's error is a `CancelledError`.
    """

    def __init__(self, function: Callable[[Progress], Any]):
        self._function: Any = function
        self._cancelled, self._finished = threading.Event(), threading.Event()
        self.stage, self.share = "waiting", 0.0
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def finished(self) -> bool:
        """Whether it has a result or an error."""
        return self._finished.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether it was told to end."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """The job ends at its next step; what it would have returned is dropped, even if it was just done."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the job is finished; False if `seconds` passed before."""
        return self._finished.wait(seconds)

    def progress(self, stage: str, share: float) -> None:
        """Called by the job's function. Raises `CancelledError` once the job is canceled."""
        if self.cancelled:
            raise CancelledError("cancelled")
        self.stage, self.share = stage, float(share)

    def run(self) -> None:
        """Calls the function, in the worker's thread; once."""
        try:
            self.progress("starting", 0.0)
            result = self._function(self.progress)
            self.progress("done", 1.0)
            self.result = result
        except BaseException as error:
            if not isinstance(error, NoduleError):
                _LOG.exception("a job failed")
            self.error = error
        finally:
            self._function = None  # what it holds on to can be freed
            self._finished.set()


class Worker:
    """Runs jobs one after another in one daemon thread, which starts with the first job."""

    def __init__(self, name: str = "jobs"):
        self._name, self._lock = name, threading.Lock()
        self._jobs: queue.Queue[WorkerJob | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[Progress], Any]) -> WorkerJob:
        """Starts `function(progress)` as soon as the jobs before it are finished; returns its `WorkerJob`."""
        job = WorkerJob(function)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.put(job)
        return job

    def stop(self, seconds: float = 5.0) -> None:
        """Ends the thread after the job that runs; waits for it at most `seconds`. A later `submit` starts anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None and thread.is_alive():
                self._jobs.put(None)
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # stopped from within a job
                thread.join(seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # its result isn't kept alive by a waiting thread
