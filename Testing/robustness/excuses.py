"""What excuses a result that differs: that the damaged input itself says so, and nothing in it could tell otherwise."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import claims
from judge import Figures, differences, measure, measure_mask
from seeds import LARGE, SMALL, Ball

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Excuse = Callable[[Path, Figures], bool]


def ball(ball: Ball) -> Figures:
    return measure(ball.hu(), ball.matrix, np.asarray(ball.origin), ball.center)


def claimed(path: Path, found: Figures, ball: Ball = SMALL) -> bool:
    """Whether what was found is what the file says, if it is plain."""
    said = claims.claimed(path)
    return said is not None and not differences(measure(*said, ball.center), found)


def says_otherwise(path: Path, found: Figures) -> bool:
    """Whether a plain file says that its ball is another one: the model may then find another one, too."""
    said = claims.claimed(path)
    return said is not None and bool(differences(ball(LARGE), measure(*said, LARGE.center)))


def claimed_segments(path: Path, found: Figures) -> bool:
    said = claims.segments(path)
    if said is None:
        return False
    each = {f"segment {n}": measure_mask(*rest, SMALL.center) for n, rest in enumerate(said.values(), 1)}
    if "volume_mm3" in found or "found" in found:  # the union
        (matrix, origin), *_ = {(id(m), id(o)): (m, o) for _, m, o in said.values()}.values()
        union = np.any([mask for mask, _, _ in said.values()], axis=0)
        return not differences(measure_mask(union, matrix, origin, SMALL.center), found)
    return not differences(each, found)


def _text(path: Path) -> str:
    """UTF-8 or, with a byte order mark, UTF-16; tables also in a spreadsheet's encoding."""
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        if path.suffix != ".csv":
            raise
        return content.decode("cp1252", "replace")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if any(found[key] != value for key, value in pairs):
        raise ValueError("a key stands twice, with two values")
    return found


def _honored(given: Any, found: Any) -> bool:
    """Whether everything that was given is in what was found, and every number is one."""
    if isinstance(given, dict):
        return isinstance(found, dict) and all(_honored(v, found.get(k)) for k, v in given.items())
    if isinstance(given, list):
        return isinstance(found, list) and len(given) == len(found) and all(map(_honored, given, found))
    if isinstance(given, float) and not math.isfinite(given):
        return False
    return bool(given == found)


def given_toml(path: Path, found: Figures) -> bool:
    return _honored(tomllib.loads(_text(path)), found)


def given_rows(path: Path, found: Figures) -> bool:
    given = tomllib.loads(_text(path))
    own = [row["key"] for row in given.get("rows", [])]
    listed = [*(given["use"]["rows"] if "use" in given else []), *own]
    return given["title"] == found["title"] and listed == found["rows"]


def given_json(path: Path, found: Figures) -> bool:
    return _honored(json.loads(_text(path), object_pairs_hook=_unique), found)


def _table_rows(path: Path) -> list[dict[str, str]] | None:
    """A plain table: UTF-8, commas, no column twice, no cell too many but for empty ones, which spreadsheets add."""
    text = _text(path)
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    rows = [row for row in rows if row]
    rows[1:] = [row[: len(rows[0])] if not "".join(row[len(rows[0]) :]).strip() else row for row in rows[1:]]
    if not rows or len(set(rows[0])) < len(rows[0]) or any(len(row) > len(rows[0]) for row in rows):
        return None
    return [dict(zip(rows[0], [*row, *[""] * (len(rows[0]) - len(row))], strict=True)) for row in rows[1:]]


def given_nodules(path: Path, found: Figures) -> bool:
    """Whether every row came out as it stands, but for blanks around cells, once, with each patient in one fold, and
    every cube as it is.
    """
    rows = _table_rows(path / "nodules.csv")
    rows = [{name: cell.strip() for name, cell in row.items()} for row in rows or ()]
    if not rows or len({row["nodule_id"] for row in rows}) < len(rows):
        return False
    folds = {(row["patient_id"], int(row["fold"])) for row in rows}
    if len({patient for patient, _ in folds}) < len(folds) or any(not row["patient_id"].strip() for row in rows):
        return False
    if list(found) != [row["nodule_id"] for row in rows]:
        return False
    for row in rows:
        own = found[row["nodule_id"]]
        if (own["patient"], own["fold"]) != (row["patient_id"], int(row["fold"])):
            return False
        said = claims.claimed(path / f"{row['nodule_id']}_ct.nrrd")
        masks = claims.segments(path / f"{row['nodule_id']}_readers.seg.nrrd")
        if said is None or masks is None:
            return False
        voxel = abs(float(np.linalg.det(said[1])))
        volumes = {f"reader {n} mm3": float(m.sum() * voxel) for n, (m, _, _) in enumerate(masks.values(), 1)}
        if differences(volumes, {name: value for name, value in own.items() if name.endswith("mm3")}):
            return False
        if any(not np.allclose(matrix, said[1], rtol=1e-4, atol=1e-5) for _, matrix, _ in masks.values()):
            return False
        consensus = 2 * np.sum([mask for mask, _, _ in masks.values()], axis=0) >= len(masks)
        if consensus.any() and abs(np.median(said[0][consensus]) - own["hu"]) > 20:
            return False
    return True


def given_table(name: str) -> Excuse:
    """A plain table with as many rows as came out."""

    def excuse(path: Path, found: Figures) -> bool:
        rows = _table_rows(path if path.is_file() else path / name)
        count = found.get("accepted", 0) + found.get("rejected", 0) + found.get("failed", 0)
        return rows is not None and len(rows) == (count if "accepted" in found else len(found))

    return excuse


def given_store(path: Path, found: Figures) -> bool:
    """Whether every job that is named is there with its table's cells."""
    experiment = json.loads(_text(path / "toy" / "experiment.json"), object_pairs_hook=_unique)
    named = [job for row in experiment.get("rows", []) for job in (row.get("jobs") or {}).values()]
    rows = _table_rows(path / "jobs" / "job-0" / "scores.csv")
    wanted = [job for job in named if job == "job-0"]
    if rows is None or [value["job"] for value in found.values()] != wanted:
        return False
    return all(len(value["columns"].get("nodule_id", ())) == len(rows) for value in found.values())


def signed_otherwise(path: Path, found: Figures) -> bool:
    """Metadata and weights with hashes that fit are another bundle."""
    return all(math.isfinite(v) for v in found.values() if isinstance(v, float))
