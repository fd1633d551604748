"""Outputs that appear whole or not at all, also where the process is killed or the disk is full.

An output is written to a temporary file in its own folder, flushed to the disk, and renamed. Without the flush a power
failure may leave the new name with nothing in it. What a killed process leaves behind is named `.unfinished-*`; the
next write to the folder deletes it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from .errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# The machine is part of a temporary file's name: a process's number says nothing of other machines on a shared disk.
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_UNFINISHED = re.compile(r"\.unfinished-([0-9a-f]{8})-(\d+)-")
_OLD_SECONDS = 24 * 3600.0
_cleaned: set[tuple[Path, int]] = set()


def write_whole(path: str | Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer(temporary)` and moves what it wrote to `path`: the output appears whole or not at all.

    A file that was at `path` stays as it was on failure. `OutputError` if the output can't be written.
    """
    write_all([(path, writer)])


def write_all(outputs: Iterable[tuple[str | Path, Callable[[Path], object]]]) -> None:
    """Calls `writer(temporary)` for every (path, writer), then moves all into place: all outputs appear, or none.

    A temporary file lies in its target's folder and has its endings, from which writers take the format. On failure
    the files that were there before stay. All outputs are complete on the disk before the first one is moved, so that
    a kill can only leave some moved and others not; the order is that of `outputs`. Within a writer of another call it
    writes to the given path itself, which the outer call moves. Raises `OutputError`.
    """
    steps = [(Path(target), writer) for target, writer in outputs]
    if all(_UNFINISHED.match(path.name) for path, _ in steps):
        for path, writer in steps:
            writer(path)
        return
    with ExitStack() as temporaries:
        pairs = []
        for path, writer in steps:
            with as_output_error(path):
                _check_target(path)
                _clean(path.parent)
                temporary = _temporary(path)
                temporaries.callback(_remove, temporary)
                writer(temporary)
                _flush(temporary)
            pairs.append((temporary, path))
        _move_all(pairs)
    for folder in {path.parent for _, path in pairs}:
        with suppress(OSError):
            _flush(folder)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder` for the time of the `with` statement."""
    _clean(folder)
    temporary = _temporary(folder / "scratch")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        _remove(temporary)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside `path`, which it becomes at the end, in place of an older one; on failure it is removed.

    Everything is complete on the disk before the older folder goes. Raises `OutputError`.
    """
    path = Path(path)
    temporary, before = _temporary(path), _temporary(path)
    try:
        with as_output_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _clean(path.parent)
            temporary.mkdir()
        yield temporary
        with as_output_error(path):
            for file in temporary.rglob("*"):
                _flush(file)
            if path.exists():
                path.replace(before)
            try:
                temporary.replace(path)
            except BaseException:
                if before.exists():
                    before.replace(path)
                raise
            with suppress(OSError):
                _flush(path.parent)
    finally:
        _remove(temporary)
        _remove(before)


def _move_all(pairs: list[tuple[Path, Path]]) -> None:
    """Renames all, or, if one can't be renamed, none: what was there before is kept under a second name meanwhile."""
    moved: list[tuple[Path, Path | None]] = []
    with ExitStack() as kept:
        try:
            for temporary, path in pairs:
                with as_output_error(path):
                    before = _second_name(path) if len(pairs) > 1 and path.exists() else None
                    if before:
                        kept.callback(_remove, before)
                    temporary.replace(path)
                moved.append((path, before))
        except BaseException:
            for path, before in reversed(moved):
                with suppress(OSError):
                    if before:
                        before.replace(path)
                    else:
                        path.unlink()
            raise


def _second_name(path: Path) -> Path:
    second = _temporary(path)
    try:
        os.link(path, second)
    except OSError:  # a file system without hard links
        shutil.copy2(path, second)
    return second


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder")
    if path.is_dir():
        raise IsADirectoryError(21, "it is a folder")
    # A rename would put a file in the place of a device or a pipe.
    if path.exists() and not path.is_file():
        raise OSError(22, "it is a device or a pipe, not a file")


def _temporary(path: Path) -> Path:
    return path.with_name(f".unfinished-{_MACHINE}-{os.getpid()}-{uuid4().hex[:12]}{endings(path)}")


def endings(path: Path) -> str:
    """The last one or two endings of a name, such as `.seg.nrrd`; none that is a part of the name by chance."""
    usual = [ending for ending in path.suffixes[-2:] if ending.isascii() and ending[1:].isalnum() and len(ending) < 9]
    return "".join(usual if path.suffix in usual else [])


def _flush(path: Path) -> None:
    """Has the system write a file, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clean(folder: Path) -> None:
    """Deletes what killed processes left in a folder; once a folder and process, and never what still is written."""
    if (folder, os.getpid()) in _cleaned:
        return
    _cleaned.add((folder, os.getpid()))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _UNFINISHED.match(entry.name)
            if found and _is_left(entry, found[1], int(found[2])):
                _remove(Path(entry.path))


def _is_left(entry: os.DirEntry[str], machine: str, process: int) -> bool:
    """Whether the process that began a temporary file is gone; of other machines' files only the age is known."""
    if machine == _MACHINE and os.name == "posix":  # elsewhere signal 0 isn't a question
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD_SECONDS


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turns what goes wrong while writing into an `OutputError` that names the output."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else itk_reason(error)
        raise OutputError(f"{path}: it can't be written ({reason})") from error


def itk_reason(error: Exception) -> str:
    """The one line of an ITK exception that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.split("ITK ERROR:")[-1] for line in lines if "ITK ERROR" in line] or lines[-1:]
    return (told or [type(error).__name__])[0].split("): ")[-1].strip().rstrip(".")[:160]
