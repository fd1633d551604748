"""The nodule's probability maps: averaged, calibrated for its size, and put back on the CT's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import geometry
from LungNoduleKit.geometry import Grid
from LungNoduleKit.warning_codes import CodedWarning

from ..measuring.measurements import equivalent_diameter_mm
from ..models.bundle import Model
from ..models.network_input import Averaging
from ..models.outputs import INTERVAL_MAPS
from ..models.size_calibration import calibrated
from .finding import NoduleCube, Point, Report, find_nodule

_NEAR = 12  # widths of a pixel that the union may add to the result's region around the nodule
_REGION_MARGIN_MM = 5.0  # what the result's region shows around the union


_UNMEASURED = "for nodules like it the model has no measured figures"
_KINDS = {
    "large": f"the nodule is larger than nearly all that the model was measured on; {_UNMEASURED}",
    "cavity": f"the nodule seems to have a cavity, which counts as a part of it; {_UNMEASURED}",
    "vessel": f"the nodule seems to lie on a vessel, which was left out; {_UNMEASURED}",
    "air": "air that tissue encloses lies beside the outline: the nodule may have a cavity that was left out",
    "part": "the outline lies in solid tissue on most sides: it may be a part of something larger",
}


@dataclass(frozen=True)
class ProbabilityMaps:
    """The averaged maps {union, intersection, final} (z, y, x) on `region`, a part of the CT's own grid; `final` alone
    for a model that has nothing else.

    `selected` (z, y, x) in [0, 1] marks the nodule that the point means; `diameter_mm` is the one that the maps were
    calibrated for; `first_mm3` is the volume that the first look found; `notes` are warnings, one sentence each.
    """

    region: Grid
    maps: dict[str, np.ndarray]
    selected: np.ndarray
    notes: list[str]
    diameter_mm: float
    first_mm3: float = 0.0


def probability_maps(
    ct: sitk.Image,
    point: Point,
    model: Model,
    thresholds: Mapping[str, float],
    averaging: Averaging,
    report: Report = lambda stage, share: None,
) -> ProbabilityMaps:
    """Everything of `segment_nodule` before the masks are made; calibration starts from here."""
    # Coronal and sagittal slices need voxels of one size.
    native_slices = model.metadata.input.sees_native_slices and set(averaging.views) == {"axial"}
    cube, mask = find_nodule(ct, point, model, native_slices, thresholds["final"], report)
    maps = cube.predict(
        cube.around_mask(mask, cube.grid), averaging, lambda share: report("outlining", 0.5 + 0.4 * share)
    )
    # At 0.5 and not at the threshold in use: moving Final must not move HC and LC.
    sized = cube.nodule(maps, 0.5)
    seen = np.prod(cube.spacing / cube.pixels)  # the network takes wide pixels for usual ones
    diameter = equivalent_diameter_mm((mask if sized is None else sized).sum() * seen)
    maps = calibrated(maps, diameter, model.metadata.size_calibration)
    found = cube.nodule(maps, thresholds["final"])
    selected = mask if found is None else found
    notes: list[str] = []
    if cube.kind:
        notes.append(CodedWarning(f"found-{cube.kind}", _KINDS[cube.kind]))
    if cube.is_largest and cube.touches_border(selected):
        sentence = "the nodule reaches the border of the largest region that the model looks at: it may go on"
        notes.append(CodedWarning("larger-than-cube", sentence))
    region = _region(ct, cube, maps, selected, thresholds)
    back = {key: geometry.put_back(maps[key], cube.grid, region) for key in INTERVAL_MAPS if key in maps}
    kept = geometry.put_back(selected.astype(np.float32), cube.grid, region)
    return ProbabilityMaps(region, back, kept, notes, diameter, float(mask.sum() * np.prod(cube.spacing)))


def _region(
    ct: sitk.Image,
    cube: NoduleCube,
    maps: dict[str, np.ndarray],
    selected: np.ndarray,
    thresholds: Mapping[str, float],
) -> Grid:
    """The part of the CT's own grid that holds the nodule's union, with a margin."""
    widest = "union" if "union" in maps else "final"
    seen = np.argwhere(selected | (maps[widest] >= thresholds[widest]) & _near(selected, cube.slices(_NEAR)))
    corners = cube.grid.indices_to_points([seen.min(0)[::-1], seen.max(0)[::-1]])
    return geometry.region_of_interest(ct, corners, margin_mm=_REGION_MARGIN_MM)


def _near(mask: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """What lies within `slices` per axis of a mask's bounding box: nodules further off don't widen the region."""
    out = np.zeros_like(mask)
    used = np.argwhere(mask)
    low, high = np.maximum(used.min(0) - slices, 0), used.max(0) + slices + 1
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out
