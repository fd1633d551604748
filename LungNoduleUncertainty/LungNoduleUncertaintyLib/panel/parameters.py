"""What the panel remembers in the scene: one field for each choice, restored with a saved scene."""

from typing import Annotated

SOURCES = ("point", "segment", "line")
DEVICES = ("auto", "cpu", "cuda")
# Name of a choice of stacks: averaging of the prediction, as keyword arguments of prediction.Averaging; None: the
# model's own.
STACKS = {
    "model": None,
    "single": {"flips": ((),)},
    "views": {"flips": ((), (1, 2)), "views": ("axial", "coronal", "sagittal")},
}
THRESHOLDS = {"hcThreshold": "intersection", "finalThreshold": "final", "lcThreshold": "union"}
MAPS = {"finalMap": "Final probability", "lcMap": "LC probability", "confidenceMap": "Multi-confidence"}
INTERVAL_MAPS = ("lcMap", "confidenceMap")  # need the probabilities of union and intersection


def parameter_class():
    """The parameter node wrapper's class; made on demand, since only Slicer can make it."""
    from slicer import (
        vtkMRMLMarkupsFiducialNode,
        vtkMRMLMarkupsLineNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLSegmentationNode,
    )
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        source: str = SOURCES[0]
        points: vtkMRMLMarkupsFiducialNode
        line: vtkMRMLMarkupsLineNode
        markedSegmentation: vtkMRMLSegmentationNode
        markedSegment: str = ""
        segmentation: vtkMRMLSegmentationNode
        model: str = ""
        device: str = DEVICES[0]
        calibrated: bool = True
        hcThreshold: Annotated[float, WithinRange(0.01, 0.99)] = 0.5
        finalThreshold: Annotated[float, WithinRange(0.01, 0.99)] = 0.5
        lcThreshold: Annotated[float, WithinRange(0.01, 0.99)] = 0.5
        stacks: str = "model"
        finalMap: bool = False
        lcMap: bool = False
        confidenceMap: bool = False

    return Parameters
