"""Optimizers, learning-rate schedules and the moving average of weights."""

import math
from collections.abc import Iterable

import torch

from ..config import Optimizer, Schedule


def make_optimizer(parameters: Iterable[torch.nn.Parameter], options: Optimizer) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD from the configuration's `optimizer` table."""
    lr, decay = options.lr, options.weight_decay
    if options.name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=options.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=lr, betas=options.betas, weight_decay=decay)


def learning_rate_factor(options: Schedule, progress_epochs: float, total_epochs: float) -> float:
    """Factor on the initial rate after `progress_epochs` (a fraction counts the steps within an epoch).

    `cosine_restarts` is SGDR: restarts after `restart_epochs`, each period `restart_factor` times the last.
    `step` multiplies by `step_factor` every `step_epochs`, and `step_shift` epochs earlier where that is set (IFE's
    released code counts epochs from one, so its drop comes after 49).
    """
    if options.name == "cosine_restarts":
        period = float(options.restart_epochs)
        while progress_epochs >= period:
            progress_epochs -= period
            period *= options.restart_factor
        return 0.5 * (1 + math.cos(math.pi * progress_epochs / period))
    warmup = options.warmup_epochs
    if progress_epochs < warmup:
        return (progress_epochs + 1e-3) / warmup
    if options.name == "step":
        shifted = progress_epochs + options.step_shift
        return float(options.step_factor ** (shifted // options.step_epochs))
    share = min((progress_epochs - warmup) / max(total_epochs - warmup, 1e-9), 1.0)
    if options.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return (1 - share) ** 0.9 if options.name == "poly" else 1.0


class MovingAverage:
    """Exponential moving average of a model's parameters; buffers (batch-norm statistics) are averaged alike.

    The decay is ramped up over the first steps so that the random start is forgotten. With decay 0 the average is
    the model itself.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        """Move towards the model's weights after a step (0, 1, ...)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            if self.decay and value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)
