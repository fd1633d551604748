"""A training run: its network, built from its configuration; its folder, read again; the conditions of the run."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from LungNoduleKit.errors import shortened, shown
from LungNoduleKit.files import plain_path
from LungNoduleKit.records import read_json, read_record_file
from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks.blocks import Network

from .config import Config, ConfigError, read_config

CONFIG, WEIGHTS, SPLIT, CONDITIONS = "config.json", "best.safetensors", "split.json", "conditions.json"
LOG = "log.jsonl"


def input_channels(config: Config) -> int:
    """Slices times HU windows, and one for the position channel."""
    return config.input.channels


def build_network(config: Config) -> Network:
    """The configuration's network; `in_channels` follows from the input table. Raises ConfigError."""
    options = {"in_channels": input_channels(config), **config.network.options}
    source = config.source or config.name
    if options["in_channels"] != input_channels(config):
        given = shown(options["in_channels"])
        raise ConfigError(f"{source}: network.in_channels is {given}, the input has {input_channels(config)}")
    try:
        return networks.create(config.network.name, config.network.preset, **options)
    except ValueError as error:
        raise ConfigError(f"{source}: network {config.network.name}: {shortened(error, 400)}") from error


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(folder) / CONFIG).is_file()


def load_run(folder: str | Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """(configuration, averaged weights) of a run folder. Options that it doesn't name have their defaults.

    Raises ConfigError.
    """
    path = Path(folder) / CONFIG
    config = read_config(read_json(path, ConfigError), str(path))
    return config, load_weights(path.with_name(WEIGHTS))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file by name. Raises ConfigError if it can't be read."""
    try:
        with plain_path(path) as name:
            return load_file(name)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: it can't be read ({str(error).splitlines()[0]})") from None


def _git_commit() -> str:
    try:
        root = Path(__file__).parent
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@dataclass(frozen=True)
class SplitPart:
    """Ids of the patients, sorted, and of the nodules of a part of a split."""

    patients: tuple[str, ...] = ()
    nodules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """What a run was fitted to, and what chose its best weights: `split.json`."""

    training: SplitPart
    validation: SplitPart


def read_split(folder: str | Path) -> Split:
    """The split of a run folder. Raises ConfigError that names the file and the key."""
    return read_record_file(Split, Path(folder) / SPLIT, ConfigError)


def patients_of(folder: str | Path, *parts: str) -> set[str]:
    """The patients of these parts (`training`, `validation`) of a run's split."""
    split = read_split(folder)
    return {patient for part in parts for patient in getattr(split, part).patients}


@dataclass(frozen=True)
class Conditions:
    """Date, commit, versions and hardware, for every log and bundle; precision and processor where times matter."""

    date: str = ""
    commit: str = ""
    torch: str = ""
    numpy: str = ""
    python: str = ""
    device: str = ""
    precision: str | None = None
    processor: str | None = None


def conditions() -> Conditions:
    """Those of now."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return Conditions(
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        commit=_git_commit(),
        torch=torch.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
        device=device,
    )


def read_conditions(folder: str | Path) -> Conditions:
    """The conditions that a run folder was made under. Raises ConfigError that names the file and the key."""
    return read_record_file(Conditions, Path(folder) / CONDITIONS, ConfigError)
