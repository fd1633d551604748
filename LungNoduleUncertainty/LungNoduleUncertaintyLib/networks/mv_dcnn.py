"""MV-DCNN, the multi-view network (Wang et al., EMBC 2017)."""

from typing import Any, ClassVar

import torch
from torch import nn

from .patch_classifier import Convolutions, PatchClassifier, PatchStack, check_patch, resize


def branch(width: int, patch: int) -> nn.Sequential:
    """Seven layers: two convolutions and a pooling, twice, and a fully connected layer of 25/3 `width`."""
    wide, edge = 4 * width // 3, patch // 2 // 2
    return nn.Sequential(
        Convolutions(2, width),
        nn.MaxPool2d(2),
        Convolutions(width, wide),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(wide * edge * edge, 25 * width // 3),
        nn.ReLU(inplace=True),
    )


class MVDCNN(PatchClassifier):
    """Three branches, of axial, coronal and sagittal patches, each of two scales; a fully connected layer joins them.

    As described: the views, seven stacked layers a branch, patches of several scales. The coronal and sagittal patches
    are cut from the stack of slices: with `slice_step` 2 interpolated to the pixels' distance, beyond its ends the last
    slice repeats.
    Reimplementation: chosen here are the scales (`patch` and `context` pixels, 35 and 65, the latter resized), which
    seven layers (two 3x3 convolutions with batch norm and ReLU and a pooling, twice; 300 hidden units), 36 and 48
    channels.
    """

    PARAMETERS: ClassVar = {17: 2_913_409}

    def __init__(self, in_channels: int = 17, width: int = 36, patch: int = 35, context: int = 65, **options: Any):
        super().__init__(in_channels, **options)
        check_patch(width, patch, context)
        self.patch, self.context = patch, context
        self.views = nn.ModuleList(branch(width, patch) for _ in range(3))
        self.head = nn.Linear(3 * (25 * width // 3), 1)

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.cat([view(points, self.patch), resize(view(points, self.context), self.patch)], 1)
            for view in (stack.axial, stack.coronal, stack.sagittal)
        )

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([branch(x) for branch, x in zip(self.views, patches, strict=True)], 1))
