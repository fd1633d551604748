"""What was measured on an input, and whether that is the same as without the damage.

The measurement is a stand-in that takes no time: what lies above -300 HU nearest to where the ball was. It has a
volume, a mean axis, a place and a HU as the product's measurement has, and is wrong whenever what was read is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

ABOVE_HU = -300.0
NEAR_MM = 8.0  # something farther from the point than this isn't the nodule
SHARE, PLACE_MM, HU = 0.02, 0.2, 20.0  # differences that count: 2 % of a size, of 10 mm, of 1000 HU
_LIMIT = 4_000_000  # voxels that are measured; what claims to be larger isn't the ball
Figures = dict[str, Any]


def measure(array: np.ndarray, matrix: np.ndarray, origin: np.ndarray, point: np.ndarray) -> Figures:
    """Figures of what lies at a point (LPS mm) of an array (slice, row, column).

    HU is the median, because one changed byte in a pixel can't be seen by anybody, but moves a mean by 100.
    """
    if array.ndim != 3 or array.size > _LIMIT:
        return {"found": f"{array.ndim}D, {array.size} voxels"}
    return measure_mask(array > ABOVE_HU, matrix, origin, point, array)


def measure_mask(
    mask: np.ndarray, matrix: np.ndarray, origin: np.ndarray, point: np.ndarray, values: np.ndarray | None = None
) -> Figures:
    """Figures of the part of a mask that lies nearest to a point."""
    labels, count = ndimage.label(mask)
    if not count:
        return {"found": "nothing"}
    k, j, i = np.nonzero(labels)
    places = np.stack([i, j, k], -1) @ np.asarray(matrix, float).T + origin
    distance = np.linalg.norm(places - point, axis=1)
    nearest = int(distance.argmin())
    if not distance[nearest] < NEAR_MM:
        return {"found": "nothing"}
    part = labels == labels[k[nearest], j[nearest], i[nearest]]
    own = part[k, j, i]
    center = places[own].mean(0)
    largest = int(part.sum((1, 2)).max())
    area = largest * float(np.linalg.norm(np.cross(matrix[:, 0], matrix[:, 1])))
    found: Figures = {
        "volume_mm3": float(own.sum() * abs(np.linalg.det(matrix))),
        "axis_mm": float(2 * np.sqrt(area / np.pi)),
        **{f"at_{axis}": float(value) for axis, value in zip("xyz", center, strict=True)},
    }
    if values is not None:
        found["hu"] = float(np.median(values[part]))
    return found


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs by more than 2 %, in words."""
    out = []
    for name in sorted(expected.keys() | found.keys()):
        one, other = expected.get(name), found.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            out += [f"{name}: {text}" for text in differences(one, other)]
        elif not _same(name, one, other):
            out.append(f"{name} {_shown(one)} became {_shown(other)}")
    return out


def _same(name: str, one: Any, other: Any) -> bool:
    if not isinstance(one, float) or not isinstance(other, float):
        return bool(one == other)
    if not np.isfinite(one) or not np.isfinite(other):
        return False
    if name == "hu":
        return abs(one - other) <= HU
    if name.startswith("at_"):
        return abs(one - other) <= PLACE_MM
    return abs(one - other) <= SHARE * abs(one)


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else repr(value)[:80]
