"""The task `slice`: batches of slice images, and what ranks checkpoints of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from lightning_fabric import Fabric

from ..config import Config, ConfigError
from ..data.nodule import Nodule
from ..metrics import dice
from .augmentation import augment
from .batch import Batch, Crops
from .sizes import checked_sizes, resized, size_of_step
from .slice_images import cut_slices, predict_slices


class SliceBatches:
    """Training batches, a function of (seed, step, rank); an epoch visits every slice once.

    With `training.sizes` crops are cut at the scan's own pixels, augmented, and resized to the size of their step, so
    that each is resized once.
    """

    def __init__(self, nodules: Sequence[Nodule], config: Config, rank: int = 0, world: int = 1):
        if config.augmentation.point_jitter_mm:
            raise ConfigError("the task slice cuts its crops once: augmentation.point_jitter_mm must be 0")
        self.config, self.rank, self.world = config, rank, world
        self.batch, self.seed = config.training.batch, config.seed
        self.sizes, self.gray = checked_sizes(config), config.training.sizes_gray
        cut_as = replace(config, data=replace(config.data, net_size=0)) if self.sizes else config
        self.slices = cut_slices(nodules, cut_as)
        self.epoch_steps = max(len(self.slices) // (self.batch * world), 1)

    def __call__(self, step: int) -> Batch:
        """The batch of a global step (0, 1, ...)."""
        epoch, within = divmod(step, self.epoch_steps)
        order = np.arange(len(self.slices))
        if self.config.data.shuffle:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(order)
        start = (within * self.world + self.rank) * self.batch
        chosen = np.take(order, range(start, start + self.batch), mode="wrap")
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        readers, valid = self.slices.readers[chosen], self.slices.valid[chosen]
        if self.config.data.first_reader == "random":
            readers = np.stack([self._another_first(m, int(v.sum()), rng) for m, v in zip(readers, valid, strict=True)])
        crops = Crops(
            torch.from_numpy(self.slices.hu[chosen]),
            torch.from_numpy(readers),
            torch.from_numpy(valid),
            torch.from_numpy(self.slices.position[chosen]),
            None if self.slices.soft is None else torch.from_numpy(self.slices.soft[chosen]),
        )
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        batch = augment(crops, self.config, self.slices.hu.shape[-1], generator)
        return resized(batch, size_of_step(self.sizes, self.seed, step), self.gray) if self.sizes else batch

    @staticmethod
    def _another_first(masks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """The valid readers in another order: which one is Label_1 is drawn anew (the later paper's wording)."""
        order = np.arange(len(masks))
        order[:count] = rng.permutation(count)
        return masks[order]


class SliceValidator:
    """Ranks checkpoints by the mean Dice of `final` against Label_1, the same for every network of a table.

    With `data.reference = "consensus"` it is that against what at least half of the readers include (DSNet's papers).
    """

    def __init__(self, nodules: Sequence[Nodule], config: Config):
        self.slices, self.config = (cut_slices(nodules, config) if nodules else None), config

    def __call__(self, model: torch.nn.Module, fabric: Fabric) -> dict[str, float]:
        """Mean Dice of final, union and intersection, as the network has them, and `score`."""
        if self.slices is None:
            raise ConfigError("there is no nodule to validate on; set data.validation_share")
        maps = predict_slices(model, self.slices, self.config, fabric)
        readers, valid = self.slices.readers > 0, self.slices.valid
        wanted = {"final": readers[:, 0]}
        if self.config.data.reference == "consensus":
            wanted["final"] = 2 * readers.sum(1) >= valid.sum(1)[:, None, None]
        wanted["union"] = np.asarray(readers.any(1))
        wanted["intersection"] = np.asarray((readers | ~valid[:, :, None, None]).all(1))
        figures = {
            key: float(np.mean([dice(p >= 0.5, t) for p, t in zip(maps[key], target, strict=True)]))
            for key, target in wanted.items()
            if key in maps
        }
        return {**figures, "score": figures["final"]}
