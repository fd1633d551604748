"""What a network sees: HU scaled to [0, 1] and, if asked for, channels for the point and the slices' distance.

Training and prediction share these functions, so the two can't drift apart. They take numpy arrays, and
`normalize_hu` torch tensors too.

A network sees axial slices on a grid of one spacing, or (`through_plane = "own"`) the CT's own slices, on which readers
draw, where these are further apart than pixels.
"""

POSITION_SIGMA_MM = 8.0
_DISTANCE_MM = 5.0  # the slices' distance that its channel shows as 1


def sees_own_slices(options: dict) -> bool:
    """Whether an `input` table asks for the CT's own slices. Raises ValueError for a word that isn't known."""
    known = ("isotropic", "own")
    if options.get("through_plane", known[0]) not in known:
        raise ValueError(f"input.through_plane is {' or '.join(known)}, got {options['through_plane']!r}")
    return options.get("through_plane") == "own"


def neighbouring_slices(hu, slices, spacing_mm, options: dict):
    """HU (N, S, H, W) of slices of a stack (z, H, W) and of their neighbours, `slice_offsets` off.

    Offsets are slices or, among a CT's own slices, pixels (`spacing_mm` is (z, y, x)): what lies between two slices is
    interpolated linearly. Beyond the stack its last slice is repeated.
    """
    import numpy as np

    offsets = np.array(options["slice_offsets"])
    if not sees_own_slices(options):
        return hu[np.clip(np.asarray(slices)[:, None] + offsets, 0, len(hu) - 1)]
    places = np.clip(np.asarray(slices)[:, None] + offsets * (spacing_mm[1] / spacing_mm[0]), 0, len(hu) - 1)
    lower = np.floor(places + 1e-3).astype(int)
    share = np.maximum(places - lower, 0).astype(np.float32)[..., None, None]
    values = hu[lower].astype(np.float32)
    return values + share * (hu[np.minimum(lower + 1, len(hu) - 1)] - values) if share.any() else values


def distance_channel(shape, spacing_mm):
    """The distance of a CT's own slices as an image: float32 array of `shape`, 1 at 5 mm."""
    import numpy as np

    return np.full(shape, spacing_mm[0] / _DISTANCE_MM, np.float32)


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
