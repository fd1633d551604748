"""Enhanced (multi-frame) CT: frames in any order, phases and stacks told apart, gaps refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless

from dicom_files import GRID, enhanced, hu, save, slices, tilted
from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import read_ct, read_volume

COUNT = GRID.size[2]


def read(folder, series_uid=None):
    """(CT, warnings without the place); both modules' readers agree."""
    said = []
    ct = read_ct(folder, series_uid, warn=said.append)
    other = read_volume(folder, series_uid, warn=lambda line: None)
    assert np.array_equal(sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(other))
    return ct, [line.split(": ", 1)[1] for line in said]


def check(ct, values=None, grid=GRID):
    assert np.array_equal(sitk.GetArrayFromImage(ct), hu() if values is None else values)
    assert np.allclose(Grid.of(ct).matrix, grid.matrix, atol=1e-6)
    assert np.allclose(ct.GetOrigin(), grid.origin, atol=1e-6)


ORDERS = {
    "in order": range(COUNT),
    "reversed": range(COUNT - 1, -1, -1),
    "interleaved": [*range(0, COUNT, 2), *range(1, COUNT, 2)],
    "any": np.random.default_rng(0).permutation(COUNT).tolist(),
    "last two swapped": [*range(COUNT - 2), COUNT - 1, COUNT - 2],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_frames_are_sorted_by_position(tmp_path, order):
    ct, said = read(save([enhanced(order=order)], tmp_path / "ct"))
    assert said == []
    check(ct)


def test_the_file_itself_is_read_as_its_folder(tmp_path):
    folder = save([enhanced(order=ORDERS["any"])], tmp_path / "ct")
    ct, said = read(folder / "000.dcm")
    assert said == []
    check(ct)


def test_a_tilted_gantry(tmp_path):
    ct, _ = read(save([enhanced(grid=tilted(-15))], tmp_path / "ct"))
    check(ct, grid=tilted(-15))


def test_each_frame_has_its_rescale(tmp_path):
    ct, said = read(save([enhanced(order=ORDERS["any"], intercept=lambda k: -1024 - 200 * (k % 2))], tmp_path / "ct"))
    assert len(said) == 1
    assert "2 different rescales (slope 1 to 1, intercept -1224 to -1024)" in said[0]
    check(ct)


def test_rescale_that_only_some_frames_have_is_refused(tmp_path):
    ds = enhanced(intercept=lambda k: -1024)
    del ds.PerFrameFunctionalGroupsSequence[4].PixelValueTransformationSequence
    with pytest.raises(ImageError, match="1 of its 9 slices have no rescale slope"):
        read(save([ds], tmp_path / "ct"))


@pytest.mark.parametrize("gone", [[4], [3, 4, 5]], ids=str)
def test_missing_frames_are_refused(tmp_path, gone):
    ds = enhanced(order=[k for k in range(COUNT) if k not in gone])
    with pytest.raises(ImageError, match="slices are missing or irregular"):
        read(save([ds], tmp_path / "ct"))


def test_doubled_frames_are_refused(tmp_path):
    with pytest.raises(ImageError, match="1 slices share their position"):
        read(save([enhanced(order=[*range(COUNT), 4])], tmp_path / "ct"))


def test_a_frame_without_a_description_is_refused(tmp_path):
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(ImageError, match="9 frames, but 8 descriptions"):
        read(save([ds], tmp_path / "ct"))
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    with pytest.raises(ImageError, match="slices are missing"):
        read(save([ds], tmp_path / "one"))
    ds = enhanced()
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    with pytest.raises(ImageError, match="no pixel size"):
        read(save([ds], tmp_path / "size"))
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence, ds.SharedFunctionalGroupsSequence
    with pytest.raises(ImageError, match="no position or orientation"):
        read(save([ds], tmp_path / "bare"))


def test_a_file_that_ends_early_is_refused(tmp_path):
    path = save([enhanced()], tmp_path / "ct") / "000.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match="cut off: 8540 of 8640 bytes"):
        read(path.parent)


def test_frames_of_two_files_are_one_volume(tmp_path):
    """A concatenation: a volume that was split into several files."""
    first, second = enhanced(order=range(4)), enhanced(order=range(4, COUNT), uid="2")
    ct, said = read(save([second, first], tmp_path / "ct"))
    assert said == []
    check(ct)


def test_phases_are_told_apart_and_one_has_to_be_named(tmp_path):
    """Two phases, frames of both in turn."""
    both = np.stack([hu(), hu(seed=1)])
    order = [k for k in range(COUNT) for _ in range(2)]
    ds = enhanced(order=order, phase=lambda n: n % 2 + 1)
    ds.PixelData = np.stack([(both[n % 2, k].astype(int) + 1024).astype("<u2") for n, k in enumerate(order)]).tobytes()
    folder = save([ds], tmp_path / "ct")
    told = r"name one of them as series: 1\.2\.4#1 \(9 slices, TemporalPositionIndex 1\); 1\.2\.4#2 \(9 slices"
    with pytest.raises(ImageError, match=told):
        read(folder)
    for number in (1, 2):
        ct, said = read(folder, f"1.2.4#{number}")
        assert said == []
        check(ct, both[number - 1])
    with pytest.raises(ImageError, match="no stack 3, only"):
        read(folder, "1.2.4#3")
    with pytest.raises(ImageError, match="isn't a number from 1"):
        read(folder, "1.2.4#x")


def test_the_longest_of_unequal_stacks_is_read_with_a_warning(tmp_path):
    ct, said = read(save([enhanced(stack=lambda k: "1" if k < 6 else "2")], tmp_path / "ct"))
    check(ct, hu()[:6])
    assert len(said) == 1
    assert "the longest is used: 1.2.4#1 (6 slices, StackID 1); 1.2.4#2 (3 slices, StackID 2)" in said[0]


def test_the_longest_series_counts_frames_and_not_files(tmp_path):
    keys = slices(hu(seed=1)[3:6], description="key images")
    ct, said = read(save([enhanced(), *keys], tmp_path / "study"))
    check(ct)
    listed = "1.2.4 (CT, enhanced, 9 slices); 1.2.3 (CT, key images, 3 slices)"
    assert said == [f"it has several CT series, the longest is used: {listed}"]


def test_compressed_frames(tmp_path):
    ds = enhanced(order=ORDERS["any"], intercept=lambda k: -1024 - 200 * (k % 2))
    ds.compress(RLELossless, generate_instance_uid=False)
    ct, said = read(save([ds], tmp_path / "ct"))
    assert ["different rescales" in line for line in said] == [True]
    check(ct)


def test_a_localizer_among_the_frames_is_no_slice(tmp_path):
    ds = enhanced(order=[*range(COUNT), 4])
    kind = enhanced().SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].__class__()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.PerFrameFunctionalGroupsSequence[-1].CTImageFrameTypeSequence = [kind]
    ct, _ = read(save([ds], tmp_path / "ct"))
    check(ct)
