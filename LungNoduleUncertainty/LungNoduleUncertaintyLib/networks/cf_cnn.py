"""CF-CNN, the central focused network (Wang et al., Medical Image Analysis 40, 2017)."""

import torch
from torch import nn

from .patch_blocks import CentralPool, Convolutions
from .patch_classifier import PatchClassifier, check_patch
from .patches import PatchStack, resize


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

    def __init__(self, in_channels: int = 3, width: int = 36, patch: int = 35, context: int = 65, **options):
        super().__init__(in_channels, **options)
        check_patch(width, patch, context)
        self.patch, self.context = patch, context
        self.volume, self.scales = branch(3, width, patch), branch(2, width, patch)
        self.head = nn.Linear(2 * (25 * width // 3), 1)

    def cut(self, stack: PatchStack, points):
        volume = stack.axial(points, self.patch, slices=3)
        wide = resize(stack.axial(points, self.context), self.patch)
        return volume, torch.cat([volume[:, 1:2], wide], 1)

    def classify(self, volume, scales):
        return self.head(torch.cat([self.volume(volume), self.scales(scales)], 1))
