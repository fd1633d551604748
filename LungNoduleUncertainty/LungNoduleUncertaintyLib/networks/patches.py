"""Patches about pixels of a stack of slices, in three views and several scales, for classifiers of single pixels.

A stack is (B, S, H, W): S neighbouring axial slices, S odd, the middle one the slice that is segmented. Pixels are rows
(b, y, x) of an integer tensor (N, 3). Beyond a border the edge is repeated.
"""

import torch
from torch.nn import functional


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
    """Bilinear resizing of square patches with odd edges; the centre stays the centre."""
    if patches.shape[-1] == size:
        return patches
    return functional.interpolate(patches, (size, size), mode="bilinear", align_corners=True)


class PatchStack:
    """Cuts patches from a batch of stacks. What patches share (borders, interpolated slices) is made once."""

    def __init__(self, stack: torch.Tensor, slice_step: int = 1):
        """stack (B, S, H, W); `slice_step` is the slices' distance in pixels."""
        self.stack, self.slice_step, self._kept = stack, slice_step, {}

    def _once(self, key, make):
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
