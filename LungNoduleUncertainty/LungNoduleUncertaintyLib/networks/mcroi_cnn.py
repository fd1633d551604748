"""MCROI-CNN, multichannel regions of interest (Sun, Zheng and Qian 2017), as a classifier of pixels."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .patch_classifier import Convolutions, PatchClassifier, PatchStack, check_patch


def channels(patches: torch.Tensor) -> torch.Tensor:
    """Intensity, intensity of what is brighter than the patch's mid-gray, gradient: (N, 1, S, S) -> (N, 3, S, S).

    The gradient's magnitude is that of central differences, with the edge repeated.
    """
    middle = (patches.amax((2, 3), keepdim=True) + patches.amin((2, 3), keepdim=True)) / 2
    padded = functional.pad(patches, [1, 1, 1, 1], mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.cat([patches, patches * (patches >= middle), (dx**2 + dy**2 + 1e-12).sqrt()], 1)


class MCROICNN(PatchClassifier):
    """Three pairs of convolution and pooling and two fully connected layers, on a patch of three channels.

    As described: the region itself, one that shows the nodule's shape by its segmentation, and the region's gradient as
    channels; three pairs of layers and two fully connected ones. Its own task is a nodule's malignancy, where a
    segmentation is known; the comparison uses it on patches about pixels.
    Reimplementation: chosen here are the `patch` of 35 pixels of the middle slice, the shape's channel without any
    segmentation (`channels`), kernels of 5, 3 and 3, 32, 32 and 64 channels, batch norm and ReLU, 128 hidden units.
    """

    PARAMETERS: ClassVar = {1: 161_633}

    def __init__(self, in_channels: int = 1, width: int = 32, patch: int = 35, **options: Any):
        super().__init__(in_channels, **options)
        check_patch(width, patch)
        if patch < 9:
            raise ValueError(f"patch must have at least 9 pixels, got {patch}")
        self.patch = patch
        self.features = nn.Sequential(
            Convolutions(3, width, kernel=5, repeats=1),
            nn.MaxPool2d(2),
            Convolutions(width, width, repeats=1),
            nn.MaxPool2d(2),
            Convolutions(width, 2 * width, repeats=1),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        edge = patch // 2 // 2 // 2
        self.head = nn.Sequential(
            nn.Linear(2 * width * edge * edge, 4 * width), nn.ReLU(inplace=True), nn.Linear(4 * width, 1)
        )

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (channels(stack.axial(points, self.patch)),)

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(*patches))
