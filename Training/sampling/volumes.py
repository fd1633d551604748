"""Batches of slices: drawn, cropped around a jittered point and augmented, all as a function of (seed, step, rank).

Nothing here keeps state between steps, so a resumed run sees exactly the batches of the uninterrupted one.
"""

import numpy as np
import torch

from LungNoduleUncertaintyLib.models.network_input import neighboring_slices, position_channel, slices_per_pixel

from ..config import Config
from ..data.folder import MAX_READERS, Nodule
from .augmentation import Batch, augment


class BatchMaker:
    """Cuts augmented training batches out of nodules; `epoch_steps` batches are an epoch."""

    def __init__(self, nodules: list[Nodule], config: Config, rank: int = 0, world: int = 1):
        self.nodules, self.config, self.rank, self.world = nodules, config, rank, world
        self.batch, self.seed = config.training.batch, config.seed
        extents = [np.flatnonzero(n.readers.any((0, 2, 3)))[[0, -1]] for n in nodules]
        margin = config.data.empty_margin
        ends = [self._end(n) for n in nodules]
        self.first = np.array([max(e[0] - margin, end) for e, end in zip(extents, ends, strict=True)])
        self.last = np.array(
            [min(e[1] + margin, len(n.hu) - 1 - end) for e, n, end in zip(extents, nodules, ends, strict=True)]
        )
        self.centers = np.stack([n.center() for n in nodules])
        self.share = np.array([config.data.reader_share[len(n.readers) - 2] for n in nodules])
        samples = self.share.sum() * config.data.slices_per_nodule
        self.epoch_steps = max(int(samples) // (self.batch * world), 1)

    def _end(self, nodule: Nodule) -> int:
        """How many slices at a cube's ends aren't drawn, because what they see would give away where the cube ends.

        Among a scan's own slices alone: these cubes end a few mm, not a few slices, beyond the nodule.
        """
        step = slices_per_pixel(nodule.spacing, self.config.input)
        return 0 if step == 1 else int(np.ceil(np.abs(self.config.input.slice_offsets).max() * step - 1e-3))

    def _order(self, epoch: int) -> np.ndarray:
        """Nodule indices of one epoch: every nodule `slices_per_nodule` times (its share of them), shuffled."""
        rng = np.random.default_rng([self.seed, 1, epoch])
        rounds = []
        for _ in range(self.config.data.slices_per_nodule):
            drawn = rng.permutation(len(self.nodules))
            rounds.append(drawn[rng.random(len(drawn)) < self.share[drawn]])
        return np.concatenate(rounds)

    def __call__(self, step: int) -> Batch:
        """The batch of a global step (0, 1, ...)."""
        epoch, within = divmod(step, self.epoch_steps)
        order = self._order(epoch)
        start = (within * self.world + self.rank) * self.batch
        indices = np.take(order, range(start, start + self.batch), mode="wrap")
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        data = self.config.data
        crop = data.large_crop if rng.random() < data.large_crop_share else data.crop
        stacks, readers, valid, positions = [], [], [], []
        for index in indices:
            for target, part in zip((stacks, readers, valid, positions), self._cut(index, crop, rng), strict=True):
                target.append(part)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return augment(
            torch.from_numpy(np.stack(stacks)),
            torch.from_numpy(np.stack(readers)),
            torch.from_numpy(np.stack(valid)),
            torch.from_numpy(np.stack(positions)),
            self.config,
            crop * (data.net_size or data.crop) // data.crop,
            generator,
        )

    def _cut(self, index: int, crop: int, rng):
        """One slice with its neighbours (HU), its readers' masks and its position channel, cropped to crop x crop."""
        nodule, options = self.nodules[index], self.config.augmentation
        point = self.centers[index] + rng.normal(0, 1, 3) * options.point_jitter_mm / nodule.spacing
        z = int(rng.integers(self.first[index], self.last[index] + 1))
        _, height, width = nodule.hu.shape
        # Beyond the cube the edge is repeated, as at the border of a CT in prediction.
        rows = np.clip(round(point[1]) - crop // 2 + np.arange(crop), 0, height - 1)
        columns = np.clip(round(point[2]) - crop // 2 + np.arange(crop), 0, width - 1)
        window = nodule.hu[:, rows[:, None], columns]
        hu = neighboring_slices(window, [z], nodule.spacing, self.config.input)[0].astype(np.float32)
        masks = np.zeros((MAX_READERS, crop, crop), np.float32)
        masks[: len(nodule.readers)] = nodule.readers[:, z][:, rows][:, :, columns]
        if self.config.data.first_reader == "random":
            masks[: len(nodule.readers)] = masks[rng.permutation(len(nodule.readers))]
        valid = np.arange(MAX_READERS) < len(nodule.readers)
        top_left = np.array([round(point[1]) - crop // 2, round(point[2]) - crop // 2])
        offset = (np.array([z, *top_left]) - point) * nodule.spacing
        return hu, masks, valid, position_channel((1, crop, crop), offset, nodule.spacing)
