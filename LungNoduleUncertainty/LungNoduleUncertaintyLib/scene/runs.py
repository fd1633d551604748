"""Running the segmentation on nodes: read on the main thread, compute in any, store on the main thread again.

The scene is touched only while storing, and storing is all or nothing. The computing part knows no MRML, so that it can
run in the worker's thread while Slicer stays alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, NoNoduleError, OutputError, PointError
from LungNoduleKit.geometry import as_triple, swap_lps_ras
from LungNoduleKit.scene.lattices import named
from LungNoduleKit.scene.nodes import Node, one_event, remove
from LungNoduleKit.scene.runs import Runs
from LungNoduleKit.scene.undo import Undo
from LungNoduleKit.scene.worker import Progress, Worker

from ..models.bundle import Model, load_model
from ..models.metadata import read_metadata
from ..models.network_input import Averaging
from ..models.store import find_bundle
from ..outlining.finding import Point
from ..outlining.result import NoduleSegmentation
from ..outlining.segmentation import segment_nodule
from . import measured, nodules, outputs, segments
from .points import line_middle

Segmenter: TypeAlias = Callable[..., NoduleSegmentation]  # called as `segment_nodule`


@dataclass(frozen=True)
class SegmentationRequest:
    """What is to be segmented, and where it goes.

    point: (R, A, S) in the world, mm; or `near` marks the nodule in its place: (segmentation node, segment ID), a
    labelmap node, or a markups line along an axis of the nodule (RECIST), whose middle counts. A segment or labelmap of
    several parts marks as many nodules, and a name is numbered then. segmentationNode: None: a new one. name: the
    nodule's (None: the next free `Nodule N`; empty: plain `HC`, `LC`, `Final`). replace: key of a nodule of
    `segmentationNode` that is segmented again. model: a bundle's name or path, a loaded model, or None for the shipped
    one. thresholds, averaging: as in `segment_nodule`. maps: names of `outputs.MAP_VOLUMES` to add as volumes, as far
    as the model has them.
    """

    volumeNode: Node
    point: Point | None = None
    near: Node | tuple[Node, str] | None = None
    segmentationNode: Node | None = None
    name: str | None = None
    replace: str | None = None
    model: Model | str | Path | None = None
    device: str = "auto"
    thresholds: Mapping[str, float] | None = None
    averaging: Averaging | None = None
    maps: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredNodule:
    """What a run added: the segmentation node, the nodule, the map volumes, and the library's result.

    created: whether the segmentation node was made for it. removed: parts of a nodule segmented again that the model
    doesn't have (`HC` and `LC`). before: the nodules that the same run added before this one. notes: what became of
    the other parts of a place with several.
    """

    segmentationNode: Node
    nodule: nodules.SegmentedNodule
    result: NoduleSegmentation
    maps: list[Node] = field(default_factory=list)
    created: bool = False
    removed: tuple[str, ...] = ()
    before: tuple[StoredNodule, ...] = ()
    notes: tuple[str, ...] = ()


class FoundNodules(NamedTuple):
    """What was found at the points of a request, and why there is nothing at some of several."""

    results: list[NoduleSegmentation]
    notes: list[str]


class SegmentationRuns(Runs[SegmentationRequest, FoundNodules, StoredNodule]):
    """Segmentations in one scene, one at a time, with their undo steps."""

    running = "a nodule is being segmented"

    def __init__(self, segment: Segmenter | None = None, worker: Worker | None = None):
        """`segment` is called in place of `segment_nodule`; then no model is loaded."""
        super().__init__(worker or Worker("nodule segmentation"))
        self._segment = segment
        self._loaded: tuple[tuple[str, str, str], Model] | None = None

    def model(self, wanted: Model | str | Path | None, device: str) -> Model:
        """A bundle, loaded once as long as the same one is wanted; a loaded model is returned as it is."""
        if isinstance(wanted, Model):
            return wanted
        folder = find_bundle(wanted)
        key = (str(folder), read_metadata(folder).sha256, str(device))  # an exchanged bundle is another one
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # the old one's memory first
            self._loaded = (key, load_model(folder, device))
        return self._loaded[1]

    def computation(self, request: SegmentationRequest) -> Callable[[Progress], FoundNodules]:
        """See `LungNoduleKit.scene.runs.Runs`."""
        points = _points(request)
        if request.segmentationNode is not None:
            segments.check_segmentation(request.segmentationNode)
        if request.replace is not None:
            nodules.find(request.segmentationNode, request.replace)
        unknown = [name for name in request.maps if name not in outputs.MAP_VOLUMES]
        if unknown:
            raise OutputError(f"map {unknown[0]!r}: it isn't one of {', '.join(outputs.MAP_VOLUMES)}")
        for point in points:
            segments.check_point_in_volume(request.volumeNode, point)
        cts = [segments.image_from_volume_node(request.volumeNode, around_ras=point) for point in points]
        model, device, segment = request.model, request.device, self._segment
        given = {"thresholds": request.thresholds, "averaging": request.averaging}
        more: dict[str, Any] = {key: value for key, value in given.items() if value is not None}

        def one(ct: sitk.Image, point: Point, progress: Progress) -> NoduleSegmentation:
            point_lps = as_triple(swap_lps_ras(point))
            if segment is not None:
                return segment(ct, point_lps=point_lps, model=model, device=device, progress=progress, **more)
            progress("loading the model", 0.02)
            return segment_nodule(ct, point_lps=point_lps, model=self.model(model, device), progress=progress, **more)

        def compute(progress: Progress) -> FoundNodules:
            if len(points) == 1:
                return FoundNodules([one(cts[0], points[0], progress)], [])
            found = FoundNodules([], [])
            for number, (ct, point) in enumerate(zip(cts, points, strict=True)):

                def told(stage: str, share: float, number: int = number) -> None:
                    progress(f"nodule {number + 1} of {len(points)}: {stage}", (number + share) / len(points))

                try:
                    found.results.append(one(ct, point, told))
                except NoNoduleError as error:
                    found.notes.append(f"part {number + 1} of {len(points)}: {error}")
            if not found.results:
                raise NoNoduleError("; ".join(found.notes))
            return found

        return compute

    def store(self, request: SegmentationRequest, found: FoundNodules) -> StoredNodule:
        """Adds the segments (and maps) of results to the scene as one undo step. All or nothing."""
        stored: list[StoredNodule] = []
        steps: list[Undo] = []
        base = request.name
        try:
            for number, result in enumerate(found.results, 1):
                if len(found.results) > 1:
                    request = replace(request, name=f"{base} {number}" if base else None)
                one, step = self._stored(request, result)
                request = replace(request, segmentationNode=one.segmentationNode)
                stored.append(one)
                steps.append(step)
        except BaseException:
            for step in reversed(steps):
                step.run()
            raise
        last = replace(stored[-1], created=stored[0].created, before=tuple(stored[:-1]), notes=tuple(found.notes))
        self.steps.push(steps[0] if len(steps) == 1 else _together(steps))
        outputs.update_table(last.segmentationNode)
        return last

    def _stored(self, request: SegmentationRequest, result: NoduleSegmentation) -> tuple[StoredNodule, Undo]:
        volumeNode, node = request.volumeNode, request.segmentationNode
        scene = volumeNode.GetScene()
        if scene is None:
            raise ImageError(f"{named(volumeNode)}: it was removed from the scene meanwhile")
        if node is not None and node.GetScene() is not scene:
            raise OutputError(f"segmentation {node.GetName()!r}: it was removed from the scene meanwhile")
        created = node is None
        removed: tuple[str, ...] = ()
        if request.replace is not None:
            step, key, removed = self._replace(request, request.replace, result)
        else:
            name = nodules.next_name(node) if request.name is None else request.name
            before = set() if created else {n.key for n in nodules.nodules(node)}
            node = segments.add_result(result, volumeNode, node, name)
            key = next(n.key for n in nodules.nodules(node) if n.key not in before)
            step = self._added(node, key, created)
        nodule = nodules.find(node, key)
        try:
            maps = outputs.add_maps(result, volumeNode, nodule.name, request.maps) if request.maps else []
        except BaseException:
            step.run()
            raise
        return StoredNodule(node, nodule, result, maps, created, removed), step

    def _replace(
        self, request: SegmentationRequest, key: str, result: NoduleSegmentation
    ) -> tuple[Undo, str, tuple[str, ...]]:
        node: Any = request.segmentationNode
        nodule = nodules.find(node, key)
        new = segments.new_segments(result, node, request.volumeNode, nodule.name)
        before = node.GetNodeReferenceID(measured.ct_role(key))
        with one_event(node):
            step = nodules.replace_in_place(nodule, new)
            measured.remember(node, key, nodules.find(node, key).ids, request.volumeNode)
        segments_back = step.function

        def back() -> None:
            segments_back()
            node.SetNodeReferenceID(measured.ct_role(key), before)

        step.function = back
        return step, nodule.key, tuple(part for part in nodule.ids if part not in new)

    def _added(self, node: Node, key: str, created: bool) -> Undo:
        def back() -> None:
            left = next((n for n in nodules.nodules(node) if n.key == key), None)
            if left is not None:
                nodules.delete(left)

        def remove_empty() -> None:
            if created and not node.GetSegmentation().GetNumberOfSegments():
                remove(node.GetScene(), node)

        return Undo("segment a nodule", (node,), back, remove_empty)

    def rename(self, segmentationNode: Node, key: str, name: str) -> None:
        """Renames a nodule; one undo step."""
        self.steps.push(nodules.rename(nodules.find(segmentationNode, key), name))
        outputs.update_table(segmentationNode)

    def delete(self, segmentationNode: Node, key: str) -> None:
        """Deletes a nodule's segments and no others; one undo step."""
        self.steps.push(nodules.delete(nodules.find(segmentationNode, key)))
        outputs.update_table(segmentationNode)

    def undone(self, step: Undo) -> None:
        """The table of measurements follows."""
        for node in step.nodes:
            if node.GetScene() is not None:
                outputs.update_table(node)


def _together(steps: list[Undo]) -> Undo:
    """One step back for several, the last one first."""

    def back() -> None:
        for step in reversed(steps):
            step.function()

    def remove_nodes() -> None:
        for step in reversed(steps):
            if step.remove is not None:
                step.remove()

    return Undo(f"segment {len(steps)} nodules", steps[-1].nodes, back, remove_nodes)


def _points(request: SegmentationRequest) -> list[Point]:
    """The points (R, A, S) of a request in the world, mm: one, or one for each part of what marks several nodules."""
    if (request.point is None) == (request.near is None):
        raise PointError("give either a point (RAS, mm) or something that marks the nodule, and not both")
    near: Any = request.near
    if request.point is not None:
        return [segments.checked_point(request.point)]
    if not isinstance(near, tuple | list) and near.IsA("vtkMRMLMarkupsLineNode"):
        return [line_middle(near)]
    points = segments.points_from_mask(near)
    if len(points) > 1 and request.replace is not None:
        raise PointError(f"the place has {len(points)} parts, and one nodule can't be segmented again from all of them")
    return points
