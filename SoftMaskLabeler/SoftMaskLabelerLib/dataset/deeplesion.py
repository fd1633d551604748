"""DeepLesion: RECIST marks from `DL_info.csv`, and key slices as 16-bit PNG (HU = value - 32768).

Yan, Wang, Lu and Summers, "DeepLesion: automated mining of large-scale lesion annotations and universal lesion
detection with deep learning", Journal of Medical Imaging 2018.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import tables
from LungNoduleKit.errors import shortened
from LungNoduleKit.files import read_image

from ..errors import ImageError, RecistError, SoftMaskError

HU_OFFSET = 32768
_COLUMNS = ("File_name", "Patient_index", "Measurement_coordinates", "Spacing_mm_px_")


@dataclass(frozen=True)
class Lesion:
    """A row of `DL_info.csv`."""

    name: str
    """File name without ending, with the lesion's number on that slice if it isn't the first"""
    file: str
    patient: str
    points: tuple[tuple[float, float], ...] | None
    """Four (x, y) end points in pixels, counted from 0 at pixel centers: long axis, short axis. None: illegible"""
    spacing: tuple[float, float] | None
    """(y, x) in mm. None: illegible"""
    window: tuple[float, float] | None
    """The DICOM window in HU"""
    kind: int
    """Coarse lesion type: 1 bone, 2 abdomen, 3 mediastinum, 4 liver, 5 lung, 6 kidney, 7 soft tissue, 8 pelvis, or -1
    where it isn't known"""


def read_table(path: str | Path, warn: Callable[[str], object] | None = None) -> list[Lesion]:
    """The lesions of a `DL_info.csv`, in its order; raises `SoftMaskError` if it isn't one, or no row can be read.

    Pixels are taken to be counted from 1, as public loaders do (the file doesn't say); that is taken off. Rows whose
    numbers can't be read are kept, so that a data set's builder can record them; `warn` is called with a line on them.
    """
    rows = tables.read_table(path, error=SoftMaskError)
    missing = [name for name in _COLUMNS if name not in rows.columns]
    if missing:
        raise SoftMaskError(f"{path}: it isn't a DL_info.csv, it has no column {', '.join(missing)}")
    seen: dict[str, int] = {}
    lesions = []
    for row in rows:
        image = (row["File_name"] or "").strip()
        seen[image] = seen.get(image, 0) + 1
        points, spacing = _numbers(row["Measurement_coordinates"], 8), _numbers(row["Spacing_mm_px_"], 3)
        kind, window = _numbers(row.get("Coarse_lesion_type"), 1), _numbers(row.get("DICOM_windows"), 2)
        lesions.append(
            Lesion(
                name=Path(image).stem + (f"_{seen[image]}" if seen[image] > 1 else ""),
                file=image,
                patient=(row["Patient_index"] or "").strip(),
                points=tuple((points[n] - 1, points[n + 1] - 1) for n in range(0, 8, 2)) if points else None,
                spacing=(spacing[1], spacing[0]) if spacing else None,
                window=(window[0], window[1]) if window else None,
                kind=int(kind[0]) if kind else -1,
            )
        )
    odd = [lesion.name for lesion in lesions if lesion.points is None or lesion.spacing is None]
    if odd and len(odd) == len(lesions):
        raise SoftMaskError(f"{path}: the RECIST coordinates or the spacing of all its lesions can't be read")
    if odd and warn:
        warn(f"{path}: the RECIST coordinates or the spacing of {len(odd)} lesions can't be read: {_listed(odd)}")
    return lesions


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def key_slice_path(images: str | Path, file: str) -> Path:
    """Where a key slice lies: `000001_01_01_109.png` is `000001_01_01/109.png` in DeepLesion's `Images_png` folder.

    A folder with the files under their full names is understood too. Raises `ImageError` if it isn't there.
    """
    series, _, slice_name = file.rpartition("_")
    for path in (Path(images) / series / slice_name, Path(images) / file):
        if file and os.path.isfile(path):  # Path.is_file raises for a name that is too long
            return path
    raise ImageError(f"{shortened(file)}: there is no such key slice in {images}")


def read_key_slice(path: str | Path) -> np.ndarray:
    """A key slice in HU: int32 (y, x). Raises `ImageError` if it can't be read or isn't a gray 16-bit image."""
    image = read_image(path)
    if image.GetPixelID() != sitk.sitkUInt16 or image.GetDimension() != 2:
        raise ImageError(f"{path}: it holds {image.GetPixelIDTypeAsString()}, not 16-bit gray values")
    return sitk.GetArrayFromImage(image).astype(np.int32) - HU_OFFSET


def marks(lesion: Lesion) -> tuple[np.ndarray, tuple[float, float]]:
    """End points (4, 2) x, y in pixels and spacing (y, x) of a lesion; raises `RecistError` if the table lacks them."""
    if lesion.points is None or lesion.spacing is None:
        raise RecistError(f"{shortened(lesion.file)}: its RECIST coordinates or its spacing can't be read")
    return np.array(lesion.points), lesion.spacing


def _numbers(text: str | None, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, separated by commas or what a spreadsheet has made of them, or None."""
    try:
        values = tuple(float(part) for part in re.split("[,;\t]", text or ""))
    except ValueError:
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None
