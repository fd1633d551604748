"""Which segments belong to which nodule: by their tags, and never a copy in the place of the original."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from LungNoduleKit.scene.labelmaps import tag
from LungNoduleKit.scene.nodes import Node

from ..segments import NODULE_TAG, PART_TAG, SEGMENTS, TAG_PREFIX

HOME_ATTRIBUTE = TAG_PREFIX + "id"  # of a segmentation node: tells its own segments from those that came from others
SEGMENT_TAG = TAG_PREFIX + "segment"  # "<home> <segment ID>" where the segment was made


def settle(segmentationNode: Node, ids: Mapping[str, str]) -> None:
    """Notes in segments {part: ID} that they were made here. Slicer copies tags with a segment, but not its ID."""
    if segmentationNode.GetAttribute(HOME_ATTRIBUTE) is None:
        segmentationNode.SetAttribute(HOME_ATTRIBUTE, uuid.uuid4().hex)
    home = segmentationNode.GetAttribute(HOME_ATTRIBUTE)
    for segment_id in ids.values():
        segmentationNode.GetSegmentation().GetSegment(segment_id).SetTag(SEGMENT_TAG, f"{home} {segment_id}")


def members(segmentationNode: Node) -> dict[str, dict[str, str]]:
    """{nodule key: {part: segment ID}}, in the order of the first segments.

    A segment that was made in this segmentation counts under the ID that it was made with alone: its copies within the
    segmentation are left out, also when the original is deleted. Segments that came from elsewhere (moved, copied or
    read from a file) make up a nodule here unless the segmentation has it already; of several for one part the one
    that kept its ID counts, else the first.
    """
    segmentation, home = segmentationNode.GetSegmentation(), segmentationNode.GetAttribute(HOME_ATTRIBUTE) or ""
    own: dict[str, dict[str, str]] = {}
    foreign: dict[str, dict[str, str]] = {}
    order: dict[str, None] = {}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        key, part = tag(segment, NODULE_TAG), tag(segment, PART_TAG)
        if not key or part not in SEGMENTS:
            continue
        made_at, _, made_as = tag(segment, SEGMENT_TAG).partition(" ")
        order[key] = None
        if home and made_at == home:
            if made_as == segment_id:
                own.setdefault(key, {})[part] = segment_id
        elif part not in foreign.setdefault(key, {}) or made_as == segment_id:
            foreign[key][part] = segment_id
    found = {key: own.get(key) or foreign.get(key, {}) for key in order}
    return {key: ids for key, ids in found.items() if ids}
