"""CE-Net: a ResNet-34 encoder, dense atrous convolutions (DAC), residual multi-kernel pooling (RMP) and a decoder.

Source: Gu et al., CE-Net: context encoder network (IEEE TMI 2019). The paper starts from ImageNet weights.
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_size
from .encoders import ResNet

POOLS = (2, 3, 5, 6)  # kernels and strides of the RMP


class DenseAtrousConv(nn.Module):
    """DAC: four cascades of the same three dilated convolutions, added to the input: (B, C, H, W) -> (B, C, H, W).

    The cascades share their weights, and three of them their last 1x1 convolution.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.dilated = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (1, 3, 5))
        self.last = nn.Conv2d(channels, channels, 1)
        for layer in (*self.dilated, self.last):
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, three, five = self.dilated
        first = one(x)
        second = three(first)
        cascades = (first, self.last(three(x)), self.last(second), self.last(five(second)))
        return x + sum(torch.relu(c) for c in cascades)


class MultiKernelPooling(nn.Module):
    """RMP: maps pooled with each kernel, reduced to one channel and upsampled: (B, C, H, W) -> (B, C + 4, H, W).

    A kernel larger than the map shrinks to the map's size, which makes it a global pool on that axis. In the published
    network it doesn't: that one fails where the map has fewer than six pixels, on images below 192 x 192; from there on
    both are the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        parts = []
        for kernel in POOLS:
            pooled = functional.max_pool2d(x, (min(kernel, height), min(kernel, width)))
            parts.append(functional.interpolate(self.reduce(pooled), (height, width), mode="bilinear"))
        return torch.cat([*parts, x], dim=1)


class UpBlock(nn.Sequential):
    """Doubles the size: 1x1 to a quarter of the channels, strided 3x3 transposed, 1x1; norm and ReLU after each."""

    def __init__(self, in_channels: int, out_channels: int):
        hidden = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(hidden, hidden, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class CENet(Network):
    """CE-Net with one output, `final`: logits (B, 1, H, W).

    Size: multiples of 32, from 32 x 32 up, where the published network starts at 192 x 192 (see MultiKernelPooling). In
    training 32 x 32 needs a batch of two or more, because of batch norm.
    """

    PARAMETERS: ClassVar = {1: 28_996_821, 3: 29_003_093}

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        if width < 4:
            raise ValueError(f"width must be at least 4, got {width}")
        self.encoder = ResNet(in_channels, "resnet34", width)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        one, two, three, four = self.encoder.channels
        self.context = nn.Sequential(DenseAtrousConv(four), MultiKernelPooling(four))
        self.up = nn.ModuleList(
            [UpBlock(four + len(POOLS), three), UpBlock(three, two), UpBlock(two, one), UpBlock(one, one)]
        )
        self.head = nn.Sequential(
            nn.ConvTranspose2d(one, width // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, 1, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        *skips, x = self.encoder(x)
        x = self.context(x)
        *inner, last = self.up
        for up, skip in zip(inner, reversed(skips), strict=True):
            x = up(x) + skip
        return {"final": self.head(last(x))}
