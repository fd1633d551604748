"""A chest CT that the project generates: body, ribs, spine, heart, airways, lungs with branching vessels, CT noise and
resolution, and nodules with the outlines of real LIDC readers.

Positions are LPS mm. Tissues are painted as soft masks (partial volume), then the scanner's resolution and correlated
noise are applied. HU values are those usually given for the tissues at 120 kV without contrast agent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .reader_outlines import reader_distances, sample_outlines

AIR, LUNG, FAT, MUSCLE, BLOOD, MARROW, CORTEX = -1000.0, -865.0, -100.0, 50.0, 42.0, 180.0, 620.0
RESOLUTION_MM = 1.0  # full width at half maximum, in plane
NOISE_HU = 22.0

Point: TypeAlias = tuple[float, float, float]
Branch: TypeAlias = tuple[list[np.ndarray], list[float]]  # points along a vessel, LPS mm, and its radii there
# nodule of the shipped outlines, name in the sample, center (LPS mm), HU where all readers agree, HU of the rim
_PLACES = (
    ("spiculated-14mm", "spiculated nodule", (-82.0, 18.0, 78.0), 35.0, -350.0),
    ("solid-8mm", "solid nodule", (92.0, 40.0, 92.0), 30.0, -250.0),
    ("ground-glass-10mm-readers-disagree", "ground-glass nodule", (-70.0, -38.0, 96.0), -480.0, -690.0),
)


@dataclass(frozen=True)
class PhantomNodule:
    """A nodule of the phantom: its center (LPS mm) and its readers' masks (uint8, a part of the CT's own grid)."""

    name: str
    center_lps: Point
    readers: list[sitk.Image]


class _Canvas:
    """HU (z, y, x) on a regular grid, painted box by box."""

    def __init__(self, size: Sequence[int], spacing: Sequence[float], origin: Sequence[float]):
        self.size, self.spacing, self.origin = size, np.array(spacing), np.array(origin)
        self.axes = [origin[a] + spacing[a] * np.arange(size[a], dtype=np.float32) for a in range(3)]
        self.hu = np.full(size[::-1], AIR, np.float32)

    def mesh(self, box: tuple[slice, ...] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, z in mm, ready to broadcast to (z, y, x)."""
        x, y, z = (a[box[2 - n]] if box else a for n, a in enumerate(self.axes))
        return x[None, None], y[None, :, None], z[:, None, None]

    def box(self, center: Sequence[float] | np.ndarray, reach: float) -> tuple[slice, ...] | None:
        """Slices (z, y, x) around a point, or None if it lies outside."""
        low = np.maximum(np.floor((np.array(center) - reach - self.origin) / self.spacing).astype(int), 0)
        high = np.minimum(
            np.ceil((np.array(center) + reach - self.origin) / self.spacing).astype(int) + 1, np.array(self.size)
        )
        return None if (high <= low).any() else tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))

    def blend(self, share: np.ndarray, hu: float | np.ndarray, box: Any = ...) -> None:
        """Mix a tissue in: `share` in [0, 1] of each voxel becomes `hu`."""
        self.hu[box] += share * (hu - self.hu[box])


def _soft(depth_mm: np.ndarray, width_mm: float = 1.0) -> np.ndarray:
    """Share of a voxel that is inside, from the depth below a surface."""
    return (depth_mm / width_mm + 0.5).clip(0, 1)


def _ellipse_depth(
    x: np.ndarray, y: np.ndarray, center: tuple[float, float], axes: tuple[Any, Any], power: float = 2.0
) -> np.ndarray:
    """Approximate depth (mm) below a superellipse in the axial plane."""
    u, v = np.abs((x - center[0]) / axes[0]), np.abs((y - center[1]) / axes[1])
    return (1 - (u**power + v**power) ** (1 / power)) * np.minimum(*axes)


def _lung_depth(canvas: _Canvas) -> np.ndarray:
    """Depth below the surface of the lungs (mm, (z, y, x)): two ovals that narrow towards the apex, with the heart,
    the great vessels and the spine cut out.
    """
    x, y, z = canvas.mesh()
    height = (z - canvas.axes[2][0]) / np.ptp(canvas.axes[2])
    scale = np.sqrt((1 - 0.55 * height.clip(0, 1) ** 3).clip(0.2, 1)).astype(np.float32)
    lungs = np.full(canvas.hu.shape, -100.0, np.float32)
    for side, width in ((-1, 60.0), (1, 55.0)):
        depth = _ellipse_depth(x, y, (side * 74.0, 2.0), (width * scale, 88.0 * scale), 2.4)
        np.maximum(lungs, depth, out=lungs)
    heart = 1 - np.sqrt(((x - 28) / 58) ** 2 + ((y + 36) / 46) ** 2 + ((z - canvas.axes[2][0] - 22) / 62) ** 2)
    np.minimum(lungs, -heart * 46, out=lungs)
    aorta = 12.5 - np.hypot(x - 24, y - 44)
    np.minimum(lungs, -aorta - 1, out=lungs)
    spine = _ellipse_depth(x, y, (0, 72), (27, 28))
    return np.minimum(lungs, -spine - 2)


def _enlarged(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation of a coarse field to a finer grid, axis by axis; float32."""
    for axis, count in enumerate(shape):
        at = np.linspace(0, values.shape[axis] - 1, count)
        lower = np.minimum(at.astype(int), values.shape[axis] - 2)
        share = (at - lower).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        values = values.astype(np.float32)
        values = values.take(lower, axis) * (1 - share) + values.take(lower + 1, axis) * share
    return values


def _paint_body(canvas: _Canvas, lungs: np.ndarray, rng: np.random.Generator) -> None:
    """Everything but vessels, ribs and nodules."""
    x, y, z = canvas.mesh()
    body = _ellipse_depth(x, y, (0, 2), (166, 116), 2.3)
    for depth, hu in ((0, 20.0), (2, FAT), (15, MUSCLE)):
        canvas.blend(_soft(body - depth), hu)
    mediastinum = _ellipse_depth(x, y, (4, -22), (34, 46))
    canvas.blend(_soft(mediastinum, 4.0) * 0.7, FAT)
    heart = 1 - np.sqrt(((x - 28) / 55) ** 2 + ((y + 36) / 43) ** 2 + ((z - canvas.axes[2][0] - 22) / 59) ** 2)
    canvas.blend(_soft(heart * 43, 1.5), BLOOD)
    canvas.blend(_soft(12 - np.hypot(x - 24, y - 44) + 0 * z), BLOOD)
    for center, radius in (((-12, -18), 10.0), ((10, -28), 13.0)):  # superior vena cava, ascending aorta
        canvas.blend(_soft(radius - np.hypot(x - center[0], y - center[1])) * _soft(z - 60), BLOOD)
    vertebra = _ellipse_depth(x, y, (0, 66), (19, 15), 2.4) + 0 * z
    canvas.blend(_soft(vertebra), CORTEX)
    canvas.blend(_soft(vertebra - 1.6), MARROW)
    arch = np.minimum(13 - np.hypot(x, y - 92), np.hypot(x, (y - 88) * 1.1) - 8) + 0 * z
    canvas.blend(_soft(arch), CORTEX * 0.7)
    process = np.minimum(3.5 - np.abs(x), 9 - np.abs(y - 106)) + 0 * z
    canvas.blend(_soft(process), MARROW * 1.5)
    # Lungs: darker in front, with the mild unevenness of perfused lung.
    texture = _enlarged(rng.normal(0, 1, [max(n // 6, 2) for n in lungs.shape]), lungs.shape)
    canvas.blend(_soft(lungs, 1.2), LUNG + 0.35 * y + 16 * texture)
    trachea = 8.0 - np.hypot(x, (y - 14) * 0.9)
    canvas.blend(_soft(trachea + 1.4) * _soft(z - 74, 3), MUSCLE)
    canvas.blend(_soft(trachea) * _soft(z - 74, 3), AIR)


def _paint_ribs(canvas: _Canvas) -> None:
    """Eleven ribs a side as bent tubes that fall towards the front; cortex around marrow."""
    for number in range(-1, 10):
        for side in (-1, 1):
            angle = np.linspace(0.12, 2.5, 90)
            x = side * 139 * np.abs(np.sin(angle)) ** 0.75
            y = 6 + 96 * np.cos(angle)
            z = canvas.axes[2][0] + 22 * number + 30 - 17 * angle
            points = np.stack([x, y, z], 1)
            for radius, hu in ((5.2, CORTEX), (3.4, MARROW)):
                _paint_tube(canvas, points, np.full(len(points), radius), hu)


def _paint_tube(canvas: _Canvas, points: Any, radii: Any, hu: float) -> None:
    """Balls strung along a line."""
    for point, radius in zip(points, radii, strict=True):
        box = canvas.box(point, radius + 1.5)
        if box is None:
            continue
        x, y, z = canvas.mesh(box)
        distance = np.sqrt((x - point[0]) ** 2 + (y - point[1]) ** 2 + (z - point[2]) ** 2)
        share = _soft(radius - distance)
        canvas.blend(share * (canvas.hu[box] < hu), hu, box) if hu > 0 else canvas.blend(share, hu, box)


def _vessel_tree(
    rng: np.random.Generator,
    start: Sequence[float],
    direction: np.ndarray,
    radius: float,
    inside: Callable[[np.ndarray], float],
    out: list[Branch],
) -> None:
    """Grow one tree: (points, radii) of every branch, bending, tapering and forking until it is fine or leaves."""
    todo = [(np.array(start, float), np.array(direction, float), radius)]
    while todo:
        point, heading, radius = todo.pop()
        length = radius * rng.uniform(5, 9) + 3
        step = 0.9 * radius
        points, radii = [], []
        for done in np.arange(0, length, step):
            heading = heading + rng.normal(0, 0.07, 3)
            heading /= np.linalg.norm(heading)
            point = point + step * heading
            if radius < 2.5 and inside(point) < 1.5:
                break
            points.append(point)
            radii.append(radius * (1 - 0.15 * done / length))
        if points:
            out.append((points, radii))
        if radius < 0.7 or len(points) < 2 or inside(point) < 1.5 - 100 * (radius >= 2.5):
            continue
        side = np.cross(heading, rng.normal(0, 1, 3))
        side /= np.linalg.norm(side)
        share = rng.uniform(0.55, 0.8)
        todo.append((point, heading + rng.uniform(0.2, 0.5) * side, radius * 0.86))
        todo.append((point, heading - rng.uniform(0.5, 1.0) * side, radius * share))


def _paint_vessels(canvas: _Canvas, lungs: np.ndarray, rng: np.random.Generator) -> None:
    def inside(point: np.ndarray) -> float:
        index = np.round((point - canvas.origin) / canvas.spacing).astype(int)
        if (index < 0).any() or (index >= canvas.size).any():
            return -100.0
        return lungs[tuple(index[::-1])]

    branches: list[Branch] = []
    middle = canvas.axes[2][0] + 62
    for side in (-1, 1):
        for rise in np.linspace(-1.4, 1.4, 10):  # up to the apex and down to the base
            start = (side * rng.uniform(24, 32), rng.uniform(-8, 24), middle + rng.uniform(-12, 12))
            heading = np.array([side * 1.0, rng.normal(0, 0.9), rise])
            _vessel_tree(rng, start, heading / np.linalg.norm(heading), rng.uniform(2.4, 4.6), inside, branches)
    for points, radii in branches:
        _paint_tube(canvas, points, radii, BLOOD)
    for side in (-1, 1):  # main bronchi: air within a wall
        line = np.linspace((0, 14, middle + 16), (side * 36, 12, middle - 4), 60)
        _paint_tube(canvas, line, np.full(60, 7.0), MUSCLE)
        _paint_tube(canvas, line, np.full(60, 5.6), AIR)


def _paint_nodule(
    canvas: _Canvas, box: tuple[slice, ...], outlines: dict[str, Any], center: Point, core_hu: float, rim_hu: float
) -> np.ndarray:
    """A nodule in a box, whose density follows the readers' agreement; returns its readers' masks."""
    x, y, z = canvas.mesh(box)
    shape = canvas.hu[box].shape
    points = np.stack([np.broadcast_to(a - c, shape) for a, c in ((z, center[2]), (y, center[1]), (x, center[0]))], -1)

    depth = reader_distances(outlines, points)
    agreement = _soft(depth, 1.2).mean(0)
    # From lung through the rim's density, where half agree, to the core's, where all do.
    lung = canvas.hu[box].copy()
    rim = np.minimum(agreement * 2, 1)
    core = (agreement * 2 - 1).clip(0, 1) ** 1.5
    density = rim_hu + core * (core_hu - rim_hu)
    canvas.hu[box] = np.where(lung < density, lung + rim * (density - lung), lung)
    return depth > 0


def chest_phantom(
    seed: int = 0, size: tuple[int, int, int] = (400, 290, 92), spacing: Point = (0.85, 0.85, 1.4)
) -> tuple[sitk.Image, list[PhantomNodule]]:
    """(CT as SimpleITK int16 HU image, list of `PhantomNodule`); the same for the same seed.

    `size` and `spacing` are (x, y, z); the chest is about 330 x 235 mm, so a smaller image shows a part of it.
    """
    rng = np.random.default_rng(seed)
    origin = (-spacing[0] * (size[0] - 1) / 2, -spacing[1] * (size[1] - 1) / 2, 0.0)
    canvas = _Canvas(size, spacing, origin)
    lungs = _lung_depth(canvas)
    _paint_body(canvas, lungs, rng)
    _paint_ribs(canvas)
    _paint_vessels(canvas, lungs, rng)

    outlines = sample_outlines()
    painted = []
    for kind, name, center, core, rim in _PLACES:
        box = canvas.box(center, 18.0)
        if box is not None:  # a smaller image may end before the nodule
            painted.append((name, center, _paint_nodule(canvas, box, outlines[kind], center, core, rim), box))
    sigma = [RESOLUTION_MM / 2.355 / s for s in (spacing[1], spacing[0])]
    hu = ndimage.gaussian_filter(canvas.hu, [0.4, *sigma])
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), [0.3, 0.65, 0.65])
    hu += noise * (NOISE_HU / noise.std())
    ct = sitk.GetImageFromArray(np.rint(hu).clip(-1024, 3071).astype(np.int16))
    ct.SetSpacing(spacing)
    ct.SetOrigin(origin)
    nodules = []
    for name, center, masks, box in painted:
        readers = []
        for mask in masks:
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            image.SetSpacing(spacing)
            image.SetOrigin([origin[a] + spacing[a] * box[2 - a].start for a in range(3)])
            readers.append(image)
        nodules.append(PhantomNodule(name, center, readers))
    return ct, nodules
