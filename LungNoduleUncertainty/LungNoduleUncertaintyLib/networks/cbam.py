"""CBAM: attention over channels, then over pixels. Tensors are (B, C, H, W).

Source: Woo et al., CBAM: Convolutional Block Attention Module (ECCV 2018), with the released code's batch norm behind
the spatial convolution.
"""

import torch
from torch import nn

NORMS = ("batch", "instance")


def make_norm(name: str, channels: int, momentum: float = 0.1) -> nn.Module:
    """Batch norm, or instance norm with weights of its own, which batches of one sample need. Raises ValueError."""
    if name not in NORMS:
        raise ValueError(f"unknown norm {name!r}; available: {', '.join(NORMS)}")
    if name == "batch":
        return nn.BatchNorm2d(channels, momentum=momentum)
    return nn.InstanceNorm2d(channels, affine=True)


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
    """Channel attention, then spatial attention: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7, norm: str = "batch"):
        if channels < 1 or reduction < 1:
            raise ValueError(f"CBAM: channels and reduction must be at least 1, got {channels} and {reduction}")
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention(kernel, norm)
