"""Slices that fit neither of their neighbors: pixels that were damaged, or belong to another image.

Neighboring slices of a CT show nearly the same. A slice whose bytes were damaged, shifted or decoded wrongly differs
from both of its neighbors by many times what neighbors differ by elsewhere in the volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .warning_codes import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD_SLICE = "odd-slice"
_LEAST_SLICES = 5
_A_SIDE = 40  # so many rows and columns of a slice are looked at
_CLIPPED_HU = (-1000.0, 3071.0)  # neither padding nor metal beyond a CT's 12 bits counts for more
_TIMES, _LEAST_HU = 6.0, 80.0  # 1,235 sound CTs and cubes of them: up to 3.9 times
_NAMED = 5


def slice_warnings(array: np.ndarray, name: str) -> Iterator[CodedWarning]:
    """A warning with code `odd-slice` if slices of a volume (z, y, x) fit neither of their neighbors.

    `name` is what the sentence calls the volume; it counts slices from 1, in the order of the array.
    """
    if len(array) < _LEAST_SLICES:
        return
    apart = _apart(array)
    usual = float(np.median(apart))
    odd = np.flatnonzero(apart > max(_TIMES * usual, _LEAST_HU))
    if len(odd):
        count = "1 slice fits" if len(odd) == 1 else f"{len(odd)} slices fit"
        listed = ", ".join(str(k + 1) for k in odd[:_NAMED]) + (", ..." if len(odd) > _NAMED else "")
        yield CodedWarning(
            ODD_SLICE,
            f"{name}: {count} neither of the neighbors (number {listed} of {len(array)}: {apart.max():.0f} HU apart in "
            f"the mean, elsewhere {usual:.0f}); damaged or of another image",
        )


def _apart(array: np.ndarray) -> np.ndarray:
    """(slices,) mean difference in HU of each slice from the nearer in value of its neighbors; an end slice has two."""
    rows, columns = (max(1, n // _A_SIDE) for n in array.shape[1:])
    some = np.clip(array[:, ::rows, ::columns].astype(np.float32), *_CLIPPED_HU).reshape(len(array), -1)
    one, two = (np.nan_to_num(np.abs(some[step:] - some[:-step])).mean(axis=1) for step in (1, 2))  # NaN is no value
    return np.minimum(np.concatenate([two[:1], one]), np.concatenate([one, two[-1:]]))
