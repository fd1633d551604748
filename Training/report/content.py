"""What the page says about each experiment: tables, figures, plain sentences, and what couldn't be shown and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..experiments.kinds import KINDS, Kind
from . import tables
from .figures.drawn import Drawn
from .store import Experiment, JobError, Store
from .tables.table import Cell, Head, Record, Table

__all__ = ["Section", "figure_table", "make_section"]

#: Draws an experiment's figures.
Draw = Callable[[Experiment, Store], list[Drawn]]


@dataclass
class Section:
    """One experiment. ``drawn``: figures (see `figures.Drawn`); ``problems``: lines on what isn't shown."""

    name: str
    title: str
    source: str
    notes: str
    kind: Kind = KINDS["table"]
    tables: list[Table] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, drawn: Drawn) -> None:
        """A figure with its sentences, and its numbers as tables."""
        self.drawn.append(drawn)
        self.sentences += (drawn.data or {}).get("sentences", [])
        for name, (title, rows) in self.numbers(drawn).items():
            self.tables.append(figure_table(name, f"Numbers of the figure: {title}.", rows, "See its caption."))

    def numbers(self, drawn: Drawn) -> dict[str, tuple[str, list[Record]]]:
        """{name of a table: (title, rows)} of the numbers behind a figure."""
        found = {}
        for key, rows in (drawn.data or {}).items():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                suffix = "" if key == "table" else f"-{key.replace('_', '-')}"
                title = drawn.title + ("" if key == "table" else f" ({key.replace('_', ' ')})")
                found[f"{self.name}-{drawn.name}{suffix}"] = title, rows
        return found


def make_section(store: Store, experiment: Experiment, registry: Mapping[str, Draw]) -> Section:
    """Everything about one experiment. Raises JobError for unreadable results; a figure that fails is a problem line.

    registry: kind -> function (experiment, store) that returns a list of Drawn. A kind that this version doesn't know
    is shown as a comparison of networks. What a store has recorded of an experiment is shown as it is.
    """
    recorded = store.recorded(experiment)
    if recorded is not None:
        return recorded
    name = experiment["name"]
    kind = KINDS.get(experiment.get("kind", ""), KINDS["table"])
    title, source, notes = (experiment.get(key) or "" for key in ("title", "source", "notes"))
    section = Section(name, title or name, source, notes, kind)
    if kind.tables:
        section.tables, section.sentences, section.problems = getattr(tables, kind.tables)(store, experiment)
    for drawn in _drawn(section, store, experiment, registry.get(kind.name)):
        section.add(drawn)
    if not section.tables and not section.drawn and not section.problems:
        section.problems.append("No job that this experiment needs has finished; nothing can be shown.")
    return section


def _drawn(section: Section, store: Store, experiment: Experiment, function: Draw | None) -> list[Drawn]:
    try:
        return function(experiment, store) if function else []
    except JobError:
        raise
    except Exception as error:  # the numbers of the other experiments must not be lost with one figure
        reason = " ".join(str(error).split()) or type(error).__name__
        section.problems.append(f"The figures could not be drawn: {reason}")
        return []


#: Words of the columns of a figure's numbers that are printed otherwise.
_WORDS = {
    "hu": "HU",
    "hc": "HC",
    "ged": "GED",
    "final": "Final",
    "dice": "Dice",
    "recist": "RECIST",
    "mae": "MAE",
    "ks": "KS",
    "dsc": "DSC",
    "iou": "IoU",
    "95": "(95 %)",
    "mm": "(mm)",
    "wasserstein": "Wasserstein",
}


def figure_table(name: str, title: str, rows: list[Record], caption: str) -> Table:
    """Numbers as they are, with columns named by their keys; folded where they are many."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    words = {c: not all(isinstance(row.get(c), int | float | list | type(None)) for row in rows) for c in columns}
    heads = [[Head(" ".join(_WORDS.get(w, w) for w in c.split("_")), not words[c]) for c in columns]]
    table = Table(name, title, caption, heads, records=rows, folded=len(rows) > 12 or "nodule" in columns)
    for row in rows:
        table.rows.append(("", [Cell(_plain(row.get(c), c), not words[c]) for c in columns]))
    return table


def _plain(value: Any, key: str = "") -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        interval = key.endswith("_95") or key.startswith("limits")
        return (" to " if interval else ", ").join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return str(value)
