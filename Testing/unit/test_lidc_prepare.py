"""From DICOM series and outlines to the data folder, on a made-up series and on a real one."""

import argparse
import csv
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import OutputError
from LungNoduleKit.readers import read_readers
from LungNoduleKit.segmentation_file import read_segmentation
from Training.data.folder import load_folder
from Training.data.lidc import prepare as command
from Training.data.lidc.contours import bounding_box, contour_pixels, interpolate_slices, stacked_masks
from Training.data.lidc.dicom import SeriesError, SeriesFolders, read_scan, slice_heights
from Training.data.lidc.prepare import PrepareError, prepare_lidc

REAL = "LIDC-IDRI-0023"
SMALL = "LIDC-IDRI-0142"  # has a 6 mm nodule of four readers


def write_series(folder, scan, keep=slice(None), pixel=None):
    """A DICOM series with the scan's UID, slices and spacing: air, and 50 HU inside of every outline."""
    folder.mkdir(parents=True)
    nodules = scan.nodules()
    heights = scan.slice_zs[keep]
    volume = np.full((len(heights), 512, 512), -900, np.int16)
    for nodule in nodules:
        low, high = bounding_box(nodule)
        if min(c.z_mm for a in nodule for c in a.contours) < heights[0] - 1:
            continue
        masks = stacked_masks(nodule, heights, low, high - low + 1, tolerance=0.5).any(0)
        volume[:, low[0] : high[0] + 1, low[1] : high[1] + 1][masks] = 50
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    pixel = pixel or scan.pixel_spacing_mm
    for k, z in enumerate(heights):
        image = sitk.GetImageFromArray(volume[k][None])
        image.SetSpacing((pixel, pixel, float(np.median(np.diff(scan.slice_zs)))))
        image.SetOrigin((-150.0, -160.0, float(z)))
        tags = {"0020|000e": scan.series_uid, "0020|000d": f"{scan.series_uid}.1", "0008|0060": "CT", "0010|0020": "x"}
        tags |= {"0008|0018": f"{scan.series_uid[:40]}.{k}", "0020|0032": f"-150\\-160\\{z:.6f}"}
        tags |= {"0020|0037": "1\\0\\0\\0\\1\\0", "0020|0013": str(k), "0028|1053": "1", "0028|1052": "0"}
        for key, value in tags.items():
            image.SetMetaData(key, value)
        # Names that don't sort by position.
        writer.SetFileName(str(folder / f"{(k * 37) % 1009:04d}.dcm"))
        writer.Execute(image)
    return volume


@pytest.fixture(scope="module")
def small(database, tmp_path_factory):
    """(root, scan, volume): a made-up series of a real patient's outlines, in a folder with a meaningless name."""
    (scan,) = database.scans(SMALL)
    nodules = [n for n in scan.nodules() if len(n) > 1]
    spans = [(c.z_mm for a in n for c in a.contours) for n in nodules]
    low = min(min(s) for s in map(list, spans))
    high = max(c.z_mm for n in nodules for a in n for c in a.contours)
    keep = slice(scan.slice_index(low - 8), scan.slice_index(high + 8) + 1)
    root = tmp_path_factory.mktemp("dicom")
    volume = write_series(root / "anything" / "3000566", scan, keep)
    (root / "anything" / "notes.txt").write_text("no image")
    return root, scan, volume


def arguments(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


def test_series_is_found_by_its_uid_in_any_layout_and_read_by_position(small):
    root, scan, volume = small
    assert SeriesFolders(root).folder(scan) == root / "anything" / "3000566"
    image = read_scan(root, scan)
    assert (sitk.GetArrayFromImage(image) == volume).all()
    heights = slice_heights(image)
    assert np.abs(heights - scan.slice_zs[scan.slice_index(heights[0]) :][: len(heights)]).max() < 1e-3


def test_missing_and_wrong_series_are_named(small, database, tmp_path):
    root, scan, _ = small
    (other,) = database.scans(REAL)
    with pytest.raises(SeriesError, match=f"{other.series_uid} of {REAL} isn't in it"):
        read_scan(root, other)
    with pytest.raises(SeriesError, match="there is no such folder"):
        read_scan(tmp_path / "none", scan)
    first = scan.slice_index(scan.slice_zs[-1])
    write_series(tmp_path / scan.series_uid, scan, slice(first - 3, first), pixel=1.5)
    with pytest.raises(SeriesError, match=r"pixels of 1\.5 x 1\.5 mm"):
        read_scan(tmp_path, scan)


def test_folder_is_what_training_reads_and_masks_fit_the_image(small, tmp_path):
    root, scan, _ = small
    assert command.run(arguments(root, "--output", tmp_path / "out", "--quiet")) == 0
    nodules = load_folder(tmp_path / "out", progress=False)
    assert [len(n.readers) for n in nodules] == [len(n) for n in scan.nodules() if len(n) > 1]
    for nodule in nodules:
        assert nodule.hu.shape[1:] == (64, 64)
        assert np.ptp(nodule.spacing) < 1e-6
        inside = nodule.hu > -425  # halfway between the made-up air and tissue
        union = nodule.readers.any(0)
        assert 2 * (inside & union).sum() / (inside.sum() + union.sum()) > 0.95
        z = np.flatnonzero(union.any(axis=(1, 2)))
        assert (z[0], len(union) - 1 - z[-1]) == (6, 6)
        voxel = float(np.prod(nodule.spacing))
        assert float(nodule.row["union_volume_mm3"]) == pytest.approx(union.sum() * voxel, abs=0.01)
    names = list(read_segmentation(tmp_path / "out" / f"{nodules[0].nodule_id}_readers.seg.nrrd"))
    assert names == [f"Reader {n}" for n in range(1, len(nodules[0].readers) + 1)]
    assert len({n.fold for n in nodules}) == 1  # one patient, one fold


def test_resumes_and_makes_again_only_what_is_missing(small, tmp_path):
    root, _, _ = small
    out = tmp_path / "out"
    before = prepare_lidc(root, out, progress=False)
    assert before.written
    assert not before.finished
    kept = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    lost = before.written[0]
    (out / f"{lost}_readers.seg.nrrd").unlink()
    after = prepare_lidc(root, out, progress=False)
    assert after.written == [lost]
    assert after.finished == before.written[1:]
    changed = {p.name for p in out.iterdir() if p.stat().st_mtime_ns != kept.get(p.name)}
    assert changed == {f"{lost}_ct.nrrd", f"{lost}_readers.seg.nrrd", "nodules.csv"}
    with pytest.raises(PrepareError, match="margin 6 before, 3 now"):
        prepare_lidc(root, out, margin=3, progress=False)
    (out / command.SETTINGS).unlink()
    with pytest.raises(PrepareError, match="this command didn't write"):
        prepare_lidc(root, out, progress=False)


def test_a_failing_case_is_recorded_and_the_rest_goes_on(small, tmp_path):
    root, _, _ = small
    out = tmp_path / "out"
    assert command.run(arguments(root, "--output", out, "--patients", REAL, SMALL, "--quiet")) == 0
    with (out / command.FAILURES).open(newline="") as stream:
        (failed,) = csv.DictReader(stream)
    assert failed["case"] == f"{REAL}-1"
    assert "isn't in it" in failed["reason"]
    assert (out / command.NODULES).is_file()
    small_cubes = prepare_lidc(root, tmp_path / "tiny", size=4, progress=False)
    assert not small_cubes.written
    assert all("more than the cube's 4" in reason for _, reason in small_cubes.failed)


def test_nothing_half_written_when_the_disk_is_full(small, tmp_path, monkeypatch):
    root, _, _ = small
    real, calls = sitk.WriteImage, []

    def full(image, path, *rest):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(image, path, *rest)

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(OutputError, match="No space left"):
        prepare_lidc(root, tmp_path / "out", progress=False)
    assert len(list((tmp_path / "out").glob("*_ct.nrrd"))) == 1
    assert not list((tmp_path / "out").glob(".*"))
    monkeypatch.undo()
    assert prepare_lidc(root, tmp_path / "out", progress=False).written


def test_no_series_at_all_is_an_error(tmp_path, database):
    with pytest.raises(PrepareError, match="none of the 1018"):
        prepare_lidc(tmp_path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(PrepareError, match="--size 4"):
        command.run(arguments(tmp_path, "--output", tmp_path / "out", "--size", 4))


@pytest.fixture(scope="module")
def real(database, published, tmp_path_factory):
    root = tmp_path_factory.mktemp("lidc")
    with tarfile.open(published / "lidc-dicom.tar.xz") as tar:
        tar.extractall(root, filter="data")
    yield root, database.scans(REAL)[0]
    shutil.rmtree(root)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def readers_of(stem):
    """The readers' masks (z, y, x) of a prepared nodule."""
    return [sitk.GetArrayFromImage(mask) > 0 for mask in read_readers(f"{stem}_readers.seg.nrrd").values()]


@pytest.mark.published("lidc-dicom.tar.xz", "lidc-nodules")
def test_real_scan_agrees_with_the_prepared_masks(real, published):
    root, scan = real
    stem = published / "lidc-nodules" / f"{REAL}-1-1"
    cube, wanted = sitk.ReadImage(f"{stem}_ct.nrrd"), readers_of(stem)
    image, (nodule,) = read_scan(root, scan), scan.nodules()
    corner = np.array(image.TransformPhysicalPointToContinuousIndex(cube.GetOrigin()))
    assert np.abs(corner[:2] - np.rint(corner[:2])).max() < 1e-3
    start = np.rint(corner[1::-1]).astype(int)
    heights = slice_heights(image)
    z = cube.GetOrigin()[2] + cube.GetSpacing()[2] * np.arange(cube.GetSize()[2])
    masks = stacked_masks(nodule, heights, start, (64, 64), tolerance=0.5)
    bigger = stacked_masks(nodule, heights, start, (64, 64), tolerance=0.5, include_contour=True)
    found, found_bigger = interpolate_slices(masks, heights, z), interpolate_slices(bigger, heights, z)
    for reader, (ours, large, theirs) in enumerate(zip(found, found_bigger, wanted, strict=True)):
        assert dice(ours, theirs) >= 0.999
        assert dice(large, theirs) < 0.92  # the ring matters
        # Exactly the pixels that the reader drew, on every slice, and no other.
        for k, z_mm in enumerate(heights):
            drawn = {
                tuple(pixel)
                for c in nodule[reader].contours
                if abs(c.z_mm - z_mm) < 0.5
                for pixel in contour_pixels(c.ij) - start
            }
            assert set(map(tuple, np.argwhere(bigger[reader, k] & ~masks[reader, k]))) == drawn
        assert not (masks[reader] & ~bigger[reader]).any()


@pytest.mark.published("lidc-dicom.tar.xz", "lidc-nodules")
def test_real_scan_becomes_the_same_nodule(real, published, tmp_path):
    root, _ = real
    done = prepare_lidc(root, tmp_path, progress=False)
    assert done.written == [f"{REAL}-1-1"]
    (nodule,) = load_folder(tmp_path, progress=False)
    stem = published / "lidc-nodules" / f"{REAL}-1-1"
    ours = sitk.ReadImage(str(tmp_path / f"{REAL}-1-1_ct.nrrd"))
    theirs = sitk.ReadImage(f"{stem}_ct.nrrd")
    nothing = -3000.0
    aligned = sitk.GetArrayFromImage(sitk.Resample(ours, theirs, sitk.Transform(), sitk.sitkLinear, nothing))
    both = aligned > nothing
    assert both.mean() > 0.9
    reference = sitk.GetArrayFromImage(theirs)[both]  # stored in 8 bits, clipped to [-1024, 300]
    assert np.corrcoef(aligned[both].clip(-1024, 300), reference)[0, 1] > 0.9995
    volumes = [mask.sum() * float(np.prod(nodule.spacing)) for mask in nodule.readers]
    wanted = [mask.sum() * float(np.prod(theirs.GetSpacing())) for mask in readers_of(stem)]
    assert volumes == pytest.approx(wanted, rel=0.03)
