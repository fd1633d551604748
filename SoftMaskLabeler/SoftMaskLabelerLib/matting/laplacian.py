"""The matting Laplacian, assembled only for unknown pixels and only from the windows that touch them.

Levin, Lischinski and Weiss, "A closed-form solution to natural image matting", 2008, equation 12; DSNet (TNNLS), eq. 8.
For a gray image and the window k with n = (2r + 1)^d pixels, mean m_k and sum of squares S_k = sum (I_i - m_k)^2:

    L_ij = sum over windows k that hold i and j of  delta_ij - 1/n - (I_i - m_k) (I_j - m_k) / (S_k + epsilon / 3)

`epsilon / 3` is what a gray image stacked to three channels has in the three-channel formula with `epsilon`.

How it is fast without a compiler: with g_k = 1 / (S_k + epsilon / 3) the product above expands into three window
fields, g, g m and g m^2, whose sums over "all windows that hold i and i + d" are sums over a box, the same for all i.
There are (2r + 1)^d box shapes; each offset d is then one gather of three numbers per pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# The index of a pixel that isn't unknown: below any product of two valid indices.
_OUTSIDE = -(1 << 40)


class MattingRegion(NamedTuple):
    """The part of the image that the system needs: the unknown pixels' bounding box with a margin of 2r, flattened."""

    intensities: np.ndarray
    """float64 (pixels,), less their mean: the Laplacian doesn't change, rounding errors shrink"""
    lesion: np.ndarray
    """float64 (pixels,), 1 where the pixel is known to be lesion"""
    inside: np.ndarray | None
    """float64 (pixels,), 1 in the image and 0 in the padding; None if nothing had to be padded"""
    unknown: np.ndarray
    """int64 (N,), positions of the unknown pixels in the region, ascending"""
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class System(NamedTuple):
    """The reduced system L_UU x = -L_UK a_K as couplings per offset."""

    first: np.ndarray
    """int64 (N,): 0 to N - 1, row of the first pixel of a coupling"""
    second: np.ndarray
    """int64 (offsets, N): row of the second pixel, negative where that pixel isn't unknown"""
    values: np.ndarray
    """float64 (offsets, N): L between the two; the first offset is the diagonal"""
    right: np.ndarray
    """float64 (N,): -L_UK a_K"""
    ascending: bool
    """Whether rows are in the region's order, so that second > first in every coupling but the diagonal"""


class _Offsets(NamedTuple):
    flat: np.ndarray
    table: np.ndarray
    corner: int


@lru_cache(maxsize=256)
def _offsets(shape: tuple[int, ...], radius: int) -> _Offsets:
    """The half of all offsets that comes at or after (0, ..., 0), for a region of `shape`.

    `flat`: step in the flattened region, (offsets, 1). `table`: where in the table of box sums the windows that hold
    i and i + d are found, relative to i. `corner`: step from a window's first pixel to its last.
    """
    side, dimensions = 2 * radius + 1, len(shape)
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(dimensions)])
    zero = (0,) * dimensions
    steps = np.array([d for d in itertools.product(range(1 - side, side), repeat=dimensions) if d >= zero])
    corner = 2 * radius * int(strides.sum())
    box = np.abs(steps) @ np.array([side ** (dimensions - 1 - axis) for axis in range(dimensions)])
    positions = math.prod(shape) - corner
    table = box * (3 * positions) + np.maximum(steps, 0) @ strides - corner
    return _Offsets((steps @ strides)[:, None], table[:, None], corner)


def matting_region(
    image: np.ndarray,
    lesion: np.ndarray,
    positions: np.ndarray,
    radius: int,
    check: Callable[[np.ndarray], None] | None = None,
) -> MattingRegion:
    """The region of an image around its unknown pixels.

    `image` (real) and `lesion` (bool) share one shape of two or three axes; `positions`: int64 (N,), N >= 1, ascending,
    the unknown pixels in the flattened image. `check`, if given, is called with the region's intensities.
    """
    margin = 2 * radius
    box, padding, padded, places = [], [], False, []
    rest = positions
    for axis, length in reversed(list(enumerate(image.shape))):
        if axis:
            rest, along = np.divmod(rest, length)
            places.append(along)
            low, high = int(along.min()), int(along.max()) + 1
        else:
            places.append(rest)
            low, high = int(rest[0]), int(rest[-1]) + 1
        box.append(slice(max(low - margin, 0), min(high + margin, length)))
        padding.append((max(margin - low, 0), max(high + margin - length, 0)))
        padded = padded or low < margin or high + margin > length
    region, padding = tuple(box[::-1]), padding[::-1]
    intensities = image[region].astype(np.float64)
    if check is not None:
        check(intensities)
    # `mean` as a sum: numpy's own wrapper costs more than adding up a nodule's region.
    intensities -= np.add.reduce(intensities, axis=None) / intensities.size
    known, inside = lesion[region], None
    if padded:
        inside = np.pad(np.ones(intensities.shape), padding).ravel()
        intensities, known = np.pad(intensities, padding), np.pad(known, padding)
    shape = intensities.shape
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    unknown = sum(
        (
            (place + (before - part.start)) * stride
            for place, part, (before, _), stride in zip(places[::-1], region, padding, strides, strict=True)
        ),
        start=np.zeros((), np.int64),
    )
    return MattingRegion(intensities.ravel(), known.ravel().astype(np.float64), inside, unknown, shape, strides)


def _box(fields: np.ndarray, strides: tuple[int, ...], side: int) -> np.ndarray:
    """Sums over boxes of `side` pixels along every axis, at the position of each box's first pixel.

    Fields (..., n) to (..., m) with m < n: the last positions have no box.
    """
    for stride in strides:
        count = fields.shape[-1] - (side - 1) * stride
        total = fields[..., :count] + fields[..., stride : stride + count]
        for start in range(2 * stride, side * stride, stride):
            total += fields[..., start : start + count]
        fields = total
    return fields


def _box_table(fields: np.ndarray, strides: tuple[int, ...], side: int) -> np.ndarray:
    """Sums of (3, n) fields over boxes of every shape: (side^d, 3, n), index 0 the full box, the first axis slowest.

    Positions without a box keep whatever was in memory.
    """
    n, count = fields.shape[-1], 1
    table = np.empty((side ** len(strides), *fields.shape))
    # The last slot always holds the box of one pixel; every axis multiplies the boxes that are there.
    table[-1] = fields
    for stride in reversed(strides):
        done = table[len(table) - count :]
        for step in range(1, side):
            start, length = len(table) - (step + 1) * count, n - step * stride
            shorter = table[start + count : start + 2 * count, :, :length]
            # What was in memory may be anything, also what NumPy would warn of.
            with np.errstate(invalid="ignore", over="ignore"):
                np.add(shorter, done[..., step * stride :], out=table[start : start + count, :, :length])
        count *= side
    return table


def assemble(region: MattingRegion, epsilon: float, radius: int, order: np.ndarray | None = None) -> System:
    """The reduced system of a region.

    `order`: permutation of the unknown pixels, giving the rows of the system; None: ascending position.
    Sums near the region's edges mix rows, and are never read: unknown pixels lie at least 2r from every edge.
    """
    side = 2 * radius + 1
    strides, n = region.strides, region.intensities.size
    area = float(side ** len(strides))
    unknown = region.unknown if order is None else region.unknown[order]
    intensities = region.intensities
    offsets = _offsets(region.shape, radius)
    at = unknown - offsets.corner

    stack = np.empty((4, n))
    stack[0] = intensities
    stack[1] = region.lesion
    np.multiply(stack[:2], intensities, out=stack[2:])
    sums, lesions, gains, slopes = _box(stack, strides, side)
    means = sums / area
    gains -= sums * means
    np.maximum(gains, 0.0, out=gains)
    gains += epsilon / 3
    np.reciprocal(gains, out=gains)
    share: float | np.ndarray = 1 / area
    if region.inside is not None:
        # A window that leaves the image doesn't exist.
        exists = (_box(region.inside, strides, side) > area - 0.5).astype(np.float64)
        gains *= exists
        share = exists / area

    # -L_UK a_K, window by window: (mean of a) + (I_i - m) g (sum of I a - m sum of a).
    known = np.empty((2, gains.size))
    slopes -= means * lesions
    np.multiply(slopes, gains, out=known[1])
    np.multiply(lesions, share, out=known[0])
    known[0] -= known[1] * means
    level, slope = _box(known, strides, side).take(at, axis=1)
    own = intensities[unknown]
    right = own * slope
    right += level

    fields = np.empty((3, gains.size))
    constant, linear, fields[2] = fields[0], fields[1], gains
    np.multiply(gains, means, out=linear)
    np.multiply(linear, means, out=constant)
    constant += share
    table = _box_table(fields, strides, side).ravel()
    partners = unknown + offsets.flat
    values = _couplings(table, unknown + offsets.table, gains.size, own, intensities.take(partners))
    values[0] += area if region.inside is None else _box(exists, strides, side).take(at)

    rows = np.full(n, _OUTSIDE, np.int64)
    first = np.arange(unknown.size)
    rows[unknown] = first
    return System(first, rows.take(partners), values, right, order is None)


def _couplings(table: np.ndarray, spots: np.ndarray, step: int, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """-(I_i I_j sum of g - (I_i + I_j) sum of g m + sum of g m^2 + share), with as few temporaries as it takes.

    `table`: the three window fields' box sums, `step` numbers apart, from `spots` (offsets, N) on, which is written to.
    `own`: I_i (N,). `other`: I_j (offsets, N).
    """
    values = table.take(spots)
    spots += step
    linear = table.take(spots)
    spots += step
    quadratic = table.take(spots)
    quadratic *= other
    quadratic -= linear
    quadratic *= own
    linear *= other
    quadratic -= linear
    values += quadratic
    return np.negative(values, out=values)
