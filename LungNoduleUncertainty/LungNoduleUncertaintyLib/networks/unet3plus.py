"""UNet 3+: every decoder level sees every encoder level above it and every deeper level.

Source: Huang et al., UNet 3+ (ICASSP 2020), without its classification-guided module.
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvBlock, Network, check_depth, check_size


class FullScaleFusion(nn.Module):
    """One decoder level: each source is brought to its size and to `width` channels, all are concatenated and fused.

    Maps a list of (B, C_i, H_i, W_i), shallowest first, to (B, width * len(sources), H, W) of level `level`: shallower
    sources are max-pooled, deeper ones upsampled bilinearly, then every one is convolved.
    """

    def __init__(self, sources: list[int], level: int, width: int):
        super().__init__()
        self.level = level
        self.reduce = nn.ModuleList(ConvBlock(c, width, repeats=1) for c in sources)
        self.fuse = ConvBlock(width * len(sources), width * len(sources), repeats=1)

    def forward(self, sources: list[torch.Tensor]) -> torch.Tensor:
        size, parts = sources[self.level].shape[2:], []
        for level, (reduce, x) in enumerate(zip(self.reduce, sources, strict=True)):
            if level < self.level:
                x = functional.max_pool2d(x, 2 ** (self.level - level))
            elif level > self.level:
                x = functional.interpolate(x, size, mode="bilinear")
            parts.append(reduce(x))
        return self.fuse(torch.cat(parts, dim=1))


class UNet3Plus(Network):
    """UNet 3+ with the output `final`: logits (B, 1, H, W).

    `deep_supervision=True` adds the paper's full-scale supervision: one 3x3 head on each deeper level, upsampled to the
    image, under the keys `side_2` to `side_5` (level 5 is the bottleneck). In training an image that leaves one
    bottleneck pixel needs a batch of two or more, because of batch norm.
    """

    PARAMETERS: ClassVar = {1: 26_970_625, 3: 26_971_777}

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, deep_supervision: bool = False):
        super().__init__()
        check_depth(width, levels)
        channels = [width * 2**level for level in range(levels)]
        self.in_channels, self.stride = in_channels, 2 ** (levels - 1)
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
        # When level k is decoded its sources are the encoder's levels up to k and the decoder's levels below it.
        fused = width * levels
        self.levels = range(levels - 2, -1, -1)  # in the order of decoding, the bottleneck left out
        self.decoder = nn.ModuleList(
            FullScaleFusion([*channels[: level + 1], *[fused] * (levels - 2 - level), channels[-1]], level, width)
            for level in self.levels
        )
        self.head = nn.Conv2d(fused, 1, 3, padding=1)
        deeper = [*[fused] * (levels - 2), channels[-1]] if deep_supervision else []
        self.side = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in deeper)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        size, features = x.shape[2:], []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        for level, fusion in zip(self.levels, self.decoder, strict=True):
            # The result takes the encoder level's place: all deeper levels are decoded already.
            features[level] = fusion(features)
        out = {"final": self.head(features[0])}
        for level, (head, x) in enumerate(zip(self.side, features[1:], strict=False), start=2):
            out[f"side_{level}"] = functional.interpolate(head(x), size, mode="bilinear")
        return out
