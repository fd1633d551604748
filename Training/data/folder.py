"""A data folder in memory: nodule cubes with several readers' masks, in the layout that `prepare-lidc` writes.

A folder with `images.csv` instead holds single images (see `Training.data.images`), which come as nodules of depth one.
"""

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from .images.items import load_images
from .images.manifest import TABLE as IMAGES
from .native_slices import on_native_slices
from .nodule import MAX_READERS, DatasetError, Nodule

NODULES = "nodules.csv"


def is_image_set(folder: str | Path) -> bool:
    """Whether a data folder holds single images (`images.csv`) and no nodules."""
    return (Path(folder) / IMAGES).is_file() and not (Path(folder) / NODULES).is_file()


def load_folder(
    folder: str | Path, *, nodules: Collection[str] | None = None, native_slices: bool = False, progress: bool = True
) -> list[Nodule]:
    """Every nodule of `nodules.csv`, or every image of `images.csv`.

    nodules: the ids wanted (all). native_slices: on the slices of their scans in place of interpolated ones, where they
    are farther apart than the cubes' voxels (see `native_slices`). Raises DatasetError naming what is missing or
    inconsistent.
    """
    folder = Path(folder)
    if is_image_set(folder):
        return list(load_images(folder, nodules=nodules, progress=progress))
    rows = [r for r in read_table(folder) if nodules is None or r["nodule_id"] in nodules]
    if not rows:
        raise DatasetError(f"{folder / NODULES}: lists no nodule")
    read = [read_nodule(folder, row) for row in tqdm(rows, desc="reading nodules", disable=not progress, leave=False)]
    if not native_slices:
        return read
    bar = tqdm(read, desc="finding the native slices", disable=not progress, leave=False)
    return [on_native_slices(nodule) for nodule in bar]


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
    image = sitk.ReadImage(str(ct_path))
    hu, readers = sitk.GetArrayFromImage(image).astype(np.int16), read_readers(readers_path)
    if readers.shape[1:] != hu.shape:
        raise DatasetError(f"{readers_path}: grid {readers.shape[1:]} differs from the CT's {hu.shape}")
    if not 2 <= len(readers) <= MAX_READERS:
        raise DatasetError(f"{readers_path}: {len(readers)} readers; 2 to {MAX_READERS} are needed")
    spacing = np.array(image.GetSpacing()[::-1])
    return Nodule(name, row["patient_id"], int(row["fold"]), hu, readers, spacing, row)


def read_readers(path: Path) -> np.ndarray:
    """Readers' masks (R, z, y, x) of a `.seg.nrrd` that holds one layer a reader."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    return array > 0
