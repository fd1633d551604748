"""DB-ResNet, the dual-branch residual network (Cao et al., Applied Soft Computing 86, 2020)."""

import torch
from torch import nn

from .patch_blocks import Convolutions, ResidualBlock, central_intensities
from .patch_classifier import PatchClassifier, check_patch
from .patches import PatchStack, resize

INTENSITIES = (1, 3, 5)  # windows of central intensity pooling


def branch(width: int, patch: int) -> nn.Sequential:
    """A convolution, three residual blocks that halve the size, and a fully connected layer of 5 `width`."""
    edge, blocks, channels = patch, [], width
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
    (`patch.sampling = "boundary"` of the trainer). The stack of slices gives the coronal and sagittal patches: with
    `slice_step` 2 interpolated to the pixels' distance, beyond its ends the last slice repeats.
    Reimplementation: the layers aren't published as code. Chosen here: patches of 35 pixels and scales of 35, 51 and 65
    resized to them, a 3x3 convolution and three residual blocks of 32, 64 and 128 channels a branch, 160 hidden units,
    mean intensities of the middle 1, 3 and 5 pixels of every channel, which go to the last layer.
    """

    def __init__(
        self, in_channels: int = 17, width: int = 32, patch: int = 35, scales: tuple = (35, 51, 65), **options
    ):
        super().__init__(in_channels, **options)
        check_patch(width, patch, *scales)
        if len(scales) != 3 or patch < max(INTENSITIES):
            raise ValueError(f"three scales and patches of at least {max(INTENSITIES)} pixels, got {scales}, {patch}")
        self.patch, self.scales = patch, tuple(scales)
        self.views_branch, self.scales_branch = branch(width, patch), branch(width, patch)
        self.head = nn.Linear(10 * width + 6 * len(INTENSITIES), 1)

    def cut(self, stack: PatchStack, points):
        axial = stack.axial(points, self.patch)
        views = [axial, stack.coronal(points, self.patch), stack.sagittal(points, self.patch)]
        scales = [axial if s == self.patch else resize(stack.axial(points, s), self.patch) for s in self.scales]
        return torch.cat(views, 1), torch.cat(scales, 1)

    def classify(self, views, scales):
        features = [self.views_branch(views), self.scales_branch(scales)]
        features += [central_intensities(x, INTENSITIES).to(features[0].dtype) for x in (views, scales)]
        return self.head(torch.cat(features, 1))
