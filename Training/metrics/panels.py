"""Panels of readers against other readers: how well they agree, and how well another panel would at most.

What all or any of R readers include is a panel's outline. How well another panel of R readers would meet it can't be
counted on R readers, but smaller panels can, and each further reader helps less than the one before. So going on at the
last rate gives what another panel reaches at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, mask_set
from .overlap import dice
from .stats import cluster_means


@dataclass(frozen=True)
class PanelCounts:
    """One nodule's figures of panels of k = 1, 2, ... of its R readers, means over all of them; entry k - 1.

    below, above (R - 1,): share of the readers outside a panel with a volume below V(intersection) or above V(union) of
    the panel. width (R,): V(union) - V(intersection) of a panel over that of all readers, nan where they don't differ.
    union, intersection (R // 2,): Dice of two panels that share no reader.
    """

    below: np.ndarray
    above: np.ndarray
    width: np.ndarray
    union: np.ndarray
    intersection: np.ndarray


def panel_counts(readers: ArrayLike) -> PanelCounts:
    """`PanelCounts` of readers' masks (R, ...). Raises MetricError for fewer than two readers."""
    readers = mask_set(readers, "readers")
    count = len(readers)
    if count < 2:
        raise MetricError(f"readers: {count}; panels that are compared take at least two")
    readers = readers[:, readers.any(0)]  # what nobody includes counts for nothing
    volumes = readers.sum(1)
    below, above, width, union, intersection = [], [], [], [], []
    for size in range(1, count + 1):
        panels = {p: (readers[list(p)].all(0), readers[list(p)].any(0)) for p in combinations(range(count), size)}
        width.append(np.mean([high.sum() - low.sum() for low, high in panels.values()]))
        outside = [(np.delete(volumes, p), low.sum(), high.sum()) for p, (low, high) in panels.items()]
        if size < count:
            below.append(np.mean([v < low for v, low, _ in outside]))
            above.append(np.mean([v > high for v, _, high in outside]))
        pairs = [(panels[p], panels[q]) for p in panels for q in panels if p < q and not set(p) & set(q)]
        if pairs:
            union.append(np.mean([dice(one[1], other[1]) for one, other in pairs]))
            intersection.append(np.mean([dice(one[0], other[0]) for one, other in pairs]))
    share = np.array(width) / (width[-1] or np.nan)
    return PanelCounts(np.array(below), np.array(above), share, np.array(union), np.array(intersection))


def _going_on(before: ArrayLike, last: ArrayLike) -> np.ndarray:
    """The error after another step that lowers it by as large a share as the last step did; no step lowers more."""
    before = np.asarray(before)
    return np.divide(np.square(last), before, out=np.zeros_like(before), where=before > 0)


def another_panel(
    counts: list[PanelCounts], patients: Sequence[str] | Sequence[int] | np.ndarray, resamples: int = 10_000
) -> dict[str, float | list[float]]:
    """What another panel of R readers would reach at most, on nodules (N,) with R readers each, by going on.

    coverage: share of the R readers' volumes within its [V(intersection), V(union)], an interval as wide as theirs. Of
    each end, a reader's volume is missed by all k of a panel with the mean chance of q^k, q being the chance with one
    reader; such means fall by ever smaller shares with k (their logarithm is convex), exactly so for volumes, and in
    every simulation for intersections and unions. union, intersection: Dice with those of the R readers; 1 - Dice falls
    by a smaller share with every doubling of both panels, an assumption that simulations bear out.
    Each with a 95 % interval (`coverage_interval` ...) from drawing patients (N,) anew. What R readers are too few for
    is left out: coverage takes three, Dice takes a multiple of four. Raises MetricError for nodules with different R.
    """
    sizes = {len(c.width) for c in counts}
    if len(sizes) != 1 or len(counts) != len(patients):
        raise MetricError(f"panels: {len(counts)} nodules with {sorted(sizes)} readers, {len(patients)} patients")
    size = sizes.pop()
    cluster = np.unique(np.asarray(patients), return_inverse=True)[1].ravel()

    def at_most(parts: list[tuple[list[float], list[float]]]) -> tuple[float, float, float]:
        """One minus the errors (means over nodules, two sizes each) gone on with: (value, lowest, highest)."""
        value = 1 - sum(_going_on(np.mean(before), np.mean(last)) for before, last in parts)
        # One seed draws the same patients for every part.
        drawn = [[cluster_means(np.array(x), cluster, resamples, 0) for x in part] for part in parts]
        low, high = np.percentile(1 - sum(_going_on(*part) for part in drawn), [2.5, 97.5])
        return float(value), float(low), float(high)

    found = {}
    if size >= 3:
        sides = [[getattr(c, side) for c in counts] for side in ("below", "above")]
        found["coverage"] = at_most([([x[size - 3] for x in side], [x[size - 2] for x in side]) for side in sides])
    if size % 4 == 0:
        for key in ("union", "intersection"):
            errors = [1 - getattr(c, key) for c in counts]
            found[key] = at_most([([e[size // 4 - 1] for e in errors], [e[size // 2 - 1] for e in errors])])
    out: dict[str, float | list[float]] = {}
    for key, (value, low, high) in found.items():
        out[key] = value
        if cluster.any():  # one patient tells nothing about others
            out[f"{key}_interval"] = [low, high]
    return out
