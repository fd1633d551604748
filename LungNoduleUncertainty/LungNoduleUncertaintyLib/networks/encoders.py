"""Encoders that several networks share: ResNet (DeepLabV3+, CE-Net) and Res2Net-50 (Inf-Net, SINetV2).

Both map (B, in_channels, H, W) to the four stages' features, (B, channels[i], H / s, W / s) at strides s = 4, 8, 16 and
32. At width 64 the layers have the names and shapes of the published weights, so that a published state dict loads with
`strict=False`, which skips its classifier. Nothing is downloaded: weights start random, where the papers start from
ImageNet's.

Sources: He et al., Deep residual learning (CVPR 2016; names as in torchvision); Chen et al., DeepLabV3 (2017) for the
dilated last stage with multi-grid; Gao et al., Res2Net (IEEE TPAMI 2021), in the authors' later form "v1b": a stem of
three 3x3 convolutions and average pooling on strided shortcuts.
"""

from typing import ClassVar

import torch
from torch import nn

from .blocks import check_depth

MULTI_GRID = (1, 2, 4)  # factors on the dilation of the last stage's blocks
RES2NET_BLOCKS = (3, 4, 6, 3)  # per stage
SCALE = 4  # Res2Net: groups of channels, each convolved after the one before it has been added
BASE_WIDTH = 26  # Res2Net: channels of a group where a stage has 64


def he_initialize(network: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out for every convolution, as ResNet's authors train them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, H, W) -> (B, channels, H / stride, W / stride)."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (B, C, H, W) -> (B, 4 * channels, H / stride, W / stride)."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


ResidualBlock = type[BasicBlock] | type[Bottleneck]
# name -> (block, blocks per stage)
BACKBONES: dict[str, tuple[ResidualBlock, tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """ResNet without classifier. Raises ValueError for an unknown name or output stride.

    With `output_stride=16` the last stage keeps its size and dilates by 2, times the multi-grid factor of the block.
    `channels` lists the stages' channels: width x (1, 2, 4, 8) x the block's expansion.
    """

    def __init__(self, in_channels: int, name: str, width: int = 64, output_stride: int = 32):
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone {name!r}; available: {', '.join(sorted(BACKBONES))}")
        if output_stride not in (16, 32):
            raise ValueError(f"output stride is 16 or 32, got {output_stride}")
        check_depth(width, 4)
        block, blocks = BACKBONES[name]
        self.stride = output_stride
        self.channels = tuple(width * 2**stage * block.expansion for stage in range(4))
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = (width, *self.channels)
        dilated = output_stride == 16
        self.layer1 = self._stage(block, before[0], width, blocks[0], 1)
        self.layer2 = self._stage(block, before[1], 2 * width, blocks[1], 2)
        self.layer3 = self._stage(block, before[2], 4 * width, blocks[2], 2)
        self.layer4 = self._stage(block, before[3], 8 * width, blocks[3], 1 if dilated else 2, dilated)
        he_initialize(self)

    @staticmethod
    def _stage(
        block: ResidualBlock, in_channels: int, channels: int, count: int, stride: int, dilated: bool = False
    ) -> nn.Sequential:
        layers, out_channels = [], channels * block.expansion
        for i in range(count):
            dilation = 2 * MULTI_GRID[i % len(MULTI_GRID)] if dilated else 1
            shortcut = None
            if in_channels != out_channels or stride != 1:
                shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            layers.append(block(in_channels, channels, stride, dilation, shortcut))
            in_channels, stride = out_channels, 1
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return _stages(self, x)


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
        parts: list[torch.Tensor] = []
        for group, convolution, norm in zip(groups, self.convs, self.bns, strict=True):
            source = group if self.first or not parts else parts[-1] + group
            parts.append(torch.relu(norm(convolution(source))))
        x = self.conv3(torch.cat([*parts, self.pool(last)], dim=1))
        return torch.relu(self.bn3(x) + shortcut)


class Res2Net50(nn.Module):
    """Res2Net-50 v1b, 26w x 4s, without classifier. Raises ValueError for a width below 4.

    `channels` lists the stages' channels: 256, 512, 1024 and 2048 for width 64.
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
        self.layer1 = self._stage(width, width, RES2NET_BLOCKS[0], 1)
        self.layer2 = self._stage(self.channels[0], 2 * width, RES2NET_BLOCKS[1], 2)
        self.layer3 = self._stage(self.channels[1], 4 * width, RES2NET_BLOCKS[2], 2)
        self.layer4 = self._stage(self.channels[2], 8 * width, RES2NET_BLOCKS[3], 2)
        he_initialize(self)

    @staticmethod
    def _stage(in_channels: int, channels: int, count: int, stride: int) -> nn.Sequential:
        rest = (Res2NetBlock(4 * channels, channels) for _ in range(count - 1))
        return nn.Sequential(Res2NetBlock(in_channels, channels, stride, first=True), *rest)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return _stages(self, x)


def _stages(encoder: ResNet | Res2Net50, x: torch.Tensor) -> list[torch.Tensor]:
    """The four stages' features of an image."""
    x = encoder.maxpool(torch.relu(encoder.bn1(encoder.conv1(x))))
    features = []
    for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        x = stage(x)
        features.append(x)
    return features
