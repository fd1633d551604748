"""Receptive-field blocks and the partial decoder, which Inf-Net and SINetV2 share.

Sources: Liu et al., RFBNet (ECCV 2018); Wu et al., Cascaded partial decoder (CVPR 2019); Fan et al., Inf-Net (IEEE TMI
2020) and Concealed object detection (IEEE TPAMI 2022), which calls the first texture enhanced module (TEM) and its
variant of the second neighbour connection decoder (NCD).
"""

import torch
from torch import nn
from torch.nn import functional


def conv_norm(in_channels: int, out_channels: int, kernel=1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, and batch norm; no activation, as both papers' releases have it."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(dilation * (k // 2) for k in kernel)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
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


def _double(x):
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class PartialDecoder(nn.Module):
    """Three levels of features, (B, channels, h, w), (…, 2h, 2w) and (…, 4h, 4w), to one map of logits (B, 1, 4h, 4w).

    The shallow level is multiplied by what comes from the deep one directly or, with `neighbour=True` (SINetV2), from
    its refined neighbour only.
    """

    def __init__(self, channels: int, neighbour: bool):
        super().__init__()
        self.neighbour = neighbour
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
        source = _double(refined if self.neighbour else up)
        shallow = self.deep_to_shallow(source) * self.middle_to_shallow(_double(middle)) * shallow
        joined = self.fuse_middle(torch.cat([refined, self.deep_joined(up)], dim=1))
        joined = self.fuse_shallow(torch.cat([shallow, self.middle_joined(_double(joined))], dim=1))
        return self.head(joined)
