"""A super-resolution teacher that an SRGAN run has trained, put into the network that it teaches."""

from pathlib import Path

from ..config import Config, ConfigError
from ..runs import is_run, load_run


def teach(network, config: Config, folder: Path) -> None:
    """Load the weights that `training.teacher` names, if it names any; `folder` is the student's own run.

    Raises ConfigError when it is no run of an SRGAN generator, when its HU window isn't the student's, or when the
    student has no teacher.
    """
    run = config.training.teacher
    if not run:
        return
    if not hasattr(network, "load_teacher"):
        raise ConfigError(f"training.teacher: {config.network.name} has none; give it the option network.teacher")
    # In an experiment the teacher is another job, beside this one.
    run = folder.parent / run.removeprefix("job:") if run.startswith("job:") else run
    network.load_teacher(teacher_weights(run, config.input.window_hu))


def teacher_weights(run, window_hu=None) -> dict:
    """The generator's weights of an SRGAN run folder.

    Raises ConfigError when it is none, or when its HU window isn't `window_hu`, the student's.
    """
    if not is_run(run):
        raise ConfigError(f"training.teacher: {run} is no run folder (it has no config.json)")
    config, state = load_run(run)
    if config.network.name != "srgan_generator":
        raise ConfigError(f"training.teacher: {run} is a run of {config.network.name}, not of srgan_generator")
    if window_hu is not None and config.input.window_hu != window_hu:
        raise ConfigError(f"training.teacher: {run} has the window {config.input.window_hu} HU, not {window_hu}")
    return state
