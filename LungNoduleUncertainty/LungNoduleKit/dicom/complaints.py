"""What the JPEG decoder in GDCM says of damaged pixels, which it decodes nevertheless.

The decoder (libjpeg) writes to the process' standard error that data is corrupt, and GDCM returns whatever came out.
There is no other way to know: lossless JPEG has no checksum, and the caller isn't told.
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
# libjpeg's warnings (jerror.h: JWRN_...) of data, as whole lines.
_COMPLAINT = re.compile(
    rb"^(?:Corrupt JPEG data|Premature end of JPEG|Inconsistent progression).*(?:\n|\Z)", re.MULTILINE
)


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
