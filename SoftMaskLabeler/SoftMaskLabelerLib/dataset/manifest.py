"""The manifest of a data set of soft masks: one row a case, with the reviewer's decision, which is never overwritten.

DSNet's LNSM went through "slight manual selection" (DSNet, first version) or none (TNNLS); here it is written down.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from LungNoduleKit import tables
from LungNoduleKit.errors import shortened, shown
from LungNoduleKit.files import write_all

from ..errors import SoftMaskError

NAME = "manifest.csv"
COLUMNS = (
    "case",
    "decision",
    "status",
    "patient",
    "source",
    "strategy",
    "page",
    "tile",
    "slice",
    "first_row",
    "first_column",
    "spacing_mm",
    "window_hu",
    "area_mm2",
    "soft_area_mm2",
    "unknown_pixels",
    "notes",
)
ACCEPT, REJECT = "accept", "reject"


class Manifest:
    """Rows by case, in a folder's `manifest.csv`; the file is replaced as a whole, so it is never half-written."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / NAME
        self.rows: dict[str, dict[str, str]] = {}
        self.columns = list(COLUMNS)
        if self.path.exists():
            self._take(own=())

    def put(self, row: dict[str, Any]) -> None:
        """Adds or replaces a case's row; a decision and columns of the reviewer's that it had stay."""
        before = self.rows.get(str(row["case"]), {})
        self.rows[str(row["case"])] = {**before, **{key: _cell(value) for key, value in row.items()}}

    def write(self, order: dict[str, int] | None = None) -> None:
        """Writes the file, cases in the given order; what a reviewer changed in it meanwhile is taken over first."""
        if self.path.exists():
            self._take(own=[name for name in COLUMNS if name != "decision"])
        order = order or {}
        rows = sorted(self.rows.values(), key=lambda row: order.get(row["case"], len(order)))

        def writer(path: Path) -> None:
            with open(path, "w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, self.columns, restval="")
                table.writeheader()
                table.writerows(rows)

        write_all([(self.path, writer)])

    def _take(self, own: Sequence[str]) -> None:
        """Reads the file, and takes all of its columns but `own` for the cases that are known already."""
        table = tables.read_table(self.path, ("case",), SoftMaskError)
        self.columns += [name for name in table.columns if name not in self.columns]
        for row in table:
            if not row["case"]:
                continue
            known = self.rows.setdefault(row["case"], {})
            skip = own if known else ()
            known.update({k: v for k, v in row.items() if k not in skip})


def apply_decisions(folder: str | Path, undecided: str = REJECT) -> tuple[Path, dict[str, int]]:
    """Writes `accepted.csv`, the manifest's rows that are in the data set; returns its path and the counts.

    A case is in if it is done and its decision is "accept"; `undecided` says what an empty decision means. Raises
    `SoftMaskError` for a folder without manifest, and for other words in the decision column.
    """
    manifest = Manifest(Path(folder))
    if not manifest.rows:
        raise SoftMaskError(f"{manifest.path}: there is no manifest with cases")
    kept, counts = [], {"accepted": 0, "rejected": 0, "undecided": 0, "failed": 0}
    for row in manifest.rows.values():
        decision = row.get("decision", "").strip().lower()
        if decision not in ("", ACCEPT, REJECT):
            where = f"{manifest.path}: the decision on {shortened(row['case'])}"
            raise SoftMaskError(f"{where} is {shown(row['decision'])}, not {ACCEPT} or {REJECT}")
        if row.get("status") != "ok":
            counts["failed"] += 1
            continue
        counts["undecided"] += not decision
        taken = (decision or undecided) == ACCEPT
        counts["accepted" if taken else "rejected"] += 1
        if taken:
            kept.append(row)
    target = Path(folder) / "accepted.csv"

    def writer(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, manifest.columns, restval="")
            table.writeheader()
            table.writerows(kept)

    write_all([(target, writer)])
    return target, counts


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
