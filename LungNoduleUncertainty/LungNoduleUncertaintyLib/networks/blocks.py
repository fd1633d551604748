"""What all networks are (`Network`) and blocks that several of them share. Tensors are (B, C, H, W)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

NORMS = ("batch", "instance")


class Network(nn.Module):
    """A network of the registry: `forward` maps (B, in_channels, H, W) to a dict of logits, each (B, 1, H, W).

    A subclass sets `in_channels` and `stride` (H and W must be multiples of it) and refuses other inputs by
    `check_size`. Options named `in_channels` and `width` (channels of the first level) mean the same everywhere.
    """

    # Name -> options. `default` is always there; `paper` and `released` where a paper or its code differ from it.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    # Input channels -> parameters of the default configuration; a comment says where a paper counts otherwise.
    PARAMETERS: ClassVar[Mapping[int, int]] = {}

    in_channels: int
    stride: int


class ConvBlock(nn.Sequential):
    """[convolution + batch norm + ReLU] once or more; the spatial size is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, repeats: int = 2):
        layers: list[nn.Module] = []
        for step in range(repeats):
            layers += [
                nn.Conv2d(in_channels if step == 0 else out_channels, out_channels, kernel, padding=kernel // 2),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UpConv(nn.Sequential):
    """Nearest-neighbor upsampling by two, then convolution + batch norm + ReLU."""

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


class ChannelAttention(nn.Module):
    """Weights of the channels: sigmoid(MLP(mean over pixels) + MLP(maximum over pixels)), one MLP for both.

    The MLP's hidden layer has `channels / reduction` units, at least one.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, 1, 1) in [0, 1]."""
        weights = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return weights[:, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights(x)


class SpatialAttention(nn.Module):
    """Weights of the pixels: sigmoid(norm(7x7 convolution of [maximum over channels, mean over channels]))."""

    def __init__(self, kernel: int = 7, norm: str = "batch"):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = make_norm(norm, 1, momentum=0.01)  # the released code's

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 1, H, W) in [0, 1]."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.norm(self.conv(pooled)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights(x)


class CBAM(nn.Sequential):
    """Channel attention, then spatial attention: (B, C, H, W) -> (B, C, H, W).

    Source: Woo et al., CBAM: Convolutional Block Attention Module (ECCV 2018), with the released code's batch norm
    behind the spatial convolution.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7, norm: str = "batch"):
        if channels < 1 or reduction < 1:
            raise ValueError(f"CBAM: channels and reduction must be at least 1, got {channels} and {reduction}")
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention(kernel, norm)


def make_norm(name: str, channels: int, momentum: float = 0.1) -> nn.Module:
    """Batch norm, or instance norm with weights of its own, which batches of one sample need. Raises ValueError."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}; available: {', '.join(NORMS)}")
    if name == "batch":
        return nn.BatchNorm2d(channels, momentum=momentum)
    return nn.InstanceNorm2d(channels, affine=True)


def check_channels(x: torch.Tensor, in_channels: int) -> None:
    """Refuse an input that isn't (B, in_channels, H, W) with a ValueError that says so."""
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f"expected a tensor (B, {in_channels}, H, W), got shape {tuple(x.shape)}")


def check_size(x: torch.Tensor, in_channels: int, stride: int) -> None:
    """Refuse an input whose channels or size the network can't take, with a ValueError that says which."""
    check_channels(x, in_channels)
    if x.shape[2] % stride or x.shape[3] % stride:
        raise ValueError(f"height and width must be multiples of {stride}, got {x.shape[2]} x {x.shape[3]}")


def check_depth(width: int, levels: int) -> None:
    """Refuse a network without channels or without a single downsampling. Raises ValueError."""
    if width < 1 or levels < 2:
        raise ValueError(f"width must be at least 1 and levels at least 2, got width {width} and levels {levels}")
