"""Outlines of real nodules by four LIDC readers each, as they ship with the package, and their shapes in mm."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.ndimage import distance_transform_edt

from ..resources import resource_path


def sample_outlines() -> dict[str, dict[str, Any]]:
    """The shipped nodules by name; the file's `convention` entry explains the coordinates."""
    path = resource_path("Samples", "lung-nodule-outlines.json")
    return {n["nodule"]: n for n in json.loads(path.read_text(encoding="utf-8"))["nodules"]}


def reader_distances(nodule: dict[str, Any], points_mm: np.ndarray) -> np.ndarray:
    """How deep points lie inside of each reader's outline: float32 (readers, ...), mm, negative outside.

    `points_mm` (..., 3) holds (z, y, x) relative to the nodule's center. Between two slices the depth within the
    slices is interpolated (shape-based interpolation); above the last slice the nodule ends half a slice on.
    """
    pixel, step = nodule["pixel_spacing_mm"], nodule["slice_spacing_mm"]
    heights = sorted({c["z_mm"] for r in nodule["readers"] for c in r["contours"]})
    first, count = heights[0], round((heights[-1] - heights[0]) / step) + 1
    reach = 3 + max(abs(v) for r in nodule["readers"] for c in r["contours"] for ij in c["ij"] for v in ij)
    index = np.stack(
        [
            (points_mm[..., 0] - first) / step + 2,  # two empty slices at each end
            points_mm[..., 1] / pixel + reach,
            points_mm[..., 2] / pixel + reach,
        ]
    )
    out = []
    for reader in nodule["readers"]:
        masks = np.zeros((count + 4, 2 * reach + 1, 2 * reach + 1), bool)
        for contour in reader["contours"]:
            plane = masks[2 + round((contour["z_mm"] - first) / step)]
            # The contour's pixels are the first ones outside of the nodule (and part of the hole that they surround).
            filled, line = _polygon(np.array(contour["ij"]) + reach, plane.shape)
            if contour["inclusion"]:
                plane |= filled & ~line
            else:
                plane &= ~(filled | line)
        depth = np.stack([_signed_distance(m) for m in masks]) * pixel
        used = np.flatnonzero(masks.any((1, 2)))
        for end, beyond in ((used[0], used[0] - 1), (used[-1], used[-1] + 1)):
            # Interpolation is zero half a slice on wherever the end is filled, and less than that at its rim.
            depth[beyond] = -np.maximum(np.abs(depth[end]), pixel)
        out.append(ndimage.map_coordinates(depth, index, order=1, mode="nearest").astype(np.float32))
    return np.stack(out)


def _polygon(vertices: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Filled polygon and its outline, bool images."""
    from skimage.draw import polygon, polygon_perimeter

    filled, line = np.zeros(shape, bool), np.zeros(shape, bool)
    filled[polygon(vertices[:, 0], vertices[:, 1], shape)] = True
    line[polygon_perimeter(vertices[:, 0], vertices[:, 1], shape)] = True
    return filled, line


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline in pixels, positive inside; an empty slice is outside everywhere."""
    if not mask.any():
        return np.full(mask.shape, -8.0)
    return np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask))
