"""CSV tables as people have them: from this software, and saved again by Excel or another spreadsheet.

A spreadsheet may add a byte order mark, write semicolons or tabs and decimal commas, end lines as Windows does, use the
encoding of its system, and add empty rows and columns. All of that is read; what can't be is refused in one line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import NoduleError, shown
from .records import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_LONGEST_CELL = 32_767  # characters, as in Excel


class TableError(NoduleError):
    """A table that can't be read; the message names the file, and the line and column where there is one."""


class Row(dict[str, str]):
    """The cells of a row by column, without blanks around them; `where` names file and line in messages."""

    def __init__(self, cells: dict[str, str], where: str, error: type[NoduleError]):
        super().__init__(cells)
        self.where, self.error = where, error

    def whole(self, column: str) -> int:
        """A cell as a whole number (a spreadsheet may have made 3 into 3.0). Raises the table's error."""
        value = self.real(column)
        if value != int(value) or abs(value) >= 2**53:  # beyond it floats skip whole numbers
            raise self.error(f"{self.where}: {column} is {shown(self[column])}, no whole number")
        return int(value)

    def real(self, column: str) -> float:
        """A cell as a finite number. Raises the table's error."""
        try:
            value = float(self[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"{self.where}: {column} is {shown(self[column])}, no number")
        return value

    def __reduce__(self) -> tuple[type[Row], tuple[dict[str, str], str, type[NoduleError]]]:
        return Row, (dict(self), self.where, self.error)


class Table(list[Row]):
    """The rows of a table; `columns` has the names of its columns in their order."""

    def __init__(self, rows: Sequence[Row], columns: list[str]):
        super().__init__(rows)
        self.columns = columns


def read_table(path: str | Path, needed: Sequence[str] = (), error: type[NoduleError] = TableError) -> Table:
    """The rows of a CSV file; empty rows and columns at the end are left out, missing cells at a row's end are empty.

    Where a semicolon or a tab separates the cells, decimal commas become points. Raises `error` for a file that can't
    be read or isn't a table, for a missing column of those `needed`, for several columns of one name, for a row with
    more cells than there are columns, for a cell of more characters than a spreadsheet can hold, and for a file that
    ends within quotes.
    """
    name = str(path)
    text = read_text(path, error, fallback="cp1252")
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise error(f"{name}: the table is empty")
    stated = re.fullmatch(r"sep=(.)", lines[first].strip())  # Excel's own first line
    delimiter = stated[1] if stated else _delimiter(lines[first])
    start = first + 1 if stated else first
    content = "".join(lines[start:])
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        if _ends_in_quotes(content, delimiter):
            raise error(f"{name}: it ends within quotes, so it was cut off")
        header = [cell.strip() for cell in next(reader, [])]
        while header and not header[-1]:
            header.pop()
        _check_columns(header, needed, name, error)
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                where = f"{name}: line {start + reader.line_num}"
                rows.append(Row(_cells(cells, header, delimiter, where, error), where, error))
    except csv.Error as reason:
        raise error(f"{name}: line {start + reader.line_num} can't be read ({reason})") from None
    finally:
        csv.field_size_limit(before)
    return Table(rows, [column for column in header if column])


def _ends_in_quotes(content: str, delimiter: str) -> bool:
    try:
        for _ in csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error as reason:
        return "unexpected end" in str(reason)  # other deviations are read
    return False


def _delimiter(header: str) -> str:
    """What separates the cells: the names of columns have none of these in them."""
    counts = {mark: header.count(mark) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def _check_columns(header: list[str], needed: Sequence[str], name: str, error: type[NoduleError]) -> None:
    missing = [column for column in needed if column not in header]
    if missing:
        raise error(f"{name}: it has no column {', '.join(map(repr, missing))}")
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise error(f"{name}: it has several columns {shown(twice[0])}")


def _cells(cells: list[str], header: list[str], delimiter: str, where: str, error: type[NoduleError]) -> dict[str, str]:
    values = [cell.strip() for cell in cells]
    while len(values) > len(header) and not values[-1]:
        values.pop()
    if len(values) > len(header):
        raise error(f"{where} has {len(values)} cells, but there are {len(header)} columns")
    if delimiter != ",":
        values = [value.replace(",", ".") if _DECIMAL_COMMA.fullmatch(value) else value for value in values]
    values += [""] * (len(header) - len(values))
    return {column: value for column, value in zip(header, values, strict=True) if column}
