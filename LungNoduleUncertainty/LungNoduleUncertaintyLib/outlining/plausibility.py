"""Whether what was outlined can be a nodule: its place, its shape, how sure the model is.

Every doubt is a warning with its code and its reason. The limits come from results of the shipped model on nodules of
LIDC-IDRI: of those with a Dice of Final of 0.7 or more about 2 in 100 get a warning from this file, of those below 0.5
more than half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from LungNoduleKit import geometry
from LungNoduleKit.geometry import Grid
from LungNoduleKit.warning_codes import CodedWarning

from ..measuring.measurements import SOLID_THRESHOLD_HU, Measurements
from .finding import Point

BORDER, AWAY, LONG, TAIL, OTHER_PART, UNSURE, WIDE, DENSITY = (
    "ct-border",
    "away-from-point",
    "elongated",
    "tail",
    "other-part",
    "unsure",
    "wide-interval",
    "density",
)
_AWAY_MM = 6.0  # as far beside the nodule as a click still means it
_LONG, _LONG_MM = 2.0, 12.0  # length in mean axes; shorter nodules are a few slices long
_ACROSS = 2.5  # long axis in short axes
_CORE = 0.6  # of the radius of the largest ball in Final: what is thinner isn't reached by balls of this size
_TAIL, _TAIL_MM = 1.8, 5.0  # how far a tail goes on outside the core, in radii of that ball
_LESS, _MORE = 0.5, 2.0  # volume of Final in volumes of the first look's
_UNSURE = 0.76  # mean probability of Final in its own outline
_UNSURE_LC, _WIDE = 0.85, 2.1  # LC's share of the union; volume of the union in volumes of Final
_DENSITY_HU = (-850.0, 1500.0)  # emptier than that is lung, denser is metal
_SOLID_STEP_MM, _SOLID_REACH_MM = 2.0, 90.0


@dataclass(frozen=True)
class Outlined:
    """What is judged: bool masks (z, y, x) on `region`, a part of the CT's grid, the final map there, and its measures.

    union is HC and LC together, None for a model that has Final alone. first_mm3: volume of what the first look found.
    """

    region: Grid
    final: np.ndarray
    union: np.ndarray | None
    final_map: np.ndarray
    measurements: Measurements
    point_lps: Point
    first_mm3: float


def doubts(found: Outlined, ct: Grid) -> Iterator[CodedWarning]:
    """A warning for each reason to doubt a result; none for most nodules."""
    yield from _at_border(found, ct)
    yield from _away(found)
    yield from _shape(found)
    yield from _other_part(found)
    yield from _unsure(found)
    mean = found.measurements["mean_hu"]["final"]
    if not _DENSITY_HU[0] <= mean <= _DENSITY_HU[1]:
        yield CodedWarning(DENSITY, f"the outline's mean density of {mean:.0f} HU isn't a nodule's")


def _at_border(found: Outlined, ct: Grid) -> Iterator[CodedWarning]:
    used = np.argwhere(found.final if found.union is None else found.union)[:, ::-1]
    first = np.rint(ct.points_to_indices(found.region.origin)).astype(int)
    low, high = first + used.min(0), first + used.max(0)
    if (low <= 0).any() or (high >= np.array(ct.size) - 1).any():
        yield CodedWarning(BORDER, "the nodule reaches the border of the CT: its real size is larger")


def _away(found: Outlined) -> Iterator[CodedWarning]:
    places = found.region.indices_to_points(np.argwhere(found.final)[:, ::-1])
    away = float(np.linalg.norm(places - np.array(found.point_lps), axis=1).min())
    if away > _AWAY_MM + max(found.region.spacing):
        yield CodedWarning(AWAY, f"the outline lies {away:.0f} mm away from the point: it may be another nodule's")


def _shape(found: Outlined) -> Iterator[CodedWarning]:
    """A vessel's shape: much longer than wide, or with a part that is long and thin."""
    m = found.measurements
    axis, long, short = (m[key]["final"] for key in ("mean_axis_mm", "long_axis_mm", "short_axis_mm"))  # type: ignore[literal-required]
    length = _length_mm(found.final, found.region)
    if length > max(_LONG * axis, _LONG_MM):
        yield CodedWarning(
            LONG, f"the outline is {length:.0f} mm long at a mean axis of {axis:.1f} mm: it may follow a vessel"
        )
    elif long > max(_ACROSS * short, _LONG_MM):
        yield CodedWarning(
            LONG, f"the outline is {long:.1f} mm long and {short:.1f} mm wide: it may follow a vessel or the pleura"
        )
    else:
        tail, radius = _tail_mm(found.final, found.region.spacing[::-1])
        if tail > max(_TAIL * radius, _TAIL_MM):
            yield CodedWarning(
                TAIL, f"a thin part of the outline is {tail:.0f} mm long: it may follow a vessel or the pleura"
            )


def _length_mm(mask: np.ndarray, grid: Grid) -> float:
    """Extent (mm) of a mask (z, y, x) along the direction in which it is longest."""
    points = grid.indices_to_points(np.argwhere(mask)[:, ::-1])
    points = points - points.mean(0)
    _, directions = np.linalg.eigh(points.T @ points)
    return float(np.ptp(points @ directions[:, -1]))


def _tail_mm(mask: np.ndarray, spacing_zyx: tuple[float, ...]) -> tuple[float, float]:
    """(how far a mask (z, y, x) goes on outside its core, radius of the largest ball in it), mm.

    The core is what balls of a fraction of that radius reach inside the mask (an opening).
    """
    used = np.argwhere(mask)
    inside = np.pad(mask[tuple(slice(a, b + 1) for a, b in zip(used.min(0), used.max(0), strict=True))], 1)
    depth = ndimage.distance_transform_edt(inside, sampling=spacing_zyx)
    radius = float(depth.max())
    ball = _CORE * radius
    core = ndimage.distance_transform_edt(depth < ball, sampling=spacing_zyx) < ball + 0.5 * spacing_zyx[1]
    outside = ndimage.distance_transform_edt(~(core & inside), sampling=spacing_zyx)
    return float(outside[inside].max()), radius


def _other_part(found: Outlined) -> Iterator[CodedWarning]:
    volume = found.measurements["volumes_mm3"]["final"]
    share = volume / found.first_mm3 if found.first_mm3 else 1.0
    if not _LESS <= share <= _MORE and volume > 8 * found.region.voxel_volume_mm3:
        yield CodedWarning(
            OTHER_PART,
            f"the outline has {100 * share:.0f} % of the volume that the first look found: it may be a part of the "
            "nodule or hold more than it",
        )


def _unsure(found: Outlined) -> Iterator[CodedWarning]:
    mean = float(found.final_map[found.final].mean())
    m = found.measurements
    if mean < _UNSURE or m.get("lc_share", 0.0) > _UNSURE_LC:
        yield CodedWarning(
            UNSURE,
            f"the model is unsure what belongs to the nodule (mean probability {mean:.2f}"
            + (f", LC {100 * m['lc_share']:.0f} % of the volume)" if "lc_share" in m else ")"),
        )
    if found.union is not None:
        share = m["volumes_mm3"]["union"] / m["volumes_mm3"]["final"]
        if share > _WIDE and found.final.sum() > 8:
            yield CodedWarning(WIDE, f"HC and LC together are {share:.1f} times as large as Final")


def solid_tissue_mm(ct: sitk.Image, point_lps: Point, from_hu: float = SOLID_THRESHOLD_HU) -> float:
    """Diameter (mm) of the largest ball of solid tissue (`from_hu` and above) that holds the point; 0 if none does.

    What it goes on with outside the CT counts as solid, so the tissue is at least so large. A mass that is larger than
    a model looks at is told from a place without a nodule by it; so is a point in the chest wall or the heart.
    """
    steps = np.arange(-_SOLID_REACH_MM, _SOLID_REACH_MM + 1, _SOLID_STEP_MM)
    size = (len(steps),) * 3
    grid = geometry.nodule_grid(ct, point_lps, size, (_SOLID_STEP_MM,) * 3)
    solid = geometry.sample(ct, grid, outside=None) >= from_hu
    if not solid.any():
        return 0.0
    reach = ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1, 1:-1] * _SOLID_STEP_MM
    middle = np.array(grid.points_to_indices(point_lps))[::-1]
    away = np.linalg.norm((np.indices(solid.shape).T - middle).T, axis=0) * _SOLID_STEP_MM
    holds = solid & (away <= reach)
    return float(2 * reach[holds].max()) if holds.any() else 0.0
