"""Where the slices of a DICOM series lie: read image by image, kept where it is one volume, refused where it isn't."""

import numpy as np
import pytest
import SimpleITK as sitk

from dicom_files import GRID, hu, save, slices, tilted
from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import check_ct, read_ct, read_volume

_TURNED = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
GRIDS = {
    "axial": GRID,
    "prone": Grid(GRID.size, GRID.spacing, GRID.origin, (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)),
    "feet first": Grid(GRID.size, GRID.spacing, GRID.origin, (-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)),
    "sagittal": Grid(GRID.size, GRID.spacing, GRID.origin, (0.0, 0, 1, 1, 0, 0, 0, 1, 0)),
    "coronal": Grid(GRID.size, GRID.spacing, GRID.origin, (1.0, 0, 0, 0, 0, 1, 0, -1, 0)),
    "oblique": Grid(
        GRID.size, (0.5, 0.9, 1.7), GRID.origin, tuple((_TURNED * np.sign(np.linalg.det(_TURNED))).ravel().tolist())
    ),
    "tilted by 20 degrees": tilted(20),
    "tilted by -12 degrees": tilted(-12),
}


def values_of(ct):
    return sitk.GetArrayFromImage(ct)


def refused(folder, match, **options):
    """Both readers refuse the folder, in one line."""
    for read in (read_ct, read_volume):
        with pytest.raises(ImageError, match=match) as error:
            read(folder, warn=lambda line: None, **options)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_slices_lie_where_their_headers_say(tmp_path, grid):
    """Saved in any order, for both modules; a voxel's place in space keeps its value."""
    order = np.random.default_rng(1).permutation(grid.size[2])
    values = hu(grid)
    folder = save([slices(values, grid)[k] for k in order], tmp_path / "ct")
    for read in (read_ct, read_volume):
        ct = read(folder)
        assert np.array_equal(values_of(ct), values)
        assert np.allclose(Grid.of(ct).matrix, grid.matrix, atol=1e-6)
        assert np.allclose(ct.GetOrigin(), grid.origin, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_same_bits_as_itk(tmp_path, grid):
    folder = save(slices(hu(grid), grid), tmp_path / "ct")
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetForceOrthogonalDirection(False)
    reader.SetFileNames([str(path) for path in sorted(folder.iterdir())])
    expected, ct = reader.Execute(), read_ct(folder)
    assert ct.GetPixelID() == expected.GetPixelID()
    assert np.array_equal(values_of(ct), values_of(expected))
    assert (ct.GetOrigin(), ct.GetSpacing()) == (expected.GetOrigin(), expected.GetSpacing())
    assert np.allclose(ct.GetDirection(), expected.GetDirection(), rtol=0, atol=1e-15)


def test_a_tilted_gantry_is_kept_through_files_that_can_hold_it(tmp_path):
    ct = read_volume(save(slices(grid=tilted(20)), tmp_path / "ct"))
    assert any("20.0\xb0 off a right angle (tilted gantry)" in line for line in check_ct(ct))
    for ending in ("nrrd", "mha"):
        sitk.WriteImage(ct, str(tmp_path / f"ct.{ending}"))
        assert np.allclose(Grid.of(read_volume(tmp_path / f"ct.{ending}")).matrix, tilted(20).matrix, atol=1e-6)


def test_orientations_that_differ_by_rounding_are_one(tmp_path):
    """Cosines of 0.0005 are 0.000 or 0.001 when they are rounded to three decimals."""
    datasets = slices()
    for k, ds in enumerate(datasets):
        ds.ImageOrientationPatient = ["1", f"{0.00049 + 0.00002 * (k % 2):.5f}", "0", "0", "1", "0"]
    said = []
    ct = read_ct(save(datasets, tmp_path / "ct"), warn=said.append)
    assert said == []
    assert np.array_equal(values_of(ct), hu())


def test_orientations_that_differ_are_refused(tmp_path):
    datasets = slices()
    datasets[4].ImageOrientationPatient = ["0.999848", "0.017452", "0", "-0.017452", "0.999848", "0"]
    refused(save(datasets, tmp_path / "ct"), r"differ in orientation, by up to 1\.00.")


@pytest.mark.parametrize("changed", [range(5, 9), [0], [4], [8]])
def test_pixels_of_different_size_are_refused(tmp_path, changed):
    datasets = slices()
    for k in changed:
        datasets[k].PixelSpacing = ["0.85", "0.85"]
    refused(save(datasets, tmp_path / "ct"), r"pixels of different size: 0\.\d+ x 0\.\d+ and 0\.\d+ x 0\.\d+ mm")


@pytest.mark.parametrize("changed", [range(5, 9), [0], [4], [8]])
def test_slices_that_are_shifted_in_plane_are_refused(tmp_path, changed):
    datasets = slices()
    for k in changed:
        datasets[k].ImagePositionPatient[0] += 7
    refused(save(datasets, tmp_path / "ct"), r"shifted in plane against each other, by up to \d+\.\d\d mm")
    datasets = slices(grid=tilted(15))
    for k in changed:
        datasets[k].ImagePositionPatient[1] += 3
    refused(save(datasets, tmp_path / "tilted"), "shifted in plane")


def test_a_stack_that_leans_too_far_is_refused(tmp_path):
    refused(save(slices(grid=tilted(60)), tmp_path / "ct"), "stacked at 60. to their normal")


def test_two_frames_of_reference_are_refused(tmp_path):
    datasets = slices()
    for ds in datasets[5:]:
        ds.FrameOfReferenceUID = "1.2.8"
    refused(save(datasets, tmp_path / "ct"), r"2 frames of reference: 1\.2\.7, 1\.2\.8")


@pytest.mark.filterwarnings("ignore:The value length")
def test_values_of_headers_are_short_in_messages(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.SeriesDescription = "x" * 5000
    for ds in datasets[5:]:
        ds.FrameOfReferenceUID = "1." * 2000 + "8"
    with pytest.raises(ImageError, match=r"2 frames of reference: 1\.1\..*\.\.\..*\.8, 1\.2\.7$") as raised:
        read_ct(save(datasets, tmp_path / "ct"))
    assert len(str(raised.value)) < 400 + len(str(tmp_path))
    with pytest.raises(ImageError, match=r"only 1.* \(CT, xxx.*\.\.\.x*, 9 slices\)") as raised:
        read_ct(save(datasets, tmp_path / "other"), "1.2.3.4")
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("other", [None, "ImagerPixelSpacing", "NominalScannedPixelSpacing"])
@pytest.mark.parametrize("changed", [range(9), [4]], ids=["all", "one"])
def test_without_pixel_spacing_is_refused(tmp_path, other, changed):
    datasets = slices()
    for k in changed:
        if other:
            setattr(datasets[k], other, list(datasets[k].PixelSpacing))
        del datasets[k].PixelSpacing
    refused(save(datasets, tmp_path / "ct"), "no pixel size")


def test_secondary_captures_without_pixel_spacing_are_refused(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del ds.PixelSpacing
    refused(save(datasets, tmp_path / "ct"), "no pixel size")


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("spacing", [["0", "0.7"], ["-0.7", "0.7"], ["1e6", "0.7"], ["0.7"], ["nan", "nan"]])
def test_pixel_spacing_that_is_none_is_refused(tmp_path, spacing):
    datasets = slices()
    for ds in datasets:
        ds.PixelSpacing = spacing
    refused(save(datasets, tmp_path / "ct"), "pixel size")


def test_directions_that_are_none_are_refused(tmp_path):
    for number, cosines in enumerate((["1", "0", "0", "1", "0", "0"], ["2", "0", "0", "0", "1", "0"], ["0"] * 6)):
        datasets = slices()
        for ds in datasets:
            ds.ImageOrientationPatient = cosines
        refused(save(datasets, tmp_path / str(number)), "aren't at right angles")


@pytest.mark.parametrize("value", ["0", "-1.4", "5"])
def test_spacing_between_slices_counts_for_nothing_beside_positions(tmp_path, value):
    datasets = slices()
    for ds in datasets:
        ds.SpacingBetweenSlices = value
    said = []
    ct = read_ct(save(datasets, tmp_path / "ct"), warn=said.append)
    assert said == []
    assert np.array_equal(values_of(ct), hu())
    assert np.allclose(Grid.of(ct).matrix, GRID.matrix)


def test_missing_slices_are_refused(tmp_path):
    datasets = slices()
    refused(save(datasets[:4] + datasets[5:], tmp_path / "one"), r"missing or irregular: between 47\.50 and 52\.50 mm")
    refused(save(datasets[:4] + datasets[4::2], tmp_path / "half"), "missing or irregular")


def test_uneven_slices_are_warned_of(tmp_path):
    datasets = slices()
    datasets[4].ImagePositionPatient[2] += 0.3
    said = []
    read_ct(save(datasets, tmp_path / "ct"), warn=said.append)
    assert [line.partition(": ")[2] for line in said] == ["its slices are unevenly spaced (2.200 to 2.800 mm)"]


def test_positions_without_orientations_are_refused(tmp_path):
    datasets = slices()
    for ds in datasets:
        del ds.ImageOrientationPatient
    refused(save(datasets, tmp_path / "ct"), "no position or orientation")


def test_a_file_of_a_series_is_one_slice_with_its_pixel_size(tmp_path):
    folder = save(slices(), tmp_path / "ct")
    ct = read_ct(folder / "004.dcm")
    assert ct.GetSize() == (24, 20, 1)
    assert ct.GetSpacing()[:2] == (0.7, 0.7)
    assert np.array_equal(values_of(ct)[0], hu()[4])
    with pytest.raises(ImageError, match="single slice"):
        check_ct(ct)
