"""Which files of a folder are slices of the CT: odd ones are left out and named, phases and copies told apart."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_files import GRID, hu, save, set_uid, slices
from LungNoduleKit.dicom import series_uid
from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import read_ct, read_volume

DOSE_REPORT, RT_STRUCTURES = "1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def read(folder, uid=None):
    """(values, warnings without the place) after a check that the volume lies where it should."""
    said = []
    ct = read_ct(folder, uid, warn=said.append)
    assert np.array_equal(
        sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(read_volume(folder, uid, warn=said.append))
    )
    assert np.allclose(Grid.of(ct).matrix, GRID.matrix, atol=1e-6)
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    return sitk.GetArrayFromImage(ct), [line.split(": ", 1)[1] for line in said[: len(said) // 2]]


def odd(kind=None, **changes):
    """An image of the series that is no slice of it: a slice with changes; None deletes an attribute."""
    ds = slices(hu(seed=9))[3]
    set_uid(ds, "1.2.3.99")
    if kind:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = kind
    for name, value in changes.items():
        if value is None:
            del ds[name]
        else:
            setattr(ds, name, value)
    return ds


def without_pixels(kind, modality):
    names = ("Rows", "Columns", "PixelData", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient")
    return odd(kind, Modality=modality, **dict.fromkeys(names))


def color():
    ds = odd(SamplesPerPixel=3, PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.PixelData = b"\x80" * (3 * ds.Rows * ds.Columns)
    return ds


ODD = {
    "localizer": (
        lambda: odd(
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"]
        ),
        "1 file is no slice of it, left out: {} (a localizer)",
    ),
    "scout of another plane": (
        lambda: odd(ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"]),
        "1 image of another size or orientation left out: {}",
    ),
    "another size": (
        lambda: slices(hu()[:, :10], first=99)[2],
        "1 image of another size or orientation left out: {}",
    ),
    "dose report": (
        lambda: without_pixels(DOSE_REPORT, "SR"),
        "1 file is no slice of it, left out: {} (no image (X-Ray Radiation Dose SR))",
    ),
    "structures": (
        lambda: without_pixels(RT_STRUCTURES, "RTSTRUCT"),
        "1 file is no slice of it, left out: {} (no image (RT Structure Set))",
    ),
    "segmentation": (
        lambda: odd(SEGMENTATION, Modality="SEG"),
        "1 file is no slice of it, left out: {} (Segmentation)",
    ),
    "screen capture": (
        lambda: odd(SecondaryCaptureImageStorage, ImagePositionPatient=None, PixelSpacing=None, RescaleSlope=None),
        "1 file is no slice of it, left out: {} (Secondary Capture Image)",
    ),
    "color": (color, "1 file is no slice of it, left out: {} (a color image)"),
    "no position": (
        lambda: odd(ImagePositionPatient=None, ImageOrientationPatient=None),
        "1 image without position or orientation left out: {}",
    ),
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_slice_is_left_out_and_named(tmp_path, name, first):
    make, told = ODD[name]
    folder = save([make(), *slices()] if first else [*slices(), make()], tmp_path / "ct")
    values, said = read(folder)
    assert np.array_equal(values, hu())
    assert said == [told.format(folder / ("000.dcm" if first else "009.dcm"))]


def test_files_that_cannot_be_parsed_are_left_out_and_named(tmp_path):
    folder = save(slices(), tmp_path / "ct")
    (folder / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "text.dcm").write_text("not DICOM at all " * 20)
    (folder / "readers.xml").write_text("<x/>")
    whole = (folder / "000.dcm").read_bytes()
    for count in (200, 400, 600):
        (folder / f"cut{count}.dcm").write_bytes(whole[:count])
    values, said = read(folder)
    assert np.array_equal(values, hu())
    assert len(said) == 1
    assert said[0].startswith(f"6 DICOM files can't be read, left out: {folder / 'bad.dcm'} (")
    assert said[0].endswith("), and 3 more")


@pytest.mark.parametrize("cut", [1, 300, 1000, 1300])
def test_a_truncated_slice_is_a_missing_one(tmp_path, cut):
    folder = save(slices(), tmp_path / "ct")
    path = folder / "004.dcm"
    path.write_bytes(path.read_bytes()[:-cut])
    said = []
    with pytest.raises(ImageError, match=r"missing or irregular: between 47\.50 and 52\.50"):
        read_ct(folder, warn=said.append)
    assert len(said) == 1
    assert f"1 DICOM file can't be read, left out: {path}" in said[0]


def test_files_without_preamble_and_ending(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for k, ds in enumerate(slices()):
        Dataset(ds).save_as(folder / f"IM{k:04d}", implicit_vr=k % 2 == 0, little_endian=True)
    values, said = read(folder)
    assert said == []
    assert np.array_equal(values, hu())
    assert series_uid(folder / "IM0003") == "1.2.3"


def test_copies_are_read_once(tmp_path):
    """All slices copied, and one of them again as another program writes it."""
    folder = save(slices(), tmp_path / "ct")
    shutil.copytree(folder, folder / "copy")
    Dataset(slices()[2]).save_as(folder / "again.dcm", implicit_vr=True, little_endian=True)
    values, said = read(folder)
    assert np.array_equal(values, hu())
    assert said == ["10 slices are there twice, in files with the same content; read once"]


def test_other_content_under_the_same_uid_is_refused(tmp_path):
    changed = slices(hu(seed=1))
    with pytest.raises(ImageError, match="1 slices share their position"):
        read(save([*slices(), changed[4]], tmp_path / "ct"))


PHASES = {
    "AcquisitionNumber": [1, 2],
    "TemporalPositionIdentifier": [1, 2],
    "TriggerTime": ["0", "350.5"],
    "ContentTime": ["120000", "120100.5"],
    "ConvolutionKernel": ["B30f", "B70f"],
}


@pytest.mark.parametrize("name", PHASES)
def test_phases_in_one_series_are_told_apart(tmp_path, name):
    phases = [slices(hu(seed=seed), first=1 + 100 * seed) for seed in (0, 1)]
    for datasets, value in zip(phases, PHASES[name], strict=True):
        for ds in datasets:
            setattr(ds, name, value)
    folder = save([*phases[0], *phases[1]], tmp_path / "ct")
    told = rf"several stacks or phases, name one of them as series: 1\.2\.3#1 \(9 slices, {name} {PHASES[name][0]}\); "
    for reader in (read_ct, read_volume):
        with pytest.raises(ImageError, match=told) as error:
            reader(folder)
        assert str(error.value).isprintable()
    for seed in (0, 1):
        values, said = read(folder, f"1.2.3#{seed + 1}")
        assert said == []
        assert np.array_equal(values, hu(seed=seed))


def test_the_longest_phase_is_read_with_a_warning(tmp_path):
    phases = [slices(hu(seed=seed), first=1 + 100 * seed) for seed in (0, 1)]
    for number, datasets in enumerate(phases, 1):
        for ds in datasets:
            ds.AcquisitionNumber = number
    values, said = read(save([*phases[0][:5], *phases[1]], tmp_path / "ct"))
    assert np.array_equal(values, hu(seed=1))
    assert len(said) == 1
    assert "the longest is used: 1.2.3#1 (5 slices, AcquisitionNumber 1); 1.2.3#2 (9 slices, " in said[0]


def test_phases_that_nothing_tells_apart_are_refused(tmp_path):
    phases = [slices(hu(seed=seed), first=1 + 100 * seed) for seed in (0, 1)]
    with pytest.raises(ImageError, match="9 slices share their position"):
        read(save([*phases[0], *phases[1]], tmp_path / "ct"))


def test_two_planes_of_equal_length_have_to_be_chosen_from(tmp_path):
    sagittal = Grid(GRID.size, GRID.spacing, GRID.origin, (0.0, 0, 1, 1, 0, 0, 0, 1, 0))
    folder = save([*slices(), *slices(hu(seed=1), sagittal, first=100)], tmp_path / "ct")
    with pytest.raises(ImageError, match="several stacks or phases"):
        read(folder)
    assert np.array_equal(read(folder, "1.2.3#1")[0], hu())
    assert np.array_equal(sitk.GetArrayFromImage(read_ct(folder, "1.2.3#2")), hu(seed=1))


def test_colors_alone_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"no DICOM images in it, only .*000\.dcm \(a color image\)"):
        read_ct(save([color()], tmp_path / "ct"))


def test_another_modality_is_read_only_when_it_is_named_and_said(tmp_path):
    folder = save(slices(modality="MR"), tmp_path / "ct")
    with pytest.raises(ImageError, match="no CT series"):
        read_ct(folder)
    values, said = read(folder, "1.2.3")
    assert np.array_equal(values, hu())
    assert said == ["series 1.2.3 isn't a CT (its modality is MR)"]


def test_a_dicom_file_is_no_mask(tmp_path):
    from LungNoduleKit.masks import read_mask, read_masks

    folder = save(slices(), tmp_path / "ct")
    for reader in (read_mask, read_masks):
        with pytest.raises(ImageError, match="DICOM"):
            reader(folder / "000.dcm")
