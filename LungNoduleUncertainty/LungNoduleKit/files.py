"""Files: images read, outputs that appear whole or not at all, and where the files lie that ship with a package."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from .errors import ImageError, printable
from .intact import check_intact
from .nifti import check_written, is_nifti, nifti_image
from .numeric_locale import decimal_points
from .records import record_dict
from .whole_files import as_output_error, endings, itk_reason, scratch_folder, whole_folder, write_all, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RIGHT_ANGLE = 1e-4  # cosine; across 300 mm it is 0.03 mm


__all__ = [
    "as_output_error",
    "decimal_points",
    "image_writer",
    "itk_reason",
    "name_too_long",
    "plain_path",
    "quiet_itk",
    "read_image",
    "resource_path",
    "scratch_folder",
    "whole_folder",
    "write_all",
    "write_record",
    "write_whole",
]


def read_image(
    path: str | Path, *, nifti_frame: str | None = None, warn: Callable[[str], object] | None = None
) -> sitk.Image:
    """Any image file that SimpleITK knows; a fourth axis of length one is dropped.

    `nifti_frame` (sform or qform) decides where a NIfTI file states two different positions; `warn` is called with a
    line for what is doubtful. Raises `ImageError` if the file can't be read.
    """
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise ImageError(f"{path}: there is no such file or folder")
    check_intact(path, warn)
    try:
        with quiet_itk(), decimal_points(), plain_path(path) as name:
            kind = sitk.ImageFileReader.GetImageIOFromFileName(name)
            if not kind:
                raise ImageError(f"{path}: it can't be read (it isn't an image file of a known format)")
            if kind == "GDCMImageIO":
                raise ImageError(f"{path}: it is DICOM, which is read as a CT only; save it as .seg.nrrd or .nrrd")
            image = sitk.ReadImage(name)
    except (OSError, RuntimeError) as error:
        raise ImageError(f"{path}: it can't be read ({itk_reason(error)})") from None
    if is_nifti(path):
        image = nifti_image(image, path, nifti_frame, warn)
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    return image


def image_writer(image: sitk.Image, compression: int = -1) -> Callable[[Path], None]:
    """A writer for `write_all` and `write_whole`: the image, compressed, in the format of the path's ending.

    `compression` is the format's own level; -1 takes its default. NIfTI turns axes that aren't at right angles (a
    tilted gantry) into others without a word, so the writer raises `RuntimeError` for it.
    """

    def write(path: Path) -> None:
        if is_nifti(path) and not _at_right_angles(image):
            raise RuntimeError("NIfTI can't hold the axes of a tilted gantry, .nrrd and .mha can")
        with decimal_points(), plain_path(path) as name:
            sitk.WriteImage(image, name, True, compression)
        if is_nifti(path):
            check_written(path)

    return write


def _at_right_angles(image: sitk.Image) -> bool:
    axes = np.reshape(image.GetDirection(), (image.GetDimension(), -1))
    return bool(np.abs(axes.T @ axes - np.eye(len(axes))).max() < _RIGHT_ANGLE)


@contextmanager
def plain_path(path: str | Path) -> Iterator[str]:
    """The path as C++ libraries can take it; every path that goes to one goes through this.

    SimpleITK ends the process on a path with bytes that aren't text (Python keeps them as lone surrogates), and
    safetensors refuses it. Such a path is reached through symbolic links in a temporary folder while the context lasts,
    for reading as well as for writing. `OSError` where the system has no links for us.
    """
    path = Path(path)
    if _is_text(str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="lung-nodule-") as links:
        folder = Path(links, "folder")
        folder.symlink_to(path.parent.absolute(), target_is_directory=True)
        if _is_text(path.name):
            yield str(folder / path.name)
            return
        # Under a name of its own, and with it the data file that a header names after itself.
        ending = endings(path)
        stem = path.name[: len(path.name) - len(ending)]
        with suppress(OSError):
            for beside in path.parent.iterdir():
                if beside.name.startswith(stem) and _is_text(beside.name[len(stem) :]) and beside.name != path.name:
                    Path(links, f"file{beside.name[len(stem) :]}").symlink_to(folder / beside.name)
        Path(links, f"file{ending}").symlink_to(folder / path.name)
        yield str(Path(links, f"file{ending}"))


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_record(path: str | Path, record: Any, indent: int = 2) -> None:
    """The JSON file that `records.read_record_file` reads; it appears whole or not at all. Raises `OutputError`."""
    text = json.dumps(record_dict(record), indent=indent) + "\n"
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keeps ITK's C++ warnings off standard error; errors still raise."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def name_too_long(error: OSError) -> str:
    """A line for a path that the system refuses because a name in it is too long; raises any other error again."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    return printable(f"{error.filename}: {error.strerror}")


def resource_path(package: Path, *parts: str) -> Path:
    """Path of a resource that ships with the package in the folder `package`.

    A wheel carries the resources inside the package; a source tree and Slicer's module folder keep them beside it.
    """
    inside = package / "Resources"
    return (inside if inside.is_dir() else package.parent / "Resources").joinpath(*parts)
