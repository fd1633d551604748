"""Soft masks for images that come with a mask alone, at the images' own resolution, before tiles are cut or resized."""

from collections.abc import Sequence

import numpy as np

from SoftMaskLabelerLib import SoftMaskError, closed_form_alpha, trimap_from_mask

from ..soft_labels import MATTING_WINDOW_HU

# How wide the band between known object and known background is, to either side of the mask's edge.
BANDS = ("none", "pixel", "tenth")


def soften(
    image: np.ndarray, mask: np.ndarray, band: str, spacing_mm: Sequence[float] | None = None, *, hu: bool = False
) -> np.ndarray | None:
    """Closed-form matting around the mask's edge (DSNet's first strategy): (y, x) float32 in [0, 1]; None for `none`.

    image: (y, x), of HU (which are seen between -1000 and 400) or of whole numbers without sign. band: `tenth` of the
    object's equivalent diameter, SoftMaskLabelerLib's default; or one `pixel`, for what is thin and branches, such as
    membranes: a tenth of their area's diameter is wider than they are, so hardly any would be left as known. A mask
    without object or background is its own soft mask.
    """
    if band not in BANDS:
        raise ValueError(f"a band is one of {', '.join(BANDS)}, got {band!r}")
    if band == "none":
        return None
    low, high = MATTING_WINDOW_HU if hu else (0, np.iinfo(image.dtype).max)
    radii = {"erode_mm": 1.0, "dilate_mm": 1.0} if band == "pixel" else {}
    try:
        trimap = trimap_from_mask(mask, (1.0, 1.0) if band == "pixel" else spacing_mm, **radii)
        return closed_form_alpha((np.clip(image, low, high) - low) / (high - low), trimap)
    except SoftMaskError:
        return mask.astype(np.float32)
