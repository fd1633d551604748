"""Which trainer a network needs: the plain one, one with a discriminator, or that of the patch classifiers."""

from ..config import PATCH_CLASSIFIERS, Config
from .adversarial import DSNetTrainer, SuperResolutionTrainer
from .base import Trainer
from .patches import PatchTrainer

TRAINERS = {
    "dsnet": DSNetTrainer,
    "srgan_generator": SuperResolutionTrainer,
    **dict.fromkeys(PATCH_CLASSIFIERS, PatchTrainer),
}


def make_trainer(config: Config, *args, **options) -> Trainer:
    """The trainer that the configuration's network needs."""
    return TRAINERS.get(config.network.name, Trainer)(config, *args, **options)
