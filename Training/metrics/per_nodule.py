"""Every metric of one nodule on one slice: a row of a table, for a model's maps and for the readers themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .catalog import Pair, Prediction, of
from .checks import MetricError, mask_set
from .one_reader import consensus, leave_one_out

MAPS = ("intersection", "final", "union")
THRESHOLD = 0.5


def _readers(readers: ArrayLike) -> np.ndarray:
    readers = mask_set(readers, "readers")
    if readers.ndim != 3:
        raise MetricError(f"readers: shape {readers.shape}; (readers, rows, columns) is wanted")
    return readers


def _checked_maps(maps: Mapping[str, ArrayLike], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    if "final" not in maps:
        raise MetricError("maps: `final` is missing")
    if ("union" in maps) != ("intersection" in maps):
        raise MetricError("maps: `union` and `intersection` come together or not at all")
    # More than float32 rounding outside of [0, 1] is for the metrics to refuse.
    checked = {}
    for name in MAPS:
        if name in maps:
            values = np.asarray(maps[name], np.float64)
            if values.shape != shape:
                raise MetricError(f"map {name}: shape {values.shape}; the readers' masks are {shape}")
            if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
                raise MetricError(f"map {name}: values outside [0, 1] or not finite")
            checked[name] = values.clip(0, 1)
    return checked


def score_nodule(
    readers: ArrayLike,
    maps: Mapping[str, ArrayLike],
    thresholds: Mapping[str, float] | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0),
) -> dict[str, float]:
    """Every metric of `catalog.METRICS` of a model's probability maps on one nodule's slice, as a row {column: value}.

    readers (R, H, W) masks, the first one Label_1; maps {`final`[, `union`, `intersection`]: (H, W) in [0, 1]};
    thresholds by map, 0.5 where none is given (a pixel is in where map >= threshold); spacing_mm (rows, columns).

    Metrics of a pair of masks are of the thresholded final map and end in `_label1` (against the first reader) or
    `_consensus` (against what at least half of the readers include); those of IFE are in pixels, and those that end in
    `_released` before that are as the paper's code has them, with its own threshold; see `dichotomous.score_image`.
    Metrics of several readers: of the thresholded maps (three, or final alone) or of the final map, see `readers`.
    `hc_dice`, `union_dice`, `coverage`, `width_ratio` are there with union and intersection only; the latter two are of
    the nested masks that a user sees (HC = intersection and final, union = union or final), `width_ratio` is NaN where
    the readers agree exactly. What isn't finite in a metric isn't here. Raises MetricError naming what doesn't fit.
    """
    readers = _readers(readers)
    maps = _checked_maps(maps, readers.shape[1:])
    chosen = {name: (thresholds or {}).get(name, THRESHOLD) for name in maps}
    masks = {name: values >= chosen[name] for name, values in maps.items()}
    spacing = spacing_mm[0], spacing_mm[1]
    row: dict[str, float | None] = {}
    for truth, reference in (("label1", readers[0]), ("consensus", consensus(readers))):
        pair = Pair(masks["final"], reference, maps["final"], chosen["final"], spacing, released=True)
        row |= _of_pair(pair, truth)
    prediction = Prediction(readers, maps, masks)
    row |= {metric.name: metric.function(prediction) for metric in of("prediction")}
    return {name: float(value) for name, value in row.items() if value is not None}


def _of_pair(pair: Pair, truth: str, one_reader: bool = False) -> dict[str, float]:
    return {
        f"{metric.name}_{truth}": metric.function(pair)
        for metric in of("pair")
        if truth in metric.truths and (metric.one_reader or not one_reader)
    }


def score_human(readers: ArrayLike, spacing_mm: Sequence[float] = (1.0, 1.0)) -> dict[str, float]:
    """The same columns for one reader against the others (R, H, W), R >= 2, where a fair equivalent exists.

    `..._label1`: mean over the later readers of the metric against the first one. `..._consensus`: mean over all
    readers of the metric against what at least half of the others include (of the IFE paper's without those of its
    code). `soft_dice_mean`, `brier`: one reader's mask taken as a map against the mean of the others. `coverage`, for
    three and more readers: how often a reader's area lies between the area that all others and the area that any other
    includes. Not there, because no equivalent is fair: `ged`, `dmax` and `hm_iou` (one reader is one sample, and fewer
    readers remain to compare with), `hc_dice`, `union_dice`, `width_ratio` (a reader draws one outline) and `ece` (a
    reader states no probability).
    """
    readers, spacing = _readers(readers), (spacing_mm[0], spacing_mm[1])
    against = {
        "label1": [(reader, readers[0]) for reader in readers[1:]],
        "consensus": [(one, consensus(others)) for one, others in leave_one_out(readers)],
    }
    row: dict[str, float] = {}
    for truth, pairs in against.items():
        rows = [
            _of_pair(Pair(one, other, one, THRESHOLD, spacing, released=False), truth, one_reader=True)
            for one, other in pairs
        ]
        row |= {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    for metric in of("prediction"):
        value = metric.one_reader(readers) if callable(metric.one_reader) else None
        if value is not None:
            row[metric.name] = value
    return row
