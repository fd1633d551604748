"""A table that goes three ways: HTML for reading, CSV and records (report.json) with the unrounded numbers."""

import csv
import io
from dataclasses import dataclass, field

from ..markup import escape, tag

__all__ = ["Cell", "Head", "Table"]


@dataclass
class Cell:
    """Text of a cell. ``kind``: class for its look (paper, human, absent); ``note``: a small second line."""

    text: str
    number: bool = True
    bold: bool = False
    kind: str = ""
    note: str = ""

    def html(self, first: bool) -> str:
        """As <td>, or as the row's <th> where it is the first."""
        name = "th" if first else "td"
        classes = " ".join(c for c in ("number" if self.number else "", self.kind) if c)
        inner = tag("strong", escape(self.text)) if self.bold else escape(self.text)
        if self.note:
            note = escape(self.note)
            if self.number:  # "± 1.23" and "0.1 to 0.2" stay on one line; what they are of may go below
                note = note.replace(" ", "&nbsp;").replace("&nbsp;(", " (")
            inner += tag("small", note)
        return tag(name, inner, scope="row" if first else None, **{"class": classes or None})


@dataclass
class Head:
    """A column's heading, or one over ``span`` columns."""

    text: str
    number: bool = True
    span: int = 1
    rows: int = 1

    def html(self) -> str:
        """As <th>."""
        return tag(
            "th",
            escape(self.text),
            scope="colgroup" if self.span > 1 else "col",
            colspan=self.span if self.span > 1 else None,
            rowspan=self.rows if self.rows > 1 else None,
            **{"class": "group" if self.span > 1 else "number" if self.number else None},
        )


@dataclass
class Table:
    """``name``: the CSV's file name. ``rows``: (row class, cells). ``records``: the same, unrounded, flat dicts.

    ``caption`` says in words exactly what is shown. ``heads`` are one or two header rows. ``folded`` tables open on
    demand.
    """

    name: str
    title: str
    caption: str
    heads: list
    rows: list = field(default_factory=list)
    records: list = field(default_factory=list)
    folded: bool = False

    def html(self, link: str = "") -> str:
        """The table in a box that scrolls sideways where the page is too narrow; link: address of its CSV file."""
        head = "".join(tag("tr", "".join(h.html() for h in line)) for line in self.heads)
        body = "".join(
            tag("tr", "".join(c.html(i == 0) for i, c in enumerate(cells)), **{"class": kind or None}) + "\n"
            for kind, cells in self.rows
        )
        words = tag("b", escape(self.title)) + " " + escape(self.caption)
        caption = tag("caption", f"{words} {tag('a', 'CSV', href=link)}" if link else words)
        table = tag("table", f"{caption}\n{tag('thead', head)}\n{tag('tbody', body)}", id=f"table-{self.name}")
        box = tag("div", table, tabindex="0", role="region", **{"class": "scroll", "aria-label": self.title})
        if not self.folded:
            return box
        return tag("details", tag("summary", escape(self.title)) + box)

    def csv(self) -> str:
        """The records as CSV text; columns in the order of their first appearance."""
        columns = list(dict.fromkeys(key for record in self.records for key in record))
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for record in self.records:
            writer.writerow([_plain(record.get(column)) for column in columns])
        return stream.getvalue()


def _plain(value) -> str:
    """Ten significant digits for floats; empty for what is absent."""
    if value is None or value != value:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
