"""What a segmented nodule has besides segments: map volumes, the table of measurements, the plot of densities.

Every node is made on demand, found again through a node reference of the segmentation, and removed again if making it
fails half-way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import NoduleError, OutputError
from LungNoduleKit.geometry import Grid, ras_lattice
from LungNoduleKit.scene.nodes import Node, all_or_nothing, fill_volume, one_event, show_as_map
from LungNoduleKit.scene.transforms import matrix_between

from ..measuring import table as nodule_table
from ..outlining.result import NoduleSegmentation
from ..segments import SEGMENTS, TAG_PREFIX
from .nodules import SegmentedNodule, bring_up_to_date, nodules, up_to_date

_LOG = logging.getLogger(__name__)
# Name of a map: what of a result it shows, None where a model doesn't have it. All are float32 in [0, 1].
MAP_VOLUMES: dict[str, Callable[[NoduleSegmentation], sitk.Image | None]] = {
    "Final probability": lambda result: result.probability_final,
    "LC probability": lambda result: _difference(result.probability_union, result.probability_intersection),
    "Multi-confidence": lambda result: result.multi_confidence_map,
    "Union probability": lambda result: result.probability_union,
    "Intersection probability": lambda result: result.probability_intersection,
}
SOFT_MASK = "Soft mask"  # name of the volume in place of the final probability, of a model that has a soft mask
TABLE_ROLE = TAG_PREFIX + "table"
_OWNER_ROLE = TAG_PREFIX + "segmentation"
_CHART_ROLE, _DENSITY_ROLE = TAG_PREFIX + "chart", TAG_PREFIX + "densities"


def add_maps(result: NoduleSegmentation, volumeNode: Node, nodule_name: str, names: Iterable[str]) -> list[Node]:
    """Adds maps of a result as float32 scalar volumes on the volume's own voxels; returns the nodes.

    Maps that the model doesn't have are left out, and the log says so. A model's soft mask is its final probability.
    A map covers the nodule's region. Under a linear parent transform of the volume it gets the same parent; under a
    non-linear one it lies in the world. Raises `OutputError` for an unknown map's name; then nothing was added.
    """
    unknown = [name for name in names if name not in MAP_VOLUMES]
    if unknown:
        raise OutputError(f"map {unknown[0]!r}: it isn't one of {', '.join(MAP_VOLUMES)}")
    scene = volumeNode.GetScene()
    added: list[Node] = []
    with all_or_nothing(scene) as add:
        for name in names:
            image = MAP_VOLUMES[name](result)
            if image is None:
                _LOG.warning("%s: the model doesn't have the map %s", nodule_name or "nodule", name)
                continue
            if image is result.probability_final and result.final_map == "soft":
                name = SOFT_MASK
            node = scene.AddNewNodeByClass(
                "vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(f"{nodule_name} {name}".strip())
            )
            added.append(node)
            add(node)
            _fill(node, image, volumeNode)
            show_as_map(node)
    return added


def _difference(one: sitk.Image | None, other: sitk.Image | None) -> sitk.Image | None:
    if one is None or other is None:
        return None
    return sitk.Cast(sitk.Maximum(one - other, 0.0), sitk.sitkFloat32)


def _fill(node: Node, image: sitk.Image, volumeNode: Node) -> None:
    lattice = ras_lattice(Grid.of(image))
    from_world = matrix_between(None, volumeNode.GetParentTransformNode())
    if from_world is not None:
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        lattice = from_world @ lattice
    fill_volume(node, sitk.GetArrayFromImage(image).astype(np.float32), lattice)


def measurement_table(segmentationNode: Node) -> Node:
    """The segmentation's table of nodules, one row each, made or brought up to date; returns the table node.

    Columns that none of the nodules has a value for (intervals, where all come from models without) are left out; where
    only some have one, the others' numbers are not a number.
    """
    table = _referenced(segmentationNode, TABLE_ROLE, "vtkMRMLTableNode", "measurements")
    _fill_table(table, segmentationNode)
    return table


def update_table(segmentationNode: Node, measure: bool = True) -> None:
    """Brings the segmentation's table of nodules up to date, if it has one.

    measure: False: rows of nodules that changed since they were measured say so and have no numbers.
    """
    table = _own(segmentationNode, TABLE_ROLE)
    if table is not None:
        _fill_table(table, segmentationNode, measure)


def _fill_table(table: Node, segmentationNode: Node, measure: bool = True) -> None:
    import vtk

    rows = [row.cells() for row in table_rows(segmentationNode, measure)]
    with one_event(table):
        table.RemoveAllColumns()
        for number, title in enumerate(nodule_table.columns()):
            values = [row[number] for row in rows]
            if values and all(value is None for value in values):
                continue
            column = vtk.vtkDoubleArray() if nodule_table.is_number(title) else vtk.vtkStringArray()
            column.SetName(title)
            for value in values:
                column.InsertNextValue(float("nan") if value is None else value)
            table.AddColumn(column)
        table.SetUseColumnTitleAsColumnHeader(True)
        table.SetLocked(True)


def table_rows(segmentationNode: Node, measure: bool = True) -> list[nodule_table.NoduleRow]:
    """The rows for each nodule that was measured; those that changed since are measured again first, with `measure`.

    The row of a nodule that isn't measured again has no numbers, and says so among its warnings.
    """
    failed = bring_up_to_date(segmentationNode) if measure else {}
    rows = []
    for nodule in nodules(segmentationNode):
        if nodule.measurements:
            rows.append(nodule_table.row(nodule.name, nodule.measurements, nodule.kind, nodule.model, nodule.warnings))
        elif nodule.changes:
            text = f"{nodule_table.OUT_OF_DATE}: {', '.join(nodule.changes)}"
            reasons = [failed[nodule.key]] if nodule.key in failed else []
            rows.append(
                nodule_table.unmeasured_row(nodule.name, nodule.kind, nodule.model, [text, *reasons, *nodule.warnings])
            )
    return rows


def plot_densities(nodule: SegmentedNodule) -> Node:
    """A chart of the HU densities of a nodule's HC and LC, or of Final if that is all that its model has; the
    segmentation's chart if it has one. Returns the chart.

    The papers' figure of HU in high and low confidence regions, for this nodule.
    Raises `NoduleError` for a nodule without measurements.
    """
    import vtk

    nodule = up_to_date(nodule)
    if not nodule.measurements:
        raise NoduleError(f"nodule {nodule.name!r}: it has no measurements to plot")
    densities = nodule.measurements["hu_density"]
    segmentationNode = nodule.segmentationNode
    table = _referenced(segmentationNode, _DENSITY_ROLE, "vtkMRMLTableNode", "HU densities")
    table.RemoveAllColumns()
    parts = {part: densities[s.attribute] for part, s in SEGMENTS.items() if s.attribute in densities}
    for title, values in {"HU": densities["hu"], **parts}.items():
        column = vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    chart = _referenced(segmentationNode, _CHART_ROLE, "vtkMRMLPlotChartNode", "HU densities chart")
    chart.RemoveAllPlotSeriesNodeIDs()
    for part in parts:
        role = f"{_CHART_ROLE}.{part}"
        series = _referenced(segmentationNode, role, "vtkMRMLPlotSeriesNode", f"{part} density")
        series.SetName(part)  # the legend
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("HU")
        series.SetYColumnName(part)
        series.SetPlotType(series.PlotTypeScatter)
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetLineWidth(3.0)
        series.SetColor(*SEGMENTS[part].color)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(f"{nodule.name}: density of {' and '.join(parts)}")
    chart.SetXAxisTitle("HU")
    chart.SetYAxisTitle("density [1/HU]")
    return chart


def _referenced(segmentationNode: Node, role: str, kind: str, name: str) -> Node:
    node = _own(segmentationNode, role)
    if node is None:
        scene = segmentationNode.GetScene()
        node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(f"{segmentationNode.GetName()} {name}"))
        segmentationNode.SetNodeReferenceID(role, node.GetID())
        node.SetNodeReferenceID(_OWNER_ROLE, segmentationNode.GetID())
    return node


def _own(segmentationNode: Node, role: str) -> Node | None:
    """A node that a segmentation refers to, unless it is another's: a copied segmentation has the references too."""
    node = segmentationNode.GetNodeReference(role)
    owner = node.GetNodeReference(_OWNER_ROLE) if node is not None else None
    return node if owner in (None, segmentationNode) else None
