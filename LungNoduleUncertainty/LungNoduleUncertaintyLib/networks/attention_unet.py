"""Attention U-Net with gates at the skips' own resolution: a baseline, and the backbone of UGS-Net."""

import torch
from torch import nn

from .blocks import AttentionGate
from .unet import UNetBackbone


class AttentionUNetBackbone(UNetBackbone):
    """Encoder and gated decoder up to the last feature map R: (B, in_channels, H, W) -> (B, width, H, W).

    Channels double at every level: 64-128-256-512-1024 for width 64 and five levels (four 2x2 max-pools). `enhance`
    holds the options of `feature_enhancement.enhancements`, for the gated skips 2 and 3.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, **enhance):
        super().__init__(in_channels, width, levels, gate=AttentionGate, enhance=enhance)


class AttentionUNet(nn.Module):
    """Attention U-Net with one output, `final`. 34,877,421 parameters at width 64 and one input channel.

    `enhance` and its options are those of the backbone.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, **enhance):
        super().__init__()
        self.backbone = AttentionUNetBackbone(in_channels, width, levels, **enhance)
        self.stride = self.backbone.stride
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": self.head(self.backbone(x))}
