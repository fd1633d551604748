"""Several readers' masks of one nodule from a segmentation, also after Slicer or a person has changed the file.

Slicer saves segments that don't overlap in a shared layer, crops the grid to what is filled, and keeps segments that
were added; people rename and reorder them. A layer is therefore no reader, and neither is every segment.
"""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .errors import MaskError
from .mask_parts import check_plausible
from .masks import read_masks

if TYPE_CHECKING:
    from collections.abc import Callable

_READER = re.compile(r"reader[\s_-]*0*(\d+)", re.IGNORECASE)


def read_readers(
    path: str | Path, *, nifti_frame: str | None = None, warn: Callable[[str], object] = warnings.warn
) -> dict[str, sitk.Image]:
    """The readers' masks of a `.seg.nrrd` by name, in the order of their numbers: uint8 (0, 1) on the file's grid.

    Segments named `Reader 1`, `Reader 2` and so on are the readers (`reader_1` too); others beside them are left out,
    which `warn` is told. Where no segment has such a name all are readers, in the file's order, which `warn` is told of
    several. An image that isn't a segmentation is one mask. Raises `ImageError` if the file can't be read, and its
    `MaskError` for two segments of one reader, and where only one of several segments is named as a reader.
    """
    masks = read_masks(path, nifti_frame=nifti_frame, warn=warn)
    numbers = {name: int(found[1]) for name in masks if (found := _READER.fullmatch(name.strip()))}
    others = [name for name in masks if name not in numbers]
    if not numbers:
        if len(others) > 1:
            warn(f"{path}: no segment is named 'Reader 1' or the like; all are taken as readers: {', '.join(others)}")
        readers = masks
    else:
        if len(numbers) == 1 and others:
            raise MaskError(
                f"{path}: of its segments {', '.join(masks)} only one is named as a reader; name "
                "the readers 'Reader 1', 'Reader 2' and so on"
            )
        ordered = sorted(numbers, key=lambda name: numbers[name])
        for one, other in pairwise(ordered):
            if numbers[one] == numbers[other]:
                raise MaskError(f"{path}: {one!r} and {other!r} are one reader's name")
        if others:
            warn(f"{path}: no readers and left out: {', '.join(others)}")
        readers = {name: masks[name] for name in ordered}
    for mask in readers.values():
        check_plausible(mask, str(path))
    for name, mask in readers.items():
        if not sitk.GetArrayViewFromImage(mask).any():
            warn(f"{path}: {name} is empty: a reader who saw no nodule")
    return readers
