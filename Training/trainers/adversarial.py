"""Trainers with a discriminator: DSNet with soft masks (SoftGAN when nothing enlarges), and its SRGAN teacher.

Both networks see the same batch in turn: first the discriminator learns to tell real from predicted, then the network
learns, also from what the discriminator now says (DSNet v2, Eq. 18; SRGAN, Eq. 2). A part whose weight is zero isn't
computed, and without any adversarial part there is no discriminator. During the first `warmup_epochs` the network
learns its plain loss alone and the discriminator rests.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from LungNoduleUncertaintyLib.networks.discriminators import PixelDiscriminator, SRGANDiscriminator

from ..config import Config, ConfigError, DSNet, SuperResolution
from ..data.nodule import Nodule
from ..losses.dsnet import DSNetLoss, SuperResolutionLoss, discriminator_loss
from ..runs import input_channels
from ..sampling.batch import Batch
from .base import Losses, Trainer
from .optimization import make_optimizer

#: What a discriminator judges: a condition or None, the real sample, the predicted one; float32.
Samples = tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]
Outputs = dict[str, torch.Tensor]


class AdversarialTrainer(Trainer, ABC):
    """A network and its discriminator in turn. Subclasses say what the two see and which losses they have."""

    options: DSNet | SuperResolution

    def __init__(
        self,
        config: Config,
        training: Sequence[Nodule],
        validation: Sequence[Nodule],
        folder: str | Path,
        **how: Any,
    ):
        super().__init__(config, training, validation, folder, **how)
        if config.training.accumulate != 1:
            raise ConfigError("training.accumulate must be 1 for a network with a discriminator")
        self.critic: Any = None
        warmup_epochs = self.options.warmup_epochs
        self.warmup_steps = round(warmup_epochs * self.batches.epoch_steps)
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ConfigError(f"warmup_epochs {warmup_epochs}: must be fewer than training.epochs")
        discriminator = self._discriminator()
        if discriminator is not None:
            optimizer = make_optimizer(discriminator.parameters(), config.optimizer)
            self.critic, self.critic_optimizer = self.fabric.setup(discriminator, optimizer)

    @abstractmethod
    def _discriminator(self) -> torch.nn.Module | None:
        """The discriminator, None where its weight is zero."""

    @abstractmethod
    def _samples(self, batch: Batch, out: Outputs) -> Samples:
        """What the discriminator judges."""

    @abstractmethod
    def _losses(self, batch: Batch, out: Outputs, judged: torch.Tensor | None) -> Losses:
        """The network's losses with their `total`; `judged` are the discriminator's logits, None without one."""

    def _warming_up(self) -> bool:
        return self.step < self.warmup_steps

    def _counts(self) -> bool:
        """Weights that only the warm-up has shaped are no result of this loss."""
        return self.step > self.warmup_steps or not self.warmup_steps

    def _judge(self, condition: torch.Tensor | None, sample: torch.Tensor) -> torch.Tensor:
        return self.critic(sample) if condition is None else self.critic(condition, sample)

    def _more_state(self) -> dict[str, Any]:
        if self.critic is None:
            return {}
        return {"critic": self.critic.module.state_dict(), "critic_optimizer": self.critic_optimizer.state_dict()}

    def _load_more_state(self, state: dict[str, Any]) -> None:
        if self.critic is not None:
            self.critic.module.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])

    def _train_step(self) -> Losses:
        self.model.train()
        batch = self.batches(self.step).to(self.fabric.device)
        with self.fabric.autocast():
            out = self.model(batch.image.contiguous(memory_format=torch.channels_last))
        out = {key: value.float() for key, value in out.items()}
        told, judged = {}, None
        adversarial = self.critic is not None and not self._warming_up()
        if adversarial:
            self.critic.train()
            condition, real, predicted = self._samples(batch, out)
            told["discriminator"] = discriminator_loss(
                self._judge(condition, real), self._judge(condition, predicted.detach()), self.options.gan
            )
            self.fabric.backward(told["discriminator"])
            self._move(self.critic, self.critic_optimizer)
            judged = self._judge(condition, predicted)
        parts = self._losses(batch, out, judged)
        self.fabric.backward(parts["total"])
        self._move(self.model, self.optimizer)
        if adversarial:
            self.critic_optimizer.zero_grad()  # what the network's own loss left there
        self.average.update(self.model.module, self.step)
        self.step += 1
        return {**parts, **told}


class DSNetTrainer(AdversarialTrainer):
    """0.5 Dice + 100 L1 on the soft mask + the pixel discriminator's opinion; the binary mask is soft mask >= 0.5.

    During the warm-up it learns Dice alone: from random weights the L1 part soon saturates tanh at an empty mask.
    """

    options: DSNet

    def __init__(
        self, config: Config, training: Sequence[Nodule], validation: Sequence[Nodule], folder: str | Path, **how: Any
    ):
        if not config.data.soft_label:
            raise ConfigError("dsnet learns a soft label: set data.soft_label (and data.task = slice)")
        self.options = given = config.dsnet or DSNet()
        super().__init__(config, training, validation, folder, **how)
        self.dsnet_loss = DSNetLoss(given.weights, given.dice, given.scale, given.gan)
        # As heavy as the whole loss that follows: after second moments learned on gradients a hundred times smaller,
        # the first steps of Adam would be far too long.
        self.warmup_loss = DSNetLoss((max(1.0, sum(given.weights)), 0.0, 0.0), given.dice)

    def _discriminator(self) -> torch.nn.Module | None:
        if not self.options.weights[2]:
            return None
        return PixelDiscriminator(input_channels(self.config) + 1, **asdict(self.options.discriminator))

    def _samples(self, batch: Batch, out: Outputs) -> Samples:
        return 2 * batch.image - 1, 2 * batch.soft_target - 1, torch.tanh(out["soft"])

    def _losses(self, batch: Batch, out: Outputs, judged: torch.Tensor | None) -> Losses:
        loss = self.warmup_loss if self._warming_up() else self.dsnet_loss
        soft = batch.soft_target
        return loss(out, (soft >= 0.5).float(), soft, judged)


class SuperResolutionTrainer(AdversarialTrainer):
    """SRGAN's generator: a slice from itself at a quarter of the resolution (`batch.soft` is the full one)."""

    options: SuperResolution

    def __init__(
        self, config: Config, training: Sequence[Nodule], validation: Sequence[Nodule], folder: str | Path, **how: Any
    ):
        self.options = given = config.super_resolution or SuperResolution()
        super().__init__(config, training, validation, folder, **how)
        self.image_loss = SuperResolutionLoss(given.adversarial, given.variation, gan=given.gan)

    def _discriminator(self) -> torch.nn.Module | None:
        return SRGANDiscriminator(1, self.options.discriminator_width) if self.options.adversarial else None

    def _samples(self, batch: Batch, out: Outputs) -> Samples:
        return None, batch.soft_target, out["image"]

    def _losses(self, batch: Batch, out: Outputs, judged: torch.Tensor | None) -> Losses:
        return self.image_loss(out["image"], batch.soft_target, judged)
