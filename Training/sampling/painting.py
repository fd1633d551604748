"""Kinds of nodules that LIDC-IDRI has few of, painted into the nodules that it has: cavities, masses, vessels, ...

A painted copy has the readers' masks of its nodule (scaled with it where it is scaled): a cavity belongs to its nodule,
a vessel that runs through a nodule doesn't. Copies are a function of (seed, nodule, kind), so a resumed run sees the
same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from scipy import ndimage

from ..config import Painting, PaintingKind
from ..data.nodule import Nodule

LUNG_HU, TISSUE_HU, CLIPPED_HU = -850.0, 30.0, 300.0  # cubes are clipped at the latter, as LIDC-IDRI's are here
_MARGIN = 40  # pixels kept around a nodule in plane: half of the largest training crop, and the point's jitter
_MARGIN_SLICES = 6  # as the cubes have
_LARGEST_FACTOR = 2.5  # readers' masks lie a little outside of what is seen, and farther with each magnification
_WIDEST_MAGNIFIED = 60.0  # mm
_SOLID = 3.5  # texture rating from which on a nodule counts as solid (1 ground glass, 5 solid)


def painted_copies(nodules: Sequence[Nodule], options: Painting, seed: int) -> list[Nodule]:
    """For each kind its share of copies of nodules that are fit for it, drawn without repeats as far as they reach.

    `options`: copies of each kind over the number of nodules. Their ids end in `+KIND`. The data's own cavitary
    nodules, whose internal structure some reader rated as other than soft tissue, come first, repeated as they are.
    """
    cavitary = [n for n in nodules if float(n.row.get("internal_structure") or 1.0) > 1.0]
    copies = cavitary * options.cavitary_repeats
    for number, kind in enumerate(get_args(PaintingKind)):
        fit = [n for n in nodules if is_fit(n, kind)]
        count = round(getattr(options, kind) * len(nodules))
        if not (fit and count):
            continue
        rng = np.random.default_rng([seed, 4, number])
        rounds = [rng.permutation(len(fit)) for _ in range(-(-count // len(fit)))]
        copies += [painted(fit[index], kind, rng) for index in np.concatenate(rounds)[:count]]
    return copies


def is_fit(nodule: Nodule, kind: PaintingKind) -> bool:
    """Whether a nodule can become one of that kind: it must be solid and wide enough (vessels: any nodule)."""
    if kind == "vessel":
        return True
    least = _WIDEST_MAGNIFIED / _LARGEST_FACTOR / 2 if kind == "mass" else 6.0
    return float(nodule.row.get("texture") or 5.0) >= _SOLID and _diameter(nodule) >= least


def painted(nodule: Nodule, kind: PaintingKind, rng: np.random.Generator) -> Nodule:
    """One painted copy of a nodule."""
    copy = _PAINTERS[kind](nodule, rng)
    hu = np.clip(np.rint(copy.hu), -1024, CLIPPED_HU).astype(np.int16)
    return replace(copy, nodule_id=f"{nodule.nodule_id}+{kind}", hu=hu, soft=None)


def magnified(nodule: Nodule, rng: np.random.Generator, diameter_mm: float) -> Nodule:
    """The nodule scaled so that the equivalent diameter of its consensus is `diameter_mm`."""
    return _scaled(nodule, rng, diameter_mm / _diameter(nodule))


def paint_cavity(nodule: Nodule, rng: np.random.Generator, wall_mm: float) -> Nodule:
    """The nodule with a cavity whose wall is `wall_mm` thick in the mean.

    Cavities lie off the middle more or less, have an uneven inner border and, one in four each, septa or an air-fluid
    level. A wall thicker than two thirds of the nodule's radius is made so thin that a cavity of at least 3 mm is left.
    """
    inside = nodule.consensus
    depth = ndimage.distance_transform_edt(inside, sampling=nodule.spacing)
    radius = float(depth.max())
    wall = min(wall_mm, max(radius - 1.5, 0.3 * radius))
    place = _positions(nodule) - np.array(np.unravel_index(depth.argmax(), depth.shape)) * nodule.spacing
    toward = place @ _direction(rng) / max(radius, 1.0)
    wall_here = wall * (1 + rng.uniform(0, 0.7) * np.clip(toward, -1, 1))
    wall_here += min(0.25 * wall, 1.0) * _smooth_noise(inside.shape, 2.0 / nodule.spacing, rng)
    # Half a pixel of partial volume on either side of the wall's inner border.
    share = np.clip((depth - wall_here) / nodule.spacing[1] + 0.5, 0, 1)
    content = np.full(inside.shape, rng.uniform(-1000, -820), np.float32)
    chance = rng.random()
    if chance < 0.25:
        for _ in range(rng.integers(1, 4)):
            across = np.abs((place - rng.normal(0, 0.3 * radius, 3)) @ _direction(rng))
            share = share * np.clip((across - rng.uniform(0.5, 1.2)) / nodule.spacing[1] + 0.5, 0, 1)
    elif chance < 0.5:
        level = rng.uniform(-0.3, 0.7) * radius  # patients lie on their back: fluid gathers toward posterior
        fluid = np.clip((place[..., 1] - level) / nodule.spacing[1] + 0.5, 0, 1)
        content = content + fluid * (rng.uniform(0, 35) - content)
    hu = nodule.hu + share * (content + _grain(inside.shape, rng, 12.0) - nodule.hu)
    return replace(nodule, hu=hu.astype(np.float32))


def _cavity(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    widest = min(48.0, _LARGEST_FACTOR * _diameter(nodule))
    wall_mm, diameter_mm = rng.uniform(1.5, 6.0), float(np.exp(rng.uniform(np.log(8), np.log(widest))))
    return paint_cavity(magnified(nodule, rng, diameter_mm), rng, wall_mm)


def _mass(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    widest = min(_WIDEST_MAGNIFIED, _LARGEST_FACTOR * _diameter(nodule))
    return magnified(nodule, rng, rng.uniform(25, max(widest, 26)))


def paint_vessel(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    """A straight vessel along z through the nodule or at its side, which goes on where the nodule has ended."""
    more = round(12 / nodule.spacing[0])
    # The outermost slices hold no nodule: there and back again they are as much more lung as is wanted.
    ends = np.concatenate([np.arange(_MARGIN_SLICES), np.arange(_MARGIN_SLICES - 2, 0, -1)])
    last = len(nodule.hu) - 1
    below, above = np.resize(ends, more)[::-1], last - np.resize(ends, more)
    order = np.concatenate([below, np.arange(last + 1), above])
    readers = nodule.readers[:, order].copy()
    readers[:, :more] = readers[:, len(order) - more :] = False
    hu = nodule.hu[order].astype(np.float32)
    _, y, x = nodule.center()
    width = rng.uniform(2.0, 7.0)
    away = rng.uniform(0, 0.5 * _diameter(nodule) + 1.0) * _direction(rng)[1:] / nodule.spacing[1:]
    lean = rng.normal(0, 0.08, 2)
    z = np.arange(len(order))[:, None, None] - (more + nodule.center()[0])
    rows, columns = np.arange(hu.shape[1])[:, None], np.arange(hu.shape[2])
    from_axis = np.hypot(rows - y - away[0] - lean[0] * z, columns - x - away[1] - lean[1] * z) * nodule.spacing[1]
    share = np.clip((width / 2 - from_axis) / nodule.spacing[1] + 0.5, 0, 1)
    tissue = rng.uniform(0, 120) + _grain(hu.shape, rng, 12.0)
    hu += share * np.maximum(tissue - hu, 0)
    return replace(nodule, hu=hu, readers=readers)


def _calcified(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    """A nodule that is denser than the stored HU reach, with the wider border that so bright a thing has."""
    near = ndimage.gaussian_filter(nodule.consensus.astype(np.float32), 1.0)
    return replace(nodule, hu=nodule.hu + np.clip(nodule.hu + 900, 0, None) * near * rng.uniform(0.3, 1.5))


def _flat(nodule: Nodule, rng: np.random.Generator) -> Nodule:
    """The nodule pressed flat along one axis in plane, as plaques and nodules on the pleura are."""
    factors = np.ones(3)
    factors[rng.integers(1, 3)] = rng.uniform(0.35, 0.7)
    return _scaled(nodule, rng, factors)


_PAINTERS: dict[PaintingKind, Callable[[Nodule, np.random.Generator], Nodule]] = {
    "cavity": _cavity,
    "mass": _mass,
    "vessel": paint_vessel,
    "calcified": _calcified,
    "flat": _flat,
}


def _scaled(nodule: Nodule, rng: np.random.Generator, factor: float | np.ndarray) -> Nodule:
    """The nodule magnified on voxels of the same size, its border as sharp and its noise as fine as before."""
    factors = np.broadcast_to(np.asarray(factor, float), 3)
    box = _box(nodule, factors)
    size = [round((b.stop - b.start) * f) for b, f in zip(box, factors, strict=True)]

    def zoomed(values: np.ndarray) -> np.ndarray:
        return ndimage.zoom(values.astype(np.float32), np.divide(size, values.shape), order=1, mode="nearest")

    hu = zoomed(nodule.hu[box])
    readers = np.stack([zoomed(mask[box]) >= 0.5 for mask in nodule.readers])
    largest = float(factors.max())
    if largest > 1.2:
        tone = (hu - LUNG_HU) / (TISSUE_HU - LUNG_HU)
        steep = np.clip((tone - 0.5) * largest + 0.5, np.minimum(tone, 0), np.maximum(tone, 1))
        near = ndimage.binary_dilation(readers.any(0), iterations=int(np.ceil(2 * largest)))
        hu = np.where(near, LUNG_HU + steep * (TISSUE_HU - LUNG_HU), hu) + _grain(hu.shape, rng, 20.0)
    return replace(nodule, hu=hu, readers=readers)


def _box(nodule: Nodule, factors: np.ndarray) -> tuple[slice, ...]:
    """The part of the cube that is left around a nodule: as much as crops see once it is magnified."""
    used = np.argwhere(nodule.readers.any(0))
    out = []
    for axis, (low, high, n) in enumerate(zip(used.min(0), used.max(0), nodule.hu.shape, strict=True)):
        wanted = int(np.ceil((_MARGIN_SLICES if axis == 0 else _MARGIN) / factors[axis]))
        out.append(slice(max(low - wanted, 0), min(high + wanted + 1, n)))
    return tuple(out)


def _diameter(nodule: Nodule) -> float:
    """Equivalent diameter of the consensus, mm."""
    return float((6 / np.pi * nodule.consensus.sum() * np.prod(nodule.spacing)) ** (1 / 3))


def _positions(nodule: Nodule) -> np.ndarray:
    """Of each voxel (z, y, x, 3), mm from the first one."""
    axes = [np.arange(n) * s for n, s in zip(nodule.hu.shape, nodule.spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)


def _direction(rng: np.random.Generator) -> np.ndarray:
    """A unit vector, uniform over all directions."""
    drawn = rng.normal(size=3)
    return drawn / np.linalg.norm(drawn)


def _smooth_noise(shape: Sequence[int], sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of standard deviation 1 whose details are `sigma` voxels wide."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return noise / max(float(noise.std()), 1e-6)


def _grain(shape: Sequence[int], rng: np.random.Generator, hu: float) -> np.ndarray:
    """A CT's noise in plane, of standard deviation `hu`."""
    return hu * _smooth_noise(shape, np.array([0.3, 0.65, 0.65]), rng)
