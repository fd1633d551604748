"""The files of nodules as `prepare-lidc` writes them: a row of `nodules.csv`, the cube and its readers' masks."""

import csv
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.files import read_image

from .nodule import MAX_READERS, DatasetError, Nodule

NODULES = "nodules.csv"


def read_table(folder: str | Path) -> list[dict[str, str]]:
    """The rows of a folder's `nodules.csv`. Raises DatasetError if there is none."""
    table = Path(folder) / NODULES
    if not table.is_file():
        raise DatasetError(
            f"{table}: not found; a data folder holds images.csv (see `prepare-images --help`) or nodules.csv (see "
            "`prepare-lidc --help`)"
        )
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def read_nodule(folder: str | Path, row: dict[str, str]) -> Nodule:
    """A nodule's two files. Raises DatasetError."""
    name = row["nodule_id"]
    ct_path, readers_path = Path(folder) / f"{name}_ct.nrrd", Path(folder) / f"{name}_readers.seg.nrrd"
    for path in (ct_path, readers_path):
        if not path.is_file():
            raise DatasetError(f"{path}: listed in {NODULES} but not found")
    image = read_image(ct_path)
    hu, readers = sitk.GetArrayFromImage(image).astype(np.int16), read_readers(readers_path)
    if readers.shape[1:] != hu.shape:
        raise DatasetError(f"{readers_path}: grid {readers.shape[1:]} differs from the CT's {hu.shape}")
    if not 2 <= len(readers) <= MAX_READERS:
        raise DatasetError(f"{readers_path}: {len(readers)} readers; 2 to {MAX_READERS} are needed")
    spacing = np.array(image.GetSpacing()[::-1])
    return Nodule(name, row["patient_id"], int(row["fold"]), hu, readers, spacing, row)


def read_readers(path: Path) -> np.ndarray:
    """Readers' masks (R, z, y, x) of a `.seg.nrrd` that holds one layer a reader."""
    image = read_image(path)
    array = sitk.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    return array > 0
