"""From image and source to soft mask: volumes, grids, files, RECIST marks and DeepLesion's table."""

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.files import image_writer, write_all
from LungNoduleKit.images import read_volume
from LungNoduleKit.masks import on_grid, read_masks
from LungNoduleKit.segmentation_file import write_segmentation
from SoftMaskLabelerLib import closed_form_alpha, trimap_from_mask, trimap_from_readers
from SoftMaskLabelerLib.dataset import deeplesion as dl
from SoftMaskLabelerLib.errors import ImageError, MaskError, OutputError, RecistError, SoftMaskError, TrimapError
from SoftMaskLabelerLib.pipeline import (
    Parameters,
    read_trimap,
    soft_mask_array,
    soft_mask_volume,
    trimap_volume,
    windowed,
)
from SoftMaskLabelerLib.trimap.recist import recist_axes

SPACING = (0.8, 0.7, 1.5)
ANGLE = 0.3
DIRECTION = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1)


def volume(array, like=None):
    """An image (z, y, x) on an oblique grid far from the origin."""
    image = sitk.GetImageFromArray(array)
    if like is None:
        image.SetSpacing(SPACING)
        image.SetDirection([float(v) for v in DIRECTION])
        image.SetOrigin((-61.5, 112.0, -200.25))
    else:
        image.CopyInformation(like)
    return image


def nodule(shape=(12, 60, 70), center=(6, 28, 33), radius=9.0, seed=3):
    """CT with a ball whose rim is blurred, its mask, and four readers who disagree by a pixel or two."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    r = np.sqrt(((z - center[0]) * 2) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2)
    noise = np.random.default_rng(seed).normal(0, 15, shape)
    hu = -850 + 900 / (1 + np.exp((r - radius) / 0.8)) + noise
    readers = [r <= radius + step for step in (-1.5, -0.5, 0.5, 1.6)]
    return np.round(hu).astype(np.int16), r <= radius, readers


def array_of(image):
    return sitk.GetArrayFromImage(image)


def test_volume_is_the_stack_of_its_slices_on_the_images_grid():
    hu, mask, _ = nodule()
    image = volume(hu)
    result = soft_mask_volume(image, masks=volume(mask.astype(np.uint8)))
    steps = SPACING[::-1]
    trimap = trimap_from_mask(mask, steps)
    assert np.array_equal(array_of(result.trimap), trimap)
    whole = closed_form_alpha(windowed(hu, (-1000, 400)), trimap)
    # Cropping to the lesion's region must not show; rounding may.
    assert np.abs(array_of(result.alpha) - whole).max() < 1e-5
    assert np.array_equal(array_of(result.binary) > 0, array_of(result.alpha) >= 0.5)
    for out in (result.alpha, result.trimap, result.binary):
        assert out.GetOrigin() == image.GetOrigin()
        assert out.GetDirection() == image.GetDirection()
        assert out.GetSpacing() == image.GetSpacing()
    assert result.alpha.GetPixelID() == sitk.sitkFloat32
    assert np.array_equal(array_of(trimap_volume(image, masks=volume(mask.astype(np.uint8)))), trimap)


@pytest.mark.parametrize("dimension", [2, 3])
def test_readers_in_2d_and_3d(dimension):
    hu, _, readers = nodule()
    image = volume(hu)
    parameters = Parameters(dimension=dimension)
    result = soft_mask_volume(image, masks=[volume(r.astype(np.uint8)) for r in readers], parameters=parameters)
    trimap = trimap_from_readers(readers, SPACING[::-1], dimension=dimension)
    assert np.array_equal(array_of(result.trimap), trimap)
    whole = closed_form_alpha(windowed(hu, (-1000, 400)), trimap, dimension=dimension)
    assert np.abs(array_of(result.alpha) - whole).max() < 1e-4
    # The truth in the band is close to the readers' mean, and the blurred rim is soft.
    alpha = array_of(result.alpha)
    assert ((alpha > 0.1) & (alpha < 0.9)).sum() > 50


def test_slices_in_notes_are_the_images():
    hu, _, readers = nodule()
    apart = [r.copy() for r in readers]
    # On slice 7 two readers draw left, two right: no pixel in all four.
    for number, mask in enumerate(apart):
        mask[7] = False
        mask[7, 20:30, (20 if number < 2 else 40) : (30 if number < 2 else 50)] = True
        mask[:6] = False
    _, trimap = soft_mask_array(hu, SPACING[::-1], masks=apart, notes=(notes := []))
    assert any(note.startswith("slice 7: no pixel in all 4") for note in notes)
    assert (trimap[7] == 255).any()
    assert not trimap[:5].any()


def test_edited_trimap_is_used_as_it_is():
    hu, mask, _ = nodule()
    image = volume(hu)
    trimap = trimap_from_mask(mask, SPACING[::-1])
    trimap[6, 28, 50:54] = 128
    result = soft_mask_volume(image, trimap=volume(trimap))
    assert np.array_equal(array_of(result.trimap), trimap)
    for bad in (np.where(trimap == 128, 100, trimap), np.where(trimap == 255, 128, trimap)):
        with pytest.raises(TrimapError):
            soft_mask_volume(image, trimap=volume(bad.astype(np.uint8)))


def test_edited_trimap_with_a_slice_that_lacks_lesion_is_told():
    hu, mask, _ = nodule()
    trimap = trimap_from_mask(mask, SPACING[::-1])
    trimap[5][trimap[5] == 255] = 128
    result = soft_mask_volume(volume(hu), trimap=volume(trimap))
    assert result.notes == ["slice 5: no known lesion there"]
    assert not array_of(result.alpha)[5].any()


def test_recist_marks_in_patient_space():
    hu, mask, _ = nodule()
    image = volume(hu)
    ends = [(24.0, 28.0, 6.0), (42.0, 28.0, 6.0), (33.0, 19.0, 6.0), (33.0, 37.0, 6.0)]
    points = [image.TransformContinuousIndexToPhysicalPoint(p) for p in ends]
    result = soft_mask_volume(image, recist_points_lps=points)
    binary = array_of(result.binary) > 0
    assert not binary[:6].any()
    assert not binary[7:].any()
    dice = 2 * (binary[6] & mask[6]).sum() / (binary[6].sum() + mask[6].sum())
    assert dice > 0.93
    alpha, _ = soft_mask_array(hu[6], (0.7, 0.8), recist=np.array(ends)[:, :2])
    # Positions pass through patient space and back.
    assert np.abs(array_of(result.alpha)[6] - alpha).max() < 1e-5
    assert np.array_equal(array_of(trimap_volume(image, recist_points_lps=points)), array_of(result.trimap))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: [*p[:3], (*p[3][:2], p[3][2] + 9)], "different slices"),
        (lambda p: [(x, y, z + 300) for x, y, z in p], "outside the image"),
        (lambda p: [(x + 500, y, z) for x, y, z in p], "outside the image"),
        (lambda p: p[:3], "four finite end points"),
        (lambda p: [*p[:3], (float("nan"),) * 3], "four finite end points"),
        (lambda p: [p[0], p[0], p[2], p[3]], "no length"),
    ],
)
def test_recist_marks_that_cannot_be(change, words):
    image = volume(nodule()[0])
    ends = [(24.0, 28.0, 6.0), (42.0, 28.0, 6.0), (33.0, 19.0, 6.0), (33.0, 37.0, 6.0)]
    points = change([image.TransformContinuousIndexToPhysicalPoint(p) for p in ends])
    with pytest.raises(RecistError, match=words):
        soft_mask_volume(image, recist_points_lps=points)


def test_masks_on_other_grids():
    hu, mask, _ = nodule()
    image = volume(hu)
    full = volume(mask.astype(np.uint8))
    expected = soft_mask_volume(image, masks=full)
    # What Slicer writes: the segment's region only.
    cropped = full[20:50, 10:45, 2:11]
    result = soft_mask_volume(image, masks=[cropped])
    assert np.array_equal(array_of(result.alpha), array_of(expected.alpha))
    assert result.notes == []
    shifted = sitk.Image(full)
    shifted.SetOrigin([o + 0.2 for o in full.GetOrigin()])
    assert "resampled" in soft_mask_volume(image, masks=[shifted]).notes[0]
    away = sitk.Image(full)
    away.SetOrigin((900, 900, 900))
    with pytest.raises(MaskError, match="inside the image"):
        soft_mask_volume(image, masks=[away])


def test_inputs_that_cannot_be():
    hu, mask, _ = nodule()
    image, on = volume(hu), volume(mask.astype(np.uint8))
    with pytest.raises(MaskError, match="empty"):
        soft_mask_volume(image, masks=volume(np.zeros_like(mask, np.uint8)))
    with pytest.raises(ImageError, match="2 values a voxel"):
        soft_mask_volume(sitk.Compose(image, image), masks=on)
    with pytest.raises(ImageError, match="2D"):
        soft_mask_volume(image[:, :, 3], masks=on)
    spoiled = hu.astype(np.float32)
    spoiled[6, 28, 33] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        soft_mask_volume(volume(spoiled), masks=on)
    with pytest.raises(ValueError, match="one of"):
        soft_mask_volume(image)
    with pytest.raises(RecistError, match="2D"):
        soft_mask_volume(image, recist_points_lps=np.zeros((4, 3)), parameters=Parameters(dimension=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": (400, -1000)},
        {"window": (float("nan"), 1)},
        {"erode_mm": -1},
        {"dilate_mm": float("inf")},
        {"dimension": 4},
        {"epsilon": 0},
        {"radius": 0},
        {"iterations": 1.5},
    ],
)
def test_parameters_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        Parameters(**wrong)


def test_progress_can_stop_the_work():
    hu, mask, _ = nodule()
    seen = []

    def progress(stage, share):
        seen.append((stage, share))
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        soft_mask_volume(volume(hu), masks=volume(mask.astype(np.uint8)), progress=progress)
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert {stage for stage, _ in seen} == {"trimap", "matting"}


def test_recist_axes_of_an_ellipse():
    y, x = np.mgrid[:80, :90]
    for angle in (0.0, 0.4, 1.3, 2.5):
        u = (x - 44) * np.cos(angle) + (y - 40) * np.sin(angle)
        v = -(x - 44) * np.sin(angle) + (y - 40) * np.cos(angle)
        points = recist_axes((u / 28) ** 2 + (v / 15) ** 2 <= 1)
        long, short = points[1] - points[0], points[3] - points[2]
        assert np.hypot(*long) == pytest.approx(57, abs=1.5)
        assert np.hypot(*short) == pytest.approx(31, abs=1.6)
        assert abs(long @ short) / (np.hypot(*long) * np.hypot(*short)) < 1e-9
        assert abs(abs(long @ (np.cos(angle), np.sin(angle))) / np.hypot(*long) - 1) < 0.01


def test_recist_axes_of_the_smallest_masks_and_of_other_spacings():
    one = np.zeros((9, 9), bool)
    one[4, 5] = True
    points = recist_axes(one)
    assert np.allclose(points, [[4.5, 4], [5.5, 4], [5, 3.5], [5, 4.5]])
    flat = np.zeros((20, 40), bool)
    flat[5:15, 10:30] = True
    # Pixels three times as high as wide: the long axis runs along y.
    long = np.diff(recist_axes(flat, (3.0, 1.0))[:2], axis=0)[0] * (1.0, 3.0)
    assert np.hypot(*long) == pytest.approx(np.hypot(19, 27) + 1, abs=0.01)
    with pytest.raises(MaskError, match="empty"):
        recist_axes(np.zeros((5, 5)))
    with pytest.raises(MaskError, match="one slice"):
        recist_axes(np.ones((2, 5, 5)))


def test_files_go_round(tmp_path):
    hu, mask, _ = nodule()
    image = volume(hu)
    result = soft_mask_volume(image, masks=volume(mask.astype(np.uint8)))
    paths = [tmp_path / name for name in ("alpha.nrrd", "trimap.nii.gz", "b.seg.nrrd")]

    def segment(path):
        write_segmentation(path, [("Soft: a|b", result.binary, (1, 0, 0))])

    writers = [image_writer(result.alpha), image_writer(result.trimap), segment]
    write_all(zip(paths, writers, strict=True))
    assert np.array_equal(array_of(read_volume(paths[0])), array_of(result.alpha))
    again = on_grid(read_trimap(paths[1]), image, "trimap", notes := [])
    assert np.array_equal(array_of(again), array_of(result.trimap))
    assert notes == []
    masks = read_masks(paths[2])
    assert list(masks) == ["Soft: a|b"]
    assert np.array_equal(array_of(masks["Soft: a|b"]), array_of(result.binary))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)


def test_one_failing_output_leaves_all_as_they_were(tmp_path):
    old = tmp_path / "a.nrrd"
    old.write_text("before")

    def fails(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"b\.nrrd: it can't be written \(No space left"):
        write_all([(old, lambda path: path.write_text("after")), (tmp_path / "b.nrrd", fails)])
    assert old.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"]
    with pytest.raises(OutputError, match="no such folder"):
        write_all([(tmp_path / "none" / "a.nrrd", fails)])


def test_several_layers_and_shared_layers_of_segmentations(tmp_path):
    hu, _, readers = nodule()
    image = volume(hu)
    layers = sitk.Compose([volume(r.astype(np.uint8)) for r in readers[:2]])
    for n in range(2):
        layers.SetMetaData(f"Segment{n}_LabelValue", "1")
        layers.SetMetaData(f"Segment{n}_Layer", str(n))
        layers.SetMetaData(f"Segment{n}_Name", "Reader")
    sitk.WriteImage(layers, str(tmp_path / "two.seg.nrrd"))
    found = read_masks(tmp_path / "two.seg.nrrd")
    assert list(found) == ["Reader", "Reader 2"]
    assert all(np.array_equal(array_of(m) > 0, r) for m, r in zip(found.values(), readers, strict=False))
    labels = volume((readers[0] * 1 + (readers[3] & ~readers[0]) * 2).astype(np.uint8), image)
    for n in range(2):
        labels.SetMetaData(f"Segment{n}_LabelValue", str(n + 1))
    sitk.WriteImage(labels, str(tmp_path / "one.seg.nrrd"))
    first, second = read_masks(tmp_path / "one.seg.nrrd").values()
    assert np.array_equal(array_of(first) > 0, readers[0])
    assert np.array_equal(array_of(second) > 0, readers[3] & ~readers[0])


def test_dicom_folder(tmp_path):
    hu = nodule()[0][:5]
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(5):
        part = sitk.GetImageFromArray(hu[z][None])
        part.SetSpacing((0.8, 0.7, 2.0))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|000d": "1.2", "0020|0013": str(z)}
        tags |= {"0020|0032": f"0\\0\\{2 * z}", "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0018": f"1.2.3.{z}"}
        tags |= {"0028|1052": "0", "0028|1053": "1"}
        for key, value in tags.items():
            part.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / f"{9 - z}.dcm"))
        writer.Execute(part)
    image = read_volume(tmp_path)
    assert np.array_equal(array_of(image), hu)
    assert image.GetSpacing() == pytest.approx((0.8, 0.7, 2.0))
    (tmp_path / "7.dcm").unlink()
    with pytest.raises(ImageError, match="missing"):
        read_volume(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no DICOM images"):
        read_volume(tmp_path / "empty")


HEADER = (
    "File_name,Patient_index,Measurement_coordinates,Coarse_lesion_type,Possibly_noisy,Spacing_mm_px_,DICOM_windows\n"
)


def test_deeplesion_table_and_key_slice(tmp_path):
    table = tmp_path / "DL_info.csv"
    rows = [
        '000001_01_01_109.png,1,"25, 29, 43, 29, 34, 20, 34, 38",5,0,"0.8, 0.7, 5","-1500, 500"',
        '000001_01_01_109.png,1,"1, 2, 3",-1,1,"0.8, 0.7, 5",',
    ]
    table.write_text(HEADER + "\n".join(rows) + "\n")
    first, second = dl.read_table(table)
    assert (first.name, second.name) == ("000001_01_01_109", "000001_01_01_109_2")
    points, spacing = dl.marks(first)
    # Pixels are counted from 1 in the file; spacing is x, y, z there.
    assert points.tolist() == [[24, 28], [42, 28], [33, 19], [33, 37]]
    assert spacing == (0.7, 0.8)
    assert (first.window, first.kind, second.kind) == ((-1500, 500), 5, -1)
    with pytest.raises(RecistError, match="109"):
        dl.marks(second)
    folder = tmp_path / "Images_png" / "000001_01_01"
    folder.mkdir(parents=True)
    hu = nodule()[0][6]
    sitk.WriteImage(sitk.GetImageFromArray((hu.astype(np.int32) + 32768).astype(np.uint16)), str(folder / "109.png"))
    read = dl.read_key_slice(dl.key_slice_path(tmp_path / "Images_png", first.file))
    assert np.array_equal(read, hu)
    with pytest.raises(ImageError, match="no such key slice"):
        dl.key_slice_path(tmp_path, "000009_01_01_001.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 9), np.uint8)), str(folder / "8.png"))
    with pytest.raises(ImageError, match="16-bit"):
        dl.read_key_slice(folder / "8.png")
    table.write_text("a,b\n1,2\n")
    with pytest.raises(SoftMaskError, match="File_name"):
        dl.read_table(table)


@pytest.mark.published("deeplesion")
def test_the_four_real_key_slices(published):
    folder, done = published / "deeplesion", 0
    for lesion in dl.read_table(folder / "DL_info.csv")[:8]:
        try:
            image = dl.read_key_slice(dl.key_slice_path(folder / "images", lesion.file))
        except ImageError:
            continue
        points, spacing = dl.marks(lesion)
        alpha, _ = soft_mask_array(image, spacing, recist=points)
        area = (alpha >= 0.5).sum() * spacing[0] * spacing[1]
        axes = [np.hypot(*((points[n + 1] - points[n]) * spacing[::-1])) for n in (0, 2)]
        # Within a factor of two of the ellipse on the two axes, which is what RECIST marks promise.
        assert 0.5 < area / (np.pi / 4 * axes[0] * axes[1]) < 2
        done += 1
    assert done == 4
