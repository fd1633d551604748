"""Probability maps become the masks of one nodule: thresholded, kept apart from its neighbors, nested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.warning_codes import CodedWarning

from ..measuring.measurements import equivalent_diameter_mm

_RIM_MM = 2.0  # LC may reach at least this far outside final
# What stands for an outline that would be empty.
_FALLBACKS = {
    code: CodedWarning(code, sentence)
    for code, sentence in (
        ("single-voxel", "the nodule is smaller than the CT's voxels: its outline is the single most probable voxel"),
        ("final-empty", "final is empty at its threshold: the most probable voxel stands for it"),
        ("hc-empty", "no voxel reaches the threshold of high confidence: HC is the most probable tenth of final"),
        ("lc-empty", "every voxel of the nodule is of high confidence: LC is the most probable voxel around it"),
        ("lc-empty-region", "the region is all nodule and all of high confidence: LC is its least certain voxel"),
    )
}


def _neighbors_part(final: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """Voxels that belong to another nodule: nearer to a part of `final` that isn't the selected nodule's than to it.

    Two nodules whose unions touch would otherwise become one. Parts of less than a tenth of the selected one's size are
    satellites of it and stay.
    """
    labels, count = ndimage.label(final, np.ones((3, 3, 3)))
    if count < 2:
        return np.zeros_like(final)
    own = 1 + int(np.argmax(ndimage.sum_labels(selected, labels, range(1, count + 1))))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    others = [n for n in range(1, count + 1) if n != own and sizes[n] >= 0.1 * sizes[own]]
    if not others:
        return np.zeros_like(final)
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.isin(labels[tuple(nearest)], others)


def _rim(final: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """How far LC may reach: voxels within a rim of `final`, so that it can't run along a vessel or the pleura.

    The rim is 2 mm, or a fifth of the nodule's equivalent diameter if that is more.
    """
    reach = max(_RIM_MM, 0.2 * equivalent_diameter_mm(final.sum() * np.prod(spacing)))
    return ndimage.distance_transform_edt(~final, sampling=spacing) <= max(reach, 1.01 * max(spacing))


def _whole_and_final(
    final_map: np.ndarray, union: np.ndarray, selected: np.ndarray, threshold: float, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(the connected part of `union` and final that holds the selected nodule, final in it), without its neighbors."""
    final = final_map >= threshold
    union = union | final
    labels, count = ndimage.label(union, np.ones((3, 3, 3)))
    if count == 0:
        # Slices so thick that no voxel center reaches the threshold: the best voxel stands for the nodule.
        notes.append(_FALLBACKS["single-voxel"])
        best = np.unravel_index(np.argmax(final_map), final.shape)
        union = np.zeros_like(final)
        union[best] = final[best] = True
        labels, count = union.astype(int), 1
    weight = ndimage.sum_labels(selected, labels, range(1, count + 1))
    union = labels == 1 + int(np.argmax(weight))
    final &= union
    union &= ~_neighbors_part(final, selected)
    final &= union
    if not final.any():
        notes.append(_FALLBACKS["final-empty"])
        final[np.unravel_index(np.argmax(np.where(union, final_map, -1)), final.shape)] = True
    return union, final


def final_mask(final_map: np.ndarray, selected: np.ndarray, threshold: float, notes: list[str]) -> np.ndarray:
    """The final mask (z, y, x) of a model that has nothing else: where its one map reaches a threshold.

    The connected part that holds the nodule which `selected` (z, y, x) weighs. A sentence about a fallback (an outline
    that would be empty) goes to `notes`.
    """
    return _whole_and_final(final_map, np.zeros(final_map.shape, bool), selected, threshold, notes)[1]


def high_confidence(intersection_map: np.ndarray, final: np.ndarray, threshold: float, notes: list[str]) -> np.ndarray:
    """HC (z, y, x) of a nodule whose final mask is known; a sentence about the fallback for an empty one to `notes`."""
    hc = (intersection_map >= threshold) & final
    if not hc.any():
        notes.append(_FALLBACKS["hc-empty"])
        inside = np.where(final, intersection_map, -1.0)
        kept = max(int(final.sum()) // 10, 1)
        hc = final & (inside >= np.partition(inside.ravel(), -kept)[-kept])
    return hc


def nested_masks(
    maps: Mapping[str, np.ndarray],
    selected: np.ndarray,
    thresholds: Mapping[str, float],
    notes: list[str],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disjoint HC and LC and the final mask (z, y, x): thresholded probability maps, limited to one nodule.

    `maps` has `union`, `intersection` and `final`; `selected` weighs the voxels of the nodule that is meant;
    `spacing` is the voxels' (z, y, x), mm. Sentences about fallbacks (an outline that would be empty) go to `notes`.
    """
    union = maps["union"] >= thresholds["union"]
    union, final = _whole_and_final(maps["final"], union, selected, thresholds["final"], notes)
    union &= _rim(final, spacing)
    hc = high_confidence(maps["intersection"], final, thresholds["intersection"], notes)
    lc = union & ~hc
    if not lc.any():
        ring = ndimage.binary_dilation(union) & ~union
        if ring.any():
            notes.append(_FALLBACKS["lc-empty"])
            lc[np.unravel_index(np.argmax(np.where(ring, maps["union"], -1)), lc.shape)] = True
        elif hc.sum() > 1:
            notes.append(_FALLBACKS["lc-empty-region"])
            least = np.unravel_index(np.argmin(np.where(hc, maps["intersection"], 2)), hc.shape)
            hc[least], lc[least] = False, True
        else:
            raise NoduleError("the CT's region is too small to hold a nodule and its surroundings")
    return hc, lc, final
