"""What an experiment needs: a TOML file's rows become training configurations, one job a row and fold.

A definition has `title`, `source` (paper and table), `kind` (how the report shows it), `rows` (label, network, what
differs from the base configuration, the paper's figures, its own `base` where it has another) or `use` (another
definition's rows), options of its kind, and `set`: what differs from the base configuration in all rows. Option `folds`
of any kind: the test folds that it has, in place of the five of nodules.csv.
"""

import copy
import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path

from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib import networks

from ..config import (
    Config,
    ConfigError,
    Data,
    changed,
    load_config,
    read_config,
    read_toml,
    without_other_tables,
)
from ..data.splits import SPLIT_KEYS
from .kinds import KINDS

FOLDER = Path(__file__).parent / "definitions"
# Base configuration of each preset; a definition that names another `base` has the preset default only.
BASES = {"default": "ugsnet", "paper": "ugsnet-paper", "released": "ugsnet-released"}
TEACHER_BASE = "srgan"
# Raised whenever a default changes its value or code changes a job's outcome: older results then count as not there.
JOB_FORMAT = 1


@dataclass
class Row:
    """A row of a table: `config` is complete but for the fold; `teacher` is that of the job whose weights it needs."""

    key: str
    label: str
    config: Config
    paper: dict = field(default_factory=dict)
    teacher: Config | None = None


@dataclass
class Experiment:
    """A definition read for a profile and a preset."""

    name: str
    title: str
    source: str
    kind: str
    rows: list[Row]
    profile: str
    preset: str
    notes: str = ""
    options: dict = field(default_factory=dict)


def available() -> list[str]:
    """Names of the shipped definitions."""
    return sorted(p.stem for p in FOLDER.glob("*.toml") if p.stem != "profiles")


def profiles() -> dict[str, dict]:
    """`full` and the compact ones: how much smaller the networks are, and what else differs."""
    return read_toml(FOLDER / "profiles.toml")


def _default_width(name: str) -> int:
    return inspect.signature(networks.network_class(name).__init__).parameters["width"].default


def _row_config(row: dict, base: Config, profile: dict, preset: str, source: str) -> Config:
    """The base configuration with the row's network and settings, made smaller as the profile says."""
    name = row["network"]["name"]
    # What the base sets for its own network holds for the row, too.
    kept = base.network.options if name == base.network.name else {}
    given = {"preset": "default", **kept, **row["network"]}
    if given["preset"] == "default" and preset in networks.presets(name):
        given["preset"] = preset
    given = {**profile.get("networks", {}).get(name, {}), **given}
    if profile.get("width_divisor", 1) != 1:
        given.setdefault("width", _default_width(name) // profile["width_divisor"])
    values = without_other_tables(record_dict(base), name)
    config = read_config({**values, "name": name, "network": given}, source)
    config = changed(config, without_other_tables(profile.get("set", {}), name), f"{source}: profile")
    return changed(config, row.get("set", {}), f"{source}: row {row['key']}")


def _base(name: str, shared: dict, source: str) -> Config:
    """A base configuration with what a definition sets for all of its rows; the profile and the rows come after it."""
    return changed(load_config(name), shared, f"{source}: set")


def _profile(profile: dict, base: str, experiment: str = "") -> dict:
    """A profile's settings for a base configuration: its own ones where it has them, and what an experiment adds."""
    found = copy.deepcopy({**profile, **profile.get("bases", {}).get(base, {})})
    for section, values in profile.get("experiments", {}).get(experiment, {}).get("set", {}).items():
        found.setdefault("set", {}).setdefault(section, {}).update(values)
    return found


def _row(row: dict, base: Config, size: dict, profile: dict, preset: str, source: str, shared: dict) -> Row:
    config, teacher = _row_config(row, base, size, preset, source), None
    if row.get("teacher"):
        network = {"name": "srgan_generator", **config.network.options.get("teacher", {})}
        own = {"key": "teacher", "network": network}
        sized = _profile(profile, TEACHER_BASE)
        # It sees images as its student does, and no patient that the student is tested on.
        data = {key: getattr(config.data, key) for key in SPLIT_KEYS}
        split = {key: value for key, value in data.items() if value != getattr(Data, key)}
        seen = {key: value for key, value in shared.items() if key == "input"} | ({"data": split} if split else {})
        teacher = _row_config(own, _base(TEACHER_BASE, seen, source), sized, "default", source)
        # The student builds the same generator, to which the weights are given.
        config = changed(config, {"network": {"teacher": teacher.network.options}})
    return Row(row["key"], row["label"], config, row.get("paper", {}), teacher)


def load(name_or_path, profile: str = "full", preset: str = "default") -> Experiment:
    """Read a definition. Raises ConfigError that names the file and the key."""
    path = Path(name_or_path)
    if not path.suffix:
        path = FOLDER / f"{path.name}.toml"
    if not path.is_file() or path.stem == "profiles":
        raise ConfigError(f"{name_or_path}: no such experiment; shipped ones: {', '.join(available())}")
    known = profiles()
    if profile not in known:
        raise ConfigError(f"profile {profile!r}: no such profile; there are {', '.join(known)}")
    if preset not in BASES:
        raise ConfigError(f"preset {preset!r}: no such preset; there are {', '.join(BASES)}")
    given = read_toml(path)
    missing = {"title", "source", "kind"} - set(given)
    if missing or given["kind"] not in KINDS:
        raise ConfigError(f"{path}: wants title, source and a kind of {', '.join(KINDS)}")
    rows = list(given.get("rows", []))
    if "use" in given:
        others = {row["key"]: row for row in read_toml(path.parent / f"{given['use']['experiment']}.toml")["rows"]}
        try:
            rows = [others[key] for key in given["use"]["rows"]] + rows
        except KeyError as error:
            raise ConfigError(f"{path}: {given['use']['experiment']} has no row {error}") from error
    if not rows:
        raise ConfigError(f"{path}: has no rows")
    if preset != "default" and any("base" in part for part in (given, *rows)):
        raise ConfigError(f"{path}: has its own base configuration and no preset {preset!r}")
    shared = given.get("set", {})
    made = []
    for row in rows:
        name = row.get("base", given.get("base", BASES[preset]))
        base, size = _base(name, shared, path.name), _profile(known[profile], name, path.stem)
        made.append(_row(row, base, size, known[profile], preset, path.name, shared))
    return Experiment(
        path.stem,
        given["title"],
        given["source"],
        given["kind"],
        made,
        profile,
        preset,
        given.get("notes", ""),
        given.get("options", {}),
    )


def _beyond(config: dict, defaults: dict) -> dict:
    """What of a configuration differs from the defaults."""
    out = {}
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            value = _beyond(value, defaults[key])
            if not value:
                continue
        elif key in defaults and defaults[key] == value:
            continue
        out[key] = value
    return out


def job_id(config: Config, fold: int, data_sha256: str) -> str:
    """A job's name: network, a hash of everything that its result depends on, and the fold.

    The configuration's own name isn't part of it, so rows of several tables share their jobs; neither is what equals
    the default, so an option that is added later doesn't make known results unknown.
    """
    defaults = record_dict(read_config({"network": {"name": config.network.name}}, "defaults"))
    content = _beyond(record_dict(config), {key: value for key, value in defaults.items() if key != "network"})
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
