"""Layers of the patch classifiers: central and multi-crop pooling, central intensities. Patches are (N, C, S, S)."""

import torch
from torch import nn
from torch.nn import functional


def central_bins(size: int) -> list[tuple[int, int, int]]:
    """Sections (start, end, bin) that central pooling divides an axis of odd `size` into, symmetric about its middle.

    From the middle outwards: single pixels, pairs, triples, as many bins of each as fit; what is left over becomes a
    triple, a pair or a single one, so that about half as many bins as pixels remain.
    """
    if size % 2 == 0 or size < 3:
        raise ValueError(f"central pooling wants an odd size of at least 3, got {size}")
    half = size // 2
    count, left = divmod(half, 6)
    triples, left = count + left // 3, left % 3
    pairs, singles = count + left // 2, count + left % 2
    edges = [0, 3 * triples, 3 * triples + 2 * pairs]
    inner = size - edges[2]
    sections = [(edges[0], edges[1], 3), (edges[1], edges[2], 2), (edges[2], inner, 1)]
    sections += [(inner, inner + 2 * pairs, 2), (inner + 2 * pairs, size, 3)]
    assert inner - edges[2] == 2 * singles + 1
    return [section for section in sections if section[1] > section[0]]


class CentralPool(nn.Module):
    """Max pooling with small bins at the patch's centre and larger ones towards its border.

    CF-CNN (Wang et al. 2017): the nearer a pixel lies to the one that is classified, the more of it is kept. The sizes
    of the bins are this reimplementation's (`central_bins`): 35 pixels become 17, 17 become 9.
    """

    @staticmethod
    def out_size(size: int) -> int:
        """Edge after pooling."""
        return sum((end - start) // width for start, end, width in central_bins(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = [
            x[:, :, a:b] if k == 1 else functional.max_pool2d(x[:, :, a:b], (k, 1))
            for a, b, k in central_bins(x.shape[2])
        ]
        x = torch.cat(rows, 2)
        columns = [
            x[..., a:b] if k == 1 else functional.max_pool2d(x[..., a:b], (1, k))
            for a, b, k in central_bins(x.shape[3])
        ]
        return torch.cat(columns, 3)


class MultiCropPool(nn.Module):
    """Three crops about the centre, pooled until they are of one size: (N, C, S, S) -> (N, 3C, S/4, S/4).

    MC-CNN (Shen et al. 2017): the whole map is max-pooled twice, its middle half once, its middle quarter not at all.
    S is a multiple of 8, so that the crops lie in the middle.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1]
        if size % 8:
            raise ValueError(f"multi-crop pooling wants a multiple of 8 pixels, got {size}")
        quarter, eighth = size // 4, size // 8
        half = x[..., quarter:-quarter, quarter:-quarter]
        inner = x[..., 3 * eighth : -3 * eighth, 3 * eighth : -3 * eighth]
        whole = functional.max_pool2d(functional.max_pool2d(x, 2), 2)
        return torch.cat([whole, functional.max_pool2d(half, 2), inner], 1)


def central_intensities(x: torch.Tensor, sizes=(1, 3, 5)) -> torch.Tensor:
    """Mean intensities of the central windows of each channel: (N, C, S, S) -> (N, C * len(sizes)).

    DB-ResNet's central intensity pooling (Cao et al. 2020); which windows it takes is this reimplementation's choice.
    """
    middle = x.shape[-1] // 2
    parts = [x[..., middle - s // 2 : middle + s // 2 + 1, middle - s // 2 : middle + s // 2 + 1] for s in sizes]
    return torch.cat([part.mean((2, 3)) for part in parts], 1)


class Convolutions(nn.Sequential):
    """[3x3 convolution + batch norm + activation] `repeats` times; the size is kept. One PReLU slope a channel."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, repeats: int = 2, prelu: bool = False):
        layers = []
        for step in range(repeats):
            layers += [
                nn.Conv2d(out_channels if step else in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.PReLU(out_channels) if prelu else nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside the identity, or a 1x1 convolution where size or width change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))
