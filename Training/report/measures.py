"""The measures that the report shows: name, unit, direction, and the column of scores.csv each comes from."""

from dataclasses import dataclass

__all__ = [
    "DSNET_MEASURES",
    "MEASURE_SETS",
    "MULTI_READER",
    "PAPER_MEASURES",
    "TESTED",
    "Measure",
    "MeasureSet",
    "ife_measures",
    "measure_set",
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

#: Option `truth` of an experiment with IFE's measures -> what they are taken against.
TRUTHS = {"consensus": "the readers' consensus", "label1": "the first reader"}


def ife_measures(truth: str = "consensus", released: bool = False) -> tuple[Measure, ...]:
    """The nine measures of the IFE paper against a truth, or what its released code makes of them, in its order."""
    end = f"_released_{truth}" if released else f"_{truth}"
    overlap, union = (f"dsc{end}", f"jc{end}") if released else (f"dsc{end}", f"iou{end}")
    note = ", in the form of the released code, of the map stretched to [0, 1] before it is cut" if released else ""
    effort = "human correction effort: clicks to correct the mask (vertices of wrong outlines and whole wrong regions)"
    small = (
        Measure(
            f"hce{end}" if released else f"hce64{end}",
            "HCE 64",
            f"{effort}, on 64 x 64 pixels as in the paper" + (", masks left grey" if released else ""),
            percent=False,
            better=-1,
            paper="hce",
        ),
    )
    full = Measure(f"hce{end}", "HCE", f"{effort}, on the network's grid", percent=False, better=-1)
    left_out = "" if released else "; a nodule where it isn't finite is left out, see Missed"
    missed = Measure(
        f"missed_{truth}", "Missed", "share of nodules that share no pixel with the final mask (Con, HD)", better=-1
    )
    return (
        Measure(
            f"con{end}",
            "Con",
            f"conformity (3 D − 2) / D of the Dice coefficient D, without lower bound{left_out}{note}",
            paper="con",
        ),
        Measure(overlap, "DSC", f"Dice coefficient of the final mask and {TRUTHS[truth]}{note}", paper="dsc"),
        Measure(union, "JC", f"Jaccard coefficient, intersection over union{note}", paper="jc"),
        Measure(f"f{end}", "F1", f"F-measure that weighs precision higher (beta² = 0.3){note}", paper="f1"),
        *(small if released else (full, *small)),
        Measure(
            f"mae{end}",
            "MAE",
            "mean absolute error of the cut map in unsigned bytes, where a missed pixel counts 1/255"
            if released
            else "mean absolute error of the final probability map, over all pixels of the slice",
            better=-1,
            paper="mae",
        ),
        Measure(
            f"hd{end}",
            "HD, px",
            "largest distance of either outline to the other (Hausdorff) in pixels"
            + (", 0 where a mask is empty" if released else left_out),
            percent=False,
            better=-1,
            paper="hd",
        ),
        Measure(
            f"assd{end}",
            "ASSD, px",
            "mean distance between the outlines in pixels"
            + (", mean of both directions, 0 where a mask is empty" if released else left_out),
            percent=False,
            better=-1,
            paper="assd",
        ),
        Measure(
            f"rvd{end}", "RVD", f"difference of the areas over the true one, without sign{note}", better=-1, paper="rvd"
        ),
        *(() if released else (missed,)),
    )


@dataclass(frozen=True)
class MeasureSet:
    """What an experiment's tables show: ``measures``; what they are taken ``against``; the one that ranks (``ranked``);
    ``tested`` in pairs; ``starred``: mark the ranked measure where the paired t test gives p < 0.05, as IFE's tables;
    ``of_nodules``: show the spread over nodules, too, as DSNet's papers do.
    """

    measures: tuple[Measure, ...]
    against: str
    ranked: Measure
    tested: tuple[Measure, ...]
    starred: bool = False
    of_nodules: bool = False


#: Values of the option `measures` of an experiment: whose measures are shown.
MEASURE_SETS = ("ugsnet", "dsnet", "ife", "ife_released")


def of_images(options: dict | None) -> bool:
    """Whether an experiment's options say that it is for a set of images, which have one mask each and no readers."""
    return (options or {}).get("data") == "images"


def measure_set(options: dict) -> MeasureSet:
    """The set that an experiment's options `measures` and (IFE's only) `truth` name. Raises ValueError in one line."""
    wanted, truth = options.get("measures", "ugsnet"), options.get("truth", "consensus")
    if wanted not in MEASURE_SETS:
        raise ValueError(f"option measures is one of {', '.join(MEASURE_SETS)}, not {wanted!r}")
    if truth not in TRUTHS:
        raise ValueError(f"option truth is one of {', '.join(TRUTHS)}, not {truth!r}")
    against = "the masks" if of_images(options) else TRUTHS["consensus" if wanted == "dsnet" else truth]
    if wanted.startswith("ife"):
        measures = ife_measures(truth, released=wanted == "ife_released")
        named = {m.label: m for m in measures}
        tested = tuple(named[label] for label in ("DSC", "HCE 64", "ASSD, px"))
        return MeasureSet(measures, against, named["DSC"], tested, starred=True)
    tested = tuple(m for m in (*PAPER_MEASURES, *MULTI_READER) if m.key in TESTED)
    if wanted == "dsnet":
        return MeasureSet(DSNET_MEASURES, against, DSNET_MEASURES[0], tested, of_nodules=True)
    return MeasureSet(PAPER_MEASURES, TRUTHS["label1"], PAPER_MEASURES[0], tested)
