"""Figures of the experiments, drawn from the folders that `python -m Training experiment` writes.

`FIGURES[kind](experiment, jobs)` takes an experiment's dict (`experiment.json`) and a `JobStore`, and returns a list of
`Drawn`: empty when no job that the figure needs has finished. `save` writes one as PNG and SVG.
"""

from .densities import densities
from .drawn import Drawn, save
from .gallery import gallery
from .gradcam_figure import gradcam
from .qualitative import complex_nodules, qualitative
from .super_resolution import super_resolution

__all__ = [
    "FIGURES",
    "Drawn",
    "complex_nodules",
    "densities",
    "gallery",
    "gradcam",
    "qualitative",
    "save",
    "super_resolution",
]

#: kind of an experiment -> the function that draws its figures
FIGURES = {
    "densities": densities,
    "gallery": gallery,
    "gradcam": gradcam,
    "qualitative": qualitative,
    "super_resolution": super_resolution,
}
