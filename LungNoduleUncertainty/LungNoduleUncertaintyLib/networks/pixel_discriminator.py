"""The discriminator that judges a soft mask pixel by pixel, given the image."""

import torch
from torch import nn

from .cbam import NORMS


class PixelDiscriminator(nn.Module):
    """D(x, y): image (B, C, H, W) and soft mask (B, 1, H, W), in [-1, 1], -> logits (B, 1, H, W): is this pixel real?

    The DSNet papers show its layers only in a figure. This is pix2pix's pixel discriminator (Isola et al., CVPR 2017),
    whose training both papers follow: three 1x1 convolutions, `in_channels`-64-128-1, with LeakyReLU. 8,768 parameters
    with two input channels. `kernel=3` lets it see a pixel's neighbours.
    """

    def __init__(self, in_channels: int = 2, width: int = 64, kernel: int = 1, norm: str = "batch"):
        super().__init__()
        if min(in_channels, width) < 1 or kernel not in (1, 3) or norm not in NORMS:
            raise ValueError(
                "pixel discriminator: in_channels and width at least 1, kernel 1 or 3, "
                f"norm {' or '.join(NORMS)}; got {in_channels}, {width}, {kernel} and {norm!r}"
            )
        bias, pad = norm == "instance", kernel // 2  # batch norm brings its own
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel, padding=pad),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, kernel, padding=pad, bias=bias),
            nn.InstanceNorm2d(2 * width) if norm == "instance" else nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 1, kernel, padding=pad, bias=bias),
        )

    def forward(self, image: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([image, soft], dim=1))
