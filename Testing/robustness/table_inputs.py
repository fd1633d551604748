"""Tables (CSV) and the folders that they belong to: nodules, images, results of experiments; damaged.

A table is damaged as what it says (cells, rows, columns), as text (lines, encodings) or as bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np

import image_inputs
from damage import Rng, pick
from image_inputs import nrrd_fields, segmentation_fields
from seeds import CUBE, readers
from text_inputs import any_json, as_text, records

SEPARATORS = (";", "\t", "|", ", ", ",,")
ODD_CELLS = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-1",
        "0",
        "1.0",
        "1e3",
        "x",
        "999999999999999999999",
        "1,5",
        '"',
        "a\nb",
        "\0",
        "ä",
        "=1+1",
    ),
    *("../x", "..", "/", "x" * 200_000, "٣", "1_0", "1 ", "0.5", "2.7"),
)


def _cells(rows: list[list[str]], rng: Rng) -> tuple[list[list[str]], str, str]:
    """(rows, separator, what was done): a cell, row or column changed, taken out, doubled or moved."""
    out, form = [list(row) for row in rows], int(rng.integers(10))
    r, c = int(rng.integers(len(out))), int(rng.integers(len(out[0])))
    name = rows[0][c]
    if form <= 2:
        cell = pick(rng, ODD_CELLS)
        out[r][c] = cell
        return out, ",", f"{name} in line {r + 1}: {cell[:30]!r}"
    if form == 3:
        for row in out:
            del row[c]
        return out, ",", f"without column {name}"
    if form == 4:
        for row in out:
            row.append(row[c])
        out[-1][-1] = pick(rng, ODD_CELLS)
        return out, ",", f"column {name} twice, with {out[-1][-1][:30]!r}"
    if form == 5:
        order = rng.permutation(len(out[0]))
        return [[row[k] for k in order] for row in out], ",", "columns shuffled"
    if form == 6:
        out.insert(int(rng.integers(1, len(out) + 1)), list(out[max(1, r)]))
        return out, ",", f"line {max(1, r) + 1} twice"
    if form == 7:
        out[r] = out[r][:c] if rng.random() < 0.5 else [*out[r], "more", "cells"]
        return out, ",", f"line {r + 1} has {len(out[r])} cells"
    if form == 8:
        return out[: int(rng.integers(len(out)))], ",", "without its last lines"
    return out, pick(rng, SEPARATORS), "another separator"


def _csv_text(rows: list[list[str]], separator: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().replace(",", separator) if separator != "," else text.getvalue()


def table(rng: Rng, path: Path, rows: list[list[str]]) -> str:
    """Writes a table, damaged; says how."""
    if rng.random() < 0.6:
        rows, separator, told = _cells(rows, rng)
        content = _csv_text(rows, separator).encode("utf-8", "surrogateescape")
        if rng.random() < 0.1:
            content, told = b"\xef\xbb\xbf" + content, f"{told}, with a byte order mark"
    else:
        content, told = as_text(rng, _csv_text(rows, ","))
    path.write_bytes(content)
    return f"{path.name}: {told}"


NODULE_ROWS = [
    ["nodule_id", "patient_id", "fold", "readers", "largest_consensus_slice"],
    ["N1", "P1", "0", "3", "4"],
    ["N2", "P1", "0", "3", "5"],
    ["N3", "P2", "1", "3", "5"],
]


def undisturbed_nodules(folder: Path) -> Path:
    """A data folder of three nodule cubes with three readers each."""
    folder = folder / "nodules"
    folder.mkdir()
    (folder / "nodules.csv").write_text(_csv_text(NODULE_ROWS, ","), encoding="utf-8")
    masks = np.ascontiguousarray(np.moveaxis(readers(CUBE), 0, -1))
    for row in NODULE_ROWS[1:]:
        arrays = {f"{row[0]}_ct.nrrd": CUBE.hu(), f"{row[0]}_readers.seg.nrrd": masks}
        for name, array in arrays.items():
            fields = nrrd_fields(CUBE, array, "gzip", "little")
            if array.ndim == 4:
                fields = segmentation_fields(CUBE, array, "gzip", shared=False)
            head = "\n".join(["NRRD0004", *(key + value for key, value in fields)]) + "\n\n"
            (folder / name).write_bytes(head.encode() + gzip.compress(array.tobytes(), 1, mtime=0))
    return folder


def nodules(rng: Rng, folder: Path) -> tuple[Path, str]:
    """A data folder of nodule cubes: its table, a cube or its readers damaged."""
    path, form = undisturbed_nodules(folder), rng.random()
    if form < 0.6:
        return path, table(rng, path / "nodules.csv", NODULE_ROWS)
    name = pick(rng, ("N1", "N2", "N3"))
    if form < 0.8:
        _, told = image_inputs.segmentation(rng, path, CUBE, f"{name}_readers.seg.nrrd")
        return path, f"{name} readers: {told}"
    made, told = image_inputs.nrrd(rng, path, CUBE)
    made.rename(path / f"{name}_ct.nrrd")
    return path, f"{name}: {told}"


IMAGE_ROWS = [
    ["image", "mask", "dataset", "organ", "modality", "patient_id", "fold", "spacing_row_mm", "spacing_column_mm"],
    ["a.png", "a_mask.png", "D", "lung", "CT", "P1", "0", "0.7", "0.7"],
    ["b.png", "b_mask.png", "D", "lung", "CT", "P2", "1", "0.7", "0.7"],
]
MANIFEST_ROWS = [
    ["case", "decision", "status", "patient", "source", "page"],
    ["N1", "accept", "ok", "P1", "folder", "1"],
    ["N2", "reject", "ok", "P2", "folder", "1"],
    ["N3", "", "failed", "P3", "folder", ""],
]
LESION_ROWS = [
    ["File_name", "Patient_index", "Measurement_coordinates", "Spacing_mm_px_", "Coarse_lesion_type", "DICOM_windows"],
    [
        "000001_01_01_109.png",
        "1",
        "230.0, 226.0, 217.0, 239.0, 222.0, 226.0, 230.0, 233.0",
        "0.8, 0.8, 5.0",
        "5",
        "-1350, 150",
    ],
    [
        "000002_01_01_010.png",
        "2",
        "130.0, 126.0, 117.0, 139.0, 122.0, 126.0, 130.0, 133.0",
        "0.7, 0.7, 5.0",
        "5",
        "-1350, 150",
    ],
]
TABLES = {  # where a table lies below the input's folder, and its rows
    "images-table": ("images.csv", IMAGE_ROWS),
    "labeler-cases": ("nodules.csv", NODULE_ROWS),
    "decisions": ("manifest.csv", MANIFEST_ROWS),
    "lesions": ("DL_info.csv", LESION_ROWS),
}


def undisturbed_table(folder: Path, kind: str) -> Path:
    """A table alone: what is called is the folder, or the file itself for DeepLesion's."""
    name, rows = TABLES[kind]
    (folder / name).write_text(_csv_text(rows, ","), encoding="utf-8")
    return folder / name if kind == "lesions" else folder


def table_of(rng: Rng, folder: Path, kind: str) -> tuple[Path, str]:
    """The same, damaged."""
    path = undisturbed_table(folder, kind)
    name, rows = TABLES[kind]
    return path, table(rng, folder / name, rows)


SCORE_ROWS = [
    ["nodule_id", "patient_id", "readers", "dice_label1", "ged"],
    ["N1", "P1", "4", "0.81", "0.2"],
    ["N2", "P2", "3", "0.84", "0.25"],
]


def undisturbed_store(folder: Path) -> Path:
    """The output folder of an experiment with one job."""
    out = folder / "experiments"
    (out / "toy").mkdir(parents=True)
    (out / "jobs" / "job-0").mkdir(parents=True)
    (out / "toy" / "experiment.json").write_text(json.dumps(records()["experiment.json"]), encoding="utf-8")
    (out / "jobs" / "job-0" / "manifest.json").write_text(json.dumps(records()["manifest.json"]), encoding="utf-8")
    (out / "jobs" / "job-0" / "scores.csv").write_text(_csv_text(SCORE_ROWS, ","), encoding="utf-8")
    return out


def store(rng: Rng, folder: Path) -> tuple[Path, str]:
    """The same, damaged."""
    path, form = undisturbed_store(folder), rng.random()
    if form < 0.5:
        return path, table(rng, path / "jobs" / "job-0" / "scores.csv", SCORE_ROWS)
    name = "experiment.json" if form < 0.8 else "manifest.json"
    content, told = any_json(rng, records()[name])
    (path / ("toy" if form < 0.8 else "jobs/job-0") / name).write_bytes(content)
    return path, f"{name}: {told}"
