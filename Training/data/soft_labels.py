"""Soft labels of a nodule's slice for training: DSNet's soft mask and what it is compared with."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from SoftMaskLabelerLib import (
    SoftMaskError,
    bilinear_label,
    closed_form_alpha,
    dilation_label,
    trimap_from_mask,
    trimap_from_readers,
)

from ..config import SoftLabel
from ..metrics import consensus

KINDS: tuple[SoftLabel, ...] = tuple(kind for kind in get_args(SoftLabel) if kind not in ("", "given"))
GIVEN = "given"  # not made here: the soft mask that comes with an image (see Training.data.images)
MATTING_WINDOW_HU = (-1000.0, 400.0)


def soft_label(
    kind: SoftLabel,
    hu: np.ndarray,
    readers: np.ndarray,
    spacing_mm: Sequence[float],
    window: tuple[float, float] | None = None,
) -> np.ndarray:
    """The soft label (H, W) float32 in [0, 1] of one slice.

    hu: (H, W), HU; readers: (R, H, W) bool; spacing_mm: (row, column); window: the values that matting sees as 0 and 1
    (MATTING_WINDOW_HU unless given, for images that aren't in HU). `soft_mask` is closed-form matting between what
    all and what no readers include (DSNet's second strategy), `soft_mask_of_consensus` around the eroded and dilated
    >= 50 % consensus (its first), `kats` and `softseg` the labels of DSNet's comparison made from that consensus,
    `mean` the readers' mean. A slice without consensus, or where matting lacks lesion or background, has its readers'
    mean. `hard` is the consensus itself, the comparison without a soft label.
    """
    majority = consensus(readers)
    mean = readers.mean(0).astype(np.float32)
    if kind == "mean" or not majority.any():
        return mean

    try:
        if kind == "hard":
            return majority.astype(np.float32)
        if kind == "kats":
            return dilation_label(majority, spacing_mm)
        if kind == "softseg":
            return bilinear_label(majority)
        source = (
            trimap_from_readers(readers, spacing_mm) if kind == "soft_mask" else trimap_from_mask(majority, spacing_mm)
        )
        low, high = window or MATTING_WINDOW_HU
        return closed_form_alpha((np.clip(hu, low, high) - low) / (high - low), source)
    except SoftMaskError:
        return mean
