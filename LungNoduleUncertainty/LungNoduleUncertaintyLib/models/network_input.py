"""What a network sees: HU scaled to [0, 1] and, if the model asks for it, a channel that marks the point.

Training and prediction share these functions, so the two can't drift apart. They take numpy arrays, and
`normalize_hu` torch tensors too.

A network is shown axial slices as far apart as pixels, or (`through_plane = "native"`) the CT's native slices, on which
readers draw. Its channels are equally far from the slice in mm, so that weights learnt on the former serve the latter.
"""

import sys

import numpy as np

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.geometry import SAME_SPACING

POSITION_SIGMA_MM = 8.0


def sees_native_slices(options: dict) -> bool:
    """Whether an `input` table asks for the CT's native slices. Raises NoduleError for a word that isn't known."""
    known = ("isotropic", "native")
    if options.get("through_plane", known[0]) not in known:
        raise NoduleError(f"input.through_plane is {' or '.join(known)}, got {options['through_plane']!r}")
    return options.get("through_plane") == "native"


def slices_a_pixel(spacing_mm, options: dict) -> float:
    """How many slices (`spacing_mm` is (z, y, x)) are as thick as a pixel is broad: 1 unless they are a CT's own."""
    step = float(spacing_mm[1] / spacing_mm[0])
    return step if sees_native_slices(options) and abs(step - 1) > SAME_SPACING else 1.0


def neighbouring_slices(hu, slices, spacing_mm, options: dict):
    """HU (N, S, H, W) of slices of a stack (z, H, W) and of their neighbours, `slice_offsets` off.

    Offsets are in pixels; what lies between a CT's own slices is interpolated linearly. Beyond the stack its last slice
    is repeated.
    """
    step = slices_a_pixel(spacing_mm, options)
    places = np.clip(np.asarray(slices)[:, None] + np.array(options["slice_offsets"]) * step, 0, len(hu) - 1)
    if step == 1:
        return hu[places.astype(int)]
    lower = np.floor(places + 1e-3).astype(int)
    share = np.maximum(places - lower, 0).astype(np.float32)[..., None, None]
    values = hu[lower].astype(np.float32)
    return values + share * (hu[np.minimum(lower + 1, len(hu) - 1)] - values)


def windows(window_hu) -> list:
    """The HU windows of an input: one [low, high], or a list of them (the released code's three-channel variant)."""
    return [window_hu] if not hasattr(window_hu[0], "__len__") else list(window_hu)


def normalize_hu(hu, window_hu):
    """Channels of a stack of slices: HU (N, S, H, W) -> (N, S * windows, H, W), each window [low, high] to [0, 1]."""
    parts = [(hu.clip(low, high) - low) / (high - low) for low, high in windows(window_hu)]
    if len(parts) == 1:
        return parts[0]

    module = sys.modules[type(hu).__module__.partition(".")[0]]  # numpy or torch, whichever the array is of
    return module.concatenate(parts, 1)


def position_channel(shape, offset_mm, spacing_mm, sigma_mm: float = POSITION_SIGMA_MM):
    """exp(-r^2 / (2 sigma^2)) of the distance r to the point: float32 array of `shape` (z, y, x).

    `offset_mm` (z, y, x) leads from the point to the first voxel; `spacing_mm` (z, y, x) is the voxels' distance.
    """
    squared = 0.0
    for axis, (count, offset, spacing) in enumerate(zip(shape, offset_mm, spacing_mm, strict=True)):
        distance = offset + spacing * np.arange(count)
        squared = squared + (distance**2).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.exp(squared / (-2 * sigma_mm**2)).astype(np.float32)
