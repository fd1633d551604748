"""What a step learns from: crops of slices as they are cut, and the batch that they become."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Crops:
    """Crops of slices before augmentation: hu (B, S, H, W), a slice and its neighbors; readers (B, 4, H, W) in [0, 1];
    valid (B, 4) bool: which readers exist; position (B, 1, H, W), see `network_input.position_channel`; soft
    (B, 1, H, W) in [0, 1], the soft label where there is one.
    """

    hu: torch.Tensor
    readers: torch.Tensor
    valid: torch.Tensor
    position: torch.Tensor
    soft: torch.Tensor | None = None


@dataclass
class Batch:
    """image (B, C, H, W), the network's input; readers (B, 4, H, W) in [0, 1]; valid (B, 4) bool: which readers exist.

    soft: (B, 1, H, W) in [0, 1], the soft label of `data.soft_label` where there is one; of the task super_resolution
    the slices in full resolution, which then have no readers.
    """

    image: torch.Tensor
    readers: torch.Tensor
    valid: torch.Tensor
    soft: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        soft = None if self.soft is None else self.soft.to(device)
        return Batch(self.image.to(device), self.readers.to(device), self.valid.to(device), soft)

    @property
    def soft_target(self) -> torch.Tensor:
        """The soft label, for networks that learn one. Raises ValueError where there is none."""
        if self.soft is None:
            raise ValueError("the batch has no soft label")
        return self.soft
