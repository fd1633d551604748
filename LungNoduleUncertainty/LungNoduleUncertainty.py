"""Lung Nodule Uncertainty: a point on a nodule in a chest CT becomes the segments HC, LC and Final.

The thin shell that Slicer loads at start-up: nothing but the standard library and Slicer is imported at the top.
"""

import os
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

SAMPLE_NAME = "LungNodulePhantom"


class LungNoduleUncertainty(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Lung Nodule Uncertainty")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["LungNoduleUncertainty developers"]
        parent.helpText = _(
            "Outlines the lung nodule at a point of a chest CT, with its uncertainty: HC is what every reader would "
            "include, LC what only some would, and Final what most would. Every size comes with its interval. "
            "For research, not for diagnosis."
        )
        parent.acknowledgementText = _(
            "The networks follow the UGS-Net papers and were trained on outlines by the readers of LIDC-IDRI."
        )
        if getattr(slicer, "app", None) is not None:
            slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Adds the chest phantom to the module Sample Data. It is generated on this computer; nothing is downloaded."""
    import SampleData

    from LungNoduleUncertaintyLib.resources import resource_path

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Lung Nodule Uncertainty",
        sampleName=SAMPLE_NAME,
        uris=[],  # no files; without the two lists SampleData raises
        fileNames=[],
        thumbnailFileName=os.fspath(resource_path("Icons", "LungNodulePhantom.png")),
        customDownloader=loadSample,
    )


def loadSample(source=None):
    """Adds the chest phantom and a point on each of its nodules to the scene, shows the CT in the slice views and
    chooses both in the panel; returns [volume node, point list node].
    """
    from LungNoduleUncertaintyLib.scene.sample import add_phantom

    volumeNode, pointsNode = add_phantom(slicer.mrmlScene, SAMPLE_NAME)
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    parameters = LungNoduleUncertaintyLogic().getParameterNode()
    parameters.volume, parameters.points, parameters.source = volumeNode, pointsNode, "point"
    return [volumeNode, pointsNode]


class LungNoduleUncertaintyWidget(ScriptedLoadableModuleWidget):
    """The panel as Slicer knows it; what it does is in `LungNoduleUncertaintyLib.panel.panel`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic = self.panel = None

    def setup(self):
        from LungNoduleUncertaintyLib.panel.panel import NodulePanel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LungNoduleUncertainty.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LungNoduleUncertaintyLogic()
        self.panel = NodulePanel(self)
        self.initializeParameterNode()

    def onReload(self):
        """Reload (in developer mode) brings the library's code as it is now, and not this file's alone."""
        for name in list(sys.modules):
            if name.partition(".")[0] in ("LungNoduleKit", "LungNoduleUncertaintyLib"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self):
        if self.panel is not None:
            self.panel.end()

    def enter(self):
        self.initializeParameterNode()

    def initializeParameterNode(self):
        """Shows this scene's choices; the first CT of the scene is chosen if none was."""
        from LungNoduleKit.scene.nodes import first_ct

        parameters = self.logic.getParameterNode()
        if parameters.volume is None:
            parameters.volume = first_ct(slicer.mrmlScene)
        self.panel.setParameters(parameters)


class LungNoduleUncertaintyLogic(ScriptedLoadableModuleLogic):
    """Segmentation without user interface. `lastResult` is what the last call of `segment` found: measurements,
    probability maps and warnings. `runs` (see `LungNoduleUncertaintyLib.scene.runs`) is what the panel works with.
    """

    def __init__(self, segmentNodule=None):
        """`segmentNodule` is called in place of the library's `segment_nodule`; then no packages are needed."""
        from LungNoduleUncertaintyLib.scene.runs import SegmentationRuns

        ScriptedLoadableModuleLogic.__init__(self)
        self._segmentNodule = segmentNodule
        self.runs = SegmentationRuns(segmentNodule)
        self.lastResult = None

    def getParameterNode(self):
        from LungNoduleUncertaintyLib.panel.parameters import parameter_class

        if not hasattr(self, "_parameterClass"):
            self._parameterClass = parameter_class()
        return self._parameterClass(super().getParameterNode())

    def segment(
        self,
        volumeNode,
        point=None,
        near=None,
        segmentationNode=None,
        model=None,
        device="auto",
        interactive=False,
        prefix="",
        thresholds=None,
        maps=(),
    ):
        """Adds the segments HC, LC and Final of a nodule, or Final alone if the model has nothing else, as one undo
        step; returns the segmentation node.

        point: (R, A, S) in the world, mm. near, in its place: (segmentation node, segment ID), a labelmap node, or a
        markups line along an axis of the nodule. segmentationNode: gets the segments; None: a new node is created.
        model: a bundle's name or path, a loaded model, or None for the shipped one. device: auto, cpu or cuda.
        interactive: whether the user may be asked to install missing packages; a script is never asked.
        prefix: comes before the segments' names, "Nodule 2" makes "Nodule 2 HC"; None: the next free "Nodule N".
        thresholds: in place of the model's, keys union, intersection, final (final alone where the model has nothing
        else). maps: names of maps that are added as volumes, as far as the model has them, see
        `LungNoduleUncertaintyLib.scene.outputs.MAP_VOLUMES`.

        Raises LungNoduleKit.errors.NoduleError with the reason in one line; the scene is then unchanged.
        """
        from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest

        self.ensurePackages(interactive)
        request = SegmentationRequest(
            volumeNode,
            point,
            near,
            segmentationNode,
            name=prefix,
            model=model,
            device=device,
            thresholds=thresholds,
            maps=tuple(maps),
        )
        stored = self.runs.run(request)
        self.lastResult = stored.result
        return stored.segmentationNode

    def nodules(self, segmentationNode):
        """The nodules of a segmentation, each with name, segment IDs and measurements; see `SegmentedNodule`.

        Those that changed since they were measured are measured again; the measurements of one that can't be are None.
        """
        from LungNoduleUncertaintyLib.scene.nodules import bring_up_to_date, nodules

        bring_up_to_date(segmentationNode)
        return nodules(segmentationNode)

    def measurementTable(self, segmentationNode):
        """The table node with a row for each nodule of the segmentation; made or brought up to date."""
        from LungNoduleUncertaintyLib.scene.outputs import measurement_table

        return measurement_table(segmentationNode)

    def densityPlot(self, nodule):
        """The chart node with the HU densities of a nodule's HC and LC, or of Final alone."""
        from LungNoduleUncertaintyLib.scene.outputs import plot_densities

        return plot_densities(nodule)

    def undo(self):
        """Takes back the last change to nodules made through this logic; returns what it was."""
        return self.runs.undo()

    def ensurePackages(self, interactive=False):
        """Installs PyTorch and the few other packages that are missing, if the user may be asked and agrees.

        Raises NoduleError if a package is still missing.
        """
        from LungNoduleUncertaintyLib.scene import packages as dependencies

        if self._segmentNodule is None:
            dependencies.ensure(self._ask if interactive else None)

    def _ask(self, missing):
        return slicer.util.confirmOkCancelDisplay(
            _(
                "Segmentation needs these Python packages: {names}. They are installed into this Slicer once; PyTorch "
                "can be several gigabytes and take some minutes. Install them now?"
            ).format(names=", ".join(missing)),
            _("Install Python packages"),
        )


class LungNoduleUncertaintyTest(ScriptedLoadableModuleTest):
    """Runs the logic on a synthetic nodule, in Slicer itself."""

    logic = None  # in place of the real one, set by tests without the application

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_SyntheticNodule()

    def test_SyntheticNodule(self):
        from LungNoduleKit.errors import NoduleError
        from LungNoduleUncertaintyLib.scene.segments import point_from_mask
        from LungNoduleUncertaintyLib.segments import SEGMENTS

        logic = self.logic
        if logic is None:
            logic = LungNoduleUncertaintyLogic()
            try:
                logic.ensurePackages()
            except NoduleError as error:
                self.skipTest(str(error))
        self.delayDisplay("Segmenting a synthetic nodule")
        center = (12.0, -20.0, 35.0)
        volumeNode = self._syntheticVolume(center, radius=7.0)
        nodesBefore = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
        segmentationNode = logic.segment(volumeNode, point=(13.0, -19.0, 35.5))
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == nodesBefore
        segmentation = segmentationNode.GetSegmentation()
        names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
        assert names == list(SEGMENTS)
        (nodule,) = logic.nodules(segmentationNode)
        assert nodule.measurements is None or nodule.measurements["volumes_mm3"]["final"] > 0
        finalID = segmentation.GetSegmentIdBySegmentName("Final")
        found = point_from_mask((segmentationNode, finalID))
        assert all(abs(a - b) < 1.5 for a, b in zip(found, center, strict=True)), f"{found} isn't {center}"
        self.delayDisplay("Test passed")

    def _syntheticVolume(self, center, radius):
        """A ball of soft tissue with a soft edge in lung, 96 x 96 x 64 voxels of 0.8 x 0.8 x 1.2 mm, left-handed."""
        import numpy as np
        import vtk
        from vtk.util.numpy_support import numpy_to_vtk

        spacing = np.array([0.8, 0.8, 1.2]) * [-1, -1, 1]
        origin = np.array([50.0, 18.0, -3.0])
        k, j, i = np.indices((64, 96, 96))
        distance = np.linalg.norm(np.stack([i, j, k], axis=-1) * spacing + origin - center, axis=-1)
        noise = np.random.default_rng(0).normal(0, 25, distance.shape)
        values = np.clip(radius - distance + 0.5, 0, 1) * 890 - 850 + noise
        image = vtk.vtkImageData()
        image.SetDimensions(96, 96, 64)
        image.GetPointData().SetScalars(numpy_to_vtk(values.astype(np.int16).ravel(), deep=True))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Synthetic nodule")
        node.SetAndObserveImageData(image)
        node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
        node.SetSpacing(*np.abs(spacing))
        node.SetOrigin(*origin)
        return node
