"""The discriminators that adversarial training sets against a generator: of SRGAN, and of DSNet's soft masks."""

import torch
from torch import nn

from .blocks import NORMS


class SRGANDiscriminator(nn.Module):
    """Is an image real? (B, in_channels, H, W), H and W at least 16 -> logits (B, 1).

    Source: Ledig et al., SRGAN (CVPR 2017). Eight 3x3 convolutions, 64 to 512 channels, every second one with stride 2.
    Pooling before the two last layers, in place of the published dense ones, makes it independent of the image's size.
    5,215,425 parameters with three channels.
    """

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        if min(in_channels, width) < 1:
            raise ValueError(f"in_channels and width must be at least 1, got {in_channels} and {width}")
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = [width * 2 ** (index // 2) for index in range(8)]
        for index in range(1, 8):
            layers += [
                nn.Conv2d(channels[index - 1], channels[index], 3, stride=1 + index % 2, padding=1),
                nn.BatchNorm2d(channels[index]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(channels[-1], 2 * channels[-1]), nn.LeakyReLU(0.2, inplace=True), nn.Linear(2 * channels[-1], 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


class PixelDiscriminator(nn.Module):
    """D(x, y): image (B, C, H, W) and soft mask (B, 1, H, W), in [-1, 1], -> logits (B, 1, H, W): is this pixel real?

    The DSNet papers show its layers only in a figure. This is pix2pix's pixel discriminator (Isola et al., CVPR 2017),
    whose training both papers follow: three 1x1 convolutions, `in_channels`-64-128-1, with LeakyReLU. 8,768 parameters
    with two input channels. `kernel=3` lets it see a pixel's neighbors.
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
