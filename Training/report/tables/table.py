"""A table that goes two ways: cells for reading on the page, records with the unrounded numbers for CSV and JSON."""

from dataclasses import dataclass, field
from typing import Any

from ..store import Record

__all__ = ["Cell", "Head", "Record", "Table"]


@dataclass
class Cell:
    """Text of a cell. ``kind``: class for its look (paper, human, absent); ``note``: a small second line."""

    text: str
    number: bool = True
    bold: bool = False
    kind: str = ""
    note: str = ""


@dataclass
class Head:
    """A column's heading, or one over ``span`` columns or ``rows`` header rows."""

    text: str
    number: bool = True
    span: int = 1
    rows: int = 1


@dataclass
class Table:
    """``name``: the CSV's file name. ``rows``: (row class, cells). ``records``: the same, unrounded, flat dicts.

    ``caption`` says in words exactly what is shown. ``heads`` are one or two header rows. ``folded`` tables open on
    demand.
    """

    name: str
    title: str
    caption: str
    heads: list[list[Head]]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    folded: bool = False

    def csv(self) -> str:
        """The records as CSV text; columns in the order of their first appearance."""
        import pandas

        columns = list(dict.fromkeys(key for record in self.records for key in record))
        frame = pandas.DataFrame(self.records, columns=columns, dtype=object)
        return frame.map(_plain).to_csv(index=False, lineterminator="\n")


def _plain(value: Any) -> str:
    """Ten significant digits for floats; empty for what is absent."""
    if value is None or value != value:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
