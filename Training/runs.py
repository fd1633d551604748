"""A training run: its network, built from its configuration; its folder, read again; the conditions of the run."""

import json
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from LungNoduleUncertaintyLib import networks

from .config import Config, ConfigError, read_config

CONFIG, WEIGHTS = "config.json", "best.safetensors"


def input_channels(config: Config) -> int:
    """Slices times HU windows, and one for the position channel."""
    return config.input.channels


def build_network(config: Config) -> torch.nn.Module:
    """The configuration's network; `in_channels` follows from the input table."""
    options = {"in_channels": input_channels(config), **config.network.options}
    if options["in_channels"] != input_channels(config):
        raise ConfigError(f"network.in_channels is {options['in_channels']}, the input has {input_channels(config)}")
    return networks.create(config.network.name, config.network.preset, **options)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(folder) / CONFIG).is_file()


def load_run(folder: str | Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """(configuration, averaged weights) of a run folder. Options that it doesn't name have their defaults."""
    path = Path(folder) / CONFIG
    config = read_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    return config, load_file(path.with_name(WEIGHTS))


def _git_commit() -> str:
    try:
        root = Path(__file__).parent
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def conditions() -> dict[str, str]:
    """Date, commit, versions and hardware, for every log and bundle."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": _git_commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
    }
