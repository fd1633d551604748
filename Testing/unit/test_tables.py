"""CSV, TOML and JSON as a spreadsheet or an editor leaves them: read as before, or one line."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.records import RecordError, read_json
from LungNoduleKit.tables import TableError, read_table
from SoftMaskLabelerLib.dataset.deeplesion import read_table as read_deeplesion
from SoftMaskLabelerLib.dataset.manifest import Manifest
from SoftMaskLabelerLib.dataset.sources import folder_cases
from SoftMaskLabelerLib.errors import SoftMaskError
from Training.__main__ import main as training
from Training.config import ConfigError, load_config
from Training.data.folder import load_folder
from Training.data.images.manifest import read_manifest
from Training.data.nodule import DatasetError
from training_data import write_folder

PLAIN = "nodule_id,patient_id,fold,size_mm\nN00,Müller,0,12.5\nN01,Meier,1,3\n"
DEEPLESION = ("File_name", "Patient_index", "Measurement_coordinates", "Spacing_mm_px_")
NUMBERS = ("233.5", "95", "234", "118", "211", "107", "243", "106")


def semicolons(text):
    return text.replace(",", ";").replace(".", ",")


CHANGED = {
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "semicolons and decimal commas": lambda text: semicolons(text).encode(),
    "Excel in German": lambda text: semicolons(text).replace("\n", "\r\n").encode("cp1252"),
    "sep=;": lambda text: b"sep=;\r\n" + semicolons(text).replace("\n", "\r\n").encode(),
    "Unicode text": lambda text: text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "latin-1": lambda text: text.encode("latin-1"),
    "empty rows and columns": lambda text: (text.replace("\n", ",,\n") + ",,,,,\n\n,,,\n").encode(),
    "blanks": lambda text: text.replace(",", " , ").encode(),
    "quotes": lambda text: "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()
    ).encode(),
}


@pytest.mark.parametrize("how", CHANGED)
def test_a_table_saved_by_a_spreadsheet_reads_the_same(tmp_path, how):
    (tmp_path / "plain.csv").write_text(PLAIN, encoding="utf-8")
    (tmp_path / "changed.csv").write_bytes(CHANGED[how](PLAIN))
    plain, changed = read_table(tmp_path / "plain.csv"), read_table(tmp_path / "changed.csv")
    assert list(changed) == list(plain)
    assert changed.columns == plain.columns
    assert (changed[0]["patient_id"], changed[0].real("size_mm"), changed[1].whole("fold")) == ("Müller", 12.5, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the table is empty"),
        (b"\n\n", "the table is empty"),
        (b"name,fold\nA,1\n", "it has no column 'nodule_id'"),
        (b"nodule_id,fold,fold\nA,1,2\n", "it has several columns 'fold'"),
        (b"nodule_id,fold\nA,1,2\n", "line 2 has 3 cells, but there are 2 columns"),
        (b"\xff\xfen\x00o\x00", "it has no column"),
        (b"\xff\xfen\x00o\x00d", "it can't be read .line 1 isn't text in utf-16"),
        (b"PK\x03\x04\x00\x00workbook.xml", "it has no column|can't be read"),
    ],
)
def test_what_is_no_such_table_is_one_line(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError, match=words) as error:
        read_table(tmp_path / "t.csv", ("nodule_id",))
    assert "t.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_that_is_none_is_named_with_its_line(tmp_path):
    (tmp_path / "t.csv").write_text("nodule_id;fold\nA;1,0\n\nB;03. Mai\nC;1,5\n", encoding="utf-8")
    rows = read_table(tmp_path / "t.csv")
    assert rows[0].whole("fold") == 1
    with pytest.raises(TableError, match=r"t.csv: line 4: fold is '03. Mai', no number"):
        rows[1].whole("fold")
    with pytest.raises(TableError, match=r"line 5: fold is '1.5', no whole number"):
        rows[2].whole("fold")


@pytest.mark.parametrize("how", CHANGED)
def test_a_data_folder_with_a_spreadsheets_table_trains_on_the_same(tmp_path, how):
    plain = write_folder(tmp_path / "plain", count=3)
    shutil.copytree(plain, tmp_path / "changed")
    table = tmp_path / "changed" / "nodules.csv"
    table.write_bytes(CHANGED[how](table.read_bytes().decode().replace("\r\n", "\n")))
    before, after = load_folder(plain, progress=False), load_folder(table.parent, progress=False)
    assert [(n.nodule_id, n.patient_id, n.fold) for n in after] == [(n.nodule_id, n.patient_id, n.fold) for n in before]
    assert all(np.array_equal(a.readers, b.readers) for a, b in zip(after, before, strict=True))
    names = [[case.name, case.patient, case.z] for case in folder_cases(plain)]
    assert [[case.name, case.patient, case.z] for case in folder_cases(table.parent)] == names


def test_a_data_folder_that_cannot_be_read_is_one_line(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", count=2)
    table = folder / "nodules.csv"
    table.write_text(table.read_text().replace("nodule_id", "name"))
    with pytest.raises(DatasetError, match=r"nodules.csv: it has no column 'nodule_id'"):
        load_folder(folder, progress=False)
    assert training(["readers", "--data", str(folder)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("how", [h for h in CHANGED if h != "blanks"])
def test_other_tables(tmp_path, how):
    images = "image,mask,dataset,organ,modality,patient_id,fold,spacing_row_mm\na.png,b.png,S,lung,CT,P,3,0.5\n"
    (tmp_path / "images.csv").write_bytes(CHANGED[how](images.replace("a.png", "a png").replace("b.png", "b png")))
    (row,) = read_manifest(tmp_path)
    assert (row["fold"], row["spacing_row_mm"], row["image"]) == (3, 0.5, "a png")
    (tmp_path / "manifest.csv").write_bytes(CHANGED[how]("case,decision,status,mine\nA,accept,ok,good\n"))
    manifest = Manifest(tmp_path)
    manifest.write()
    assert manifest.rows["A"] == {"case": "A", "decision": "accept", "status": "ok", "mine": "good"}
    assert Manifest(tmp_path).rows["A"]["mine"] == "good"


def test_deeplesion_by_excel(tmp_path):
    cells = ["000001_01_01_109.png", "1", "233.5, 95, 234, 118, 211, 107, 243, 106", "0.8, 0.8, 5"]
    header = ["File_name", "Patient_index", "Measurement_coordinates", "Spacing_mm_px_"]
    (tmp_path / "plain.csv").write_text(",".join(header) + "\n" + ",".join(f'"{c}"' for c in cells) + "\n")
    (tmp_path / "excel.csv").write_text(";".join(header) + "\r\n" + ";".join(cells) + "\r\n", encoding="utf-8-sig")
    assert read_deeplesion(tmp_path / "excel.csv") == read_deeplesion(tmp_path / "plain.csv")


def test_toml_and_json_of_windows_editors(tmp_path):
    text = 'title = "ä"\n[training]\nepochs = 3\n'.replace('title = "ä"\n', "# ä\n")
    (tmp_path / "plain.toml").write_text(text, encoding="utf-8")
    for number, content in enumerate(
        [b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode(), text.encode("utf-16")]
    ):
        path = tmp_path / f"changed-{number}.toml"
        path.write_bytes(content)
        assert load_config(path).training == load_config(tmp_path / "plain.toml").training
    (tmp_path / "latin.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.toml: it can't be read .line 1 isn't text in utf-8"):
        load_config(tmp_path / "latin.toml")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "b.json").write_bytes(b"[" * 100_000)
    with pytest.raises(RecordError, match="can't be read as JSON"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: [*lines, lines[1]], "line 8: nodule N00 occurs twice"),
        (lambda lines: [*lines[:-1], lines[-1].replace("P02,2", "P02,1")], "line 7: patient P02 is in several folds"),
        (lambda lines: [*lines[:-1], lines[-1].replace("N05", "")], "line 7: it names no nodule or no patient"),
        (lambda lines: [line.replace(",0", ",1" + 21 * "0") for line in lines], "fold is .*, no whole number"),
    ],
    ids=["twice", "two folds", "no name", "no fold"],
)
def test_nodules_that_stand_twice_and_patients_in_two_folds_are_refused(tmp_path, change, reason):
    folder = write_folder(tmp_path / "data", 6)
    table = folder / "nodules.csv"
    table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")
    with pytest.raises(DatasetError, match=reason):
        load_folder(folder, progress=False)


@pytest.mark.parametrize("cell", ["y" * 5000, "z" * 200_000], ids=["long", "too long"])
def test_cells_of_any_length_are_told_in_a_line(tmp_path, cell):
    folder = write_folder(tmp_path / "data", 2)
    table = folder / "nodules.csv"
    content = table.read_text()
    for column, name in (("fold", "fold"), ("fold", "patient_id"), ("nodule_id", "nodule_id")):
        header, first, *rest = content.splitlines()
        cells = dict(zip(header.split(","), first.split(","), strict=True)) | {column: cell, name: cell}
        table.write_text("\n".join([header, ",".join(cells.values()), *rest]) + "\n")
        with pytest.raises(DatasetError, match=r"nodules.csv: line [23]|listed in nodules.csv") as raised:
            load_folder(folder, progress=False)
        assert len(str(raised.value)) < 450 + len(str(table))


@pytest.mark.parametrize("values", ["swapped bytes", "float", "nan"])
def test_cubes_whose_values_are_no_hu_are_refused(tmp_path, values):
    folder = write_folder(tmp_path / "data", 2)
    (path, *_) = sorted(folder.glob("*_ct.nrrd"))
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    assert array.dtype == np.int16
    changed = {"swapped bytes": array.byteswap(), "float": array * np.float32(1000.0), "nan": array * np.float32(1.0)}[
        values
    ]
    if values == "nan":
        changed[0, 0, 0] = np.nan
    made = sitk.GetImageFromArray(changed)
    made.CopyInformation(image)
    sitk.WriteImage(made, str(path))
    with pytest.raises(DatasetError, match=rf"{path.name}: its values from .* to .* aren't HU"):
        load_folder(folder, progress=False)


@pytest.mark.parametrize("separator", [", ", "; ", ";", "\t"])
def test_deeplesion_with_other_separators_between_its_numbers(tmp_path, separator):
    for mark, name in ((", ", "plain"), (separator, "other")):
        cells = [
            "000001_01_01_109.png",
            "1",
            mark.join(["233.5", "95", "234", "118", "211", "107", "243", "106"]),
            "0.8, 0.8, 5",
        ]
        rows = [DEEPLESION, *([cells[0].replace("01_109", f"01_1{n}"), *cells[1:]] for n in range(2))]
        text = "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)
        (tmp_path / f"{name}.csv").write_text(text + "\n")
    expected = read_deeplesion(tmp_path / "plain.csv")
    assert expected[0].points[0] == (232.5, 94.0)
    assert read_deeplesion(tmp_path / "other.csv") == expected


def test_deeplesion_rows_that_cannot_be_read_are_told_and_a_table_of_them_is_refused(tmp_path):
    path, notes = tmp_path / "DL_info.csv", []
    good, bad = 'a.png,1,"1, 2, 3, 4, 5, 6, 7, 8","0.8, 0.8, 5"', 'b.png,1,"1, 2, 3, 4, 5, 6, 7","0.8, 0.8, 5"'
    path.write_text("\n".join([",".join(DEEPLESION), good, bad]) + "\n")
    found = read_deeplesion(path, notes.append)
    assert [lesion.points is None for lesion in found] == [False, True]
    assert notes == [f"{path}: the RECIST coordinates or the spacing of 1 lesions can't be read: b"]
    path.write_text("\n".join([",".join(DEEPLESION), good, good]) + "\n")
    assert len(read_deeplesion(path, notes.append)) == 2
    assert len(notes) == 1
    path.write_text("\n".join([",".join(DEEPLESION), bad]) + "\n")
    with pytest.raises(SoftMaskError, match=r"DL_info.csv: the RECIST coordinates or the spacing of all its lesions"):
        read_deeplesion(path)


def test_a_table_that_ends_within_quotes_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"x\ny"\n2,"z"\n')
    assert [row["b"] for row in read_table(path)] == ["x\ny", "z"]
    path.write_text('a,b\n1,"x"y\n')
    assert [row["b"] for row in read_table(path)] == ["xy"]
    path.write_text('a,b\n1,"x"\n2,"z')
    with pytest.raises(TableError, match=r"t.csv: it ends within quotes, so it was cut off"):
        read_table(path)
