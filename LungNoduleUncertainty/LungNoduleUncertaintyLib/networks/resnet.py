"""ResNet encoders, which DeepLabV3+ and CE-Net share.

Sources: He et al., Deep residual learning (CVPR 2016); Chen et al., DeepLabV3 (2017) for the dilated last stage with
multi-grid. At width 64 the layers have torchvision's names and shapes, so that its state dicts load with
`strict=False`, which skips its classifier. Nothing is downloaded: weights start random, where the papers start from
ImageNet's.
"""

import torch
from torch import nn

from .blocks import check_depth

MULTI_GRID = (1, 2, 4)  # factors on the dilation of the last stage's blocks


def he_initialise(network: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out for every convolution, as ResNet's authors train them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, H, W) -> (B, channels, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1, downsample=None):
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

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1, downsample=None):
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


# name -> (block, blocks per stage)
BACKBONES = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """Encoder without classifier: (B, in_channels, H, W) -> the four stages' features, at strides 4, 8, 16 and 32.

    With `output_stride=16` the last stage keeps its size and dilates by 2, times the multi-grid factor of the block.
    `channels` lists the stages' channels: width x (1, 2, 4, 8) x the block's expansion. Raises ValueError for an
    unknown name or output stride.
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
        he_initialise(self)

    @staticmethod
    def _stage(block, in_channels, channels, count, stride, dilated=False):
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
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features
