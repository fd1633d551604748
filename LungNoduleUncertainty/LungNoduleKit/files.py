"""Files: images read, outputs that appear whole or not at all, and where the files lie that ship with a package."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import SimpleITK as sitk

from .errors import ImageError, OutputError
from .records import record_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def read_image(path: str | Path) -> sitk.Image:
    """Any image file that SimpleITK knows; a fourth axis of length one is dropped. `ImageError` if it can't be read."""
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file or folder")
    with quiet_itk():
        if not sitk.ImageFileReader.GetImageIOFromFileName(str(path)):
            raise ImageError(f"{path}: it can't be read (it isn't an image file of a known format)")
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            raise ImageError(f"{path}: it can't be read ({itk_reason(error)})") from None
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    return image


def image_writer(image: sitk.Image) -> Callable[[Path], None]:
    """A writer for `write_all` and `write_whole`: the image, compressed, in the format of the path's ending."""
    return lambda path: sitk.WriteImage(image, str(path), useCompression=True)


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
            temporary = path.with_name(f".{uuid4().hex[:12]}{''.join(path.suffixes[-2:])}")
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


def resource_path(package: Path, *parts: str) -> Path:
    """Path of a resource that ships with the package in the folder `package`.

    A wheel carries the resources inside the package; a source tree and Slicer's module folder keep them beside it.
    """
    inside = package / "Resources"
    return (inside if inside.is_dir() else package.parent / "Resources").joinpath(*parts)
