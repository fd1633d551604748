"""Blocks that several networks share. Tensors are (B, C, H, W)."""

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    """[convolution + batch norm + ReLU] once or more; the spatial size is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, repeats: int = 2):
        layers = []
        for step in range(repeats):
            layers += [
                nn.Conv2d(in_channels if step == 0 else out_channels, out_channels, kernel, padding=kernel // 2),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UpConv(nn.Sequential):
    """Nearest-neighbour upsampling by two, then convolution + batch norm + ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), *ConvBlock(in_channels, out_channels, repeats=1))


class AttentionGate(nn.Module):
    """Additive attention gate on a skip connection, at the skip's own resolution.

    Oktay's first form gates at the coarser resolution; the backbone of UGS-Net gates after upsampling, so that
    gate and skip have equal size.
    """

    def __init__(self, channels: int, hidden: int | None = None):
        super().__init__()
        hidden = hidden or max(channels // 2, 1)
        self.gate = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.skip = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.weight = nn.Sequential(nn.Conv2d(hidden, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, gate: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return skip * self.weight(torch.relu(self.gate(gate) + self.skip(skip)))


def check_size(x: torch.Tensor, in_channels: int, stride: int) -> None:
    """Refuse an input whose channels or size the network can't take, before a layer fails with a riddle."""
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f"expected a tensor (B, {in_channels}, H, W), got shape {tuple(x.shape)}")
    if x.shape[2] % stride or x.shape[3] % stride:
        raise ValueError(f"height and width must be multiples of {stride}, got {x.shape[2]} x {x.shape[3]}")


def check_depth(width: int, levels: int) -> None:
    """Refuse a network without channels or without a single downsampling."""
    if width < 1 or levels < 2:
        raise ValueError(f"width must be at least 1 and levels at least 2, got width {width} and levels {levels}")
