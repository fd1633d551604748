"""SINetV2: texture enhanced modules, a neighbour connection decoder and group-reversal attention (GRA).

Source: Fan et al., Concealed object detection (IEEE TPAMI 2022). The paper starts from ImageNet weights, the code of
the IFE paper from random ones.
"""

import torch
from torch import nn
from torch.nn import functional

from .blocks import check_size
from .feature_enhancement import enhancements
from .partial_decoder import PartialDecoder, ReceptiveFieldBlock
from .res2net import Res2Net50

# For the texture enhanced features of strides 8, 16 and 32, as the IFE paper's release has it.
RATIOS = {"curvature": (0.75, 0.75, 1), "entropy": (0.75, 0.75, 1)}


class GroupReversal(nn.Module):
    """One residual GRA step: the guide is put behind each of `groups` groups of the features, then both are refined.

    Features (B, channels, h, w) and guide (B, 1, h, w) -> both again.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.refine = nn.Conv2d(channels + groups, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([part for group in x.chunk(self.groups, dim=1) for part in (group, guide)], dim=1)
        x = x + torch.relu(self.refine(joined))
        return x, guide + self.score(x)


class ReverseStage(nn.Module):
    """Three GRA steps with 1, channels / 8 and `channels` groups, which start from 1 - sigmoid(guide); -> a map.

    `extra` channels of enhanced features are brought back to `channels` by a 3x3 convolution, without norm or
    activation, before the first step.
    """

    def __init__(self, channels: int, extra: int = 0):
        super().__init__()
        self.reduce = nn.Conv2d(channels + extra, channels, 3, padding=1) if extra else nn.Identity()
        self.steps = nn.ModuleList(GroupReversal(channels, g) for g in (1, max(channels // 8, 1), channels))

    def forward(self, x: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        guide, x = 1 - torch.sigmoid(guide), self.reduce(x)
        for step in self.steps:
            x, guide = step(x, guide)
        return guide


class SINetV2(nn.Module):
    """SINetV2. Outputs, each logits (B, 1, H, W), which the paper supervises with equal weights (their losses' sum):

    `final` (the paper's last map, of stage 3), `side_4`, `side_5` and `side_global` (the neighbour connection decoder's
    map). Every parameter gets a gradient from `final` alone.

    24,926,066 parameters at width 64 and one input channel, 24,926,642 with three; `width` scales encoder and heads and
    must give width / 2 channels that groups of eight divide, or fewer than eight. The published network has 26.976 M,
    because it keeps the encoder's classifier (2,049,000 parameters), which never runs. Size: multiples of 32. In
    training 32 x 32 needs a batch of two or more, because of batch norm. `enhance` and its options, for the features of
    strides 8, 16 and 32 on their way to the reverse stages, are those of `feature_enhancement.enhancements`; the
    default ratios add 50,784 parameters.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, **enhance):
        super().__init__()
        reduced = width // 2
        if reduced > 8 and reduced % 8:
            raise ValueError(f"width must be at most 16 or a multiple of 16, got {width}")
        self.encoder = Res2Net50(in_channels, width)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        self.texture = nn.ModuleList(ReceptiveFieldBlock(c, reduced) for c in self.encoder.channels[:0:-1])
        self.neighbour_decoder = PartialDecoder(reduced, neighbour=True)
        self.enhance = enhancements(RATIOS, **enhance)[::-1]  # deepest first, as the textures
        self.reverse = nn.ModuleList(ReverseStage(reduced, place.extra_channels(reduced)) for place in self.enhance)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        size, deepest_first = x.shape[2:], self.encoder(x)[:0:-1]
        textures = [block(f) for block, f in zip(self.texture, deepest_first, strict=True)]
        maps = [self.neighbour_decoder(*textures)]
        for stage, place, texture in zip(self.reverse, self.enhance, textures, strict=True):
            guide = functional.interpolate(maps[-1], texture.shape[2:], mode="bilinear")
            maps.append(stage(place(texture), guide) + guide)
        out = zip(("side_global", "side_5", "side_4", "final"), maps, strict=True)
        return {key: functional.interpolate(value, size, mode="bilinear") for key, value in out}
