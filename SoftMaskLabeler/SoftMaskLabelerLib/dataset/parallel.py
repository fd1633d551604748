"""Many independent cases over several processes, where a process that dies costs one case and not the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import SimpleITK as sitk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")
# Cases handed out per process ahead of time: enough to keep it busy, few to suspect when one dies.
_AHEAD = 3


def run_many(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Iterator[tuple[Item, Result | None]]:
    """Yields (item, function(item)) as they are done, with None for an item whose process died (memory, a crash).

    `function` must be importable and the items picklable; with `jobs=1` all runs in this process. After a death the
    cases that were under way run again, each in a process of its own, which tells which one it was.
    """
    waiting = deque(items)
    if jobs == 1 or len(waiting) < 2:
        for item in waiting:
            yield item, function(item)
        return
    while waiting:
        running: dict[Future[Result], Item] = {}
        try:
            with _pool(min(jobs, len(waiting))) as pool:
                while waiting or running:
                    while waiting and len(running) < _AHEAD * jobs:
                        # Taken off only once it is handed out: a broken pool refuses it, and it must not get lost.
                        future = pool.submit(function, waiting[0])
                        running[future] = waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        item = running.pop(future)
                        yield item, result
        except BrokenProcessPool:
            pass
        for item in running.values():
            alone: Result | None = None
            with suppress(BrokenProcessPool), _pool(1) as pool:
                alone = pool.submit(function, item).result()
            yield item, alone


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned everywhere: a forked child of a process with threads (ITK, BLAS) can hang.
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_worker() -> None:
    """One thread each, and the interrupt key left to the parent, which ends its workers in order.

    A parent that was killed can't: a worker would wait for its next case for good.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)
