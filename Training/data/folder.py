"""A data folder in memory: nodule cubes with several readers' masks (see `nodule_files`).

A folder with `images.csv` instead holds single images (see `Training.data.images`), which come as nodules of depth one.
"""

from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from .images.items import load_images
from .images.manifest import TABLE as IMAGES
from .native_slices import on_native_slices
from .nodule import DatasetError, Nodule
from .nodule_files import NODULES, read_nodule, read_table


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
