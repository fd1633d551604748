"""Errors that name the input and the reason; everything that a user can cause derives from `NoduleError`."""

import io
import reprlib
import sys

_LONGEST = 80  # characters of a value in a message
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _LONGEST


class NoduleError(Exception):
    """An input that can't be processed. The message is one line: which input, and why."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: object) -> str:
    """A text as one line that every output can hold: line breaks, control characters and undecodable bytes escaped.

    Names of files may have any of them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def shown(value: object) -> str:
    """A value as a message shows it: its `repr`, with what is too long or too deep left out."""
    try:
        return shortened(_REPR.repr(value))
    except Exception:  # a whole number of more digits than Python writes, a repr that fails
        return f"a value of the type {type(value).__name__}"


def shortened(text: object, most: int = _LONGEST) -> str:
    """A text of at most so many characters, with `...` in place of what is left out of its middle."""
    whole = str(text)
    if len(whole) <= most:
        return whole
    end = (most - 3) // 3
    return f"{whole[: most - 3 - end]}...{whole[-end:]}"


def print_any_name() -> None:
    """Lets standard output show every path: what its encoding doesn't have is escaped, in place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class ImageError(NoduleError):
    """An image can't be read, or isn't what is needed: a scalar 3D image with sound geometry and finite values."""


class MaskError(ImageError):
    """A mask is empty, isn't an array of two or three axes or doesn't fit the other masks or the image."""


class PointError(NoduleError):
    """The point lies outside the volume or isn't three finite numbers."""


class NoNoduleError(NoduleError):
    """No nodule was found at the point."""


class BundleError(NoduleError):
    """A model bundle is missing, incomplete, corrupted or was changed after it was written."""


class OutputError(NoduleError):
    """An output can't be written; nothing half-written is left behind."""
