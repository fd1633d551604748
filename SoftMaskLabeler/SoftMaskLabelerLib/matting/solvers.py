"""Solvers for the reduced matting system: banded Cholesky, and two others where the band gets too large.

Measured over nodules' bands in 64 x 64 to 256 x 256 (`Testing/benchmarks/matting_benchmark.py --solvers`) and over full
slices: LAPACK's banded Cholesky is faster than sparse LU and conjugate gradients at every size in 2D. Under a few
hundred unknowns row order is good enough; above, an order with a narrower band pays. In 3D the band grows with the
lesion's surface, and conjugate gradients take over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from operator import mul
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg.lapack import dpbsv
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from ..errors import SolverError

if TYPE_CHECKING:
    from .laplacian import MattingRegion, System

# Below this number of unknowns, and of multiplications in the factorization, ordering costs more than it saves.
_ORDERED_FROM = 1000
_SHORT = 3e7
# Multiplications, tens of milliseconds, from which a costly order is tried, too.
_LONG = 5e8
# Entries of the band (8 bytes each) from which another solver takes over: 800 MB.
_BAND_LIMIT = 100_000_000
# Multiplications in a 3D factorization, about a tenth of a second, from which conjugate gradients are faster.
_CG_FROM = 2e9
_CG_TOLERANCE = 1e-9
_CG_STEPS = 20_000


def narrow_order(region: MattingRegion, radius: int) -> np.ndarray | None:
    """Order of the unknown pixels that keeps the band narrow, int64 (N,), or None for ascending position.

    The narrowest of rows, columns and reverse Cuthill-McKee: the latter follows a ring, the former two are better for
    bands that one edge of the lesion dominates. Cuthill-McKee runs on nearest neighbors (with diagonals) first, which
    mostly has the levels of the full graph at a third of its edges, and on that only where the factorization is long.
    """
    count = region.unknown.size
    if count < _ORDERED_FROM:
        return None
    rows = np.empty(region.intensities.size, np.int64)
    best, width = None, _band_width(region, rows, None, radius)
    if count * width**2 < _SHORT:
        return None
    columns = np.ravel_multi_index(np.unravel_index(region.unknown, region.shape), region.shape, order="F")
    candidates = [lambda: np.argsort(columns, kind="stable"), lambda: _cuthill_mckee(region, rows, 1)]
    for number, candidate in enumerate([*candidates, lambda: _cuthill_mckee(region, rows, 2 * radius)]):
        if number == len(candidates) and count * width**2 < _LONG:
            break
        order = candidate()
        reach = _band_width(region, rows, order, radius)
        if reach < width:
            best, width = order, reach
    return best


def _band_width(region: MattingRegion, rows: np.ndarray, order: np.ndarray | None, radius: int) -> int:
    """Largest distance in the order between pixels that windows couple, looking at the farthest offsets only.

    `rows`: int64 of the region's size, written to.
    """
    unknown = region.unknown
    rows.fill(-1)
    rows[unknown if order is None else unknown[order]] = places = np.arange(unknown.size)
    width = 0
    for offset in _half(2 * radius, (-1, 0, 1), region.strides):
        far = rows.take(unknown + offset)
        own = places if order is None else rows.take(unknown)
        reach = np.abs(far - own)
        width = max(width, int(reach.max(where=far >= 0, initial=0)))
    return width


def _half(scale: int, factors: Iterable[int], strides: tuple[int, ...]) -> list[int]:
    """Steps in the flattened region of all offsets with the given factors per axis, one of each pair of opposites."""
    offsets = itertools.product(factors, repeat=len(strides))
    return [scale * sum(map(mul, offset, strides)) for offset in offsets if offset > (0,) * len(strides)]


def _cuthill_mckee(region: MattingRegion, rows: np.ndarray, reach: int) -> np.ndarray:
    """Reverse Cuthill-McKee on the graph of pixels up to `reach` steps apart along every axis; `rows` is written to."""
    count = region.unknown.size
    half = _half(1, range(-reach, reach + 1), region.strides)
    rows.fill(-1)
    rows[region.unknown] = np.arange(count)
    neighbors = rows.take(region.unknown[:, None] + np.array([-step for step in half] + half))
    present = neighbors >= 0
    ends = np.zeros(count + 1, np.int32)
    np.cumsum(present.sum(axis=1), out=ends[1:])
    columns = neighbors[present].astype(np.int32)
    graph = csr_matrix((np.ones(columns.size, np.int8), columns, ends), shape=(count, count))
    return reverse_cuthill_mckee(graph, symmetric_mode=True)


def solve(system: System, dimension: int) -> np.ndarray:
    """Solves the reduced system: float64 (N,) in the system's row order.

    `dimension`: 2 or 3, decides which solver takes over from the band where that would be slow or not fit into memory.
    Raises `SolverError` if no solution is found.
    """
    reach = system.second - system.first
    if not system.ascending:
        np.abs(reach, out=reach)
        # Pairs whose second pixel is known have a huge reach.
        reach[reach > system.first.size] = -1
    count, width = system.first.size, int(reach.max())
    if dimension == 3 and count * width**2 > _CG_FROM:
        return _conjugate_gradients(system)
    if count * (width + 1) > _BAND_LIMIT:
        return _sparse(system)
    return _banded(system, reach, width)


def _banded(system: System, reach: np.ndarray, width: int) -> np.ndarray:
    """Cholesky factorization of the band by LAPACK (`dpbsv`); `reach`: distance of the two rows, negative for none."""
    count = system.first.size
    if system.ascending:
        spots = system.first * width + system.second
    else:
        spots = np.minimum(system.first, system.second)
        spots *= width + 1
        spots += reach
    # Pairs with a known pixel go to the last slot, which isn't part of the band.
    np.maximum(spots, -1, out=spots)
    for shift in (0.0, 1e-12, 1e-10, 1e-8):
        flat = np.zeros(count * (width + 1) + 1)
        flat[spots] = system.values
        band = flat[:-1].reshape(count, width + 1)
        if shift:
            # Rounding made a nearly singular system indefinite; a shift far below the tolerance repairs it.
            band[:, 0] += shift * band[:, 0].max()
        _, solution, status = dpbsv(band.T, system.right, lower=1, overwrite_ab=1)
        if status == 0 and math.isfinite(solution.dot(solution)):
            return solution
    raise SolverError(f"the matting system of {count} unknown pixels isn't positive definite; raise epsilon")


def _matrix(system: System) -> csc_matrix:
    count = system.first.size
    known = system.second >= 0
    first = np.broadcast_to(system.first, known.shape)[known]
    second, values = system.second[known], system.values[known]
    off = first != second
    rows, columns = np.concatenate((first, second[off])), np.concatenate((second, first[off]))
    return csc_matrix((np.concatenate((values, values[off])), (rows, columns)), shape=(count, count))


def _sparse(system: System) -> np.ndarray:
    """SuperLU with a minimum-degree order: less fill than the band, slower per number."""
    try:
        factors = splu(_matrix(system), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except (RuntimeError, MemoryError) as error:
        raise SolverError(f"the matting system of {system.first.size} unknown pixels: {error}") from error
    return factors.solve(system.right)


def _conjugate_gradients(system: System) -> np.ndarray:
    """Conjugate gradients with the diagonal as preconditioner: a factorization's fill in 3D outgrows any memory."""
    matrix = _matrix(system).tocsr()
    inverse = 1 / matrix.diagonal()
    solution = np.full(system.first.size, 0.5)
    residual = system.right - matrix @ solution
    goal = _CG_TOLERANCE**2 * system.right.dot(system.right)
    direction, energy = np.zeros_like(solution), 1.0
    for _ in range(_CG_STEPS):
        if residual.dot(residual) <= goal:
            return solution
        step = inverse * residual
        previous, energy = energy, residual.dot(step)
        direction = step + (energy / previous) * direction
        image = matrix @ direction
        length = energy / direction.dot(image)
        solution += length * direction
        residual -= length * image
    raise SolverError(
        f"the matting system of {solution.size} unknown voxels didn't converge in {_CG_STEPS} steps; raise epsilon"
    )
