"""Every metric of one nodule on one slice: a row of a table, for a model's maps and for the readers themselves."""

import numpy as np

from .checks import MetricError, mask_set
from .dichotomous import score_image
from .human import consensus, leave_one_out, one_against_others
from .overlap import dice, iou, positive_predictive_value, sensitivity, soft_dice
from .readers import (
    brier_score,
    dmax,
    expected_calibration_error,
    generalized_energy_distance,
    hungarian_iou,
    interval_coverage,
)
from .surface import normalized_surface_dice

MAPS = ("intersection", "final", "union")
THRESHOLD = 0.5


def _mask_metrics(spacing_mm):
    """The metrics of two masks by the prefix of their columns."""
    return {
        "dsc": dice,
        "iou": iou,
        "nsd1px": lambda a, b: normalized_surface_dice(a, b, 1),
        "nsd1mm": lambda a, b: normalized_surface_dice(a, b, 1.0, spacing_mm),
    }


def _dichotomous(probability, reference, suffix: str, threshold=THRESHOLD, released=True) -> dict[str, float]:
    """`score_image` in pixels as columns; Dice and IoU have theirs."""
    measured = score_image(probability, reference, threshold=threshold, released=released)
    measured["missed"] = float(not measured["dsc"])
    return {f"{name}_{suffix}": value for name, value in measured.items() if name not in ("dsc", "jc")}


def _readers(readers) -> np.ndarray:
    readers = mask_set(readers, "readers")
    if readers.ndim != 3:
        raise MetricError(f"readers: shape {readers.shape}; (readers, rows, columns) is wanted")
    return readers


def _checked_maps(maps: dict, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
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


def score_nodule(readers, maps: dict, thresholds: dict | None = None, spacing_mm=(1.0, 1.0)) -> dict[str, float]:
    """Metrics of a model's probability maps on the slice of one nodule, as one row: {column: value}.

    readers (R, H, W) masks, the first one Label_1; maps {`final`[, `union`, `intersection`]: (H, W) in [0, 1]};
    thresholds by map, 0.5 where none is given (a pixel is in where map >= threshold); spacing_mm (rows, columns).

    `dsc_`, `iou_`, `nsd1px_`, `nsd1mm_` (NSD at 1 pixel and at 1 mm) + `label1` or `consensus`: thresholded final
    against the first reader, and against what at least half of the readers include; `sen_consensus`, `ppv_consensus`:
    sensitivity and positive predictive value against the latter.
    `con_`, `f_`, `hce_`, `hce64_`, `mae_`, `hd_`, `assd_`, `rvd_` + `label1` or `consensus`: the IFE paper's measures
    of the thresholded final, in pixels (`mae_`: of the map); `missed_`: 1 where masks share no pixel. These, `dsc_` and
    `jc_` + `released_` + either: as the paper's code has them, with its own cut. See `dichotomous.score_image`; what
    isn't finite there isn't here.
    `ged`, `dmax`, `hm_iou`: of the thresholded maps (three, or final alone) against the readers, see `readers`.
    `soft_dice_mean`, `ece`, `brier`: the final map against the mean of the readers; ece over all pixels of the slice.
    With union and intersection also `hc_dice` (intersection map against what all readers include), `union_dice` (union
    map against what any includes), and of the nested masks (HC = intersection and final, union = union or final, the
    areas a user sees): `coverage`, share of the readers' areas within [HC area, union area], and `width_ratio`, width
    of that interval over the readers' own [area of all, area of any] (NaN where they agree exactly).
    Raises MetricError naming what doesn't fit.
    """
    readers = _readers(readers)
    maps = _checked_maps(maps, readers.shape[1:])
    cuts = {name: (thresholds or {}).get(name, THRESHOLD) for name in maps}
    masks = {name: values >= cuts[name] for name, values in maps.items()}
    row = {}
    for suffix, reference in (("label1", readers[0]), ("consensus", consensus(readers))):
        for name, metric in _mask_metrics(spacing_mm).items():
            row[f"{name}_{suffix}"] = metric(masks["final"], reference)
        row |= _dichotomous(maps["final"], reference, suffix, cuts["final"])
    row["sen_consensus"] = sensitivity(masks["final"], consensus(readers))
    row["ppv_consensus"] = positive_predictive_value(masks["final"], consensus(readers))
    samples = np.stack(list(masks.values()))
    row["ged"] = generalized_energy_distance(samples, readers)
    row["dmax"] = dmax(samples, readers)
    row["hm_iou"] = hungarian_iou(samples, readers)
    mean = readers.mean(0)
    row["soft_dice_mean"] = soft_dice(maps["final"], mean)
    row["ece"] = expected_calibration_error(maps["final"], mean)
    row["brier"] = brier_score(maps["final"], mean)
    if "union" in masks:
        row["hc_dice"] = dice(masks["intersection"], readers.all(0))
        row["union_dice"] = dice(masks["union"], readers.any(0))
        low = np.count_nonzero(masks["intersection"] & masks["final"])
        high = np.count_nonzero(masks["union"] | masks["final"])
        row["coverage"] = interval_coverage(readers.sum((1, 2)), low, high)
        own = np.count_nonzero(readers.any(0)) - np.count_nonzero(readers.all(0))
        row["width_ratio"] = (high - low) / own if own else float("nan")
    return {name: float(value) for name, value in row.items()}


def score_human(readers, spacing_mm=(1.0, 1.0)) -> dict[str, float]:
    """The same columns for one reader against the others (R, H, W), R >= 2, where a fair equivalent exists.

    `..._label1`: mean over the later readers of the metric against the first one. `..._consensus`: mean over all
    readers of the metric against what at least half of the others include (of the IFE paper's without those of its
    code). `soft_dice_mean`, `brier`: one reader's mask taken as a map against the mean of the others. `coverage`, for
    three and more readers: how often a reader's area lies between the area that all others and the area that any other
    includes. Not there, because no equivalent is fair: `ged`, `dmax` and `hm_iou` (one reader is one sample, and fewer
    readers remain to compare with), `hc_dice`, `union_dice`, `width_ratio` (a reader draws one outline) and `ece` (a
    reader states no probability).
    """
    readers = _readers(readers)
    row = {}
    for suffix, mode in (("label1", "first"), ("consensus", "consensus")):
        for name, metric in _mask_metrics(spacing_mm).items():
            row[f"{name}_{suffix}"] = one_against_others(readers, metric, mode)
    against = {
        "label1": [(reader, readers[0]) for reader in readers[1:]],
        "consensus": [(one, consensus(others)) for one, others in leave_one_out(readers)],
    }
    for suffix, pairs in against.items():
        rows = [_dichotomous(one, other, suffix, released=False) for one, other in pairs]
        row |= {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    row["sen_consensus"] = one_against_others(readers, sensitivity, "consensus")
    row["ppv_consensus"] = one_against_others(readers, positive_predictive_value, "consensus")
    pairs = list(leave_one_out(readers))
    row["soft_dice_mean"] = float(np.mean([soft_dice(one, others.mean(0)) for one, others in pairs]))
    row["brier"] = float(np.mean([brier_score(one, others.mean(0)) for one, others in pairs]))
    if len(readers) > 2:
        intervals = [
            (one.sum(), np.count_nonzero(others.all(0)), np.count_nonzero(others.any(0))) for one, others in pairs
        ]
        row["coverage"] = float(np.mean([interval_coverage(*interval) for interval in intervals]))
    return row
