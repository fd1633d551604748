"""U-Net, Attention U-Net, R2U-Net and R2AU-Net: one encoder-decoder with different blocks and gates.

Sources: Ronneberger et al., U-Net (MICCAI 2015), in the padded form with batch norm that UGS-Net was compared with;
Oktay et al., Attention U-Net (MIDL 2018), with gates at the skips' own resolution; Alom et al., Recurrent residual
convolutional neural network based on U-Net (2018), with two recurrences, as in the form that the UGS-Net papers
compare with.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from .blocks import AttentionGate, ConvBlock, Network, UpConv, check_depth, check_size
from .feature_enhancement import skip_enhancements

Layer = Callable[[int, int], nn.Module]  # built from (channels in, channels out)


def _transposed(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


# Name of an upsampling -> layer that doubles height and width.
UPSAMPLINGS: dict[str, Layer] = {"nearest": UpConv, "transposed": _transposed}


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
        block: Layer = ConvBlock,
        up: Layer = UpConv,
        gate: Callable[[int], nn.Module] | None = None,
        enhance: Mapping[str, Any] | None = None,
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
        extra = self.enhance.extra_channels(channels)
        self.decoder = nn.ModuleList(block(2 * c + more, c) for c, more in zip(shallow, extra[::-1], strict=True))

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


class _BackboneAndHead(Network):
    """A U-Net's backbone and a 1x1 convolution: one output, `final`, logits (B, 1, H, W)."""

    def __init__(self, backbone: UNetBackbone):
        super().__init__()
        self.backbone = backbone
        self.in_channels, self.stride = backbone.in_channels, backbone.stride
        self.head = nn.Conv2d(backbone.width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": self.head(self.backbone(x))}


class UNet(_BackboneAndHead):
    """U-Net with one output, `final`: logits (B, 1, H, W).

    `up="nearest"` upsamples by repetition, then convolves. `up="transposed"` uses 2x2 transposed convolutions without
    norm, as other public collections of baselines do: 31,042,369 parameters with one input channel, 31,043,521 with
    three. `enhance` and its options, for skips 2 and 3, are those of `feature_enhancement.enhancements`; with three
    channels, transposed and ratios 0.75 and 0.5: 31,449,025.
    """

    PARAMETERS: ClassVar = {1: 34_525_889, 3: 34_527_041}

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, up: str = "nearest", **enhance: Any):
        if up not in UPSAMPLINGS:
            raise ValueError(f"unknown upsampling {up!r}; available: {', '.join(sorted(UPSAMPLINGS))}")
        super().__init__(UNetBackbone(in_channels, width, levels, up=UPSAMPLINGS[up], enhance=enhance))


class AttentionUNetBackbone(UNetBackbone):
    """`UNetBackbone` with attention gates: (B, in_channels, H, W) -> (B, width, H, W), UGS-Net's feature map R."""

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, **enhance: Any):
        super().__init__(in_channels, width, levels, gate=AttentionGate, enhance=enhance)


class AttentionUNet(_BackboneAndHead):
    """Attention U-Net with one output, `final`: logits (B, 1, H, W). `enhance` and its options are U-Net's."""

    PARAMETERS: ClassVar = {1: 34_877_421, 3: 34_878_573}

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, **enhance: Any):
        super().__init__(AttentionUNetBackbone(in_channels, width, levels, **enhance))


class RecurrentConv(nn.Module):
    """state = f(x), then `recurrences` times state = f(x + state), f being one convolution + batch norm + ReLU.

    f is the same object every time, so its weights and its running statistics are shared by all steps. The statistics
    are an average over steps of different scale, which is why these networks can validate badly early in training.
    """

    def __init__(self, channels: int, recurrences: int = 2):
        super().__init__()
        if recurrences < 1:
            raise ValueError(f"recurrences must be at least 1, got {recurrences}")
        self.recurrences = recurrences
        self.step = ConvBlock(channels, channels, repeats=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.step(x)
        for _ in range(self.recurrences):
            state = self.step(x + state)
        return state


class RecurrentResidualBlock(nn.Module):
    """1x1 convolution to the block's width, then two recurrent convolutions around which a residual goes."""

    def __init__(self, in_channels: int, out_channels: int, recurrences: int = 2):
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.recurrent = nn.Sequential(*(RecurrentConv(out_channels, recurrences) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        return x + self.recurrent(x)


class R2UNet(_BackboneAndHead):
    """R2U-Net with one output, `final`: logits (B, 1, H, W).

    The number of recurrences changes the time, not the parameters.
    """

    PARAMETERS: ClassVar = {1: 39_091_265, 3: 39_091_393}
    _gate: Callable[[int], nn.Module] | None = None

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, recurrences: int = 2):
        block = partial(RecurrentResidualBlock, recurrences=recurrences)
        super().__init__(UNetBackbone(in_channels, width, levels, block=block, gate=self._gate))


class R2AttentionUNet(R2UNet):
    """R2U-Net with Attention U-Net's gates on the skips."""

    PARAMETERS: ClassVar = {1: 39_442_797, 3: 39_442_925}
    _gate = AttentionGate
