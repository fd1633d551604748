"""Which annotations of a scan mean the same nodule: LIDC-IDRI doesn't say, so it is found from the distances.

The rule is that of pylidc's `Scan.cluster_annotations`: annotations whose outlines come closer than a tolerance belong
together, and the tolerance shrinks until no group has more than the four annotations that four readers can draw. Two
things differ: distances are in mm by default (pylidc compares voxels with a tolerance in mm), and annotations that
share pixels, which no tolerance separates, are told apart by their centers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from LungNoduleKit.errors import NoduleError

if TYPE_CHECKING:
    from .database import Annotation, Scan

READERS = 4


def cluster(
    scan: Scan,
    annotations: list[Annotation],
    *,
    units: Literal["mm", "index"] = "mm",
    tolerance: float | None = None,
    factor: float = 0.9,
    min_tolerance: float = 0.1,
    split: bool = True,
) -> list[list[Annotation]]:
    """Groups annotations into nodules, each by ascending id, sorted by ascending mean z of the outlines.

    Two annotations touch if the smallest distance of their vertices is at most `tolerance` (default: the scan's slice
    thickness in mm); groups are the connected components. While a group has more than four, the tolerance is multiplied
    by `factor`, down to `min_tolerance`. A group that still has more is split by average linkage of the outlines'
    centers into as few parts of at most four as it takes, unless `split` is False. `units` is what distances are
    measured in: "mm" in patient space, or "index", voxels. `units="index", split=False` is pylidc's rule.
    """
    if units not in ("index", "mm"):
        raise NoduleError(f"units {units!r}: they are 'index' or 'mm'")
    if not 0 < factor < 1:
        raise NoduleError(f"factor {factor}: it isn't between 0 and 1")
    if not annotations:
        return []
    tolerance = scan.slice_thickness_mm if tolerance is None else float(tolerance)
    distances = _distances([_points(scan, a, units) for a in annotations], tolerance)
    while True:
        _, labels = connected_components(distances <= tolerance, directed=False)
        if np.bincount(labels).max() <= READERS or tolerance * factor < min_tolerance:
            break
        tolerance *= factor
    groups = [[a for a, own in zip(annotations, labels, strict=True) if own == g] for g in range(labels.max() + 1)]
    if split:
        groups = [part for group in groups for part in _parts(scan, group)]
    ordered = [sorted(group, key=lambda a: a.annotation_id) for group in groups]
    return sorted(ordered, key=lambda group: float(np.mean([a.points()[:, 2].mean() for a in group])))


def _points(scan: Scan, annotation: Annotation, units: str) -> np.ndarray:
    points = annotation.points()
    if units == "mm":
        return points * (scan.pixel_spacing_mm, scan.pixel_spacing_mm, 1.0)
    heights, where = np.unique(points[:, 2], return_inverse=True)
    points[:, 2] = np.array([scan.slice_index(z) for z in heights])[where]
    return points


def _parts(scan: Scan, group: list[Annotation]) -> list[list[Annotation]]:
    if len(group) <= READERS:
        return [group]
    tree = linkage(np.array([_points(scan, a, "mm").mean(0) for a in group]), method="average")
    for count in range(2, len(group) + 1):
        labels = fcluster(tree, count, criterion="maxclust")
        if np.bincount(labels).max() <= READERS:
            break
    return [[a for a, own in zip(group, labels, strict=True) if own == label] for label in np.unique(labels)]


def _distances(clouds: list[np.ndarray], limit: float) -> np.ndarray:
    """Smallest distances between point clouds, symmetric (n, n); infinite where they exceed `limit`."""
    low, high = np.array([c.min(0) for c in clouds]), np.array([c.max(0) for c in clouds])
    gaps = np.maximum(np.maximum(low[:, None] - high[None], low[None] - high[:, None]), 0)
    near = np.linalg.norm(gaps, axis=-1) <= limit
    out = np.full(near.shape, np.inf)
    np.fill_diagonal(out, 0)
    trees: dict[int, cKDTree] = {}
    for first, second in np.argwhere(np.triu(near, 1)):
        tree = trees.setdefault(first, cKDTree(clouds[first]))
        # The bound is exclusive in SciPy, hence the small allowance.
        found = tree.query(clouds[second], distance_upper_bound=limit * (1 + 1e-9) + 1e-9)[0].min()
        out[first, second] = out[second, first] = found
    return out
