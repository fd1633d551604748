"""Figures of the experiments, drawn from the folders that `python -m Training experiment` writes.

`FIGURES[kind](experiment, jobs)` takes an experiment's dict (`experiment.json`) and a `JobStore`, and returns a list of
`Drawn`: empty when no job that the figure needs has finished. `save` writes one as PNG and SVG.
"""

from collections.abc import Callable

from ...experiments.kinds import KINDS
from .attention import attention
from .channels import channels
from .densities import densities
from .drawn import Drawn, save
from .gallery import gallery
from .gradcam_figure import gradcam
from .groups import groups
from .qualitative import complex_nodules, qualitative
from .readers import readers
from .super_resolution import super_resolution
from .times import times

__all__ = [
    "FIGURES",
    "Drawn",
    "attention",
    "channels",
    "complex_nodules",
    "densities",
    "gallery",
    "gradcam",
    "groups",
    "qualitative",
    "readers",
    "save",
    "super_resolution",
    "times",
]

#: kind of an experiment -> the function that draws its figures
FIGURES: dict[str, Callable[..., list[Drawn]]] = {
    kind.name: globals()[kind.figures] for kind in KINDS.values() if kind.figures
}
