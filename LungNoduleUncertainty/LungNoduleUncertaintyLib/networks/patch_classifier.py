"""What the patch classifiers share: a network that says of one pixel's patch whether that pixel is nodule.

These networks aren't dense: a slice is segmented by classifying a patch about every pixel. Here that is done in bounded
chunks, on all pixels or on a coarser grid, so that each of them is an ordinary network of the registry.

A stack is (B, S, H, W): S neighboring axial slices, S odd, the middle one the slice that is segmented. Patches are
(N, C, size, size) about pixels, which are rows (b, y, x) of an integer tensor (N, 3), in three views and several
scales. Beyond a border the edge is repeated.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_channels

# Cells of the coarser grid are looked into when their corners aren't all this sure (logit; probability 0.27 and 0.73).
SURE = 1.0


class Convolutions(nn.Sequential):
    """[3x3 convolution + batch norm + activation] `repeats` times; the size is kept. One PReLU slope a channel."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, repeats: int = 2, prelu: bool = False):
        layers: list[nn.Module] = []
        for step in range(repeats):
            layers += [
                nn.Conv2d(out_channels if step else in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.PReLU(out_channels) if prelu else nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


def nearest_slices(stack: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` (odd) middle slices (B, count, H, W); the outermost are repeated where the stack has fewer."""
    middle, half = stack.shape[1] // 2, count // 2
    wanted = torch.arange(middle - half, middle + half + 1, device=stack.device)
    return stack[:, wanted.clamp(0, stack.shape[1] - 1)]


def stretch(stack: torch.Tensor, slice_step: int) -> torch.Tensor:
    """Slices that lie `slice_step` pixels apart, interpolated to one pixel: (B, (S - 1) * slice_step + 1, H, W)."""
    if slice_step == 1 or stack.shape[1] == 1:
        return stack
    position = torch.arange((stack.shape[1] - 1) * slice_step + 1, device=stack.device)
    low = (position // slice_step).clamp(max=stack.shape[1] - 2)
    share = (position / slice_step - low).to(stack.dtype)[None, :, None, None]
    return torch.lerp(stack[:, low], stack[:, low + 1], share)


def resize(patches: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear resizing of square patches with odd edges; the center stays the center."""
    if patches.shape[-1] == size:
        return patches
    return functional.interpolate(patches, (size, size), mode="bilinear", align_corners=True)


class PatchStack:
    """Cuts patches from a batch of stacks. What patches share (borders, interpolated slices) is made once."""

    def __init__(self, stack: torch.Tensor, slice_step: int = 1):
        """stack (B, S, H, W); `slice_step` is the slices' distance in pixels."""
        self.stack, self.slice_step = stack, slice_step
        self._kept: dict[Any, torch.Tensor] = {}

    def _once(self, key: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _padded(self, slices: int, margin: int) -> torch.Tensor:
        return self._once(
            ("axial", slices, margin),
            lambda: functional.pad(nearest_slices(self.stack, slices), [margin] * 4, mode="replicate"),
        )

    def _deep(self, size: int) -> torch.Tensor:
        """`size` slices a pixel apart, (B, size, H + size - 1, W + size - 1)."""
        half = size // 2
        return self._once(
            ("deep", size),
            lambda: functional.pad(
                nearest_slices(self._once("stretched", lambda: stretch(self.stack, self.slice_step)), size),
                [half] * 4,
                mode="replicate",
            ),
        )

    def axial(self, points: torch.Tensor, size: int, slices: int = 1) -> torch.Tensor:
        """(N, slices, size, size): rows y, columns x of the middle slices."""
        view = self._padded(slices, size // 2).unfold(2, size, 1).unfold(3, size, 1)
        b, y, x = points.unbind(1)
        return view[b, :, y, x]

    def coronal(self, points: torch.Tensor, size: int) -> torch.Tensor:
        """(N, 1, size, size): rows z, columns x."""
        b, y, x = points.unbind(1)
        return self._deep(size).unfold(3, size, 1)[b, :, y + size // 2, x][:, None]

    def sagittal(self, points: torch.Tensor, size: int) -> torch.Tensor:
        """(N, 1, size, size): rows z, columns y."""
        b, y, x = points.unbind(1)
        return self._deep(size).unfold(2, size, 1)[b, :, y, x + size // 2][:, None]


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


class PatchClassifier(Network, ABC):
    """Base of the patch classifiers. Subclasses define `cut` (pixels to patches) and `classify` (patches to logits).

    The input (B, S, H, W) is a stack of S neighboring slices, S odd, of which the middle one is segmented: one HU
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
    def cut(self, stack: PatchStack, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
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
        check_channels(image, self.in_channels)
        if points is not None:
            return self.at(image, points)
        return {"final": self._dense(image)[:, None]}
