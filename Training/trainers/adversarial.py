"""Trainers with a discriminator: DSNet with soft masks (SoftGAN when nothing enlarges), and its SRGAN teacher.

Both networks see the same batch in turn: first the discriminator learns to tell real from predicted, then the network
learns, also from what the discriminator now says (DSNet v2, Eq. 18; SRGAN, Eq. 2). A part whose weight is zero isn't
computed, and without any adversarial part there is no discriminator. During the first `warmup_epochs` the network
learns its plain loss alone and the discriminator rests.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict

import torch

from LungNoduleUncertaintyLib.networks.discriminators import PixelDiscriminator, SRGANDiscriminator

from ..config import ConfigError, DSNet, SuperResolution
from ..losses.dsnet import DSNetLoss, SuperResolutionLoss, discriminator_loss
from ..runs import input_channels
from .base import Trainer
from .optimization import make_optimizer


class AdversarialTrainer(Trainer, ABC):
    """A network and its discriminator in turn. Subclasses say what the two see and which losses they have."""

    def __init__(self, config, training, validation, folder, **options):
        super().__init__(config, training, validation, folder, **options)
        if config.training.accumulate != 1:
            raise ConfigError("training.accumulate must be 1 for a network with a discriminator")
        self.critic = None
        self.warmup_steps = round(self._warmup_epochs() * self.batches.epoch_steps)
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ConfigError(f"warmup_epochs {self._warmup_epochs()}: must be fewer than training.epochs")
        discriminator = self._discriminator()
        if discriminator is not None:
            optimizer = make_optimizer(discriminator.parameters(), config.optimizer)
            self.critic, self.critic_optimizer = self.fabric.setup(discriminator, optimizer)

    @abstractmethod
    def _warmup_epochs(self) -> float:
        """Epochs without the discriminator at the start."""

    @abstractmethod
    def _discriminator(self) -> torch.nn.Module | None:
        """The discriminator, None where its weight is zero."""

    @abstractmethod
    def _samples(self, batch, out) -> tuple:
        """(condition or None, real, predicted) that the discriminator judges, float32."""

    @abstractmethod
    def _losses(self, batch, out, judged) -> dict:
        """The network's losses with their `total`; `judged` are the discriminator's logits, None without one."""

    def _warming_up(self) -> bool:
        return self.step < self.warmup_steps

    def _counts(self):
        """Weights that only the warm-up has shaped are no result of this loss."""
        return self.step > self.warmup_steps or not self.warmup_steps

    @abstractmethod
    def _gan(self) -> str:
        """The form of the adversarial loss."""

    def _judge(self, condition, sample):
        return self.critic(sample) if condition is None else self.critic(condition, sample)

    def _more_state(self) -> dict:
        if self.critic is None:
            return {}
        return {"critic": self.critic.module.state_dict(), "critic_optimizer": self.critic_optimizer.state_dict()}

    def _load_more_state(self, state: dict) -> None:
        if self.critic is not None:
            self.critic.module.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])

    def _train_step(self) -> dict:
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
                self._judge(condition, real), self._judge(condition, predicted.detach()), self._gan()
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

    def __init__(self, config, training, validation, folder, **options):
        if not config.data.soft_label:
            raise ConfigError("dsnet learns a soft label: set data.soft_label (and data.task = slice)")
        self.options = given = config.dsnet or DSNet()
        super().__init__(config, training, validation, folder, **options)
        self.dsnet_loss = DSNetLoss(given.weights, given.dice, given.scale, given.gan)
        # As heavy as the whole loss that follows: after second moments learnt on gradients a hundred times smaller, the
        # first steps of Adam would be far too long.
        self.warmup_loss = DSNetLoss((max(1.0, sum(given.weights)), 0.0, 0.0), given.dice)

    def _warmup_epochs(self):
        return self.options.warmup_epochs

    def _gan(self):
        return self.options.gan

    def _discriminator(self):
        if not self.options.weights[2]:
            return None
        return PixelDiscriminator(input_channels(self.config) + 1, **asdict(self.options.discriminator))

    def _samples(self, batch, out):
        return 2 * batch.image - 1, 2 * batch.soft - 1, torch.tanh(out["soft"])

    def _losses(self, batch, out, judged):
        loss = self.warmup_loss if self._warming_up() else self.dsnet_loss
        return loss(out, (batch.soft >= 0.5).float(), batch.soft, judged)


class SuperResolutionTrainer(AdversarialTrainer):
    """SRGAN's generator: a slice from itself at a quarter of the resolution (`batch.soft` is the full one)."""

    def __init__(self, config, training, validation, folder, **options):
        self.options = given = config.super_resolution or SuperResolution()
        super().__init__(config, training, validation, folder, **options)
        self.loss = SuperResolutionLoss(given.adversarial, given.variation, gan=given.gan)

    def _warmup_epochs(self):
        return self.options.warmup_epochs

    def _gan(self):
        return self.options.gan

    def _discriminator(self):
        return SRGANDiscriminator(1, self.options.discriminator_width) if self.options.adversarial else None

    def _samples(self, batch, out):
        return None, batch.soft, out["image"]

    def _losses(self, batch, out, judged):
        return self.loss(out["image"], batch.soft, judged)
