"""What the page says about each experiment: tables, figures, plain sentences, and what couldn't be shown and why."""

from dataclasses import dataclass, field

from .measures import show_percent
from .store import JobError, JobStore
from .tables.comparison import comparison_tables
from .tables.complex_tables import complex_tables
from .tables.doctors import doctors_tables
from .tables.paired import signed
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

    registry: kind -> function (experiment, store) that gives a list of Drawn.
    """
    name = experiment["name"]
    section = Section(
        name, experiment.get("title") or name, experiment.get("source") or "", experiment.get("notes") or ""
    )
    kind = experiment.get("kind")
    if kind == "complex":
        section.tables, section.sentences = complex_tables(store, experiment)
        section.tables += comparison_tables(store, experiment)[0][:1]  # how the networks do on all nodules
    elif kind == "readers":
        section.tables, section.sentences, section.problems = doctors_tables(store, experiment)
    elif kind not in registry:
        section.tables, found = comparison_tables(store, experiment)
        section.sentences = comparison_sentences(found)
        section.tables[1:1] = _released_table(store, experiment)
    if kind in registry:
        _draw(section, store, experiment, registry[kind])
    if not section.tables and not section.drawn and not section.problems:
        section.problems.append("No job that this experiment needs has finished; nothing can be shown.")
    return section


def _released_table(store, experiment: dict) -> list:
    """With the option `released`, IFE's measures once more, in the forms of its released code."""
    options = experiment.get("options") or {}
    if not options.get("released"):
        return []
    tables, _ = comparison_tables(store, {**experiment, "options": {**options, "measures": "ife_released"}})
    for table in tables[:1]:
        table.name, table.title = f"{experiment['name']}-released", "The same in the forms of the released code."
    return tables[:1]


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


def comparison_sentences(found: dict) -> list:
    """A table's outcome in words: best mean Dice, the readers' own, and how the rows stand to the reference."""
    means = {k: v for k, v in (found.get("means") or {}).items() if v is not None}
    networks = {k: v for k, v in means.items() if k != "human"}
    if not networks:
        return []
    labels, dice, against = found["labels"], found["label"], found["against"]
    against += f" on what all were tested on (folds: {found['folds']})" if found["folds"] else ""
    best = max(networks, key=networks.get)
    text = "" if len(networks) == 1 else f"Highest mean {dice} against {against}: {labels[best]}, "
    text = (text or f"Mean {dice} against {against} of {labels[best]}: ") + f"{show_percent(networks[best])} %"
    if "human" in means:
        text += f"; one reader against the others: {show_percent(means['human'])} %"
    sentences = [f"{text}."]
    tests = [t for t in found["tests"] if t["measure"] == found["measure"] and t["row"] != "human"]
    if tests:
        below = [t for t in tests if t["high"] < 0]
        above = [t for t in tests if t["low"] > 0]
        parts = [_list(f"lower {dice}", below), _list(f"higher {dice}", above)]
        open_ = [t for t in tests if t not in below and t not in above]
        parts.append(_list("not shown to differ", open_))
        name = labels[found["reference"]] if found["reference"] else "each one's reference"
        sentences.append(f"Nodule by nodule against {name} (95 % intervals): " + "; ".join(p for p in parts if p) + ".")
    return sentences


def _list(words: str, tests: list) -> str:
    if not tests:
        return ""
    return f"{words}: " + ", ".join(f"{t['label']} ({signed(show_percent, t['difference'])})" for t in tests)
