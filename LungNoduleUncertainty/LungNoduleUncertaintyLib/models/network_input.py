"""What a network sees: HU scaled to [0, 1] and, if the model wants it, a channel that marks the point.

Training and prediction share these records and functions, so the two can't drift apart. They take numpy arrays, and
`normalize_hu` torch tensors too.

A network is shown axial slices as far apart as pixels ("isotropic": interpolated slices), or the CT's native slices, on
which readers draw. Its channels are equally far from the slice in mm, so that weights learned on the former serve the
latter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

import numpy as np

from LungNoduleKit.errors import shown
from LungNoduleKit.geometry import SAME_SPACING

if TYPE_CHECKING:
    import torch

POSITION_SIGMA_MM = 8.0
# What a bundle may say of its input; beyond it nothing of a nodule is seen, or no memory suffices.
_FARTHEST_SLICE, _PIXEL_MM, _MAGNIFICATION, _EDGES = 64, (0.05, 10.0), (0.05, 20.0), (8, 512)
Window: TypeAlias = tuple[float, float]  # HU that become 0 and 1
Windows: TypeAlias = Window | tuple[Window, ...]
View: TypeAlias = Literal["axial", "coronal", "sagittal"]
# Through-plane axis of a view in (z, y, x) arrays.
VIEWS: dict[View, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
_Array = TypeVar("_Array", np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class SliceInput:
    """Which slices of a CT, and which windows, become a network's channels."""

    #: Neighboring slices that become input channels, as far off as so many pixels.
    slice_offsets: tuple[int, ...] = (0,)
    #: isotropic: slices as far apart as pixels; native: a CT's native slices where they are farther apart than that.
    through_plane: Literal["isotropic", "native"] = "isotropic"
    #: One more channel: how near a pixel lies to the point (see `position_channel`).
    position: bool = False
    #: One HU window, or a list of windows, each a channel.
    window_hu: Windows = (-1000.0, 300.0)

    @property
    def sees_native_slices(self) -> bool:
        """Whether the network is shown the CT's native slices."""
        return self.through_plane == "native"

    @property
    def channels(self) -> int:
        """Slices times windows, and one for the position."""
        return len(self.slice_offsets) * len(windows(self.window_hu)) + int(self.position)

    def problem(self) -> str:
        """What no network can see, or an empty text."""
        if not self.slice_offsets or any(abs(offset) > _FARTHEST_SLICE for offset in self.slice_offsets):
            return (
                f"slice_offsets has to be one or more numbers within {_FARTHEST_SLICE}, not {shown(self.slice_offsets)}"
            )
        if not self.window_hu or any(not low < high for low, high in windows(self.window_hu)):
            return f"window_hu has to be [low, high] or several such pairs, not {shown(self.window_hu)}"
        return ""


@dataclass(frozen=True)
class NetworkInput(SliceInput):
    """What prediction needs beside the channels: the grid around the point.

    spacing_mm: of the grid's pixels; None: the CT's in-plane spacing, between 0.45 and 1 mm. magnification: so many of
    the network's pixels lie along one of those. cube_sizes: edges of the nodule cubes, in voxels, ascending; a nodule
    that touches the border of one is looked at in the next.
    """

    spacing_mm: float | None = None
    magnification: float = 1.0
    cube_sizes: tuple[int, ...] = (48, 64, 96, 128)

    def problem(self) -> str:
        """What prediction can't look at, or an empty text."""
        if self.spacing_mm is not None and not _PIXEL_MM[0] <= self.spacing_mm <= _PIXEL_MM[1]:
            return f"spacing_mm has to lie between {_PIXEL_MM[0]} and {_PIXEL_MM[1]}, not {self.spacing_mm}"
        if not _MAGNIFICATION[0] <= self.magnification <= _MAGNIFICATION[1]:
            low, high = _MAGNIFICATION
            return f"magnification has to lie between {low} and {high}, not {shown(self.magnification)}"
        sizes = self.cube_sizes
        if not sizes or sizes[0] < _EDGES[0] or sizes[-1] > _EDGES[1] or list(sizes) != sorted(set(sizes)):
            return f"cube_sizes has to ascend between {_EDGES[0]} and {_EDGES[1]}, not {shown(sizes)}"
        return super().problem()


@dataclass(frozen=True)
class Averaging:
    """What is averaged at prediction: `flips` are axes of (z, y, x) that are flipped together, `views` are of `VIEWS`.

    As it stands, one pass of axial slices, which aren't flipped.
    """

    flips: tuple[tuple[int, ...], ...] = ((),)
    views: tuple[View, ...] = ("axial",)

    def problem(self) -> str:
        """What can't be averaged, or an empty text."""
        if not self.views or len(set(self.views)) < len(self.views):
            return f"views has to be one or more of {', '.join(VIEWS)}, each once, not {shown(self.views)}"
        known = all(set(flip) <= {0, 1, 2} and len(set(flip)) == len(flip) for flip in self.flips)
        if not self.flips or not known or len(set(self.flips)) < len(self.flips):
            return f"flips has to be one or more lists of the axes 0, 1 and 2, each once, not {shown(self.flips)}"
        return ""


def slices_per_pixel(spacing_mm: Sequence[float] | np.ndarray, options: SliceInput) -> float:
    """How many slices (`spacing_mm` is (z, y, x)) are as thick as a pixel is wide: 1 unless they are native slices."""
    step = float(spacing_mm[1] / spacing_mm[0])
    return step if options.sees_native_slices and abs(step - 1) > SAME_SPACING else 1.0


def neighboring_slices(
    hu: np.ndarray, slices: Sequence[int] | np.ndarray, spacing_mm: Sequence[float] | np.ndarray, options: SliceInput
) -> np.ndarray:
    """HU (N, S, H, W) of slices of a stack (z, H, W) and of their neighbors, `slice_offsets` off.

    Offsets are in pixels; what lies between a CT's native slices is interpolated linearly. Outside the stack its last
    slice is repeated.
    """
    step = slices_per_pixel(spacing_mm, options)
    places = np.clip(np.asarray(slices)[:, None] + np.array(options.slice_offsets) * step, 0, len(hu) - 1)
    if step == 1:
        return hu[places.astype(int)]
    lower = np.floor(places + 1e-3).astype(int)
    share = np.maximum(places - lower, 0).astype(np.float32)[..., None, None]
    values = hu[lower].astype(np.float32)
    return values + share * (hu[np.minimum(lower + 1, len(hu) - 1)] - values)


def windows(window_hu: Windows) -> tuple[Window, ...]:
    """The HU windows of an input, whether there is one or there are several."""
    return cast("tuple[Window, ...]", window_hu if isinstance(window_hu[0], Sequence) else (window_hu,))


def normalize_hu(hu: _Array, window_hu: Windows) -> _Array:
    """Channels of a stack of slices: HU (N, S, H, W) -> (N, S * windows, H, W), each window [low, high] to [0, 1]."""
    parts = [(hu.clip(low, high) - low) / (high - low) for low, high in windows(window_hu)]
    if len(parts) == 1:
        return parts[0]
    module = sys.modules[type(hu).__module__.partition(".")[0]]  # numpy or torch, whichever the array is of
    return module.concatenate(parts, 1)


def position_channel(
    shape: Sequence[int],
    offset_mm: Sequence[float] | np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    sigma_mm: float = POSITION_SIGMA_MM,
) -> np.ndarray:
    """exp(-r^2 / (2 sigma^2)) of the distance r to the point: float32 array of `shape` (z, y, x).

    `offset_mm` (z, y, x) leads from the point to the first voxel; `spacing_mm` (z, y, x) is the voxels' distance.
    """
    squared: float | np.ndarray = 0.0
    for axis, (count, offset, spacing) in enumerate(zip(shape, offset_mm, spacing_mm, strict=True)):
        distance = offset + spacing * np.arange(count)
        squared = squared + (distance**2).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.exp(squared / (-2 * sigma_mm**2)).astype(np.float32)
