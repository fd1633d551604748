"""Gray values and masks from image files, and the PNG files that a prepared set has."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import image_writer, read_image

from ..nodule import DatasetError

# Formats without a pixel size in mm that could be relied on.
_PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def read_file(path: str | Path) -> tuple[np.ndarray, tuple[float, float]]:
    """(values (z, y, x), pixel size in mm (row, column)) of a 2D or 3D image; colors become gray (BT.601 luma).

    Gray values of colors are rounded, those of others have the file's type. Pictures have no size: (1, 1). Raises
    DatasetError for a file that is missing or can't be read.
    """
    try:
        image = read_image(path)
    except NoduleError as error:
        raise DatasetError(str(error)) from None
    values = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if channels > 2:
        values = np.rint(values[..., :3] @ np.array(_LUMA)).astype(values.dtype)
    elif channels == 2:  # gray and alpha
        values = values[..., 0]
    if image.GetDimension() == 2:
        values = values[None]
    pictures = Path(path).suffix.lower() in _PICTURES
    column, row = (1.0, 1.0) if pictures else image.GetSpacing()[:2]
    return values, (float(row), float(column))


def pick_slice(volume: np.ndarray, index: int | None, path: str | Path) -> np.ndarray:
    """The slice (y, x) of values (z, y, x). Raises DatasetError if there is no such one, or it is left open."""
    if index is None and len(volume) > 1:
        raise DatasetError(f"{path}: a volume of {len(volume)} slices; column slice has to say which one")
    index = index or 0
    if not 0 <= index < len(volume):
        raise DatasetError(f"{path}: slice {index} isn't one of its {len(volume)}")
    return volume[index]


def as_values(values: np.ndarray, offset: int, path: str | Path) -> np.ndarray:
    """int16 of the values plus `offset`. Raises DatasetError where they don't fit or would be lost by rounding."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DatasetError(f"{path}: some of its values aren't finite")
        if np.ptp(values) <= 1 and (values % 1).any():
            raise DatasetError(
                f"{path}: fractions within [{values.min():g}, {values.max():g}]; whole values are wanted"
            )
    whole = np.rint(values).astype(np.int64) + offset
    low, high = int(whole.min()), int(whole.max())
    if low < -32768 or high > 32767:
        raise DatasetError(f"{path}: values from {low} to {high} don't fit 16 bits with a sign (see value_offset)")
    return whole.astype(np.int16)


def as_mask(values: np.ndarray) -> np.ndarray:
    """Bool: where a mask file has at least half of its own largest value, so that 1, 255 and smoothed edges all do."""
    highest = values.max()
    return values * 2.0 >= highest if highest > 0 else np.zeros(values.shape, bool)


def as_soft(values: np.ndarray, path: str | Path) -> np.ndarray:
    """float32 in [0, 1]: whole numbers are shares of their type's largest. Raises DatasetError for others."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        raise DatasetError(f"{path}: a soft mask has unsigned whole numbers, or fractions in [0, 1]")
    return values.astype(np.float32)


def to_gray(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8: [low, high] becomes 0 to 255, what lies beyond is clipped."""
    share = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def write_png(path: Path, values: np.ndarray) -> None:
    """A PNG of uint8 or uint16 (y, x)."""
    image_writer(sitk.GetImageFromArray(values), compression=3)(path)
