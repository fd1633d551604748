"""The DICOM series of LIDC-IDRI scans, wherever below a folder they lie, and where the outlines are in them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.dicom import series_uid
from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import quiet_itk
from LungNoduleKit.images import read_ct

if TYPE_CHECKING:
    from collections.abc import Callable

    from .database import Scan


class SeriesError(NoduleError):
    """A scan's DICOM series isn't below the folder, or doesn't match the annotations."""


class SeriesFolders:
    """Finds the folder of a series by its SeriesInstanceUID below a root folder; looks no further than it has to.

    First come folders named after the UID (as in TCIA's and pylidc's layout), then the header of one file of each
    folder, then the headers of all files. Each is done once, when first needed.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise SeriesError(f"{self.root}: there is no such folder")
        self._files = {folder: sorted(names) for folder, _, names in os.walk(self.root, followlinks=True) if names}
        self._by_name: dict[str, Path] = {}
        for folder in self._files:
            self._by_name.setdefault(os.path.basename(folder), Path(folder))
        self._by_first: dict[str, Path] | None = None
        self._by_file: dict[str, Path] | None = None

    def find(self, series_uid: str) -> Path | None:
        """The folder that holds the series' files, maybe among others; None if there is none."""
        if series_uid in self._by_name:
            return self._by_name[series_uid]
        if self._by_first is None:
            self._by_first = self._index(first_only=True)
        if series_uid in self._by_first:
            return self._by_first[series_uid]
        if self._by_file is None:
            self._by_file = self._index(first_only=False)
        return self._by_file.get(series_uid)

    def folder(self, scan: Scan) -> Path:
        """As `find`, for a scan of the database; `SeriesError` naming patient and series if it isn't there."""
        found = self.find(scan.series_uid)
        if found is None:
            raise SeriesError(f"{self.root}: series {scan.series_uid} of {scan.patient_id} isn't in it")
        return found

    def _index(self, first_only: bool) -> dict[str, Path]:
        found: dict[str, Path] = {}
        with quiet_itk():
            for folder, names in self._files.items():
                for name in names:
                    uid = series_uid(os.path.join(folder, name))
                    if uid:
                        found.setdefault(uid, Path(folder))
                        if first_only:
                            break
        return found


def read_scan(
    root: str | Path | SeriesFolders, scan: Scan, *, warn: Callable[[str], object] = warnings.warn
) -> sitk.Image:
    """A scan's CT in HU (LPS) from the DICOM files below `root`, slices ordered by position.

    Raises `SeriesError` if the series isn't there, has one slice only, or pixels of another size than the database
    says; `ImageError` if it can't be read or slices are missing inside of it.
    """
    folders = root if isinstance(root, SeriesFolders) else SeriesFolders(root)
    image = read_ct(folders.folder(scan), scan.series_uid, warn=warn)
    name = f"{folders.root}: series {scan.series_uid} of {scan.patient_id}"
    if image.GetDimension() != 3 or image.GetSize()[2] < 2:
        raise SeriesError(f"{name} has a single slice")
    pixel = image.GetSpacing()[:2]
    if max(abs(one - scan.pixel_spacing_mm) for one in pixel) > 0.01:
        size = " x ".join(f"{one:g}" for one in pixel)
        raise SeriesError(f"{name} has pixels of {size} mm, the database says {scan.pixel_spacing_mm:g} mm")
    return image


def slice_heights(image: sitk.Image) -> np.ndarray:
    """z of each slice's first pixel in mm, in the image's order: what LIDC's outlines name their slices by.

    A contour's pixel (row, column) on slice k is the image's index (column, row, k): the reader doesn't turn slices.
    """
    step = image.GetSpacing()[2] * image.GetDirection()[8]
    return image.GetOrigin()[2] + step * np.arange(image.GetSize()[2])
