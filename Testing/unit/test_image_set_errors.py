"""What is wrong with a set of images, or with the files to make one of, is said in one line, and nothing is left."""

import numpy as np
import pytest

from image_files import disc, prepare, write
from Training.__main__ import main
from Training.data.folder import load_folder
from Training.data.images.manifest import write_manifest
from Training.data.nodule import DatasetError

GOOD = {"image": "a.png", "mask": "m.png", "dataset": "d", "organ": "o", "modality": "m", "patient_id": "p", "fold": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"image": "none.png"}], r"none.png: there is no such file"),
        ([{"mask": "text.png"}], r"text.png: it (isn't an image|can't be read)"),
        ([{"mask": "small.png"}], r"small.png: its mask is 5 x 6 pixels, the image a.png 8 x 8"),
        ([{"soft": "small.png"}], "its soft is"),
        ([{"fold": ""}], "line 2: fold is empty"),
        ([{"fold": "one"}], "line 2: fold is 'one', no number"),
        ([{}, {}], "image_id a occurs twice"),
        ([{}, {"image_id": "b", "fold": 1}], "patient p is in several folds"),
        ([{"image": "v.nrrd", "mask": "v.nrrd"}], "a volume of 3 slices; column slice"),
        ([{"image": "v.nrrd", "mask": "v.nrrd", "slice": 3}], "slice 3 isn't one of its 3"),
        ([{"first_row": 4}], "a part of an image wants"),
        ([{"first_row": 4, "first_column": 0, "rows": 5, "columns": 2}], "a part beyond its 8 x 8"),
        ([{"spacing_row_mm": -1}], "a spacing is a positive"),
        ([{"value_offset": 40000}], "don't fit 16 bits"),
        ([{"image": "float.nrrd"}], "whole values are wanted"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, changes, message):
    write(tmp_path / "a.png", np.full((8, 8), 7, np.uint8))
    write(tmp_path / "m.png", np.eye(8, dtype=np.uint8))
    write(tmp_path / "small.png", np.ones((5, 6), np.uint8))
    write(tmp_path / "v.nrrd", np.ones((3, 8, 8), np.uint8))
    write(tmp_path / "float.nrrd", np.full((8, 8), 0.5, np.float32) * np.eye(8, dtype=np.float32))
    (tmp_path / "text.png").write_text("no image")
    write_manifest(tmp_path / "images.csv", [{**GOOD, **change} for change in changes])
    with pytest.raises(DatasetError, match=message) as raised:
        load_folder(tmp_path, progress=False)
    assert "\n" not in str(raised.value)


def test_missing_tables_and_columns_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"holds images.csv \(see `prepare-images --help`\) or nodules.csv"):
        load_folder(tmp_path)
    (tmp_path / "images.csv").write_text("image,mask,dataset,organ,modality,patient_id\n")
    with pytest.raises(DatasetError, match="has no column fold"):
        load_folder(tmp_path)


def test_preparing_refuses_in_one_line_and_leaves_nothing(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "set"

    def refused(*arguments):
        assert prepare(*arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert not out.exists()
        assert not list(tmp_path.glob(".set*"))
        return error

    assert "there is no such folder" in refused("pairs", raw, "--output", out)
    for number in range(3):
        image, mask = disc(16, 16, 4, number)
        write(raw / f"x{number}.png", image)
        write(raw / f"x{number}_mask.png", mask.astype(np.uint8))
    assert "3 patients can't be split into 5 folds" in refused("pairs", raw, "--output", out)
    assert "--foreground: is for isbi2012, not for pairs" in refused(
        *("pairs", raw, "--output", out, "--foreground", "cells")
    )
    assert "no group in parentheses" in refused("pairs", raw, "--output", out, "--patient-pattern", "x")
    assert "isn't in it" in refused("pairs", raw, "--output", out, "--patient-pattern", "(y)")
    assert "names are dataset_organ_" in refused("cosmos55k", raw, "--output", out, "--folds", 2)
    assert "neither image/N.png nor train-volume.tif" in refused("isbi2012", raw, "--output", out)
    assert "no volume" in refused("promise12", raw, "--output", out)
    assert "manifest.csv: it can't be read" in refused("deeplesion", raw, "--output", out)
    assert "nodules.csv: not found" in refused("lidc", raw, "--output", out)
    write(raw / "x1_mask.png", np.ones((9, 16), np.uint8))
    assert "x1_mask.png: (1, 9, 16) pixels, the image has (1, 16, 16)" in refused("pairs", raw, "--output", out)
    (raw / "x1_mask.png").unlink()
    assert "x1_mask.png: there is no such file" in refused("pairs", raw, "--output", out)
    (raw / "x1.png").unlink()
    assert prepare("pairs", raw, "--output", out, "--folds", 2) == 0
    assert prepare("pairs", raw, "--output", out, "--folds", 2) == 1
    assert "it exists already" in capsys.readouterr().err
    assert main(["merge-images", str(out), str(out), "--output", str(tmp_path / "two")]) == 1
    assert "folders of one name" in capsys.readouterr().err
