"""Figures of the experiments, drawn from the folders that `python -m Training experiment` writes.

`FIGURES[kind](experiment, jobs)` takes an experiment's dict (`experiment.json`) and a `JobStore`, and returns a list of
`Drawn`: empty when no job that the figure needs has finished. `save` writes one as PNG and SVG.
"""

from .attention import attention
from .channels import channels
from .densities import densities
from .doctors import doctors
from .drawn import Drawn, save
from .gallery import gallery
from .gradcam_figure import gradcam
from .groups import groups
from .qualitative import complex_nodules, qualitative
from .super_resolution import super_resolution
from .times import times

__all__ = [
    "FIGURES",
    "Drawn",
    "attention",
    "channels",
    "complex_nodules",
    "densities",
    "doctors",
    "gallery",
    "gradcam",
    "groups",
    "qualitative",
    "save",
    "super_resolution",
    "times",
]

#: kind of an experiment -> the function that draws its figures
FIGURES = {
    "attention": attention,
    "channels": channels,
    "densities": densities,
    "gallery": gallery,
    "gradcam": gradcam,
    "groups": groups,
    "qualitative": qualitative,
    "readers": doctors,
    "super_resolution": super_resolution,
    "time": times,
}
