"""Headers of image files whose values can't be, or say too little, are refused or told; so are voxels as text."""

import gzip
import re
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError
from LungNoduleKit.files import read_image
from LungNoduleKit.images import check_ct, read_ct
from LungNoduleKit.intact import check_intact
from LungNoduleKit.masks import read_mask, read_masks
from LungNoduleKit.segmentation_file import read_segmentation, write_segmentation
from test_intact import ORIGIN, SPACING, image, replaced, written  # noqa: F401  a fixture


def same(read, image):  # noqa: F811
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
    assert np.allclose([*read.GetSpacing(), *read.GetOrigin()], [*SPACING, *ORIGIN])


@pytest.mark.parametrize(
    ("name", "line", "value"),
    [
        ("ct.nrrd", "space origin", "(-6b0,21.5,-105)"),
        ("ct.nrrd", "space origin", "(-60,21.5,-1.0.5)"),
        ("ct.nrrd", "space origin", "(-60,21.5,nan)"),
        ("ct.nrrd", "space directions", "(0.1.8,0,0) (0,0.9,0) (0,0,1.25)"),
        ("ct.nrrd", "space directions", "(-1e308,0,0) (0,0.9,0) (0,0,1.25)"),
        ("ct.nrrd", "space directions", "(0.8,0,0) (0,0.9,0) (0,0,1.\x125)"),
        ("ct.mha", "Offset", "-60 21.5 1.0.5"),
        ("ct.mha", "Offset", "-60 21.5"),
        ("ct.mha", "Offset", "-60 21.5 -105 7"),
        ("ct.mha", "ElementSpacing", "0.8 0.9 1.25x"),
        ("ct.mha", "ElementSpacing", "0.8 0.9 1e308"),
        ("ct.mha", "TransformMatrix", "1 0 0 0 1 0 0 0 1 1"),
        ("ct.mha", "CompressedDataSize", "0x10"),
        ("ct.mha", "CompressedDataSize", "12"),
        ("ct.mha", "ElementType", "MET_STRING"),
        ("ct.mha", "ElementType", "MET_ASCII_CHAR"),
    ],
)
def test_numbers_that_are_none_are_refused(image, tmp_path, name, line, value):  # noqa: F811
    """ITK reads on: it takes 0.1 of 0.1.8, 1 of 1e308 and 0 of what is missing."""
    path = written(image, tmp_path / name)
    content = path.read_bytes()
    between = b": " if name == "ct.nrrd" else b" = "
    pattern = re.compile(rb"(?m)^" + line.encode() + between + rb".*$")
    assert pattern.search(content)
    path.write_bytes(pattern.sub(line.encode() + between + value.encode(), content, count=1))
    with pytest.raises(ImageError, match=f"^{path}: its header says {line} ") as error:
        read_image(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_line_that_says_nothing_is_refused(image, tmp_path):  # noqa: F811
    """ITK reads no further, and takes the voxels to be of 1 mm."""
    path = replaced(written(image, tmp_path / "ct.mha"), b"AnatomicalOrientation =", b"AnatomicalOrientation }")
    with pytest.raises(ImageError, match="its header has a line that says nothing: 'AnatomicalOrientation } "):
        read_image(path)


def test_header_lines_behind_the_last_one_are_refused(image, tmp_path):  # noqa: F811
    """They would be voxels, and all others lie farther back."""
    path = written(image, tmp_path / "ct.mha", packed=False)
    content = path.read_bytes().replace(b"BinaryData = True\n", b"", 1)
    path.write_bytes(content)
    same(read_image(path), image)
    path.write_bytes(content.replace(b"LOCAL\n", b"LOCAL\nBinaryData = True\n", 1))
    with pytest.raises(ImageError, match="it holds more than 864 bytes of voxels"):
        read_image(path)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha", "ct.nii", "ct.nhdr", "ct.mhd"])
@pytest.mark.parametrize("place", [-600, -2])
def test_bytes_put_in_among_the_voxels_are_refused(image, tmp_path, name, place):  # noqa: F811
    path = written(image, tmp_path / name, packed=False)
    data = path.with_suffix(".raw") if name in ("ct.nhdr", "ct.mhd") else path
    content = data.read_bytes()
    data.write_bytes(content + b"\n")
    same(read_image(path), image)
    data.write_bytes(content[:place] + b"\x07\x03" + content[place:])
    with pytest.raises(ImageError, match=f"^{path}: it holds more than 864 bytes of voxels, but its header says 864"):
        read_image(path)
    data.write_bytes(content[:-10])
    with pytest.raises(ImageError, match=f"^{path}: it holds 854 bytes of voxels, but its header says 864"):
        read_image(path)


def test_zeros_behind_nifti_voxels_are_told(image, tmp_path):  # noqa: F811
    path = written(image, tmp_path / "ct.nii")
    path.write_bytes(path.read_bytes() + bytes(100))
    said = []
    same(read_image(path, warn=said.append), image)
    assert said == [f"{path}: 100 bytes follow its voxels; if they were put in before, the voxels are shifted"]


@pytest.mark.parametrize("size", [0, 1, 347, 349, 540, 65535, -1])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_a_header_that_isnt_niftis_is_refused(image, tmp_path, name, size):  # noqa: F811
    """SimpleITK reads it all the same, and no check of what it says would take place."""
    path = written(image, tmp_path / name)
    content = path.read_bytes() if name == "ct.nii" else gzip.decompress(path.read_bytes())
    content = struct.pack("<i", size) + content[4:]
    path.write_bytes(content if name == "ct.nii" else gzip.compress(content))
    with pytest.raises(ImageError, match="its header isn't that of a NIfTI file"):
        read_image(path)


def nifti_2(image, path):  # noqa: F811
    """The image with the header of NIfTI-2."""
    old = written(image, path).read_bytes()
    head = bytearray(544)
    struct.pack_into("<i8s2h", head, 0, 540, b"n+2\0\r\n\x1a\n", *struct.unpack_from("<2h", old, 70))
    struct.pack_into("<8q", head, 16, *struct.unpack_from("<8h", old, 40))
    struct.pack_into("<8d", head, 104, *struct.unpack_from("<8f", old, 76))
    struct.pack_into("<q2d", head, 168, 544, *struct.unpack_from("<2f", old, 112))
    struct.pack_into("<2i6d", head, 344, *struct.unpack_from("<2h6f", old, 252))
    struct.pack_into("<12d", head, 400, *struct.unpack_from("<12f", old, 280))
    struct.pack_into("<i", head, 500, old[123])
    path.write_bytes(head + old[352:])
    return path


def test_nifti_2_is_checked_as_nifti_1(image, tmp_path):  # noqa: F811
    path = nifti_2(image, tmp_path / "ct.nii")
    check_intact(path, pytest.fail)
    content = path.read_bytes()
    path.write_bytes(content[:-300])
    with pytest.raises(ImageError, match="it holds 564 bytes of voxels, but its header says 864"):
        check_intact(path)
    path.write_bytes(content[:700] + b"\x07\x03" + content[700:])
    with pytest.raises(ImageError, match="it holds more than 864 bytes of voxels"):
        check_intact(path)


@pytest.mark.parametrize(("name", "old", "new"), [("ct.nrrd", b"raw", b"%s"), ("ct.mha", b"BinaryData = True", b"")])
def test_voxels_as_text(image, tmp_path, name, old, new):  # noqa: F811
    text = " ".join(str(v) for v in sitk.GetArrayFromImage(image).ravel()).encode() + b"\n"
    for encoding in (b"txt", b"ascii", b"text") if name == "ct.nrrd" else (b"BinaryData = False",):
        path = written(image, tmp_path / name, packed=False)
        head = path.read_bytes()[:-864].replace(old, new % encoding if b"%" in new else encoding, 1)
        if name == "ct.nrrd":
            path.write_bytes(head + text)
            same(read_image(path), image)
        for damaged, reason in (
            (text.replace(b" ", b" 1 ", 1), "it holds 433 voxels as text, but its header says 432"),
            (b"x" * 3000 + text[text.index(b" ") :], "'x{40}' among its voxels isn't a number"),
            (np.random.default_rng(0).bytes(864), "it holds .* voxels as text"),  # ended the process
        ):
            path.write_bytes(head + damaged)
            with pytest.raises(ImageError, match=reason):
                read_image(path)


@pytest.mark.parametrize(("name", "line"), [("ct.nrrd", "space origin"), ("ct.mha", "Offset")])
def test_a_header_without_a_position_is_told(image, tmp_path, name, line):  # noqa: F811
    path = written(image, tmp_path / name)
    path.write_bytes(re.sub(rb"(?m)^" + line.encode() + rb".*\n", b"", path.read_bytes(), count=1))
    said = []
    assert read_ct(path, warn=said.append).GetOrigin() == (0, 0, 0)
    assert said == [f"{path}: it states no position (no {line}); places can't be told"]


def test_a_segmentation_without_a_position_is_told(image, tmp_path):  # noqa: F811
    path = tmp_path / "readers.seg.nrrd"
    write_segmentation(path, [("Reader 1", sitk.Cast(image > 0, sitk.sitkUInt8), (1, 0, 0))])
    read_segmentation(path, warn=pytest.fail)
    path.write_bytes(re.sub(rb"(?m)^space origin.*\n", b"", path.read_bytes(), count=1))
    for read in (read_segmentation, read_masks):
        said = []
        read(path, warn=said.append)
        assert said == [f"{path}: it states no position (no space origin); places can't be told"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("(32767.8,0,0) (0,0.9,0) (0,0,1.25)", "voxels of 32767.8 x 0.9 x 1.25 mm aren't a CT's"),
        ("(0.8,0,0) (0,0.9,0) (0,0,0.00125)", "voxels of 0.8 x 0.9 x 0.00125 mm aren't a CT's"),
        ("(0.8,0,0) (0,0.9,0) (0,2,1.25)", "its axes are 58° off a right angle; no gantry tilts so far"),
    ],
)
def test_a_lattice_that_no_ct_has_is_refused(image, tmp_path, line, reason):  # noqa: F811
    made = sitk.Cast(image > 0, sitk.sitkUInt8)
    for name in ("ct.nrrd", "mask.seg.nrrd"):
        path = tmp_path / name
        if name == "ct.nrrd":
            written(image, path)
        else:
            write_segmentation(path, [("Reader 1", made, (1, 0, 0))])
        path.write_bytes(re.sub(rb"(?m)^space directions.*$", f"space directions: {line}".encode(), path.read_bytes()))
    with pytest.raises(ImageError, match=reason):
        check_ct(read_ct(tmp_path / "ct.nrrd"))
    for read in (read_mask, read_masks, read_segmentation):
        with pytest.raises(ImageError, match=reason):
            read(tmp_path / "mask.seg.nrrd")
