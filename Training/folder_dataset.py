"""The folder dataset: nodule cubes with several readers' masks (the layout of `prepare-lidc`), in memory."""

import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MAX_READERS = 4


class DatasetError(Exception):
    """A data folder that can't be used; the message names the file and the reason."""


@dataclass
class Nodule:
    """One nodule: HU (z, y, x) int16, readers (R, z, y, x) bool with R = 2 to 4, voxel spacing in mm (z, y, x)."""

    nodule_id: str
    patient_id: str
    fold: int
    hu: np.ndarray
    readers: np.ndarray
    spacing: np.ndarray
    row: dict = field(repr=False, default_factory=dict)

    @property
    def consensus(self) -> np.ndarray:
        """The mask of what at least half of the readers include."""
        return 2 * self.readers.sum(0) >= len(self.readers)

    def center(self) -> np.ndarray:
        """Centroid of the consensus in voxels (z, y, x)."""
        return np.argwhere(self.consensus).mean(0)


def read_readers(path) -> np.ndarray:
    """Readers' masks (R, z, y, x) of a `.seg.nrrd` that holds one layer a reader."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    return array > 0


def load_folder(folder, *, nodules=None, progress: bool = True) -> list[Nodule]:
    """Read `nodules.csv` and every nodule's two files. Raises DatasetError naming what is missing or inconsistent."""
    import SimpleITK as sitk
    from tqdm import tqdm

    folder = Path(folder)
    table = folder / "nodules.csv"
    if not table.is_file():
        raise DatasetError(f"{table}: not found; a data folder holds nodules.csv (see `prepare-lidc --help`)")
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if nodules is None or r["nodule_id"] in nodules]
    if not rows:
        raise DatasetError(f"{table}: lists no nodule")
    out = []
    for row in tqdm(rows, desc="reading nodules", disable=not progress, leave=False):
        name = row["nodule_id"]
        ct_path, readers_path = folder / f"{name}_ct.nrrd", folder / f"{name}_readers.seg.nrrd"
        for path in (ct_path, readers_path):
            if not path.is_file():
                raise DatasetError(f"{path}: listed in {table.name} but not found")
        image = sitk.ReadImage(str(ct_path))
        hu, readers = sitk.GetArrayFromImage(image).astype(np.int16), read_readers(readers_path)
        if readers.shape[1:] != hu.shape:
            raise DatasetError(f"{readers_path}: grid {readers.shape[1:]} differs from the CT's {hu.shape}")
        if not 2 <= len(readers) <= MAX_READERS:
            raise DatasetError(f"{readers_path}: {len(readers)} readers; 2 to {MAX_READERS} are wanted")
        spacing = np.array(image.GetSpacing()[::-1])
        out.append(Nodule(name, row["patient_id"], int(row["fold"]), hu, readers, spacing, row))
    return out


def nodule_fold(nodule_id: str, folds: int = 5, seed: int = 0) -> int:
    """The fold of a nodule under the papers' split by nodule, which lets a patient into several folds."""
    return int(hashlib.sha256(f"{seed}/{nodule_id}".encode()).hexdigest(), 16) % folds


def split(
    nodules: list[Nodule], fold: int | None, validation_share: float, seed: int = 0, by: str = "patient"
) -> tuple[list[Nodule], list[Nodule], list[Nodule]]:
    """(training, validation, test) lists. Test is `fold` (none if None); validation is carved from the rest.

    by: `patient` (folds of nodules.csv) or `nodule`, the papers' own split, for measuring its leak only. What is picked
    for validation is decided by a hash of seed and patient (or nodule), so it depends on nothing else. With `patient`,
    no patient is in two of the lists, which is checked.
    """
    if by not in ("patient", "nodule"):
        raise DatasetError(f"data.split is patient or nodule, got {by!r}")

    def group(nodule):
        return nodule.patient_id if by == "patient" else nodule.nodule_id

    fold_of = {n.nodule_id: n.fold if by == "patient" else nodule_fold(n.nodule_id) for n in nodules}
    rest = [n for n in nodules if fold_of[n.nodule_id] != fold]
    test = [n for n in nodules if fold_of[n.nodule_id] == fold]
    if fold is not None and not test:
        raise DatasetError(f"fold {fold} holds no nodule; folds here: {sorted(set(fold_of.values()))}")
    groups = sorted({group(n) for n in rest}, key=lambda g: hashlib.sha256(f"{seed}/{g}".encode()).hexdigest())
    chosen = set(groups[: round(validation_share * len(groups))])
    training = [n for n in rest if group(n) not in chosen]
    validation = [n for n in rest if group(n) in chosen]
    parts = [{group(n) for n in part} for part in (training, validation, test)]
    shared = parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    if shared:
        raise DatasetError(f"{by}s in two parts of the split: {', '.join(sorted(shared)[:5])}")
    return training, validation, test


def configured_split(nodules: list[Nodule], fold: int | None, config: dict):
    """`split` as a training configuration asks for it (`data.split`, `data.validation_share`, `data.split_seed`)."""
    data = config["data"]
    seed = config["seed"] if data["split_seed"] < 0 else data["split_seed"]
    return split(nodules, fold, data["validation_share"], seed, data["split"])
