"""Every metric of a slice as one record: its function, the columns it fills, and how the report shows it.

`METRICS` is the only list: the rows of ``scores.csv`` and ``human.csv`` (`per_nodule`), the figures of a whole fold
(`Training.experiments.jobs`), and the columns, paired tests and explanations of the report (`Training.report.measures`)
follow from it. A new metric is a function and a record here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .dichotomous import score_image
from .one_reader import leave_one_out
from .overlap import dice, iou, positive_predictive_value, sensitivity, soft_dice
from .readers import (
    brier_score,
    dmax,
    expected_calibration_error,
    generalized_energy_distance,
    hungarian_iou,
    interval_coverage,
)
from .surface import normalized_surface_dice, nsd_released

__all__ = ["METRICS", "TABLES", "TRUTHS", "Fold", "Metric", "Pair", "Place", "Prediction", "of"]

#: What a mask is compared with: end of the column's name -> words.
TRUTHS = {"label1": "the first reader", "consensus": "the readers' consensus"}
#: Tables of the report that a metric can have a place in: those of UGS-Net's papers, of DSNet's, of IFE's (measured as
#: defined, and as its released code does), and the one of what several readers allow to be asked.
TABLES = ("ugsnet", "dsnet", "ife", "ife_released", "readers")
#: Images of a batch of the released code of UGS-Net, whose surface Dice is one number a batch.
RELEASED_BATCH = 8

#: A figure of one reader against the others, of the readers' masks (R, rows, columns); None where it isn't defined.
OneReader = Callable[[np.ndarray], float | None]


@dataclass
class Pair:
    """A mask and a true mask (rows, columns) of one slice; the map (in [0, 1]) that the mask is of; mm of a pixel."""

    mask: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    threshold: float
    spacing_mm: tuple[float, float]
    released: bool

    @cached_property
    def image(self) -> dict[str, float]:
        """`score_image`, whose measures share their work; without the released code's forms for a reader's mask."""
        return score_image(self.probability, self.truth, threshold=self.threshold, released=self.released)


@dataclass
class Prediction:
    """A model's maps and masks {name: (rows, columns)} of one slice and the readers' masks (R, rows, columns)."""

    readers: np.ndarray
    maps: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]

    @cached_property
    def samples(self) -> np.ndarray:
        """All masks, (1 or 3, rows, columns)."""
        return np.stack(list(self.masks.values()))

    @cached_property
    def mean(self) -> np.ndarray:
        """Share of the readers who include a pixel."""
        return self.readers.mean(0)

    @cached_property
    def interval(self) -> tuple[int, int] | None:
        """Pixels of [HC, HC and LC] as a user sees them, nested in Final; None for a model without an interval."""
        if "union" not in self.masks:
            return None
        low = np.count_nonzero(self.masks["intersection"] & self.masks["final"])
        return int(low), int(np.count_nonzero(self.masks["union"] | self.masks["final"]))


@dataclass
class Fold:
    """A fold's final maps (N, rows, columns) in [0, 1], readers' masks (N, R, rows, columns), and which readers there
    are, (N, R) bool."""

    final: np.ndarray
    readers: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Place:
    """A metric's place in one of `TABLES`, by `order` from left to right.

    label, meaning: where they are other ones than the metric's own; truth: one of `TRUTHS` (empty: the experiment's
    choice); paper: key of the publication's number in an experiment's row; tested: in paired tests; ranked: the one
    that rows are compared by.
    """

    table: str
    order: int
    label: str = ""
    meaning: str = ""
    truth: str = ""
    paper: str = ""
    tested: bool = False
    ranked: bool = False


@dataclass(frozen=True)
class Metric:
    """One metric.

    name: column of ``scores.csv``, of a pair's metric followed by each of `truths`. function: of a `Pair`, a
    `Prediction` or a `Fold` (``of``) gives a number, or None where the metric isn't defined (no column then). unit: ""
    for a plain number, "%" for a share in [0, 1] that is shown in per cent, else the unit itself. direction: 1, larger
    is better; -1, smaller is better; 0, neither.
    one_reader: the same of one reader against the others: of a pair's metric True (each reader's mask in place of the
    model's), else a function of the readers' masks or None, where no fair equivalent exists. median: a fold's value is
    the median over its nodules, because a few extreme ones would rule the mean. source: publication.
    """

    name: str
    function: Callable[..., Any]
    label: str
    meaning: str
    of: str = "pair"
    unit: str = "%"
    direction: int = 1
    truths: tuple[str, ...] = tuple(TRUTHS)
    one_reader: OneReader | bool | None = None
    median: bool = False
    source: str = ""
    places: tuple[Place, ...] = ()


def of(kind: str) -> list[Metric]:
    """The metrics of a `pair`, a `prediction` or a `fold`, in their order."""
    return [metric for metric in METRICS if metric.of == kind]


def _image(name: str) -> Callable[[Pair], float]:
    """A measure of `score_image`."""
    return lambda pair: pair.image[name]


def _mean_over_readers(function: Callable[[np.ndarray, np.ndarray], float]) -> OneReader:
    """Mean of a function of (one reader's mask, share of the other readers who include a pixel)."""
    return lambda readers: float(np.mean([function(one, others.mean(0)) for one, others in leave_one_out(readers)]))


def _union_dice(prediction: Prediction) -> float | None:
    masks = prediction.masks
    return dice(masks["union"], prediction.readers.any(0)) if "union" in masks else None


def _hc_dice(prediction: Prediction) -> float | None:
    masks = prediction.masks
    return dice(masks["intersection"], prediction.readers.all(0)) if "intersection" in masks else None


def _coverage(prediction: Prediction) -> float | None:
    if prediction.interval is None:
        return None
    return interval_coverage(prediction.readers.sum((1, 2)), *prediction.interval)


def _coverage_of_readers(readers: np.ndarray) -> float | None:
    if len(readers) < 3:
        return None
    found = [
        interval_coverage(one.sum(), int(others.all(0).sum()), int(others.any(0).sum()))
        for one, others in leave_one_out(readers)
    ]
    return float(np.mean(found))


def _width_ratio(prediction: Prediction) -> float | None:
    if prediction.interval is None:
        return None
    low, high = prediction.interval
    readers = prediction.readers
    own = np.count_nonzero(readers.any(0)) - np.count_nonzero(readers.all(0))
    return (high - low) / own if own else float("nan")


def _nsd_released(fold: Fold) -> float:
    predicted, target = fold.final[:, None] >= 0.5, fold.readers[:, :1] > 0
    batches = [slice(begin, begin + RELEASED_BATCH) for begin in range(0, len(predicted), RELEASED_BATCH)]
    return float(np.mean([nsd_released(predicted[batch], target[batch]) for batch in batches]))


def _calibration_error(fold: Fold) -> float:
    weight = fold.valid[:, :, None, None] / fold.valid.sum(1)[:, None, None, None]
    return float(expected_calibration_error(fold.final, (fold.readers * weight).sum(1)))


_UGSNET = "UGS-Net, 2023"
_DSNET = "DSNet (both versions)"
_IFE = "IFE; see `dichotomous` for each measure's own source"
_GED = "Kohl et al., A probabilistic U-Net, NeurIPS 2018, equation 4"
_RELEASED = ", in the form of the released code, of the map stretched to [0, 1] before it is thresholded"
_LEFT_OUT = "; a nodule where it isn't finite is left out, see Missed"
_EFFORT = "human correction effort: clicks to correct the mask (vertices of wrong outlines and whole wrong regions)"


def _released(
    name: str,
    label: str,
    meaning: str,
    order: int,
    *,
    unit: str = "%",
    direction: int = 1,
    paper: str = "",
    tested: bool = False,
    ranked: bool = False,
) -> Metric:
    """A measure of IFE's as its released code has it; there is none of readers."""
    key, place = f"{name}_released", Place("ife_released", order, paper=paper, tested=tested, ranked=ranked)
    return Metric(key, _image(key), label, meaning, unit=unit, direction=direction, source=_IFE, places=(place,))


METRICS: tuple[Metric, ...] = (
    # -- a mask against a true mask
    Metric(
        "dsc",
        lambda pair: dice(pair.mask, pair.truth),
        "DSC",
        "Dice coefficient of the final mask and the first reader's",
        one_reader=True,
        source=_UGSNET,
        places=(
            Place("ugsnet", 0, truth="label1", paper="dsc", tested=True, ranked=True),
            Place(
                "dsnet",
                0,
                "DICE",
                "Dice of the final mask and what at least half of the readers include",
                truth="consensus",
                paper="dice",
                ranked=True,
            ),
            Place(
                "ife",
                1,
                meaning="Dice coefficient of the final mask and {truth}",
                paper="dsc",
                tested=True,
                ranked=True,
            ),
            Place(
                "readers",
                0,
                "DSC consensus",
                "Dice of the final mask and what at least half of the readers include",
                truth="consensus",
                tested=True,
            ),
        ),
    ),
    Metric(
        "iou",
        lambda pair: iou(pair.mask, pair.truth),
        "IoU",
        "intersection over union of the final mask and the first reader's",
        one_reader=True,
        source=_UGSNET,
        places=(
            Place("ugsnet", 1, truth="label1", paper="iou"),
            Place("ife", 2, "JC", "Jaccard coefficient, intersection over union", paper="jc"),
        ),
    ),
    Metric(
        "nsd1px",
        lambda pair: normalized_surface_dice(pair.mask, pair.truth, 1),
        "NSD 1 px",
        "normalized surface Dice of each image with a tolerance of one pixel, against the first reader",
        one_reader=True,
        source=_UGSNET,
        places=(Place("ugsnet", 2, truth="label1"),),
    ),
    Metric(
        "nsd1mm",
        lambda pair: normalized_surface_dice(pair.mask, pair.truth, 1.0, pair.spacing_mm),
        "NSD 1 mm",
        "normalized surface Dice of each image with a tolerance of one millimeter",
        one_reader=True,
        source=_UGSNET,
    ),
    Metric(
        "con",
        _image("con"),
        "Con",
        f"conformity (3 D − 2) / D of the Dice coefficient D, without lower bound{_LEFT_OUT}",
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 0, paper="con"),),
    ),
    Metric(
        "f",
        _image("f"),
        "F1",
        "F-measure that weighs precision higher (beta² = 0.3)",
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 3, paper="f1"),),
    ),
    Metric(
        "hce",
        _image("hce"),
        "HCE",
        f"{_EFFORT}, on the network's grid",
        unit="",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 4),),
    ),
    Metric(
        "hce64",
        _image("hce64"),
        "HCE 64",
        f"{_EFFORT}, on 64 x 64 pixels as in the paper",
        unit="",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 5, paper="hce", tested=True),),
    ),
    Metric(
        "hd",
        _image("hd"),
        "HD",
        f"largest distance of either outline to the other (Hausdorff) in pixels{_LEFT_OUT}",
        unit="px",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 7, paper="hd"),),
    ),
    Metric(
        "assd",
        _image("assd"),
        "ASSD",
        f"mean distance between the outlines in pixels{_LEFT_OUT}",
        unit="px",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 8, paper="assd", tested=True),),
    ),
    Metric(
        "rvd",
        _image("rvd"),
        "RVD",
        "difference of the areas over the true one, without sign",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 9, paper="rvd"),),
    ),
    Metric(
        "mae",
        _image("mae"),
        "MAE",
        "mean absolute error of the final probability map, over all pixels of the slice",
        direction=-1,
        one_reader=True,
        source=_IFE,
        places=(Place("ife", 6, paper="mae"),),
    ),
    _released(
        "con",
        "Con",
        f"conformity (3 D − 2) / D of the Dice coefficient D, without lower bound{_RELEASED}",
        0,
        paper="con",
    ),
    _released("dsc", "DSC", f"Dice coefficient{_RELEASED}", 1, paper="dsc", tested=True, ranked=True),
    _released("jc", "JC", f"Jaccard coefficient, intersection over union{_RELEASED}", 2, paper="jc"),
    _released("f", "F1", f"F-measure that weighs precision higher (beta² = 0.3){_RELEASED}", 3, paper="f1"),
    _released(
        "hce",
        "HCE 64",
        f"{_EFFORT}, on 64 x 64 pixels as in the paper, masks left gray",
        4,
        unit="",
        direction=-1,
        paper="hce",
        tested=True,
    ),
    _released(
        "mae",
        "MAE",
        "mean absolute error of the mask in unsigned bytes, where a missed pixel counts 1/255",
        5,
        direction=-1,
        paper="mae",
    ),
    _released(
        "hd",
        "HD",
        "largest distance of either outline to the other (Hausdorff) in pixels, 0 where a mask is empty",
        6,
        unit="px",
        direction=-1,
        paper="hd",
    ),
    _released(
        "assd",
        "ASSD",
        "mean distance between the outlines in pixels, mean of both directions, 0 where a mask is empty",
        7,
        unit="px",
        direction=-1,
        paper="assd",
        tested=True,
    ),
    _released(
        "rvd",
        "RVD",
        f"difference of the areas over the true one, without sign{_RELEASED}",
        8,
        direction=-1,
        paper="rvd",
    ),
    Metric(
        "missed",
        lambda pair: float(not pair.image["dsc"]),
        "Missed",
        "share of nodules that share no pixel with the final mask (Con, HD)",
        direction=-1,
        one_reader=True,
        places=(Place("ife", 10),),
    ),
    Metric(
        "sen",
        lambda pair: sensitivity(pair.mask, pair.truth),
        "SEN",
        "sensitivity: share of that consensus that the final mask holds",
        truths=("consensus",),
        one_reader=True,
        source=_DSNET,
        places=(Place("dsnet", 1, truth="consensus", paper="sen"),),
    ),
    Metric(
        "ppv",
        lambda pair: positive_predictive_value(pair.mask, pair.truth),
        "PPV",
        "positive predictive value: share of the final mask that the consensus holds",
        truths=("consensus",),
        one_reader=True,
        source=_DSNET,
        places=(Place("dsnet", 2, truth="consensus", paper="ppv"),),
    ),
    # -- a model's maps and masks against all readers
    Metric(
        "ged",
        lambda prediction: generalized_energy_distance(prediction.samples, prediction.readers),
        "GED",
        "squared generalized energy distance between the predicted masks and the readers', with 1 − IoU; 0 is best. "
        "It depends on the number of masks: three for networks with union, intersection and final, one for others",
        of="prediction",
        unit="",
        direction=-1,
        source=_GED,
        places=(Place("readers", 3, tested=True),),
    ),
    Metric(
        "dmax",
        lambda prediction: dmax(prediction.samples, prediction.readers),
        "D_max",
        "Dice of the predicted mask that fits a reader best, mean over the readers; more masks can only raise it",
        of="prediction",
        source="Rahman et al. (CIMD), CVPR 2023",
        places=(Place("readers", 4),),
    ),
    Metric(
        "hm_iou",
        lambda prediction: hungarian_iou(prediction.samples, prediction.readers),
        "HM-IoU",
        "mean IoU of predicted and readers' masks under the best one-to-one assignment",
        of="prediction",
        source="Kohl et al. (HPU-Net), 2019",
        places=(Place("readers", 5),),
    ),
    Metric(
        "soft_dice_mean",
        lambda prediction: soft_dice(prediction.maps["final"], prediction.mean),
        "Soft Dice",
        "soft Dice of the final probability map and the mean of the readers' masks",
        of="prediction",
        one_reader=_mean_over_readers(soft_dice),
        places=(Place("readers", 6),),
    ),
    Metric(
        "ece",
        lambda prediction: expected_calibration_error(prediction.maps["final"], prediction.mean),
        "ECE",
        "expected calibration error of the final probability map over the pixels of one slice",
        of="prediction",
        unit="",
        direction=-1,
    ),
    Metric(
        "brier",
        lambda prediction: brier_score(prediction.maps["final"], prediction.mean),
        "Brier",
        "mean squared difference of the final probability map and the mean of the readers' masks",
        of="prediction",
        unit="",
        direction=-1,
        one_reader=_mean_over_readers(brier_score),
    ),
    Metric(
        "hc_dice",
        _hc_dice,
        "HC Dice",
        "Dice of the predicted intersection and what every reader includes",
        of="prediction",
        places=(Place("readers", 1),),
    ),
    Metric(
        "union_dice",
        _union_dice,
        "Union Dice",
        "Dice of the predicted union and what any reader includes",
        of="prediction",
        places=(Place("readers", 2),),
    ),
    Metric(
        "coverage",
        _coverage,
        "Coverage",
        "share of the readers' areas within [HC, HC ∪ LC]; to be read beside the width, since a wider interval covers "
        "more. Of a reader (nodules with three or more): the area lies within the interval of all the others",
        of="prediction",
        direction=0,
        one_reader=_coverage_of_readers,
        places=(Place("readers", 8),),
    ),
    Metric(
        "width_ratio",
        _width_ratio,
        "Width ratio",
        "median over the nodules of the interval's width over the readers' own [all, any]; 1: as wide as they differ",
        of="prediction",
        unit="",
        direction=0,
        median=True,
        places=(Place("readers", 9),),
    ),
    # -- a whole fold
    Metric(
        "nsd_released",
        _nsd_released,
        "NSD released",
        "surface Dice in the form of UGS-Net's released code, computed on whole batches as if they were one volume; it "
        "is far more lenient than NSD of each image, and the only form that the papers' NSD may be compared with",
        of="fold",
        source=_UGSNET,
        places=(Place("ugsnet", 3, paper="nsd"),),
    ),
    Metric(
        "ece",
        _calibration_error,
        "ECE",
        "expected calibration error of the final probability map against the mean of the readers' masks, over all "
        "pixels of a fold, easy background included; 0 is best",
        of="fold",
        unit="",
        direction=-1,
        places=(Place("readers", 7),),
    ),
)
