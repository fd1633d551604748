"""Any network on a super-resolution image in place of its input: DSNet v2's comparisons marked with a dagger."""

from math import gcd

import torch
from torch import nn
from torch.nn import functional

from .blocks import check_size
from .srgan import FrozenGenerator, enlarge, middle_channel, with_image


class SuperResolutionInput(nn.Module):
    """`network` at four times the resolution of its input: (B, in_channels, H, W) -> its maps, each (B, 1, H, W).

    A frozen SRGAN generator enlarges the middle slice, interpolation the other channels; the network's logits are
    averaged over 4x4 pixels. `networks.create` builds it for every network that is given the option `teacher` (the
    generator's options) and has no teacher of its own. H and W: multiples of the network's stride over four.
    """

    def __init__(self, network: nn.Module, teacher: dict, in_channels: int = 1):
        super().__init__()
        self.network, self.in_channels = network, in_channels
        self.teacher = FrozenGenerator(**{**teacher, "in_channels": 1})
        self.scale, self.image_channel = self.teacher.scale, middle_channel(in_channels)
        self.stride = network.stride // gcd(network.stride, self.scale)

    def load_teacher(self, state: dict) -> "SuperResolutionInput":
        """Weights of a trained generator (its state dict), copied; returns self. Raises RuntimeError for another's."""
        self.teacher.load_state_dict(state)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        at = self.image_channel
        _, image = self.teacher.features_and_image(x[:, at : at + 1])
        out = self.network(with_image(enlarge(x, self.scale), image, at))
        return {key: functional.avg_pool2d(value, self.scale) for key, value in out.items()}
