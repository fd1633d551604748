"""A study: experiments whose results were archived, as a summary (JSON), pictures (PNG) and tables of the archive.

    RESULTS/archive.parquet      every nodule's figures of all studies (see `archive`)
    RESULTS/<study>.json         experiments, conditions of their jobs, means, what was measured besides
    RESULTS/figures/<study>/<experiment>-<figure>.png

`StudyStore` reads one as the report reads a folder of jobs. The command `archive` (`archive_study`) writes one from
such a folder.
"""

import argparse
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import ConfigError, read_config
from ..experiments.kinds import KINDS
from ..experiments.rows import beyond_defaults
from .archive import RESULTS, merge_readers, read_archive, read_studies, replace_study, table_csv
from .content import Section, figure_table, make_section
from .figures import FIGURES
from .figures.drawn import Drawn, png_bytes, write_bytes
from .overview import used_jobs
from .store import JobError, JobStore, Store
from .tables.table import Cell, Head, Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StudyStore", "add_arguments", "archive_study", "available", "run"]

#: Colors of an archived picture.
COLORS = 40
#: Widest archived picture, in pixels.
WIDEST = 1400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `archive`."""
    parser.add_argument("study", metavar="STUDY", help="name of the study; one of that name is replaced")
    parser.add_argument(
        "--experiments", type=Path, required=True, metavar="DIR", help="results of `experiment` to put there"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="where to (the results of this repository)"
    )
    parser.add_argument("--title", default="", help="what the study is, in a line")
    parser.add_argument("--notes", default="", help="what a reader has to know of it")


def run(args: argparse.Namespace) -> int:
    """Put results of `experiment` into a folder of results."""
    about = {"title": args.title or args.study, "notes": args.notes}
    print(archive_study(args.study, args.experiments, args.results, {k: v for k, v in about.items() if v}))
    return 0


def available(folder: str | Path = RESULTS) -> list[str]:
    """Names of the studies in a folder of results, sorted."""
    return sorted(path.stem for path in Path(folder).glob("*.json"))


class StudyStore(Store):
    """A study of a folder of results, read as the report reads jobs; without predictions and weights.

    Raises JobError where the study isn't there or a file can't be read.
    """

    def __init__(self, study: str, folder: str | Path = RESULTS):
        self.root = Path(folder)
        path = self.root / f"{study}.json"
        if not path.is_file():
            known = ", ".join(available(folder)) or "none"
            raise JobError(f"{self.root}: has no study {study}; there are: {known}")
        self.name = study
        self.summary = self._read_json(path)
        self._tables = read_studies(folder).get(study, {}) if self.summary.get("jobs") else {}
        self._frames: dict[str, pd.DataFrame] = {}

    def experiments(self) -> list[dict[str, Any]]:
        return self.summary.get("experiments", [])

    def jobs(self) -> list[str]:
        return sorted(self.summary.get("jobs", {}))

    def done(self, job: str) -> bool:
        return job in self.summary.get("jobs", {})

    def manifest(self, job: str) -> dict[str, Any]:
        if not self.done(job):
            raise JobError(f"{self.root / self.name}.json: has no job {job}")
        return {"job": job, **self.summary["jobs"][job]}

    def scores(self, job: str) -> dict[str, np.ndarray]:
        return _columns(self._frame(job, "scores"))

    def human(self, job: str) -> dict[str, np.ndarray]:
        return _columns(self._human(job))

    def scores_csv(self, job: str) -> bytes:
        return table_csv(self._frame(job, "scores")).encode("utf-8")

    def human_csv(self, job: str) -> bytes | None:
        return table_csv(self._human(job)).encode("utf-8") if self._name(job, "readers") else None

    def predictions(self, job: str) -> dict[str, np.ndarray]:
        raise JobError(f"{self.root}: holds no predictions; {job} has to be run again")

    def recorded(self, experiment: dict[str, Any]) -> Section | None:
        """An experiment's section as it was archived, if it can't be made without predictions; else None."""
        kind = KINDS.get(experiment.get("kind", ""), KINDS["table"])
        shown = experiment.get("shown")
        if not kind.predictions or shown is None:
            return None
        return _section(experiment, shown, self.root / "figures" / self.name)

    def sections(self) -> list[Section]:
        """What was measured besides experiments."""
        return [_section(s, s, self.root / "figures" / self.name) for s in self.summary.get("sections", [])]

    def _name(self, job: str, role: str) -> str | None:
        if job not in self._tables:
            raise JobError(f"{self.root}: the archive has no figures of {job}")
        return self._tables[job][role]

    def _frame(self, job: str, role: str) -> "pd.DataFrame":
        name = self._name(job, role)
        if name is None:
            raise JobError(f"{self.root}: the archive has no {role} of {job}")
        if not self._frames:
            frame = read_archive(self.name, self.root)
            self._frames = {str(key): part.drop(columns="table") for key, part in frame.groupby("table")}
        return self._frames[name].dropna(axis="columns", how="all")

    def _human(self, job: str) -> "pd.DataFrame":
        """The readers' figures on the nodules of a job, in its order."""
        scores = self._frame(job, "scores")
        human = self._frame(job, "readers").set_index("nodule_id").loc[scores["nodule_id"]].reset_index()
        human.insert(2, "fold", scores["fold"].to_numpy())
        return human


def _columns(frame: "pd.DataFrame") -> dict[str, np.ndarray]:
    """{column: (N,) array}: float64, or str with empty texts for what is absent."""
    found = {}
    for name in frame.columns:
        values = frame[name]
        number = values.dtype.kind in "fiu" and not name.endswith("_id")
        found[name] = values.to_numpy(np.float64, na_value=np.nan) if number else values.fillna("").to_numpy(str)
    return found


def _section(about: dict[str, Any], shown: dict[str, Any], folder: Path) -> Section:
    name, kind = about["name"], KINDS.get(about.get("kind", ""), KINDS["table"])
    section = Section(name, about.get("title") or name, about.get("source", ""), about.get("notes", ""), kind)
    section.sentences = list(shown.get("sentences", []))
    section.problems = list(shown.get("problems", []))
    section.tables = [_table(table, section.name) for table in shown.get("tables", [])]
    for figure in shown.get("figures", []):
        path = folder / f"{section.name}-{figure['name']}.png"
        picture = path.read_bytes() if path.is_file() else None
        section.add(Drawn(figure["name"], figure["title"], figure["caption"], picture, figure.get("data")))
        if picture is None:
            section.drawn.pop()
            section.problems.append(f"{figure['title']}: the picture isn't kept; the experiment draws it again.")
    return section


def _table(content: dict[str, Any], section: str) -> Table:
    """A table with its cells as they were; or one of records alone, shown as it is."""
    if "cells" not in content:
        name = f"{section}-{content['name']}"
        return figure_table(name, content["title"], content["rows"], content.get("caption", ""))
    heads = [[Head(**head) for head in line] for line in content["heads"]]
    rows = [(kind, [Cell(**cell) for cell in cells]) for kind, cells in content["cells"]]
    records = content["rows"]
    return Table(content["name"], content["title"], content["caption"], heads, rows, records, content["folded"])


def archive_study(
    study: str, experiments: str | Path, folder: str | Path = RESULTS, about: dict[str, Any] | None = None
) -> Path:
    """Put an output folder of `experiment` into a folder of results, in place of a study of that name.

    about: title, notes, commands, data, date and commit, as far as given, for the head of the summary. Returns the
    summary's path. Raises JobError where a result can't be read, OutputError.
    """
    store, folder = JobStore(experiments), Path(folder)
    found = store.experiments()
    if not found:
        raise JobError(f"{store.root}: holds no experiment (a folder with experiment.json)")
    sections = [make_section(store, experiment, FIGURES) for experiment in found]
    pictures = {
        f"{section.name}-{drawn.name}": _small(png_bytes(drawn)) for section in sections for drawn in section.drawn
    }
    jobs = used_jobs(store, found)
    scores = {job: _frame(store.scores(job)) for job in jobs}
    human = {job: _frame(store.human(job)) for job in jobs if store.human_csv(job) is not None}
    readers, places = merge_readers(human)
    known = {job: {"scores": job, "readers": places.get(job)} for job in jobs}
    replace_study(study, {**scores, **readers}, known, folder)
    content = {
        **(about or {}),
        "experiments": [{**e, "shown": shown(s)} for e, s in zip(found, sections, strict=True)],
        "jobs": {job: job_record(store.manifest(job)) for job in jobs},
    }
    for name, picture in pictures.items():
        write_bytes(folder / "figures" / study / f"{name}.png", picture)
    return write_summary(folder / f"{study}.json", content)


def _frame(columns: dict[str, np.ndarray]) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame(columns)
    return frame.mask(frame.isin([""]))


def shown(section: Section) -> dict[str, Any]:
    """What a section says, for the summary: records of its tables, and the cells of those that need predictions."""
    figures = [{"name": d.name, "title": d.title, "caption": d.caption, "data": d.data} for d in section.drawn]
    own = {name for d in section.drawn for name in section.numbers(d)}
    said = [sentence for d in section.drawn for sentence in (d.data or {}).get("sentences", [])]
    tables = []
    for table in section.tables:
        if table.name not in own:
            content: dict[str, Any] = {"name": table.name, "title": table.title}
            if not section.kind.predictions:  # made again from the archive; here for who reads the summary alone
                content["rows"] = [_short(record) for record in table.records]
            else:
                content |= {
                    "caption": table.caption,
                    "rows": table.records,
                    "heads": [[dataclasses.asdict(head) for head in line] for line in table.heads],
                    "cells": [[kind, [dataclasses.asdict(cell) for cell in cells]] for kind, cells in table.rows],
                    "folded": table.folded,
                }
            tables.append(content)
    own_sentences = [sentence for sentence in section.sentences if sentence not in said]
    parts = {"sentences": own_sentences, "problems": section.problems, "tables": tables, "figures": figures}
    return {key: value for key, value in parts.items() if value}


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what is absent, its numbers with six significant digits."""
    return {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in record.items()
        if value not in (None, "") and value == value
    }


def job_record(manifest: dict[str, Any]) -> dict[str, Any]:
    """A job's manifest for the summary; of its configuration what differs from the defaults, seed and epochs."""
    config = manifest.get("config") or {}
    try:
        small = beyond_defaults(read_config(config, f"manifest of {manifest.get('job')}"))
    except ConfigError:  # of another version: it is kept as it is
        small = dict(config)
    small.pop("name", None)
    small["seed"] = config.get("seed")
    if "training" in config:
        small["training"] = {**small.get("training", {}), "epochs": config["training"].get("epochs")}
    return {key: value for key, value in manifest.items() if key != "job"} | {"config": small}


def write_summary(path: Path, content: dict[str, Any]) -> Path:
    """Write a study's summary: JSON with a line a record, numbers of what was shown with ten significant digits."""
    write_bytes(path, (_lines(content) + "\n").encode("utf-8"))
    return path


def _lines(value: Any, depth: int = 0, rounded: bool = False) -> str:
    """JSON in which a dict or list stands on one line where it is short or holds plain values only."""
    plain = _plain(value, rounded)
    flat = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    nested = isinstance(value, dict | list) and any(isinstance(item, dict | list) for item in _items(value))
    if len(flat) < 100 or not nested:
        return flat
    pad, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {_lines(item, depth + 1, rounded or key == 'shown')}"
            for key, item in value.items()
        ]
        return "{" + pad + ("," + pad).join(parts) + end + "}"
    return "[" + pad + ("," + pad).join(_lines(item, depth + 1, rounded) for item in value) + end + "]"


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value)


def _plain(value: Any, rounded: bool) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, rounded or key == "shown") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, rounded) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.10g}") if rounded else value
    return value


def _small(png: bytes) -> bytes:
    """A picture with few colors, no wider than `WIDEST`."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    few = picture.quantize(COLORS, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()
