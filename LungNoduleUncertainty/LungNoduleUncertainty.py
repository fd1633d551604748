"""Lung Nodule Uncertainty: a point on a nodule in a chest CT becomes the segments HC, LC and Final.

The thin shell that Slicer loads at start-up: nothing but the standard library and Slicer is imported at the top.
"""

import importlib.util
import logging

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

_REQUIREMENTS = ("LungNoduleUncertainty-requirements.txt",)


class LungNoduleUncertainty(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Lung Nodule Uncertainty")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["LungNoduleUncertainty developers"]
        parent.helpText = _(
            "Segments the lung nodule at a point of a chest CT, with its uncertainty: HC is what every reader would "
            "include, LC what only some would, and Final the balanced outline. For research, not for clinical use."
        )
        parent.acknowledgementText = _(
            "The networks follow the UGS-Net papers; the outlines that they learned from are LIDC-IDRI's."
        )


class LungNoduleUncertaintyWidget(ScriptedLoadableModuleWidget):
    """A CT, a point, a segmentation, and a button."""

    def setup(self):
        import qt

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = LungNoduleUncertaintyLogic()
        form = qt.QFormLayout()
        self.volumeSelector = self._selector("vtkMRMLScalarVolumeNode", _("Chest CT in Hounsfield units."))
        form.addRow(_("CT:"), self.volumeSelector)
        self.pointSelector = slicer.qSlicerSimpleMarkupsWidget()
        self.pointSelector.setMRMLScene(slicer.mrmlScene)
        self.pointSelector.toolTip = _("Point list whose last point lies on the nodule.")
        form.addRow(_("Point:"), self.pointSelector)
        self.segmentationSelector = self._selector(
            "vtkMRMLSegmentationNode", _("Segmentation that gets the segments; none: a new one is created.")
        )
        self.segmentationSelector.noneEnabled = True
        self.segmentationSelector.noneDisplay = _("Create new segmentation")
        form.addRow(_("Segmentation:"), self.segmentationSelector)
        self.applyButton = qt.QPushButton(_("Apply"))
        form.addRow(self.applyButton)
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        form.addRow(self.statusLabel)
        self.layout.addLayout(form)
        self.layout.addStretch(1)
        self.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateApplyButton)
        self.pointSelector.connect("markupsNodeChanged()", self.updateApplyButton)
        self.applyButton.connect("clicked(bool)", self.onApply)
        self.updateApplyButton()

    def _selector(self, nodeType, toolTip):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = [nodeType]
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.toolTip = toolTip
        selector.setMRMLScene(slicer.mrmlScene)
        return selector

    def updateApplyButton(self, *_unused):
        ready = self.volumeSelector.currentNode() is not None and self.pointSelector.currentNode() is not None
        self.applyButton.enabled = ready
        self.applyButton.toolTip = _("Segment the nodule.") if ready else _("Select a CT and a point list.")

    def onApply(self, *_unused):
        from LungNoduleUncertaintyLib.errors import NoduleError

        self.statusLabel.text = _("Segmenting...")
        slicer.app.processEvents()
        try:
            with slicer.util.WaitCursor():
                segmentationNode = self.logic.segment(
                    self.volumeSelector.currentNode(),
                    point=self.logic.lastPoint(self.pointSelector.currentNode()),
                    segmentationNode=self.segmentationSelector.currentNode(),
                    interactive=True,
                )
        except NoduleError as error:
            self.statusLabel.text = str(error)
        except Exception as error:
            logging.exception("The nodule couldn't be segmented")
            self.statusLabel.text = _("Failed: {reason}").format(reason=error)
        else:
            self.segmentationSelector.setCurrentNode(segmentationNode)
            self.statusLabel.text = "\n".join([_("Done."), *self.logic.lastResult.warnings])


class LungNoduleUncertaintyLogic(ScriptedLoadableModuleLogic):
    """Segmentation without user interface. `lastResult` is what the last call of `segment` found: measurements,
    probability maps and warnings.
    """

    def __init__(self, segmentNodule=None):
        """`segmentNodule` stands in for `LungNoduleUncertaintyLib.segment_nodule`; then no packages are needed."""
        ScriptedLoadableModuleLogic.__init__(self)
        self._segmentNodule = segmentNodule
        self._loaded = None
        self.lastResult = None

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
    ):
        """Adds the segments HC, LC and Final of the nodule at a point; returns the segmentation node.

        point: (R, A, S) in the world, mm. near, in its place: (segmentation node, segment ID) or a labelmap node that
        marks the nodule. segmentationNode: gets the segments; None: a new node is created. model: a bundle's name or
        path, a loaded model, or None for the shipped one. device: auto, cpu or cuda. interactive: whether the user may
        be asked to install missing packages. prefix: comes before the segments' names.

        Raises LungNoduleUncertaintyLib.errors.NoduleError, with one line on what is wrong; the scene is then unchanged.
        """
        from LungNoduleUncertaintyLib import mrml_bridge

        if self._segmentNodule is None:
            self.ensurePackages(interactive)
            model = self._model(model, device)
        result = mrml_bridge.segment_result(
            volumeNode, point, near=near, model=model, device=device, segment=self._segmentNodule
        )
        segmentationNode = mrml_bridge.add_result(result, volumeNode, segmentationNode, prefix)
        self.lastResult = result
        return segmentationNode

    def lastPoint(self, markupsNode):
        """Position (R, A, S) in the world, mm, of a point list's last point. Raises NoduleError if it has none."""
        from LungNoduleUncertaintyLib.errors import PointError

        for number in reversed(range(markupsNode.GetNumberOfControlPoints())):
            if markupsNode.GetNthControlPointPositionStatus(number) == markupsNode.PositionDefined:
                position = [0.0, 0.0, 0.0]
                markupsNode.GetNthControlPointPositionWorld(number, position)
                return tuple(position)
        raise PointError(f"point list {markupsNode.GetName()!r}: place a point on the nodule first")

    def ensurePackages(self, interactive=False):
        """Installs PyTorch and the few other packages that are missing, if the user may be asked and agrees.

        Raises NoduleError if a package is missing and nobody may be asked, RuntimeError if the user declines.
        """
        import os

        import slicer.packaging

        from LungNoduleUncertaintyLib.errors import NoduleError
        from LungNoduleUncertaintyLib.resources import resource_path

        requirements = slicer.packaging.load_requirements(os.fspath(resource_path(*_REQUIREMENTS)))
        missing = [] if importlib.util.find_spec("torch") else ["torch"]
        missing += [str(requirement) for requirement in requirements if not slicer.packaging.pip_check(requirement)]
        if not missing:
            return
        if not interactive:
            raise NoduleError(f"Python packages are missing: {', '.join(missing)}")
        if "torch" in missing:
            try:
                import PyTorchUtils
            except ImportError:
                raise NoduleError("PyTorch is missing: install Slicer's PyTorch extension and restart Slicer") from None
            if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
                raise NoduleError("PyTorch is missing: it wasn't installed")
        slicer.packaging.pip_ensure(requirements, requester="LungNoduleUncertainty")

    def _model(self, model, device):
        """The model, loaded once as long as the same one is asked for."""
        from LungNoduleUncertaintyLib import load_model

        if model is not None and not isinstance(model, (str, bytes)) and not hasattr(model, "__fspath__"):
            return model
        asked = (None if model is None else str(model), device)
        if self._loaded is None or self._loaded[0] != asked:
            self._loaded = (asked, load_model(model, device))
        return self._loaded[1]


class LungNoduleUncertaintyTest(ScriptedLoadableModuleTest):
    """Runs the logic on a synthetic nodule, in Slicer itself."""

    logic = None  # in place of the real one, set by tests without the application

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_SyntheticNodule()

    def test_SyntheticNodule(self):
        from LungNoduleUncertaintyLib import mrml_bridge
        from LungNoduleUncertaintyLib.errors import NoduleError

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
        assert names == list(mrml_bridge.SEGMENTS)
        finalID = segmentation.GetSegmentIdBySegmentName("Final")
        found = mrml_bridge.point_from_mask((segmentationNode, finalID))
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
