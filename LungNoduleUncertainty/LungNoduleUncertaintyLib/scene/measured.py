"""What a nodule's numbers were measured on, whether that has changed since, and measuring it again.

The segments say what they looked like when they were measured: a digest of each one's voxels and where these lie in the
world, and the same of the CT around them. Compared with what is there now, that tells an edit, a transform, a deleted
part or another CT, also after the scene was saved and read, and tells nothing once an edit is undone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.geometry import AIR_HU
from LungNoduleKit.scene.labelmaps import labelmap_name, oriented_array, tag
from LungNoduleKit.scene.lattices import fitted_lattice, ijk_to_ras, lattice_grid, moved_start, named, voxels_of
from LungNoduleKit.scene.nodes import Node, one_event
from LungNoduleKit.scene.transforms import chain, matrix_between, reslice, transform_between, transform_points

from ..measuring.measurements import Measurements, measure
from ..segments import MEASUREMENTS_TAG, TAG_PREFIX, WARNINGS_TAG

MEASURED_TAG = TAG_PREFIX + "measured"  # JSON, see `_state`
NOT_NESTED = "HC, LC and Final were changed so that Final doesn't lie between HC and HC with LC."
_NEAR_MM = 1e-2
_SAME_VOLUME = 1e-3  # relative; of numbers that came with no state, as from a file of the command line
_boxes: dict[tuple[str, int], list[Any]] = {}  # of the labels of a labelmap, by its address and time


def remember(segmentationNode: Node, key: str, ids: Mapping[str, str], volumeNode: Node) -> None:
    """Notes in a nodule's segments {part: ID} that their numbers were measured on them as they are, and on a CT."""
    segmentationNode.SetNodeReferenceID(ct_role(key), volumeNode.GetID())
    text = json.dumps(_state(segmentationNode, ids, volumeNode), separators=(",", ":"))
    for segment_id in ids.values():
        segmentationNode.GetSegmentation().GetSegment(segment_id).SetTag(MEASURED_TAG, text)


def ct_of(segmentationNode: Node, key: str) -> Node | None:
    """The CT that a nodule was measured on, if it is in the scene; else the one that the segmentation refers to."""
    own = segmentationNode.GetNodeReference(ct_role(key))
    if own is not None or segmentationNode.GetNodeReferenceID(ct_role(key)):
        return own
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def ct_role(key: str) -> str:
    """The role of the node reference from a segmentation to the CT that a nodule was measured on."""
    return f"{TAG_PREFIX}ct.{key}"


def changes(segmentationNode: Node, key: str, ids: Mapping[str, str]) -> list[str]:
    """What has changed since a nodule with segments {part: ID} was measured, such as "Final was edited"."""
    segmentation = segmentationNode.GetSegmentation()
    segment = segmentation.GetSegment(next(iter(ids.values())))
    if not tag(segment, MEASURED_TAG):
        return _changed_volumes(segmentationNode, ids, json.loads(tag(segment, MEASUREMENTS_TAG)))
    before = json.loads(tag(segment, MEASURED_TAG))
    now = _state(segmentationNode, ids, ct_of(segmentationNode, key), before["ct"])
    found = [f"{part} was deleted" for part in before["parts"] if part not in ids]
    found += [f"{part} was added" for part in ids if part not in before["parts"]]
    both = [part for part in ids if part in before["parts"]]
    edited = [part for part in both if before["parts"][part][0] != now["parts"][part][0]]
    moved = [part for part in both if part not in edited and not _near(before["parts"][part][1], now["parts"][part][1])]
    found += [f"{part} was edited" for part in edited]
    if moved:
        found.append(f"{', '.join(moved)} moved, by a transform or otherwise")
    if now["ct"] is not None and before["ct"] is not None:
        same = now["ct"]["voxels"] == before["ct"]["voxels"] and _near(now["ct"]["points"], before["ct"]["points"])
        found += [] if same else ["the CT was changed or moved"]
    return found


def measure_again(segmentationNode: Node, key: str, ids: Mapping[str, str], name: str) -> Measurements:
    """Measures a nodule's segments {part: ID} as they are now, and notes the numbers in each of them.

    On the voxels of Final's labelmap, as they lie in the world. Without HC or LC there is no interval. Raises
    `NoduleError` if Final or the CT isn't there or a segment is empty; then the segments are as they were.
    """
    volumeNode = ct_of(segmentationNode, key)
    if "Final" not in ids:
        raise NoduleError(f"{name}: Final was deleted; segment the nodule again")
    if volumeNode is None:
        raise NoduleError(f"{name}: the CT that it was measured on isn't in the scene")
    parts = ids if {"HC", "LC"} <= set(ids) else {"Final": ids["Final"]}
    ct, masks = _images(segmentationNode, parts, volumeNode, name)
    measurements = measure(ct, masks.get("HC"), masks.get("LC"), masks["Final"])
    segmentation = segmentationNode.GetSegmentation()
    warnings = _warnings(tag(segmentation.GetSegment(ids["Final"]), WARNINGS_TAG), masks)
    with one_event(segmentationNode):
        for segment_id in ids.values():
            segment = segmentation.GetSegment(segment_id)
            segment.SetTag(MEASUREMENTS_TAG, json.dumps(measurements, separators=(",", ":")))
            segment.SetTag(WARNINGS_TAG, json.dumps(warnings)) if warnings else segment.RemoveTag(WARNINGS_TAG)
        remember(segmentationNode, key, ids, volumeNode)
    return measurements


def _state(
    segmentationNode: Node, ids: Mapping[str, str], volumeNode: Node | None, region: dict[str, Any] | None = None
) -> dict[str, Any]:
    """{"parts": {part: [digest of its voxels, where they lie]}, "ct": the same of the CT's `region`, or None}."""
    crops = {part: _crop(segmentationNode, segment_id) for part, segment_id in ids.items()}
    parent = segmentationNode.GetParentTransformNode()
    crops = {part: _canonical(*crop) for part, crop in crops.items()}
    parts: dict[str, list[Any]] = {
        part: [_digest(mask), _points(lattice, mask.shape, parent)] for part, (mask, lattice) in crops.items()
    }
    state: dict[str, Any] = {"parts": parts, "ct": None}
    if volumeNode is None or volumeNode.GetImageData() is None:
        return state
    array, own = voxels_of(volumeNode), ijk_to_ras(volumeNode)
    volume_parent = volumeNode.GetParentTransformNode()
    if region is None:
        corners = [point for _, points in parts.values() for point in points]
        local = transform_points(transform_between(None, volume_parent), corners) if corners else np.zeros((0, 3))
    else:
        local = np.array(region["corners"])
    if not len(local):
        return state
    inverse = np.linalg.inv(own)
    indices = local @ inverse[:3, :3].T + inverse[:3, 3] + 0.5
    start = np.clip(np.floor(indices.min(axis=0) + _NEAR_MM), 0, array.shape[::-1]).astype(int)
    stop = np.clip(np.ceil(indices.max(axis=0) - _NEAR_MM), 0, array.shape[::-1]).astype(int)
    part = array[tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))]
    part, lattice = _canonical(part, moved_start(own, start))
    state["ct"] = {
        "voxels": _digest(part),
        "corners": _points(lattice, part.shape, None),
        "points": _points(lattice, part.shape, volume_parent),
    }
    return state


def _canonical(array: np.ndarray, lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array (z, y, x) and its lattice, turned so that each axis runs to the right, anterior or superior.

    Slicer turns the axes of some volumes around when it writes them.
    """
    for axis in range(3):
        direction = lattice[:3, axis]
        if direction[np.abs(direction).argmax()] < 0 and array.shape[2 - axis]:
            array, end = np.flip(array, 2 - axis), np.zeros(3)
            end[axis] = array.shape[2 - axis] - 1
            lattice = moved_start(lattice, end)
            lattice[:3, axis] = -direction
    return array, lattice


def _crop(segmentationNode: Node, segment_id: str) -> tuple[np.ndarray, np.ndarray]:
    """(mask (z, y, x) within its bounding box, lattice that starts there, in the segmentation's coordinates)."""
    segment = segmentationNode.GetSegmentation().GetSegment(segment_id)
    labelmap = segment.GetRepresentation(labelmap_name())
    if labelmap is None:
        return np.zeros((0, 0, 0), bool), np.eye(4)
    array, lattice = oriented_array(labelmap)
    key, label = (labelmap.GetAddressAsString(""), labelmap.GetMTime()), int(segment.GetLabelValue())
    if key not in _boxes:  # one look at a labelmap that many segments share
        if len(_boxes) > 256:
            _boxes.clear()
        _boxes[key] = ndimage.find_objects(array) if array.size else []
    box = _boxes[key][label - 1] if 0 < label <= len(_boxes[key]) else None
    if box is None:
        return np.zeros((0, 0, 0), bool), lattice
    return array[box] == label, moved_start(lattice, [part.start for part in box[::-1]])


def _digest(array: np.ndarray) -> str:
    packed = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.shape} {packed.dtype}".encode() + packed.tobytes()).hexdigest()[:16]


def _points(lattice: np.ndarray, shape: tuple[int, ...], parent: Node | None) -> list[list[float]]:
    """Where an array lies in the world: its corners, and its middles too under a transform that isn't linear."""
    if 0 in shape:
        return []
    steps = 2 if matrix_between(parent, None) is not None else 3
    ends = [np.linspace(-0.5, n - 0.5, steps) for n in shape[::-1]]
    local = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3) @ lattice[:3, :3].T + lattice[:3, 3]
    return np.round(transform_points(transform_between(parent, None), local), 4).tolist()


def _near(one: list[list[float]], other: list[list[float]]) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=_NEAR_MM))


def _changed_volumes(segmentationNode: Node, ids: Mapping[str, str], measurements: Measurements) -> list[str]:
    """What differs from numbers that came without a state: parts that are missing, and other volumes."""
    world = matrix_between(segmentationNode.GetParentTransformNode(), None)
    volumes, found = measurements["volumes_mm3"], []
    for part in ("HC", "LC", "Final"):
        if part.lower() in volumes and part not in ids:
            found.append(f"{part} was deleted")
        elif part in ids and part.lower() in volumes:
            mask, lattice = _crop(segmentationNode, ids[part])
            size = abs(np.linalg.det((world if world is not None else np.eye(4)) @ lattice)) * mask.sum()
            if abs(size - volumes[part.lower()]) > _SAME_VOLUME * volumes[part.lower()]:
                found.append(f"{part} was edited")
    return found


def _images(
    segmentationNode: Node, ids: Mapping[str, str], volumeNode: Node, name: str
) -> tuple[sitk.Image, dict[str, sitk.Image]]:
    """(CT, {part: mask}) in the world, on the voxels of Final's labelmap, around all parts."""
    crops = {part: _crop(segmentationNode, segment_id) for part, segment_id in ids.items()}
    for part, (mask, _) in crops.items():
        if not mask.any():
            raise NoduleError(f"{name}: {part} is empty; segment the nodule again")
    parent, lattice = segmentationNode.GetParentTransformNode(), crops["Final"][1]
    inverse = np.linalg.inv(lattice)
    corners = [(own, (np.array(mask.shape[::-1]) - 1) * end) for mask, own in crops.values() for end in (0, 1)]
    ends = np.array([moved_start(own, corner)[:3, 3] for own, corner in corners])
    reached = ends @ inverse[:3, :3].T + inverse[:3, 3]
    low, high = np.floor(reached.min(axis=0)) - 2, np.ceil(reached.max(axis=0)) + 2
    lattice, size = moved_start(lattice, low), tuple(int(n) for n in high - low + 1)
    world = matrix_between(parent, None)
    if world is not None:
        lattice = world @ lattice
    else:
        lattice, size = fitted_lattice(lattice, size, transform_between(parent, None), named(segmentationNode))
    grid = lattice_grid(lattice, size, named(segmentationNode))
    masks = {}
    for part, (mask, own) in crops.items():
        values = reslice(mask.astype(np.float32), chain(lattice, (None, parent), np.linalg.inv(own)), size)
        masks[part] = grid.image((values >= 0.5).astype(np.uint8))
    array = voxels_of(volumeNode)
    steps = (lattice, (None, volumeNode.GetParentTransformNode()), np.linalg.inv(ijk_to_ras(volumeNode)))
    return grid.image(reslice(array, chain(*steps), size, outside=max(AIR_HU, float(array.min())))), masks


def _warnings(text: str, masks: Mapping[str, sitk.Image]) -> list[str]:
    """The run's warnings, and whether the masks still lie in each other."""
    warnings = [warning for warning in (json.loads(text) if text else []) if warning != NOT_NESTED]
    arrays = {part: sitk.GetArrayViewFromImage(mask) != 0 for part, mask in masks.items()}
    if "HC" in arrays:
        hc, union, final = arrays["HC"], arrays["HC"] | arrays["LC"], arrays["Final"]
        if (hc & ~final).any() or (final & ~union).any():
            warnings.append(NOT_NESTED)
    return warnings
