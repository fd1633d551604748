"""JPEG pixels that are damaged: what GDCM doesn't survive, and what it decodes nevertheless.

GDCM ends the process on pixels of more than 16 bits. Of corrupt data its decoder (libjpeg) writes to the process'
standard error, and GDCM returns whatever came out. There is no other way to know: lossless JPEG has no checksum, and
the caller isn't told.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STANDARD_ERROR = 2
_MARKER, _MOST_BITS = 0xFF, 16
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 (ITU-T T.81, table B.1)
# libjpeg's warnings (jerror.h: JWRN_...) of data, as whole lines.
_COMPLAINT = re.compile(
    rb"^(?:Corrupt JPEG data|Premature end of JPEG|Inconsistent progression).*(?:\n|\Z)", re.MULTILINE
)


def check_precision(stream: bytes) -> None:
    """Raises ValueError for a JPEG stream whose header says that a pixel has more bits than GDCM can decode."""
    place = 2
    while place + 5 <= len(stream) and stream[place] == _MARKER:
        kind, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if kind in _FRAMES:
            if not 1 <= stream[place + 4] <= _MOST_BITS:
                raise ValueError(f"its JPEG pixels are said to have {stream[place + 4]} bits")
            return
        place += 2 + length if kind != _MARKER else 1  # bytes of 255 may precede a marker


@contextmanager
def decoder_complaints() -> Iterator[list[str]]:
    """A list that holds, once the context ends, what the JPEG decoder complained of.

    Standard error goes to a temporary file meanwhile; what others wrote to it is passed on. Where there is no standard
    error, as in applications without a console, the list stays empty.
    """
    found: list[str] = []
    try:
        kept = os.dup(_STANDARD_ERROR)
    except OSError:
        yield found
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), _STANDARD_ERROR)
        try:
            yield found
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            written.seek(0)
            said = written.read()
            found += [line.decode("ascii", "replace").strip() for line in _COMPLAINT.findall(said)]
            if others := _COMPLAINT.sub(b"", said):
                with suppress(OSError):
                    os.write(_STANDARD_ERROR, others)
