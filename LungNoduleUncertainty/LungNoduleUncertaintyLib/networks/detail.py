"""How DSNet takes over detail from its super-resolution teacher: EDRFM and SDRFM (v1), DRTM (v2).

Every module maps `context` (B, K, 4H, 4W), the interpolated input and the super-resolution image, and `features`
(B, C, 4H, 4W), the teacher's F_SR, to (B, C, 4H, 4W). Convolutions are 3x3, linear, and keep the size, except where
said otherwise.
"""

import torch
from torch import nn


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ChannelSelection(nn.Module):
    """Channel-wise selective fusion: F_out = a * F_c + b * F_d, a + b = 1 in every channel (DSNet v2, Eqs. 11-14).

    v_z = GAP(concat(F_d, F_c)), one fully connected layer 2C -> C, then one C -> C for each branch and a softmax over
    the pair. The papers say nothing of an activation between the layers, which would be one layer without it: ReLU,
    as in selective kernel networks.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(inplace=True))
        self.context = nn.Linear(channels, channels)
        self.detail = nn.Linear(channels, channels)

    def weights(self, context: torch.Tensor, detail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """a and b, each (B, C, 1, 1), of F_c and F_d (B, C, H, W)."""
        compact = self.reduce(torch.cat([detail, context], dim=1).mean((2, 3)))
        a, b = torch.stack([self.context(compact), self.detail(compact)]).softmax(0)
        return a[:, :, None, None], b[:, :, None, None]

    def forward(self, context: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        a, b = self.weights(context, detail)
        return a * context + b * detail


class ConcatFusion(nn.Module):
    """Fusion without selection: concatenation and one convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = _conv(2 * channels, channels)

    def forward(self, context: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([context, detail], dim=1))


class EDRFM(nn.Module):
    """Efficient detailed representation fusion (v1): one convolution of everything, concatenated."""

    def __init__(self, context_channels: int, channels: int):
        super().__init__()
        self.conv = _conv(context_channels + channels, channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([context, features], dim=1))


class SDRFM(nn.Module):
    """Selective detailed representation fusion (v1): a convolution of either branch, then channel selection."""

    def __init__(self, context_channels: int, channels: int):
        super().__init__()
        self.context = _conv(context_channels, channels)
        self.detail = _conv(channels, channels)
        self.fusion = ChannelSelection(channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.fusion(self.context(context), self.detail(features))


class DetailTexture(nn.Module):
    """Detail texture enhancement: F_d = F_SR * F_h, F_h = sigmoid(C_h(F_SR) - C_l(F_SR)) (v2, Eqs. 9 and 10).

    C_h is a 1x1 convolution, C_l a 3x3 one with dilation 2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 1)
        self.surround = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """F_h, (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.local(features) - self.surround(features))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.weights(features)


class DRTM(nn.Module):
    """Detailed representation transfer module (v2): texture enhancement (DTM), then channel selection (CSF).

    58,880 parameters with 64 channels and a context of two. Without `dtm` F_d is F_SR; without `csf` the branches are
    concatenated and convolved.
    """

    def __init__(self, context_channels: int, channels: int, dtm: bool = True, csf: bool = True):
        super().__init__()
        self.context = _conv(context_channels, channels)
        self.texture = DetailTexture(channels) if dtm else nn.Identity()
        self.fusion = ChannelSelection(channels) if csf else ConcatFusion(channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.fusion(self.context(context), self.texture(features))
