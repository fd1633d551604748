"""MC-CNN, multi-crop pooling (Shen et al., Pattern Recognition 61, 2017), as a classifier of pixels."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .patch_classifier import Convolutions, PatchClassifier, PatchStack, check_patch


class MultiCropPool(nn.Module):
    """Three crops about the center, pooled until they are of one size: (N, C, S, S) -> (N, 3C, S/4, S/4).

    MC-CNN (Shen et al. 2017): the whole map is max-pooled twice, its middle half once, its middle quarter not at all.
    S is a multiple of 8, so that the crops lie in the middle.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1]
        if size % 8:
            raise ValueError(f"multi-crop pooling needs a multiple of 8 pixels, got {size}")
        quarter, eighth = size // 4, size // 8
        half = x[..., quarter:-quarter, quarter:-quarter]
        inner = x[..., 3 * eighth : -3 * eighth, 3 * eighth : -3 * eighth]
        whole = functional.max_pool2d(functional.max_pool2d(x, 2), 2)
        return torch.cat([whole, functional.max_pool2d(half, 2), inner], 1)


class MCCNN(PatchClassifier):
    """Convolutions, multi-crop pooling in the place of a second pooling, a convolution, 32 hidden units.

    As described: crops of different regions of the feature map, pooled a different number of times and joined. Its own
    task is a nodule's malignancy; the comparison uses it on patches about pixels.
    Reimplementation: chosen here are the `patch` of 35 pixels of the middle slice, a 4x4 convolution that leaves an
    even map (the middle pixel stays in the middle), 64 channels throughout, batch norm and ReLU.
    """

    PARAMETERS: ClassVar = {1: 157_121}

    def __init__(self, in_channels: int = 1, width: int = 64, patch: int = 35, **options: Any):
        super().__init__(in_channels, **options)
        check_patch(width, patch)
        if (patch - 3) % 16:
            raise ValueError(f"patch must be 3 more than a multiple of 16, as 35, got {patch}")
        self.patch, hidden = patch, max(width // 2, 1)
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 4, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            Convolutions(width, width, repeats=1),
            MultiCropPool(),
            Convolutions(3 * width, width, repeats=1),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        edge = (patch - 3) // 16
        self.head = nn.Sequential(nn.Linear(width * edge * edge, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (stack.axial(points, self.patch),)

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(*patches))
