"""The measures that the report shows: name, unit, direction, and the column of scores.csv each comes from."""

from dataclasses import dataclass

__all__ = [
    "DSNET_MEASURES",
    "MEASURE_SETS",
    "MULTI_READER",
    "PAPER_MEASURES",
    "TESTED",
    "Measure",
    "show",
    "show_percent",
]


@dataclass(frozen=True)
class Measure:
    """``key``: column of scores.csv (or of the manifest's pooled figures, where ``pooled``). ``better``: +1 the larger,
    -1 the smaller, 0 neither (so no best is marked). ``paper``: key of the papers' number in an experiment's row.
    ``median``: a fold's value is the median over its nodules, because a few extreme ones would rule the mean."""

    key: str
    label: str
    meaning: str
    percent: bool = True
    better: int = 1
    pooled: bool = False
    median: bool = False
    paper: str = ""

    @property
    def heading(self) -> str:
        """Label with its unit."""
        return f"{self.label}, %" if self.percent else self.label

    def show(self, value) -> str:
        """A value as the tables show it."""
        return show_percent(value) if self.percent else show(value, 3)


def show(value, digits: int) -> str:
    """A number with fixed digits and a true minus sign; an en dash for what is absent (None, NaN)."""
    if value is None or value != value:
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def show_percent(value, digits: int = 2) -> str:
    """A share in [0, 1] as a percentage without its sign."""
    return show(None if value is None else 100 * value, digits)


#: What the papers report, in their tables' order.
PAPER_MEASURES = (
    Measure("dsc_label1", "DSC", "Dice coefficient of the final mask and the first reader's", paper="dsc"),
    Measure("iou_label1", "IoU", "intersection over union of the final mask and the first reader's", paper="iou"),
    Measure(
        "nsd1px_label1",
        "NSD 1 px",
        "normalised surface Dice of each image with a tolerance of one pixel, against the first reader",
    ),
    Measure(
        "nsd_released",
        "NSD released",
        "surface Dice in the form of UGS-Net's released code, computed on whole batches as if they were one volume; it "
        "is far more lenient than NSD of each image, and the only form that the papers' NSD may be compared with",
        pooled=True,
        paper="nsd",
    ),
)

#: What DSNet's papers report.
DSNET_MEASURES = (
    Measure(
        "dsc_consensus", "DICE", "Dice of the final mask and what at least half of the readers include", paper="dice"
    ),
    Measure("sen_consensus", "SEN", "sensitivity: share of that consensus that the final mask holds", paper="sen"),
    Measure(
        "ppv_consensus",
        "PPV",
        "positive predictive value: share of the final mask that the consensus holds",
        paper="ppv",
    ),
)

#: Option `measures` of an experiment -> what its paper reports (the first one ranks), and what that is taken against.
MEASURE_SETS = {"ugsnet": (PAPER_MEASURES, "the first reader"), "dsnet": (DSNET_MEASURES, "the readers' consensus")}

#: What several readers allow to be asked beyond the papers.
MULTI_READER = (
    Measure("dsc_consensus", "DSC consensus", "Dice of the final mask and what at least half of the readers include"),
    Measure("hc_dice", "HC Dice", "Dice of the predicted intersection and what every reader includes"),
    Measure("union_dice", "Union Dice", "Dice of the predicted union and what any reader includes"),
    Measure(
        "ged",
        "GED",
        "squared generalised energy distance between the predicted masks and the readers', with 1 − IoU; 0 is best. "
        "It depends on the number of masks: three for networks with union, intersection and final, one for others",
        percent=False,
        better=-1,
    ),
    Measure(
        "dmax",
        "D_max",
        "Dice of the predicted mask that fits a reader best, mean over the readers; more masks can only raise it",
    ),
    Measure("hm_iou", "HM-IoU", "mean IoU of predicted and readers' masks under the best one-to-one assignment"),
    Measure("soft_dice_mean", "Soft Dice", "soft Dice of the final probability map and the mean of the readers' masks"),
    Measure(
        "ece",
        "ECE",
        "expected calibration error of the final probability map against the mean of the readers' masks, over all "
        "pixels of a fold, easy background included; 0 is best",
        percent=False,
        better=-1,
        pooled=True,
    ),
    Measure(
        "coverage",
        "Coverage",
        "share of the readers' areas within [HC, HC ∪ LC]; to be read beside the width, since a wider interval covers "
        "more. Of a reader (nodules with three or more): the area lies within the interval of all the others",
        better=0,
    ),
    Measure(
        "width_ratio",
        "Width ratio",
        "median over the nodules of the interval's width over the readers' own [all, any]; 1: as wide as they differ",
        percent=False,
        better=0,
        median=True,
    ),
)

#: The measures of the paired tests.
TESTED = ("dsc_label1", "dsc_consensus", "ged")
