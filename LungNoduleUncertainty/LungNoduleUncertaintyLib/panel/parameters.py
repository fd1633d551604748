"""What the panel remembers in the scene: one field for each choice, restored with a saved scene."""

from typing import Annotated, Any

from ..models.network_input import Averaging

SOURCES = ("point", "segment", "line")
DEVICES = ("auto", "cpu", "cuda")
# What is averaged at prediction; None: as the model sets it.
AVERAGING_CHOICES: dict[str, Averaging | None] = {
    "model": None,
    "single": Averaging(),
    "views": Averaging(((), (1, 2)), ("axial", "coronal", "sagittal")),
}
THRESHOLD_CHOICES = {"hcThreshold": "intersection", "finalThreshold": "final", "lcThreshold": "union"}
MAP_CHOICES = {"finalMap": "Final probability", "lcMap": "LC probability", "confidenceMap": "Multi-confidence"}
INTERVAL_MAP_CHOICES = ("lcMap", "confidenceMap")  # need the probabilities of union and intersection


def parameter_class() -> Any:
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
