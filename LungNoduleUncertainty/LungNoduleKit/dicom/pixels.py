"""How a DICOM file stores its pixels, and where in the file they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

_DEFLATED = "1.2.840.10008.1.2.1.99"
_BLOCK = 512  # bytes, or a multiple: what some media and archives fill files up to
_PADDED = 2  # bytes that may follow the pixels: values have an even number of bytes
_UNDEFINED = 0xFFFFFFFF
# Value representations whose length has 32 bits (DICOM PS3.5, section 7.1.2).
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


@dataclass(frozen=True)
class Pixels:
    """Of one file; all of its frames are stored alike."""

    rows: int
    columns: int
    frames: int
    allocated: int
    """Bits of a pixel in the file: 8, 16 or 32"""
    stored: int
    """Bits of these that hold the value (BitsStored)"""
    high: int
    """The highest of them (HighBit)"""
    signed: bool
    little: bool
    """Byte order, little endian"""
    syntax: str
    """UID of the transfer syntax"""
    offset: int | None
    """Where the first pixel lies in the file; None where the file has to be unpacked first"""
    padding: tuple[int, int] | None
    """Lowest and highest stored value that stand for "no value", as the header has them"""
    overlay: bool
    """Whether unused bits hold an overlay"""
    zeros: int
    """How many zeros that belong to nothing follow the pixels"""

    @property
    def frame_bytes(self) -> int:
        """Bytes of an unpacked frame."""
        return self.rows * self.columns * self.allocated // 8

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value that the stored bits can hold."""
        half = 1 << (self.stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def pixels_of(dataset: Dataset, stream: BinaryIO) -> Pixels | str:
    """The pixels of a file whose `stream` stands before its pixel data; a text says why they can't be read."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") if hasattr(dataset, "file_meta") else "")
    implicit, little = dataset.original_encoding
    numbers = {}
    for name, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1), ("BitsAllocated", 0)):
        numbers[name] = _whole(dataset, name, default)
    rows, columns, frames, allocated = numbers.values()
    stored = _whole(dataset, "BitsStored", allocated)
    high = _whole(dataset, "HighBit", stored - 1)
    sign = _whole(dataset, "PixelRepresentation", 0)
    if min(rows, columns, frames) < 1:
        return "damaged: it has no rows, columns or frames"
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        return f"pixels of {allocated} bits with {stored} stored up to bit {high} aren't read"
    if sign not in (0, 1):
        return f"damaged: PixelRepresentation is {sign}"
    unpacked = not _is_compressed(syntax)
    offset, zeros = None, 0
    if syntax != _DEFLATED:
        found = _value_at(stream, bool(implicit), bool(little))
        if found is None:
            return "it has no pixel data, or ends before them"
        offset, length = found
        size = os.fstat(stream.fileno()).st_size
        wanted = frames * rows * columns * allocated // 8
        if unpacked and (length < wanted or length == _UNDEFINED or offset + wanted > size):
            there = min(length, max(size - offset, 0))
            return f"cut off: {there} of {wanted} bytes of its pixels are there"
        if unpacked and length > wanted + _PADDED:
            return f"damaged: {length} bytes of pixels where its size says {wanted}"
        if length != _UNDEFINED and offset + length > size:
            return f"cut off: {size - offset} of {length} bytes of its pixels are there"
        behind = size - offset - length
        if length != _UNDEFINED and behind:
            found_zeros = _zeros_behind(stream, offset + length, size, bool(implicit), bool(little))
            if found_zeros is None:
                return f"damaged: what follows its pixels, {behind} bytes, is nothing that DICOM has there"
            zeros = found_zeros
    return Pixels(
        rows,
        columns,
        frames,
        allocated,
        stored,
        high,
        bool(sign),
        bool(little),
        syntax,
        offset if unpacked else None,
        _padding(dataset),
        _has_overlay(dataset),
        zeros,
    )


def _is_compressed(syntax: str) -> bool:
    from pydicom.uid import UID

    try:
        return bool(syntax) and UID(syntax).is_encapsulated
    except ValueError:
        return False


@cache
def tag_of(name: str) -> BaseTag:
    """The tag of an attribute by its keyword."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    return Tag(tag_for_keyword(name) or name)


def value_of(dataset: Dataset, name: str) -> Any:
    """The value of an attribute; None where the data set doesn't have it. Several times as fast as by name."""
    tag = tag_of(name)
    return dataset[tag].value if tag in dataset else None


def _whole(dataset: Dataset, name: str, default: int) -> int:
    value = value_of(dataset, name)
    return default if value is None or value == "" else int(value)


def _value_at(stream: BinaryIO, implicit: bool, little: bool) -> tuple[int, int] | None:
    """(place in the file, length) of the value of the pixel data that `stream` stands before; None if it doesn't."""
    start, head = stream.tell(), stream.read(12)
    order: Literal["little", "big"] = "little" if little else "big"
    tag = [int.from_bytes(head[at : at + 2], order) for at in (0, 2)]
    if tag != [0x7FE0, 0x0010] or len(head) < 12:
        return None
    if implicit:
        return start + 8, int.from_bytes(head[4:8], order)
    return start + 12, int.from_bytes(head[8:12], order)


def _zeros_behind(stream: BinaryIO, place: int, size: int, implicit: bool, little: bool) -> int | None:
    """How many zeros follow the data elements that stand between a place and the file's end.

    None where anything else is there: bytes that were put in among the pixels push others out. Zeros that fill the file
    up to a whole block count as 0.
    """
    order: Literal["little", "big"] = "little" if little else "big"
    while place < size:
        stream.seek(place)
        head = stream.read(12)
        if not any(head):
            return None if any(stream.read()) else 0 if size % _BLOCK == 0 else size - place
        group, number = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
        kind = b"UN" if implicit else head[4:6]
        if len(head) < 8 or (group, number) <= (0x7FE0, 0x0010) or not (kind.isalpha() and kind.isupper()):
            return None
        begin, count = (8, 4) if implicit else (12, 4) if kind in _LONG else (8, 2)
        length = int.from_bytes(head[begin - count : begin], order)
        if length == _UNDEFINED and count == 4:  # a sequence, which isn't followed
            return 0
        place += begin + length
    return 0 if place == size else None


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    try:
        first, last = (value_of(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
        ends = [int(end) for end in (first, last) if end is not None]
    except (TypeError, ValueError):
        return None
    return None if first is None else (min(ends), max(ends))


def _has_overlay(dataset: Dataset) -> bool:
    groups = range(0x6000, 0x6020, 2)
    return any((group, 0x0010) in dataset and (group, 0x3000) not in dataset for group in groups)
