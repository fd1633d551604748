"""A point on a nodule becomes HC, LC and Final, or Final alone: the one path of the library, command line and Slicer.

1. A first, unaveraged look around the point, by the bundle's first network alone, finds the nodule and its centroid.
2. The nodule cube moves to that centroid, so that clicks a few millimeters apart end on the same lattice, and grows
   until the nodule no longer touches its border (`finding`).
3. The averaged prediction there is calibrated for the nodule's size and put back on the CT's own grid
   (`probability_maps`); the model's thresholds make the masks (`masks`).

A cube's axial slices are as far apart as its pixels or, for a model of native slices, as the CT's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import geometry
from LungNoduleKit.errors import BundleError, NoduleError, NoNoduleError, PointError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.hounsfield import NOT_HU, value_warnings
from LungNoduleKit.images import check_ct, check_point
from LungNoduleKit.mask_parts import place_of
from LungNoduleKit.warning_codes import code_of, without_repeats

from .. import __version__
from ..measuring.measurements import Measurements, measure
from ..models.bundle import Model, load_model
from ..models.network_input import Averaging
from ..models.outputs import INTERVAL_MAPS
from .finding import Point, Report
from .masks import final_mask, nested_masks
from .plausibility import Outlined, doubts, solid_tissue_mm
from .probability_maps import ProbabilityMaps, probability_maps
from .result import NoduleSegmentation, Provenance

_LOG = logging.getLogger(__name__)
_NEAR_MM = 40.0  # how far around the point the values are looked at
_LARGE_MM = 40.0  # solid tissue from this size on isn't called no nodule without its size


def segment_nodule(
    ct: sitk.Image,
    point_lps: Sequence[float] | None = None,
    *,
    near: sitk.Image | None = None,
    part: int | None = None,
    model: Model | str | Path | None = None,
    device: str = "auto",
    thresholds: Mapping[str, float] | None = None,
    averaging: Averaging | None = None,
    progress: Report | None = None,
    notes: Sequence[str] = (),
) -> NoduleSegmentation:
    """Segment the nodule at a point.

    ct: scalar 3D image, HU. point_lps: (x, y, z) in mm, LPS; or `near`, a mask image of the
    nodule, whose centroid (or deepest point) is the point; `part` says which of its parts is meant, 1 is the largest.
    model: a loaded `Model`, a bundle's name or path, or None for the shipped one (on `device`: auto, cpu, cuda).
    thresholds: in place of the bundle's, keys `union`, `intersection`, `final` (`final` alone where the model has
    nothing else). averaging: in place of the bundle's. progress: called with (stage, share done, 0 to 1); it may raise
    to stop. notes: warnings of those who read the CT; they become the first of the result's.

    Raises ImageError, PointError, NoNoduleError or BundleError (all NoduleError); nothing is changed by a failed call.
    """
    if (point_lps is None) == (near is None):
        raise PointError("give either a point (LPS, mm) or a mask that marks the nodule, and not both")
    # NaN counts only where the nodule is: the nodule cubes are checked.
    own: list[str] = list(check_ct(ct, "CT", finite=False))
    if near is not None:
        given: Sequence[float] = place_of(near, part, own.append).point_lps
    else:
        given = tuple(() if point_lps is None else point_lps)
    check_point(given, ct)
    x, y, z = (float(v) for v in given)
    point = (x, y, z)
    if not any(code_of(note) == NOT_HU for note in own):
        own += value_warnings(_around(ct, point), "CT near the point")
    if not isinstance(model, Model):
        model = load_model(model, device)
    used = _thresholds(model, thresholds or {})
    averaging = averaging or model.metadata.averaging

    def report(stage: str, share: float) -> None:
        if progress:
            progress(stage, share)

    try:
        found = probability_maps(ct, point, model, used, averaging, report)
    except NoNoduleError as error:
        raise NoNoduleError("; ".join([str(error), *_reasons(ct, point, own)])) from None
    own += found.notes
    report("measuring", 0.9)
    images = _mask_images(found, model, used, own)
    probabilities = _probability_images(found, model)
    measurements = measure(geometry.crop(ct, found.region), *images)
    own += doubts(_outlined(found, images, measurements, point), Grid.of(ct))
    for note in own:
        _LOG.warning("%s", note)
    told = without_repeats([*notes, *own])
    return NoduleSegmentation(
        *images,
        *probabilities,
        measurements=measurements,
        provenance=_provenance(model, used, averaging, point, told),
        warnings=told,
        final_map=model.outputs.final_map,
    )


def _thresholds(model: Model, given: Mapping[str, float]) -> dict[str, float]:
    """The thresholds of the model's segments, with those given in place of its own. Raises NoduleError."""
    outputs = model.outputs
    if not outputs.segments:
        raise BundleError(
            f"model {model.name!r}: it predicts {', '.join(outputs.maps)} and no final, so it can't segment"
        )
    for name in given:
        if name not in outputs.thresholds:
            raise NoduleError(
                f"threshold {name}: model {model.name!r} has {', '.join(outputs.segments)}; "
                f"its thresholds are {', '.join(outputs.thresholds)}"
            )
    used = {**{name: model.metadata.thresholds[name] for name in outputs.thresholds}, **given}
    for name, value in used.items():
        if not 0 < float(value) < 1:
            raise NoduleError(f"threshold {name} {value!r}: it has to lie between 0 and 1")
    return used


def _provenance(
    model: Model, thresholds: dict[str, float], averaging: Averaging, point: Point, warnings: Sequence[str]
) -> Provenance:
    metadata, software = model.metadata, f"LungNoduleUncertainty {__version__}"
    return Provenance(
        metadata.name,
        metadata.version,
        metadata.sha256,
        software,
        thresholds,
        averaging,
        point,
        metadata.size_calibration,
        tuple(code_of(warning) for warning in warnings),
    )


def _around(ct: sitk.Image, point: Point) -> np.ndarray:
    """The CT's voxels (z, y, x) in a box around a point."""
    steps = np.abs(np.linalg.inv(Grid.of(ct).matrix)).sum(axis=1) * _NEAR_MM
    middle = Grid.of(ct).points_to_indices(point)
    low, high = np.floor(middle - steps).astype(int).clip(0), np.ceil(middle + steps).astype(int) + 1
    return sitk.GetArrayViewFromImage(ct)[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]


def _reasons(ct: sitk.Image, point: Point, warnings: Sequence[str]) -> list[str]:
    """What may be the reason that nothing was found at a point."""
    not_hu = [str(warning) for warning in warnings if code_of(warning) == NOT_HU]
    size = 0.0 if not_hu else solid_tissue_mm(ct, point)
    if size < _LARGE_MM:
        return not_hu
    return [
        f"it lies in solid tissue of at least {size:.0f} mm, and a mass of that size is larger than the model looks at"
    ]


def _outlined(
    found: ProbabilityMaps,
    images: tuple[sitk.Image | None, sitk.Image | None, sitk.Image],
    measurements: Measurements,
    point: Point,
) -> Outlined:
    hc, lc, final = images
    union = None if hc is None or lc is None else sitk.GetArrayFromImage(hc | lc) > 0
    inside = sitk.GetArrayFromImage(final) > 0
    return Outlined(found.region, inside, union, found.maps["final"], measurements, point, found.first_mm3)


def _mask_images(
    found: ProbabilityMaps, model: Model, thresholds: Mapping[str, float], notes: list[str]
) -> tuple[sitk.Image | None, sitk.Image | None, sitk.Image]:
    """Images of HC, LC and Final; the first two are None for a model that has Final alone."""

    def image(mask: np.ndarray) -> sitk.Image:
        return found.region.image(mask.astype(np.uint8))

    if not model.outputs.has_interval:
        return None, None, image(final_mask(found.maps["final"], found.selected, thresholds["final"], notes))
    hc, lc, final = nested_masks(found.maps, found.selected, thresholds, notes, found.region.spacing[::-1])
    return image(hc), image(lc), image(final)


def _probability_images(
    found: ProbabilityMaps, model: Model
) -> tuple[sitk.Image | None, sitk.Image | None, sitk.Image]:
    """Maps of the union, the intersection and Final; the first two are None where all masks come from a single map."""

    def image(name: str) -> sitk.Image:
        return sitk.Cast(found.region.image(found.maps[name]), sitk.sitkFloat32)

    union, intersection = (image(name) if name in model.outputs.probabilities else None for name in INTERVAL_MAPS[:2])
    return union, intersection, image("final")
