"""The trimap over the image in the slice views, kept up to date while marks and parameters change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import SimpleITK as sitk

from LungNoduleKit.panel.layers import OverlaidVolumes
from LungNoduleKit.scene.worker import CancelledError, Worker, WorkerJob

from ..errors import SoftMaskError
from ..scene import results
from ..scene.frame import Frame

_DELAY_MS = 250  # a slider that is dragged counts once it rests
_POLL_MS = 50
_OPACITY = 0.6


class TrimapPreview:
    """A labelmap node that exists while the preview is on, as the label layer of all slice views.

    `computation()` returns (frame, function of progress that returns (trimap, notes)), or raises `SoftMaskError`;
    `report(text)` tells why there is no trimap.
    """

    def __init__(self, computation: Callable[[], tuple[Frame, Callable[..., Any]]], report: Callable[[str], object]):
        import qt

        self._computation, self._report = computation, report
        self.worker = Worker("trimap preview")
        self.node: Any = None
        self._job: WorkerJob | None = None
        self._frame: Any = None
        self._overlaid = OverlaidVolumes("Label")
        self.on = False
        self._delay, self._poll = qt.QTimer(), qt.QTimer()
        self._delay.setSingleShot(True)
        self._delay.setInterval(_DELAY_MS)
        self._delay.connect("timeout()", self._start)
        self._poll.setInterval(_POLL_MS)
        self._poll.connect("timeout()", self._finish)

    @property
    def busy(self) -> bool:
        """Whether a newer trimap than the one that is shown is awaited."""
        return self._job is not None or self._delay.isActive()

    def switch(self, on: bool) -> None:
        """Shows the trimap, or removes it: the scene and the views are then as before."""
        self.on = bool(on)
        if self.on:
            self.schedule()
        else:
            self._drop()
            self._hide()

    def schedule(self) -> None:
        """Something that the trimap depends on has changed."""
        if self.on:
            self._delay.start()

    def _drop(self) -> None:
        self._delay.stop()
        self._poll.stop()
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def _start(self) -> None:
        self._drop()
        try:
            frame, compute = self._computation()
        except SoftMaskError as error:
            self._hide()
            self._report(str(error))
            return
        self._frame, self._job = frame, self.worker.submit(compute)
        self._poll.start()

    def _finish(self) -> None:
        job, frame = self._job, self._frame
        if job is None or not job.finished:
            return
        self._poll.stop()
        self._job = self._frame = None
        try:
            if job.error is not None:
                raise job.error
            trimap, notes = job.result
            self._show(trimap, frame)
        except CancelledError:
            return
        except SoftMaskError as error:
            self._hide()
            self._report(str(error))
        except Exception as error:
            logging.exception("The trimap can't be previewed")
            self._hide()
            self._report(str(error))
        else:
            self._report("\n".join(notes))

    def _show(self, trimap: sitk.Image, frame: Frame) -> None:
        scene = frame.volumeNode.GetScene()
        if scene is None:
            raise SoftMaskError("the volume was removed from the scene")
        if self.node is not None and self.node.GetScene() is scene:
            results.update_trimap(self.node, trimap, frame)
            return
        self.node = results.add_trimap(trimap, frame, preview=True)
        self._overlaid.show(self.node, _OPACITY)

    def _hide(self) -> None:
        node, self.node = self.node, None
        if node is not None and node.GetScene() is not None:
            self._overlaid.take_away(node)
            results.remove_trimap(node)
