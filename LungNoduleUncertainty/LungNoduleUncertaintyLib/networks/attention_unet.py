"""Attention U-Net with gates at the skips' own resolution: a baseline, and the backbone of UGS-Net."""

import torch
from torch import nn

from .blocks import AttentionGate, ConvBlock, UpConv, check_size


class AttentionUNetBackbone(nn.Module):
    """Encoder and gated decoder up to the last feature map R: (B, in_channels, H, W) -> (B, width, H, W).

    Channels double at every level: 64-128-256-512-1024 for width 64 and five levels (four 2x2 max-pools).
    """

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5):
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        channels = [width * 2**level for level in range(levels)]
        self.in_channels, self.width, self.stride = in_channels, width, 2 ** (levels - 1)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
        shallow = channels[-2::-1]
        self.up = nn.ModuleList(UpConv(2 * c, c) for c in shallow)
        self.gate = nn.ModuleList(AttentionGate(c) for c in shallow)
        self.decoder = nn.ModuleList(ConvBlock(2 * c, c) for c in shallow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, self.in_channels, self.stride)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, gate, block in zip(self.up, self.gate, self.decoder, strict=True):
            x = up(x)
            x = block(torch.cat([gate(x, skips.pop()), x], dim=1))
        return x


class AttentionUNet(nn.Module):
    """Attention U-Net with one output, `final`. 34,877,421 parameters at width 64 and one input channel."""

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5):
        super().__init__()
        self.backbone = AttentionUNetBackbone(in_channels, width, levels)
        self.stride = self.backbone.stride
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": self.head(self.backbone(x))}
