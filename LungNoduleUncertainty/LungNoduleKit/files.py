"""Files: images read, outputs that appear whole or not at all, and where the files lie that ship with a package."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import SimpleITK as sitk

from .errors import ImageError, OutputError, printable
from .records import record_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NIFTI = (".nii", ".nii.gz", ".hdr", ".img")
_RIGHT_ANGLE = 1e-4  # cosine; across 300 mm it is 0.03 mm


def read_image(path: str | Path) -> sitk.Image:
    """Any image file that SimpleITK knows; a fourth axis of length one is dropped. `ImageError` if it can't be read."""
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise ImageError(f"{path}: there is no such file or folder")
    try:
        with quiet_itk(), plain_path(path) as name:
            kind = sitk.ImageFileReader.GetImageIOFromFileName(name)
            if not kind:
                raise ImageError(f"{path}: it can't be read (it isn't an image file of a known format)")
            if kind == "GDCMImageIO":
                raise ImageError(f"{path}: it is DICOM, which is read as a CT only; save it as .seg.nrrd or .nrrd")
            image = sitk.ReadImage(name)
    except (OSError, RuntimeError) as error:
        raise ImageError(f"{path}: it can't be read ({itk_reason(error)})") from None
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    return image


def image_writer(image: sitk.Image, compression: int = -1) -> Callable[[Path], None]:
    """A writer for `write_all` and `write_whole`: the image, compressed, in the format of the path's ending.

    `compression` is the format's own level; -1 takes its default. NIfTI turns axes that aren't at right angles (a
    tilted gantry) into others without a word, so the writer raises `RuntimeError` for it.
    """

    def write(path: Path) -> None:
        if path.name.endswith(_NIFTI) and not _at_right_angles(image):
            raise RuntimeError("NIfTI can't hold the axes of a tilted gantry, .nrrd and .mha can")
        with plain_path(path) as name:
            sitk.WriteImage(image, name, True, compression)

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
        ending = _endings(path)
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


def write_whole(path: str | Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer(temporary)` and moves what it wrote to `path`: the output appears whole or not at all.

    A file that was at `path` stays as it was on failure. `OutputError` if the output can't be written.
    """
    write_all([(path, writer)])


def write_record(path: str | Path, record: Any, indent: int = 2) -> None:
    """The JSON file that `records.read_record_file` reads; it appears whole or not at all. Raises `OutputError`."""
    text = json.dumps(record_dict(record), indent=indent) + "\n"
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_all(outputs: Iterable[tuple[str | Path, Callable[[Path], object]]]) -> None:
    """Calls `writer(temporary)` for every (path, writer), then moves all into place: all outputs appear, or none.

    A temporary file lies in its target's folder and has its endings, from which writers take the format. On failure
    the files that were there before stay. Raises `OutputError`.
    """
    pairs = []
    try:
        for target, writer in outputs:
            path = Path(target)
            temporary = path.with_name(f".{uuid4().hex[:12]}{_endings(path)}")
            pairs.append((temporary, path))
            with _as_output_error(path):
                if not path.parent.is_dir():
                    raise FileNotFoundError(2, "there is no such folder")
                if path.is_dir():
                    raise IsADirectoryError(21, "it is a folder")
                writer(temporary)
        for temporary, path in pairs:
            with _as_output_error(path):
                temporary.replace(path)
    finally:
        for temporary, _ in pairs:
            with suppress(OSError):
                temporary.unlink()


def _endings(path: Path) -> str:
    """The last one or two endings of a name, such as `.seg.nrrd`; none that is a part of the name by chance."""
    usual = [ending for ending in path.suffixes[-2:] if ending.isascii() and ending[1:].isalnum() and len(ending) < 9]
    return "".join(usual if path.suffix in usual else [])


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    """Turns what goes wrong while writing into an `OutputError` that names the output."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else itk_reason(error)
        raise OutputError(f"{path}: it can't be written ({reason})") from error


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keeps ITK's C++ warnings off standard error; errors still raise."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def itk_reason(error: Exception) -> str:
    """The one line of an ITK exception that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.split("ITK ERROR:")[-1] for line in lines if "ITK ERROR" in line] or lines[-1:]
    return (told or [type(error).__name__])[0].split("): ")[-1].strip().rstrip(".")[:160]


def name_too_long(error: OSError) -> str:
    """A line for a path that the system refuses because a name in it is too long; raises any other error again."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    return printable(f"{error.filename}: {error.strerror}")


def print_any_name() -> None:
    """Lets standard output show every path: what its encoding doesn't have is escaped, in place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def resource_path(package: Path, *parts: str) -> Path:
    """Path of a resource that ships with the package in the folder `package`.

    A wheel carries the resources inside the package; a source tree and Slicer's module folder keep them beside it.
    """
    inside = package / "Resources"
    return (inside if inside.is_dir() else package.parent / "Resources").joinpath(*parts)
