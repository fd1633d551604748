"""What a network sees: HU scaled to [0, 1] and, if the model asks for it, a channel that marks the point.

Training and prediction share these functions, so the two can't drift apart. They take numpy arrays or torch tensors.
"""

POSITION_SIGMA_MM = 8.0


def normalize_hu(hu, window_hu):
    """HU clipped to the window [low, high] and scaled to [0, 1]; same shape and kind of array."""
    low, high = window_hu
    return (hu.clip(low, high) - low) / (high - low)


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
