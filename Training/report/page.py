"""The one page, from templates: headline, what wasn't run, every experiment, the measures' meaning, conditions."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .content import Section
from .figures.drawn import DPI
from .measures import explained
from .tables.table import Cell, Table

__all__ = ["INDEX", "TEMPLATES", "Picture", "render", "render_index"]

TEMPLATES = Path(__file__).parent / "templates"
#: File of the page's numbers.
INDEX = "report.json"
TITLE = "Experiments: what was run and what it shows"
#: CSS pixels in an inch: figures keep their size in inches on the page.
CSS_DPI = 96


@dataclass
class Picture:
    """A figure's PNG bytes and its files beside the page: (kind, address)."""

    png: bytes
    files: list[tuple[str, str]]

    @property
    def source(self) -> str:
        """The picture itself as an address, so that nothing is loaded from elsewhere."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def width(self) -> int:
        """On the page, in CSS pixels."""
        return self._size()[0]

    @property
    def height(self) -> int:
        """On the page, in CSS pixels."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        width, height = struct.unpack(">II", self.png[16:24])  # of the PNG's header chunk
        return round(width * CSS_DPI / DPI), round(height * CSS_DPI / DPI)


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["note"] = _note
    return environment


def _note(cell: Cell) -> Any:
    """A cell's note; beside a number "± 1.23" and "0.1 to 0.2" stay on one line, what they are of may go below."""
    import markupsafe

    note = str(markupsafe.escape(cell.note))
    return markupsafe.Markup(note.replace(" ", "&nbsp;").replace("&nbsp;(", " (") if cell.number else note)


def render(
    facts: list[tuple[str, str]],
    gaps: Table | None,
    commands: list[tuple[str, str]],
    sections: list[Section],
    conditions: Table,
    pictures: dict[str, Picture],
    about: Mapping[str, Any] | None = None,
) -> str:
    """The whole page as HTML text; everything in it is inline.

    facts: (term, text) pairs; gaps: results that are missing; commands: (what, command) pairs; pictures: by
    "<experiment>-<figure>"; about: of a study its title, notes and the commands that it was made with.
    """
    about = about or {}
    measured = bool(conditions.rows) or gaps is not None or not about
    contents = [("overview", "What was run"), *([("missing", "What was not run")] if measured else [])]
    contents += [(f"experiment-{s.name}", s.title) for s in sections]
    if measured:
        contents += [("measures", "What the measures mean"), ("conditions", "Conditions of every run")]
    kinds = list(dict.fromkeys(kind for picture in pictures.values() for kind, _ in picture.files))
    files = "every figure as " + " and ".join(kinds) + " in figures, " if kinds else ""
    scores = ", each nodule's scores in data" if measured else ""
    return _page(
        "page.html",
        title=about.get("title") or TITLE,
        notes=about.get("notes", ""),
        ran=about.get("commands", []),
        measured=measured,
        contents=contents,
        facts=facts,
        findings=[(section, sentence) for section in sections for sentence in section.sentences],
        files=f"Beside this page: {files}every table unrounded in tables{scores}, and all numbers in {INDEX}.",
        gaps=gaps,
        commands=commands,
        sections=sections,
        pictures=pictures,
        measures=explained(),
        conditions=conditions,
    )


def render_index(studies: list[tuple[str, Mapping[str, Any]]]) -> str:
    """The page that leads to several studies' pages: (name, summary) pairs."""
    return _page("index.html", title="Results", studies=studies)


def _page(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values) + "\n"
