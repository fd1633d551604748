"""A single image as the item that training knows: a nodule of depth one with one reader."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..nodule import DatasetError, Nodule
from .manifest import BOX, GROUPS, TABLE, read_manifest
from .pixels import as_mask, as_soft, as_values, pick_slice, read_file

_GRAY = (0.0, 255.0)


@dataclass
class ImageItem(Nodule):
    """An image: hu (1, y, x) int16 holds its values (HU, or 0 to 255), readers (1, 1, y, x), spacing z is 1.

    It isn't about one object in its middle, so its center is the image's, and a crop of its size shows all of it.
    """

    def center(self) -> np.ndarray:
        """The image's middle in voxels (z, y, x), which a crop of the image's own size is cut around."""
        return np.array([0, *(n // 2 for n in self.hu.shape[1:])], float)

    @property
    def labels(self) -> dict[str, str]:
        """Data set, organ and modality, for figures per group."""
        return {name: self.row.get(name, "") for name in GROUPS}

    @property
    def matting_window(self) -> tuple[float, float] | None:
        """The values between which matting sees the image; None, that of CT, where they are HU."""
        low, high = float(self.hu.min()), float(self.hu.max())
        return None if low < 0 else (_GRAY[0], max(_GRAY[1], high))


def load_images(
    folder: str | Path, *, nodules: Collection[str] | None = None, progress: bool = True
) -> list[ImageItem]:
    """Read `images.csv` and its files into memory; `nodules`, if given, are the image_ids wanted.

    Raises DatasetError naming table or file for whatever is missing, unreadable, or of another size than its image.
    """
    folder = Path(folder)
    rows = [row for row in read_manifest(folder) if nodules is None or row["image_id"] in nodules]
    if not rows:
        raise DatasetError(f"{folder / TABLE}: lists none of these images")
    # Slices and tiles of one file follow each other.
    read = lru_cache(maxsize=3)(lambda path: read_file(path))
    return [_item(folder, row, read) for row in tqdm(rows, desc="reading images", disable=not progress, leave=False)]


def _item(
    folder: Path, row: dict[str, Any], read: Callable[[Path], tuple[np.ndarray, tuple[float, float]]]
) -> ImageItem:
    path = folder / row["image"]
    volume, spacing = read(path)
    values = as_values(_part(pick_slice(volume, row["slice"], path), row, path), row["value_offset"] or 0, path)
    layers = {}
    for name in ("mask", "soft"):
        if row[name]:
            other = folder / row[name]
            found, _ = read(other)
            if found.shape[1:] != volume.shape[1:]:
                raise DatasetError(
                    f"{other}: its {name} is {_size(found)} pixels, the image {path.name} {_size(volume)}"
                )
            layers[name] = _part(pick_slice(found, row["slice"] if len(found) > 1 else None, other), row, other)
    mask = as_mask(layers["mask"])
    soft = as_soft(layers["soft"], folder / row["soft"])[None] if "soft" in layers else None
    rows, columns = row["spacing_row_mm"] or spacing[0], row["spacing_column_mm"] or spacing[1]
    known = row["patient_id"], row["fold"]
    return ImageItem(row["image_id"], *known, values[None], mask[None, None], np.array([1.0, rows, columns]), row, soft)


def _part(values: np.ndarray, row: dict[str, Any], path: Path) -> np.ndarray:
    if row["rows"] is None:
        return values
    top, left, rows, columns = (row[name] for name in BOX)
    if rows < 1 or columns < 1 or top + rows > values.shape[0] or left + columns > values.shape[1]:
        raise DatasetError(
            f"{path}: {row['image_id']} is a part beyond its {values.shape[0]} x {values.shape[1]} pixels"
        )
    return values[top : top + rows, left : left + columns]


def _size(volume: np.ndarray) -> str:
    return " x ".join(map(str, volume.shape[1:]))
