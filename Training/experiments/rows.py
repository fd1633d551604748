"""A row of an experiment as training configurations: the base, the profile that makes it smaller, the row's settings.

From the configurations follow the row's jobs, whose names say what their results depend on.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LungNoduleKit.errors import shortened, shown
from LungNoduleKit.records import read_record, record_dict
from LungNoduleUncertaintyLib import networks

from ..config import (
    Config,
    ConfigError,
    Data,
    changed,
    load_config,
    merge,
    read_config,
    read_toml,
    without_other_tables,
)
from ..data.splits import SPLIT_KEYS

PROFILES = Path(__file__).parent / "definitions" / "profiles.toml"
TEACHER_BASE = "srgan"
# Raised whenever a default changes its value or code changes a job's outcome: older results then count as not there.
JOB_FORMAT = 1
Values = dict[str, Any]


@dataclass(frozen=True)
class RowDefinition:
    """A row in a definition."""

    #: Its name in options and on the command line.
    key: str
    #: Its name in tables and figures.
    label: str
    #: Name and options of its network.
    network: Values
    #: A base configuration of its own.
    base: str | None = None
    #: What differs from the base configuration.
    set: Values = field(default_factory=dict)
    #: The paper's figures.
    paper: Values = field(default_factory=dict)
    #: Whether it wants a super-resolution teacher, which is trained first.
    teacher: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table: `config` is complete but for the fold; `teacher` is that of the job whose weights it needs."""

    key: str
    label: str
    config: Config
    paper: Values = field(default_factory=dict)
    teacher: Config | None = None


@dataclass(frozen=True)
class Size:
    """How an experiment is made smaller; None is what isn't said."""

    #: Every network's width is divided by this.
    width_divisor: int | None = None
    #: Options of single networks.
    networks: dict[str, Values] | None = None
    #: What differs from the base configuration.
    set: Values | None = None


@dataclass(frozen=True)
class Addition:
    """What a profile adds to its settings for one experiment."""

    set: Values


@dataclass(frozen=True)
class Profile(Size):
    """A profile; `bases` replace what it says for single base configurations."""

    bases: dict[str, Size] = field(default_factory=dict)
    experiments: dict[str, Addition] = field(default_factory=dict)

    def size(self, base: str, experiment: str = "") -> Size:
        """What it says for a base configuration, and for an experiment with that base."""
        own = self.bases.get(base, Size())
        settings = (self.set if own.set is None else own.set) or {}
        if experiment in self.experiments:
            settings = merge(settings, self.experiments[experiment].set, f"{PROFILES.name}: {experiment}")
        return Size(
            self.width_divisor if own.width_divisor is None else own.width_divisor,
            self.networks if own.networks is None else own.networks,
            settings,
        )


def profiles() -> dict[str, Profile]:
    """`full` and the smaller ones, by name."""
    found = read_toml(PROFILES)
    return {name: read_record(Profile, values, str(PROFILES), ConfigError, name) for name, values in found.items()}


def default_width(network: str) -> int:
    """The width that a network has without the option. Raises ConfigError for an unknown network."""
    return inspect.signature(networks.network_class(network)).parameters["width"].default


def _row_config(row: RowDefinition, base: Config, size: Size, preset: str, source: str) -> Config:
    """The base configuration with the row's network and settings, made smaller as the profile says."""
    name = row.network.get("name")
    if name not in networks.available():
        known = ", ".join(networks.available())
        raise ConfigError(f"{source}: row {shortened(row.key)}: network.name {shown(name)} is none of {known}")
    # What the base sets for its own network holds for the row, too.
    kept = base.network.options if name == base.network.name else {}
    given = {"preset": "default", **kept, **row.network}
    if given["preset"] == "default" and preset in networks.presets(name):
        given["preset"] = preset
    given = {**(size.networks or {}).get(name, {}), **given}
    if size.width_divisor:
        given.setdefault("width", default_width(name) // size.width_divisor)
    values = without_other_tables(record_dict(base), name)
    config = read_config({**values, "name": name, "network": given}, f"{source}: row {row.key}")
    config = changed(config, without_other_tables(size.set or {}, name), f"{source}: profile")
    return changed(config, row.set, f"{source}: row {row.key}")


def _shared(base: str, values: Mapping[str, Any], source: str) -> Config:
    """A base configuration with what a definition sets for all of its rows; the profile and the rows come after it."""
    return changed(load_config(base), values, f"{source}: set")


def make_row(
    row: RowDefinition, base: str, shared: Values, profile: Profile, preset: str, experiment: str, source: str
) -> Row:
    """The row of an experiment with its configurations. shared: what the definition sets for all rows.

    Raises ConfigError that names the file (`source`) and the key.
    """
    config = _row_config(row, _shared(base, shared, source), profile.size(base, experiment), preset, source)
    teacher = None
    if row.teacher:
        network = {"name": "srgan_generator", **config.network.options.get("teacher", {})}
        # It sees images as its student does, and no patient that the student is tested on.
        data = {key: getattr(config.data, key) for key in SPLIT_KEYS}
        split = {key: value for key, value in data.items() if value != getattr(Data, key)}
        seen = {key: value for key, value in shared.items() if key == "input"} | ({"data": split} if split else {})
        own = RowDefinition("teacher", "teacher", network)
        teacher = _row_config(own, _shared(TEACHER_BASE, seen, source), profile.size(TEACHER_BASE), "default", source)
        # The student builds the same generator, to which the weights are given.
        config = changed(config, {"network": {"teacher": teacher.network.options}})
    return Row(row.key, row.label, config, row.paper, teacher)


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Values:
    """What of a configuration differs from the defaults."""
    out = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            value = _differing(value, defaults[key])
            if not value:
                continue
        elif key in defaults and defaults[key] == value:
            continue
        out[key] = value
    return out


def beyond_defaults(config: Config) -> Values:
    """What of a configuration differs from the defaults; its network whole."""
    defaults = record_dict(read_config({"network": {"name": config.network.name}}, "defaults"))
    return _differing(record_dict(config), {key: value for key, value in defaults.items() if key != "network"})


def job_id(config: Config, fold: int, data_sha256: str) -> str:
    """A job's name: network, a hash of everything that its result depends on, and the fold.

    The configuration's own name isn't part of it, so rows of several tables share their jobs; neither is what equals
    the default, so an option that is added later doesn't make known results unknown.
    """
    content = beyond_defaults(config)
    content.pop("name", None)
    text = json.dumps([JOB_FORMAT, content, data_sha256], sort_keys=True)
    return f"{config.network.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}-fold{fold}"


def jobs_of(row: Row, fold: int, data_sha256: str) -> list[tuple[str, Config]]:
    """(name, configuration) of a row's jobs on a fold, in the order in which they have to run; the last is its own.

    A teacher is trained on the same fold's training patients, so it hasn't seen who its student is tested on.
    """
    if row.teacher is None:
        return [(job_id(row.config, fold, data_sha256), row.config)]
    teacher = job_id(row.teacher, fold, data_sha256)
    config = changed(row.config, {"training": {"teacher": f"job:{teacher}"}})
    return [(teacher, row.teacher), (job_id(config, fold, data_sha256), config)]
