"""What an experiment is: a TOML file, whose rows become training configurations, one job for each row and fold.

A definition says title, source (paper and table), kind (what the report shows of it, see `kinds`), the base
configuration, `rows` (label, network, what differs from the base, the paper's figures) or `use` (another definition's
rows), options of its kind, and `set`: what differs from the base configuration in all rows.

    >>> [row.label for row in load("table2", "tiny").rows][:2]
    ['Attention U-Net', 'UGS-Net-V1']
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from LungNoduleKit.errors import shortened, shown
from LungNoduleKit.records import read_record

from ..config import ConfigError, read_toml
from .kinds import KINDS
from .rows import PROFILES, Row, RowDefinition, make_row, profiles

FOLDER = Path(__file__).parent / "definitions"
# Base configuration of each preset; a definition that names another `base` has the preset default only.
BASES = {"default": "ugsnet", "paper": "ugsnet-paper", "released": "ugsnet-released"}


@dataclass(frozen=True)
class Options:
    """Options of a definition; which of them count depends on its kind. None: the kind's own default."""

    #: The test folds, in place of those of nodules.csv.
    folds: tuple[int, ...] | None = None
    #: images: for a set of images, which have one mask each and no readers.
    data: Literal["images"] | None = None
    #: What rows are compared by: ugsnet, dsnet or ife, the measures of these papers.
    measures: str | None = None
    #: Of the measures ife: what they are against, label1 or consensus.
    truth: str | None = None
    #: Key of the row that the others are compared with.
    reference: str | None = None
    #: For rows the key of the row that each is compared with.
    references: dict[str, str] | None = None
    #: Key of the row whose worst nodules are shown.
    baseline: str | None = None
    #: Key of the row that is shown beside the baseline.
    ours: str | None = None
    #: Key of the row that picks nodules as a control: the baseline's network with another seed.
    control: str | None = None
    #: Key of the row that the groups' differences are from.
    first: str | None = None
    #: Key of the row that is drawn, of kinds that draw one.
    row: str | None = None
    #: How many nodules are drawn.
    nodules: int | None = None
    #: How many nodules are drawn with their soft masks.
    soft_nodules: int | None = None
    #: How many of the baseline's worst nodules are drawn.
    complex_nodules: int | None = None
    #: Keys of the rows that are drawn.
    shown: tuple[str, ...] | None = None
    #: Whether there is a second table, in the forms of the released code.
    released: bool | None = None
    #: Key of the network that is compared with readers.
    network: str | None = None
    #: Of the kind complex: Dice below which a nodule counts as complex.
    thresholds: tuple[float, ...] | None = None
    #: The paper's figures that belong to no row.
    paper: dict[str, Any] | None = None
    #: Of the kind time: pixels of the input's edge.
    size: int | None = None
    #: Of the kind time: keys of the rows whose input is enlarged by four beforehand.
    enlarged: tuple[str, ...] | None = None
    #: Of the kind time: images of a pass.
    batches: tuple[int, ...] | None = None
    #: Of the kind time: rounds at most.
    repeats: int | None = None
    #: Of the kind time: after so long no further round begins.
    seconds: float | None = None


@dataclass(frozen=True)
class Use:
    """Rows of another definition."""

    #: Its name.
    experiment: str
    #: Keys of its rows.
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """A definition as its file has it."""

    title: str
    #: Paper and table or figure.
    source: str
    #: What the report shows of it; see `Training.experiments.kinds`.
    kind: str
    #: Configuration that all rows begin with (see Training/configs); none: that of the preset.
    base: str | None = None
    #: What a reader of the report has to know.
    notes: str = ""
    options: Options = field(default_factory=Options)
    #: What differs from the base configuration in all rows.
    set: dict[str, Any] = field(default_factory=dict)
    #: Rows of another definition, which come first.
    use: Use | None = None
    rows: tuple[RowDefinition, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A definition read for a profile and a preset."""

    name: str
    title: str
    source: str
    kind: str
    rows: tuple[Row, ...]
    profile: str
    preset: str
    notes: str = ""
    options: Options = field(default_factory=Options)


def available() -> list[str]:
    """Names of the shipped definitions."""
    return sorted(p.stem for p in FOLDER.glob("*.toml") if p != PROFILES)


def _path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    path = path if path.suffix else FOLDER / f"{path.name}.toml"
    if not path.is_file() or path.stem == PROFILES.stem:
        raise ConfigError(f"{name_or_path}: no such experiment; shipped ones: {', '.join(available())}")
    return path


def read_definition(path: Path) -> Definition:
    """A definition's file. Raises ConfigError that names the file and the key."""
    found = read_record(Definition, read_toml(path), str(path), ConfigError)
    if found.kind not in KINDS:
        raise ConfigError(f"{path}: wants a kind of {', '.join(KINDS)}, not {shown(found.kind)}")
    return found


def _rows(given: Definition, path: Path) -> list[RowDefinition]:
    """The definition's rows, those of another definition first."""
    rows = list(given.rows)
    if given.use:
        other = path.parent / f"{given.use.experiment}.toml"
        if not os.path.isfile(other):  # Path.is_file raises for a name that is too long
            raise ConfigError(f"{path}: use.experiment {shown(given.use.experiment)}: no such definition beside it")
        others = {row.key: row for row in read_definition(other).rows}
        missing = [key for key in given.use.rows if key not in others]
        if missing:
            raise ConfigError(f"{path}: {shortened(given.use.experiment)} has no row {shown(missing[0])}")
        rows = [others[key] for key in given.use.rows] + rows
    if not rows:
        raise ConfigError(f"{path}: has no rows")
    return rows


def load(name_or_path: str | Path, profile: str = "full", preset: str = "default") -> Experiment:
    """A shipped definition, or one in a file. Raises ConfigError that names the file and the key."""
    path = _path(name_or_path)
    known = profiles()
    if profile not in known:
        raise ConfigError(f"profile {profile!r}: no such profile; there are {', '.join(known)}")
    if preset not in BASES:
        raise ConfigError(f"preset {preset!r}: no such preset; there are {', '.join(BASES)}")
    given = read_definition(path)
    rows = _rows(given, path)
    if preset != "default" and (given.base or any(row.base for row in rows)):
        raise ConfigError(f"{path}: has its own base configuration and no preset {preset!r}")
    made = [
        make_row(row, row.base or given.base or BASES[preset], given.set, known[profile], preset, path.stem, path.name)
        for row in rows
    ]
    return Experiment(
        path.stem,
        given.title,
        given.source,
        given.kind,
        tuple(made),
        profile,
        preset,
        given.notes,
        given.options,
    )
