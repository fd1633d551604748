"""What the panel remembers in the scene: one field for each choice, restored with a saved scene."""

from typing import Annotated, Any

SOURCES = ("segments", "lines")
DIMENSIONS = (2, 3)


def parameter_class() -> type:
    """The parameter node wrapper's class; made on demand, since only Slicer can make it."""
    from slicer import (
        vtkMRMLDisplayableNode,
        vtkMRMLMarkupsLineNode,
        vtkMRMLScalarVolumeNode,
        vtkMRMLSegmentationNode,
    )
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        source: str = SOURCES[0]
        markedSegmentation: vtkMRMLSegmentationNode
        markedSegments: list[str]
        longLine: vtkMRMLMarkupsLineNode
        shortLine: vtkMRMLMarkupsLineNode
        trimap: vtkMRMLDisplayableNode
        segmentation: vtkMRMLSegmentationNode
        automatic: bool = True
        erosion: Annotated[float, WithinRange(0.0, 10.0)] = 1.0
        dilation: Annotated[float, WithinRange(0.0, 10.0)] = 1.0
        dimension: int = DIMENSIONS[0]
        windowLow: Annotated[float, WithinRange(-32768.0, 65535.0)] = -1000.0
        windowHigh: Annotated[float, WithinRange(-32768.0, 65535.0)] = 400.0
        iterations: Annotated[int, WithinRange(1, 20)] = 5
        epsilonExponent: Annotated[float, WithinRange(-12.0, 0.0)] = -7.0
        radius: Annotated[int, WithinRange(1, 3)] = 1

    return Parameters


def pipeline_parameters(parameters: Any) -> dict[str, Any]:
    """The panel's choices as the arguments of `pipeline.Parameters`."""
    given = {
        "window": (parameters.windowLow, parameters.windowHigh),
        "dimension": 2 if parameters.source == "lines" and parameters.trimap is None else parameters.dimension,
        "epsilon": 10.0**parameters.epsilonExponent,
        "radius": parameters.radius,
        "iterations": parameters.iterations,
    }
    if not parameters.automatic:
        given["erode_mm"], given["dilate_mm"] = parameters.erosion, parameters.dilation
    return given
