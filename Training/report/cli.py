"""`python -m Training report`: read the experiments' results, write the page and its files."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

from LungNoduleKit.files import write_whole

from ..experiments.kinds import KINDS
from . import figures, overview
from .content import make_section
from .page import Picture, render
from .store import JobError, JobStore

__all__ = ["add_arguments", "make_report", "run"]

INDEX = "report.json"


def add_arguments(parser) -> None:
    """Arguments of `report`."""
    parser.add_argument(
        "--experiments",
        type=Path,
        default=Path("experiments"),
        metavar="DIR",
        help="results of `experiment`: jobs and a folder an experiment (experiments)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="where index.html, report.json and the folders figures, tables and data are written; a report that is "
        "there already is replaced, other files are left alone (report)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these experiments, in this order (all)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def run(args) -> int:
    """Write the report; 0 when it is written. What couldn't be drawn is on the page and on standard error."""
    sections, page = make_report(args.experiments, args.output, args.only)
    for section in sections:
        for problem in section.problems:
            print(f"warning: {section.name}: {problem}", file=sys.stderr)
    if not args.quiet:
        print(f"{page}: {len(sections)} experiments")
    return 0


def make_report(experiments, output, only=None) -> tuple[list, Path]:
    """(sections, path of index.html). The page is written last; the same results give the same bytes.

    Raises JobError when there is nothing to report or a result can't be read, OutputError when a file can't be written.
    """
    store = JobStore(experiments)
    found = _chosen(store, only)
    sections = [make_section(store, experiment, figures.FIGURES) for experiment in found]
    gaps = overview.missing(store, found)
    facts = overview.facts(store, found)
    commands = overview.commands(store, found, Path(experiments).name or "experiments")
    conditions = overview.conditions_table(store, found)
    gap_table = overview.missing_table(gaps) if gaps else None

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    before = _earlier_files(output)
    data = _copy_data(store, overview.used_jobs(store, found), output / "data")
    pictures = _save_figures(sections, output / "figures")
    tables = [t for section in sections for t in section.tables] + [conditions] + ([gap_table] if gap_table else [])
    for table in tables:
        _write(output / "tables" / f"{table.name}.csv", table.csv().encode("utf-8"))
    files = [f"tables/{table.name}.csv" for table in tables]
    files += [link for picture in pictures.values() for _, link in picture.files]
    files += [f"data/{name}" for name in data]
    content = {
        "facts": dict(facts),
        "missing": gaps,
        "commands": [{"what": what, "command": command} for what, command in commands],
        "experiments": [_section_json(section) for section in sections],
        "conditions": conditions.records,
        "files": sorted(files),
    }
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _write(output / INDEX, text.encode("utf-8"))
    page = output / "index.html"
    _write(page, render(facts, gap_table, commands, sections, conditions, pictures).encode("utf-8"))
    for name in before - set(files):
        (output / name).unlink(missing_ok=True)
    return sections, page


def _place(experiment: dict) -> tuple:
    """The papers' tables first, then the other experiments by kind and name."""
    name, kind = experiment["name"], experiment.get("kind")
    order = list(KINDS)
    return (not name.startswith("table"), order.index(kind) if kind in KINDS else len(order), name)


def _chosen(store: JobStore, only) -> list:
    found = {e["name"]: e for e in sorted(store.experiments(), key=_place)}
    if not found:
        raise JobError(f"{store.root}: holds no experiment (a folder with experiment.json)")
    unknown = [name for name in only or () if name not in found]
    if unknown:
        raise JobError(f"{store.root}: has no experiment {unknown[0]}; there are {', '.join(found)}")
    return [found[name] for name in only] if only else list(found.values())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda target: Path(target).write_bytes(content))


def _earlier_files(output: Path) -> set:
    """Files of the report that is there already, as it lists them itself; only in the folders that a report has."""
    try:
        files = json.loads((output / INDEX).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    parts = ((str(name), Path(str(name)).parts) for name in files)
    return {name for name, p in parts if len(p) == 2 and p[0] in {"data", "figures", "tables"} and p[1] != ".."}


def _copy_data(store: JobStore, jobs: list, folder: Path) -> dict:
    """{file name: job} of the copied CSVs. Readers' own scores are the same for every network of a fold: one file."""
    names, human = {}, {}
    for job in jobs:
        names[f"{job}-scores.csv"] = job
        _write(folder / f"{job}-scores.csv", _bytes(store.folder(job) / "scores.csv"))
        if not (store.folder(job) / "human.csv").is_file():
            continue  # super-resolution has no readers
        content = _bytes(store.folder(job) / "human.csv")
        if content not in human:
            fold = store.manifest(job).get("fold")
            same = sum(1 for name in human.values() if name.startswith(f"human-fold{fold}"))
            human[content] = f"human-fold{fold}.csv" if not same else f"human-fold{fold}-{same + 1}.csv"
            names[human[content]] = job
            _write(folder / human[content], content)
    return names


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}") from None


def _save_figures(sections: list, folder: Path) -> dict[str, Picture]:
    """{file stem: picture}; the figures lie in the folder as PNG and SVG."""
    pictures = {}
    for section in sections:
        for drawn in section.drawn:
            stem = f"{section.name}-{drawn.name}"
            png, svg = figures.save(replace(drawn, name=stem), folder)
            files = [(path.suffix[1:].upper(), f"{folder.name}/{path.name}") for path in (png, svg)]
            pictures[stem] = Picture(png.read_bytes(), files)
    return pictures


def _section_json(section) -> dict:
    return {
        "name": section.name,
        "title": section.title,
        "source": section.source,
        "notes": section.notes,
        "sentences": section.sentences,
        "problems": section.problems,
        "tables": {table.name: {"title": table.title, "rows": table.records} for table in section.tables},
        "figures": [
            {"name": f"{section.name}-{d.name}", "title": d.title, "caption": d.caption, "data": d.data}
            for d in section.drawn
        ],
    }


def _finite(value):
    """The same without NaN and infinities, which JSON doesn't have: they become null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
