"""Channel U-Net: a U-Net whose decoder also receives a chain of global attention upsampling (GAU) gates.

Channel-UNet (Chen et al., Frontiers in Genetics 2019) came without code. The UGS-Net papers' list of baselines is that
of a public collection, whose network of this name is this one; the original's position-mixing convolutions between
encoder and decoder are not part of it. The gate is that of the Pyramid Attention Network (Li et al., BMVC 2018).
"""

from typing import ClassVar

import torch
from torch import nn

from .blocks import ConvBlock, Network, check_depth, check_size


class GlobalAttentionUpsample(nn.Module):
    """The high-level map's global average weights the channels of the low-level map, which joins its upsampled self.

    high (B, high, H/2, W/2) and low (B, low, H, W) -> (B, low, H, W). The pooled branch has no batch norm: one value
    per channel and sample has no variance in a batch of one.
    """

    def __init__(self, high: int, low: int):
        super().__init__()
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, low, 1, bias=False), nn.ReLU(inplace=True)
        )
        self.detail = nn.Sequential(nn.Conv2d(low, low, 3, padding=1, bias=False), nn.BatchNorm2d(low))
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(high, low, kernel_size=4, stride=2, padding=1, bias=False), nn.BatchNorm2d(low)
        )

    def forward(self, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.upsample(high) + self.detail(low) * self.context(high))


class ChannelUNet(Network):
    """Channel U-Net with one output, `final`: logits (B, 1, H, W).

    Each decoder block sees the skip, the upsampled decoder and the gate, whose own input is the gate one level deeper.
    The public form also holds 1,920 parameters of batch norms that it never calls (49.154 M with three channels).
    """

    PARAMETERS: ClassVar = {1: 49_150_529, 3: 49_151_681}

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5):
        super().__init__()
        check_depth(width, levels)
        channels = [width * 2**level for level in range(levels)]
        self.in_channels, self.stride = in_channels, 2 ** (levels - 1)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
        shallow = channels[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, kernel_size=2, stride=2) for c in shallow)
        self.gate = nn.ModuleList(GlobalAttentionUpsample(2 * c, c) for c in shallow)
        self.decoder = nn.ModuleList(ConvBlock(3 * c, c) for c in shallow)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        attention = skips.pop()
        for up, gate, block in zip(self.up, self.gate, self.decoder, strict=True):
            skip = skips.pop()
            attention = gate(attention, skip)
            x = block(torch.cat([skip, up(x), attention], dim=1))
        return {"final": self.head(x)}
