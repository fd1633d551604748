"""`python -m Training report`: read results, write a page and its files."""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..experiments.kinds import KINDS
from . import figures, overview
from .archive import RESULTS
from .content import Section, make_section
from .figures.drawn import write_bytes
from .page import INDEX, Picture, render, render_index
from .store import Experiment, JobError, JobStore, Store
from .study import StudyStore, available

__all__ = ["add_arguments", "make_report", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    parser.add_argument(
        "study",
        nargs="*",
        metavar="STUDY",
        help="only these studies of the results (all; what there are is said when one is asked for that isn't there)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--experiments",
        type=Path,
        metavar="DIR",
        help="your own results of `experiment` (jobs and a folder an experiment) in place of those that are shipped",
    )
    source.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder with archive.parquet and a summary a study (those of this repository)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="where index.html, report.json and the folders figures, tables and data are written, of several studies a "
        "folder each; a report that is there already is replaced, other files are left alone (report)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these experiments, in this order (all)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def run(args: argparse.Namespace) -> int:
    """Write the report; 0 when it is written. What couldn't be drawn is on the page and on standard error."""
    if args.experiments:
        if args.study:
            raise JobError("--experiments has no studies; name experiments with --only")
        return _said(args, "", *make_report(args.experiments, args.output, args.only))
    names = args.study or available(args.results)
    if not names:
        raise JobError(f"{args.results}: holds no results; give your own with --experiments, or others with --results")
    stores = [StudyStore(name, args.results) for name in names]
    if not args.study:
        stores.sort(key=lambda store: store.summary.get("place", len(stores)))
    if len(stores) == 1:
        return _said(args, "", *make_report(stores[0], args.output, args.only))
    if args.only:
        raise JobError("--only takes one study: name it")
    for store in stores:
        _said(args, f"{store.name}: ", *make_report(store, args.output / store.name))
    index = args.output / "index.html"
    write_bytes(index, render_index([(store.name, store.summary) for store in stores]).encode("utf-8"))
    if not args.quiet:
        print(f"{index}: {len(stores)} studies")
    return 0


def _said(args: argparse.Namespace, place: str, sections: list[Section], page: Path) -> int:
    for section in sections:
        for problem in section.problems:
            print(f"warning: {place}{section.name}: {problem}", file=sys.stderr)
    if not args.quiet:
        print(f"{page}: {len(sections)} sections")
    return 0


def make_report(
    source: Store | str | Path, output: str | Path, only: list[str] | None = None
) -> tuple[list[Section], Path]:
    """(sections, path of index.html). The page is written last; the same results give the same bytes.

    source: an output folder of `experiment`, or a store. Raises JobError when there is nothing to report or a result
    can't be read, OutputError when a file can't be written.
    """
    store = source if isinstance(source, Store) else JobStore(source)
    found = _chosen(store, only)
    sections = [make_section(store, experiment, figures.FIGURES) for experiment in found]
    gaps = overview.missing(store, found)
    about = store.summary if isinstance(store, StudyStore) else {}
    facts = overview.facts(store, found) if found else _facts(about)
    commands = overview.commands(store, found, _folder_name(store))
    conditions = overview.conditions_table(store, found)
    gap_table = overview.missing_table(gaps) if gaps else None
    if isinstance(store, StudyStore) and not only:
        sections += store.sections()

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    before = _earlier_files(output)
    data = _copy_data(store, overview.used_jobs(store, found), output / "data")
    pictures = _save_figures(sections, output / "figures")
    tables = [t for section in sections for t in section.tables] + ([conditions] if found else [])
    tables += [gap_table] if gap_table else []
    for table in tables:
        write_bytes(output / "tables" / f"{table.name}.csv", table.csv().encode("utf-8"))
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
    write_bytes(output / INDEX, text.encode("utf-8"))
    page = output / "index.html"
    write_bytes(page, render(facts, gap_table, commands, sections, conditions, pictures, about).encode("utf-8"))
    for name in before - set(files):
        (output / name).unlink(missing_ok=True)
    return sections, page


def _facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    """(term, text) pairs that a study's summary itself says."""
    terms = {"data": "Data", "date": "Dates", "commit": "Commits", "conditions": "Conditions"}
    return [(term, str(about[key])) for key, term in terms.items() if about.get(key)]


def _folder_name(store: Store) -> str:
    """How the folder of results is called in the commands for the rest."""
    return "experiments" if isinstance(store, StudyStore) else store.root.name or "experiments"


def _place(experiment: Experiment) -> tuple[bool, int, str]:
    """The papers' tables first, then the other experiments by kind and name."""
    name, kind = experiment["name"], experiment.get("kind")
    order = list(KINDS)
    return (not name.startswith("table"), order.index(kind) if kind in KINDS else len(order), name)


def _chosen(store: Store, only: list[str] | None) -> list[dict[str, Any]]:
    found = {e["name"]: e for e in sorted(store.experiments(), key=_place)}
    if not found and isinstance(store, JobStore):
        raise JobError(f"{store.root}: holds no experiment (a folder with experiment.json)")
    unknown = [name for name in only or () if name not in found]
    if unknown:
        raise JobError(f"{store.root}: has no experiment {unknown[0]}; there are {', '.join(found)}")
    return [found[name] for name in only] if only else list(found.values())


def _earlier_files(output: Path) -> set[str]:
    """Files of the report that is there already, as it lists them itself; only in the folders that a report has."""
    try:
        files = json.loads((output / INDEX).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    parts = ((str(name), Path(str(name)).parts) for name in files)
    return {name for name, p in parts if len(p) == 2 and p[0] in {"data", "figures", "tables"} and p[1] != ".."}


def _copy_data(store: Store, jobs: list[str], folder: Path) -> dict[str, str]:
    """{file name: job} of the copied CSVs. Readers' own scores are the same for every network of a fold: one file."""
    names: dict[str, str] = {}
    human: dict[bytes, str] = {}
    for job in jobs:
        names[f"{job}-scores.csv"] = job
        write_bytes(folder / f"{job}-scores.csv", store.scores_csv(job))
        content = store.human_csv(job)
        if content is not None and content not in human:
            fold = store.manifest(job).get("fold")
            same = sum(1 for name in human.values() if name.startswith(f"human-fold{fold}"))
            human[content] = f"human-fold{fold}.csv" if not same else f"human-fold{fold}-{same + 1}.csv"
            names[human[content]] = job
            write_bytes(folder / human[content], content)
    return names


def _save_figures(sections: list[Section], folder: Path) -> dict[str, Picture]:
    """{file stem: picture}; the figures lie in the folder as PNG and, if drawn here, as SVG."""
    pictures = {}
    for section in sections:
        for drawn in section.drawn:
            stem = f"{section.name}-{drawn.name}"
            paths = figures.save(replace(drawn, name=stem), folder)
            files = [(path.suffix[1:].upper(), f"{folder.name}/{path.name}") for path in paths]
            pictures[stem] = Picture(paths[0].read_bytes(), files)
    return pictures


def _section_json(section: Section) -> dict[str, Any]:
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


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON doesn't have: they become null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
