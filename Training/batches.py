"""Batches of slices: drawn, cropped around a jittered point and augmented, all as a function of (seed, step, rank).

Nothing here keeps state between steps, so a resumed run sees exactly the batches of the uninterrupted one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from LungNoduleUncertaintyLib.network_input import normalize_hu, position_channel

from .folder_dataset import MAX_READERS, Nodule


@dataclass
class Batch:
    """image (B, C, H, W); readers (B, 4, H, W) in [0, 1]; valid (B, 4) bool: which readers exist."""

    image: torch.Tensor
    readers: torch.Tensor
    valid: torch.Tensor

    def to(self, device):
        return Batch(self.image.to(device), self.readers.to(device), self.valid.to(device))


class BatchMaker:
    """Cuts augmented training batches out of nodules; `epoch_steps` batches are an epoch."""

    def __init__(self, nodules: list[Nodule], config: dict, rank: int = 0, world: int = 1):
        self.nodules, self.config, self.rank, self.world = nodules, config, rank, world
        self.batch, self.seed = config["training"]["batch"], config["seed"]
        extents = [np.flatnonzero(n.readers.any((0, 2, 3)))[[0, -1]] for n in nodules]
        margin = config["data"]["empty_margin"]
        self.first = np.array([max(e[0] - margin, 0) for e in extents])
        self.last = np.array([min(e[1] + margin, len(n.hu) - 1) for e, n in zip(extents, nodules, strict=True)])
        self.centers = np.stack([n.center() for n in nodules])
        self.share = np.array([config["data"]["reader_share"][len(n.readers) - 2] for n in nodules])
        samples = self.share.sum() * config["data"]["slices_per_nodule"]
        self.epoch_steps = max(int(samples) // (self.batch * world), 1)

    def _order(self, epoch: int) -> np.ndarray:
        """Nodule indices of one epoch: every nodule `slices_per_nodule` times (its share of them), shuffled."""
        rng = np.random.default_rng([self.seed, 1, epoch])
        rounds = []
        for _ in range(self.config["data"]["slices_per_nodule"]):
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
        data = self.config["data"]
        crop = data["large_crop"] if rng.random() < data["large_crop_share"] else data["crop"]
        stacks, readers, valid, positions = [], [], [], []
        for index in indices:
            for target, part in zip((stacks, readers, valid, positions), self._cut(index, crop, rng), strict=True):
                target.append(part)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return self._augment(
            torch.from_numpy(np.stack(stacks)),
            torch.from_numpy(np.stack(readers)),
            torch.from_numpy(np.stack(valid)),
            torch.from_numpy(np.stack(positions)),
            generator,
        )

    def _cut(self, index: int, crop: int, rng):
        """One slice with its neighbours (HU), its readers' masks and its position channel, cropped to crop x crop."""
        nodule, options = self.nodules[index], self.config["augmentation"]
        point = self.centers[index] + rng.normal(0, 1, 3) * options["point_jitter_mm"] / nodule.spacing
        z = int(rng.integers(self.first[index], self.last[index] + 1))
        depth, height, width = nodule.hu.shape
        # Beyond the cube the edge is repeated, as at the border of a CT in prediction.
        rows = np.clip(round(point[1]) - crop // 2 + np.arange(crop), 0, height - 1)
        columns = np.clip(round(point[2]) - crop // 2 + np.arange(crop), 0, width - 1)
        slices = np.clip(z + np.array(self.config["input"]["slice_offsets"]), 0, depth - 1)
        hu = nodule.hu[np.ix_(slices, rows, columns)].astype(np.float32)
        masks = np.zeros((MAX_READERS, crop, crop), np.float32)
        masks[: len(nodule.readers)] = nodule.readers[:, z][:, rows][:, :, columns]
        valid = np.arange(MAX_READERS) < len(nodule.readers)
        top_left = np.array([round(point[1]) - crop // 2, round(point[2]) - crop // 2])
        offset = (np.array([z, *top_left]) - point) * nodule.spacing
        return hu, masks, valid, position_channel((1, crop, crop), offset, nodule.spacing)

    def _augment(self, hu, readers, valid, position, generator) -> Batch:
        options, size = self.config["augmentation"], hu.shape[-1]
        if self.config["data"]["net_size"]:
            size = size * self.config["data"]["net_size"] // self.config["data"]["crop"]
        count = len(hu)

        def uniform(low, high, *shape):
            return torch.empty(count, *shape).uniform_(low, high, generator=generator)

        if options["flip"] and torch.rand(1, generator=generator) < 0.5:
            hu = hu.flip(1)  # the stack upside down
        if options["quarter_turns"]:
            turns = int(torch.randint(4, (1,), generator=generator))
            hu, readers, position = (torch.rot90(part, turns, (2, 3)) for part in (hu, readers, position))
        if options["flip"] and torch.rand(1, generator=generator) < 0.5:
            hu, readers, position = (part.flip(3) for part in (hu, readers, position))
        moves = options["rotate_degrees"] or options["scale"] != [1.0, 1.0]
        if moves or size != hu.shape[-1]:
            angle = uniform(-1, 1) * math.radians(options["rotate_degrees"])
            low, high = (math.log(s) for s in options["scale"])
            zoom = uniform(low, high).exp()
            cosine, sine = angle.cos() / zoom, angle.sin() / zoom
            zeros = torch.zeros(count)
            matrix = torch.stack([torch.stack([cosine, -sine, zeros], -1), torch.stack([sine, cosine, zeros], -1)], 1)
            grid = functional.affine_grid(matrix, (count, 1, size, size), align_corners=False)
            stacked = functional.grid_sample(
                torch.cat([hu, readers, position], 1), grid, padding_mode="border", align_corners=False
            )
            hu, readers, position = stacked.split([hu.shape[1], MAX_READERS, 1], 1)
        if options["blur"]:
            chosen = uniform(0, 1, 1, 1, 1) < options["blur"]
            kernel = torch.tensor([0.25, 0.5, 0.25])
            soft = functional.pad(hu, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
            soft = functional.conv2d(soft, torch.outer(kernel, kernel)[None, None]).view_as(hu)
            hu = torch.where(chosen, soft, hu)
        if options["noise_hu"]:
            level = uniform(0, options["noise_hu"], 1, 1, 1)
            hu = hu + level * torch.randn(hu.shape, generator=generator)
        if options["shift_hu"]:
            hu = hu + uniform(-options["shift_hu"], options["shift_hu"], 1, 1, 1)
        image = normalize_hu(hu, self.config["input"]["window_hu"])
        if self.config["input"]["position"]:
            image = torch.cat([image, position], 1)
        return Batch(image.contiguous(), readers.contiguous(), valid)
