"""Decimal points in files, whatever the locale of the process.

ITK's reader and writer of NRRD use the C library's `strtod` and `printf`, which obey the locale. Qt applications set
the locale of the user's system; under one with decimal commas 1.25 mm is read as 1 mm, and written as `1,25`, which
nothing can read.
"""

from __future__ import annotations

import ctypes
import locale
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# LC_NUMERIC_MASK of <locale.h>: of glibc and musl, and of macOS and the BSDs.
_NUMERIC_MASK = 1 << 4 if sys.platform == "darwin" else 1 << 1


@contextmanager
def decimal_points() -> Iterator[None]:
    """Numbers in text have decimal points inside of the `with` statement, for this thread alone.

    `setlocale` would change the numbers of the whole process, of threads at work in the application too, and two
    threads that both set and restore it could leave it changed for good. A thread's own locale has none of this.
    """
    if sys.platform == "win32":
        with _windows_thread():
            yield
        return
    libc = _posix()
    # Only the numbers change: the character set, which the names of files are in, stays that of the thread.
    wanted = libc.newlocale(_NUMERIC_MASK, b"C", libc.duplocale(libc.uselocale(None)))
    if not wanted:  # out of memory, or no such function's "C": nothing that could be helped here
        yield
        return
    before = libc.uselocale(wanted)
    try:
        yield
    finally:
        libc.uselocale(before)
        libc.freelocale(wanted)


def _posix() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.newlocale.restype, libc.newlocale.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    libc.freelocale.restype, libc.freelocale.argtypes = None, (ctypes.c_void_p,)
    for function in (libc.uselocale, libc.duplocale):
        function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    return libc


@contextmanager
def _windows_thread() -> Iterator[None]:
    """Windows: `setlocale` of a thread that was told to have a locale of its own."""
    runtime = ctypes.CDLL("ucrtbase")
    runtime.setlocale.restype = ctypes.c_char_p
    runtime.setlocale.argtypes = (ctypes.c_int, ctypes.c_char_p)
    own = runtime._configthreadlocale(1)
    before = runtime.setlocale(locale.LC_NUMERIC, None)
    runtime.setlocale(locale.LC_NUMERIC, b"C")
    try:
        yield
    finally:
        runtime.setlocale(locale.LC_NUMERIC, before)
        runtime._configthreadlocale(own)
