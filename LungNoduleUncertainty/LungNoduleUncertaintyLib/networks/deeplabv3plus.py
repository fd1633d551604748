"""DeepLabV3+: a dilated ResNet, atrous spatial pyramid pooling (ASPP) and a decoder with low-level features.

Source: Chen et al., Encoder-decoder with atrous separable convolution (ECCV 2018), in the form that the IFE paper used:
ResNet-101 at output stride 16 with dense, not separable, 3x3 convolutions. The paper starts from ImageNet weights.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_size
from .encoders import ResNet
from .feature_enhancement import enhancements

RATES = (6, 12, 18)  # dilations of the ASPP at output stride 16
# Low-level features and ASPP output: the IFE paper names the first alone, the default of its released test.
RATIOS: dict[str, tuple[float, ...]] = {"curvature": (0.75, 0), "entropy": (0.75, 0)}


def _conv_norm_relu(in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """A 1x1 convolution, one 3x3 per dilation and the image's mean, fused: (B, C, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[int, ...] = RATES):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv_norm_relu(in_channels, out_channels),
                *(_conv_norm_relu(in_channels, out_channels, 3, rate) for rate in rates),
            ]
        )
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(in_channels, out_channels))
        self.fuse = nn.Sequential(_conv_norm_relu((len(rates) + 2) * out_channels, out_channels), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.mean(x).expand(-1, -1, *x.shape[2:])
        return self.fuse(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))


class DeepLabV3Plus(Network):
    """DeepLabV3+ with one output, `final`: logits (B, 1, H, W).

    `backbone` is resnet101, resnet50, resnet34 or resnet18. `width` scales everything: at 64 the ASPP has 256 channels
    and the low-level projection 48. Size: multiples of 16. The branch of the image's mean has one value per channel and
    image, so that batch norm can't train on a batch of one (ValueError from torch); evaluation takes any batch.
    `enhance` and its options (`feature_enhancement.enhancements`) are for the projected low-level features and the
    ASPP's output, in this order: 59,422,113 parameters with three input channels and ratios 0.75 and 0, 59,864,481 with
    0.75 twice.
    """

    PARAMETERS: ClassVar = {1: 59_332_897, 3: 59_339_169}

    def __init__(self, in_channels: int = 1, width: int = 64, backbone: str = "resnet101", **enhance: Any):
        super().__init__()
        self.encoder = ResNet(in_channels, backbone, width, output_stride=16)
        self.in_channels, self.stride = in_channels, self.encoder.stride
        hidden, low = 4 * width, max(3 * width // 4, 1)
        self.aspp = ASPP(self.encoder.channels[-1], hidden)
        self.low_level = _conv_norm_relu(self.encoder.channels[0], low)
        self.enhance = enhancements(RATIOS, **enhance)
        extra = sum(self.enhance.extra_channels([low, hidden]))
        self.decoder = nn.Sequential(
            _conv_norm_relu(hidden + low + extra, hidden, 3),
            nn.Dropout(0.5),
            _conv_norm_relu(hidden, hidden, 3),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, 1, 1),
        )
        for part in (self.aspp, self.low_level, self.decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        size, (shallow, *_, deep) = x.shape[2:], self.encoder(x)
        low, high = self.enhance[0](self.low_level(shallow)), self.enhance[1](self.aspp(deep))
        high = functional.interpolate(high, low.shape[2:], mode="bilinear", align_corners=True)
        logits = self.decoder(torch.cat([high, low], dim=1))
        return {"final": functional.interpolate(logits, size, mode="bilinear", align_corners=True)}
