"""Cascaded-CNN: the input cascade of two-pathway networks (Havaei et al., Medical Image Analysis 35, 2017)."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .patch_classifier import PatchClassifier, PatchStack, check_patch, nearest_slices

GLOBAL_KERNEL = 13  # of the wide pathway, and what both leave at a map's edge: a map of S becomes S - 12


class Maxout(nn.Conv2d):
    """A convolution whose channels are the larger of two linear maps each."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(in_channels, 2 * out_channels, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = super().forward(x).chunk(2, 1)
        return torch.maximum(first, second)


class OneLargeKernel(nn.Conv2d):
    """A convolution with one output channel, as convolutions along columns whose results are shifted and added.

    The same to rounding, ten times as fast on a CPU at 21x21 and thirty times with the gradient.
    """

    def __init__(self, in_channels: int, kernel: int):
        super().__init__(in_channels, 1, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = self.kernel_size[1]
        width = x.shape[-1] - count + 1
        parts = functional.conv2d(x, self.weight.permute(3, 1, 2, 0))
        total = sum(parts[:, j : j + 1, :, j : j + width] for j in range(count))
        return total + self.get_parameter("bias")[:, None, None]


class TwoPathways(nn.Module):
    """Local 7x7 and 3x3 convolutions beside one of 13x13; a convolution as large as what they leave makes a logit.

    Poolings have stride 1 and nothing is padded, so a patch of `patch` pixels becomes one logit and a larger map one
    for each patch in it: (B, C, H, W) -> (B, 1, H - patch + 1, W - patch + 1).
    """

    def __init__(self, in_channels: int, width: int, patch: int):
        super().__init__()
        wide = 5 * width // 2
        self.local = nn.Sequential(
            Maxout(in_channels, width, 7),
            nn.MaxPool2d(4, stride=1),
            Maxout(width, width, 3),
            nn.MaxPool2d(2, stride=1),
        )
        self.context = Maxout(in_channels, wide, GLOBAL_KERNEL)
        self.head = OneLargeKernel(width + wide, patch - GLOBAL_KERNEL + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.local(x), self.context(x)], 1))


class CascadedCNN(PatchClassifier):
    """Two stages: the first looks around every pixel, the second sees the slice and the first one's probabilities.

    As described (InputCascadeCNN): both stages are two-pathway networks on 33 pixels, maxout, 7x7 and 3x3 convolutions
    of 64 channels and 13x13 of 160, the first stage's output as further channels of the second's input, so that a pixel
    is classified from 2 `patch` - 1 = 65 pixels. Made for four MRI sequences and five classes; here one slice and one
    logit. Nothing depends on where a patch is cut, so all pixels are computed at once, with the patches' own results.
    Reimplementation: both stages learn together, the first one from the output `side_coarse` (computed at `points`
    only); no dropout and no penalties on the weights. `evaluation_stride`, `refine` and `slice_step` have no effect.
    """

    PARAMETERS: ClassVar = {1: 527_234}

    def __init__(self, in_channels: int = 1, width: int = 64, patch: int = 33, **options: Any):
        super().__init__(in_channels, **options)
        check_patch(width, patch)
        if patch < GLOBAL_KERNEL:
            raise ValueError(f"patch must have at least {GLOBAL_KERNEL} pixels, got {patch}")
        self.patch, self.context = patch, 2 * patch - 1
        self.first, self.second = TwoPathways(1, width, patch), TwoPathways(2, width, patch)

    def _cascade(self, wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(coarse, final) logits, `patch` - 1 and 2 (`patch` - 1) smaller than the slices (B, 1, H, W) given."""
        half = self.patch // 2
        coarse = self.first(wide)
        inner = wide[..., half:-half, half:-half]
        return coarse, self.second(torch.cat([inner, torch.sigmoid(coarse).to(inner.dtype)], 1))

    def _maps(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(coarse, final) logits (B, 1, H, W)."""
        half = self.patch // 2
        padded = functional.pad(nearest_slices(image, 1), [2 * half] * 4, mode="replicate")
        coarse, final = self._cascade(padded)
        return coarse[..., half:-half, half:-half], final

    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (stack.axial(points, self.context),)

    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        return self._cascade(*patches)[1].flatten(1)

    def at(self, image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        b, y, x = points.unbind(1)
        coarse, final = (logits[b, :, y, x] for logits in self._maps(image))
        return {"final": final, "side_coarse": coarse}

    def _dense(self, image: torch.Tensor) -> torch.Tensor:
        return self._maps(image)[1][:, 0]
