"""Writes a set of images: PNG files, `images.csv` with folds by patient, and tiles of large images.

A set is written beside its place and moved there when it is whole, so a run that is stopped leaves nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from LungNoduleKit.files import whole_folder

from ..nodule import DatasetError
from .manifest import TABLE, check_rows, write_manifest
from .pixels import write_png
from .softening import soften


@dataclass
class Sample:
    """An image to write: image (y, x) uint8 or uint16, mask (y, x) bool, soft (y, x) in [0, 1] or None.

    spacing_mm is (row, column); a fold of None is drawn by patient; see `manifest` for value_offset.
    """

    image_id: str
    image: np.ndarray
    mask: np.ndarray
    dataset: str
    organ: str
    modality: str
    patient_id: str
    spacing_mm: tuple[float, float] | None = None
    soft: np.ndarray | None = None
    fold: int | None = None
    value_offset: int = 0


@dataclass(frozen=True)
class Summary:
    """What was written: images, rows of the table (tiles count each), patients, images of which tiles left a rest."""

    images: int
    rows: int
    patients: int
    cut: int


def build(
    cases: Sequence[Callable[[], list[Sample]]],
    output: str | Path,
    *,
    folds: int = 5,
    seed: int = 0,
    tile: int = 0,
    soft: str = "none",
    progress: bool = True,
) -> Summary:
    """Writes the samples of all `cases` (each called once, in order) as the new folder `output`.

    Patients without a fold are put in the order of a hash of their id and `seed` and dealt out, so folds are equally
    large in patients and depend on the ids alone. With `tile`, the table has a row a tile of so many pixels (the files
    stay whole); a tile has its image's patient and fold, so no image is on both sides of a split. Images no larger than
    a tile stay as they are; what is left over at the right and lower edges is not in the table. `soft` makes soft masks
    for samples without one, see `softening.soften`.
    Raises DatasetError if `output` exists, there are fewer patients than folds, or samples don't fit together.
    """
    if tile < 0 or folds < 1:
        raise DatasetError(
            f"folds {folds} and tiles of {tile} pixels: at least 1 fold, and 0 (no tiles) or more pixels"
        )
    rows: list[dict[str, Any]] = []
    count = cut = 0
    with new_folder(output) as folder:
        for case in tqdm(cases, desc="images", disable=not progress, leave=False):
            for sample in case():
                if sample.soft is None:
                    sample.soft = _soft(sample, soft)
                row = _write(sample, folder)
                boxes = _tiles(sample.mask.shape, tile)
                covered = sum(box["rows"] * box["columns"] for _, box in boxes) if boxes else sample.mask.size
                cut, count = cut + (covered < sample.mask.size), count + 1
                rows += [{**row, **box, "image_id": f"{row['image_id']}{name}"} for name, box in boxes] or [row]
        if not rows:
            raise DatasetError(f"{output}: there is no image to write")
        _deal(rows, folds, seed, output)
        check_rows(rows, str(output))
        write_manifest(folder / TABLE, rows)
    return Summary(count, len(rows), len({row["patient_id"] for row in rows}), cut)


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A temporary folder beside `output`, which it becomes at the end; on failure it is removed."""
    output = Path(output)
    if output.exists():
        raise DatasetError(f"{output}: it exists already; choose another --output")
    with whole_folder(output) as temporary:
        yield temporary


def _soft(sample: Sample, band: str) -> np.ndarray | None:
    image = sample.image.astype(np.int32) + sample.value_offset if sample.value_offset else sample.image
    return soften(image, sample.mask, band, sample.spacing_mm, hu=bool(sample.value_offset))


def _write(sample: Sample, folder: Path) -> dict[str, Any]:
    """A sample's files; its row of the table."""
    name = sample.image_id
    if not name or name != Path(name).name:
        raise DatasetError(f"{name!r}: an image's name is part of a file's name")
    layers = {"image": sample.image, "mask": sample.mask.astype(np.uint8) * 255}
    if sample.soft is not None:
        layers["soft"] = np.rint(sample.soft * 65535).astype(np.uint16)
    files = {}
    for layer, values in layers.items():
        if values.shape != sample.image.shape:
            raise DatasetError(f"{name}: its {layer} has {values.shape} pixels, the image {sample.image.shape}")
        (folder / layer).mkdir(exist_ok=True)
        files[layer] = f"{layer}/{name}.png"
        if (folder / files[layer]).exists():
            raise DatasetError(f"{name}: the name of two images")
        write_png(folder / files[layer], values)
    spacing = [f"{step:.6g}" for step in sample.spacing_mm] if sample.spacing_mm else [None, None]
    return {
        "image_id": name,
        **files,
        "dataset": sample.dataset,
        "organ": sample.organ,
        "modality": sample.modality,
        "patient_id": sample.patient_id,
        "fold": sample.fold,
        "spacing_row_mm": spacing[0],
        "spacing_column_mm": spacing[1],
        "value_offset": sample.value_offset or None,
    }


def _tiles(shape: tuple[int, ...], tile: int) -> list[tuple[str, dict[str, int]]]:
    """(ending of the name, box) of an image's tiles; none where it stays whole."""
    if not tile or max(shape) <= tile:
        return []
    height, width = (min(tile, length) for length in shape)
    return [
        (f"_r{top}c{left}", {"first_row": top, "first_column": left, "rows": height, "columns": width})
        for top in range(0, shape[0] - height + 1, height)
        for left in range(0, shape[1] - width + 1, width)
    ]


def _deal(rows: list[dict[str, Any]], folds: int, seed: int, output: str | Path) -> None:
    """Assign a fold to every patient without one."""
    patients = {row["patient_id"] for row in rows if row["fold"] is None}
    if patients and len(patients) < folds:
        raise DatasetError(f"{output}: {len(patients)} patients can't be split into {folds} folds (see --folds)")
    order = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest())
    fold_of = {patient: place % folds for place, patient in enumerate(order)}
    for row in rows:
        row["fold"] = fold_of.get(row["patient_id"], row["fold"])
