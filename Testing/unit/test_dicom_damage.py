"""DICOM files with bytes put in, every second slice left out, and compressed pixels that are damaged."""

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_files import GRID, SERIES, enhanced, hu, save, set_stored, slices
from LungNoduleKit.errors import ImageError
from LungNoduleKit.images import check_ct, read_ct
from test_hounsfield import chest


def read(folder):
    """(values, warnings without the place)"""
    said = []
    ct = read_ct(folder, warn=said.append)
    return sitk.GetArrayFromImage(ct), [line.split(": ", 1)[1] for line in said]


@pytest.mark.parametrize("place", [-1, -300, -900])
@pytest.mark.parametrize("count", [1, 2, 9, 120])
def test_bytes_put_in_among_the_pixels_are_refused(tmp_path, place, count):
    """All pixels behind them would be shifted, by odd numbers of bytes into noise."""
    folder = save(slices(), tmp_path / "ct")
    path = folder / "004.dcm"
    content = path.read_bytes()
    path.write_bytes(content[:place] + b"\x5a" * count + content[place:-1] + b"\3")
    said = []
    with pytest.raises(ImageError, match=r"missing or irregular: between 47\.50 and 52\.50"):
        read_ct(folder, warn=said.append)
    assert f"{path} (damaged: what follows its pixels, {count} bytes, is nothing that DICOM has there)" in said[0]


def test_bytes_put_in_among_frames_are_refused(tmp_path):
    folder = save([enhanced()], tmp_path / "ct")
    content = (folder / "000.dcm").read_bytes()
    (folder / "000.dcm").write_bytes(content[:-500] + b"\x5a" * 21 + content[-500:])
    with pytest.raises(ImageError, match=r"what follows its pixels, 21 bytes, is nothing that DICOM has there"):
        read_ct(folder)


def test_zeros_behind_the_pixels_are_told(tmp_path):
    """Pixels of air outside of the field of view are zeros, too, and may be what was pushed out."""
    folder = save(slices(), tmp_path / "ct")
    path = folder / "003.dcm"
    path.write_bytes(path.read_bytes() + bytes(3))
    values, said = read(folder)
    assert np.array_equal(values, hu())
    assert said == ["zeros follow the pixels of 1 slice; if bytes were put in before, the pixels are shifted"]


@pytest.mark.parametrize("implicit", [False, True])
def test_what_may_follow_the_pixels_is_no_damage(tmp_path, implicit):
    datasets = slices()
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    datasets[0].add_new(0x7FE10010, "LO", "a manufacturer's")
    datasets[0].add_new(0x7FE11010, "OB", b"\1\2\3\4")
    datasets[1].DataSetTrailingPadding = bytes(40)
    datasets[2].add_new(0xFFFAFFFA, "SQ", [])
    folder = save(datasets, tmp_path / "ct")
    path = folder / "003.dcm"
    path.write_bytes(path.read_bytes() + bytes(-path.stat().st_size % 2048))
    values, said = read(folder)
    assert said == []
    assert np.array_equal(values, hu())


def test_every_second_slice_alone_is_told(tmp_path):
    values, said = read(save(slices()[::2], tmp_path / "ct"))
    assert np.array_equal(values, hu()[::2])
    assert said == [
        "its slices lie 5.00 mm apart, but are said to be 2.50 mm thick or apart; others may be missing between them"
    ]


def test_distances_that_fit_the_thickness_are_not_told(tmp_path):
    for number, (thickness, between) in enumerate([(5, None), (2.0, None), (1.0, 2.5), ("", 1.0), (None, 1.0), (0, 1)]):
        datasets = slices()
        for ds in datasets:
            ds.SliceThickness, ds.SpacingBetweenSlices = thickness, between
        assert read(save(datasets, tmp_path / str(number)))[1] == []


def lossless_jpeg(ds, folder):
    """The data set with its pixels as lossless JPEG of GDCM."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(folder / "one.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(ds.pixel_array[None].astype(np.uint16)))
    written = dcmread(folder / "one.dcm")
    ds.PixelData, ds.file_meta.TransferSyntaxUID = written.PixelData, written.file_meta.TransferSyntaxUID
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


@pytest.fixture
def jpeg(tmp_path):
    (tmp_path / "one").mkdir()
    return save([lossless_jpeg(ds, tmp_path / "one") for ds in slices()], tmp_path / "ct")


def test_lossless_jpeg_is_read_without_a_word(jpeg, capfd):
    values, said = read(jpeg)
    assert said == []
    assert np.array_equal(values, hu())
    assert capfd.readouterr() == ("", "")


def test_jpeg_that_does_not_decode_without_errors_is_told(jpeg, capfd):
    """The decoder says so on standard error alone, and GDCM returns what came out."""
    path = jpeg / "004.dcm"
    content = path.read_bytes()
    (stream,) = generate_frames(dcmread(path).PixelData, number_of_frames=1)
    place = content.index(stream) + len(stream) // 2
    path.write_bytes(content[:place] + b"\x13" * 100 + content[place + 100 :])
    values, said = read(jpeg)
    assert not np.array_equal(values[4], hu()[4])
    assert np.array_equal(np.delete(values, 4, 0), np.delete(hu(), 4, 0))
    assert said == [f"1 slice with compressed pixels that don't decode without errors: {path}"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bits", [0, 17, 32, 237])
def test_jpeg_of_bits_that_no_decoder_has_is_refused(jpeg, bits):
    """More than 16 end the process in GDCM."""
    path = jpeg / "004.dcm"
    content = path.read_bytes()
    place = content.index(b"\xff\xc3\0\x0b") + 4
    path.write_bytes(content[:place] + bytes([bits]) + content[place + 1 :])
    with pytest.raises(ImageError, match=rf"004\.dcm can't be read \(its JPEG pixels are said to have {bits} bits\)"):
        read_ct(jpeg)


def test_pixels_longer_than_the_file_take_no_memory(jpeg):
    path = jpeg / "004.dcm"
    content = path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OB\0\0") + 8
    path.write_bytes(content[:place] + (0xFFFFFFFE).to_bytes(4, "little") + content[place + 4 :])
    said = []
    with pytest.raises(ImageError, match="missing or irregular"):
        read_ct(jpeg, warn=said.append)
    assert f"of {0xFFFFFFFE} bytes of its pixels are there" in said[0]


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_that_are_said_to_lie_in_the_upper_bits_but_fill_all_are_told(tmp_path, packed):
    """A BitsStored that was changed: HighBit says that the lower bits are empty, and they aren't."""
    datasets = slices()
    for k in (2, 5):
        datasets[k].BitsStored = 12
    for ds in datasets if packed else ():
        ds.compress(RLELossless, generate_instance_uid=False)
    values, said = read(save(datasets, tmp_path / "ct"))
    assert np.array_equal(values, hu())
    assert said == ["2 slices hold values of more bits than their headers say; read as they are stored"]


@pytest.mark.parametrize("kind", ["plain", "RLE", "JPEG"])
def test_padding_is_the_same_in_compressed_pixels(tmp_path, kind):
    """Beyond the stored bits: below all HU, neither wrapped nor bright."""
    datasets = slices()
    for ds, plane in zip(datasets, hu(), strict=True):
        stored = plane.astype(int) + 1024
        stored[:3, :5] = 63536
        set_stored(ds, stored)
        ds.PixelPaddingValue = 63536
        if kind == "JPEG":
            lossless_jpeg(ds, tmp_path)
        elif kind == "RLE":
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = 12, 11
    values, said = read(save(datasets, tmp_path / "ct"))
    assert said == []
    wanted = hu().copy()
    wanted[:, :3, :5] = -2000 - 1024
    assert np.array_equal(values, wanted)


def test_a_slice_of_noise_in_a_series_is_told(tmp_path):
    values = chest()[:9, :20, :24]
    values[3] = np.random.default_rng(0).integers(-1024, 3071, values[3].shape)
    ct = read_ct(save(slices(values), tmp_path / "ct"), warn=pytest.fail)
    assert ct.GetSize() == GRID.size
    (warning,) = check_ct(ct, SERIES)
    assert "1 slice fits neither of the neighbors (number 4 of 9" in warning
