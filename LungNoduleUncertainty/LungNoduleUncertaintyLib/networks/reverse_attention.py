"""Inf-Net and SINetV2: a partial decoder's coarse map on a Res2Net-50 encoder, refined by reverse attention.

Sources: Fan et al., Inf-Net: automatic COVID-19 lung infection segmentation from CT images (IEEE TMI 2020); Fan et al.,
Concealed object detection (IEEE TPAMI 2022), SINetV2. What they share: Liu et al., RFBNet (ECCV 2018), which SINetV2
calls texture enhanced module (TEM); Wu et al., Cascaded partial decoder (CVPR 2019), whose variant in SINetV2 is the
neighbor connection decoder (NCD). Both papers start from ImageNet weights, the code of the IFE paper from random ones.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_size
from .encoders import Res2Net50
from .feature_enhancement import Enhancements, enhancements

# For the texture enhanced features of strides 8, 16 and 32, as the IFE paper's release has it.
SINET_RATIOS: dict[str, tuple[float, ...]] = {"curvature": (0.75, 0.75, 1), "entropy": (0.75, 0.75, 1)}


def _resize(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(x, size, mode="bilinear")


def conv_norm(
    in_channels: int, out_channels: int, kernel: int | tuple[int, int] = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size, and batch norm; no activation, as both papers' releases have it."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (height // 2), dilation * (width // 2))
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, (height, width), padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ReceptiveFieldBlock(nn.Module):
    """Branches of growing kernels and dilations, fused, and a shortcut: (B, C, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(in_channels, out_channels)])
        for size in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    conv_norm(in_channels, out_channels),
                    conv_norm(out_channels, out_channels, (1, size)),
                    conv_norm(out_channels, out_channels, (size, 1)),
                    conv_norm(out_channels, out_channels, 3, dilation=size),
                )
            )
        self.fuse = conv_norm(4 * out_channels, out_channels, 3)
        self.shortcut = conv_norm(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1)) + self.shortcut(x))


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class PartialDecoder(nn.Module):
    """Three levels of features, (B, channels, h, w), (…, 2h, 2w) and (…, 4h, 4w), to one map of logits (B, 1, 4h, 4w).

    The shallow level is multiplied by what comes from the deep one directly or, with `neighbor=True` (SINetV2), from
    its refined neighbor only.
    """

    def __init__(self, channels: int, neighbor: bool):
        super().__init__()
        self.neighbor = neighbor
        self.deep_to_middle = conv_norm(channels, channels, 3)
        self.deep_to_shallow = conv_norm(channels, channels, 3)
        self.middle_to_shallow = conv_norm(channels, channels, 3)
        self.deep_joined = conv_norm(channels, channels, 3)
        self.middle_joined = conv_norm(2 * channels, 2 * channels, 3)
        self.fuse_middle = conv_norm(2 * channels, 2 * channels, 3)
        self.fuse_shallow = conv_norm(3 * channels, 3 * channels, 3)
        self.head = nn.Sequential(conv_norm(3 * channels, 3 * channels, 3), nn.Conv2d(3 * channels, 1, 1))

    def forward(self, deep: torch.Tensor, middle: torch.Tensor, shallow: torch.Tensor) -> torch.Tensor:
        up = _double(deep)
        refined = self.deep_to_middle(up) * middle
        source = _double(refined if self.neighbor else up)
        shallow = self.deep_to_shallow(source) * self.middle_to_shallow(_double(middle)) * shallow
        joined = self.fuse_middle(torch.cat([refined, self.deep_joined(up)], dim=1))
        joined = self.fuse_shallow(torch.cat([shallow, self.middle_joined(_double(joined))], dim=1))
        return self.head(joined)


class ReverseAttention(nn.Module):
    """Refine a coarse map where it sees background: features (B, C, h, w) and guide (B, 1, h, w) -> (B, 1, h, w).

    The features are weighted with 1 - sigmoid(guide), reduced, joined with the edge features (B, edge_channels, …) and
    convolved `depth` times; the result is added to the guide. Both maps are logits.
    """

    def __init__(self, in_channels: int, hidden: int, edge_channels: int, depth: int, kernel: int, head_kernel: int):
        super().__init__()
        self.reduce = conv_norm(in_channels, hidden)
        self.convolutions = nn.ModuleList(
            conv_norm(hidden + edge_channels if step == 0 else hidden, hidden, kernel) for step in range(depth)
        )
        self.head = conv_norm(hidden, 1, head_kernel)

    def forward(self, features: torch.Tensor, guide: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        x = self.reduce((1 - torch.sigmoid(guide)) * features)
        x = torch.cat([x, _resize(edge, x.shape[2:])], dim=1)
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        return self.head(x) + guide


class InfNet(Network):
    """Inf-Net. Outputs, each logits (B, 1, H, W), which the paper supervises with equal weights:

    `final` (the paper's S_3, the last refinement), `side_4` (S_4), `side_5` (S_5), `side_global` (S_g, the partial
    decoder's map) and `edge` (S_e, against the outline of the mask). Only `edge` trains its own last layer; every other
    parameter gets a gradient from `final` alone.

    `width` scales encoder and heads. The published network has 33.122 M parameters with three input channels, because
    it keeps the encoder's classifier (2,049,000 parameters), which never runs. Size: multiples of 32. In training
    32 x 32 needs a batch of two or more, because of batch norm.
    """

    PARAMETERS: ClassVar = {1: 31_072_145, 3: 31_072_721}

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.encoder = Res2Net50(in_channels, width)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        shallow, three, four, five = self.encoder.channels
        reduced = width // 2
        self.receptive = nn.ModuleList(ReceptiveFieldBlock(c, reduced) for c in (five, four, three))
        self.partial_decoder = PartialDecoder(reduced, neighbor=False)
        self.edge = nn.Sequential(conv_norm(shallow, width), conv_norm(width, width, 3), conv_norm(width, width, 3))
        self.edge_head = conv_norm(width, 1, 3)
        self.reverse = nn.ModuleList(
            [
                ReverseAttention(five, 4 * width, width, depth=3, kernel=5, head_kernel=1),
                ReverseAttention(four, width, width, depth=2, kernel=3, head_kernel=3),
                ReverseAttention(three, width, width, depth=2, kernel=3, head_kernel=3),
            ]
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        size, (shallow, *features) = x.shape[2:], self.encoder(x)
        features.reverse()  # deepest first
        edge = self.edge(shallow)
        guide = self.partial_decoder(*(block(f) for block, f in zip(self.receptive, features, strict=True)))
        maps = [guide]
        for refine, feature in zip(self.reverse, features, strict=True):
            maps.append(refine(feature, _resize(maps[-1], feature.shape[2:]), edge))
        out = dict(zip(("side_global", "side_5", "side_4", "final"), maps, strict=True))
        return {key: _resize(value, size) for key, value in {**out, "edge": self.edge_head(edge)}.items()}


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


class SINetV2(Network):
    """SINetV2: texture enhanced modules, a neighbor connection decoder and group-reversal attention (GRA).

    Outputs, each logits (B, 1, H, W), which the paper supervises with equal weights (their losses' sum): `final` (the
    paper's last map, of stage 3), `side_4`, `side_5` and `side_global` (the neighbor connection decoder's map). Every
    parameter gets a gradient from `final` alone.

    `width` scales encoder and heads; half of it must be a multiple of eight, or at most eight. The published network
    has 26.976 M parameters with three input channels, because it keeps the encoder's classifier (2,049,000 parameters),
    which never runs. Size: multiples of 32. In training 32 x 32 needs a batch of two or more, because of batch norm.
    `enhance` and its options, for the features of strides 8, 16 and 32 on their way to the reverse stages, are those of
    `feature_enhancement.enhancements`; the default ratios add 50,784 parameters.
    """

    PARAMETERS: ClassVar = {1: 24_926_066, 3: 24_926_642}

    def __init__(self, in_channels: int = 1, width: int = 64, **enhance: Any):
        super().__init__()
        reduced = width // 2
        if reduced > 8 and reduced % 8:
            raise ValueError(f"width must be at most 16 or a multiple of 16, got {width}")
        self.encoder = Res2Net50(in_channels, width)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        self.texture = nn.ModuleList(ReceptiveFieldBlock(c, reduced) for c in self.encoder.channels[:0:-1])
        self.neighbour_decoder = PartialDecoder(reduced, neighbor=True)
        self.enhance = Enhancements(list(enhancements(SINET_RATIOS, **enhance))[::-1])  # deepest first, as the textures
        extra = self.enhance.extra_channels([reduced] * len(self.enhance))
        self.reverse = nn.ModuleList(ReverseStage(reduced, more) for more in extra)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        size, deepest_first = x.shape[2:], self.encoder(x)[:0:-1]
        textures = [block(f) for block, f in zip(self.texture, deepest_first, strict=True)]
        maps = [self.neighbour_decoder(*textures)]
        for stage, place, texture in zip(self.reverse, self.enhance, textures, strict=True):
            guide = _resize(maps[-1], texture.shape[2:])
            maps.append(stage(place(texture), guide) + guide)
        out = zip(("side_global", "side_5", "side_4", "final"), maps, strict=True)
        return {key: _resize(value, size) for key, value in out}
