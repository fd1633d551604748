"""DB-ResNet, the dual-branch residual network (Cao et al., Applied Soft Computing 86, 2020)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from .patch_classifier import Convolutions, PatchClassifier, PatchStack, check_patch, resize

INTENSITIES = (1, 3, 5)  # windows of central intensity pooling


def central_intensities(x: torch.Tensor, sizes: Sequence[int] = INTENSITIES) -> torch.Tensor:
    """Mean intensities of the central windows of each channel: (N, C, S, S) -> (N, C * len(sizes)).

    DB-ResNet's central intensity pooling (Cao et al. 2020); which windows it takes is this reimplementation's choice.
    """
    middle = x.shape[-1] // 2
    parts = [x[..., middle - s // 2 : middle + s // 2 + 1, middle - s // 2 : middle + s // 2 + 1] for s in sizes]
    return torch.cat([part.mean((2, 3)) for part in parts], 1)


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
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def branch(width: int, patch: int) -> nn.Sequential:
    """A convolution, three residual blocks that halve the size, and a fully connected layer of 5 `width`."""
    blocks: list[nn.Module] = []
    edge, channels = patch, width
    for wider in (width, 2 * width, 4 * width):
        blocks.append(ResidualBlock(channels, wider, stride=2))
        channels, edge = wider, (edge + 1) // 2
    return nn.Sequential(
        Convolutions(3, width, repeats=1),
        *blocks,
        nn.Flatten(),
        nn.Linear(channels * edge * edge, 5 * width),
        nn.ReLU(inplace=True),
    )


class DBResNet(PatchClassifier):
    """A branch of three views, one of three scales, and the intensities in the patch's middle.

    As described: axial, coronal and sagittal patches as the channels of one residual branch, the axial patch in several
    scales as those of the other, central intensity pooling beside the convolutions, voxels sampled near the boundary
    (`patch.sampling = "boundary"` of the trainer). The coronal and sagittal patches are cut from the stack of slices:
    with `slice_step` 2 interpolated to the pixels' distance, beyond its ends the last slice repeats.
    Reimplementation: the layers aren't published as code. Chosen here: patches of 35 pixels and scales of 35, 51 and 65
    resized to them, a 3x3 convolution and three residual blocks of 32, 64 and 128 channels a branch, 160 hidden units,
    mean intensities of the middle 1, 3 and 5 pixels of every channel, which go to the last layer.
    """

    PARAMETERS: ClassVar = {17: 1_641_555}

    def __init__(
        self,
        in_channels: int = 17,
        width: int = 32,
        patch: int = 35,
        scales: Sequence[int] = (35, 51, 65),
        **options: Any,
    ):
        super().__init__(in_channels, **options)
        check_patch(width, patch, *scales)
        if len(scales) != 3 or patch < max(INTENSITIES):
            raise ValueError(f"three scales and patches of at least {max(INTENSITIES)} pixels, got {scales}, {patch}")
        self.patch, self.scales = patch, tuple(scales)
        self.views_branch, self.scales_branch = branch(width, patch), branch(width, patch)
        self.head = nn.Linear(10 * width + 6 * len(INTENSITIES), 1)

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        axial = stack.axial(points, self.patch)
        views = [axial, stack.coronal(points, self.patch), stack.sagittal(points, self.patch)]
        scales = [axial if s == self.patch else resize(stack.axial(points, s), self.patch) for s in self.scales]
        return torch.cat(views, 1), torch.cat(scales, 1)

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        views, scales = patches
        features = [self.views_branch(views), self.scales_branch(scales)]
        features += [central_intensities(x, INTENSITIES).to(features[0].dtype) for x in (views, scales)]
        return self.head(torch.cat(features, 1))
