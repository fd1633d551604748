"""The values of a DICOM series in HU: each slice by its own bits, sign, slope and intercept, in one type for all."""

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from dicom_files import hu, save, set_hu, set_stored, slices, stored_of
from LungNoduleKit.errors import ImageError
from LungNoduleKit.images import read_ct, read_volume


def read(folder):
    """(values, warnings without the place) by the nodule module's reader; the other one's are the same."""
    said = []
    ct = read_ct(folder, warn=said.append)
    assert np.array_equal(
        sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(read_volume(folder, warn=lambda line: None))
    )
    return sitk.GetArrayFromImage(ct), [line.split(": ", 1)[1] for line in said]


def _rescales(count, ends):
    return f"its slices have {count} different rescales ({ends}); each was read with its own"


def by_itk(folder):
    """The series as SimpleITK's own reader has it, files in the order of their names."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(path) for path in sorted(folder.iterdir())])
    return sitk.GetArrayFromImage(reader.Execute())


@pytest.mark.parametrize(
    ("allocated", "stored", "signed", "slope", "intercept"),
    [
        (16, 16, 0, "1", "-1024"),
        (16, 12, 0, "1", "-1024"),
        (16, 16, 1, "1", "0"),
        (16, 16, 1, "1", "-1024"),
        (16, 13, 1, "1", "-8192"),
        (16, 12, 0, "2", "-1000"),
        (16, 12, 0, "0.5", "-1024"),
        (16, 12, 0, "1.1", "-1000.3"),
        (16, 16, 0, "1.0", "0.0"),
        (8, 8, 0, "10", "-1000"),
        (8, 8, 1, "1", "0"),
        (8, 8, 0, "1", "5"),
        (32, 32, 1, "1", "0"),
        (32, 32, 1, "0.25", "-3"),
    ],
)
def test_the_same_values_and_type_as_gdcm(tmp_path, allocated, stored, signed, slope, intercept):
    rng = np.random.default_rng(0)
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if signed else (0, 1 << stored)
    datasets = slices()
    for ds in datasets:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, stored, stored - 1, signed
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        set_stored(ds, rng.integers(low, high, (ds.Rows, ds.Columns)))
    folder = save(datasets, tmp_path / "ct")
    values, said = read(folder)
    assert said == []
    assert values.dtype == by_itk(folder).dtype
    assert np.array_equal(values, by_itk(folder))


def test_slope_and_intercept_of_each_slice(tmp_path):
    datasets = slices()
    for k, ds in enumerate(datasets):
        ds.RescaleIntercept, ds.RescaleSlope = str(-1024 - 24 * (k % 3)), "1"
        set_hu(ds, hu()[k])
    values, said = read(save(datasets, tmp_path / "whole"))
    assert values.dtype == np.int32
    assert said == [_rescales(3, "slope 1 to 1, intercept -1072 to -1024")]
    assert np.array_equal(values, hu())
    for k, ds in enumerate(datasets):
        ds.RescaleSlope = "1" if k == 0 else "0.5"
        set_hu(ds, hu()[k])
    values, said = read(save(datasets, tmp_path / "half"))
    assert values.dtype == np.float64
    assert said == [_rescales(4, "slope 0.5 to 1, intercept -1072 to -1024")]
    assert np.array_equal(values, hu())


def test_bits_and_sign_of_each_slice(tmp_path):
    datasets = slices()
    for k, ds in enumerate(datasets):
        if k % 2:
            ds.PixelRepresentation, ds.RescaleIntercept = 1, "0"
        else:
            ds.BitsStored, ds.HighBit = 12, 11
        set_hu(ds, hu()[k])
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == [_rescales(2, "slope 1 to 1, intercept -1024 to 0")]
    assert np.array_equal(values, hu())


@pytest.mark.parametrize("lacking", [[0], [4], [8], range(5)], ids=str)
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_rescale_that_only_some_slices_have_is_refused(tmp_path, name, lacking):
    datasets = slices()
    for k in lacking:
        del datasets[k][name]
    folder = save(datasets, tmp_path / "ct")
    for reader in (read_ct, read_volume):
        what = name[7:].lower()
        with pytest.raises(ImageError, match=rf"1\.2\.3: {len(lacking)} of its 9 slices have no rescale {what}"):
            reader(folder)


def test_a_rescale_that_differs_between_slices_is_used_and_told(tmp_path):
    series = slices(hu())
    series[4].RescaleSlope, series[4].RescaleIntercept = "1", "-24"
    values, said = read(save(series, tmp_path))
    wanted = hu()
    wanted[4] += 1000
    assert np.array_equal(values, wanted)
    assert said == [_rescales(2, "slope 1 to 1, intercept -1024 to -24")]


@pytest.mark.parametrize(("slope", "intercept"), [("-1", "-1024"), ("0", "0"), ("4294967295", "0"), ("1", "-2e6")])
def test_a_rescale_that_is_no_cts_is_refused(tmp_path, slope, intercept):
    series = slices(hu())
    for one in series:
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
    with pytest.raises(ImageError, match="aren't a CT's"):
        read_ct(save(series, tmp_path))


def test_more_pixels_than_the_header_says_are_refused(tmp_path):
    series = slices(hu())
    for one in series:
        one.Rows //= 2
    with pytest.raises(ImageError, match="bytes of pixels where its size says"):
        read_ct(save(series, tmp_path))


def test_rescale_that_no_slice_has_is_warned_of(tmp_path):
    datasets = slices()
    for ds in datasets:
        del ds.RescaleSlope, ds.RescaleIntercept
    values, said = read(save(datasets, tmp_path / "ct"))
    assert np.array_equal(values, hu().astype(int) + 1024)
    assert said == [
        "it has no rescale slope; 1 is taken, values may not be HU",
        "it has no rescale intercept; 0 is taken, values may not be HU",
    ]


def test_other_ways_to_hu_are_refused_or_warned_of(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.ModalityLUTSequence = Sequence([Dataset()])
    with pytest.raises(ImageError, match="Modality LUT"):
        read_ct(save(datasets, tmp_path / "table"))
    datasets = slices()
    for ds in datasets:
        ds.RescaleType = "Z_EFF"
    assert read(save(datasets, tmp_path / "unit"))[1] == ["its values are said to be Z_EFF, not HU"]


def test_padding_beyond_the_stored_bits_neither_wraps_nor_shines(tmp_path):
    """-2000 in 16 bits where 12 are stored: below all HU, as on a scanner that stores 16."""
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        ds.BitsStored, ds.HighBit = 12, 11
        stored = plane.astype(int) + 1024
        stored[:3] = 65536 - 2000
        set_stored(ds, stored)
        ds.add_new("PixelPaddingValue", "US", 65536 - 2000)
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == []
    assert (values[:, :3] == -3024).all()
    assert np.array_equal(values[:, 3:], hu()[:, 3:])


def test_padding_within_the_bits_stays_as_gdcm_has_it(tmp_path):
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        ds.PixelRepresentation, ds.RescaleIntercept = 1, "-1024"
        stored = plane.astype(int) + 1024
        stored[:3] = -32768
        set_stored(ds, stored)
        ds.add_new("PixelPaddingValue", "SS", -32768)
    folder = save(datasets, tmp_path / "ct")
    values, said = read(folder)
    assert said == []
    assert (values[:, :3] == -33792).all()
    assert np.array_equal(values, by_itk(folder))


def overlay(ds, bit, allocated=16):
    for tag, kind, value in (
        (0x60000010, "US", ds.Rows),
        (0x60000011, "US", ds.Columns),
        (0x60000040, "CS", "G"),
        (0x60000050, "SS", [1, 1]),
        (0x60000100, "US", allocated),
        (0x60000102, "US", bit),
    ):
        ds.add_new(tag, kind, value)


def test_an_overlay_in_unused_bits_is_no_value(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.BitsStored, ds.HighBit = 12, 11
        stored = stored_of(ds)
        stored[5:15, 5:15] |= 1 << 15
        set_stored(ds, stored)
        overlay(ds, 15)
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == []
    assert np.array_equal(values, hu())


def test_an_overlay_of_its_own_is_no_value(tmp_path):
    """Of 24 x 20 pixels, and of a number that is no multiple of eight."""
    datasets = slices(hu()[:, :19, :21])
    for ds in datasets:
        overlay(ds, 0, allocated=1)
        ds.add_new(0x60003000, "OW", b"\xff" * (2 * ((ds.Rows * ds.Columns + 15) // 16)))
    values, _ = read(save(datasets, tmp_path / "ct"))
    assert np.array_equal(values, hu()[:, :19, :21])


def test_a_sign_in_fewer_bits_than_the_pixel_has(tmp_path):
    """13 bits with their sign in bit 12, the bits above it zero."""
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 13, 12, 1, "0"
        set_stored(ds, plane.astype(int) & 0x1FFF)
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == []
    assert np.array_equal(values, hu())


def test_pixels_in_the_upper_bits(tmp_path):
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        ds.BitsStored, ds.HighBit = 12, 15
        set_stored(ds, (plane.astype(int) + 1024) << 4)
    assert np.array_equal(read(save(datasets, tmp_path / "ct"))[0], hu())


def test_values_beyond_the_stored_bits_are_warned_of(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.BitsStored, ds.HighBit = 10, 9
    values, said = read(save(datasets, tmp_path / "ct"))
    assert np.array_equal(values, hu())
    assert said == ["9 slices hold values of more bits than their headers say; read as they are stored"]


def test_unusual_bits_are_refused(tmp_path):
    for allocated, stored, high in ((12, 12, 11), (16, 17, 16), (16, 0, 15), (16, 12, 5), (64, 64, 63)):
        datasets = slices()
        for ds in datasets:
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, high
        with pytest.raises(ImageError, match=f"pixels of {allocated} bits"):
            read_ct(save(datasets, tmp_path / f"{allocated}-{stored}"))


def test_uncompressed_transfer_syntaxes(tmp_path):
    plain = save(slices(), tmp_path / "plain")
    for name, uid in (
        ("implicit", ImplicitVRLittleEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
        ("big", ExplicitVRBigEndian),
    ):
        datasets = slices()
        for ds in datasets:
            ds.file_meta.TransferSyntaxUID = uid
            if name == "big":
                ds.PixelData = stored_of(ds).astype(">u2").tobytes()
                ds["PixelData"].VR = "OW"
                (tmp_path / name).mkdir(exist_ok=True)
                path = tmp_path / name / f"{ds.InstanceNumber}.dcm"
                dcmwrite(path, ds, little_endian=False, implicit_vr=False, force_encoding=True)
        values, said = read(tmp_path / name if name == "big" else save(datasets, tmp_path / name))
        assert said == []
        assert np.array_equal(values, hu())
    assert np.array_equal(by_itk(plain), hu())


@pytest.mark.parametrize("signed", [False, True])
def test_compressed_pixels_are_rescaled_once(tmp_path, signed):
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        if signed:
            ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 1, "2", "-1000"
        set_hu(ds, plane // 2 * 2)
        ds.compress(RLELossless, generate_instance_uid=False)
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == []
    assert np.array_equal(values, hu() // 2 * 2)


def test_damaged_compressed_pixels_are_refused(tmp_path):
    datasets = slices()
    for ds in datasets:
        ds.compress(RLELossless, generate_instance_uid=False)
    folder = save(datasets, tmp_path / "ct")
    path = folder / "004.dcm"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ImageError, match=r"004\.dcm") as error:
        read_ct(folder, warn=lambda line: None)
    assert str(error.value).isprintable()
