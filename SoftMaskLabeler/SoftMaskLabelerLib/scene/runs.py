"""Soft masks of nodes: read on the main thread, computed in any, stored on the main thread again, and taken back.

The scene is touched only while storing, and storing is all or nothing. The computing part knows no MRML.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from .. import __version__
from ..errors import ImageError, OutputError, SoftMaskError
from ..pipeline import Parameters
from ..trimap.volume import trimap_of_volume
from ..worker import Worker
from . import results as mrml_bridge
from .lattices import named
from .sources import TAG_PREFIX, Inputs, Source, check_target, read

_UNDO_STEPS = 20
_MARGIN = 5  # voxels around the trimap that the nodes hold


@dataclass
class Request:
    """What is asked for. `parameters`: those of `pipeline.Parameters` by name, its defaults for the others.

    `segmentationNode` gets the binarized segment; None: a new one is made.
    """

    volumeNode: object
    source: Source
    parameters: dict = field(default_factory=dict)
    segmentationNode: object = None


@dataclass
class Stored:
    """What a run added, and the pipeline's notes on what it had to work around."""

    softMaskNode: object
    segmentationNode: object
    segmentID: str
    notes: list


class Runs:
    """Soft masks in one scene, one at a time, with their undo steps."""

    def __init__(self, soft_mask=None, worker=None):
        """`soft_mask` stands in for `pipeline.soft_mask_volume`."""
        self._soft_mask, self.worker = soft_mask, worker or Worker()
        self._undo = []
        self.job = self._started = None

    @property
    def busy(self) -> bool:
        """Whether a started run hasn't been stored or dropped yet."""
        return self.job is not None

    def run(self, request: Request) -> Stored:
        """The whole way at once. Raises `SoftMaskError`; the scene is then as it was."""
        inputs, computation = self._computation(request)
        return self.store(request, inputs, computation(lambda stage, share: None))

    def start(self, request: Request):
        """Reads the nodes and starts computing in the worker's thread; returns its job. Raises `SoftMaskError`."""
        if self.busy:
            raise SoftMaskError("a soft mask is being computed: wait for it or cancel it first")
        inputs, computation = self._computation(request)
        self._started, self.job = (request, inputs), self.worker.submit(computation)
        return self.job

    def finish(self) -> Stored:
        """Stores what the finished job found. Raises its error, or `SoftMaskError` if its nodes are gone."""
        job, started = self.job, self._started
        if job is None or not job.finished:
            raise SoftMaskError("no finished run to store")
        self.job = self._started = None
        if job.error is not None:
            raise job.error
        return self.store(*started, job.result)

    def drop(self):
        """Cancels the run, if there is one; nothing of it is stored."""
        job, self.job, self._started = self.job, None, None
        if job is not None:
            job.cancel()

    def _computation(self, request):
        check_target(request.segmentationNode, request.volumeNode)
        inputs = read(request.volumeNode, request.source, reach_mm=request.parameters.get("dilate_mm") or 0.0)
        given, soft_mask = parameters_of(request.parameters), self._soft_mask

        def compute(progress):
            function = soft_mask
            if function is None:
                from ..pipeline import soft_mask_volume as function
            return function(
                inputs.image,
                masks=inputs.masks,
                recist_points_lps=inputs.recist_points_lps,
                trimap=inputs.trimap,
                parameters=given,
                progress=progress,
            )

        return inputs, compute

    def store(self, request: Request, inputs: Inputs, result) -> Stored:
        """Adds a result's soft mask and segment to the scene as one undo step. All or nothing."""
        volumeNode, node = request.volumeNode, request.segmentationNode
        scene = volumeNode.GetScene()
        if scene is None:
            raise ImageError(f"{named(volumeNode)}: it was removed from the scene meanwhile")
        if node is not None and node.GetScene() is not scene:
            raise OutputError(f"{named(node)}: it was removed from the scene meanwhile")
        tags = provenance(request, result)
        alpha, binary = (_trimmed(image, result.trimap) for image in (result.alpha, result.binary))
        with mrml_bridge.all_or_nothing(scene) as add:
            softMaskNode = mrml_bridge.add_soft_mask(alpha, inputs.frame)
            add(softMaskNode)
            for key, value in tags.items():
                softMaskNode.SetAttribute(key, value)
            tags = {**tags, TAG_PREFIX + "soft_mask": softMaskNode.GetName()}
            target, segment_id = mrml_bridge.add_segment(binary, inputs.frame, node, tags)

        def back():
            mrml_bridge.remove(scene, softMaskNode)
            if target.GetScene() is not scene:
                return
            target.GetSegmentation().RemoveSegment(segment_id)
            if node is None and not target.GetSegmentation().GetNumberOfSegments():
                mrml_bridge.remove(scene, target)

        self._push("soft mask", (softMaskNode, target), back)
        return Stored(softMaskNode, target, segment_id, list(getattr(result, "notes", None) or []))

    def trimap(self, request: Request):
        """(trimap as SimpleITK image 0, 128, 255; frame; notes) of a request's source, computed at once."""
        inputs, computation = self.trimap_computation(request)
        trimap, notes = computation(lambda stage, share: None)
        return trimap, inputs.frame, notes

    def trimap_computation(self, request: Request):
        """(inputs, function of progress that returns (trimap, notes)); the nodes are read here."""
        inputs = read(request.volumeNode, request.source, reach_mm=request.parameters.get("dilate_mm") or 0.0)
        given = parameters_of(request.parameters)

        def compute(progress):
            progress("trimap", 0.0)
            notes = []
            trimap = inputs.trimap
            if trimap is None:
                trimap = trimap_of_volume(
                    inputs.image, given, masks=inputs.masks, recist_points_lps=inputs.recist_points_lps, notes=notes
                )
            return _trimmed(trimap, trimap), notes

        return inputs, compute

    def add_trimap(self, request: Request, *, segments=False, computed=None):
        """Adds the trimap of a request's source, or one that was computed already, as one undo step; returns the node.

        As a labelmap node, or with `segments` as a segmentation node for the Segment Editor.
        """
        trimap, frame, _ = computed or self.trimap(request)
        if frame.volumeNode.GetScene() is None:
            raise ImageError(f"{named(frame.volumeNode)}: it was removed from the scene meanwhile")
        node = (mrml_bridge.add_trimap_segments if segments else mrml_bridge.add_trimap)(trimap, frame)
        remove = mrml_bridge.remove if segments else (lambda scene, node: mrml_bridge.remove_trimap(node))
        self._push("trimap", (node,), lambda: remove(frame.volumeNode.GetScene() or node.GetScene(), node))
        return node

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back whose nodes are still in the scene."""
        return any(_alive(nodes) for _, nodes, _ in self._undo)

    def undo(self) -> str:
        """Takes the last step back; returns what it was, or an empty text if there is none."""
        while self._undo:
            what, nodes, back = self._undo.pop()
            if _alive(nodes):
                back()
                return what
        return ""

    def forget(self):
        """Drops the run and the undo steps: the scene is closed."""
        self.drop()
        self._undo.clear()

    def _push(self, what, nodes, back):
        self._undo.append((what, nodes, back))
        del self._undo[:-_UNDO_STEPS]


def parameters_of(given: dict):
    """`pipeline.Parameters` from a dict. Raises `SoftMaskError` for an unknown name or a value out of range."""
    try:
        return Parameters(**given)
    except (TypeError, ValueError) as error:
        raise SoftMaskError(f"parameters: {error}") from error


def provenance(request: Request, result) -> dict:
    """Tags that say what a soft mask was made from: texts by name, see `mrml_sources.TAG_PREFIX`."""
    source = request.source
    marks = [node.GetSegmentation().GetSegment(i).GetName() for node, i in source.segments]
    marks += [line.GetName() for line in source.lines]
    marks += [source.trimap.GetName()] if source.trimap is not None else []
    texts = {
        "software": f"SoftMaskLabeler {__version__}",
        "image": request.volumeNode.GetName(),
        "source": source.kind,
        "marks": ", ".join(marks),
        "parameters": json.dumps(request.parameters, sort_keys=True, default=str),
        "notes": "; ".join(getattr(result, "notes", None) or []),
    }
    return {TAG_PREFIX + key: text for key, text in texts.items() if text}


def _trimmed(image, trimap):
    """The part of an image where its trimap isn't background, with some voxels of margin."""
    used = np.argwhere(sitk.GetArrayViewFromImage(trimap))
    if not len(used):
        return image
    low = np.maximum(used.min(axis=0)[::-1] - _MARGIN, 0)
    high = np.minimum(used.max(axis=0)[::-1] + 1 + _MARGIN, image.GetSize())
    return sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist())


def _alive(nodes):
    return any(node.GetScene() is not None for node in nodes)
