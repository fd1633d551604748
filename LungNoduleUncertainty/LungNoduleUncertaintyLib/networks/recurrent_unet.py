"""R2U-Net and R2AU-Net: U-Net of recurrent residual blocks, without and with attention gates.

Source: Alom et al., Recurrent residual convolutional neural network based on U-Net (2018). Two recurrences, as in the
form that the UGS-Net papers compare with.
"""

from functools import partial

import torch
from torch import nn

from .blocks import AttentionGate, ConvBlock
from .unet import UNetBackbone


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


class R2UNet(nn.Module):
    """R2U-Net with one output, `final`: logits (B, 1, H, W).

    39,091,265 parameters at width 64 and one input channel, 39,091,393 with three; the number of recurrences changes
    the time, not the parameters.
    """

    _gate = None

    def __init__(self, in_channels: int = 1, width: int = 64, levels: int = 5, recurrences: int = 2):
        super().__init__()
        block = partial(RecurrentResidualBlock, recurrences=recurrences)
        self.backbone = UNetBackbone(in_channels, width, levels, block=block, gate=self._gate)
        self.stride = self.backbone.stride
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": self.head(self.backbone(x))}


class R2AttentionUNet(R2UNet):
    """R2U-Net with Attention U-Net's gates on the skips. 39,442,797 parameters at width 64, one input channel."""

    _gate = AttentionGate
