"""Texture filters of UGS-Net's feature-aware attention: learned Gabor convolution and Otsu masking in torch."""

import math

import torch
from torch import nn


def gabor_bank(orientations: int = 4, kernel: int = 3, scale: int = 1) -> torch.Tensor:
    """Bank of real Gabor kernels, (orientations, kernel, kernel), each scaled to [0, 1] (Gabor convolutional networks).

    For orientation t = i*pi/orientations, wave number k = (pi/2) / sqrt(2)^(scale-1) and sigma = pi:
    g(x, y) = k^2/sigma^2 * exp(-k^2 (x^2 + y^2) / (2 sigma^2)) * (cos(k (x cos t + y sin t)) - exp(-sigma^2 / 2)).
    A 1x1 kernel has no orientation: the bank is all ones, as in the code released with UGS-Net-V1.
    """
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"kernel must be odd, got {kernel}")
    if kernel == 1:
        return torch.ones(orientations, 1, 1)
    sigma, wave = math.pi, (math.pi / 2) / math.sqrt(2) ** (scale - 1)
    axis = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    theta = torch.arange(orientations, dtype=torch.float64).view(-1, 1, 1) * math.pi / orientations
    envelope = wave**2 / sigma**2 * torch.exp(-(wave**2) * (x**2 + y**2) / (2 * sigma**2))
    bank = envelope * (torch.cos(wave * (x * theta.cos() + y * theta.sin())) - math.exp(-(sigma**2) / 2))
    low, high = bank.amin((1, 2), keepdim=True), bank.amax((1, 2), keepdim=True)
    return ((bank - low) / (high - low)).float()


class GaborConv(nn.Module):
    """Convolution whose learned weights are modulated by a Gabor bank: (B, in, H, W) -> (B, out * orientations, H, W).

    The weight is (out, in * orientations, k, k): every input channel stands for `orientations` equal copies, so the
    copies' weights are summed before the convolution instead of copying the input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, orientations: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * orientations, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.orientations = orientations
        self.register_buffer("bank", gabor_bank(orientations, kernel), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copies = self.weight.unflatten(1, (-1, self.orientations)).sum(2)
        modulated = copies.unsqueeze(1) * self.bank[None, :, None]  # (out, orientations, in, k, k)
        kernel = self.weight.shape[-1]
        return nn.functional.conv2d(x, modulated.flatten(0, 1), padding=kernel // 2)


@torch.no_grad()
def otsu_threshold(x: torch.Tensor, bins: int = 256) -> torch.Tensor:
    """Otsu's threshold of every plane: (B, C, H, W) -> (B, C, 1, 1), the centre of the bin that splits best.

    `bins` histogram bins span the plane's own minimum to maximum; a constant plane's threshold is its value.
    """
    planes = x.detach().float().flatten(2)
    low, high = planes.amin(-1, keepdim=True), planes.amax(-1, keepdim=True)
    extent = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    index = ((planes - low) / extent * bins).long().clamp_(0, bins - 1)
    count = torch.zeros(*planes.shape[:2], bins, device=x.device).scatter_add_(-1, index, torch.ones_like(planes))
    grey = torch.arange(bins, device=x.device, dtype=torch.float32) + 0.5
    below = count.cumsum(-1)
    above = planes.shape[-1] - below
    mass = (count * grey).cumsum(-1)
    between = below * above * (mass / below.clamp_min(1) - (mass[..., -1:] - mass) / above.clamp_min(1)) ** 2
    best = between[..., :-1].argmax(-1, keepdim=True)
    threshold = low + (best + 0.5) / bins * (high - low)
    return threshold.unsqueeze(-1).to(x.dtype)


class OtsuFilter(nn.Module):
    """Keep what lies above each plane's own Otsu threshold.

    mode `masked`: feature x hard mask, the mask detached, so the gradient passes where the mask is one.
    mode `binary`: the mask itself, straight-through gradient.
    mode `quantise_released`: the released code's quirk, grey codes 0/128/255 cut at -0.5 and +0.5, without gradient.
    """

    MODES = ("masked", "binary", "quantise_released")

    def __init__(self, mode: str = "masked"):
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f"otsu must be one of {', '.join(self.MODES)}, got {mode!r}")
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "quantise_released":
            codes = x.detach()
            return 128.0 * (codes > -0.5).to(x.dtype) + 127.0 * (codes > 0.5).to(x.dtype)
        mask = (x > otsu_threshold(x)).to(x.dtype)
        return x * mask if self.mode == "masked" else mask + x - x.detach()
