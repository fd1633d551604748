"""The command line: outputs whole or not at all, one line for an error, exit status 0, 1 or 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fake_model import bright_model
from LungNoduleKit.geometry import Grid
from LungNoduleKit.segmentation_file import read_segmentation
from LungNoduleUncertaintyLib import __main__ as cli
from LungNoduleUncertaintyLib.models import bundle as model_bundle
from test_segmentation import ball_ct


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A CT file, its nodule's point as words, and a model whose answer is known."""
    ct, center = ball_ct()
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(ct, str(path))
    monkeypatch.setattr(model_bundle, "load_model", lambda *_: bright_model())
    return path, [f"{v:.3f}" for v in center]


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_segment_writes_everything(case, tmp_path, capsys):
    ct, point = case
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["segment", str(ct), "--point", *point, "--output", str(out / "n.seg.nrrd")]
    arguments += ["--report", str(out / "r.json"), "--probabilities", str(out / "maps"), "--figure", str(out / "f.png")]
    assert cli.main(arguments) == 0
    assert files(out) == {
        "n.seg.nrrd",
        "r.json",
        "f.png",
        *(f"maps/probability-{key}.nrrd" for key in ("union", "intersection", "final")),
    }
    segments = read_segmentation(out / "n.seg.nrrd")
    assert list(segments) == ["HC", "LC", "Final"]
    report = json.loads((out / "r.json").read_text())
    voxel = np.prod(segments["Final"].GetSpacing())
    for key in ("HC", "LC", "Final"):
        volume = sitk.GetArrayFromImage(segments[key]).sum() * voxel
        assert volume == pytest.approx(report["measurements"]["volumes_mm3"][key.lower()])
    assert report["provenance"]["model_sha256"]
    printed = capsys.readouterr().out
    assert "volume" in printed
    assert all(name.split("/")[-1] in printed for name in files(out))
    probability = sitk.ReadImage(str(out / "maps" / "probability-final.nrrd"))
    assert probability.GetPixelID() == sitk.sitkFloat32
    assert Grid.of(probability).size == Grid.of(segments["HC"]).size


def test_ras_is_lps_turned_round(case, tmp_path):
    ct, (x, y, z) = case
    a, b = tmp_path / "a.seg.nrrd", tmp_path / "b.seg.nrrd"
    assert cli.main(["segment", str(ct), "--point", x, y, z, "--output", str(a), "--quiet"]) == 0
    turned = [str(-float(x)), str(-float(y)), z]
    assert cli.main(["segment", str(ct), "--point", *turned, "--ras", "--output", str(b), "--quiet"]) == 0
    for one, other in zip(read_segmentation(a).values(), read_segmentation(b).values(), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.nrrd", "--point", "0", "0", "0"], "missing.nrrd"),
        (["{ct}", "--point", "9999", "0", "0"], "outside the volume"),
        (["{ct}", "--point", "nan", "0", "0"], "three finite numbers"),
        (["{ct}", "--near", "{ct}x"], "ct.nrrdx"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path, capsys, arguments, words):
    ct, _ = case
    before = files(tmp_path)
    output = tmp_path / "n.seg.nrrd"
    status = cli.main(["segment", *(a.format(ct=ct) for a in arguments), "--output", str(output), "--quiet"])
    message = capsys.readouterr().err
    assert status == 1
    assert words in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert files(tmp_path) == before


def test_a_failing_output_takes_the_others_back(case, tmp_path, capsys, monkeypatch):
    """The report can't be written (disk full): the segmentation of before is there again, and no map is left."""
    ct, point = case
    output, report = tmp_path / "n.seg.nrrd", tmp_path / "r.json"
    output.write_bytes(b"of yesterday")
    real = Path.write_text

    def full(self, *args, **kwargs):
        if self.suffix == ".json":
            real(self, "half")
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    before = files(tmp_path)
    arguments = ["segment", str(ct), "--point", *point, "--output", str(output), "--report", str(report), "--quiet"]
    assert cli.main([*arguments, "--probabilities", str(tmp_path / "maps")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert files(tmp_path) == before
    assert output.read_bytes() == b"of yesterday"
    assert not (tmp_path / "maps").exists()


def test_wrong_usage_is_status_2(case, capsys):
    ct, point = case
    for arguments in (["segment", str(ct), "--output", "x.seg.nrrd"], ["segment"], [], ["demo", "--ct", str(ct)]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    capsys.readouterr()
    assert cli.main(["segment", str(ct), "--point", *point, "--output", "x.nrrd"]) == 1
    assert "must end in .seg.nrrd" in capsys.readouterr().err
    assert cli.main(["segment", str(ct), "--point", *point, "--output", "nowhere/x.seg.nrrd"]) == 1
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "LPS" in text


def test_models_lists_the_shipped_bundles(capsys):
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert "ugsnet-compact (default): version" in text
    assert "Apache-2.0" in text
