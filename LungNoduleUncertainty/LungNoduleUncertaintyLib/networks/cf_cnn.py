"""CF-CNN, the central focused network (Wang et al., Medical Image Analysis 40, 2017)."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .patch_classifier import Convolutions, PatchClassifier, PatchStack, check_patch, resize


def central_bins(size: int) -> list[tuple[int, int, int]]:
    """Sections (start, end, bin) that central pooling divides an axis of odd `size` into, symmetric about its middle.

    From the middle outwards: single pixels, pairs, triples, as many bins of each as fit; what is left over becomes a
    triple, a pair or a single one, so that about half as many bins as pixels remain.
    """
    if size % 2 == 0 or size < 3:
        raise ValueError(f"central pooling needs an odd size of at least 3, got {size}")
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
    """Max pooling with small bins at the patch's center and larger ones towards its border.

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


def branch(in_channels: int, width: int, patch: int) -> nn.Sequential:
    """Three pairs of convolutions with central pooling between them and a fully connected layer of 25/3 `width`."""
    widths = [width, 4 * width // 3, 17 * width // 9]
    size = CentralPool.out_size(CentralPool.out_size(patch))
    return nn.Sequential(
        Convolutions(in_channels, widths[0], prelu=True),
        CentralPool(),
        Convolutions(widths[0], widths[1], prelu=True),
        CentralPool(),
        Convolutions(widths[1], widths[2], prelu=True),
        nn.Flatten(),
        nn.Linear(widths[2] * size * size, 25 * width // 3),
        nn.PReLU(),
    )


class CFCNN(PatchClassifier):
    """Two branches: one on the patch of three slices, one on two scales of the middle slice, with central pooling.

    As described: the 3 x `patch` x `patch` patch and the pair of `patch` and `context` pixels resized to `patch` (35
    and 65), two branches of the same form, central pooling, a common fully connected layer.
    Reimplementation: the layers aren't published as code. Chosen here: six 3x3 convolutions of 36, 36, 48, 48, 68 and
    68 channels with batch norm and PReLU, central pooling after the second and the fourth with the bins of
    `central_bins`, 300 hidden units a branch; three slices are three channels.
    """

    PARAMETERS: ClassVar = {3: 3_547_335}

    def __init__(self, in_channels: int = 3, width: int = 36, patch: int = 35, context: int = 65, **options: Any):
        super().__init__(in_channels, **options)
        check_patch(width, patch, context)
        self.patch, self.context = patch, context
        self.volume, self.scales = branch(3, width, patch), branch(2, width, patch)
        self.head = nn.Linear(2 * (25 * width // 3), 1)

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        volume = stack.axial(points, self.patch, slices=3)
        wide = resize(stack.axial(points, self.context), self.patch)
        return volume, torch.cat([volume[:, 1:2], wide], 1)

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        volume, scales = patches
        return self.head(torch.cat([self.volume(volume), self.scales(scales)], 1))
