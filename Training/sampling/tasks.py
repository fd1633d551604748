"""The tasks: what a run trains on and what ranks its checkpoints, by `data.task` of the configuration."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from lightning_fabric import Fabric

from ..config import Config, ConfigError, Task
from ..data.nodule import Nodule
from .batch import Batch
from .single_slices import SliceBatches, SliceValidator
from .super_resolution import SuperResolutionBatches, SuperResolutionValidator
from .volumes import VolumeBatches, VolumeValidator


class Batches(Protocol):
    """The batches of a run; `epoch_steps` of them are an epoch."""

    epoch_steps: int

    def __call__(self, step: int) -> Batch:
        """The batch of a global step (0, 1, ...)."""


class Validator(Protocol):
    """Figures of a network on validation nodules; `score` ranks checkpoints."""

    def __call__(self, model: torch.nn.Module, fabric: Fabric) -> dict[str, float]:
        """The figures by their names."""


class Sampling(NamedTuple):
    """A task's batches, of (nodules, config, rank, world), and its validator, of (nodules, config)."""

    batches: Callable[[Sequence[Nodule], Config, int, int], Batches]
    validator: Callable[[Sequence[Nodule], Config], Validator]


TASKS: dict[Task, Sampling] = {
    "volume": Sampling(VolumeBatches, VolumeValidator),
    "slice": Sampling(SliceBatches, SliceValidator),
    "super_resolution": Sampling(SuperResolutionBatches, SuperResolutionValidator),
}


def make_task(
    config: Config, training: Sequence[Nodule], validation: Sequence[Nodule], rank: int = 0, world: int = 1
) -> tuple[Batches, Validator]:
    """Batches of the training nodules and the validator of the others. Raises ConfigError."""
    task, native = config.data.task, config.input.through_plane == "native"
    if native and config.input.slice_offsets != (0,) and (task != "volume" or config.data.net_size):
        raise ConfigError("input.through_plane native with neighboring slices is for data.task volume and net_size 0")
    if config.data.native_slices and not native:
        raise ConfigError("data.native_slices needs input.through_plane native")
    sampling = TASKS[task]
    return sampling.batches(training, config, rank, world), sampling.validator(validation, config)
