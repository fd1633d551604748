"""The files of nodules as `prepare-lidc` writes them: a row of `nodules.csv`, the cube and its readers' masks."""

import os
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import tables
from LungNoduleKit.errors import NoduleError, shortened
from LungNoduleKit.files import read_image
from LungNoduleKit.masks import is_part, on_grid
from LungNoduleKit.readers import read_readers

from .nodule import MAX_READERS, DatasetError, Nodule

NODULES = "nodules.csv"
_HU, _MOST_BEYOND = (-3100, 5000), 0.02  # padding and metal lie between; more voxels beyond them aren't a CT's
_INT16 = np.iinfo(np.int16).min, np.iinfo(np.int16).max


def read_table(folder: str | Path) -> tables.Table:
    """The rows of a folder's `nodules.csv`.

    Raises DatasetError if there is none, or it lacks a column; for a nodule that stands there twice, and for a patient
    in several folds.
    """
    table = Path(folder) / NODULES
    if not table.is_file():
        raise DatasetError(
            f"{table}: not found; a data folder holds images.csv (see `prepare-images --help`) or nodules.csv (see "
            "`prepare-lidc --help`)"
        )
    rows = tables.read_table(table, ("nodule_id", "patient_id", "fold"), DatasetError)
    seen: set[str] = set()
    folds: dict[str, str] = {}
    for row in rows:
        nodule, patient = row["nodule_id"], row["patient_id"]
        if not nodule or not patient:
            raise DatasetError(f"{row.where}: it names no nodule or no patient")
        if nodule in seen:
            raise DatasetError(f"{row.where}: nodule {shortened(nodule)} occurs twice")
        seen.add(nodule)
        if folds.setdefault(patient, row["fold"]) != row["fold"]:
            raise DatasetError(f"{row.where}: patient {shortened(patient)} is in several folds")
    return rows


def read_nodule(folder: str | Path, row: tables.Row) -> Nodule:
    """A nodule's two files. Raises DatasetError."""
    name = row["nodule_id"]
    ct_path, readers_path = Path(folder) / f"{name}_ct.nrrd", Path(folder) / f"{name}_readers.seg.nrrd"
    for path in (ct_path, readers_path):
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise DatasetError(f"{shortened(path, 400)}: listed in {NODULES} but not found")
    try:
        image = read_image(ct_path)
        hu, readers = _hu(image, ct_path), _readers_on(image, readers_path)
    except NoduleError as error:
        raise error if isinstance(error, DatasetError) else DatasetError(str(error)) from None
    if not 2 <= len(readers) <= MAX_READERS:
        raise DatasetError(f"{readers_path}: {len(readers)} readers; 2 to {MAX_READERS} are needed")
    if row.get("readers") and row.whole("readers") != len(readers):
        raise DatasetError(f"{readers_path}: {len(readers)} readers, but {NODULES} says {shortened(row['readers'])}")
    spacing = np.array(image.GetSpacing()[::-1])
    return Nodule(name, row["patient_id"], row.whole("fold"), hu, readers, spacing, row)


def _hu(image: sitk.Image, path: Path) -> np.ndarray:
    """The cube's values, int16 (z, y, x). Raises DatasetError where they can't be HU, as with swapped bytes."""
    values = sitk.GetArrayFromImage(image)
    known = (values >= _HU[0]) & (values <= _HU[1])  # False for NaN
    if np.isnan(values).any() or np.mean(~known) > _MOST_BEYOND:
        raise DatasetError(f"{path}: its values from {values.min():g} to {values.max():g} aren't HU")
    return values.clip(*_INT16).astype(np.int16)


def _readers_on(image: sitk.Image, path: Path) -> np.ndarray:
    """Readers' masks (R, z, y, x) on an image's grid. Raises DatasetError where a mask would be moved or cut off."""
    found = read_readers(path, warn=lambda line: warnings.warn(line, stacklevel=2))
    masks = []
    for name, mask in found.items():
        if not is_part(mask, image):
            raise DatasetError(f"{path}: {name} lies on a grid other than that of the CT")
        inside = sitk.GetArrayFromImage(on_grid(mask, image, f"{path}: {name}")) != 0
        if inside.sum() != np.count_nonzero(sitk.GetArrayViewFromImage(mask)):
            raise DatasetError(f"{path}: {name} reaches outside of the CT")
        masks.append(inside)
    return np.stack(masks)
