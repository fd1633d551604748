"""Readers' files that Slicer's own storage node has written: the same readers as before."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from LungNoduleKit.errors import MaskError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.readers import read_readers
from LungNoduleKit.segmentation_file import write_segmentation
from SoftMaskLabelerLib.dataset.sources import folder_cases
from Training.data.folder import load_folder
from Training.data.nodule import DatasetError

GRID = Grid((24, 22, 18), (0.8, 0.8, 0.8), (-12.0, 30.0, -200.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
BOXES = {"Reader 1": (4, 9), "Reader 2": (9, 12), "Reader 3": (12, 17)}  # slices: no two overlap


def mask_of(low, high):
    mask = np.zeros(GRID.shape, np.uint8)
    mask[low:high, 6:14, 5:17] = 1
    return mask


MASKS = {name: mask_of(*box) for name, box in BOXES.items()}


@pytest.fixture
def folder(tmp_path):
    """A data folder with one nodule of three readers."""
    hu = np.where(np.any(list(MASKS.values()), axis=0), 20, -850).astype(np.int16)
    sitk.WriteImage(GRID.image(hu), str(tmp_path / "N_ct.nrrd"))
    segments = [(name, GRID.image(mask), (1.0, 0.0, 0.0)) for name, mask in MASKS.items()]
    write_segmentation(tmp_path / "N_readers.seg.nrrd", segments)
    (tmp_path / "nodules.csv").write_text("nodule_id,patient_id,fold,readers\nN,P,0,3\n")
    return tmp_path


def saved_by_slicer(scene, path, change=None):
    """Loads a segmentation into a scene, changes it, and saves it in place; the number of its layers."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "readers")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode", "storage")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    if change:
        change(node.GetSegmentation())
    storage.CropToMinimumExtentOn() if hasattr(storage, "CropToMinimumExtentOn") else None
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert storage.WriteData(node)
    return node.GetSegmentation().GetNumberOfLayers()


def arrays(folder):
    (nodule,) = load_folder(folder, progress=False)
    return nodule.readers


def test_segments_in_one_layer_and_on_a_cropped_grid(folder, scene):
    before = arrays(folder)
    path = folder / "N_readers.seg.nrrd"
    assert saved_by_slicer(scene, path) == 1  # three readers, one layer
    assert sitk.ReadImage(str(path)).GetNumberOfComponentsPerPixel() == 1
    assert before.shape == (3, *GRID.shape)
    assert np.array_equal(arrays(folder), before)
    (case,) = folder_cases(folder)
    loaded = case.load("readers", 1)
    assert len(loaded.masks) == 3
    assert loaded.notes == []


def rename(segmentation, old, new):
    segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(old)).SetName(new)


def test_a_segment_more_is_no_reader(folder, scene):
    def add(segmentation):
        segmentation.AddEmptySegment("Vessel", "Vessel")
        segmentation.GetSegment("Vessel").DeepCopy(segmentation.GetSegment("Reader_1"))
        segmentation.GetSegment("Vessel").SetName("Vessel")

    before = arrays(folder)
    saved_by_slicer(scene, folder / "N_readers.seg.nrrd", add)
    with pytest.warns(UserWarning, match="no readers and left out: Vessel"):
        assert np.array_equal(arrays(folder), before)
    (case,) = folder_cases(folder)
    loaded = case.load("readers", 1)
    assert len(loaded.masks) == 3
    assert "left out: Vessel" in loaded.notes[0]


def test_reordered_readers_come_by_their_numbers(folder, scene):
    before = arrays(folder)
    path = folder / "N_readers.seg.nrrd"
    saved_by_slicer(scene, path, lambda s: s.SetSegmentIndex("Reader_1", 2))
    assert list(read_readers(path)) == ["Reader 1", "Reader 2", "Reader 3"]
    assert np.array_equal(arrays(folder), before)


def test_a_renamed_reader_is_missed(folder, scene):
    saved_by_slicer(scene, folder / "N_readers.seg.nrrd", lambda s: rename(s, "Reader 2", "Anna"))
    with pytest.warns(UserWarning, match="left out: Anna"), pytest.raises(DatasetError, match="2 readers, but nodules"):
        arrays(folder)


def test_names_that_say_too_little_are_refused(folder, scene):
    path = folder / "N_readers.seg.nrrd"
    saved_by_slicer(scene, path, lambda s: rename(s, "Reader 2", "reader_1"))
    with pytest.raises(MaskError, match="one reader's name"):
        read_readers(path)
    write_segmentation(path, [(n, GRID.image(MASKS["Reader 1"]), (1, 0, 0)) for n in ("Reader 1", "Nodule", "Other")])
    with pytest.raises(MaskError, match="only one is named as a reader"):
        read_readers(path)
    write_segmentation(path, [(n, GRID.image(MASKS["Reader 1"]), (1, 0, 0)) for n in ("Anna", "Ben")])
    with pytest.warns(UserWarning, match=r"all are taken as readers: Anna, Ben"):
        assert list(read_readers(path)) == ["Anna", "Ben"]


@pytest.mark.parametrize(("shift", "words"), [((0, 0, 0), None), ((-7, 0, 0), "reaches outside of the CT")])
def test_a_grid_larger_than_the_cube(folder, shift, words):
    """As after an import with the whole scan as reference; what reaches outside of the cube would be lost."""
    before, larger = arrays(folder), GRID.part((-6, -5, -4), (40, 36, 30))
    segments = []
    for name, mask in MASKS.items():
        array = np.zeros(larger.shape, np.uint8)
        array[4 : 4 + 18, 5 : 5 + 22, 6 : 6 + 24] = mask
        segments.append((name, larger.image(np.roll(array, shift[0], axis=2)), (1, 0, 0)))
    write_segmentation(folder / "N_readers.seg.nrrd", segments)
    if words:
        with pytest.raises(DatasetError, match=words):
            arrays(folder)
    else:
        assert np.array_equal(arrays(folder), before)
    off = GRID.part((0, 0, 0), GRID.size).image(MASKS["Reader 1"])
    off.SetOrigin((-12.4, 30.0, -200.0))
    write_segmentation(folder / "N_readers.seg.nrrd", [("Reader 1", off, (1, 0, 0)), ("Reader 2", off, (1, 0, 0))])
    with pytest.raises(DatasetError, match="on a grid other than that of the CT"):
        arrays(folder)


assert slicer  # the fixtures need the application's nodes
