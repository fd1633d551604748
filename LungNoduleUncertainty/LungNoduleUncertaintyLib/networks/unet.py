"""U-Net, and the encoder-decoder that its recurrent relatives fill with other blocks.

Source: Ronneberger et al., U-Net (MICCAI 2015), in the padded form with batch norm that UGS-Net was compared with.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .blocks import ConvBlock, UpConv, check_depth, check_size
from .feature_enhancement import skip_enhancements

# Name of an upsampling -> layer built from (channels in, channels out), which doubles height and width.
UPSAMPLINGS = {"nearest": UpConv, "transposed": partial(nn.ConvTranspose2d, kernel_size=2, stride=2)}


class UNetBackbone(nn.Module):
    """Encoder and decoder up to the last feature map: (B, in_channels, H, W) -> (B, width, H, W).

    Channels double at every level: 64-128-256-512-1024 for width 64 and five levels (four 2x2 max-pools). `block` and
    `up` build a layer from (channels in, channels out). `gate` builds one from the channels of a skip connection, which
    maps (upsampled, skip) to the skip that is concatenated. The skip comes before the upsampled half. `enhance` holds
    the options of `feature_enhancement.enhancements`: copies of channels join skips 2 and 3, behind their gates, right
    before the decoder merges them.
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        levels: int = 5,
        block: Callable[[int, int], nn.Module] = ConvBlock,
        up: Callable[[int, int], nn.Module] = UpConv,
        gate: Callable[[int], nn.Module] | None = None,
        enhance: dict | None = None,
    ):
        super().__init__()
        check_depth(width, levels)
        channels = [width * 2**level for level in range(levels)]
        self.in_channels, self.width, self.stride = in_channels, width, 2 ** (levels - 1)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(block(a, b) for a, b in zip([in_channels, *channels], channels, strict=False))
        shallow = channels[-2::-1]
        self.up = nn.ModuleList(up(2 * c, c) for c in shallow)
        self.gate = nn.ModuleList(gate(c) for c in shallow) if gate else None
        self.enhance = skip_enhancements(levels - 1, **(enhance or {}))
        extra = [place.extra_channels(c) for place, c in zip(self.enhance, channels, strict=False)][::-1]
        self.decoder = nn.ModuleList(block(2 * c + more, c) for c, more in zip(shallow, extra, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, self.in_channels, self.stride)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for level, (up, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x, skip = up(x), skips.pop()
            if self.gate is not None:
                skip = self.gate[level](x, skip)
            x = block(torch.cat([self.enhance[len(skips)](skip), x], dim=1))
        return x


class UNet(nn.Module):
    """U-Net with one output, `final`: logits (B, 1, H, W).

    `up="nearest"` upsamples by repetition, then convolves: 34,525,889 parameters at width 64 and one input channel,
    34,527,041 with three. `up="transposed"` uses 2x2 transposed convolutions without norm, as other public
    collections of baselines do: 31,042,369 and 31,043,521. `enhance` and its options, for skips 2 and 3, are those of
    `feature_enhancement.enhancements`; with three channels, transposed and ratios 0.75 and 0.5: 31,449,025.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, up: str = "nearest", **enhance):
        super().__init__()
        if up not in UPSAMPLINGS:
            raise ValueError(f"unknown upsampling {up!r}; available: {', '.join(sorted(UPSAMPLINGS))}")
        self.backbone = UNetBackbone(in_channels, width, levels, up=UPSAMPLINGS[up], enhance=enhance)
        self.stride = self.backbone.stride
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": self.head(self.backbone(x))}
