"""Thresholds of a model, chosen on nodules of training patients that its weights weren't fitted to.

`final` maximises the mean Dice against the >= 50 % consensus. The pair (`intersection`, `union`) maximises the Dice of
HC and of the union, as far as a reader's volume lies inside [V(HC), V(union)] often enough and the interval isn't wider
than wanted: Dice alone says nothing about how often the interval holds.
"""

from dataclasses import dataclass

import numpy as np

from .evaluation import center_point, compare, nodule_image, place, summarize
from .folder_dataset import Nodule
from .metrics import dice

GRID = np.round(np.arange(0.10, 0.91, 0.02), 2)
START = {"union": 0.5, "intersection": 0.5, "final": 0.5}


@dataclass
class Case:
    """One nodule's probability maps on a part of its cube, with what is needed to cut them again."""

    nodule: Nodule
    region: object
    maps: dict
    selected: np.ndarray


def probability_cases(model, nodules: list[Nodule], averaging=None, progress: bool = True) -> list[Case]:
    """Averaged probability maps of every nodule in which the model finds something at its centroid."""
    from tqdm import tqdm

    from LungNoduleUncertaintyLib import NoduleError
    from LungNoduleUncertaintyLib.prediction import Averaging
    from LungNoduleUncertaintyLib.segmentation import probability_maps

    averaging = averaging or Averaging.from_metadata(model.metadata.get("averaging", {}))
    cases = []
    for nodule in tqdm(nodules, desc="probability maps", disable=not progress, leave=False):
        try:
            found = probability_maps(nodule_image(nodule), center_point(nodule), model, START, averaging)
        except NoduleError:
            continue
        cases.append(Case(nodule, found.region, found.maps, found.selected))
    return cases


def cut(case: Case, thresholds: dict):
    """HC, LC and final (z, y, x) on the whole cube at other thresholds."""
    from LungNoduleUncertaintyLib.segmentation import nested_masks

    spacing = tuple(case.nodule.spacing)
    return [place(m, case.region, case.nodule) for m in nested_masks(case.maps, case.selected, thresholds, [], spacing)]


def calibrate(cases: list[Case], coverage: float = 0.88, width: float = 1.15) -> tuple[dict, dict]:
    """(thresholds, figures at them). Sweeps each threshold; the figures are of the calibration nodules themselves.

    Raises `NoduleError` without cases: a model that finds none of its nodules can't be calibrated.
    """
    from LungNoduleUncertaintyLib.errors import NoduleError

    if not cases:
        raise NoduleError("calibration: the model finds none of the validation nodules; train it longer")

    def final_dice(t):
        return np.mean([dice(cut(c, {**START, "final": t})[2], c.nodule.consensus) for c in cases])

    final = max(GRID, key=final_dice)
    # Once final is fixed, HC depends on `intersection` alone and the union on `union` alone: sweep each, then pair.
    low, high = {}, {}
    for t in GRID:
        cuts = [cut(c, {"final": final, "intersection": t, "union": t}) for c in cases]
        low[t] = [(dice(h, c.nodule.readers.all(0)), h.sum()) for c, (h, _, _) in zip(cases, cuts, strict=True)]
        high[t] = [
            (dice(h | lc, c.nodule.readers.any(0)), (h | lc).sum()) for c, (h, lc, _) in zip(cases, cuts, strict=True)
        ]
    volumes = [c.nodule.readers.sum((1, 2, 3)) for c in cases]
    own = np.array([c.nodule.readers.any(0).sum() - c.nodule.readers.all(0).sum() for c in cases])

    def merit(pair):
        a, b = low[pair[0]], high[pair[1]]
        inside = [(lo[1] <= v) & (v <= hi[1]) for lo, hi, v in zip(a, b, volumes, strict=True)]
        covered = np.mean(np.concatenate(inside))
        ratio = np.median((np.array([x[1] for x in b]) - np.array([x[1] for x in a])) / np.maximum(own, 1))
        quality = np.mean([x[0] for x in a]) + np.mean([x[0] for x in b])
        return quality - 5 * max(coverage - covered, 0) - 5 * max(ratio - width, 0)

    pair = max(((i, u) for i in GRID for u in GRID if u <= i + 0.2), key=merit)
    thresholds = {"union": float(pair[1]), "intersection": float(pair[0]), "final": float(final)}
    return thresholds, summarize([compare(c.nodule, *cut(c, thresholds)) for c in cases])
