"""Res2Net-50 v1b, 26w x 4s: the encoder that Inf-Net and SINetV2 share.

Source: Gao et al., Res2Net (IEEE TPAMI 2021), in the authors' later form "v1b": a stem of three 3x3 convolutions and
average pooling on strided shortcuts. At width 64 the layers have the names and shapes of the authors' release, so that
its state dict loads with `strict=False`, which skips the classifier. Nothing is downloaded: weights start random.
"""

import torch
from torch import nn

from .resnet import he_initialise

BLOCKS = (3, 4, 6, 3)
SCALE = 4  # groups of channels, each convolved after the one before it has been added
BASE_WIDTH = 26  # channels of a group where a stage has 64


class Res2NetBlock(nn.Module):
    """1x1 convolution, hierarchical 3x3 convolutions on four groups of channels, 1x1 convolution, shortcut.

    (B, C, H, W) -> (B, 4 * channels, H / stride, W / stride). The fourth group passes unconvolved. In the first block
    of a stage the groups don't feed each other and the fourth is average-pooled.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, first: bool = False):
        super().__init__()
        group, out_channels = channels * BASE_WIDTH // 64, 4 * channels
        self.first = first
        self.conv1 = nn.Conv2d(in_channels, group * SCALE, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(group * SCALE)
        self.convs = nn.ModuleList(nn.Conv2d(group, group, 3, stride, padding=1, bias=False) for _ in range(SCALE - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(group) for _ in range(SCALE - 1))
        self.pool = nn.AvgPool2d(3, stride, padding=1) if first else nn.Identity()
        self.conv3 = nn.Conv2d(group * SCALE, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        *groups, last = torch.relu(self.bn1(self.conv1(x))).chunk(SCALE, dim=1)
        parts = []
        for group, convolution, norm in zip(groups, self.convs, self.bns, strict=True):
            source = group if self.first or not parts else parts[-1] + group
            parts.append(torch.relu(norm(convolution(source))))
        x = self.conv3(torch.cat([*parts, self.pool(last)], dim=1))
        return torch.relu(self.bn3(x) + shortcut)


class Res2Net50(nn.Module):
    """Encoder without classifier: (B, in_channels, H, W) -> the four stages' features, at strides 4, 8, 16 and 32.

    `channels` lists the stages' channels: 256, 512, 1024 and 2048 for width 64. H and W are multiples of 32. Raises
    ValueError for a width below 4.
    """

    stride = 32

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        if width < 4:
            raise ValueError(f"width must be at least 4, got {width}")
        half = width // 2
        self.channels = tuple(4 * width * 2**stage for stage in range(4))
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, width, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(width, width, BLOCKS[0], 1)
        self.layer2 = self._stage(self.channels[0], 2 * width, BLOCKS[1], 2)
        self.layer3 = self._stage(self.channels[1], 4 * width, BLOCKS[2], 2)
        self.layer4 = self._stage(self.channels[2], 8 * width, BLOCKS[3], 2)
        he_initialise(self)

    @staticmethod
    def _stage(in_channels, channels, count, stride):
        rest = (Res2NetBlock(4 * channels, channels) for _ in range(count - 1))
        return nn.Sequential(Res2NetBlock(in_channels, channels, stride, first=True), *rest)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features
