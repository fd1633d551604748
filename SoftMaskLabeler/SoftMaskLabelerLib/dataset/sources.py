"""Where a data set's cases come from: a folder of volumes with masks, or DeepLesion's table with its key slices.

A case is picklable and loads itself in the process that works on it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import SimpleITK as sitk

from LungNoduleKit import tables
from LungNoduleKit.errors import shortened, shown
from LungNoduleKit.images import read_volume
from LungNoduleKit.masks import on_grid
from LungNoduleKit.readers import read_readers

from ..errors import ImageError, MaskError, SoftMaskError
from ..trimap.recist import recist_axes
from .deeplesion import key_slice_path, marks, read_key_slice, read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .deeplesion import Lesion

STRATEGIES = ("mask", "readers", "recist")
CT_ENDING, READERS_ENDING, MASK_ENDING = "_ct.nrrd", "_readers.seg.nrrd", "_mask.nrrd"


@dataclass
class Loaded:
    """A slice and what is known of its lesion; `masks` or `points` is None."""

    image: np.ndarray
    """(y, x) in HU"""
    spacing: tuple[float, float]
    """(y, x) in mm"""
    masks: list[np.ndarray] | None = None
    """Bool (y, x) each"""
    points: np.ndarray | None = None
    """RECIST end points (4, 2) x, y in pixels"""
    slice: str = ""
    window: tuple[float, float] | None = None
    """The image's own window in HU, if it has one"""
    notes: list[str] = field(default_factory=list)
    """A line for each thing that reading was told"""


@dataclass(frozen=True)
class FolderCase:
    """A volume `NAME_ct.nrrd` with `NAME_readers.seg.nrrd` or `NAME_mask.nrrd`; its slice of largest consensus."""

    name: str
    patient: str
    ct: Path
    masks: Path
    z: int | None
    """The slice, where a table names it"""

    source = "folder"

    def load(self, strategy: str, reader: int) -> Loaded:
        """The slice with all readers' masks, one reader's, or RECIST marks measured on at least half of the readers."""
        notes: list[str] = []
        image = read_volume(self.ct, warn=notes.append)
        found = read_readers(self.masks, warn=notes.append)
        segments = [on_grid(mask, image, str(self.masks), notes) for mask in found.values()]
        masks = np.stack([sitk.GetArrayViewFromImage(mask) != 0 for mask in segments])
        consensus = 2 * masks.sum(axis=0) >= len(masks)
        z = int(consensus.sum(axis=(1, 2)).argmax()) if self.z is None else self.z
        if not 0 <= z < len(consensus):
            raise ImageError(f"{self.ct}: it has no slice {z}")
        hu, spacing = sitk.GetArrayViewFromImage(image)[z].copy(), image.GetSpacing()[1::-1]
        if strategy == "recist":
            return Loaded(hu, spacing, points=recist_axes(consensus[z], spacing), slice=str(z), notes=notes)
        if strategy == "readers":
            return Loaded(hu, spacing, masks=list(masks[:, z]), slice=str(z), notes=notes)
        if not 1 <= reader <= len(masks):
            raise MaskError(f"{self.masks}: it has {len(masks)} readers, not {reader}")
        if not masks[reader - 1, z].any():
            raise MaskError(f"{self.masks}: reader {reader} drew nothing on slice {z}")
        return Loaded(hu, spacing, masks=[masks[reader - 1, z]], slice=str(z), notes=notes)


@dataclass(frozen=True)
class DeepLesionCase:
    """A lesion of DeepLesion on its key slice."""

    name: str
    patient: str
    lesion: Lesion
    images: Path

    source = "DeepLesion"

    def load(self, strategy: str, reader: int) -> Loaded:
        """The key slice and the RECIST marks; both arguments are as good as given."""
        points, spacing = marks(self.lesion)
        image = read_key_slice(key_slice_path(self.images, self.lesion.file))
        return Loaded(image, spacing, points=points, slice=self.lesion.file, window=self.lesion.window)


SourceCase = FolderCase | DeepLesionCase
AnyCase = TypeVar("AnyCase", FolderCase, DeepLesionCase)


def folder_cases(folder: str | Path) -> list[FolderCase]:
    """The cases of a folder, of its `nodules.csv` if it has one (columns nodule_id, patient_id and
    largest_consensus_slice are used), otherwise of all `*_ct.nrrd`. Raises `SoftMaskError` if there are none."""
    folder = Path(folder)
    table = folder / "nodules.csv"
    try:
        rows: Sequence[dict[str, str]]
        if table.is_file():
            rows = tables.read_table(table, ("nodule_id",), SoftMaskError)
        else:
            names = sorted(path.name[: -len(CT_ENDING)] for path in folder.glob(f"*{CT_ENDING}"))
            rows = [{"nodule_id": name} for name in names]
    except OSError as error:
        raise SoftMaskError(f"{folder}: it can't be read ({error.strerror or error})") from None
    if not rows:
        raise SoftMaskError(f"{folder}: there is no nodules.csv with nodules and no *{CT_ENDING} in it")
    cases = []
    for row in rows:
        name, z = row["nodule_id"], row.get("largest_consensus_slice") or ""
        if z.strip() and not z.strip().isdigit():
            raise SoftMaskError(
                f"{table}: {shortened(name)}: largest_consensus_slice is {shown(z)}, no index of a slice"
            )
        readers = folder / f"{name}{READERS_ENDING}"
        masks = readers if os.path.isfile(readers) else folder / f"{name}{MASK_ENDING}"
        cases.append(
            FolderCase(
                name=file_name(name),
                patient=row.get("patient_id") or name,
                ct=folder / f"{name}{CT_ENDING}",
                # Where neither is there, the error names the usual one.
                masks=masks if os.path.isfile(masks) else readers,
                z=int(z) if z.strip().isdigit() else None,
            )
        )
    return _unique(cases, folder)


def deeplesion_cases(
    table: str | Path, images: str | Path, kinds: Iterable[int] = (), warn: Callable[[str], object] | None = None
) -> list[DeepLesionCase]:
    """The lesions of a `DL_info.csv`, all or those of some coarse types (5 is lung). `warn`: as for `read_table`."""
    images, kinds = Path(images), set(kinds)
    if not images.is_dir():
        raise SoftMaskError(f"{images}: there is no such folder of key slices")
    cases = [
        DeepLesionCase(file_name(lesion.name), lesion.patient, lesion, images)
        for lesion in read_table(table, warn)
        if not kinds or lesion.kind in kinds
    ]
    if not cases:
        raise SoftMaskError(f"{table}: it has no lesions" + (f" of type {sorted(kinds)}" if kinds else ""))
    return _unique(cases, table)


def file_name(name: str) -> str:
    """A case's name as it can be part of a file's name anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def _unique(cases: list[AnyCase], source: str | Path) -> list[AnyCase]:
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    if twice:
        raise SoftMaskError(f"{source}: {shortened(sorted(twice)[0])} is the name of several cases")
    return cases
