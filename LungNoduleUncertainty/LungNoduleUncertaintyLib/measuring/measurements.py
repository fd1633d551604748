"""Size, density and mass of a nodule for each outline, and the interval between what all and what any readers include.

Everything is measured in patient millimeters on the masks' own grid, whatever its spacing and orientation.
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import ConvexHull

from LungNoduleKit.errors import ImageError, NoNoduleError
from LungNoduleKit.geometry import Grid

# Part-solid nodules are usually split from ground glass between -350 and -150 HU; -300 is a common choice.
SOLID_THRESHOLD_HU = -300.0
_FEW_PIXELS = 10  # an outline of less is rounded off too much by smoothing


class Interval(TypedDict):
    """Each [of HC, of the union]; the mean axes ascending."""

    volume_mm3: list[float]
    mean_axis_mm: list[float]
    mass_mg: list[float]


class _OfIntervals(TypedDict, total=False):
    lc_share: float
    interval: Interval


class Measurements(_OfIntervals):
    """What `measure` returns, by outline, as JSON values; `lc_share` and `interval` only with HC and LC."""

    volumes_mm3: dict[str, float]
    long_axis_mm: dict[str, float]
    short_axis_mm: dict[str, float]
    mean_axis_mm: dict[str, float]
    solid_mean_axis_mm: dict[str, float]
    equivalent_diameter_mm: dict[str, float]
    mean_hu: dict[str, float]
    median_hu: dict[str, float]
    mass_mg: dict[str, float]
    hu_density: dict[str, list[float]]
    solid_share: float
    solid_threshold_hu: float


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the ball of that volume."""
    return float((6 * volume_mm3 / math.pi) ** (1 / 3))


def measure(
    ct_region: sitk.Image,
    hc: sitk.Image | None,
    lc: sitk.Image | None,
    final: sitk.Image,
    *,
    solid_threshold_hu: float = SOLID_THRESHOLD_HU,
) -> Measurements:
    """Measurements of a nodule whose CT (HU) and masks (non-zero inside) share one grid, as plain JSON values.

    HC is what every reader would include, LC what some would, the union is HC ∪ LC; units are in the keys. Where HC and
    LC are None (a model that has Final alone) there is only ``final`` in each of the following, and no ``lc_share``
    and no ``interval``.

    - ``volumes_mm3``, ``mean_hu``, ``median_hu``, ``mass_mg``: for ``hc``, ``lc``, ``final``, ``union``. Mass takes a
      density of (HU + 1000) / 1000 mg/mm³, so that air weighs nothing and water 1 mg/mm³.
    - ``long_axis_mm``, ``short_axis_mm``, ``mean_axis_mm``: for ``hc``, ``final``, ``union``, rounded to 0.1 mm, as
      `axial_axes` defines them; the mean of the two is taken before rounding.
    - ``solid_mean_axis_mm``: the same mean for the largest connected part above ``solid_threshold_hu`` in
      each of the three; 0 if there is none.
    - ``equivalent_diameter_mm``: of the sphere of the same volume, for ``hc``, ``final``, ``union``.
    - ``hu_density``: see `hu_densities`.
    - ``lc_share``: V(LC) / V(union). ``solid_share``: the part of final above ``solid_threshold_hu``.
    - ``interval``: ``volume_mm3``, ``mean_axis_mm`` and ``mass_mg``, each [of HC, of the union].

    Raises `NoNoduleError` that names an empty mask, and `ImageError` if the images don't share a grid.
    """
    grid = Grid.of(ct_region)
    masks = _checked_masks(hc, lc, final, grid)
    has_interval = "hc" in masks
    if has_interval:
        masks["union"] = masks["hc"] | masks["lc"]
    hu = sitk.GetArrayViewFromImage(ct_region)
    values = {name: hu[mask].astype(np.float64) for name, mask in masks.items()}
    volumes = {name: len(found) * grid.voxel_volume_mm3 for name, found in values.items()}
    mass = {
        name: float((found + 1000).clip(min=0).sum() / 1000 * grid.voxel_volume_mm3) for name, found in values.items()
    }
    axes = {name: axial_axes(masks[name], grid) for name in masks if name != "lc"}
    mean_axis = {name: round((long + short) / 2, 1) for name, (long, short) in axes.items()}
    solid = hu > solid_threshold_hu
    measured: Measurements = {
        "volumes_mm3": volumes,
        "long_axis_mm": {name: round(long, 1) for name, (long, _) in axes.items()},
        "short_axis_mm": {name: round(short, 1) for name, (_, short) in axes.items()},
        "mean_axis_mm": mean_axis,
        "solid_mean_axis_mm": {name: _solid_axis(masks[name] & solid, grid) for name in axes},
        "equivalent_diameter_mm": {name: equivalent_diameter_mm(volumes[name]) for name in axes},
        "mean_hu": {name: float(found.mean()) for name, found in values.items()},
        "median_hu": {name: float(np.median(found)) for name, found in values.items()},
        "mass_mg": mass,
        "hu_density": hu_densities(**{name: values[name] for name in (("hc", "lc") if has_interval else ("final",))}),
        "solid_share": float((values["final"] > solid_threshold_hu).mean()),
        "solid_threshold_hu": float(solid_threshold_hu),
    }
    if has_interval:
        measured["lc_share"] = volumes["lc"] / volumes["union"]
        measured["interval"] = {
            "volume_mm3": [volumes["hc"], volumes["union"]],
            # The two may lie in different slices, where the larger outline can be the rounder one.
            "mean_axis_mm": sorted([mean_axis["hc"], mean_axis["union"]]),
            "mass_mg": [mass["hc"], mass["union"]],
        }
    return measured


def _checked_masks(
    hc: sitk.Image | None, lc: sitk.Image | None, final: sitk.Image, grid: Grid
) -> dict[str, np.ndarray]:
    """The masks that there are as bool arrays (z, y, x), none of them empty or on another grid."""
    masks = {}
    given = {"hc": hc, "lc": lc, "final": final} if hc is not None or lc is not None else {"final": final}
    for name, mask in given.items():
        if mask is None:
            raise NoNoduleError(f"mask {name}: it is missing; HC and LC belong together")
        _check_same_grid(name, Grid.of(mask), grid)
        masks[name] = sitk.GetArrayViewFromImage(mask) != 0
        if not masks[name].any():
            raise NoNoduleError(f"mask {name}: it is empty, so there is nothing to measure")
    return masks


def _solid_axis(mask: np.ndarray, grid: Grid) -> float:
    """Mean axis (mm) of the largest connected part of a mask; specks of noise elsewhere don't widen it."""
    labels, count = ndimage.label(mask)
    if not count:
        return 0.0
    largest = 1 + int(np.argmax(ndimage.sum_labels(mask, labels, range(1, count + 1))))
    return round(sum(axial_axes(labels == largest, grid)) / 2, 1)


def hu_densities(**values: np.ndarray) -> dict[str, list[float]]:
    """Density curves of the HU of outlines, as lists: ``hu`` (every 20 HU), and each outline's under its name (per HU).

    `measure` takes ``hc`` and ``lc``, or ``final`` where there is nothing else.

    Gaussian kernel of 30 HU, so that a handful of voxels has a curve too; each curve's integral is 1. What lies
    outside [-1050, 450] HU counts at that end, where the curve is folded back.
    """
    step, edges = 20.0, np.arange(-1050.0, 451.0, 20.0)
    curves = {}
    for name, inside in values.items():
        counts = np.histogram(np.clip(inside, edges[0], edges[-1]), edges)[0].astype(float)
        smooth = ndimage.gaussian_filter1d(counts, 30.0 / step, mode="reflect")
        curves[name] = [round(float(v), 7) for v in smooth / (smooth.sum() * step)]
    return {"hu": [float(v) for v in edges[:-1] + step / 2], **curves}


def axial_axes(mask: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Long and short axis in millimeters of a mask (z, y, x; bool) on a grid.

    The long axis is the largest distance between two points of the outline within an axial slice, in the slice where
    it is largest; the short axis is the outline's largest extent perpendicular to it in that same slice. Slices run
    across the grid's axis that lies nearest to patient superior. The outline is where the mask, smoothed by
    (1, 2, 1) / 4 along both axes, passes one half: without smoothing the staircase of a digitized outline makes the
    largest distance about 0.6 voxels too long. In a slice with fewer than ten voxels, or with lines one voxel thin
    only, the outline of the mask itself is taken, midway between voxels inside and outside.
    """
    axes = np.reshape(np.asarray(grid.direction, float), (3, 3))
    through = int(np.abs(axes[2]).argmax())
    first, second = (axis for axis in range(3) if axis != through)
    # Steps in millimeters within the slice's plane, for axes that aren't at right angles too.
    cosine = float(axes[:, first] @ axes[:, second])
    directions = np.array([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])
    steps = directions * [[grid.spacing[first]], [grid.spacing[second]]]
    best = (0.0, 0.0)
    for plane in np.asarray(mask, bool).transpose(2, 1, 0).transpose(through, first, second):
        if plane.any():
            best = max(best, _long_and_short(_outline(plane) @ steps))
    return best


def _outline(plane: np.ndarray) -> np.ndarray:
    """(n, 2) continuous indices of the points where the smoothed mask passes one half between two neighbors."""
    raw = np.pad(plane, 2).astype(float)
    level = raw
    for axis in range(2):
        level = (np.roll(level, 1, axis) + 2 * level + np.roll(level, -1, axis)) / 4
    if level.max() <= 0.5 or plane.sum() < _FEW_PIXELS:
        level = raw
    points = []
    for axis in range(2):
        before, after = (
            np.take(level, range(level.shape[axis] - 1), axis),
            np.take(level, range(1, level.shape[axis]), axis),
        )
        found = (before > 0.5) != (after > 0.5)
        where = np.argwhere(found).astype(float)
        where[:, axis] += ((0.5 - before) / np.where(found, after - before, 1.0))[found]
        points.append(where - 2)
    return np.concatenate(points)


def _long_and_short(points: np.ndarray) -> tuple[float, float]:
    """Largest distance between two of the points (n, 2), and the largest extent perpendicular to it."""
    hull = points[ConvexHull(points).vertices]
    between = hull[:, None] - hull[None]
    distances = np.linalg.norm(between, axis=-1)
    one, other = np.unravel_index(distances.argmax(), distances.shape)
    along = between[one, other] / distances[one, other]
    across = hull @ (-along[1], along[0])
    return float(distances[one, other]), float(across.max() - across.min())


def _check_same_grid(name: str, own: Grid, grid: Grid) -> None:
    if (
        own.size != grid.size
        or not np.allclose(own.matrix, grid.matrix, atol=1e-5)
        or not np.allclose(own.origin, grid.origin, atol=1e-3)
    ):
        raise ImageError(f"mask {name}: it lies on another grid than the CT")
