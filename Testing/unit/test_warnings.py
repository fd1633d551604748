"""A warning reaches every output, whoever said it, and standard error exactly once."""

import csv
import io
import json
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from fake_model import bright_model
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import read_ct
from LungNoduleKit.segmentation_file import write_segmentation
from LungNoduleKit.warning_codes import CodedWarning, code_of, without_repeats
from LungNoduleUncertaintyLib import __main__ as cli
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.measuring import table as nodule_table
from LungNoduleUncertaintyLib.measuring.figure import result_figure
from SoftMaskLabelerLib import __main__ as labeler
from test_images import write_slices
from test_segmentation import ball_ct

SAID = "it has several CT series, the longest is used"
BORDER = "the nodule reaches the border of the CT: its real size is larger"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """(a folder of DICOM with two series, a point on the nodule, which the border of the longer one cuts)."""
    ct, center = ball_ct(radius=5.0, size=(50, 50, 30), spacing=(0.7, 0.7, 1.0))
    values = sitk.GetArrayFromImage(ct)[14:]
    write_slices(tmp_path / "dicom" / "a", values, spacing=1.0)
    write_slices(tmp_path / "dicom" / "b", values[:5], uid="1.2.4", description="bone", spacing=1.0)
    monkeypatch.setattr(cli, "load_model", lambda *_: bright_model())
    read = read_ct(tmp_path / "dicom", warn=lambda _: None)
    index = Grid.of(ct).points_to_indices(center) - (0, 0, 14)
    return tmp_path / "dicom", Grid.of(read).indices_to_points(index)


def test_a_reading_warning_reaches_every_output(folder, tmp_path, caplog):
    path, point = folder
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["segment", str(path), "--point", *map(str, point), "--output", str(out / "n.seg.nrrd"), "--quiet"]
    arguments += ["--report", str(out / "r.json"), "--figure", str(out / "f.png")]
    with caplog.at_level(logging.WARNING):
        assert cli.main(arguments) == 0
    report = json.loads((out / "r.json").read_text())
    said, border = report["warnings"]
    assert SAID in said
    assert border == BORDER
    assert report["provenance"]["warning_codes"] == ["input", "ct-border"]
    assert [record.getMessage() for record in caplog.records] == [said, border]  # once each
    header = (out / "n.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
    tags = [line.split(":=", 1)[1] for line in header.splitlines() if line.split(":=")[0].endswith("_Tags")]
    assert len(tags) == 3
    for line in tags:
        tag = next(t for t in line.split("|") if t.startswith("LungNoduleUncertainty.warnings:"))
        assert json.loads(tag.split(":", 1)[1]) == [said, border]
        assert "LungNoduleUncertainty.warning_codes:input ct-border|" in line
    assert warning_pixels(out / "f.png") > 500


def warning_pixels(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels[-120:] - (0xB0, 0x00, 0x20)).sum(-1) < 60).sum())


def test_a_result_without_warnings_has_none_anywhere(tmp_path):
    ct, center = ball_ct()
    result = segment_nodule(ct, center, model=bright_model())
    assert result.warnings == []
    assert result.provenance.warning_codes == ()
    assert not {"warnings", "warning_codes"} & set(result.tag_texts())
    assert "Warning" not in nodule_table.as_text("N", result.measurements)
    result_figure(ct, result, tmp_path / "f.png")
    assert warning_pixels(tmp_path / "f.png") == 0
    result_figure(ct, replace(result, warnings=["so long a sentence that it takes two lines " * 5]), tmp_path / "f.png")
    assert warning_pixels(tmp_path / "f.png") > 500


def test_what_the_readers_said_comes_first_and_is_not_logged_again(caplog):
    ct, center = ball_ct()
    with caplog.at_level(logging.WARNING):
        result = segment_nodule(ct, center, model=bright_model(), notes=["left out", CodedWarning("x", "odd"), "odd"])
    assert result.warnings == ["left out", "odd"]
    assert result.provenance.warning_codes == ("input", "x")
    assert not caplog.records


def test_table_text_and_csv():
    ct, center = ball_ct()
    measurements = segment_nodule(ct, center, model=bright_model()).measurements
    row = nodule_table.row("N", measurements, "solid", "m", ["one, two", "three"])
    (cells,) = csv.DictReader(io.StringIO(nodule_table.as_csv([row])))
    assert cells["Warnings"] == "one, two; three"
    (cells,) = csv.DictReader(io.StringIO(nodule_table.as_csv([nodule_table.row("N", measurements)])))
    assert cells["Warnings"] == ""
    lines = nodule_table.as_text("N", measurements, "solid", "m", ["one, two", "three"]).splitlines()
    assert [line for line in lines if line.startswith("Warning")] == ["Warning: one, two", "Warning: three"]


def test_a_warning_is_a_text_with_a_code():
    warning = CodedWarning("ct-border", BORDER)
    assert json.dumps([warning]) == json.dumps([BORDER])
    assert code_of(pickle.loads(pickle.dumps(warning))) == "ct-border"
    assert code_of("a text") == "input"
    assert without_repeats(["a", warning, "a", BORDER]) == ["a", warning]
    assert [code_of(w) for w in without_repeats([warning, BORDER])] == ["ct-border"]


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_notes_reach_every_output_of_the_soft_mask(folder, tmp_path, capsys, ending):
    path, point = folder
    ct = read_ct(path, warn=lambda _: None)
    x, y, z = np.rint(Grid.of(ct).points_to_indices(point)).astype(int)
    inside = np.zeros(Grid.of(ct).shape, np.uint8)
    inside[z : z + 4, y - 4 : y + 5, x - 4 : x + 5] = 1
    mask = Grid.of(ct).image(inside)
    write_segmentation(tmp_path / "m.seg.nrrd", [("a", mask, (1, 0, 0)), ("b", mask, (0, 1, 0))])
    soft, trimap, segment = (tmp_path / name for name in (f"soft.{ending}", f"trimap.{ending}", "s.seg.nrrd"))
    arguments = [str(path), "--mask", str(tmp_path / "m.seg.nrrd"), "--output", str(soft), "--quiet"]
    assert labeler.main([*arguments, "--trimap", str(trimap), "--segment", str(segment)]) == 0
    told = capsys.readouterr().err
    assert told.count(SAID) == told.count("the union of its 2 segments") == 1
    for image in (soft, trimap):
        text = sitk.ReadImage(str(image)).GetMetaData("SoftMaskLabeler.notes")
        assert SAID in text
        assert "the union of its 2 segments" in text
    assert SAID in segment.read_bytes().split(b"\n\n")[0].decode()
