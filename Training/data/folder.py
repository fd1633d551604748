"""The folder dataset, in memory: nodule cubes with several readers' masks (the layout of `prepare-lidc`).

A folder with `images.csv` instead holds single images (`image_sets`), which come as nodules of depth one.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.errors import NoduleError

MAX_READERS = 4
NODULES, IMAGES = "nodules.csv", "images.csv"


class DatasetError(NoduleError):
    """A data folder that can't be used; the message names the file and the reason."""


@dataclass
class Nodule:
    """One nodule: HU (z, y, x) int16, readers (R, z, y, x) bool with R = 2 to 4, voxel spacing in mm (z, y, x).

    soft: (z, y, x) float32 in [0, 1], where it comes with a soft label of its own.
    """

    nodule_id: str
    patient_id: str
    fold: int
    hu: np.ndarray
    readers: np.ndarray
    spacing: np.ndarray
    row: dict = field(repr=False, default_factory=dict)
    soft: np.ndarray | None = None

    @property
    def consensus(self) -> np.ndarray:
        """The mask of what at least half of the readers include."""
        return 2 * self.readers.sum(0) >= len(self.readers)

    def center(self) -> np.ndarray:
        """Centroid of the consensus in voxels (z, y, x)."""
        return np.argwhere(self.consensus).mean(0)

    @property
    def labels(self) -> dict[str, str]:
        """Words that go with its scores, for figures per group."""
        return {}

    @property
    def matting_window(self) -> tuple[float, float] | None:
        """The values between which matting sees it; None: those of CT."""
        return None


def read_readers(path) -> np.ndarray:
    """Readers' masks (R, z, y, x) of a `.seg.nrrd` that holds one layer a reader."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    return array > 0


def is_image_set(folder) -> bool:
    """Whether a data folder holds single images (`images.csv`) and no nodules."""
    return (Path(folder) / IMAGES).is_file() and not (Path(folder) / NODULES).is_file()


def load_folder(folder, *, nodules=None, native_slices: bool = False, progress: bool = True) -> list[Nodule]:
    """Every nodule of `nodules.csv`, or every image of `images.csv` (see `image_sets`).

    nodules: the ids wanted (all). native_slices: on the slices of their scans in place of interpolated ones, where they
    are further apart than the cubes' voxels (see `native_slices`). Raises DatasetError naming what is missing or
    inconsistent.
    """
    from tqdm import tqdm

    folder = Path(folder)
    if is_image_set(folder):
        from .images import load_images

        return load_images(folder, nodules=nodules, progress=progress)
    rows = [r for r in read_table(folder) if nodules is None or r["nodule_id"] in nodules]
    if not rows:
        raise DatasetError(f"{folder / NODULES}: lists no nodule")
    read = [read_nodule(folder, row) for row in tqdm(rows, desc="reading nodules", disable=not progress, leave=False)]
    if not native_slices:
        return read
    from .native_slices import on_native_slices

    return [
        on_native_slices(n) for n in tqdm(read, desc="finding the scans' slices", disable=not progress, leave=False)
    ]


def read_table(folder) -> list[dict]:
    """The rows of a folder's `nodules.csv`. Raises DatasetError if there is none."""
    table = Path(folder) / NODULES
    if not table.is_file():
        raise DatasetError(
            f"{table}: not found; a data folder holds images.csv (see `prepare-images --help`) or nodules.csv (see "
            "`prepare-lidc --help`)"
        )
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def read_nodule(folder, row: dict) -> Nodule:
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
        raise DatasetError(f"{readers_path}: {len(readers)} readers; 2 to {MAX_READERS} are wanted")
    spacing = np.array(image.GetSpacing()[::-1])
    return Nodule(name, row["patient_id"], int(row["fold"]), hu, readers, spacing, row)
