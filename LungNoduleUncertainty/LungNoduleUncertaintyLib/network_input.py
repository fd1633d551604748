"""What a network sees: HU scaled to [0, 1] and, if the model asks for it, a channel that marks the point.

Training and prediction share these functions, so the two can't drift apart. They take numpy arrays or torch tensors.
"""

POSITION_SIGMA_MM = 8.0


def windows(window_hu) -> list:
    """The HU windows of an input: one [low, high], or a list of them (the released code's three-channel variant)."""
    return [window_hu] if not hasattr(window_hu[0], "__len__") else list(window_hu)


def normalize_hu(hu, window_hu):
    """Channels of a stack of slices: HU (N, S, H, W) -> (N, S * windows, H, W), each window [low, high] to [0, 1]."""
    parts = [(hu.clip(low, high) - low) / (high - low) for low, high in windows(window_hu)]
    if len(parts) == 1:
        return parts[0]
    import sys

    module = sys.modules[type(hu).__module__.partition(".")[0]]  # numpy or torch, whichever the array is of
    return module.concatenate(parts, 1)


def position_channel(shape, offset_mm, spacing_mm, sigma_mm: float = POSITION_SIGMA_MM):
    """exp(-r^2 / (2 sigma^2)) of the distance r to the point: float32 array of `shape` (z, y, x).

    `offset_mm` (z, y, x) leads from the point to the first voxel; `spacing_mm` (z, y, x) is the voxels' distance.
    """
    import numpy as np

    squared = 0.0
    for axis, (count, offset, spacing) in enumerate(zip(shape, offset_mm, spacing_mm, strict=True)):
        distance = offset + spacing * np.arange(count)
        squared = squared + (distance**2).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.exp(squared / (-2 * sigma_mm**2)).astype(np.float32)
