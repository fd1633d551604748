"""Image files that are incomplete or damaged are refused with the reason; sound ones are read as before."""

import gzip
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, MaskError
from LungNoduleKit.files import read_image
from LungNoduleKit.segmentation_file import read_segmentation, write_segmentation

SPACING, ORIGIN = (0.8, 0.9, 1.25), (-60.0, 21.5, -105.0)


@pytest.fixture
def image():
    made = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 400, (6, 9, 8)).astype(np.int16))
    made.SetSpacing(SPACING)
    made.SetOrigin(ORIGIN)
    return made


def written(image, path, packed=True):
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("kind", [sitk.sitkInt16, sitk.sitkUInt8, sitk.sitkFloat32, sitk.sitkFloat64, sitk.sitkInt32])
def test_what_simpleitk_writes_is_read_as_it_was(image, tmp_path, name, packed, kind):
    image = sitk.Cast(image, kind)
    read = read_image(written(image, tmp_path / name, packed))
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
    assert np.allclose(read.GetSpacing(), SPACING)
    assert np.allclose(read.GetOrigin(), ORIGIN)


def test_colors_and_pictures_are_read_as_before(image, tmp_path):
    colors = sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3)
    for name in ("colors.nrrd", "colors.mha", "colors.nii.gz"):
        assert read_image(written(colors, tmp_path / name)).GetNumberOfComponentsPerPixel() == 3
    flat = sitk.Cast(image, sitk.sitkUInt8)[:, :, 0]
    for name in ("flat.png", "flat.nrrd", "flat.mha", "flat.nii"):
        assert read_image(written(flat, tmp_path / name)).GetSize()[:2] == (8, 9)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha", "ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(image, tmp_path, name, packed, share):
    path = written(image, tmp_path / name, packed)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=rf"^{path}: (its data is damaged or cut off|it holds \d+ bytes of voxels)"):
        read_image(path)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha", "ct.nii.gz"])
def test_a_changed_byte_in_compressed_data_is_refused(image, tmp_path, name):
    path = written(image, tmp_path / name)
    content = bytearray(path.read_bytes())
    content[-120] ^= 4
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"^{path}: (its data is damaged|it holds)"):
        read_image(path)


@pytest.mark.parametrize(("name", "line"), [("ct.nrrd", b"space directions:"), ("ct.mha", b"ElementSpacing =")])
def test_voxels_without_a_size_are_refused(image, tmp_path, name, line):
    path = written(image, tmp_path / name)
    content = path.read_bytes()
    begin = content.index(line)
    path.write_bytes(content[:begin] + content[content.index(b"\n", begin) + 1 :])
    with pytest.raises(ImageError, match=f"^{path}: its header doesn't say how large the voxels are"):
        read_image(path)


def test_a_header_that_says_two_things_is_refused(image, tmp_path):
    path = replaced(written(image, tmp_path / "ct.mha"), b"ElementSpacing", b"ElementSpacing = 2 2 2\nElementSpacing")
    with pytest.raises(ImageError, match="its header says 'ElementSpacing' twice"):
        read_image(path)
    path = replaced(written(image, tmp_path / "ct.nrrd"), b"sizes:", b"sizes: 4 9 12\nsizes:")
    with pytest.raises(ImageError, match="its header says 'sizes' twice"):
        read_image(path)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha"])
def test_bytes_put_in_before_the_voxels_are_refused(image, tmp_path, name):
    path = written(image, tmp_path / name, packed=False)
    content = path.read_bytes()
    path.write_bytes(content[:-864] + b"a line more\n" + content[-864:])
    with pytest.raises(ImageError, match="it holds more than 864 bytes of voxels, but its header says 864"):
        read_image(path)


def test_a_hundred_axes_dont_end_the_process(image, tmp_path):
    path = replaced(written(image, tmp_path / "ct.mha"), b"NDims = 3", b"NDims = 100")
    with pytest.raises(ImageError, match="its header says that it has 100 axes"):
        read_image(path)


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (42, "h", 16, r"it holds 864 bytes of voxels, but its header says 1728"),
        (46, "h", 2, r"it holds more than 288 bytes of voxels, but its header says 288"),
        (42, "h", -8, r"its size is \[-8, 9, 6\]"),
        (72, "h", 8, r"8 bits a voxel, but data type 4 has another number"),
        (108, "f", 176.0, r"the voxels begin at byte 176"),
        (108, "f", float("nan"), r"the voxels begin at byte nan"),
    ],
)
def test_nifti_headers_that_dont_fit_their_voxels(image, tmp_path, offset, form, value, reason):
    path = written(image, tmp_path / "ct.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, offset, value)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


def test_a_tiny_file_that_unpacks_to_gigabytes_takes_no_memory(image, tmp_path):
    path = written(image, tmp_path / "ct.nrrd")
    head = path.read_bytes().split(b"\n\n", 1)[0]
    path.write_bytes(head + b"\n\n" + gzip.compress(bytes(1 << 28), 1))
    with pytest.raises(ImageError, match="it holds more than 864 bytes of voxels"):
        read_image(path)
    path = written(image, tmp_path / "ct.mha")
    head = path.read_bytes().split(b"LOCAL\n", 1)[0]
    path.write_bytes(head + b"LOCAL\n" + zlib.compress(bytes(1 << 28), 1))
    with pytest.raises(ImageError, match="it holds more than 864 bytes of voxels"):
        read_image(path)


@pytest.fixture
def readers(tmp_path):
    """A segmentation of two readers, who overlap."""
    masks = []
    for size in (3, 4):
        array = np.zeros((6, 9, 8), np.uint8)
        array[1 : size + 1, 2:6, 2:6] = 1
        masks.append(sitk.GetImageFromArray(array))
    path = tmp_path / "readers.seg.nrrd"
    write_segmentation(path, [(f"Reader {n}", mask, (1, 0, 0)) for n, mask in enumerate(masks, 1)])
    counts = [int(sitk.GetArrayViewFromImage(mask).sum()) for mask in read_segmentation(path).values()]
    assert counts == [48, 64]
    return path


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        # Without its first or a middle segment the others would be left out.
        (b"Segment0_", b"Segment7_", r"isn't a Slicer segmentation"),
        (b"Segment1_LabelValue:=1", b"Segment1_LabelValue:=5", r"layer 1 has labels that are no segment's"),
        (b"Segment1_LabelValue:=1", "Segment1_LabelValue:=²".encode(), r"segment Reader 2 has label ² in layer 1"),
        (b"Segment1_LabelValue:=1", b"Segment1_LabelValu:=1", r"segment Reader 2 has label none in layer 1"),
        (b"Segment1_Layer:=1", b"Segment1_Layer:=0", r"two segments have label 1 in layer 0"),
        (b"Segment1_Layer:=1", b"Segment1_Laye:=1", r"segment Reader 2 has label 1 in layer none"),
    ],
)
def test_segments_that_the_file_doesnt_hold_are_refused(readers, old, new, reason):
    content = readers.read_bytes()
    readers.write_bytes(content.replace(old, new) if old == b"Segment0_" else content.replace(old, new, 1))
    with pytest.raises((ImageError, MaskError), match=reason):
        read_segmentation(readers)


def test_a_segment_that_is_missing_between_others_is_refused(readers):
    readers.write_bytes(readers.read_bytes().replace(b"Segment1_", b"Segment4_"))
    with pytest.raises(MaskError, match=r"its header names segments \[0, 4\], but not all from 0 on"):
        read_segmentation(readers)
