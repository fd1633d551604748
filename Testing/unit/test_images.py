"""Reading and checking volumes; every bad input ends in one clear line."""

import re
import tarfile

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, OutputError, PointError
from LungNoduleKit.files import write_whole
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import check_ct, check_point, read_ct
from LungNoduleKit.masks import read_mask
from LungNoduleKit.segmentation_file import write_segmentation

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
GRID = Grid((24, 20, 9), (0.7, 0.7, 2.5), (-10.0, 5.0, 40.0), IDENTITY)


def hu(grid=GRID, seed=0):
    return np.random.default_rng(seed).integers(-1000, 400, grid.shape).astype(np.int16)


def one_line(error):
    return "\n" not in str(error.value)


def write_slices(folder, values, *, uid="1.2.3", modality="CT", spacing=2.5, tilt=0.0, skip=(), description="chest"):
    """A DICOM series of axial slices; `tilt` moves each slice along y by so many millimeters."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k, plane in enumerate(values):
        if k in skip:
            continue
        image = sitk.GetImageFromArray(plane[None].astype(np.int16))
        image.SetSpacing((0.7, 0.7, spacing))
        height = 40 + (spacing[k] if isinstance(spacing, list) else k * spacing)
        for key, value in {
            "0008|0008": "ORIGINAL\\PRIMARY\\AXIAL",
            "0008|0060": modality,
            "0008|103e": description,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k + 1}",
            "0020|0013": str(len(values) - k),  # against the direction of the positions
            "0020|0032": f"-10\\{5 + k * tilt}\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{(k * 7) % 100:03d}.dcm"))
        writer.Execute(image)


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha", "nhdr"])
def test_files_of_common_formats(tmp_path, ending):
    sitk.WriteImage(GRID.image(hu()), str(tmp_path / f"ct.{ending}"))
    ct = read_ct(tmp_path / f"ct.{ending}")
    assert np.array_equal(sitk.GetArrayFromImage(ct), hu())
    assert np.allclose(ct.GetOrigin(), GRID.origin, atol=1e-5)
    assert check_ct(ct) == []


def test_a_fourth_axis_of_one_is_dropped(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([GRID.image(hu())]), str(tmp_path / "ct.nii"))
    assert np.array_equal(sitk.GetArrayFromImage(read_ct(tmp_path / "ct.nii")), hu())


def test_a_dicom_folder_with_other_files_and_sub_folders(tmp_path):
    write_slices(tmp_path / "a" / "b", hu())
    write_slices(tmp_path / "scout", hu()[:1], uid="1.2.9", description="scout")
    (tmp_path / "a" / "readers.xml").write_text("<x/>")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    said = []
    ct = read_ct(tmp_path, warn=said.append)
    assert said == []
    assert np.array_equal(sitk.GetArrayFromImage(ct), hu())
    assert np.allclose(Grid.of(ct).matrix, GRID.matrix)
    assert ct.GetOrigin() == GRID.origin


def test_several_series(tmp_path):
    write_slices(tmp_path / "long", hu())
    write_slices(tmp_path / "short", hu(seed=1)[:5], uid="1.2.4", description="bone")
    write_slices(tmp_path / "pet", hu()[:8], uid="1.2.5", modality="PT")
    said = []
    assert read_ct(tmp_path, warn=said.append).GetSize()[2] == 9
    assert len(said) == 1
    assert "1.2.4 (CT, bone, 5 slices)" in said[0]
    assert np.array_equal(sitk.GetArrayFromImage(read_ct(tmp_path, series_uid="1.2.4")), hu(seed=1)[:5])
    with pytest.raises(ImageError, match=r"no series 9\.9 .*1\.2\.3") as error:
        read_ct(tmp_path, series_uid="9.9")
    assert one_line(error)
    write_slices(tmp_path / "same", hu(), uid="1.2.6")
    with pytest.raises(ImageError, match=r"several CT series.*1\.2\.3.*1\.2\.6"):
        read_ct(tmp_path)


def test_folders_without_a_series(tmp_path):
    with pytest.raises(ImageError, match="no DICOM images"):
        read_ct(tmp_path)
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    with pytest.raises(ImageError, match="none of its 1 DICOM files can be read") as error:
        read_ct(tmp_path)
    assert one_line(error)
    write_slices(tmp_path / "mr", hu(), modality="MR")
    with pytest.raises(ImageError, match=r"no CT series.*MR, chest, 9 slices"):
        read_ct(tmp_path)


def test_missing_doubled_and_uneven_slices(tmp_path):
    write_slices(tmp_path / "gap", hu(), skip=(4,))
    with pytest.raises(ImageError, match=r"1\.2\.3: slices are missing .*between 47\.50 and 52\.50"):
        read_ct(tmp_path / "gap")
    write_slices(tmp_path / "double" / "1", hu())
    write_slices(tmp_path / "double" / "2", hu(seed=1))
    with pytest.raises(ImageError, match="9 slices share their position"):
        read_ct(tmp_path / "double")
    said = []
    write_slices(tmp_path / "uneven", hu(), spacing=2.5)
    image = sitk.ReadImage(str(tmp_path / "uneven" / "021.dcm"))
    image.SetMetaData("0020|0032", "-10\\5\\47.7")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(tmp_path / "uneven" / "021.dcm"))
    writer.Execute(image)
    read_ct(tmp_path / "uneven", warn=said.append)
    assert len(said) == 1
    assert "unevenly spaced" in said[0]


def test_a_damaged_slice(tmp_path):
    write_slices(tmp_path, hu())
    path = tmp_path / "028.dcm"
    path.write_bytes(path.read_bytes()[:-400])
    said = []
    with pytest.raises(ImageError, match="slices are missing") as error:
        read_ct(tmp_path, warn=said.append)
    assert one_line(error)
    assert len(said) == 1
    assert f"{path} (cut off: 560 of 960 bytes of its pixels are there)" in said[0]


def test_a_tilted_gantry_keeps_positions_and_is_reported(tmp_path):
    write_slices(tmp_path, hu(), tilt=0.5)
    ct = read_ct(tmp_path)
    assert np.allclose(ct.TransformIndexToPhysicalPoint((3, 4, 8)), (-10 + 2.1, 5 + 2.8 + 4, 60), atol=1e-6)
    warnings = check_ct(ct)
    assert len(warnings) == 1
    assert "tilted gantry" in warnings[0]


@pytest.mark.published("lidc-dicom.tar.xz")
def test_the_real_series(published, tmp_path):
    with tarfile.open(published / "lidc-dicom.tar.xz") as tar:
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    said = []
    ct = read_ct(tmp_path, warn=said.append)
    assert said == []
    assert ct.GetSize() == (512, 512, 101)
    assert np.allclose(ct.GetSpacing(), (0.742, 0.742, 2.5), atol=1e-3)
    assert check_ct(ct) == []
    values = sitk.GetArrayViewFromImage(ct)[50]
    lung = values[(values > -1000) & (values < -500)]  # beyond the scanner's field of view it stores -2048
    assert lung.size > 20000
    assert -950 < np.median(lung) < -750


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sitk.Image(), "empty"),
        (lambda: sitk.Image([8, 8], sitk.sitkInt16), "2D"),
        (lambda: sitk.Image([8, 8, 8, 3], sitk.sitkInt16), "4D"),
        (lambda: sitk.Image([8, 8, 8], sitk.sitkVectorUInt8, 3), "3 values a voxel"),
        (lambda: sitk.Image([8, 8, 1], sitk.sitkInt16), "single slice"),
        (lambda: sitk.Image([1, 8, 8], sitk.sitkInt16), "single slice"),
        (lambda: sitk.Image([8, 8, 8], sitk.sitkComplexFloat32), "complex"),
    ],
)
def test_images_that_cannot_be_segmented(make, reason):
    with pytest.raises(ImageError, match=f"scan: .*{reason}") as error:
        check_ct(make(), "scan")
    assert one_line(error)


@pytest.mark.parametrize("axis", range(3))
def test_geometry_that_is_not_sound(axis):
    class Odd:
        """SimpleITK refuses some of these, other sources of images may not."""

        def __init__(self, **changes):
            self.changes, self.image = changes, GRID.image(hu())

        def __getattr__(self, name):
            return (lambda: self.changes[name]) if name in self.changes else getattr(self.image, name)

    for bad in (0.0, -1.0, float("nan"), float("inf")):
        spacing = tuple(bad if a == axis else 1.0 for a in range(3))
        with pytest.raises(ImageError, match="spacing"):
            check_ct(Odd(GetSpacing=spacing))
    with pytest.raises(ImageError, match="direction isn't finite"):
        check_ct(Odd(GetDirection=(float("nan"), *IDENTITY[1:])))
    with pytest.raises(ImageError, match="don't span"):
        check_ct(Odd(GetDirection=(1.0, 0, 0, 0, 1.0, 0, 0, 1.0, 0)))


@pytest.mark.parametrize("spacing", ["0 0.7 2.5", "nan 0.7 2.5"])
def test_files_with_bad_spacing(tmp_path, spacing):
    path = tmp_path / "ct.mha"
    sitk.WriteImage(GRID.image(hu()), str(path), useCompression=False)
    content = path.read_bytes()
    line = next(line for line in content.split(b"\n") if line.startswith(b"ElementSpacing"))
    path.write_bytes(content.replace(line, f"ElementSpacing = {spacing}".encode()))
    with pytest.raises(ImageError) as error:
        check_ct(read_ct(path))
    assert one_line(error)


def test_nan_and_infinity_only_where_it_matters():
    values = hu().astype(np.float32)
    values[1, 2, 3], values[7, 1, 1] = np.nan, np.inf
    ct = GRID.image(values)
    with pytest.raises(ImageError, match="2 voxels are NaN or infinite"):
        check_ct(ct)
    assert check_ct(ct, check_region=GRID.part((4, 4, 2), (10, 10, 5))) == []
    with pytest.raises(ImageError, match="1 voxels"):
        check_ct(ct, check_region=GRID.part((0, 0, 0), (10, 10, 5)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.linspace(0, 1, 4320, dtype=np.float32), r"scaled to \[0, 1\]"),
        (np.linspace(0, 255, 4320).astype(np.uint8), "8-bit"),
        (np.linspace(0, 3000, 4320).astype(np.uint16), "offset"),
        (np.linspace(-200, 900, 4320).astype(np.int16), "no air below -300 HU"),
    ],
)
def test_values_that_are_not_hu_are_reported(values, words):
    warnings = check_ct(GRID.image(values.reshape(GRID.shape)), "scan")
    assert len(warnings) == 1
    assert re.search(words, warnings[0])
    assert warnings[0].startswith("scan:")


def test_unreadable_files(tmp_path, capfd):
    (tmp_path / "text.nrrd").write_text("NRRD0004\ntype: short\n")
    (tmp_path / "notes.txt").write_text("no image")
    sitk.WriteImage(GRID.image(hu()), str(tmp_path / "short.nrrd"), useCompression=False)
    (tmp_path / "short.nrrd").write_bytes((tmp_path / "short.nrrd").read_bytes()[:-2000])
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkVectorUInt8, 3), str(tmp_path / "color.png"))
    for name in ("text.nrrd", "notes.txt", "short.nrrd", "missing.nrrd"):
        with pytest.raises(ImageError, match=name) as error:
            read_ct(tmp_path / name)
        assert one_line(error)
        assert len(str(error.value)) < 300 + len(str(tmp_path))
    with pytest.raises(ImageError, match="3 values"):
        check_ct(read_ct(tmp_path / "color.png"), "color.png")
    assert "WARNING" not in capfd.readouterr().err


def test_masks(tmp_path):
    mask = np.zeros(GRID.shape, np.uint16)
    mask[3:5, 4:9, 5:7] = 300
    path = tmp_path / "mask.nrrd"
    sitk.WriteImage(GRID.image(mask), str(path))
    read = read_mask(path, GRID.image(hu()))
    assert read.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(read), mask > 0)
    with pytest.raises(ImageError, match="outside the CT"):
        read_mask(path, GRID.part((200, 0, 0), GRID.size).image(hu()))
    other = np.zeros(GRID.shape, np.uint8)
    other[7, 7, 7] = 1
    write_segmentation(tmp_path / "m.seg.nrrd", [(n, GRID.image(m), (1, 0, 0)) for n, m in (("a", mask), ("b", other))])
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(tmp_path / "m.seg.nrrd")), (mask > 0) | (other > 0))
    sitk.WriteImage(GRID.image(), str(path))
    with pytest.raises(ImageError, match="empty"):
        read_mask(path)
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkVectorUInt8, 3), str(path))
    with pytest.raises(ImageError, match="3 values"):
        read_mask(path)


def test_points():
    ct = GRID.image()
    assert check_point((-5, 10.0, 50), ct) == (-5.0, 10.0, 50.0)
    assert check_point(GRID.indices_to_points((-0.49, 19.49, 8.49)), ct)
    for bad in ((1, 2), (1, 2, 3, 4), (float("nan"), 0, 0), (0, float("inf"), 0), None, "abc", ("a", 1, 2)):
        with pytest.raises(PointError, match="three finite numbers"):
            check_point(bad, ct)
    with pytest.raises(PointError, match=r"\(-5.0, 10.0, 80.0\): outside .* x -10.\d to 6.\d.*z 38.8 to 61.2") as error:
        check_point((-5, 10, 80), ct)
    assert "RAS" not in str(error.value)
    with pytest.raises(PointError, match="as RAS it would lie inside"):
        check_point((5, -10, 50), ct)


def test_outputs_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.seg.nrrd"
    seen = []
    write_whole(path, lambda temporary: (seen.append(temporary), temporary.write_text("first")))
    assert path.read_text() == "first"
    assert seen[0].parent == tmp_path
    assert seen[0].name.endswith(".seg.nrrd")

    def fails(error):
        def writer(temporary):
            temporary.write_text("half")
            raise error

        return writer

    for error in (OSError(28, "No space left on device"), RuntimeError("sitk::ERROR: ITK ERROR: X(0x1): no space")):
        with pytest.raises(OutputError, match=r"report\.seg\.nrrd: .*(No|no) space"):
            write_whole(path, fails(error))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fails(KeyboardInterrupt()))
    for bad in (tmp_path / "nowhere" / "a.json", path / "a.json", tmp_path):
        with pytest.raises(OutputError):
            write_whole(bad, lambda temporary: temporary.write_text("x"))
    assert [p.name for p in tmp_path.iterdir()] == ["report.seg.nrrd"]
    assert path.read_text() == "first"
