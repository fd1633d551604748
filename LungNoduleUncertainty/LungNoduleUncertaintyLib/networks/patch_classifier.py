"""What the patch classifiers share: a network that says of one pixel's patch whether that pixel is nodule.

These networks aren't dense: a slice is segmented by classifying a patch about every pixel. Here that is done in bounded
chunks, on all pixels or on a coarser grid, so that each of them is an ordinary network of the registry.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn

from .patches import PatchStack

# Cells of the coarser grid are looked into when their corners aren't all this sure (logit; probability 0.27 and 0.73).
SURE = 1.0


def check_patch(width: int, *edges: int) -> None:
    """Refuse a width below one and patches without a middle pixel."""
    if width < 1 or any(edge < 3 or edge % 2 == 0 for edge in edges):
        raise ValueError(f"width must be at least 1 and patches odd, got width {width} and patches {edges}")


def between(coarse: torch.Tensor, height: int, width: int, every: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bilinear interpolation of a grid (B, h, w) of every `every`-th pixel, from (0, 0) on, to (B, height, width).

    Beyond the last row and column these are repeated. Also returns where a pixel's corners aren't all `SURE` of one
    side, False on the grid's own pixels: (B, height, width) bool.
    """
    low, high = coarse, coarse
    for axis, size in ((1, height), (2, width)):
        at = torch.arange(size, device=coarse.device)
        first = at // every
        second = ((at + every - 1) // every).clamp(max=coarse.shape[axis] - 1)
        share = ((at % every) / every).to(coarse.dtype)
        share = share[:, None] if axis == 1 else share
        coarse = torch.lerp(coarse.index_select(axis, first), coarse.index_select(axis, second), share)
        low = torch.minimum(low.index_select(axis, first), low.index_select(axis, second))
        high = torch.maximum(high.index_select(axis, first), high.index_select(axis, second))
    unsure = (low < SURE) & (high > -SURE)
    unsure[:, ::every, ::every] = False
    return coarse, unsure


class PatchClassifier(nn.Module, ABC):
    """Base of the patch classifiers. Subclasses give `cut` (pixels to patches) and `classify` (patches to logits).

    The input (B, S, H, W) is a stack of S neighbouring slices, S odd, of which the middle one is segmented: one HU
    window, no position channel. evaluation_stride: 1 classifies every pixel; N classifies every Nth in both directions
    and interpolates, and with `refine` classifies also the pixels between grid points that aren't all sure of one side,
    so that outlines keep their resolution. slice_step: the slices' distance in pixels (`input.slice_offsets`), for the
    views across them. chunk: patches at once, which bounds the memory.
    """

    stride = 1

    def __init__(
        self,
        in_channels: int,
        evaluation_stride: int = 1,
        refine: bool = True,
        slice_step: int = 1,
        chunk: int = 1024,
    ):
        super().__init__()
        if in_channels < 1 or in_channels % 2 == 0:
            raise ValueError(f"a stack has an odd number of slices, its middle one is segmented; got {in_channels}")
        if evaluation_stride < 1 or slice_step < 1 or chunk < 1:
            raise ValueError("evaluation_stride, slice_step and chunk must be at least 1")
        self.in_channels, self.slice_step, self.chunk = in_channels, slice_step, chunk
        self.evaluation_stride, self.refine = evaluation_stride, refine

    @abstractmethod
    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple:
        """The patches (each (N, C, S, S)) about pixels (N, 3) of (b, y, x) that `classify` takes."""

    @abstractmethod
    def classify(self, *patches: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1) that the patches' middle pixels are nodule."""

    def at(self, image: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits {output: (N, 1)} at pixels (N, 3) of (b, y, x), all at once: what training needs."""
        return {"final": self.classify(*self.cut(PatchStack(image, self.slice_step), points))}

    def _chunks(self, stack: PatchStack, points: torch.Tensor) -> torch.Tensor:
        parts = [self.classify(*self.cut(stack, part))[:, 0] for part in points.split(self.chunk)]
        return torch.cat(parts)

    def _dense(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, H, W) of all pixels."""
        (count, _, height, width), every = image.shape, self.evaluation_stride
        stack = PatchStack(image, self.slice_step)
        axes = torch.arange(count), torch.arange(0, height, every), torch.arange(0, width, every)
        points = torch.cartesian_prod(*(axis.to(image.device) for axis in axes))
        coarse = self._chunks(stack, points).view(count, len(axes[1]), len(axes[2]))
        if every == 1:
            return coarse
        logits, unsure = between(coarse, height, width, every)
        if self.refine and unsure.any():
            points = unsure.nonzero()
            logits = logits.index_put(tuple(points.unbind(1)), self._chunks(stack, points))
        return logits

    def forward(self, image: torch.Tensor, points: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """{"final": (B, 1, H, W)} of a stack (B, S, H, W); with `points` the logits of `at` there alone."""
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(f"expected a tensor (B, {self.in_channels}, H, W), got shape {tuple(image.shape)}")
        if points is not None:
            return self.at(image, points)
        return {"final": self._dense(image)[:, None]}
