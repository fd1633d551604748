"""Trainer of the patch classifiers: pixels of each slice are drawn, their patches learn what the pixel is.

CF-CNN and DB-ResNet sample voxels by their difficulty, most near the nodule's boundary; exactly how they weight them
isn't published as code, so the weights here are this project's (`pixel_weights`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from ..config import Config, ConfigError, Patch
from ..data.nodule import Nodule
from ..losses.uncertainty import mean_annotation
from ..sampling.batch import Batch
from .base import Losses, Trainer


def boundary_distance(mask: torch.Tensor) -> torch.Tensor:
    """Distance (B, H, W) in pixels of each pixel of masks (B, H, W) to the outline, half a pixel on either side of it.

    Infinite where a mask is empty or full, and so has no outline.
    """
    out = torch.full(mask.shape, float("inf"))
    for index, one in enumerate(mask.bool().cpu().numpy()):
        if one.any() and not one.all():
            # Of the two transforms one is zero at each pixel.
            out[index] = torch.from_numpy(distance_transform_edt(one) + distance_transform_edt(~one)) - 0.5
    return out


def pixel_weights(mask: torch.Tensor, options: Patch) -> torch.Tensor:
    """Relative chance (B, H, W) of each pixel within its class: floor + (1 - floor) exp(-d^2 / (2 sigma^2)).

    d is the distance to the outline; one everywhere unless `options.sampling` is `boundary`.
    """
    if options.sampling != "boundary":
        return torch.ones(mask.shape)
    near = torch.exp(-(boundary_distance(mask) ** 2) / (2 * options.boundary_px**2))
    return options.boundary_floor + (1 - options.boundary_floor) * near


def sample_pixels(mask: torch.Tensor, options: Patch, generator: torch.Generator) -> torch.Tensor:
    """`per_slice` pixels of each mask (B, H, W), rows (b, y, x) of an integer tensor (B * per_slice, 3).

    `uniform` draws from all pixels, the others exactly round(per_slice * nodule_share) inside the mask and the rest
    outside; where a mask has no pixel of a class, all come from the other. A pixel may be drawn more than once.
    """
    mask, count = mask.bool().cpu(), options.per_slice
    weights, rows = pixel_weights(mask, options), []
    for index, (one, weight) in enumerate(zip(mask.flatten(1), weights.flatten(1), strict=True)):
        inside = round(count * options.nodule_share)
        inside = 0 if not one.any() else count if one.all() else inside
        shares = [(count, weight)]
        if options.sampling != "uniform":
            shares = [(inside, weight * one), (count - inside, weight * ~one)]
        for number, weighted in shares:
            if number:
                chosen = torch.multinomial(weighted, number, replacement=True, generator=generator)
                y, x = chosen // mask.shape[2], chosen % mask.shape[2]
                rows.append(torch.stack([torch.full_like(y, index), y, x], 1))
    return torch.cat(rows)


class PatchTrainer(Trainer):
    """Learns BCE of drawn pixels against what `loss` names as target of `final`: a function of seed, step and rank."""

    def __init__(
        self, config: Config, training: Sequence[Nodule], validation: Sequence[Nodule], folder: str | Path, **how: Any
    ):
        self.options = config.patch or Patch()
        if "dice" in config.loss.fusion:
            raise ConfigError("a patch classifier learns single pixels, which have no Dice: loss.fusion must be bce")
        if config.training.accumulate != 1:
            raise ConfigError(
                "training.accumulate must be 1 for a patch classifier: patch.per_slice says how much it learns"
            )
        if self.options.per_slice < 1 or not 0 <= self.options.nodule_share <= 1:
            raise ConfigError("patch.per_slice must be at least 1 and patch.nodule_share between 0 and 1")
        super().__init__(config, training, validation, folder, **how)

    def _points(self, batch: Batch) -> torch.Tensor:
        """The pixels that this step learns; chance comes from the seed, the step and the rank alone."""
        mask = mean_annotation(batch.readers, batch.valid)[:, 0] >= 0.5
        rng = np.random.default_rng([self.config.seed, 3, self.step, self.fabric.global_rank])
        return sample_pixels(mask, self.options, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def _train_step(self) -> Losses:
        self.model.train()
        batch = self.batches(self.step)
        points = self._points(batch).to(self.fabric.device)
        batch = batch.to(self.fabric.device)
        with self.fabric.autocast():
            logits = self.model(batch.image, points)
        b, y, x = points.unbind(1)
        # Each pixel is an image of one pixel to the loss, which knows what `final` has to learn.
        logits = {key: value.float()[..., None, None] for key, value in logits.items()}
        parts = self.loss(logits, batch.readers[b, :, y, x][..., None, None], batch.valid[b])
        self.fabric.backward(parts["total"])
        self._move(self.model, self.optimizer)
        self.average.update(self.model.module, self.step)
        self.step += 1
        return parts
