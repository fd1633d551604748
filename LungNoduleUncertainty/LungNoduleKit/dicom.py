"""One CT series out of a folder of DICOM files: found, ordered by position, and checked for missing slices."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import ImageError
from .files import itk_reason, quiet_itk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_UNEVEN = 0.02  # gaps that differ by more than this fraction of their median are worth a warning
_BROKEN = 0.25  # ... and by more than this mean missing or displaced slices
_TAGS = {
    "uid": "0020|000e",
    "modality": "0008|0060",
    "description": "0008|103e",
    "kind": "0008|0008",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "frames": "0028|0008",
}


@dataclass
class _Slice:
    path: str
    size: tuple[int, ...]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None


@dataclass
class _Series:
    uid: str
    modality: str
    description: str
    localizer: bool
    slices: list[_Slice] = field(default_factory=list)

    def __str__(self) -> str:
        count = "1 slice" if len(self.slices) == 1 else f"{len(self.slices)} slices"
        return f"{self.uid} ({', '.join(filter(None, [self.modality, self.description, count]))})"

    @property
    def usable(self) -> bool:
        frames = sum(s.size[2] if len(s.size) > 2 else 1 for s in self.slices)
        return self.modality == "CT" and not self.localizer and frames > 1


def read_series(folder: Path, series_uid: str | None, warn: Callable[[str], object]) -> sitk.Image:
    """The CT series of a folder (see `images.read_ct`) as a volume in HU; its slices lie where their headers say.

    A tilted gantry's slices keep their positions: the direction matrix isn't orthogonal then. Raises `ImageError`.
    """
    with quiet_itk():
        found, broken = _find_series(folder)
        chosen = _choose(found, broken, folder, series_uid, warn)
        if broken:
            warn(f"{folder}: {len(broken)} DICOM files can't be read and were left out, such as {broken[0]}")
        name = f"{folder}, series {chosen.uid}"
        slices = _ordered(chosen, name, warn)
        try:
            if len(slices) == 1:
                return sitk.ReadImage(slices[0].path)
            reader = sitk.ImageSeriesReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetForceOrthogonalDirection(False)
            reader.SetFileNames([s.path for s in slices])
            return reader.Execute()
        except RuntimeError as error:
            raise ImageError(f"{name}: it can't be read ({itk_reason(error)})") from None


def series_uid(path: str | Path) -> str | None:
    """The SeriesInstanceUID in a DICOM file's header; None for any other file, and for one that can't be read."""
    if not _may_be_dicom(path):
        return None
    reader = _header_reader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader.GetMetaData(_TAGS["uid"]).strip(" \0") if reader.HasMetaDataKey(_TAGS["uid"]) else None


def _header_reader() -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    return reader


def _find_series(folder: Path) -> tuple[dict[str, _Series], list[str]]:
    """Every image series below the folder by UID, and the DICOM files that can't be read; other files don't count."""
    reader = _header_reader()
    found: dict[str, _Series] = {}
    broken = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            if name.upper() == "DICOMDIR" or not _may_be_dicom(path):
                continue
            reader.SetFileName(path)
            try:
                reader.ReadImageInformation()
            except RuntimeError:
                broken.append(path)
                continue
            _add(found, path, reader)
    return found, broken


def _may_be_dicom(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM" or str(path).lower().endswith((".dcm", ".ima"))
    except OSError:
        return False


def _add(found: dict[str, _Series], path: str, reader: sitk.ImageFileReader) -> None:
    def text(name: str) -> str:
        return reader.GetMetaData(_TAGS[name]).strip(" \0") if reader.HasMetaDataKey(_TAGS[name]) else ""

    def numbers(name: str, count: int) -> tuple[float, ...] | None:
        try:
            values = tuple(float(v) for v in text(name).split("\\"))
        except ValueError:
            return None
        return values if len(values) == count else None

    uid = text("uid")
    new = _Series(uid, text("modality"), text("description"), "LOCALIZER" in text("kind").upper())
    found.setdefault(uid, new).slices.append(
        _Slice(path, reader.GetSize(), numbers("position", 3), numbers("orientation", 6))
    )


def _choose(
    found: dict[str, _Series],
    broken: list[str],
    folder: Path,
    series_uid: str | None,
    warn: Callable[[str], object],
) -> _Series:
    if not found:
        reason = f"none of its {len(broken)} DICOM files can be read" if broken else "there are no DICOM images in it"
        raise ImageError(f"{folder}: {reason}")
    every = "; ".join(str(s) for s in found.values())
    if series_uid is not None:
        if series_uid not in found:
            raise ImageError(f"{folder}: there is no series {series_uid} in it, only {every}")
        return found[series_uid]
    usable = sorted((s for s in found.values() if s.usable), key=lambda s: -len(s.slices))
    if not usable:
        raise ImageError(f"{folder}: there is no CT series of more than one slice in it, only {every}")
    if len(usable) > 1:
        listed = "; ".join(str(s) for s in usable)
        if len(usable[0].slices) == len(usable[1].slices):
            raise ImageError(f"{folder}: it has several CT series, name one of them: {listed}")
        warn(f"{folder}: it has several CT series, the longest is used: {listed}")
    return usable[0]


def _ordered(series: _Series, name: str, warn: Callable[[str], object]) -> list[_Slice]:
    """The series' slices along their common normal, after a check that they form an evenly spaced stack."""
    if len(series.slices) == 1:
        return series.slices
    if any(s.position is None or s.orientation is None for s in series.slices):
        raise ImageError(f"{name}: some slices have no position or orientation")
    groups: dict[tuple[object, ...], list[_Slice]] = {}
    for one in series.slices:
        groups.setdefault((one.size, *np.round(np.asarray(one.orientation), 3).tolist()), []).append(one)
    slices = max(groups.values(), key=len)
    if len(slices) < len(series.slices):
        warn(f"{name}: {len(series.slices) - len(slices)} images of another size or orientation were left out")
    if len(slices) < 2:
        raise ImageError(f"{name}: it has no two slices of the same size and orientation")
    row, column = np.reshape(np.asarray(slices[0].orientation), (2, 3))
    normal = np.cross(row, column)
    heights = {s.path: float(np.dot(np.asarray(s.position), normal)) for s in slices}
    slices = sorted(slices, key=lambda s: heights[s.path])
    _check_gaps(np.array([heights[s.path] for s in slices]), name, warn)
    return slices


def _check_gaps(heights: np.ndarray, name: str, warn: Callable[[str], object]) -> None:
    """Refuses slices at ascending `heights` (mm) of which some are missing or doubled, and warns of uneven ones."""
    gaps = np.diff(heights)
    if (gaps < 1e-3).any():
        raise ImageError(f"{name}: {int((gaps < 1e-3).sum())} slices share their position with another one")
    usual = float(np.median(gaps))
    off = np.abs(gaps / usual - 1)
    if off.max() > _BROKEN:
        worst = int(off.argmax())
        where = f"between {heights[worst]:.2f} and {heights[worst + 1]:.2f} mm the gap is {gaps[worst]:.2f} mm"
        raise ImageError(f"{name}: slices are missing or irregular: {where}, elsewhere {usual:.2f} mm")
    if off.max() > _UNEVEN:
        warn(f"{name}: its slices are unevenly spaced ({gaps.min():.3f} to {gaps.max():.3f} mm)")
