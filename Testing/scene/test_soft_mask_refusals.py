"""What Soft Mask Labeler refuses, or fails at, leaves the scene as it was and says why."""

import numpy as np
import pytest
from soft_lesion import RADIUS, SHAPE, add_lesion, add_line, add_recist, add_segments, distance

from LungNoduleKit.scene.nodes import line_ends
from LungNoduleKit.scene.worker import CancelledError
from SoftMaskLabelerLib.errors import ImageError, MaskError, RecistError, SoftMaskError, TrimapError
from SoftMaskLabelerLib.scene import packages as dependencies
from SoftMaskLabelerLib.scene import results, sources
from SoftMaskLabelerLib.scene.runs import SoftMaskRequest


def bad_inputs(tools, scene, matrix):
    """(name, what softMask is called with, type of the error, part of its message)"""
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    readers = add_segments(scene, volume, [inside])
    node = readers[0][0]
    node.GetSegmentation().AddEmptySegment("empty", "Nothing")
    rgb = tools.add_volume(scene, np.zeros((*SHAPE, 3), np.uint8), matrix, "RGB", "vtkMRMLVectorVolumeNode")
    blank = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Blank")
    flat = add_lesion(tools, scene, matrix)
    squash = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Squash")
    squash.SetMatrixTransformToParent(tools.matrix_of(np.diag([1.0, 1.0, 0.0, 1.0])))
    flat.SetAndObserveTransformNodeID(squash.GetID())
    far = tools.add_volume(scene, np.zeros(SHAPE, np.int16), matrix, "Far")
    far.SetOrigin(900, 900, 900)
    lines = add_recist(scene, volume)
    half = add_line(scene, "Half", (0, 0, 0))
    step = (matrix[:3, :3] @ [0, 0, 3]).tolist()
    a, b = ([*np.array(p) + step] for p in line_ends(lines[1]))
    elsewhere = add_line(scene, "Other slice", a, b)
    labels = tools.add_volume(scene, np.full(SHAPE, 7, np.uint8), matrix, "Sevens", "vtkMRMLLabelMapVolumeNode")
    unknown = tools.add_volume(scene, np.ones(SHAPE, np.uint8), matrix, "Ones", "vtkMRMLLabelMapVolumeNode")
    return [
        (None, {"segments": readers}, ImageError, "not a volume"),
        (rgb, {"segments": readers}, ImageError, "'RGB': 3 values per voxel"),
        (blank, {"segments": readers}, ImageError, "'Blank': it has no voxels"),
        (flat, {"segments": readers}, ImageError, "span no space"),
        (far, {"segments": readers}, MaskError, "outside of volume 'Far'"),
        (far, {"lines": lines}, RecistError, "an end lies outside of volume 'Far'"),
        (volume, {}, MaskError, "give either"),
        (volume, {"segments": readers, "lines": lines}, MaskError, "only one of them"),
        (volume, {"segments": [(node, "empty")]}, MaskError, "'Nothing' of 'Readers': it "),
        (volume, {"segments": [(node, "none")]}, MaskError, "no such segment"),
        (volume, {"segments": [(volume, "a")]}, MaskError, "isn't a segmentation"),
        (volume, {"lines": (lines[0],)}, RecistError, "two lines"),
        (volume, {"lines": (lines[0], half)}, RecistError, "'Half': place both of its ends"),
        (volume, {"lines": (lines[0], lines[0])}, RecistError, "both the long and the short"),
        (volume, {"lines": (lines[0], elsewhere)}, RecistError, "different slices"),
        (volume, {"lines": lines, "dimension": 3}, RecistError, "2D, not 3D"),
        (volume, {"trimap": labels}, TrimapError, r"'Sevens': its labels must be 0, 1 and 2, not \[7\]"),
        (volume, {"trimap": unknown}, TrimapError, "'Ones': it has no known lesion"),
        (volume, {"trimap": node}, TrimapError, "no segment named Lesion"),
        (volume, {"segments": readers, "segmentationNode": volume}, ImageError, "isn't a segmentation"),
        (volume, {"segments": readers, "window": (400, -1000)}, SoftMaskError, "window"),
        (volume, {"segments": readers, "erosion": 1}, SoftMaskError, "parameters: .*erosion"),
        (volume, {"segments": readers, "erode_mm": -1}, SoftMaskError, "erode_mm is a length"),
    ]


def test_bad_input_is_named_and_leaves_the_scene_as_it_was(scene, tools, labeler_logic):
    cases = bad_inputs(tools, scene, tools.oblique())
    before = tools.snapshot(scene)
    for volume, arguments, error, message in cases:
        with pytest.raises(error, match=message):
            labeler_logic.softMask(volume, **arguments)
        assert tools.snapshot(scene) == before, message


@pytest.mark.parametrize("place", ["add_segment", "_fill", "_add_to", "place_beside"])
def test_failure_while_storing_leaves_the_scene_as_it_was(scene, tools, matrix, labeler_logic, monkeypatch, place):
    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    before = tools.snapshot(scene)

    def fail(*arguments, **more):
        raise MemoryError("full")

    monkeypatch.setattr(results, place, fail)
    with pytest.raises(MemoryError):
        labeler_logic.softMask(volume, segments=segments)
    if place in ("_fill", "place_beside"):
        with pytest.raises(MemoryError):
            labeler_logic.trimap(volume, segments=segments)
    assert tools.snapshot(scene) == before
    assert labeler_logic.undo() == ""


def test_cancel_and_removed_volume_store_nothing(scene, tools, matrix, labeler_logic):

    volume, inside = add_lesion(tools, scene, matrix), distance(matrix) <= RADIUS
    segments = add_segments(scene, volume, [inside])
    request = SoftMaskRequest(volume, sources.Source(segments))
    before = tools.snapshot(scene)
    job = labeler_logic.runs.start(request)
    job.cancel()
    assert job.wait(10)
    with pytest.raises(CancelledError):
        labeler_logic.runs.finish()
    labeler_logic.runs.start(request)
    with pytest.raises(SoftMaskError, match="is being computed"):
        labeler_logic.runs.start(request)
    labeler_logic.runs.drop()
    assert tools.snapshot(scene) == before
    job = labeler_logic.runs.start(request)
    assert job.wait(10)
    scene.RemoveNode(volume)
    after = tools.snapshot(scene)
    with pytest.raises(ImageError, match="removed from the scene"):
        labeler_logic.runs.finish()
    assert tools.snapshot(scene) == after
    labeler_logic.runs.worker.stop()


def test_a_script_is_never_asked(labeler, monkeypatch):
    find = dependencies.importlib.util.find_spec
    monkeypatch.setattr(dependencies.importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name))
    logic = labeler.SoftMaskLabelerLogic()
    monkeypatch.setattr(logic, "_ask", lambda missing: pytest.fail("asked"))
    assert dependencies.missing() == ["opencv-python-headless>=4.8"]
    assert not logic.ensurePackages()
    asked = []
    assert not dependencies.ensure(lambda missing: asked.append(missing))
    assert asked == [["opencv-python-headless>=4.8"]]
