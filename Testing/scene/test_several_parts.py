"""A segment of several parts as the place of nodules: each part becomes a nodule, and one undo takes all back."""

import numpy as np
import pytest
import slicer

from LungNoduleKit.errors import NoNoduleError, PointError
from LungNoduleUncertaintyLib.scene import nodules as scene_nodules
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns

INDICES = [(20, 18, 12), (34, 30, 20), (8, 28, 10)]


@pytest.fixture
def runs(tools):
    runs = SegmentationRuns(tools.fake_segment)
    yield runs
    runs.worker.stop()


@pytest.fixture
def marked(scene, tools):
    """(CT with three balls, their centers, a detector's segment with a part on each)."""
    matrix = tools.oblique(left_handed=True)
    volume, centers = tools.add_balls(scene, matrix, INDICES)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Detector")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("all", "nodules")
    shape = slicer.util.arrayFromVolume(volume).shape
    mask = np.any([tools.ball(shape, matrix, center, 3.0) for center in centers], axis=0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, "all", volume)
    return volume, centers, node


def test_each_part_becomes_a_nodule_and_one_undo_takes_all(marked, runs, scene, tools):
    volume, centers, node = marked
    alone = [
        scene_nodules.find(stored.segmentationNode, stored.nodule.key).measurements
        for stored in (runs.run(SegmentationRequest(volume, center)) for center in centers)
    ]
    while runs.undo():
        pass
    start, told = tools.snapshot(scene), []
    request = SegmentationRequest(volume, near=(node, "all"), maps=("Final probability",))
    found = runs.computation(request)(lambda stage, share: told.append((stage, share)))
    assert told[-1][0] == "nodule 3 of 3: outlining"
    assert [share for _, share in told] == sorted(share for _, share in told)
    stored = runs.store(request, found)
    listed = scene_nodules.nodules(stored.segmentationNode)
    assert [nodule.name for nodule in listed] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    volumes = sorted(nodule.measurements["volumes_mm3"]["final"] for nodule in listed)
    assert volumes == pytest.approx(sorted(m["volumes_mm3"]["final"] for m in alone))
    assert len(stored.before) == 2
    assert stored.created
    assert runs.undo() == "segment 3 nodules"
    volumes = [n for n in start[0] if "ScalarVolumeNode" in n[0]]
    assert [n for n in tools.snapshot(scene)[0] if "SegmentationNode" in n[0]] == [
        n for n in start[0] if "SegmentationNode" in n[0]
    ]
    assert volumes


def test_a_part_without_a_nodule_is_told(marked, runs, tools):
    volume, centers, node = marked

    def segment(ct, point_lps, **more):
        if np.allclose(point_lps, np.multiply(centers[0], (-1, -1, 1)), atol=1.5):
            raise NoNoduleError("no nodule here")
        return tools.fake_segment(ct, point_lps, **more)

    runs._segment = segment
    stored = runs.run(SegmentationRequest(volume, near=(node, "all"), name="Detected"))
    names = [nodule.name for nodule in scene_nodules.nodules(stored.segmentationNode)]
    assert names == ["Detected 1", "Detected 2"]
    (note,) = stored.notes
    assert note.endswith("of 3: no nodule here")


def test_one_nodule_is_not_segmented_again_from_several(marked, runs):
    volume, centers, node = marked
    stored = runs.run(SegmentationRequest(volume, centers[0]))
    with pytest.raises(PointError, match="3 parts"):
        runs.run(
            SegmentationRequest(
                volume, near=(node, "all"), segmentationNode=stored.segmentationNode, replace=stored.nodule.key
            )
        )


def test_all_or_nothing(marked, runs, scene, tools, monkeypatch):
    volume, _, node = marked
    request = SegmentationRequest(volume, near=(node, "all"))
    found = runs.computation(request)(lambda stage, share: None)
    before, count, stored = tools.snapshot(scene), [], SegmentationRuns._stored

    def breaks(self, *arguments):
        count.append(1)
        if len(count) == 3:
            raise MemoryError
        return stored(self, *arguments)

    monkeypatch.setattr(SegmentationRuns, "_stored", breaks)
    with pytest.raises(MemoryError):
        runs.store(request, found)
    assert tools.snapshot(scene) == before
    assert not runs.can_undo
