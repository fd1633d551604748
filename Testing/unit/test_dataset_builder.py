"""The data set builder: layout, manifest, decisions, resume, failures, processes that die."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lesion_cases import nodule_folder, rows_of
from SoftMaskLabelerLib.dataset import builder as dataset_builder
from SoftMaskLabelerLib.dataset import manifest
from SoftMaskLabelerLib.dataset.builder import Settings, build, crop, crop_corner, read_case
from SoftMaskLabelerLib.dataset.contact_sheet import PICTURE_PIXELS, Tile, contact_sheet, outline
from SoftMaskLabelerLib.dataset.manifest import Manifest, apply_decisions
from SoftMaskLabelerLib.dataset.parallel import run_many
from SoftMaskLabelerLib.dataset.sources import deeplesion_cases, file_name, folder_cases
from SoftMaskLabelerLib.errors import OutputError, SoftMaskError
from SoftMaskLabelerLib.pipeline import Parameters, soft_mask_array
from test_pipeline import HEADER, nodule


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "nodules"
    nodule_folder(folder)
    return folder


def listing(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def decide(path, decisions, **columns):
    """What a reviewer does in a spreadsheet."""
    rows = list(rows_of(path).values())
    for row in rows:
        row["decision"] = decisions.get(row["case"], row["decision"])
        row.update({key: value.get(row["case"], "") for key, value in columns.items()})
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("strategy", ["mask", "readers", "recist"])
def test_layout_and_values(source, tmp_path, strategy):
    cases = folder_cases(source)[:2]
    summary = build(cases, tmp_path / "set", Settings(strategy=strategy))
    assert (summary.done, summary.failed, summary.skipped, summary.pages) == (2, 0, 0, 1)
    assert set(listing(tmp_path / "set")) == {
        "dataset.json",
        "manifest.csv",
        "contact-sheets/page-001.png",
        *(f"{layer}/N-{n}.png" for layer in ("image", "soft", "trimap", "binary") for n in range(2)),
    }
    row = rows_of(tmp_path / "set" / "manifest.csv")["N-1"]
    assert (row["status"], row["patient"], row["strategy"], row["slice"]) == ("ok", "P-0", strategy, "4")
    assert (row["decision"], row["page"], row["tile"]) == ("", "1", "2")
    loaded = cases[1].load(strategy, 1)
    alpha, trimap = soft_mask_array(loaded.image, loaded.spacing, masks=loaded.masks, recist=loaded.points)
    assert float(row["area_mm2"]) == (alpha >= 0.5).sum()
    assert float(row["soft_area_mm2"]) == pytest.approx(alpha.sum(), rel=1e-4)
    y, x = int(row["first_row"]), int(row["first_column"])
    window = np.s_[y : y + 64, x : x + 64]
    layers = read_case(tmp_path / "set", "N-1")
    assert np.array_equal(layers["image"], loaded.image[window])
    assert np.abs(layers["soft"] - alpha[window]).max() <= 0.5 / 65535 + 1e-7
    assert np.array_equal(layers["trimap"], trimap[window])
    assert np.array_equal(layers["binary"], alpha[window] >= 0.5)
    assert sitk.ReadImage(str(tmp_path / "set" / "soft" / "N-1.png")).GetPixelID() == sitk.sitkUInt16


def test_without_a_table_slices_are_found(source, tmp_path):
    folder = tmp_path / "plain"
    nodule_folder(folder, 2, table=False)
    first, second = folder_cases(folder)
    assert (first.name, first.patient, first.z) == ("N-0", "N-0", None)
    assert second.load("readers", 1).slice == "4"
    with pytest.raises(SoftMaskError, match="no nodules"):
        folder_cases(tmp_path)


def test_failed_cases_are_recorded_and_tried_again(source, tmp_path):
    folder = tmp_path / "nodules"
    nodule_folder(folder, 3)
    (folder / "N-0_ct.nrrd").write_bytes(b"NRRD0004\nnonsense")
    readers = folder / "N-1_readers.seg.nrrd"
    kept = readers.read_bytes()
    readers.unlink()
    out = tmp_path / "set"
    summary = build(folder_cases(folder), out)
    assert (summary.done, summary.failed, summary.pages) == (1, 2, 1)
    rows = rows_of(out / "manifest.csv")
    assert list(rows) == ["N-0", "N-1", "N-2"]
    assert rows["N-0"]["status"] == rows["N-1"]["status"] == "failed"
    assert "N-0_ct.nrrd" in rows["N-0"]["notes"]
    assert "no such file" in rows["N-1"]["notes"]
    readers.write_bytes(kept)
    summary = build(folder_cases(folder), out)
    assert (summary.done, summary.failed, summary.skipped) == (1, 1, 1)
    assert rows_of(out / "manifest.csv")["N-1"]["notes"] == ""


def test_resume_keeps_files_decisions_and_the_reviewers_columns(source, tmp_path):
    cases, out = folder_cases(source), tmp_path / "set"
    build(cases[:3], out)
    decide(out / "manifest.csv", {"N-0": "accept", "N-2": "reject"}, reviewer={"N-0": "anna"})
    (out / "soft" / "N-1.png").unlink()
    before = listing(out)
    summary = build(cases, out)
    assert (summary.done, summary.skipped) == (3, 2)
    after = listing(out)
    assert all(after[f"soft/N-{n}.png"] == before[f"soft/N-{n}.png"] for n in (0, 2))
    rows = rows_of(out / "manifest.csv")
    assert [row["decision"] for row in rows.values()] == ["accept", "", "reject", "", ""]
    assert rows["N-0"]["reviewer"] == "anna"
    # Nothing to do: nothing but the manifest is touched.
    build(cases, out)
    assert {k for k, v in listing(out).items() if v != after[k]} <= {"manifest.csv"}


def test_decisions_made_while_it_runs_are_kept(source, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_builder, "_SECONDS_BETWEEN_WRITES", -1)
    out = tmp_path / "set"

    def progress(done, total):
        if done == 3:
            decide(out / "manifest.csv", {"N-0": "reject"})

    build(folder_cases(source), out, progress=progress)
    rows = rows_of(out / "manifest.csv")
    assert rows["N-0"]["decision"] == "reject"
    assert all(row["status"] == "ok" for row in rows.values())


def test_a_stopped_run_goes_on(source, tmp_path):
    def progress(done, total):
        if done == 2:
            raise KeyboardInterrupt

    cases, out = folder_cases(source), tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        build(cases, out, progress=progress)
    assert list(rows_of(out / "manifest.csv")) == ["N-0", "N-1"]
    summary = build(cases, out)
    assert (summary.done, summary.skipped) == (3, 2)
    assert not list(out.rglob(".*"))


def test_other_settings_need_another_folder(source, tmp_path):
    cases, out = folder_cases(source)[:1], tmp_path / "set"
    build(cases, out)
    with pytest.raises(OutputError, match="another erode_mm, "):
        build(cases, out, Settings(parameters=Parameters(erode_mm=1.0, epsilon=1e-5)))
    with pytest.raises(OutputError, match="another strategy;"):
        build(cases, out, Settings(strategy="recist"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folders can't be made"):
        build(cases, tmp_path / "file")


def test_apply_decisions(source, tmp_path):
    out = tmp_path / "set"
    build(folder_cases(source), out)
    decide(out / "manifest.csv", {"N-0": "accept", "N-1": " Accept ", "N-2": "reject"})
    path, counts = apply_decisions(out)
    assert list(rows_of(path)) == ["N-0", "N-1"]
    assert counts == {"accepted": 2, "rejected": 3, "undecided": 2, "failed": 0}
    assert list(rows_of(apply_decisions(out, undecided="accept")[0])) == ["N-0", "N-1", "N-3", "N-4"]
    decide(out / "manifest.csv", {"N-3": "perhaps"})
    with pytest.raises(SoftMaskError, match="N-3 is 'perhaps'"):
        apply_decisions(out)
    with pytest.raises(SoftMaskError, match="no manifest"):
        apply_decisions(tmp_path)


def test_a_manifest_that_is_none(tmp_path):
    (tmp_path / manifest.NAME).write_text("a,b\n1,2\n")
    with pytest.raises(SoftMaskError, match="no column 'case'"):
        Manifest(tmp_path)


def dies_on_three(number):
    if number == 3:
        os._exit(1)
    return number * 10


def test_a_process_that_dies_costs_one_case():
    found = dict(run_many(dies_on_three, range(8), 2))
    assert found == {n: n * 10 for n in range(8)} | {3: None}


def test_two_processes_give_what_one_gives(source, tmp_path):
    cases = folder_cases(source)
    build(cases, tmp_path / "one", jobs=1, per_page=2)
    build(cases, tmp_path / "two", jobs=2, per_page=2)
    assert set(listing(tmp_path / "one")) == set(listing(tmp_path / "two"))
    for name in listing(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_crops_stay_inside_or_repeat_the_edge():
    image = np.arange(100 * 90).reshape(100, 90)
    trimap = np.zeros((100, 90), np.uint8)
    trimap[2:8, 50:61] = 255
    corner = crop_corner(trimap, 64)
    assert corner == (0, 23)
    assert np.array_equal(crop(image, corner, 64, True), image[:64, 23:87])
    small, corner = image[:40, :], crop_corner(trimap[:40], 64)
    assert corner == (-12, 23)
    part = crop(small, corner, 64, True)
    assert part.shape == (64, 64)
    assert np.array_equal(part[:12], np.repeat(small[:1, 23:87], 12, axis=0))
    assert np.array_equal(crop(small, corner, 64, False)[52:], np.zeros((12, 64)))


def test_lesions_larger_than_the_crop_are_told(source, tmp_path):
    build(folder_cases(source)[:1], tmp_path / "set", Settings(size=12))
    assert "larger than the crop" in rows_of(tmp_path / "set" / "manifest.csv")["N-0"]["notes"]
    assert read_case(tmp_path / "set", "N-0")["soft"].shape == (12, 12)


def test_contact_sheet_shows_what_it_is_given():
    alpha = np.zeros((64, 64), np.float32)
    alpha[20:40, 16:48] = 1
    tile = Tile(np.full((64, 64), 0.5), (alpha * 255).astype(np.uint8), alpha, "a", True)
    page = contact_sheet([tile] * 3, "title")
    assert page.shape[0] > 2 * PICTURE_PIXELS
    assert page.shape[1] > 8 * PICTURE_PIXELS
    pictures = page[8 + 18 + 14 :][:PICTURE_PIXELS, 8:]
    assert (pictures[:, :PICTURE_PIXELS] == 128).all()
    assert (pictures[60, 2 * PICTURE_PIXELS + 64] == 255).all()
    assert (pictures[4, 3 * PICTURE_PIXELS + 4] == 0).all()
    orange = (pictures[:, PICTURE_PIXELS : 2 * PICTURE_PIXELS] == (255, 140, 40)).all(axis=-1)
    # The outline runs around alpha's rectangle, twice as large.
    assert np.flatnonzero(orange.any(axis=1))[[0, -1]] == pytest.approx([40, 79], abs=1)
    assert np.flatnonzero(orange.any(axis=0))[[0, -1]] == pytest.approx([32, 95], abs=1)
    assert outline(np.ones((5, 5), bool)).sum() == 0


def test_names_become_file_names():
    assert file_name("a/../b c") == "a_.._b_c"
    assert file_name("..") == "_"


def test_deeplesion_source(tmp_path):
    rows = [
        f'000001_01_01_00{n}.png,1,"25, 29, 43, 29, 34, 20, 34, 38",{n},0,"1, 1, 5","-1500, 500"' for n in (5, 2, 5)
    ]
    (tmp_path / "DL_info.csv").write_text(HEADER + "\n".join(rows) + "\n")
    images = tmp_path / "Images_png" / "000001_01_01"
    images.mkdir(parents=True)
    hu = nodule()[0][6].astype(np.int32)
    sitk.WriteImage(sitk.GetImageFromArray((hu + 32768).astype(np.uint16)), str(images / "005.png"))
    cases = deeplesion_cases(tmp_path / "DL_info.csv", tmp_path / "Images_png", [5])
    assert [case.name for case in cases] == ["000001_01_01_005", "000001_01_01_005_2"]
    everything = deeplesion_cases(tmp_path / "DL_info.csv", tmp_path / "Images_png")
    summary = build(everything, tmp_path / "set", Settings(strategy="recist", own_window=True))
    assert (summary.done, summary.failed) == (2, 1)
    rows = rows_of(tmp_path / "set" / "manifest.csv")
    assert rows["000001_01_01_005"]["window_hu"] == "-1500 500"
    assert "no such key slice" in rows["000001_01_01_002"]["notes"]
    with pytest.raises(SoftMaskError, match="no lesions of type"):
        deeplesion_cases(tmp_path / "DL_info.csv", tmp_path / "Images_png", [8])


def _slow(item):
    (item / str(os.getpid())).touch()
    time.sleep(20)


def test_workers_of_a_killed_run_end_too(tmp_path):
    """They would wait for their next case for good."""
    program = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from SoftMaskLabelerLib.dataset.parallel import run_many
from test_dataset_builder import _slow
if __name__ == "__main__":
    list(run_many(_slow, [Path({str(tmp_path)!r})] * 4, 2))
"""
    script = tmp_path / "run.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, str(script)])

    def workers():
        return [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]

    def until(done):
        end = time.monotonic() + 40
        while not done() and time.monotonic() < end:
            time.sleep(0.2)
        assert done()

    until(lambda: len(workers()) == 2)
    parent.kill()
    parent.wait()
    until(lambda: not any(_runs(process) for process in workers()))


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
