"""A point on a nodule becomes HC, LC and final, or final alone: the one path of the library, command line and Slicer.

1. A first, unaveraged look around the point, by the bundle's first network alone, finds the nodule and its centroid.
2. The cube moves to that centroid, so that clicks a few millimetres apart end on the same lattice, and grows until the
   nodule no longer touches its border.
3. The averaged prediction there is calibrated for the nodule's size, put back on the CT's own grid and cut at the
   model's thresholds.

A cube's axial slices are as far apart as its pixels or, of a model that asks for it, the CT's own.
"""

import logging
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from LungNoduleKit import geometry
from LungNoduleKit.errors import BundleError, NoduleError, NoNoduleError, PointError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import check_ct, check_point

from .. import __version__
from ..measuring.measurements import equivalent_diameter_mm, measure
from ..models.bundle import Model, load_model
from ..models.network_input import sees_native_slices
from ..models.outputs import INTERVAL_MAPS
from ..models.size_calibration import calibrated
from .masks import final_mask, nested_masks
from .prediction import Averaging, predict_cube

_LOG = logging.getLogger(__name__)
_REACH_MM = 6.0  # a click this far beside the nodule still means it
# In pixels' breadths, of which a thick slice has several:
_BORDER = 3  # a nodule this near the cube's border makes the cube grow
_CONTEXT = 8  # what is computed beyond the nodule's ends
_NEAR = 12  # what the union may add to the result's region around the nodule
_REGION_MARGIN_MM = 5.0  # what the result's region shows around the union


@dataclass
class NoduleSegmentation:
    """Result of `segment_nodule`. Images are SimpleITK, LPS, on the CT's own grid cropped to the nodule's region.

    hc, lc, final: uint8 masks with HC and LC disjoint and HC inside final inside HC and LC together; hc and lc are None
    for a model that gives Final alone. probability_union, probability_intersection, probability_final: float32 in
    [0, 1]; the first two are None for a model with a single map. final_map: `soft` if probability_final is a soft mask
    (DSNet), else `final`.
    measurements: see `measurements.measure`. provenance: model, hash, version, thresholds, point, as strings.
    warnings: what the caller should know, one sentence each.
    """

    hc: object | None
    lc: object | None
    final: object
    probability_union: object | None
    probability_intersection: object | None
    probability_final: object
    measurements: dict
    provenance: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    final_map: str = "final"

    @property
    def probabilities(self) -> dict:
        """The probability maps that there are, by name: `union`, `intersection` and `final`, or `final`, or `soft`."""
        maps = {"union": self.probability_union, "intersection": self.probability_intersection}
        maps[self.final_map] = self.probability_final
        return {name: image for name, image in maps.items() if image is not None}

    @property
    def multi_confidence_map(self):
        """(union + intersection) / 2 as probability, the papers' Multi-Confidence Mask before its cut (SimpleITK).

        None for a model with a single map.
        """
        if self.probability_union is None or self.probability_intersection is None:
            return None

        return sitk.Cast((self.probability_union + self.probability_intersection) * 0.5, sitk.sitkFloat32)


def centroid_lps(mask) -> tuple[float, float, float]:
    """Centroid of a mask image's foreground in LPS mm. Raises PointError when the mask is empty."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(mask != 0, sitk.sitkUInt8))
    if not shape.HasLabel(1):
        raise PointError("the mask given as the nodule's place is empty")
    return tuple(shape.GetCentroid(1))


def _nodule_at(probability, threshold, point_index, spacing):
    """Mask of the connected part (final >= threshold) that holds the voxel `point_index` or lies within reach of it."""
    labels, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    if count == 0:
        return None
    index = np.clip(np.round(point_index).astype(int), 0, np.array(labels.shape) - 1)
    label = labels[tuple(index)]
    if label == 0:
        distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling=spacing, return_indices=True)
        if distance[tuple(index)] > _REACH_MM:
            return None
        label = labels[tuple(axis[tuple(index)] for axis in nearest)]
    return labels == label


def _touches_border(mask, borders, box=None) -> bool:
    """Whether a mask comes within `borders` (slices an axis) of the border of its cube, or of a side of `box` where the
    cube goes on beyond it.
    """
    inner = []
    for axis, (size, border) in enumerate(zip(mask.shape, borders, strict=True)):
        low, high = box[axis] if box else (0, size)
        counts_low, counts_high = box is None or low > 0, box is None or high < size
        inner.append(slice(low + border if counts_low else 0, high - border if counts_high else size))
    return bool(mask[tuple(inner)].sum() < mask.sum())


def _box(mask, look, previous):
    """Slices per axis that a mask of the look `previous` occupies in the cube of `look`, with the context that lets
    the network end the stack by itself.
    """
    used = np.argwhere(mask)
    corners = previous.grid.indices_to_points([used.min(0)[::-1], used.max(0)[::-1]])
    low, high = np.round(look.grid.points_to_indices(corners)).astype(int)[:, ::-1]
    return tuple(
        (int(np.clip(a - c, 0, n - 1)), int(np.clip(b + c + 1, 1, n)))
        for a, b, c, n in zip(low, high, look.slices(_CONTEXT), look.hu.shape, strict=True)
    )


def _outside(ct, grid):
    """Per axis (z, y, x), which slices of a grid lie beyond the CT: there is no nodule there."""
    slices = []
    for axis in range(3):
        line = np.zeros((grid.size[axis], 3))
        line[:, axis] = np.arange(grid.size[axis])
        at = Grid.of(ct).points_to_indices(grid.indices_to_points(line))
        along = int(np.ptp(at, axis=0).argmax())  # the CT's axis that this one runs along
        slices.append((at[:, along] < -0.5) | (at[:, along] > ct.GetSize()[along] - 0.5))
    return slices[::-1]


def _cube_sizes(model):
    """Edge lengths (voxels) of the cubes that the model may look at, ascending."""
    return model.metadata["input"].get("cube_sizes", [48, 64, 96, 128])


class _Look:
    """One cube around a point: its grid, its HU, and the model applied to it. `clicked_lps`: what was asked for."""

    def __init__(self, ct, point_lps, clicked_lps, size, model, own_slices: bool):
        self.model = model
        options = model.metadata["input"]
        plane, magnification = options.get("spacing_mm"), options.get("magnification", 1.0)
        spacing = geometry.grid_spacing(ct, plane, magnification, own_slices)
        self.grid = geometry.nodule_grid(ct, point_lps, (size, size, size), spacing)
        # Beyond the CT its border goes on: a step to air there would look like the nodule's end.
        self.hu = geometry.sample(ct, self.grid, outside=None)
        self.spacing = np.array(self.grid.spacing[::-1])
        self.point, self.clicked = (
            np.array(index)[::-1] for index in self.grid.points_to_indices([point_lps, clicked_lps])
        )
        self.outside = _outside(ct, self.grid)

    def predict(self, box=None, averaging=None, progress=None, networks=None):
        offset = -self.point * self.spacing
        maps = predict_cube(self.model, self.hu, offset, self.spacing, box, averaging, progress, networks)
        for values in maps.values():
            for axis, beyond in enumerate(self.outside):
                np.moveaxis(values, axis, 0)[beyond] = 0.0
        return maps

    def slices(self, pixels: int):
        """Per axis (z, y, x), how many slices are as thick together as so many pixels are broad."""
        return np.ceil(pixels * self.spacing[1] / self.spacing - 1e-6).astype(int)

    def around_point(self, pixels: int = 14):
        """The part of the cube that a first look takes in: all of every slice, but only slices near the point."""
        middle, slices = round(float(self.point[0])), self.slices(pixels)[0]
        depth, height, width = self.hu.shape
        return ((max(middle - slices, 0), min(middle + slices + 1, depth)), (0, height), (0, width))

    def nodule(self, maps, threshold):
        """Mask of the part that was clicked or, of a click beside it, the part at the cube's point.

        A cube centred on two parts that hung together in an earlier look may have the wrong one at its point.
        """
        values, index = maps["final"], np.round(self.clicked).astype(int)
        seen = (index >= 0).all() and (index < values.shape).all() and values[tuple(index)] >= threshold
        return _nodule_at(values, threshold, self.clicked if seen else self.point, self.spacing)

    def to_point(self, index_zyx):
        return tuple(float(v) for v in self.grid.indices_to_points([tuple(index_zyx[::-1])])[0])


def _find(ct, point_lps, model, own_slices, threshold, report):
    """(cube centred on the nodule and large enough for it, the nodule's mask in it)."""
    sizes = _cube_sizes(model)
    look, mask = _Look(ct, point_lps, point_lps, sizes[0], model, own_slices), None
    box = look.around_point()
    for attempt in range(2 * len(sizes) + 2):
        begin = min(0.1 + 0.1 * attempt, 0.45)
        report("finding the nodule", begin)
        # One network suffices to find it; what is outlined comes from all of them.
        maps = look.predict(
            box, progress=lambda share, at=begin: report("finding the nodule", at + 0.05 * share), networks=1
        )
        mask = look.nodule(maps, threshold)
        if mask is None:
            where = ", ".join(f"{v:.1f}" for v in point_lps)
            raise NoNoduleError(f"no nodule found within {_REACH_MM:g} mm of the point ({where}) mm LPS")
        # Moving by whole voxels keeps the lattice: clicks that agree on the voxel give the same result to the last bit.
        center = np.round(np.array(ndimage.center_of_mass(mask)))
        shift = np.abs(center - np.round(look.point)).max()
        size = look.hu.shape[0]
        borders = look.slices(_BORDER)
        grows = _touches_border(mask, borders) and size < sizes[-1]
        settled = attempt and (shift < 1 or (attempt > 1 and shift < 2))  # it may swing between neighbouring voxels
        if settled and not grows and not _touches_border(mask, borders, box):
            break
        size = next(s for s in sizes if s > size) if grows else size
        previous, look = look, _Look(ct, look.to_point(center), point_lps, size, model, own_slices)
        box = _box(mask, look, previous)
    return look, mask


def _near(mask, slices):
    """What lies within `slices` per axis of a mask's bounding box: nodules further off don't widen the region."""
    out = np.zeros_like(mask)
    used = np.argwhere(mask)
    low, high = np.maximum(used.min(0) - slices, 0), used.max(0) + slices + 1
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


def _checked_cuts(cuts):
    for name, value in cuts.items():
        if not 0 < float(value) < 1:
            raise NoduleError(f"threshold {name} {value!r}: it has to lie between 0 and 1")
    return cuts


@dataclass
class ProbabilityMaps:
    """The averaged maps {union, intersection, final} (z, y, x) on `region`, a part of the CT's own grid; `final` alone
    of a model that gives nothing else.

    `selected` (z, y, x) in [0, 1] marks the nodule that the point means; `diameter_mm` is the one that the maps were
    calibrated for.
    """

    region: object
    maps: dict
    selected: object
    notes: list
    diameter_mm: float


def probability_maps(ct, point, model, cuts, averaging, report=lambda stage, share: None) -> ProbabilityMaps:
    """Everything of `segment_nodule` before the cut at thresholds; calibration starts from here."""
    # Coronal and sagittal slices want voxels of one size.
    own_slices = sees_native_slices(model.metadata["input"]) and set(averaging.views) == {"axial"}
    look, mask = _find(ct, point, model, own_slices, cuts["final"], report)
    maps = look.predict(_box(mask, look, look), averaging, lambda share: report("outlining", 0.5 + 0.4 * share))
    # At 0.5 and not at the threshold in use: moving Final must not move HC and LC.
    sized = look.nodule(maps, 0.5)
    diameter = equivalent_diameter_mm((mask if sized is None else sized).sum() * np.prod(look.spacing))
    maps = calibrated(maps, diameter, model.metadata.get("size_calibration"))
    selected = look.nodule(maps, cuts["final"])
    selected = mask if selected is None else selected
    notes = []
    if look.hu.shape[0] >= _cube_sizes(model)[-1] and _touches_border(selected, look.slices(_BORDER)):
        notes.append("the nodule reaches the border of the largest region that the model looks at: it may go on")
    widest = "union" if "union" in maps else "final"
    seen = np.argwhere(selected | (maps[widest] >= cuts[widest]) & _near(selected, look.slices(_NEAR)))
    corners = look.grid.indices_to_points([seen.min(0)[::-1], seen.max(0)[::-1]])
    region = geometry.region_of_interest(ct, corners, margin_mm=_REGION_MARGIN_MM)
    back = {key: geometry.put_back(maps[key], look.grid, region) for key in INTERVAL_MAPS if key in maps}
    kept = geometry.put_back(selected.astype(np.float32), look.grid, region)
    return ProbabilityMaps(region, back, kept, notes, diameter)


def segment_nodule(
    ct, point_lps=None, *, near=None, model=None, device="auto", thresholds=None, averaging=None, progress=None
) -> NoduleSegmentation:
    """Segment the nodule at a point.

    ct: SimpleITK image, scalar 3D, HU. point_lps: (x, y, z) in mm, LPS; or `near`, a mask image whose centroid is the
    point. model: a loaded `Model`, a bundle's name or path, or None for the shipped one (on `device`: auto, cpu, cuda).
    thresholds: overrides for the bundle's calibrated ones, keys `union`, `intersection`, `final` (`final` alone where
    the model gives nothing else). averaging: a `prediction.Averaging` in place of the bundle's. progress: called with
    (stage, share done).

    Raises ImageError, PointError, NoNoduleError or BundleError (all NoduleError); nothing is changed by a failed call.
    """
    if (point_lps is None) == (near is None):
        raise PointError("give either a point (LPS, mm) or a mask that marks the nodule, and not both")
    notes = list(check_ct(ct, "CT"))
    point = centroid_lps(near) if point_lps is None else tuple(point_lps)
    check_point(point, ct)
    point = tuple(float(v) for v in point)
    if not isinstance(model, Model):
        model = load_model(model, device)
    gives = model.gives
    if not gives.segments:
        raise BundleError(
            f"model {model.name!r}: it gives {', '.join(model.outputs)} and no final, so it can't be used"
        )
    for name in thresholds or {}:
        if name not in gives.thresholds:
            raise NoduleError(
                f"threshold {name}: model {model.name!r} gives {', '.join(gives.segments)}; "
                f"its thresholds are {', '.join(gives.thresholds)}"
            )
    known = {name: model.metadata["thresholds"][name] for name in gives.thresholds}
    cuts = _checked_cuts({**known, **(thresholds or {})})
    averaging = averaging or Averaging.from_metadata(model.metadata.get("averaging", {}))

    def report(stage, share):
        if progress:
            progress(stage, share)

    maps = probability_maps(ct, point, model, cuts, averaging, report)
    notes += maps.notes
    report("measuring", 0.9)
    region = maps.region
    if gives.has_interval:
        masks = nested_masks(maps.maps, maps.selected, cuts, notes, region.spacing[::-1])
    else:
        masks = (None, None, final_mask(maps.maps["final"], maps.selected, cuts["final"], notes))
    images = {
        name: None if mask is None else region.image(mask.astype(np.uint8))
        for name, mask in zip(("hc", "lc", "final"), masks, strict=True)
    }
    probabilities = {  # a map of its own for each, or the one that all masks are cuts of
        name: sitk.Cast(region.image(maps.maps[name]), sitk.sitkFloat32)
        if name == "final" or name in gives.probabilities
        else None
        for name in INTERVAL_MAPS
    }
    hu = geometry.crop(ct, region)
    slopes = model.metadata.get("size_calibration", {})
    sizes = ", ".join(f"{name} {slope:g} per doubling" for name, slope in sorted(slopes.items()))
    for note in notes:
        _LOG.warning("%s", note)
    return NoduleSegmentation(
        **images,
        **{f"probability_{name}": image for name, image in probabilities.items()},
        measurements=measure(hu, images["hc"], images["lc"], images["final"]),
        provenance={
            "model": model.metadata["name"],
            "model_version": model.metadata["version"],
            "model_sha256": model.metadata["sha256"],
            "software": f"LungNoduleUncertainty {__version__}",
            "thresholds": ", ".join(
                f"{key} {cuts[key]:.3f}" for key in ("intersection", "final", "union") if key in cuts
            ),
            **({"size_calibration": sizes} if sizes else {}),
            "averaging": f"{len(averaging.flips)} flips of {', '.join(averaging.views)} slices",
            "point_lps_mm": " ".join(f"{v:.2f}" for v in point),
        },
        warnings=notes,
        final_map=gives.final_map,
    )
