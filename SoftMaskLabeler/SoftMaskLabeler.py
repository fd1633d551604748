"""Soft Mask Labeler: a segment, several readers' segments or RECIST lines become a soft mask of a lesion.

The thin shell that Slicer loads at start-up: nothing but the standard library and Slicer is imported at the top.
"""

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


class SoftMaskLabeler(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Soft Mask Labeler")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["LungNoduleUncertainty"]  # whose folder holds LungNoduleKit
        parent.contributors = ["LungNoduleUncertainty developers"]
        parent.helpText = _(
            "Makes a soft mask of a lesion, how much of each voxel belongs to it, from a segment, from the segments of "
            "several readers or from the two lines of a RECIST measurement, by closed-form matting. For research, not "
            "for clinical use."
        )
        parent.acknowledgementText = _(
            "The trimaps follow the DSNet papers; the matting is that of Levin, Lischinski and Weiss (2008)."
        )


class SoftMaskLabelerWidget(ScriptedLoadableModuleWidget):
    """The panel as Slicer knows it; what it does is in `SoftMaskLabelerLib.panel.panel`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic = self.panel = None

    def setup(self):
        from SoftMaskLabelerLib.panel.panel import SoftMaskPanel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SoftMaskLabeler.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SoftMaskLabelerLogic()
        self.panel = SoftMaskPanel(self)
        self.initializeParameterNode()

    def onReload(self):
        """Reload (in developer mode) brings the library's code as it is now, and not this file's alone."""
        for name in list(sys.modules):
            if name.partition(".")[0] in ("LungNoduleKit", "SoftMaskLabelerLib"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self):
        if self.panel is not None:
            self.panel.end()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.panel.leave()

    def initializeParameterNode(self):
        """Shows this scene's choices; the first image of the scene is chosen if none was."""
        from LungNoduleKit.scene.nodes import first_ct

        parameters = self.logic.getParameterNode()
        if parameters.volume is None:
            parameters.volume = first_ct(slicer.mrmlScene)
        self.panel.setParameters(parameters)


class SoftMaskLabelerLogic(ScriptedLoadableModuleLogic):
    """Soft masks without user interface. `lastResult` is what the last call of `softMask` added: the nodes, the
    segment's ID and notes. `runs` (see `SoftMaskLabelerLib.scene.runs`) is what the panel works with.
    """

    def __init__(self, softMaskVolume=None):
        """`softMaskVolume` is called in place of `SoftMaskLabelerLib.pipeline.soft_mask_volume`."""
        from SoftMaskLabelerLib.scene.runs import SoftMaskRuns

        ScriptedLoadableModuleLogic.__init__(self)
        self.runs = SoftMaskRuns(softMaskVolume)
        self.lastResult = None

    def getParameterNode(self):
        from SoftMaskLabelerLib.panel.parameters import parameter_class

        if not hasattr(self, "_parameterClass"):
            self._parameterClass = parameter_class()
        return self._parameterClass(super().getParameterNode())

    def softMask(
        self,
        volumeNode,
        segments=(),
        lines=(),
        trimap=None,
        segmentationNode=None,
        interactive=False,
        **parameters,
    ):
        """Adds the soft mask of a lesion as a float32 volume, and its binarized segment, as one undo step.

        The lesion is marked by one of: segments, [(segmentation node, segment ID), ...], one or several readers';
        lines, the two markups lines of a RECIST measurement; trimap, a labelmap node (0 background, 1 unknown,
        2 lesion) or a segmentation node with the segments Unknown and Lesion. segmentationNode: gets the binarized
        segment (soft mask of at least 0.5); None: a new node is created. interactive: whether the user may be asked to
        install OpenCV, which lines are better with; a script is never asked. parameters: those of
        `SoftMaskLabelerLib.pipeline.Parameters`, such as erode_mm, dilate_mm, dimension, window, epsilon, iterations.

        Returns the soft mask's volume node. Raises SoftMaskLabelerLib.errors.SoftMaskError, with one line on what is
        wrong; the scene is then unchanged.
        """
        request = self._request(volumeNode, segments, lines, trimap, segmentationNode, parameters)
        if request.source.lines:
            self.ensurePackages(interactive)
        self.lastResult = self.runs.run(request)
        return self.lastResult.softMaskNode

    def trimap(self, volumeNode, segments=(), lines=(), asSegmentation=False, **parameters):
        """Adds the trimap of a lesion, to be edited and given to `softMask`, as one undo step; returns the node.

        A labelmap node (0 background, 1 unknown, 2 lesion), or a segmentation node with the segments Unknown and
        Lesion. The arguments and errors are those of `softMask`.
        """
        request = self._request(volumeNode, segments, lines, None, None, parameters)
        return self.runs.add_trimap(request, segments=asSegmentation)

    def undo(self):
        """Takes back the last soft mask or trimap made through this logic; returns what it was."""
        return self.runs.undo()

    def ensurePackages(self, interactive=False):
        """Installs OpenCV if it is missing and the user may be asked and agrees; returns whether it is there."""
        from SoftMaskLabelerLib.scene import packages as dependencies

        return dependencies.ensure(self._ask if interactive else None)

    def _request(self, volumeNode, segments, lines, trimap, segmentationNode, parameters):
        from SoftMaskLabelerLib.scene.runs import SoftMaskRequest
        from SoftMaskLabelerLib.scene.sources import Source

        source = Source(list(segments), tuple(lines), trimap)
        return SoftMaskRequest(volumeNode, source, parameters, segmentationNode)

    def _ask(self, missing):
        return slicer.util.confirmOkCancelDisplay(
            _(
                "For RECIST lines this Python package is wanted: {names}. Without it an ellipse takes the place of the "
                "lesion's outline. Install it into this Slicer now?"
            ).format(names=", ".join(missing)),
            _("Install Python packages"),
        )


class SoftMaskLabelerTest(ScriptedLoadableModuleTest):
    """Runs the logic on a synthetic lesion, in Slicer itself."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_SyntheticLesion()

    def test_SyntheticLesion(self):
        import numpy as np

        self.delayDisplay("Making the soft mask of a synthetic lesion")
        volumeNode, segmentationNode = self._syntheticLesion()
        logic = SoftMaskLabelerLogic()
        segments = [(segmentationNode, segmentationNode.GetSegmentation().GetNthSegmentID(0))]
        softMaskNode = logic.softMask(volumeNode, segments=segments)
        alpha = slicer.util.arrayFromVolume(softMaskNode)
        assert alpha.dtype == np.float32
        assert alpha.min() == 0
        assert alpha.max() == 1
        soft = float(((alpha > 0.05) & (alpha < 0.95)).sum())
        assert 0 < soft < (alpha > 0).sum(), soft
        assert logic.lastResult.segmentationNode.GetSegmentation().GetNumberOfSegments() == 1
        assert logic.undo() == "soft mask"
        assert softMaskNode.GetScene() is None
        self.delayDisplay("Test passed")

    def _syntheticLesion(self):
        """A ball of tissue with a soft edge in lung, 64 x 64 x 24 voxels of 0.8 x 0.8 x 1.5 mm, and its segment."""
        import numpy as np
        import vtk
        from vtk.util.numpy_support import numpy_to_vtk

        k, j, i = np.indices((24, 64, 64))
        distance = np.sqrt(((i - 32) * 0.8) ** 2 + ((j - 32) * 0.8) ** 2 + ((k - 12) * 1.5) ** 2)
        noise = np.random.default_rng(0).normal(0, 20, distance.shape)
        values = np.clip((8 - distance) / 3 + 0.5, 0, 1) * 890 - 850 + noise
        image = vtk.vtkImageData()
        image.SetDimensions(64, 64, 24)
        image.GetPointData().SetScalars(numpy_to_vtk(values.astype(np.int16).ravel(), deep=True))
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Synthetic lesion")
        volumeNode.SetAndObserveImageData(image)
        volumeNode.SetSpacing(0.8, 0.8, 1.5)
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesion")
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        segmentID = segmentationNode.GetSegmentation().AddEmptySegment("Lesion")
        mask = (distance <= 8).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentationNode, segmentID, volumeNode)
        return volumeNode, segmentationNode
