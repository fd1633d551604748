"""`python -m SoftMaskLabelerLib`: outputs whole or not at all, one line for an error, exit status 0, 1 or 2."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

import dicom_files
from dicom_files import tilted
from lesion_cases import nodule_folder, rows_of, write_segmentation
from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import read_ct
from LungNoduleKit.masks import read_masks
from LungNoduleKit.segmentation_file import write_segmentation as write_layers
from SoftMaskLabelerLib import __main__ as cli
from SoftMaskLabelerLib.pipeline import Parameters, soft_mask_volume
from test_images import write_slices
from test_pipeline import array_of, nodule, volume


@pytest.fixture
def case(tmp_path):
    """A CT, one mask and four readers as files, and a folder for outputs."""
    hu, mask, readers = nodule()
    image = volume(hu)
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    sitk.WriteImage(volume(mask.astype(np.uint8)), str(tmp_path / "mask.nii.gz"))
    write_segmentation(tmp_path / "plain.seg.nrrd", readers)
    layers = sitk.ReadImage(str(tmp_path / "plain.seg.nrrd"))
    layers.CopyInformation(image)
    sitk.WriteImage(layers, str(tmp_path / "readers.seg.nrrd"))
    (tmp_path / "out").mkdir()
    return tmp_path


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def run(case, *arguments):
    return cli.main([str(case / "ct.nrrd"), *(str(a) for a in arguments)])


def test_mask_with_all_outputs(case, capsys):
    out = case / "out"
    outputs = ["--output", out / "soft.nrrd", "--trimap", out / "trimap.nrrd", "--segment", out / "b.seg.nrrd"]
    assert run(case, "--mask", case / "mask.nii.gz", *outputs) == 0
    assert written(out) == ["b.seg.nrrd", "soft.nrrd", "trimap.nrrd"]
    image = sitk.ReadImage(str(case / "ct.nrrd"))
    expected = soft_mask_volume(image, masks=sitk.ReadImage(str(case / "mask.nii.gz")))
    soft = sitk.ReadImage(str(out / "soft.nrrd"))
    assert np.array_equal(array_of(soft), array_of(expected.alpha))
    assert soft.GetPixelID() == sitk.sitkFloat32
    assert soft.GetOrigin() == pytest.approx(image.GetOrigin())
    assert np.array_equal(array_of(sitk.ReadImage(str(out / "trimap.nrrd"))), array_of(expected.trimap))
    (segment,) = read_masks(out / "b.seg.nrrd").values()
    assert np.array_equal(array_of(segment), array_of(expected.binary))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("soft volume", "soft.nrrd", "trimap.nrrd", "b.seg.nrrd"))


def test_every_parameter_arrives(case):
    out = case / "out" / "soft.nrrd"
    arguments = [
        "--erode",
        "1.1",
        "--dilate",
        "2.2",
        "--window",
        "-1100",
        "300",
        "--epsilon",
        "1e-5",
        "--radius",
        "2",
        "--dimension",
        "3",
        "--quiet",
    ]
    assert run(case, "--readers", case / "readers.seg.nrrd", "--output", out, *arguments) == 0
    readers = list(read_masks(case / "readers.seg.nrrd").values())
    wanted = Parameters((-1100.0, 300.0), 1.1, 2.2, 3, 1e-5, 2)
    expected = soft_mask_volume(sitk.ReadImage(str(case / "ct.nrrd")), masks=readers, parameters=wanted)
    assert np.array_equal(array_of(sitk.ReadImage(str(out))), array_of(expected.alpha))


def test_an_edited_trimap_takes_the_masks_place(case):
    out = case / "out"
    assert run(case, "--mask", case / "mask.nii.gz", "--output", out / "a.nrrd", "--trimap", out / "t.nrrd") == 0
    trimap = sitk.ReadImage(str(out / "t.nrrd"))
    assert run(case, "--use-trimap", out / "t.nrrd", "--output", out / "b.nrrd") == 0
    first, second = (array_of(sitk.ReadImage(str(out / name))) for name in ("a.nrrd", "b.nrrd"))
    assert np.allclose(first, second, atol=1e-5)
    array = array_of(trimap)
    array[6][array[6] == 128] = 255
    edited = sitk.GetImageFromArray(array)
    edited.CopyInformation(trimap)
    sitk.WriteImage(edited, str(out / "t.nrrd"))
    assert run(case, "--use-trimap", out / "t.nrrd", "--output", out / "b.nrrd") == 0
    assert (array_of(sitk.ReadImage(str(out / "b.nrrd")))[6] == (array[6] == 255)).all()


def test_recist_in_lps_and_ras(case):
    image = sitk.ReadImage(str(case / "ct.nrrd"))
    ends = [(24.0, 28.0, 6.0), (42.0, 28.0, 6.0), (33.0, 19.0, 6.0), (33.0, 37.0, 6.0)]
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(p) for p in ends])
    words = [f"{v:.6f}" for v in points.ravel()]
    assert run(case, "--recist", *words, "--output", case / "out" / "a.nrrd", "--quiet") == 0
    words = [f"{v:.6f}" for v in (points * (-1, -1, 1)).ravel()]
    assert run(case, "--recist", *words, "--ras", "--output", case / "out" / "b.nrrd", "--quiet") == 0
    first, second = (array_of(sitk.ReadImage(str(case / "out" / name))) for name in ("a.nrrd", "b.nrrd"))
    assert np.array_equal(first, second)
    assert first[6].max() == 1
    assert not first[:6].any()


def test_a_folder_of_dicom_is_read_as_by_the_other_module(case, capsys):
    """The longest of several CT series, with a note; the slices of a tilted gantry stay where they are."""
    hu = nodule()[0]
    write_slices(case / "dicom" / "a", hu, spacing=2.0, tilt=0.5)
    write_slices(case / "dicom" / "b", hu[:5], uid="1.2.4", description="bone")
    ct = read_ct(case / "dicom", warn=lambda line: None)
    write_layers(case / "dicom-mask.seg.nrrd", [("Nodule", Grid.of(ct).image(nodule()[1]), (1, 0, 0))])
    out = case / "out" / "soft.mha"
    arguments = ["--mask", str(case / "dicom-mask.seg.nrrd"), "--output", str(out)]
    assert cli.main([str(case / "dicom"), *arguments]) == 0
    assert "note: " in (told := capsys.readouterr().err)
    assert "several CT series, the longest is used" in told
    soft = sitk.ReadImage(str(out))
    assert np.allclose(Grid.of(soft).matrix, Grid.of(ct).matrix)
    assert array_of(soft)[6, 28, 33] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mask", "{}/none.nrrd"], "none.nrrd: there is no such file"),
        (["--mask", "{}/text.nrrd"], "text.nrrd: it can't be read"),
        (["--mask", "{}/zero.nrrd"], "zero.nrrd: the mask is empty"),
        (["--use-trimap", "{}/mask.nii.gz"], "0, 128 and 255 only"),
        (["--recist", *map(str, range(12))], "RECIST end points lie on"),
        (["--mask", "{}/mask.nii.gz", "--trimap", "{}/none/t.nrrd"], "there is no folder"),
        (["--mask", "{}/mask.nii.gz", "--trimap", "{}/t.txt"], "must end in"),
        (["--mask", "{}/mask.nii.gz", "--segment", "{}/b.nrrd"], "must end in .seg.nrrd"),
        (["--mask", "{}/mask.nii.gz", "--trimap", "{}/out/soft.nrrd"], "another output"),
        (["--mask", "{}/mask.nii.gz", "--trimap", "{}/ct.nrrd"], "an input"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(case, capsys, arguments, words):
    (case / "text.nrrd").write_text("no image")
    sitk.WriteImage(volume(np.zeros((12, 60, 70), np.uint8)), str(case / "zero.nrrd"))
    before = written(case)
    arguments = [a.format(case) for a in arguments]
    assert run(case, *arguments, "--output", case / "out" / "soft.nrrd", "--quiet") == 1
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert written(case / "out") == []
    assert written(case) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ct.nrrd", "--output", "a.nrrd"],
        ["ct.nrrd", "--mask", "m", "--readers", "r", "--output", "a.nrrd"],
        ["ct.nrrd", "--recist", "1", "2", "--output", "a.nrrd"],
        ["ct.nrrd", "--mask", "m", "--output", "a.nrrd", "--erode", "-1"],
        ["ct.nrrd", "--mask", "m", "--output", "a.nrrd", "--dilate", "nan"],
        ["ct.nrrd", "--mask", "m", "--output", "a.nrrd", "--window", "5", "5"],
        ["ct.nrrd", "--mask", "m", "--output", "a.nrrd", "--ras"],
        ["ct.nrrd", "--mask", "m", "--output", "a.nrrd", "--radius", "0"],
        ["ct.nrrd", "--recist", *"123456789012", "--output", "a.nrrd", "--dimension", "3"],
        ["build", "folder"],
        ["build", "DL_info.csv", "--output", "o"],
        ["build", "DL_info.csv", "--images", "i", "--output", "o", "--strategy", "readers"],
        ["build", "folder", "--output", "o", "--lesion-type", "5"],
        ["build", "folder", "--output", "o", "--strategy", "none"],
        ["apply-decisions"],
    ],
)
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["apply-decisions", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    assert "python -m SoftMaskLabelerLib" in capsys.readouterr().out


def test_build_and_apply_decisions(tmp_path, capsys):
    nodule_folder(tmp_path / "nodules", 3)
    (tmp_path / "nodules" / "N-1_ct.nrrd").unlink()
    command = ["build", str(tmp_path / "nodules"), "--output", str(tmp_path / "set"), "--jobs", "1", "--limit", "2"]
    assert cli.main(command) == 0
    assert re.search(r"1 done .*0 done before, 1 failed", capsys.readouterr().out)
    assert cli.main([*command[:-2], "--quiet"]) == 0
    rows = rows_of(tmp_path / "set" / "manifest.csv")
    assert [row["status"] for row in rows.values()] == ["ok", "failed", "ok"]
    assert cli.main(["apply-decisions", str(tmp_path / "set"), "--undecided", "accept"]) == 0
    assert list(rows_of(tmp_path / "set" / "accepted.csv")) == ["N-0", "N-2"]
    assert cli.main([*command, "--erode", "1"]) == 1
    assert "another erode_mm" in capsys.readouterr().err
    assert cli.main(["build", str(tmp_path / "none"), "--output", str(tmp_path / "x")]) == 1
    assert "no nodules.csv" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_build_where_everything_fails(tmp_path, capsys):
    nodule_folder(tmp_path / "nodules", 2)
    for path in (tmp_path / "nodules").glob("*_ct.nrrd"):
        path.unlink()
    assert cli.main(["build", str(tmp_path / "nodules"), "--output", str(tmp_path / "set"), "--quiet"]) == 1
    assert "all cases failed" in capsys.readouterr().err


def test_killed_build_goes_on(tmp_path, repository):
    """The process is killed, not asked, in the midst of its work; what it leaves is whole."""
    names = nodule_folder(tmp_path / "nodules", 40)
    out = tmp_path / "set"
    command = [sys.executable, "-m", "SoftMaskLabelerLib", "build", str(tmp_path / "nodules"), "--output", str(out)]
    command += ["--jobs", "1", "--quiet"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{repository / 'SoftMaskLabeler'}{os.pathsep}{repository / 'LungNoduleUncertainty'}",
    }
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and len(list(out.glob("binary/N-*.png"))) < 5:
        pass
    process.kill()
    process.wait()
    made = set(out.glob("binary/N-*.png"))
    assert 5 <= len(made) < len(names)
    for layer in ("image", "soft", "trimap", "binary"):
        for path in out.glob(f"{layer}/N-*.png"):
            assert sitk.ReadImage(str(path)).GetSize() == (64, 64)
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    rows = rows_of(out / "manifest.csv")
    assert list(rows) == names
    assert all(row["status"] == "ok" for row in rows.values())


def test_a_tilted_gantry_keeps_its_geometry(tmp_path, capsys):
    """The same lesion in the upright and in the tilted scan: same soft mask on the tilted slices, same volume."""
    values, mask, _ = nodule()
    values = np.rint(values).astype(np.int16)
    upright = Grid(values.shape[::-1], (0.7, 0.7, 2.5), (-10.0, 5.0, 40.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    soft = {}
    for name, grid in (("upright", upright), ("tilted", tilted(20, upright))):
        folder = dicom_files.save(dicom_files.slices(values, grid), tmp_path / name)
        sitk.WriteImage(grid.image(mask.astype(np.uint8)), str(tmp_path / f"{name}.nrrd"))
        for ending in ("nrrd", "mha"):
            arguments = [folder, "--mask", tmp_path / f"{name}.nrrd", "--output", tmp_path / f"{name}-soft.{ending}"]
            assert cli.main([str(a) for a in arguments]) == 0
            soft[name] = read_ct(tmp_path / f"{name}-soft.{ending}")
            assert np.allclose(Grid.of(soft[name]).matrix, grid.matrix, atol=1e-6)
            assert np.allclose(soft[name].GetOrigin(), grid.origin, atol=1e-6)
    assert np.array_equal(array_of(soft["upright"]), array_of(soft["tilted"]))
    sizes = re.findall(r"soft volume (\d+) mm3", capsys.readouterr().out)
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
    output = tmp_path / "soft.nii.gz"
    assert cli.main([str(tmp_path / "tilted"), "--mask", str(tmp_path / "tilted.nrrd"), "--output", str(output)]) == 1
    assert f"{output}: it can't be written (NIfTI can't hold the axes of a tilted gantry" in capsys.readouterr().err
    assert not output.exists()
