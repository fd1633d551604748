"""The nodules of a segmentation node: found again by their segments' tags, renamed, replaced, deleted, undone.

Nothing is kept beside the scene: a nodule is the segments that carry the same `NODULE_TAG`, so a saved scene or a
`.seg.nrrd` file brings its list along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from LungNoduleKit.errors import NoduleError, OutputError
from LungNoduleKit.scene.labelmaps import Segment, Segmentation, labelmap_name, segment_names, tag
from LungNoduleKit.scene.nodes import Node, one_event
from LungNoduleKit.scene.transforms import to_world
from LungNoduleKit.scene.undo import Undo

from ..measuring.measurements import Measurements
from ..measuring.size_classes import KINDS, NoduleKind
from ..outlining.finding import Point
from ..segments import KIND_TAG, MEASUREMENTS_TAG, NODULE_TAG, POINT_TAG, SEGMENTS, TAG_PREFIX, WARNINGS_TAG
from . import measured
from .display import display_of, show_parts
from .members import members, settle
from .segments import point_from_mask


@dataclass
class SegmentedNodule:
    """`key` tells a segmentation's nodules apart; `ids` are its segments' IDs {"HC": ..., "LC": ..., "Final": ...}.

    A part that the user deleted, or that the model doesn't have, is missing in `ids`. `measurements` are those of
    `measurements.measure`, or None where there are none, or where they are out of date: then `changes` says what has
    changed since, one clause each. `kind` is its type for size classes. `warnings` are the run's, one sentence each.
    """

    segmentationNode: Node
    key: str
    name: str
    ids: dict[str, str] = field(default_factory=dict)
    measurements: Measurements | None = None
    model: str = ""
    kind: NoduleKind = "solid"
    warnings: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def center_ras(self) -> Point:
        """Centroid (R, A, S) of the final outline, or of what is left, in the world, mm."""
        part = next(p for p in ("Final", "HC", "LC") if p in self.ids)
        return point_from_mask((self.segmentationNode, self.ids[part]))

    def point_ras(self) -> Point:
        """The point (R, A, S) that was clicked, in the world, mm, wherever a transform has moved the segmentation."""
        segment = self.segment(next(iter(self.ids)))
        text = tag(segment, POINT_TAG)
        if not text:
            return self.center_ras()
        return to_world(self.segmentationNode, [float(v) for v in text.split()])

    def segment(self, part: str) -> Segment:
        """The vtkSegment of a part."""
        return self.segmentationNode.GetSegmentation().GetSegment(self.ids[part])


def nodules(segmentationNode: Node) -> list[SegmentedNodule]:
    """The nodules of a segmentation node, in the order of their first segments."""
    return [_nodule(segmentationNode, key, ids) for key, ids in members(segmentationNode).items()]


def _nodule(segmentationNode: Node, key: str, ids: dict[str, str]) -> SegmentedNodule:
    part, segment_id = next(iter(ids.items()))
    segment = segmentationNode.GetSegmentation().GetSegment(segment_id)
    nodule = SegmentedNodule(segmentationNode, key, _name_of(segment.GetName(), part), ids)
    nodule.model = tag(segment, TAG_PREFIX + "model")
    nodule.kind = cast(NoduleKind, tag(segment, KIND_TAG) or "solid")
    if tag(segment, WARNINGS_TAG):
        nodule.warnings = json.loads(tag(segment, WARNINGS_TAG))
    if tag(segment, MEASUREMENTS_TAG):
        nodule.changes = measured.changes(segmentationNode, key, ids)
        if not nodule.changes:
            nodule.measurements = json.loads(tag(segment, MEASUREMENTS_TAG))
    return nodule


def bring_up_to_date(segmentationNode: Node) -> dict[str, str]:
    """Measures the nodules again whose numbers are out of date; returns why that failed, {key: reason}."""
    failed = {}
    with one_event(segmentationNode):
        for nodule in nodules(segmentationNode):
            if nodule.changes:
                try:
                    measured.measure_again(segmentationNode, nodule.key, nodule.ids, nodule.name)
                except NoduleError as error:
                    failed[nodule.key] = str(error)
    return failed


def up_to_date(nodule: SegmentedNodule) -> SegmentedNodule:
    """A nodule with its measurements as they are now. Raises `NoduleError` if it can't be measured."""
    if nodule.changes:
        measured.measure_again(nodule.segmentationNode, nodule.key, nodule.ids, nodule.name)
    return find(nodule.segmentationNode, nodule.key)


def find(segmentationNode: Node, key: str) -> SegmentedNodule:
    """The nodule with a key. Raises `NoduleError` if the segmentation has none such."""
    for nodule in nodules(segmentationNode):
        if nodule.key == key:
            return nodule
    raise NoduleError(f"segmentation {segmentationNode.GetName()!r}: the nodule isn't there any more")


def next_name(segmentationNode: Node | None = None) -> str:
    """`Nodule N` with the first N that no nodule nor segment of the segmentation uses."""
    taken: set[str] = set()
    if segmentationNode is not None:
        taken = segment_names(segmentationNode.GetSegmentation())
        taken |= {f"{nodule.name} Final" for nodule in nodules(segmentationNode)}
    number = 1
    while taken & {f"Nodule {number} {part}" for part in SEGMENTS}:
        number += 1
    return f"Nodule {number}"


def rename(nodule: SegmentedNodule, name: str) -> Undo:
    """Names a nodule's segments `<name> HC`, `<name> LC` and `<name> Final`.

    Raises `OutputError` for an empty name, one that Slicer's file format can't hold, or one that is taken.
    """
    name = " ".join(str(name).split())
    if not name or "|" in name:
        raise OutputError(f"name {name!r}: a nodule's name can't be empty nor contain |")
    if any(other.name == name and other.key != nodule.key for other in nodules(nodule.segmentationNode)):
        raise OutputError(f"name {name!r}: another nodule of the segmentation has it")
    segmentation = nodule.segmentationNode.GetSegmentation()
    before = {i: segmentation.GetSegment(i).GetName() for i in nodule.ids.values()}
    for part, segment_id in nodule.ids.items():
        segmentation.GetSegment(segment_id).SetName(f"{name} {part}")

    def back() -> None:
        for segment_id, old in before.items():
            if segmentation.GetSegment(segment_id) is not None:
                segmentation.GetSegment(segment_id).SetName(old)

    return Undo(f"rename {nodule.name}", (nodule.segmentationNode,), back)


def set_kind(nodule: SegmentedNodule, kind: str) -> None:
    """Sets a nodule's type, one of `size_classes.KINDS`, which decides on its size classes."""
    if kind not in KINDS:
        raise OutputError(f"nodule type {kind!r}: it isn't one of {', '.join(KINDS)}")
    for part in nodule.ids:
        nodule.segment(part).SetTag(KIND_TAG, kind)


def delete(nodule: SegmentedNodule) -> Undo:
    """Removes a nodule's segments and no others."""
    shown = [display_of(nodule.segmentationNode, i) for i in nodule.ids.values()]
    put_back = _remove(nodule.segmentationNode.GetSegmentation(), nodule.ids.values())

    def back() -> None:
        for function in (put_back, *shown):
            function()

    return Undo(f"delete {nodule.name}", (nodule.segmentationNode,), back)


def _remove(segmentation: Segmentation, doomed: Iterable[str]) -> Callable[[], None]:
    """Removes segments with IDs; returns the function that puts them back where they were."""
    doomed = set(doomed)
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    removed = [(i, segmentation.GetSegment(i), ids[ids.index(i) + 1 :]) for i in ids if i in doomed]
    for segment_id, _, _ in removed:
        segmentation.RemoveSegment(segment_id)

    def back() -> None:
        for segment_id, segment, behind in reversed(removed):
            before = next((i for i in behind if segmentation.GetSegment(i) is not None), "")
            segmentation.AddSegment(segment, segment_id, before)

    return back


def replace_in_place(nodule: SegmentedNodule, segments: Mapping[str, Segment]) -> Undo:
    """Puts new labelmaps and tags into a nodule's own segments; IDs, names, colors and display stay.

    `segments` are new vtkSegments {part: segment}. A part that was deleted comes back, one that isn't among the new
    ones (HC and LC, where the model has Final alone) goes. All or nothing.
    """
    import slicer

    segmentation, labelmap = nodule.segmentationNode.GetSegmentation(), labelmap_name()
    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    had_surface = segmentation.ContainsRepresentation(surface)
    ids = nodule.ids
    before: dict[str, Segment] = {}
    added: dict[str, str] = {}
    put_back: list[Callable[[], None]] = []

    def back() -> None:
        for segment_id in added.values():
            segmentation.RemoveSegment(segment_id)
        for function in put_back:
            function()
        for segment_id, copy in before.items():
            if segmentation.GetSegment(segment_id) is not None:
                _take_over(segmentation.GetSegment(segment_id), copy, labelmap)
        _renew_surface(segmentation, surface, had_surface)

    try:
        for part, new in segments.items():
            if part in ids:
                own = nodule.segment(part)
                before[ids[part]] = _copy_of(own, labelmap)
                _take_over(own, new, labelmap)
            else:
                added[part] = _add_part(nodule, part, new)
        put_back += _reshape(nodule, added, [part for part in ids if part not in segments])
        _renew_surface(segmentation, surface, had_surface)
    except BaseException:
        back()
        raise
    return Undo(f"segment {nodule.name} again", (nodule.segmentationNode,), back)


def _copy_of(own: Segment, labelmap: str) -> Segment:
    """A segment with the labelmap and the run's tags of another."""
    import slicer

    copy = slicer.vtkSegment()
    copy.SetLabelValue(own.GetLabelValue())
    copy.AddRepresentation(labelmap, own.GetRepresentation(labelmap))
    _copy_run_tags(own, copy)
    return copy


def _add_part(nodule: SegmentedNodule, part: str, new: Segment) -> str:
    """Adds a nodule's missing part before those that come after it; returns its ID."""
    segmentation = nodule.segmentationNode.GetSegmentation()
    new.SetName(f"{nodule.name} {part}".strip())
    new.SetTag(NODULE_TAG, nodule.key)
    if any(nodule.segment(p).HasTag(KIND_TAG) for p in nodule.ids):
        new.SetTag(KIND_TAG, nodule.kind)
    segment_id = segmentation.GenerateUniqueSegmentID(new.GetName())
    behind = list(SEGMENTS)[list(SEGMENTS).index(part) + 1 :]
    before = next((nodule.ids[p] for p in behind if p in nodule.ids), "")
    if not segmentation.AddSegment(new, segment_id, before):
        raise OutputError(f"segmentation {nodule.segmentationNode.GetName()!r}: it doesn't take {part}")
    settle(nodule.segmentationNode, {part: segment_id})
    return segment_id


def _reshape(nodule: SegmentedNodule, added: dict[str, str], gone: list[str]) -> list[Callable[[], None]]:
    """Removes the parts `gone` of a nodule, shows the new ones {part: ID}; returns functions that take it back."""
    node, ids = nodule.segmentationNode, nodule.ids
    left = {part: i for part, i in {**ids, **added}.items() if part not in gone}
    had_interval, has_interval = ("HC" in parts or "LC" in parts for parts in (ids, left))
    shown = [display_of(node, ids[part]) for part in gone]
    if had_interval != has_interval and "Final" in ids:
        shown.append(display_of(node, ids["Final"], ("Visibility3D",)))
    put_back = _remove(node.GetSegmentation(), [ids[part] for part in gone])
    show_parts(node, left, added, final_3d=had_interval != has_interval)
    return [put_back, *shown]


# What a run writes, beside the part and the nodule's key, which stay.
_RUN_TAGS = (
    MEASUREMENTS_TAG,
    POINT_TAG,
    WARNINGS_TAG,
    measured.MEASURED_TAG,
    *(
        TAG_PREFIX + key
        for key in (
            "model",
            "model_version",
            "model_sha256",
            "software",
            "thresholds",
            "size_calibration",
            "point_lps",
            "averaging",
            "warning_codes",
        )
    ),
)


def _take_over(own: Segment, new: Segment, labelmap: str) -> None:
    own.RemoveAllRepresentations()
    own.AddRepresentation(labelmap, new.GetRepresentation(labelmap))
    own.SetLabelValue(new.GetLabelValue())
    _copy_run_tags(new, own)


def _copy_run_tags(source: Segment, target: Segment) -> None:
    for name in _RUN_TAGS:
        if source.HasTag(name):
            target.SetTag(name, tag(source, name))
        else:
            target.RemoveTag(name)


def _renew_surface(segmentation: Segmentation, surface: str, wanted: bool) -> None:
    if wanted:
        segmentation.RemoveRepresentation(surface)
        segmentation.CreateRepresentation(surface, True)


def _name_of(segment_name: str, part: str) -> str:
    name = segment_name.removesuffix(part).strip()
    return name or "Nodule"
