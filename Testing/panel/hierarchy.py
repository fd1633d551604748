"""What the application does with its subject hierarchy, on the real node: items for nodes and segments, complaints.

Slicer's plugins make an item for each node that can be shown and for each segment of a segmentation. They go on
observing a segmentation that was removed from the scene as long as anything keeps it alive, and write to the error log
when an event of it comes after its item is gone. `complaints` is that log.
"""

import slicer
import vtk

SHOWN = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLTableNode")
SEGMENT_ID = "segmentID"


class SubjectHierarchy:
    """The hierarchy of a scene, kept as the application keeps it."""

    def __init__(self, scene):
        self.scene, self.complaints, self._observed = scene, [], []
        self.hierarchy.GetSceneItemID()
        for event, function in (
            (scene.NodeAddedEvent, self._added),
            (scene.NodeAboutToBeRemovedEvent, self._removing),
        ):
            self._observed.append(scene.AddObserver(event, self._with_node(function)))
        self._observed.append(scene.AddObserver(scene.EndImportEvent, lambda *_: self._add_all()))
        self._add_all()

    @property
    def hierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def stop(self):
        for tag in self._observed:
            self.scene.RemoveObserver(tag)

    def segment_items(self, node):
        """Names of a segmentation's items."""
        return [self.hierarchy.GetItemName(item) for item in self._segment_items(node).values()]

    @staticmethod
    def _with_node(function):
        def call(caller, event, node):
            function(node)

        call.CallDataType = vtk.VTK_OBJECT
        return call

    def _add_all(self):
        for number in range(self.scene.GetNumberOfNodes()):
            self._added(self.scene.GetNthNode(number))

    def _added(self, node):
        if self.scene.IsImporting() or node.GetHideFromEditors() or not any(node.IsA(kind) for kind in SHOWN):
            return
        hierarchy = self.hierarchy
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
        if node.IsA("vtkMRMLSegmentationNode"):
            segmentation = slicer.vtkSegmentation
            for event, name in (
                (segmentation.SegmentAdded, "onSegmentAdded"),
                (segmentation.SegmentRemoved, "onSegmentRemoved"),
                (segmentation.SegmentModified, "onSegmentModified"),
                (node.DisplayModifiedEvent, "updateAllSegmentsFromMRML"),
            ):
                node.AddObserver(event, lambda caller, event, name=name: self._follow(caller, name))
            self._follow(node, "updateAllSegmentsFromMRML")

    def _removing(self, node):
        if self.scene.IsClosing() or not any(node.IsA(kind) for kind in SHOWN):
            return
        item = self.hierarchy.GetItemByDataNode(node)
        if item:
            self.hierarchy.RemoveItem(item, False, False)

    def _segment_items(self, node):
        items = vtk.vtkIdList()
        self.hierarchy.GetItemChildren(self.hierarchy.GetItemByDataNode(node), items)
        found = [items.GetId(n) for n in range(items.GetNumberOfIds())]
        return {self.hierarchy.GetItemAttribute(item, SEGMENT_ID): item for item in found}

    def _follow(self, node, name):
        """Brings a segmentation's items up to date after the event that a plugin's function `name` is called for."""
        scene = node.GetScene()
        if scene is not None and scene.IsImporting():
            return
        hierarchy = self.hierarchy
        own = hierarchy.GetItemByDataNode(node)
        if not own:
            self.complaints.append(f"{name}: no subject hierarchy item for segmentation node {node.GetName()}")
            return
        items = self._segment_items(node)
        ids = node.GetSegmentation().GetSegmentIDs()
        for segment_id, item in items.items():
            if segment_id not in ids:
                hierarchy.RemoveItem(item)
        for segment_id in ids:
            segment = node.GetSegmentation().GetSegment(segment_id)
            if segment_id in items:
                if hierarchy.GetItemName(items[segment_id]) != segment.GetName():
                    hierarchy.SetItemName(items[segment_id], segment.GetName())
            else:
                item = hierarchy.CreateHierarchyItem(own, segment.GetName(), "SegmentVirtualBranch")
                hierarchy.SetItemAttribute(item, SEGMENT_ID, segment_id)
