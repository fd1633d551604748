"""Soft masks of nodes: read on the main thread, computed in any, stored on the main thread again, and taken back.

The scene is touched only while storing, and storing is all or nothing. The computing part knows no MRML.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import __version__
from LungNoduleKit.scene.lattices import named
from LungNoduleKit.scene.nodes import all_or_nothing, remove
from LungNoduleKit.scene.runs import Runs
from LungNoduleKit.scene.transforms import Node
from LungNoduleKit.scene.undo import Undo
from LungNoduleKit.scene.worker import Progress, Worker

from ..errors import ImageError, OutputError, SoftMaskError
from ..pipeline import Parameters, SoftMaskResult, soft_mask_volume, trimap_volume
from . import results
from .frame import Frame
from .sources import TAG_PREFIX, Inputs, Source, check_target, read

_MARGIN = 5  # voxels around the trimap that the nodes hold


@dataclass
class SoftMaskRequest:
    """The soft mask to make. `parameters`: those of `pipeline.Parameters` by name, its defaults for the others.

    `segmentationNode` gets the binarized segment; None: a new one is made.
    """

    volumeNode: Node
    source: Source
    parameters: dict[str, Any] = field(default_factory=dict)
    segmentationNode: Node | None = None


@dataclass
class StoredSoftMask:
    """What a run added, and the pipeline's notes on what it had to work around."""

    softMaskNode: Node
    segmentationNode: Node
    segmentID: str
    notes: list[str]


class FoundSoftMask(NamedTuple):
    """A soft mask that was computed, and where the volume lies that it was computed of."""

    frame: Frame
    result: SoftMaskResult


class SoftMaskRuns(Runs[SoftMaskRequest, FoundSoftMask, StoredSoftMask]):
    """Soft masks in one scene, one at a time, with their undo steps."""

    running = "a soft mask is being computed"

    def __init__(self, soft_mask: Callable[..., SoftMaskResult] | None = None, worker: Worker | None = None):
        """`soft_mask` is called in place of `pipeline.soft_mask_volume`."""
        super().__init__(worker or Worker("soft masks"))
        self._soft_mask = soft_mask or soft_mask_volume

    def computation(self, request: SoftMaskRequest) -> Callable[[Progress], FoundSoftMask]:
        """See `LungNoduleKit.scene.runs.Runs`."""
        check_target(request.segmentationNode, request.volumeNode)
        inputs, given = _read(request), parameters_of(request.parameters)
        soft_mask = self._soft_mask

        def compute(progress: Progress) -> FoundSoftMask:
            result = soft_mask(
                inputs.image,
                masks=inputs.masks,
                recist_points_lps=inputs.recist_points_lps,
                trimap=inputs.trimap,
                parameters=given,
                progress=progress,
            )
            return FoundSoftMask(inputs.frame, result)

        return compute

    def store(self, request: SoftMaskRequest, found: FoundSoftMask) -> StoredSoftMask:
        """Adds a result's soft mask and segment to the scene as one undo step. All or nothing."""
        frame, result = found
        volumeNode, node = request.volumeNode, request.segmentationNode
        scene = volumeNode.GetScene()
        if scene is None:
            raise ImageError(f"{named(volumeNode)}: it was removed from the scene meanwhile")
        if node is not None and node.GetScene() is not scene:
            raise OutputError(f"{named(node)}: it was removed from the scene meanwhile")
        tags = provenance(request, result)
        alpha, binary = (_trimmed(image, result.trimap) for image in (result.alpha, result.binary))
        with all_or_nothing(scene) as add:
            softMaskNode = results.add_soft_mask(alpha, frame)
            add(softMaskNode)
            for key, value in tags.items():
                softMaskNode.SetAttribute(key, value)
            tags = {**tags, TAG_PREFIX + "soft_mask": softMaskNode.GetName()}
            target, segment_id = results.add_segment(binary, frame, node, tags)

        created = node is None

        def back() -> None:
            if target.GetScene() is scene:
                target.GetSegmentation().RemoveSegment(segment_id)

        def remove_nodes() -> None:
            remove(scene, softMaskNode)
            if created and not target.GetSegmentation().GetNumberOfSegments():
                remove(scene, target)

        self.steps.push(Undo("soft mask", (softMaskNode, target), back, remove_nodes))
        return StoredSoftMask(softMaskNode, target, segment_id, list(result.notes))

    def trimap(self, request: SoftMaskRequest) -> tuple[sitk.Image, Frame, list[str]]:
        """(trimap as SimpleITK image 0, 128, 255; frame; notes) of a request's source, computed at once."""
        frame, computation = self.trimap_computation(request)
        trimap, notes = computation(lambda stage, share: None)
        return trimap, frame, notes

    def trimap_computation(
        self, request: SoftMaskRequest
    ) -> tuple[Frame, Callable[[Progress], tuple[sitk.Image, list[str]]]]:
        """(frame, function of progress that returns (trimap, notes)); the nodes are read here."""
        inputs, given = _read(request), parameters_of(request.parameters)

        def compute(progress: Progress) -> tuple[sitk.Image, list[str]]:
            progress("trimap", 0.0)
            trimap, notes = inputs.trimap, list[str]()
            if trimap is None:
                trimap = trimap_volume(
                    inputs.image,
                    masks=inputs.masks,
                    recist_points_lps=inputs.recist_points_lps,
                    parameters=given,
                    notes=notes,
                )
            return _trimmed(trimap, trimap), notes

        return inputs.frame, compute

    def add_trimap(self, request: SoftMaskRequest, *, segments: bool = False) -> Node:
        """Adds the trimap of a request's source as one undo step; returns the node.

        As a labelmap node, or with `segments` as a segmentation node for the Segment Editor.
        """
        trimap, frame, _ = self.trimap(request)
        node = (results.add_trimap_segments if segments else results.add_trimap)(trimap, frame)

        def remove_node() -> None:
            if segments:
                remove(node.GetScene(), node)
            else:
                results.remove_trimap(node)

        self.steps.push(Undo("trimap", (node,), lambda: None, remove_node))
        return node


def _read(request: SoftMaskRequest) -> Inputs:
    return read(request.volumeNode, request.source, reach_mm=request.parameters.get("dilate_mm") or 0.0)


def parameters_of(given: dict[str, Any]) -> Parameters:
    """`pipeline.Parameters` from a dict. Raises `SoftMaskError` for an unknown name or a value out of range."""
    try:
        return Parameters(**given)
    except (TypeError, ValueError) as error:
        raise SoftMaskError(f"parameters: {error}") from error


def provenance(request: SoftMaskRequest, result: SoftMaskResult) -> dict[str, str]:
    """Tags that say what a soft mask was made from: texts by name, see `sources.TAG_PREFIX`."""
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
        "notes": "; ".join(result.notes),
    }
    return {TAG_PREFIX + key: text for key, text in texts.items() if text}


def _trimmed(image: sitk.Image, trimap: sitk.Image) -> sitk.Image:
    """The part of an image where its trimap isn't background, with some voxels of margin."""
    used = np.argwhere(sitk.GetArrayViewFromImage(trimap))
    if not len(used):
        return image
    low = np.maximum(used.min(axis=0)[::-1] - _MARGIN, 0)
    high = np.minimum(used.max(axis=0)[::-1] + 1 + _MARGIN, image.GetSize())
    return sitk.RegionOfInterest(image, (high - low).tolist(), low.tolist())
