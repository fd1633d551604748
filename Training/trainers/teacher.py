"""A super-resolution teacher that an SRGAN run has trained, put into the network that it teaches."""

from pathlib import Path
from typing import Any

import torch

from LungNoduleKit.records import record_dict

from ..config import Config, ConfigError
from ..runs import CONFIG, is_run, load_run


def teach(network: Any, config: Config, folder: Path) -> None:
    """Load the weights that `training.teacher` names, if it names any; `folder` is the student's own run.

    Raises ConfigError when it is no run of an SRGAN generator, when its HU window isn't the student's, or when the
    student has no teacher.
    """
    named = config.training.teacher
    if not named:
        return
    if not hasattr(network, "load_teacher"):
        raise ConfigError(f"training.teacher: {config.network.name} has none; give it the option network.teacher")
    # In an experiment the teacher is another job, beside this one.
    run = folder.parent / named.removeprefix("job:") if named.startswith("job:") else Path(named)
    network.load_teacher(teacher_weights(run, config))


def teacher_weights(run: str | Path, student: Config | None = None) -> dict[str, torch.Tensor]:
    """The generator's weights of an SRGAN run folder.

    Raises ConfigError when it is none, or when its HU window isn't the student's.
    """
    if not is_run(run):
        raise ConfigError(f"training.teacher: {run} is no run folder (it has no {CONFIG})")
    config, state = load_run(run)
    if config.network.name != "srgan_generator":
        raise ConfigError(f"training.teacher: {run} is a run of {config.network.name}, not of srgan_generator")
    if student is not None and config.input.window_hu != student.input.window_hu:
        own, wanted = (record_dict(c.input)["window_hu"] for c in (config, student))
        raise ConfigError(f"training.teacher: {run} has the window {own} HU, not {wanted}")
    return state
