"""What a run trains on and what ranks its checkpoints: `data.task` of the configuration."""

from ..config import Config, ConfigError
from .single_slices import SliceBatches, SliceValidator
from .super_resolution import SuperResolutionBatches, SuperResolutionValidator
from .validation import validate
from .volumes import BatchMaker


def make_task(config: Config, training: list, validation: list, rank: int = 0, world: int = 1):
    """(batches, validator): `batches(step)` gives a `Batch`, `batches.epoch_steps` are an epoch;
    `validator(model, fabric)` gives figures, of which `score` ranks checkpoints. Raises ConfigError.
    """
    task = config.data.task
    native, stacks = config.input.through_plane == "native", config.input.slice_offsets != (0,)
    if native and stacks and (task != "volume" or config.data.net_size):
        raise ConfigError("input.through_plane native with neighboring slices is for data.task volume and net_size 0")
    if config.data.native_slices and not native:
        raise ConfigError("data.native_slices wants input.through_plane native")
    if task == "slice":
        return SliceBatches(training, config, rank, world), SliceValidator(validation, config)
    if task == "super_resolution":
        return SuperResolutionBatches(training, config, rank, world), SuperResolutionValidator(validation, config)
    return BatchMaker(training, config, rank, world), lambda model, fabric: validate(model, validation, config, fabric)
