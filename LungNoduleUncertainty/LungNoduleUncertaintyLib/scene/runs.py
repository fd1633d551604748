"""Running the segmentation on nodes: read on the main thread, compute in any, store on the main thread again.

The scene is touched only while storing, and storing is all or nothing. The computing part knows no MRML, so that it can
run in the worker's thread while Slicer stays alive.
"""

from dataclasses import dataclass, field

from LungNoduleKit.errors import ImageError, OutputError, PointError
from LungNoduleKit.geometry import as_triple, swap_lps_ras
from LungNoduleKit.scene import runs
from LungNoduleKit.scene.lattices import named
from LungNoduleKit.scene.nodes import line_ends, remove
from LungNoduleKit.scene.undo import Undo
from LungNoduleKit.scene.worker import Worker

from ..models.bundle import Model, find_bundle, load_model, read_metadata
from ..outlining.segmentation import NoduleSegmentation, segment_nodule
from . import nodules as mrml_nodules
from . import outputs as mrml_outputs
from . import segments as mrml_bridge


@dataclass
class Request:
    """What is asked for. `point` is (R, A, S) in the world, mm; or `near` marks the nodule in its place: (segmentation
    node, segment ID), a labelmap node, or a markups line along an axis of the nodule (RECIST), whose middle counts.

    `name` is the nodule's (None: the next free `Nodule N`; empty: plain `HC`, `LC`, `Final`). `replace` is the key of a
    nodule of `segmentationNode` that is segmented again. `thresholds` and `averaging` as in `segment_nodule`. `maps`
    are names of `mrml_outputs.MAPS` to add as volumes, as far as the model gives them.
    """

    volumeNode: object
    point: tuple | None = None
    near: object = None
    segmentationNode: object = None
    name: str | None = None
    replace: str | None = None
    model: object = None
    device: str = "auto"
    thresholds: dict | None = None
    averaging: object = None
    maps: tuple = ()


@dataclass
class Stored:
    """What a run added: the segmentation node, the nodule, the map volumes, and the library's result.

    `removed` are the parts of a nodule segmented again that the model doesn't give (`HC` and `LC`).
    """

    segmentationNode: object
    nodule: object
    result: object
    maps: list = field(default_factory=list)
    removed: tuple = ()


class Runs(runs.Runs[Request, NoduleSegmentation, Stored]):
    """Segmentations in one scene, one at a time, with their undo steps."""

    running = "a nodule is being segmented"

    def __init__(self, segment=None, worker=None):
        """`segment` stands in for `segmentation.segment_nodule`; then no model is loaded."""
        super().__init__(worker or Worker("nodule segmentation"))
        self._segment, self._loaded = segment, None

    def model(self, asked, device):
        """A bundle loaded once, as long as the same one is asked for; a loaded model is returned as it is."""
        if isinstance(asked, Model):
            return asked
        folder = find_bundle(asked)
        key = (str(folder), read_metadata(folder)["sha256"], str(device))  # an exchanged bundle is another one
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # the old one's memory first
            self._loaded = (key, load_model(folder, device))
        return self._loaded[1]

    def computation(self, request):
        """See `LungNoduleKit.scene.runs.Runs`."""
        point = _point(request)
        if request.segmentationNode is not None:
            mrml_bridge.check_segmentation(request.segmentationNode)
        if request.replace is not None:
            mrml_nodules.find(request.segmentationNode, request.replace)
        unknown = [name for name in request.maps if name not in mrml_outputs.MAPS]
        if unknown:
            raise OutputError(f"map {unknown[0]!r}: it isn't one of {', '.join(mrml_outputs.MAPS)}")
        mrml_bridge.check_point_in_volume(request.volumeNode, point)
        ct = mrml_bridge.image_from_volume_node(request.volumeNode, around_ras=point)
        point_lps = as_triple(swap_lps_ras(point))
        model, device, segment = request.model, request.device, self._segment
        more = {
            key: value
            for key, value in (("thresholds", request.thresholds), ("averaging", request.averaging))
            if value is not None
        }

        def compute(progress):
            if segment is not None:
                return segment(ct, point_lps=point_lps, model=model, device=device, progress=progress, **more)

            progress("loading the model", 0.02)
            return segment_nodule(ct, point_lps=point_lps, model=self.model(model, device), progress=progress, **more)

        return compute

    def store(self, request: Request, result) -> Stored:
        """Adds a result's segments (and maps) to the scene as one undo step. All or nothing."""
        volumeNode, node = request.volumeNode, request.segmentationNode
        scene = volumeNode.GetScene()
        if scene is None:
            raise ImageError(f"{named(volumeNode)}: it was removed from the scene meanwhile")
        if node is not None and node.GetScene() is not scene:
            raise OutputError(f"segmentation {node.GetName()!r}: it was removed from the scene meanwhile")
        created, removed = node is None, ()
        if request.replace is not None:
            step, key, removed = self._replace(request, result)
        else:
            name = mrml_nodules.next_name(node) if request.name is None else request.name
            before = set() if created else {n.key for n in mrml_nodules.nodules(node)}
            node = mrml_bridge.add_result(result, volumeNode, node, name)
            key = next(n.key for n in mrml_nodules.nodules(node) if n.key not in before)
            step = self._added(node, key, created)
        nodule = mrml_nodules.find(node, key)
        try:
            maps = mrml_outputs.add_maps(result, volumeNode, nodule.name, request.maps) if request.maps else []
        except BaseException:
            step.run()
            raise
        self.steps.push(step)
        mrml_outputs.update_table(node, create=False)
        return Stored(node, nodule, result, maps, removed)

    def _replace(self, request, result):
        node = request.segmentationNode
        nodule = mrml_nodules.find(node, request.replace)
        segments = mrml_bridge.new_segments(result, node, request.volumeNode, nodule.name)
        modifying = node.StartModify()
        try:
            step = mrml_nodules.replace_in_place(nodule, segments)
        finally:
            node.EndModify(modifying)
        return step, nodule.key, tuple(part for part in nodule.ids if part not in segments)

    def _added(self, node, key, created):
        def back():
            left = next((n for n in mrml_nodules.nodules(node) if n.key == key), None)
            if left is not None:
                mrml_nodules.delete(left)
            if created and not node.GetSegmentation().GetNumberOfSegments():
                remove(node.GetScene(), node)

        return Undo("segment a nodule", (node,), back)

    def rename(self, segmentationNode, key, name):
        """Renames a nodule; one undo step."""
        self.steps.push(mrml_nodules.rename(mrml_nodules.find(segmentationNode, key), name))
        mrml_outputs.update_table(segmentationNode, create=False)

    def delete(self, segmentationNode, key):
        """Deletes a nodule's segments and no others; one undo step."""
        self.steps.push(mrml_nodules.delete(mrml_nodules.find(segmentationNode, key)))
        mrml_outputs.update_table(segmentationNode, create=False)

    def undone(self, step):
        """The table of measurements follows."""
        for node in step.nodes:
            if node.GetScene() is not None:
                mrml_outputs.update_table(node, create=False)


def _point(request):
    """The point (R, A, S) of a request in the world, mm."""
    if (request.point is None) == (request.near is None):
        raise PointError("give either a point (RAS, mm) or something that marks the nodule, and not both")
    if request.near is None:
        return mrml_bridge.checked_point(request.point)
    near = request.near
    if hasattr(near, "IsA") and near.IsA("vtkMRMLMarkupsLineNode"):
        return line_middle(near)
    return mrml_bridge.point_from_mask(near)


def line_middle(lineNode):
    """Middle (R, A, S) of a markups line in the world, mm. Raises `PointError` unless both of its ends are placed."""
    if lineNode.GetNumberOfDefinedControlPoints() < 2:
        raise PointError(f"line {lineNode.GetName()!r}: place both of its ends on the nodule's outline first")
    return tuple((a + b) / 2 for a, b in zip(*line_ends(lineNode), strict=True))


def last_point(markupsNode):
    """Position (R, A, S) in the world, mm, of a point list's last placed point. Raises `PointError` if it has none."""
    for number in reversed(range(markupsNode.GetNumberOfControlPoints())):
        if markupsNode.GetNthControlPointPositionStatus(number) == markupsNode.PositionDefined:
            position = [0.0, 0.0, 0.0]
            markupsNode.GetNthControlPointPositionWorld(number, position)
            return tuple(position)
    raise PointError(f"point list {markupsNode.GetName()!r}: place a point on the nodule first")
