"""The jobs and experiments that were run, read from their folder; figures and report reach every result through it.

    OUT/jobs/<job id>/{job.json, manifest.json, conditions.json, predictions.npz, scores.csv, human.csv, ...}
    OUT/<experiment>/experiment.json

A job is done when its ``manifest.json`` exists; what is read here is never changed.
"""

import csv
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from LungNoduleKit.errors import NoduleError, shortened, shown
from LungNoduleKit.records import parsed_json

__all__ = ["Columns", "Experiment", "JobError", "JobStore", "Manifest", "Record", "Row", "Store"]

#: How many jobs' decoded prediction arrays are kept; a fold of 200 nodules takes about 10 MB.
CACHED_PREDICTIONS = 8


#: An experiment's content, ``experiment.json``: name, kind, title, options, folds, rows ...
Experiment = dict[str, Any]
#: A row of an experiment: key, label, jobs {fold: job id}, numbers of the paper ...
Row = dict[str, Any]
#: A job's ``manifest.json``: fold, network, configuration, split, seconds ...
Manifest = dict[str, Any]
#: A row's unrounded numbers and words by column.
Record = dict[str, Any]
#: A table of nodules: {column: (N,) array}.
Columns = dict[str, np.ndarray]


class JobError(NoduleError):
    """A result of an experiment can't be read; the message is one line that names the file and the reason."""


class Store:
    """What report and figures read results from: a folder of jobs, or a study of the archive.

    Callers must not change what they get. Everything raises JobError where a file is absent or unreadable.
    """

    root: Path

    def experiments(self) -> list[Experiment]:
        """Every experiment's dict, ordered by name."""
        raise NotImplementedError

    def jobs(self) -> list[str]:
        """Ids of every finished job, sorted, whether or not an experiment names it."""
        raise NotImplementedError

    def done(self, job: str) -> bool:
        """Whether the job has finished."""
        raise NotImplementedError

    def manifest(self, job: str) -> Manifest:
        """The job's manifest."""
        raise NotImplementedError

    def scores(self, job: str) -> Columns:
        """scores.csv as {column: (N,) array}: float64 with NaN for empty cells, or str (ids and other words)."""
        raise NotImplementedError

    def human(self, job: str) -> Columns:
        """human.csv, as ``scores``: one reader against the others."""
        raise NotImplementedError

    def scores_csv(self, job: str) -> bytes:
        """scores.csv as a file's content."""
        raise NotImplementedError

    def human_csv(self, job: str) -> bytes | None:
        """human.csv as a file's content; None for a job without readers (super-resolution)."""
        raise NotImplementedError

    def predictions(self, job: str) -> dict[str, np.ndarray]:
        """Arrays of predictions.npz as {name: array} (N nodules, grid (H, W))."""
        raise NotImplementedError

    def recorded(self, experiment: Experiment) -> Any:
        """The section of an experiment as it was archived, for a store without predictions; else None."""
        return None

    def row_jobs(self, row: Row) -> dict[int, str]:
        """The finished jobs of an experiment's row: {fold (int): job id}, ordered by fold."""
        jobs = {}
        named = row.get("jobs") or {}
        if not isinstance(named, dict):
            raise JobError(f"{self.root}: row {shown(row.get('key'))}: jobs is not a table")
        for fold, job in named.items():
            try:
                number = int(fold)
            except ValueError:
                raise JobError(
                    f"{self.root}: row {shown(row.get('key'))} has a fold {shown(fold)} that is no number"
                ) from None
            if job and self.done(job):
                jobs[number] = job
        return dict(sorted(jobs.items()))

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            content = parsed_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise JobError(f"{path}: {_reason(error)}") from None
        if not isinstance(content, dict):
            raise JobError(f"{path}: not a JSON object")
        return content


class JobStore(Store):
    """Reads results under ``folder``, the output folder of ``python -m Training experiment``.

    Everything read once is kept (predictions: of the last ``CACHED_PREDICTIONS`` jobs).
    """

    def __init__(self, folder: str | Path):
        self.root = Path(folder)
        if not self.root.is_dir():
            raise JobError(f"{self.root}: no such folder")
        self._json: dict[Path, dict[str, Any]] = {}
        self._tables: dict[Path, dict[str, np.ndarray]] = {}
        self._arrays: OrderedDict[Path, dict[str, np.ndarray]] = OrderedDict()

    def folder(self, job: str) -> Path:
        """The folder of a job; JobError for a name that is none (it may come from a file that someone edited)."""
        name = str(job)
        if not name or name != Path(name).name or name in {".", ".."}:
            raise JobError(f"{shown(name)}: not a job's name")
        return self.root / "jobs" / name

    def experiments(self) -> list[Experiment]:
        """Every experiment's dict, ordered by folder name; ``name`` is set from the folder where it is missing."""
        found = []
        for path in sorted(self.root.glob("*/experiment.json")):
            experiment = self._read_json(path)
            rows = experiment.get("rows", [])
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise JobError(f"{path}: rows is not a list of tables")
            odd = [row["key"] for row in rows if not isinstance(row.get("key", ""), str)]
            if odd:
                raise JobError(f"{path}: a row's key is {shown(odd[0])}, no text")
            experiment.setdefault("name", path.parent.name)
            experiment.setdefault("rows", [])
            found.append(experiment)
        return found

    def jobs(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob("jobs/*/manifest.json"))

    def done(self, job: str) -> bool:
        return (self.folder(job) / "manifest.json").is_file()

    def manifest(self, job: str) -> Manifest:
        return self._read_json(self.folder(job) / "manifest.json")

    def json(self, job: str, name: str) -> dict[str, Any]:
        """Another JSON file of the job, such as ``conditions.json`` or ``split.json``."""
        return self._read_json(self.folder(job) / name)

    def beside(self, experiment: str, name: str) -> dict[str, Any]:
        """A JSON file of an experiment's own folder, such as ``timing.json``."""
        return self._read_json(self.root / experiment / name)

    def scores(self, job: str) -> Columns:
        return self._read_table(self.folder(job) / "scores.csv")

    def human(self, job: str) -> Columns:
        return self._read_table(self.folder(job) / "human.csv")

    def predictions(self, job: str) -> dict[str, np.ndarray]:
        path = self.folder(job) / "predictions.npz"
        if path in self._arrays:
            self._arrays.move_to_end(path)
            return self._arrays[path]
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except Exception as error:  # zipfile, zlib, OSError, ValueError: all mean that the file is not usable
            raise JobError(f"{path}: {_reason(error)}") from None
        self._arrays[path] = arrays
        while len(self._arrays) > CACHED_PREDICTIONS:
            self._arrays.popitem(last=False)
        return arrays

    def scores_csv(self, job: str) -> bytes:
        return _bytes(self.folder(job) / "scores.csv")

    def human_csv(self, job: str) -> bytes | None:
        path = self.folder(job) / "human.csv"
        return _bytes(path) if path.is_file() else None

    def _read_json(self, path: Path) -> dict[str, Any]:
        if path not in self._json:
            self._json[path] = super()._read_json(path)
        return self._json[path]

    def _read_table(self, path: Path) -> Columns:
        if path not in self._tables:
            try:
                with path.open(newline="", encoding="utf-8") as stream:
                    header, *lines = list(csv.reader(stream)) or [[]]
            except (OSError, ValueError, csv.Error) as error:
                raise JobError(f"{path}: {_reason(error)}") from None
            if "nodule_id" not in header:
                raise JobError(f"{path}: has no column nodule_id")
            odd = [name for name in header if not name.strip() or not name.isprintable() or header.count(name) > 1]
            if odd:
                raise JobError(f"{path}: column {shown(odd[0])} has no name or stands there twice")
            for number, line in enumerate(lines, start=2):
                if len(line) != len(header):
                    raise JobError(f"{path}: line {number} has {len(line)} cells, the header {len(header)}")
            columns = zip(*lines, strict=True) if lines else [()] * len(header)
            self._tables[path] = {name: _column(name, cells) for name, cells in zip(header, columns, strict=True)}
        return self._tables[path]


def _column(name: str, cells: Sequence[str]) -> np.ndarray:
    """Cells of a column as float64 (empty -> NaN), or as str where one is a word; ids always stay str."""
    if not name.endswith("_id"):
        try:
            return np.array([float(cell) if cell.strip() else np.nan for cell in cells], np.float64)
        except ValueError:
            pass
    return np.array(cells, dtype=str)


def _reason(error: Exception) -> str:
    """The error's own words on one line, without the path that the caller names already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(" ".join(text.split()), 200) or type(error).__name__


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: {_reason(error)}") from None
