"""Nodules that LIDC-IDRI has few of: Dice of Final where the outline is known because it was painted.

    python Testing/benchmarks/rare_nodules.py --model BUNDLE                         shells and balls in a block of lung
    python Testing/benchmarks/rare_nodules.py --model RUN --data FOLDER --fold 0     also copies of held-out nodules

The kinds: cavities (8 to 40 mm wide, walls of 2 to 5 mm, clicked in the wall and in the cavity), masses (40 to 80 mm,
clicked in the middle and near the edge), nodules on a straight vessel along the body, and the data's own cavitary
nodules (whose internal structure a reader rated as other than soft tissue). Copies of held-out nodules with a cavity
stand beside the same ones without (`solid copy`), because no outline of a cavitary nodule can be expected to be nearer
to its readers' than that of the solid one. A line a nodule with --verbose; --csv keeps all of them. About four minutes
on one core.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from tqdm import tqdm

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.models.bundle import Model
from Training.data.folder import load_folder
from Training.data.nodule import Nodule
from Training.evaluation.evaluate import load_models
from Training.evaluation.nodules import nodule_image
from Training.sampling.painting import is_fit, magnified, paint_cavity, paint_vessel

SPACING = np.array([1.25, 0.7, 0.7])  # (z, y, x), mm
DIAMETERS_MM, WALLS_MM, MASSES_MM = (8, 12, 16, 20, 25, 30, 35, 40), (2, 3, 4, 5), (40, 50, 60, 70, 80)


@dataclass
class Case:
    """A CT, the nodule's true mask on its grid, and where it is clicked (LPS, mm)."""

    kind: str
    name: str
    ct: sitk.Image
    truth: np.ndarray
    points: dict[str, tuple[float, ...]]


def block(size_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A block of lung around the origin: (HU, distance of each voxel from the middle in mm (z, y, x, 3))."""
    counts = np.ceil(size_mm / SPACING).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, SPACING, strict=True)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return np.full(counts, -860.0), place


def with_grain(hu: np.ndarray, seed: int) -> np.ndarray:
    """HU blurred as a scanner does, with its noise."""
    grain = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(hu.shape), [0.3, 0.65, 0.65])
    return ndimage.gaussian_filter(hu, [0.3, 0.6, 0.6]) + 25 * grain / grain.std()


def image_of(hu: np.ndarray) -> sitk.Image:
    """The block as a CT whose middle lies at (0, 0, 0)."""
    image = sitk.GetImageFromArray(np.clip(np.rint(hu), -1024, 3000).astype(np.int16))
    image.SetSpacing(SPACING[::-1].tolist())
    image.SetOrigin((-(np.array(hu.shape[::-1]) - 1) / 2 * SPACING[::-1]).tolist())
    return image


def shells() -> Iterator[Case]:
    """Cavities that are balls in a ball."""
    for number, (diameter, wall) in enumerate(itertools.product(DIAMETERS_MM, WALLS_MM)):
        inner = diameter / 2 - wall
        if inner < 1.5:
            continue
        hu, place = block(max(diameter + 60, 90))
        away = np.linalg.norm(place, axis=-1)
        rng = np.random.default_rng(number)
        toward = rng.normal(size=3)
        off = toward / np.linalg.norm(toward) * min(wall - 1.0, 0.3 * inner)
        hu[away <= diameter / 2] = 35
        hu[np.linalg.norm(place - off, axis=-1) <= inner] = -960
        in_wall = -toward / np.linalg.norm(toward) * (diameter / 2 - wall / 2)
        points: dict[str, tuple[float, ...]] = {"wall": tuple(in_wall[::-1]), "cavity": tuple(off[::-1])}
        name = f"{diameter} mm, wall {wall} mm"
        yield Case("cavity", name, image_of(with_grain(hu, number)), away <= diameter / 2, points)


def balls() -> Iterator[Case]:
    """Masses: balls, alone and against a chest wall."""
    for number, (diameter, at_wall) in enumerate(itertools.product(MASSES_MM, (False, True))):
        hu, place = block(diameter + 70)
        away = np.linalg.norm(place, axis=-1)
        if at_wall:
            hu[place[..., 1] > 0.4 * diameter] = 20
        hu[away <= diameter / 2] = 35
        points: dict[str, tuple[float, ...]] = {
            "middle": (0.0, 0.0, 0.0),
            "edge": (-0.35 * diameter, 0.0, 0.1 * diameter),
        }
        truth = (away <= diameter / 2) & (place[..., 1] <= 0.4 * diameter if at_wall else True)
        name = f"{diameter} mm{' at the chest wall' if at_wall else ''}"
        yield Case("mass", name, image_of(with_grain(hu, number)), truth, points)


def on_vessels() -> Iterator[Case]:
    """Balls on a straight vessel along the body."""
    for number, (diameter, vessel) in enumerate(itertools.product((8, 12, 16), (3, 5))):
        hu, place = block(90)
        away = np.linalg.norm(place, axis=-1)
        hu[np.hypot(place[..., 1], place[..., 2]) <= vessel / 2] = 40
        hu[away <= diameter / 2] = 35
        name = f"{diameter} mm on a vessel of {vessel} mm"
        yield Case("vessel", name, image_of(with_grain(hu, number)), away <= diameter / 2, {"middle": (0.0, 0.0, 0.0)})


def copies(nodules: list[Nodule], count: int = 40) -> Iterator[Case]:
    """Nodules of four readers: scaled; the same with a cavity; others with a vessel."""
    fit = [n for n in nodules if len(n.readers) == 4 and is_fit(n, "cavity") and n.consensus.sum() > 200]
    rng = np.random.default_rng(0)
    for index in rng.permutation(len(fit))[:count]:
        own = float((6 / np.pi * fit[index].consensus.sum() * np.prod(fit[index].spacing)) ** (1 / 3))
        wall_mm, diameter_mm = rng.uniform(2, 5), float(rng.uniform(8, min(40, 2.5 * own)))
        solid = magnified(fit[index], rng, diameter_mm)
        middle = _point(Grid.of(nodule_image(solid)), np.argwhere(solid.consensus), solid)
        yield Case("solid copy", solid.nodule_id, nodule_image(solid), solid.consensus, {"middle": middle})
        nodule = paint_cavity(solid, rng, wall_mm)
        inside = np.argwhere(nodule.consensus)
        hu = nodule.hu[tuple(inside.T)]
        grid = Grid.of(nodule_image(nodule))
        parts = {"wall": inside[hu > -300], "cavity": inside[hu < -700]}
        points = {where: _point(grid, voxels, nodule) for where, voxels in parts.items() if len(voxels)}
        yield Case("cavity copy", nodule.nodule_id, nodule_image(nodule), nodule.consensus, points)
    small = [n for n in nodules if len(n.readers) == 4 and is_fit(n, "vessel")]
    for index in rng.permutation(len(small))[:count]:
        nodule = paint_vessel(small[index], rng)
        point = tuple(Grid.of(nodule_image(nodule)).indices_to_points([nodule.center()[::-1]])[0])
        yield Case("vessel copy", nodule.nodule_id, nodule_image(nodule), nodule.consensus, {"middle": point})


def own_cavities(nodules: list[Nodule]) -> Iterator[Case]:
    """The data's own cavitary nodules, clicked at the consensus centroid."""
    for nodule in nodules:
        if float(nodule.row.get("internal_structure") or 1) > 1:
            point = tuple(Grid.of(nodule_image(nodule)).indices_to_points([nodule.center()[::-1]])[0])
            yield Case("own cavity", nodule.nodule_id, nodule_image(nodule), nodule.consensus, {"middle": point})


def _point(grid: Grid, voxels: np.ndarray, nodule: Nodule) -> tuple[float, ...]:
    """The voxel of these that lies nearest to the nodule's middle, in LPS mm."""
    nearest = voxels[np.linalg.norm((voxels - nodule.center()) * nodule.spacing, axis=1).argmin()]
    return tuple(grid.indices_to_points([nearest[::-1]])[0])


def measure(case: Case, model: Model) -> Iterator[dict[str, object]]:
    """A row for each click."""
    truth = Grid.of(case.ct).image(case.truth.astype(np.uint8))
    for where, point in case.points.items():
        row: dict[str, object] = {"kind": case.kind, "name": case.name, "click": where}
        try:
            result = segment_nodule(case.ct, point, model=model)
        except NoduleError as error:
            yield row | {"dice": 0.0, "union": 0.0, "hc": 0.0, "warnings": f"{type(error).__name__}: {error}"}
            continue
        identity = sitk.Transform(3, sitk.sitkIdentity)
        final = sitk.Resample(result.final, truth, identity, sitk.sitkNearestNeighbor, 0)
        found = sitk.GetArrayFromImage(final) > 0
        dice = 2 * (found & case.truth).sum() / (found.sum() + case.truth.sum())
        volumes = result.measurements["volumes_mm3"]
        real = case.truth.sum() * np.prod(case.ct.GetSpacing())
        parts = {"union": volumes["union"] / real, "hc": volumes["hc"] / real}
        yield row | {"dice": float(dice), **parts, "warnings": "; ".join(result.warnings)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ugsnet-compact", help="a bundle, or a run folder (ugsnet-compact)")
    parser.add_argument("--data", type=Path, help="data folder (see prepare-lidc)")
    parser.add_argument("--fold", type=int, help="copies of the nodules of this fold, which the model never saw")
    parser.add_argument("--csv", type=Path, help="a row for each click")
    parser.add_argument("--verbose", action="store_true", help="print every row")
    args = parser.parse_args()
    model, _ = load_models([args.model])
    cases = [shells(), balls(), on_vessels()]
    if args.data:
        nodules = [n for n in load_folder(args.data, progress=False) if args.fold is None or n.fold == args.fold]
        cases += [copies(nodules), own_cavities(nodules)]
    rows: list[dict[str, object]] = []
    for case in tqdm(itertools.chain(*cases), disable=None, leave=False):
        for row in measure(case, model):
            rows.append(row)
            if args.verbose:
                print(" | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print("kind          click   clicks  mean   lowest  below 0.6")
    for kind, where in dict.fromkeys((r["kind"], r["click"]) for r in rows):
        dice = np.array([r["dice"] for r in rows if (r["kind"], r["click"]) == (kind, where)], float)
        print(f"{kind:<13} {where:<7} {len(dice):>6}  {dice.mean():.3f}  {dice.min():.3f}   {(dice < 0.6).sum()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
