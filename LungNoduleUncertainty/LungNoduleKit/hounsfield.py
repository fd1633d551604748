"""Whether a volume's values look like Hounsfield units: air near -1000, soft tissue near 0, nothing cut off.

A number that a scanner writes outside of its field of view (-2000, -3024, ...) is padding and counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .warning_codes import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_HU = "not-hu"
AIR_BELOW_HU = -300.0
_LOOKED_AT = 500_000  # voxels that are looked at
# Padding is one value, at air's or lower, that stands apart from all others.
_PADDING_UP_TO = -970
_APART_HU = 100
_LEAST_PADDING = 0.002  # share of the voxels
_LEAST_AIR = 0.005  # a chest CT has more air than this; nodule cubes of 1,232 nodules have 8 % and more
_BELOW_AIR_HU, _MOST_BELOW_AIR = -1250, 0.02  # the noise of air stays above
_TISSUE_ABOVE_HU, _LEAST_TISSUE, _MOST_LOWEST = -874, 0.08, 0.4  # rescaled twice and cut off at -1024: all is "air"
_CUT_LOW_HU, _CUT_LOW = -700, 0.03  # a value above lung's that so many voxels share at the low end
_CUT_HIGH_HU, _CUT_HIGH = (100, 290), 0.003  # at the high end; what lies above 300 HU doesn't move an outline
_HIGHEST_HU = 32767  # scanners with an extended range reach 30,710
_NARROW_HU = 30  # the noise of any tissue spans more


class _Values(NamedTuple):
    """Sorted distinct values without padding, and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def share(self, low: float, high: float) -> float:
        """Share of the voxels from `low` to below `high`."""
        return float(self.counts[(self.values >= low) & (self.values < high)].sum()) / self.total


def value_warnings(array: np.ndarray, name: str) -> Iterator[CodedWarning]:
    """A warning with code `not-hu` if the values of a volume (any shape of three axes) don't look like HU.

    Silent for a part of a chest that is all soft tissue. `name` is what the sentence calls the volume.
    """
    step = max(1, round((array.size / _LOOKED_AT) ** (1 / 3)))
    some = array[::step, ::step, ::step]
    some = some[np.isfinite(some)] if np.issubdtype(some.dtype, np.floating) else some
    if not some.size:
        return
    found = _without_padding(_Values(*np.unique(some, return_counts=True)))
    reason = _reason(found) if found.total else "one value"
    if found.values[-1] > _HIGHEST_HU:
        yield CodedWarning(NOT_HU, f"{name}: it holds values up to {found.values[-1]:g}, which no CT has")
    if reason:
        yield CodedWarning(NOT_HU, f"{name}: it doesn't seem to be {reason}")


def _without_padding(found: _Values) -> _Values:
    total, (values, counts) = found.total, found
    while len(values) > 1 and values[0] <= _PADDING_UP_TO and counts[0] >= _LEAST_PADDING * total:
        near = (values > values[0]) & (values <= values[0] + _APART_HU)
        if counts[near].sum() > 0.01 * counts[0]:
            break
        values, counts = values[1:], counts[1:]
    return _Values(values, counts)


def _reason(found: _Values) -> str:
    """What the values seem to be instead of HU; empty where they look like HU."""
    low, high = float(found.values[0]), float(found.values[-1])
    seen = f"values from {low:g} to {high:g}"
    below = found.share(-np.inf, _BELOW_AIR_HU)
    if below > _MOST_BELOW_AIR:
        return (
            f"in HU but to be rescaled twice or to have an offset "
            f"({seen}, {100 * below:.0f} % of it below {_BELOW_AIR_HU} HU, where there is nothing)"
        )
    first, last = found.counts[0] / found.total, found.counts[-1] / found.total
    tissue = found.share(_TISSUE_ABOVE_HU, np.inf)
    if first > _MOST_LOWEST and low < _PADDING_UP_TO and tissue < _LEAST_TISSUE:
        return f"in HU but to be rescaled twice ({seen}, {100 * tissue:.0f} % of it above {_TISSUE_ABOVE_HU} HU)"
    if found.share(-np.inf, AIR_BELOW_HU) < _LEAST_AIR:
        return _reason_without_air(found, first, f"{seen}, no air below {AIR_BELOW_HU:g} HU")
    if low > _CUT_LOW_HU and first > _CUT_LOW:
        return f"in HU but limited to a display window ({seen}, {100 * first:.0f} % of it the lowest value)"
    if _CUT_HIGH_HU[0] <= high < _CUT_HIGH_HU[1] and last > _CUT_HIGH:
        return f"in HU but limited to a display window ({seen}, {100 * last:.1f} % of it the highest value)"
    return ""


def _reason_without_air(found: _Values, first: float, seen: str) -> str:
    low, high = float(found.values[0]), float(found.values[-1])
    if low >= 0 and high <= 255:
        return f"in HU but {'scaled to [0, 1]' if high <= 1 else '8-bit gray values'} ({seen})"
    if 0 < high - low < _NARROW_HU:
        return f"in HU but {'scaled to [-1, 1]' if low >= -1 and high <= 1 else 'scaled down'} ({seen})"
    if low > _CUT_LOW_HU and first > _CUT_LOW and low < 0:
        return f"in HU but limited to a display window ({seen}, {100 * first:.0f} % of it the lowest value)"
    if low >= 0 and high > 1000:
        return f"in HU but to have an offset, such as HU + 1024 ({seen})"
    # A part of the chest without lung is centered on soft tissue, and its fat and noise lie below water.
    low, middle, high = found.values[np.searchsorted(np.cumsum(found.counts), found.total * np.array((0.1, 0.5, 0.85)))]
    if low > -250 and -150 <= middle <= 150 and high < 300 and found.share(-np.inf, 0) > 0.02:
        return ""
    return f"a chest CT in HU ({seen})"
