"""Nested U-Net (UNet++): every skip connection becomes a row of dense blocks.

Source: Zhou et al., UNet++ (DLMIA 2018).
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvBlock, Network, check_depth, check_size


class NestedUNet(Network):
    """Nested U-Net with one output, `final`: logits (B, 1, H, W).

    Node (i, j) stands at level i, j steps to the right of the encoder. It sees all nodes to its left and the bilinearly
    upsampled node (i + 1, j - 1). Channels are 32-64-128-256-512 for width 32.

    `deep_supervision` adds a head to each of the nodes (0, 1), (0, 2), ... and makes `final` their mean logit, so
    that the loss and the prediction see all of them (the paper's accurate mode).
    """

    PARAMETERS: ClassVar = {1: 9_162_753, 3: 9_163_329}

    def __init__(self, in_channels: int = 1, width: int = 32, levels: int = 5, deep_supervision: bool = False):
        super().__init__()
        check_depth(width, levels)
        self.in_channels, self.levels, self.stride = in_channels, levels, 2 ** (levels - 1)
        channels = [width * 2**level for level in range(levels)]
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
        self.nodes = nn.ModuleDict(
            {
                f"{level}_{step}": ConvBlock(step * channels[level] + channels[level + 1], channels[level])
                for step in range(1, levels)
                for level in range(levels - step)
            }
        )
        heads = levels - 1 if deep_supervision else 1
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(heads))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        rows = []  # rows[i][j] is node (i, j)
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            rows.append([x])
        for step in range(1, self.levels):
            for level in range(self.levels - step):
                below = functional.interpolate(
                    rows[level + 1][step - 1], scale_factor=2, mode="bilinear", align_corners=True
                )
                rows[level].append(self.nodes[f"{level}_{step}"](torch.cat([*rows[level], below], dim=1)))
        supervised = rows[0][-len(self.heads) :]
        logits = [head(node) for head, node in zip(self.heads, supervised, strict=True)]
        return {"final": sum(logits) / len(logits)}
