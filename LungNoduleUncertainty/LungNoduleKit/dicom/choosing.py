"""Which series of a folder is read, and which of a series' files are slices of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ImageError, printable, shortened
from .headers import UnreadableError, is_dicom, quiet_pydicom, read_header
from .stacks import stack_of
from .voxels import read_voxels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import SimpleITK as sitk

    from .headers import Frame, Header

_NAMED = 3  # so many files are named in a warning, the others counted


@dataclass
class Series:
    """The files of a SeriesInstanceUID: the slices of its images, and what is none."""

    uid: str
    headers: list[Header] = field(default_factory=list)

    def __str__(self) -> str:
        count = "1 slice" if len(self.slices) == 1 else f"{len(self.slices)} slices"
        named = self.headers[0]
        words = [shortened(printable(word)) for word in (self.modality, named.description) if word]
        return f"{shortened(printable(self.uid)) or 'without a UID'} ({', '.join([*words, count])})"

    @property
    def modality(self) -> str:
        """Of its slices."""
        return self._images[0].modality if self._images else self.headers[0].modality

    @property
    def _images(self) -> list[Header]:
        images = [header for header in self.headers if header.frames and not header.no_slice]
        # An MR, or a CT that was saved as secondary captures: whatever has pixels, unless proper images are there.
        return images or [header for header in self.headers if header.frames and header.no_slice != "a localizer"]

    @property
    def slices(self) -> list[Frame]:
        """Of all its images, without localizers."""
        return [frame for header in self._images for frame in header.frames if not frame.localizer]

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """(path, reason) of its files that are no slices."""
        images = self._images
        return [(header.path, header.no_slice) for header in self.headers if header not in images]

    @property
    def usable(self) -> bool:
        """Whether it is a CT of more than one slice."""
        return self.modality == "CT" and len(self.slices) > 1


def read_series(folder: Path, series_uid: str | None, warn: Callable[[str], object]) -> sitk.Image:
    """A CT series of a folder (see `images.read_ct`) as a volume in HU; its slices lie where their headers say.

    Slices of a tilted gantry keep their places: the direction matrix isn't orthogonal then. `series_uid` may end in a
    number, `UID#2`, to choose one of several stacks or phases in the series, as the error that lists them says. Raises
    `ImageError`.
    """
    paths = (
        os.path.join(root, name)
        for root, folders, names in os.walk(folder)
        for name in (folders.sort(), sorted(names))[1]
        if name.upper() != "DICOMDIR"
    )
    return read_files(paths, str(folder), series_uid, warn)


def read_files(
    paths: Iterable[str], place: str, series_uid: str | None, warn: Callable[[str], object], any_image: bool = False
) -> sitk.Image:
    """As `read_series`, of given files; `place` is what messages call them. Other files than DICOM don't count.

    With `any_image` a single slice and another modality than CT are read too.
    """
    place, uid, part = printable(place), *_uid_and_part(series_uid)
    with quiet_pydicom():
        found, broken = _find(paths)
        chosen = _choose(found, broken, place, uid, warn, any_image)
        if broken:
            count = "1 DICOM file can't" if len(broken) == 1 else f"{len(broken)} DICOM files can't"
            warn(f"{place}: {count} be read, left out: {_listed(broken)}")
        name = f"{place}, series {printable(chosen.uid)}"
        if chosen.left_out:
            count = "1 file is" if len(chosen.left_out) == 1 else f"{len(chosen.left_out)} files are"
            warn(f"{name}: {count} no slice of it, left out: {_listed(chosen.left_out)}")
        stack = stack_of(chosen.slices, name, chosen.uid, part, warn)
        return stack.image(read_voxels(stack.frames, name, warn))


def _uid_and_part(series_uid: str | None) -> tuple[str | None, int | None]:
    if series_uid is None or "#" not in series_uid:
        return series_uid, None
    uid, _, number = series_uid.partition("#")
    if not number.isdecimal() or int(number) < 1:
        raise ImageError(f"series {series_uid}: what follows # isn't a number from 1")
    return uid, int(number)


def _find(paths: Iterable[str]) -> tuple[dict[str, Series], list[tuple[str, str]]]:
    """Every series with its files by UID, and (path, reason) of the DICOM files that can't be read."""
    found: dict[str, Series] = {}
    broken = []
    for path in paths:
        if not is_dicom(path):
            continue
        try:
            header = read_header(path)
        except UnreadableError as error:
            broken.append((path, str(error)))
            continue
        if header is not None:
            found.setdefault(header.series, Series(header.series)).headers.append(header)
    return found, broken


def _listed(files: list[tuple[str, str]]) -> str:
    """Names of files with reasons, for a warning: the first few, and how many there are beyond."""
    named = [f"{printable(path)} ({printable(reason)})" for path, reason in files[:_NAMED]]
    return ", ".join(named) + (f", and {len(files) - _NAMED} more" if len(files) > _NAMED else "")


def _choose(
    found: dict[str, Series],
    broken: list[tuple[str, str]],
    place: str,
    uid: str | None,
    warn: Callable[[str], object],
    any_image: bool,
) -> Series:
    images = {key: series for key, series in found.items() if series.slices}
    if not images:
        if broken:
            raise ImageError(f"{place}: none of its {len(broken)} DICOM files can be read: {_listed(broken)}")
        others = [(header.path, header.no_slice) for series in found.values() for header in series.headers]
        told = f", only {_listed(others)}" if others else ""
        raise ImageError(f"{place}: there are no DICOM images in it{told}")
    every = "; ".join(str(s) for s in images.values())
    if uid is not None:
        if uid not in images:
            raise ImageError(f"{place}: there is no series {uid} in it, only {every}")
        if images[uid].modality != "CT":
            warn(f"{place}: series {uid} isn't a CT (its modality is {images[uid].modality or 'missing'})")
        return images[uid]
    if any_image and len(images) == 1:
        return next(iter(images.values()))
    usable = sorted((s for s in images.values() if s.usable), key=lambda s: -len(s.slices))
    if not usable:
        raise ImageError(f"{place}: there is no CT series of more than one slice in it, only {every}")
    if len(usable) > 1:
        listed = "; ".join(str(s) for s in usable)
        if len(usable[0].slices) == len(usable[1].slices):
            raise ImageError(f"{place}: it has several CT series, name one of them: {listed}")
        warn(f"{place}: it has several CT series, the longest is used: {listed}")
    return usable[0]
