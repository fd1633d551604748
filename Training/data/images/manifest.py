"""`images.csv`: a row an image (or a tile of one), with the files relative to the table's folder.

    image, mask                        files; a volume, where `slice` says which of its slices
    soft                               file of the image's own soft mask, or empty
    dataset, organ, modality           words for figures per group
    patient_id, fold                   no patient is in two folds
    image_id                           the image's name; without it that of the file, its slice and its tile
    spacing_row_mm, spacing_column_mm  size of a pixel; empty: a volume's own, 1 for others
    slice                              index along z of a volume's slice
    value_offset                       added to the file's values (-32768 gives HU of DeepLesion's PNGs)
    first_row, first_column, rows, columns   the part of the image that is meant; empty: all of it

The first two, the groups, patient and fold are needed; the other columns may be missing.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from LungNoduleKit import tables
from LungNoduleKit.errors import shortened
from LungNoduleKit.files import write_whole

from ..nodule import DatasetError

TABLE = "images.csv"
GROUPS = ("dataset", "organ", "modality")
WANTED = ("image", "mask", *GROUPS, "patient_id", "fold")
BOX = ("first_row", "first_column", "rows", "columns")
COLUMNS = (
    *("image_id", "image", "mask", "soft", *GROUPS, "patient_id", "fold"),
    *("spacing_row_mm", "spacing_column_mm", "slice", "value_offset", *BOX),
)
_WHOLE = ("fold", "slice", "value_offset", *BOX)
_REAL = ("spacing_row_mm", "spacing_column_mm")


def read_manifest(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a folder's `images.csv`, with `image_id` in every one and numbers as int, float or None.

    Raises DatasetError, naming table and row, for columns or values that are missing or no numbers, an image_id that
    occurs twice, and a patient in several folds. Files aren't looked for.
    """
    table = Path(folder) / TABLE
    if not table.is_file():
        raise DatasetError(f"{table}: not found (see `prepare-images --help`)")
    found = tables.read_table(table, error=DatasetError)
    missing = [name for name in WANTED if name not in found.columns]
    if missing:
        raise DatasetError(f"{table}: has no column {', '.join(missing)}")
    rows = [_row(row) for row in found]
    if not rows:
        raise DatasetError(f"{table}: lists no image")
    check_rows(rows, str(table))
    return rows


def check_rows(rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raises DatasetError for an image_id that occurs twice and for a patient in several folds."""
    seen: set[str] = set()
    folds: dict[str, int] = {}
    for row in rows:
        if row["image_id"] in seen:
            raise DatasetError(f"{where}: image_id {shortened(row['image_id'])} occurs twice")
        seen.add(row["image_id"])
        if folds.setdefault(row["patient_id"], row["fold"]) != row["fold"]:
            raise DatasetError(f"{where}: patient {shortened(row['patient_id'])} is in several folds")


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whole or not at all; columns that no row fills are left out."""
    used = [name for name in COLUMNS if name in WANTED or any(row.get(name) not in (None, "") for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, used, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_whole(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def _row(row: tables.Row) -> dict[str, Any]:
    where = row.where
    out: dict[str, Any] = {name: row.get(name, "") for name in COLUMNS}
    for name in ("image", "mask", "patient_id", "fold"):
        if not out[name]:
            raise DatasetError(f"{where}: {name} is empty")
    for names, kind in ((_WHOLE, row.whole), (_REAL, row.real)):
        for name in names:
            out[name] = kind(name) if out[name] else None
    given = [name for name in BOX if out[name] is not None]
    if given and (len(given) < len(BOX) or min(out["first_row"], out["first_column"]) < 0):
        raise DatasetError(f"{where}: a part of an image wants {', '.join(BOX)}, none of them negative")
    if any(out[name] is not None and not 0 < out[name] < float("inf") for name in _REAL):
        raise DatasetError(f"{where}: a spacing is a positive number of mm")
    if not out["image_id"]:
        part = "" if out["slice"] is None else f"_z{out['slice']}"
        part += f"_r{out['first_row']}c{out['first_column']}" if given else ""
        out["image_id"] = Path(out["image"]).name.split(".")[0] + part
    return out
