"""Pictures of a MRML scene off screen, drawn by Slicer's own displayable managers without the application.

The slice view is Slicer's slice logic (the volume reformatted and shown with its display node's window) below the
displayable managers for slices; the 3D view is a renderer with those for 3D. What is seen is what the nodes' own
display nodes say. The view, slice and camera nodes that a picture needs are removed from the scene afterwards.

Left out is `vtkMRMLViewDisplayableManager`: it draws the box and the axis labels, which the pictures don't show.
"""

import contextlib
import types
from dataclasses import dataclass

import numpy as np

LUNG_WINDOW = (1500, -600)  # width and level, HU
SLICE_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLRulerDisplayableManager")
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
_LAYOUT = "Picture"  # name that ties a picture's view, slice and camera nodes together


@dataclass
class Picture:
    """A drawn view: RGB pixels (uint8, (height, width, 3), first row on top) and where RAS points (mm) are in it."""

    pixels: np.ndarray
    ras_to_pixel: np.ndarray | None = None  # 4x4, see `project`; slice views only

    def project(self, points_ras):
        """Column, row (pixels, centers of pixels are whole) and distance from the slice (mm) of RAS points (n, 3)."""
        points = np.atleast_2d(points_ras)
        return points @ self.ras_to_pixel[:3, :3].T + self.ras_to_pixel[:3, 3]

    def unproject(self):
        """World points (R, A, S, mm; (height, width, 3)) of the pixels' centers."""
        rows, columns = np.indices(self.pixels.shape[:2])
        inverse = np.linalg.inv(self.ras_to_pixel)
        return np.stack([columns, rows, np.zeros_like(rows)], axis=-1) @ inverse[:3, :3].T + inverse[:3, 3]


def off_screen_gl():
    """None if VTK can draw off screen on this machine, else the reason why it can't."""
    import vtk

    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetSize(16, 16)
    try:
        if not window.SupportsOpenGL():
            return "VTK can't draw off screen: " + " ".join(window.ReportCapabilities().split())[:200]
    finally:
        window.Finalize()
    return None


def new_scene():
    """A MRML scene with color tables and the logics that segmentations and volumes need, as `slicer.mrmlScene`."""
    import slicer

    scene, application, colors = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic(), slicer.vtkMRMLColorLogic()
    application.SetMRMLScene(scene)
    colors.SetMRMLScene(scene)
    application.SetModuleLogic("Colors", colors)
    logics = {"colors": colors}
    for name in ("Volumes", "Segmentations"):
        kind = {"Volumes": "vtkSlicerVolumesLogic", "Segmentations": "vtkSlicerSegmentationsModuleLogic"}[name]
        logic = logics[name.lower()] = getattr(slicer, kind)()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace(
        **{name: types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in logics.items()}
    )
    slicer._application_logic = application  # keeps it alive
    return scene


def add_ct(scene, image, name="CT"):
    """A volume node of a SimpleITK image (LPS mm, HU), shown with the lung window."""
    import SimpleITK as sitk
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    data = vtk.vtkImageData()
    data.SetDimensions(image.GetSize())
    data.GetPointData().SetScalars(numpy_to_vtk(sitk.GetArrayFromImage(image).ravel(), deep=True))
    node.SetAndObserveImageData(data)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1, 1, 1]) @ matrix))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.AutoWindowLevelOff()
    display.SetWindowLevel(*LUNG_WINDOW)
    return node


def render_slice(
    scene,
    volumeNode,
    center_ras,
    *,
    orientation="Axial",
    field_of_view_mm=60,
    size=(600, 600),
    path=None,
    ruler=False,
):
    """Slice view of a volume, and of the segmentations that lie there, centered on a point; returns a `Picture`.

    `center_ras` is (R, A, S) in the world, mm; `orientation` is Axial, Coronal or Sagittal; `field_of_view_mm` is the
    width shown; `size` is (width, height) in pixels. `path` gets the picture as a PNG, whole or not at all.
    """
    import slicer
    import vtk

    with _drawing(scene) as application:
        node = slicer.vtkMRMLSliceNode()
        turn = vtk.vtkMatrix3x3()
        getattr(slicer.vtkMRMLSliceNode, f"Get{orientation}SliceToRASMatrix")(turn)
        node.AddSliceOrientationPreset(orientation, turn)
        node.SetLayoutName(_LAYOUT)
        node = scene.AddNode(node)
        composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
        composite.SetLayoutName(_LAYOUT)
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        logic.SetSliceNode(node)
        logic.SetSliceCompositeNode(composite)
        node.SetOrientation(orientation)
        node.SetDimensions(*size, 1)
        node.SetFieldOfView(field_of_view_mm, field_of_view_mm * size[1] / size[0], 1)
        node.JumpSliceByCentering(*center_ras)
        if ruler:
            node.SetRulerType(node.RulerTypeThick)
        composite.SetBackgroundVolumeID(volumeNode.GetID())
        logic.UpdatePipeline()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        image = vtk.vtkActor2D()
        image.SetMapper(mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        with _view(size, SLICE_MANAGERS, application, node, [image]) as (_, window):
            pixels = _draw(window, path)
        to_pixel = np.linalg.inv(slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()))
        to_pixel[1] = [0, 0, 0, size[1] - 1] - to_pixel[1]  # VTK counts rows from below
        logic.SetMRMLScene(None)
    return Picture(pixels, to_pixel)


def render_3d(
    scene,
    center_ras,
    *,
    size=(600, 600),
    path=None,
    height_mm=40,
    azimuth=25,
    elevation=20,
    background=(0.15, 0.15, 0.17),
    marker=False,
):
    """3D view of the scene's segmentations around a point, seen from the patient's front; returns a `Picture`.

    `center_ras` is (R, A, S) in the world, mm; `height_mm` is what is seen of it from top to bottom; `azimuth` and
    `elevation` (degrees) turn the camera to the patient's left and up. `marker` shows a cube with the patient's sides.
    Segmentations are drawn from their closed surfaces; those that have none get them, as by Slicer's "Show 3D".
    """
    import slicer

    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        if not node.GetSegmentation().ContainsRepresentation(surface):
            node.CreateClosedSurfaceRepresentation()
    with _drawing(scene) as application:
        view = slicer.vtkMRMLViewNode()
        view.SetLayoutName(_LAYOUT)
        view = scene.AddNode(view)
        camera = scene.AddNewNodeByClass("vtkMRMLCameraNode")
        camera.SetLayoutName(_LAYOUT)
        if marker:
            view.SetOrientationMarkerType(view.OrientationMarkerTypeCube)
        with _view(size, THREE_D_MANAGERS, application, view) as (renderer, window):
            # Peeling draws translucent surfaces in their order; it excludes multisampling, so edges are smoothed after.
            window.SetMultiSamples(0)
            window.SetAlphaBitPlanes(True)
            renderer.SetUseDepthPeeling(True)
            renderer.SetUseFXAA(True)
            renderer.SetBackground(*background)
            eye, distance = renderer.GetActiveCamera(), 10 * height_mm
            eye.SetFocalPoint(*center_ras)
            eye.SetPosition(center_ras[0], center_ras[1] + distance, center_ras[2])
            eye.SetViewUp(0, 0, 1)
            eye.SetViewAngle(np.degrees(2 * np.arctan(height_mm / 2 / distance)))
            eye.Azimuth(azimuth)
            eye.Elevation(elevation)
            renderer.ResetCameraClippingRange()
            pixels = _draw(window, path)
    return Picture(pixels)


@contextlib.contextmanager
def _drawing(scene):
    """An application logic for the scene; nodes that are added while drawing are removed in the end."""
    import slicer

    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    application = slicer.vtkMRMLApplicationLogic()
    application.SetMRMLScene(scene)
    try:
        yield application
    finally:
        nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in reversed(nodes):
            if node.GetID() not in before:
                scene.RemoveNode(node)
        application.SetMRMLScene(None)


@contextlib.contextmanager
def _view(size, managers, application, node, props=()):
    """(renderer, window) of a view node with its displayable managers, which are let go before the window is.

    `props` are drawn too, before what the managers add.
    """
    import slicer
    import vtk

    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetSize(*size)
    renderer = vtk.vtkRenderer()
    window.AddRenderer(renderer)
    for prop in props:
        renderer.AddViewProp(prop)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    for name in managers:
        manager = getattr(slicer, name)()
        manager.SetMRMLApplicationLogic(application)
        group.AddDisplayableManager(manager)
    group.SetMRMLDisplayableNode(node)
    try:
        yield renderer, window
    finally:
        group.SetMRMLDisplayableNode(None)
        group.SetRenderer(None)
        window.RemoveRenderer(renderer)
        window.Finalize()


def _draw(window, path):
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    from LungNoduleKit.files import write_whole

    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.SetInputBufferTypeToRGB()
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    if path is not None:
        writer = vtk.vtkPNGWriter()
        writer.SetInputData(image)

        def write(temporary):
            writer.SetFileName(str(temporary))
            writer.Write()

        write_whole(path, write)
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
