"""What the page says about each experiment: tables, figures, plain sentences, and what couldn't be shown and why."""

from dataclasses import dataclass, field

from ..experiments.kinds import KINDS
from . import tables
from .store import JobError, JobStore
from .tables.table import Cell, Head, Table

__all__ = ["Section", "make_section"]


@dataclass
class Section:
    """One experiment. ``drawn``: figures (see `figures.Drawn`); ``problems``: lines on what isn't shown."""

    name: str
    title: str
    source: str
    notes: str
    tables: list = field(default_factory=list)
    drawn: list = field(default_factory=list)
    sentences: list = field(default_factory=list)
    problems: list = field(default_factory=list)


def make_section(store: JobStore, experiment: dict, registry: dict) -> Section:
    """Everything about one experiment. Raises JobError for unreadable results; a figure that fails is a problem line.

    registry: kind -> function (experiment, store) that gives a list of Drawn. A kind that this version doesn't know is
    shown as a comparison of networks.
    """
    name = experiment["name"]
    section = Section(
        name, experiment.get("title") or name, experiment.get("source") or "", experiment.get("notes") or ""
    )
    kind = KINDS.get(experiment.get("kind"), KINDS["table"])
    if kind.tables:
        section.tables, section.sentences, section.problems = getattr(tables, kind.tables)(store, experiment)
    if kind.name in registry:
        _draw(section, store, experiment, registry[kind.name])
    if not section.tables and not section.drawn and not section.problems:
        section.problems.append("No job that this experiment needs has finished; nothing can be shown.")
    return section


def _draw(section, store, experiment, function):
    try:
        section.drawn = function(experiment, store)
    except JobError:
        raise
    except Exception as error:  # the numbers of the other experiments must not be lost with one figure
        reason = " ".join(str(error).split()) or type(error).__name__
        section.problems.append(f"The figures could not be drawn: {reason}")
    for drawn in section.drawn:
        section.sentences += (drawn.data or {}).get("sentences", [])
        for key, rows in (drawn.data or {}).items():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                suffix = "" if key == "table" else f"-{key.replace('_', '-')}"
                title = drawn.title + ("" if key == "table" else f" ({key.replace('_', ' ')})")
                section.tables.append(_figure_table(f"{section.name}-{drawn.name}{suffix}", title, rows))


#: Words of the columns of a figure's numbers that are printed otherwise.
_WORDS = {
    "hu": "HU",
    "ks": "KS",
    "dsc": "DSC",
    "iou": "IoU",
    "95": "(95 %)",
    "mm": "(mm)",
    "wasserstein": "Wasserstein",
}


def _figure_table(name: str, title: str, rows: list) -> Table:
    """The numbers behind a figure, as they are; folded where they are many."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    words = {c: not all(isinstance(row.get(c), (int, float, list, type(None))) for row in rows) for c in columns}
    heads = [[Head(" ".join(_WORDS.get(w, w) for w in c.split("_")), not words[c]) for c in columns]]
    table = Table(
        name,
        f"Numbers of the figure: {title}.",
        "See its caption.",
        heads,
        records=rows,
        folded=len(rows) > 12 or "nodule" in columns,
    )
    for row in rows:
        table.rows.append(("", [Cell(_plain(row.get(c), c), not words[c]) for c in columns]))
    return table


def _plain(value, key="") -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        interval = key.endswith("_95") or key.startswith("limits")
        return (" to " if interval else ", ").join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return str(value)
