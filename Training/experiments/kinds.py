"""The kinds of experiments: a record each, which the definitions' check, the runner and the report all read.

A new kind is one record here and the function that it names, in `Training.report.figures` or `Training.report.tables`.
"""

from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """What a word in a definition's `kind` means.

    shows: what the report has of it, in a line. figures, tables: names of the functions in `Training.report.figures`
    (experiment, store) and `Training.report.tables` (store, experiment) that make it; empty where there are none, and
    then the tables are the figures' numbers. trained: whether its rows are trained and scored on folds. ratings:
    whether the runner writes what readers said of the nodules beside it. predictions: whether the report needs the
    jobs' probability maps or weights, which the archive of results doesn't hold.
    """

    name: str
    shows: str
    figures: str = ""
    tables: str = ""
    trained: bool = True
    ratings: bool = False
    predictions: bool = True


_ALL = (
    Kind("table", "networks compared: measures, each fold, paired tests", tables="comparison", predictions=False),
    Kind(
        "complex", "the nodules that a network segments worst, with controls", tables="worst_nodules", predictions=False
    ),
    Kind("readers", "readers, their consensus and networks against each other", "readers", "reader_tables"),
    Kind("densities", "HU of HC and LC, of readers and predicted", "densities"),
    Kind("gallery", "Multi-Confidence Masks of some nodules", "gallery"),
    Kind("qualitative", "outlines of networks side by side", "qualitative"),
    Kind("gradcam", "Grad-CAM of the last convolutions", "gradcam"),
    Kind("attention", "maps of a network's spatial attention", "attention"),
    Kind("super_resolution", "super-resolution beside bicubic interpolation", "super_resolution"),
    Kind("time", "how long a prediction takes", "times", trained=False),
    Kind("channels", "which channels feature enhancement picks", "channels"),
    Kind("groups", "one measure by group of nodules or images", "groups", ratings=True),
)


#: Name -> kind, in the order of the report's page.
KINDS = {kind.name: kind for kind in _ALL}
