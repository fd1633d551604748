"""Which trainer a network needs: the plain one, one with a discriminator, or that of the patch classifiers."""

from collections.abc import Sequence
from pathlib import Path

from LungNoduleUncertaintyLib import networks

from ..config import Config
from ..data.nodule import Nodule
from .adversarial import DSNetTrainer, SuperResolutionTrainer
from .base import Trainer
from .patches import PatchTrainer

#: How a network trains (`networks.training_of`) -> its trainer.
TRAINERS: dict[str, type[Trainer]] = {
    "": Trainer,
    "dsnet": DSNetTrainer,
    "super_resolution": SuperResolutionTrainer,
    "patch": PatchTrainer,
}


def make_trainer(
    config: Config,
    training: Sequence[Nodule],
    validation: Sequence[Nodule],
    folder: str | Path,
    *,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    checkpoint_seconds: float = 120.0,
) -> Trainer:
    """The trainer that the configuration's network needs; see `Trainer`."""
    kind = TRAINERS[networks.training_of(config.network.name)]
    return kind(
        config,
        training,
        validation,
        folder,
        device=device,
        devices=devices,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
    )
