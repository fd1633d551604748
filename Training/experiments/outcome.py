"""What became of an experiment: `experiment.json` in its folder, which the report begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LungNoduleKit.files import write_record
from LungNoduleKit.records import read_record_file

from ..config import ConfigError
from .definition import Experiment, Options
from .jobs import DataSet, is_done
from .rows import jobs_of

FILE, JOBS = "experiment.json", "jobs"


@dataclass(frozen=True)
class RowOutcome:
    """A row of an experiment: by fold, the names of its finished jobs, and why its other jobs failed."""

    key: str
    label: str
    paper: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """An experiment as it was run, and its rows' jobs."""

    name: str
    title: str
    source: str
    kind: str
    profile: str
    preset: str
    folds: tuple[int, ...]
    notes: str
    options: Options
    command: str
    rows: tuple[RowOutcome, ...]


def read_outcome(path: Path) -> Outcome:
    """What `write_outcome` wrote. Raises ConfigError that names the file and the key."""
    return read_record_file(Outcome, path, ConfigError)


def write_outcome(
    experiment: Experiment,
    folds: Sequence[int],
    data: DataSet,
    output: Path,
    failed: Mapping[Path, str],
    command: str,
) -> None:
    """Write OUTPUT/<experiment>/experiment.json. failed: why jobs (their folders) failed."""
    rows = []
    for row in experiment.rows:
        own = {fold: output / JOBS / jobs_of(row, fold, data.sha256)[-1][0] for fold in folds}
        done = {str(fold): job.name for fold, job in own.items() if is_done(job)}
        reasons = {str(fold): failed[job] for fold, job in own.items() if job in failed}
        rows.append(RowOutcome(row.key, row.label, row.paper, done, reasons))
    outcome = Outcome(
        name=experiment.name,
        title=experiment.title,
        source=experiment.source,
        kind=experiment.kind,
        profile=experiment.profile,
        preset=experiment.preset,
        folds=tuple(folds),
        notes=experiment.notes,
        options=experiment.options,
        command=command,
        rows=tuple(rows),
    )
    folder = output / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / FILE, outcome, indent=1)


def earlier_folds(experiment: Experiment, output: Path) -> set[int]:
    """Folds that an earlier run wrote down. Raises ConfigError when it was made with another profile or preset."""
    path = output / experiment.name / FILE
    if not path.is_file():
        return set()
    found = read_outcome(path)
    if (found.profile, found.preset) != (experiment.profile, experiment.preset):
        raise ConfigError(f"{path}: is of profile {found.profile} and preset {found.preset}; give another --output")
    return set(found.folds)
