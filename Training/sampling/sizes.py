"""Batches of several sizes: every batch is resized to one size drawn for it (IFE 2023: 224 to 384 pixels)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ..config import Config, ConfigError
from .batch import Batch


def checked_sizes(config: Config) -> tuple[int, ...]:
    """`training.sizes`; empty: batches keep their size. Raises ConfigError for anything but positive numbers."""
    sizes = config.training.sizes
    if any(size < 1 for size in sizes):
        raise ConfigError(f"training.sizes: positive numbers of pixels are needed, got {list(sizes)}")
    return sizes


def size_of_step(sizes: Sequence[int], seed: int, step: int) -> int:
    """The size of a global step's batch: a function of (seed, step), the same for all processes of a run."""
    return int(np.random.default_rng([seed, 3, step]).choice(sizes))


def resized(batch: Batch, size: int, gray: bool = False) -> Batch:
    """The batch on size x size pixels, bilinearly. Readers' masks are made binary at 0.5 again unless `gray`."""
    if batch.image.shape[-2:] == (size, size):
        return batch

    def resize(part: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(part, (size, size), mode="bilinear", align_corners=False)

    readers = resize(batch.readers)
    readers = readers if gray else (readers >= 0.5).to(readers.dtype)
    soft = None if batch.soft is None else resize(batch.soft)
    return Batch(resize(batch.image).contiguous(), readers, batch.valid, soft)
