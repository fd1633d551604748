"""What a run trains on and what ranks its checkpoints: `data.protocol` of the configuration."""

from LungNoduleUncertaintyLib.models.network_input import sees_own_slices

from ..config import ConfigError
from .single_slices import SliceBatches, SliceValidator
from .super_resolution import SuperResolutionBatches, SuperResolutionValidator
from .validation import validate
from .volumes import BatchMaker


def make_protocol(config: dict, training: list, validation: list, rank: int = 0, world: int = 1):
    """(batches, validator): `batches(step)` gives a `Batch`, `batches.epoch_steps` are an epoch;
    `validator(model, fabric)` gives figures, of which `score` ranks checkpoints. Raises ConfigError.
    """
    name = config["data"]["protocol"]
    own, stacks = sees_own_slices(config["input"]), config["input"]["slice_offsets"] != [0]
    if own and stacks and (name != "volume" or config["data"]["net_size"]):
        raise ConfigError("input.through_plane own with neighbouring slices is for data.protocol volume and net_size 0")
    if config["data"]["own_slices"] and not own:
        raise ConfigError("data.own_slices wants input.through_plane own")
    if name == "slice":
        return SliceBatches(training, config, rank, world), SliceValidator(validation, config)
    if name == "super_resolution":
        return SuperResolutionBatches(training, config, rank, world), SuperResolutionValidator(validation, config)
    if name == "volume":
        return BatchMaker(training, config, rank, world), lambda model, fabric: validate(
            model, validation, config, fabric
        )
    raise ConfigError(f"data.protocol is volume, slice or super_resolution, got {name!r}")
