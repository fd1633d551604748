"""FCN32s on VGG16-shaped features, in the form that the UGS-Net papers compare with and in the original form.

Sources: Long et al., Fully convolutional networks for semantic segmentation (CVPR 2015); Simonyan and Zisserman, VGG
(ICLR 2015).
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvBlock, Network, check_depth, check_size

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of VGG16's five stages, each followed by a 2x2 max-pool
_CHANNELS = (1, 2, 4, 8, 8)  # of the stages, in units of the width
VARIANTS = ("zoo", "original")


def _features(in_channels: int, width: int, stages: int, batch_norm: bool) -> nn.Sequential:
    """The first stages of VGG16: (B, in_channels, H, W) -> (B, channels, H / 2^stages, W / 2^stages)."""
    layers: list[nn.Module] = []
    last = in_channels
    for repeats, factor in list(zip(_CONVOLUTIONS, _CHANNELS, strict=True))[:stages]:
        channels = factor * width
        if batch_norm:
            layers.append(ConvBlock(last, channels, repeats=repeats))
        else:
            for step in range(repeats):
                layers += [nn.Conv2d(channels if step else last, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
        last = channels
    features = nn.Sequential(*layers)
    # Without norms, PyTorch's own initialization lets the signal fade over thirteen layers; this is VGG's.
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return features


class FCN32s(Network):
    """FCN with one output, `final`: logits (B, 1, H, W).

    variant "zoo", the default: the network that a public collection calls FCN32s and that the papers' list of baselines
    points to. It isn't one: it leaves VGG16 after the fourth stage (1/16) and climbs back by four learned transposed
    convolutions, each with ReLU, then batch norm. The public form also holds VGG's fifth stage and a fifth transposed
    convolution, whose results it discards (18.644 M parameters with three channels). `stride` is 16.
    variant "original": all five stages, two convolutions to 64 x width channels with dropout, a 1x1 classifier and
    bilinear upsampling by 32. The first of the two is 1x1 here instead of 7x7, as a 64 x 64 image leaves a 2 x 2 map.
    33,600,193 parameters with one input channel. `stride` is 32.

    `batch_norm` adds batch norms to the VGG stages, without which a high learning rate (3e-3 with Adam) can leave the
    network at a constant. Weights start at random, while the public form starts at ImageNet's.
    """

    PARAMETERS: ClassVar = {1: 11_544_641, 3: 11_545_793}

    def __init__(self, in_channels: int = 1, width: int = 64, variant: str = "zoo", batch_norm: bool = False):
        super().__init__()
        check_depth(width, len(_CHANNELS))
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; available: {', '.join(VARIANTS)}")
        self.in_channels, self.variant = in_channels, variant
        stages = 4 if variant == "zoo" else 5
        self.stride = 2**stages
        self.features = _features(in_channels, width, stages, batch_norm)
        if variant == "zoo":
            layers = []
            for a, b in ((8, 8), (8, 4), (4, 2), (2, 1)):
                layers += [
                    nn.ConvTranspose2d(a * width, b * width, 3, stride=2, padding=1, output_padding=1),
                    nn.ReLU(inplace=True),
                    nn.BatchNorm2d(b * width),
                ]
            self.head = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))
        else:
            hidden = 64 * width
            layers = []
            for channels in (8 * width, hidden):
                layers += [nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Dropout2d()]
            self.head = nn.Sequential(*layers, nn.Conv2d(hidden, 1, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        logits = self.head(self.features(x))
        if self.variant == "original":
            logits = functional.interpolate(logits, scale_factor=32, mode="bilinear", align_corners=False)
        return {"final": logits}
