"""Inf-Net: a partial decoder's coarse map, refined by reverse attention under the guidance of an edge branch.

Source: Fan et al., Inf-Net: automatic COVID-19 lung infection segmentation from CT images (IEEE TMI 2020), with the
Res2Net-50 encoder of its release. The paper starts from ImageNet weights.
"""

import torch
from torch import nn
from torch.nn import functional

from .blocks import check_size
from .partial_decoder import PartialDecoder, ReceptiveFieldBlock, conv_norm
from .res2net import Res2Net50


def _resize(x, size):
    return functional.interpolate(x, size, mode="bilinear")


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


class InfNet(nn.Module):
    """Inf-Net. Outputs, each logits (B, 1, H, W), which the paper supervises with equal weights:

    `final` (the paper's S_3, the last refinement), `side_4` (S_4), `side_5` (S_5), `side_global` (S_g, the partial
    decoder's map) and `edge` (S_e, against the outline of the mask). Only `edge` trains its own last layer; every other
    parameter gets a gradient from `final` alone.

    31,072,145 parameters at width 64 and one input channel, 31,072,721 with three; `width` scales encoder and heads.
    The published network has 33.122 M, because it keeps the encoder's classifier (2,049,000 parameters), which never
    runs. Size: multiples of 32. In training 32 x 32 needs a batch of two or more, because of batch norm.
    """

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.encoder = Res2Net50(in_channels, width)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        shallow, three, four, five = self.encoder.channels
        reduced = width // 2
        self.receptive = nn.ModuleList(ReceptiveFieldBlock(c, reduced) for c in (five, four, three))
        self.partial_decoder = PartialDecoder(reduced, neighbour=False)
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
