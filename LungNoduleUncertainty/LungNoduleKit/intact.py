"""Whether an image file is whole and says what is needed, looked at before SimpleITK reads it.

SimpleITK fills up what is missing: a NIfTI file that was cut off ends in zeros, which are water in HU; a compressed
NRRD or MetaImage file with a changed byte becomes noise; a header without the voxels' size means 1 mm, of `0.1.8` it
takes the 0.1, and one with 100 axes or with text that is no text ends the process. None of that is told. Here such
files are refused: fields that are missing, stand twice or aren't the numbers that they should be, voxels that are fewer
or more than the header says, compressed data whose checksum is wrong.

NRRD: https://teem.sourceforge.net/nrrd/format.html; MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation; NIfTI-1
and NIfTI-2: https://nifti.nimh.nih.gov/nifti-1 and nifti-2. Files of other kinds, and rare forms of these, are left to
SimpleITK.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import ImageError
from .nifti import nifti_version

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER_BYTES = 1 << 24
_BLOCK = 1 << 20
_LINE_END = 2  # bytes that may follow the voxels if they are the end of a line; others may shift the voxels
_ZEROS = 512  # as many zeros may follow in NIfTI, whose files some programs fill up to whole blocks
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
_VECTOR = rf"\(\s*{_NUMBER}(\s*,\s*{_NUMBER})*\s*\)"
_TEXT_NUMBER = re.compile(rf"{_NUMBER}|[-+]?(nan|inf)".encode(), re.IGNORECASE)
_FARTHEST_MM = 1e6
_LONGEST_NUMBER = 64  # characters
_NRRD_NUMBERS = {
    "space directions": re.compile(rf"(none|{_VECTOR})(\s+(none|{_VECTOR}))*", re.IGNORECASE),
    "space origin": re.compile(_VECTOR),
    "spacings": re.compile(rf"({_NUMBER}|nan)(\s+({_NUMBER}|nan))*", re.IGNORECASE),
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64"), 8),
    **dict.fromkeys(("int64_t", "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
    **{"float": 4, "double": 8},
}
_META_BYTES = {
    **{"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8},
    **{"LONG": 0, "ULONG": 0, "LONG_LONG": 8, "ULONG_LONG": 8},  # a LONG's size is that of the machine that wrote it
}
_META_NUMBERS = {  # to which power of the axes' number
    **dict.fromkeys(("ElementSpacing", "ElementSize", "Offset", "Position", "Origin"), 1),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 2),
}
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
# Of NIfTI-1 and NIfTI-2: the first byte that may be a voxel's; the kind of number that a size is, where sizes and data
# type stand, and of what kind and where the first voxel's place is.
_NIFTI = {1: (352, "h", 40, 70, "f", 108), 2: (544, "q", 16, 12, "q", 168)}


def check_intact(path: str | Path, warn: Callable[[str], object] | None = None) -> None:
    """Raises `ImageError`, with the reason, for an NRRD, MetaImage or NIfTI file that is incomplete or damaged.

    `warn` is called with a line for what is merely doubtful.
    """
    path = Path(path)
    check = next((check for endings, check in _CHECKS.items() if path.name.lower().endswith(endings)), None)
    if check is None:
        return
    try:
        check(path, warn or (lambda line: None))
    except (OSError, EOFError, zlib.error) as error:  # gzip's errors are OSErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: its data is damaged or cut off ({reason})") from None


def _nrrd(path: Path, warn: Callable[[str], object]) -> None:
    with open(path, "rb") as file:
        fields = _nrrd_fields(file, path)
        place = file.tell()
    if not fields.get("sizes"):
        raise ImageError(f"{path}: it can't be read (its header has no sizes)")
    sizes = _counts(fields["sizes"], path, "sizes")
    if len(sizes) >= 3 and not {"space directions", "spacings"} & fields.keys():
        raise ImageError(f"{path}: its header doesn't say how large the voxels are (no space directions)")
    for name, form in _NRRD_NUMBERS.items():
        if name in fields and not (form.fullmatch(fields[name]) and _in_reach(fields[name])):
            raise ImageError(f"{path}: its header says {name} {fields[name][:60]!r}, which can't be")
    if len(sizes) >= 3 and "space origin" not in fields:
        warn(f"{path}: it states no position (no space origin); places can't be told")
    wanted = prod(sizes) * _NRRD_BYTES.get(fields.get("type", "").lower(), 0)
    encoding = fields.get("encoding", "").lower()
    other = fields.get("data file", fields.get("datafile"))
    skipped = bool({"line skip", "lineskip", "byte skip", "byteskip"} & fields.keys())
    data, place = (path, place) if other is None else (_beside(path, other), 0)
    if encoding in ("ascii", "txt", "text"):
        _check_text(data, place, prod(sizes), path)
    elif wanted and data and not skipped and encoding in ("gzip", "gz", "raw"):
        _check_voxels(data, place, wanted, path, "raw" if encoding == "raw" else "gzip")


def _nrrd_fields(file: BinaryIO, path: Path) -> dict[str, str]:
    lines = _lines(file, path, end=b"")
    if not lines or not lines[0].startswith(b"NRRD"):
        raise ImageError(f"{path}: it can't be read (it isn't an NRRD file)")
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in lines[1:]:
        name, mark, value = _nrrd_entry(line)
        known = keys if mark == ":=" else fields
        if name in known and known[name] != value:
            raise ImageError(f"{path}: its header says {name!r} twice")
        known[name] = value
    return fields


def _nrrd_entry(line: bytes) -> tuple[str, str, str]:
    """(name, mark, value) of a header's line; a comment has no name."""
    text = line.decode("utf-8", "replace")
    found = re.match(r"([^#:][^:]*)(:=|:)\s*(.*)", text)
    if found is None:
        return "", "", ""
    name = found[1] if found[2] == ":=" else found[1].strip().lower()
    return name, found[2], found[3].strip()


def _metaimage(path: Path, warn: Callable[[str], object]) -> None:
    with open(path, "rb") as file:
        fields = _metaimage_fields(file, path)
        place = file.tell()
    axes = _counts(fields.get("NDims", ""), path, "NDims")
    if len(axes) != 1 or axes[0] > 4:
        raise ImageError(f"{path}: its header says that it has {fields.get('NDims')} axes")
    sizes = _counts(fields.get("DimSize", ""), path, "DimSize")
    if axes[0] >= 3 and not {"ElementSpacing", "ElementSize"} & fields.keys():
        raise ImageError(f"{path}: its header doesn't say how large the voxels are (no ElementSpacing)")
    for name, count in _META_NUMBERS.items():
        if name in fields and not _are_numbers(fields[name], axes[0] ** count):
            raise ImageError(f"{path}: its header says {name} {fields[name][:60]!r}, which can't be")
    if axes[0] >= 3 and not {"Offset", "Position", "Origin"} & fields.keys():
        warn(f"{path}: it states no position (no Offset); places can't be told")
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in _META_BYTES:
        raise ImageError(
            f"{path}: its header says ElementType {fields.get('ElementType', '')[:40]!r}, no kind of number"
        )
    channels = _counts(fields.get("ElementNumberOfChannels", "1"), path, "ElementNumberOfChannels")
    wanted = prod(sizes) * channels[0] * _META_BYTES[kind]
    name = fields.get("ElementDataFile", "")
    data, place = (path, place) if name.upper() == "LOCAL" else (_beside(path, name), 0)
    if not wanted or not data or "HeaderSize" in fields:
        return
    packed = _is_true(fields.get("CompressedData", ""))
    if packed and "CompressedDataSize" not in fields:
        raise ImageError(f"{path}: its header doesn't say how many bytes its compressed voxels have")
    if packed or _is_true(fields.get("BinaryData", "True")):  # as ITK has it where nothing is said
        _check_voxels(data, place, wanted, path, "zlib" if packed else "raw")
    else:
        _check_text(data, place, prod(sizes) * channels[0], path)
    # Without this number, or with a smaller one, ITK unpacks less than there is, and says nothing.
    stated, there = fields.get("CompressedDataSize", ""), data.stat().st_size - place
    if packed and not (stated.isdecimal() and int(stated) >= there):
        raise ImageError(f"{path}: its header says CompressedDataSize {stated[:40]!r}, but there are {there} bytes")


def _metaimage_fields(file: BinaryIO, path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _lines(file, path, end=b"ElementDataFile"):
        name, mark, value = line.decode("utf-8", "replace").partition("=")
        name, value = name.strip(), value.strip()
        if not mark and name:  # ITK reads no further, and takes the voxels to be of 1 mm
            raise ImageError(f"{path}: its header has a line that says nothing: {name[:40]!r}")
        if fields.setdefault(name, value) != value:
            raise ImageError(f"{path}: its header says {name!r} twice")
    return fields


def _is_true(word: str) -> bool:
    return word.lower() in ("true", "t", "1")


def _are_numbers(text: str, count: int) -> bool:
    parts = text.split()
    return len(parts) == count and all(re.fullmatch(_NUMBER, part) for part in parts) and _in_reach(text)


def _in_reach(text: str) -> bool:
    """Whether all numbers in a text are ones that the readers calculate with: of 1e308 they make 1."""
    return all(abs(float(number[0])) <= _FARTHEST_MM for number in re.finditer(_NUMBER, text))


def _nifti(path: Path, warn: Callable[[str], object]) -> None:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
        head = stream.read(540)
        found = nifti_version(head)
        if found is None:
            raise ImageError(f"{path}: it can't be read (its header isn't that of a NIfTI file)")
        order, version = found
        first, whole, size, data_type, real, place = _NIFTI[version]
        if len(head) < first - 4 or b"ni" in (head[344:346], head[4:6]):  # a pair's header
            return
        dim = struct.unpack_from(f"{order}8{whole}", head, size)
        kind, bits = struct.unpack_from(f"{order}2h", head, data_type)
        (start,) = struct.unpack_from(f"{order}{real}", head, place)
        sizes = dim[1 : max(0, min(dim[0], 7)) + 1]
        if not sizes or min(sizes) < 1:
            raise ImageError(f"{path}: its header says that its size is {list(sizes)}")
        if _NIFTI_BITS.get(kind, bits) != bits:
            raise ImageError(f"{path}: its header says {bits} bits a voxel, but data type {kind} has another number")
        if not first <= start <= _HEADER_BYTES:
            raise ImageError(f"{path}: its header says that the voxels begin at byte {start:g}")
        stream.seek(int(start))
        more = _check_size(stream, prod(sizes) * bits // 8, path, zeros=_ZEROS)
    if more:
        warn(f"{path}: {more} bytes follow its voxels; if they were put in before, the voxels are shifted")


_CHECKS = {(".nrrd", ".nhdr"): _nrrd, (".mha", ".mhd"): _metaimage, (".nii", ".nii.gz"): _nifti}


def _lines(file: BinaryIO, path: Path, end: bytes) -> list[bytes]:
    """The lines of a text header, to an empty one or to the one that begins with `end`, which is read too."""
    lines: list[bytes] = []
    while file.tell() < _HEADER_BYTES:
        line = file.readline(_HEADER_BYTES)
        bare = line.rstrip(b"\r\n")
        if not line or (not end and not bare):
            return lines
        lines.append(bare)
        if end and bare.replace(b" ", b"").startswith(end + b"="):
            return lines
    raise ImageError(f"{path}: its header doesn't end")


def _counts(text: str, path: Path, name: str) -> list[int]:
    """Whole numbers from 1 on."""
    parts = text.split()
    if not parts or not all(re.fullmatch(r"0*[1-9][0-9]{0,11}", part) for part in parts):
        raise ImageError(f"{path}: its header says {name} {text[:40]!r}, which can't be")
    return [int(part) for part in parts]


def _beside(path: Path, name: str) -> Path | None:
    """The file that holds a header's voxels; None where there are several, or none."""
    data = path.parent / name
    return data if name and name.upper() != "LIST" and "%" not in name and os.path.isfile(data) else None


def _check_voxels(data: Path, place: int, wanted: int, path: Path, form: str) -> None:
    """Refuses voxels, stored as they are (`raw`) or compressed (`gzip`, `zlib`), that aren't `wanted` bytes."""
    with open(data, "rb") as file:
        file.seek(place)
        if form == "gzip":
            with gzip.GzipFile(fileobj=file) as stream:
                _check_size(stream, wanted, path)
        else:
            _check_size(_Inflated(file) if form == "zlib" else file, wanted, path)


class _Inflated:
    """A zlib stream as a file that is read; raises zlib.error and EOFError where it is damaged or ends too early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._unpacker = file, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(_BLOCK)
            if not packed:
                raise EOFError("it ends too early")
            found = self._unpacker.decompress(packed, count)
            if found:
                return found
        return b""


def _check_size(stream: BinaryIO | gzip.GzipFile | _Inflated, wanted: int, path: Path, zeros: int = 0) -> int:
    """Refuses a stream, read to its end, unless it has `wanted` bytes, and after them at most an end of line.

    Returns how many bytes there are beyond, of which up to `zeros` may be zeros.
    """
    count, more = 0, b""
    while len(more) <= max(zeros, _LINE_END) and (block := stream.read(_BLOCK)):
        more += block[max(0, wanted - count) :]
        count += len(block)
    if count < wanted:
        raise ImageError(f"{path}: it holds {count} bytes of voxels, but its header says {wanted}")
    if len(more) <= _LINE_END and not more.strip(b"\r\n"):
        return 0
    if len(more) > zeros or more.strip(b"\0"):
        raise ImageError(f"{path}: it holds more than {wanted} bytes of voxels, but its header says {wanted}")
    return len(more)


def _check_text(data: Path | None, place: int, wanted: int, path: Path) -> None:
    """Refuses voxels as text that aren't so many numbers: NRRD's reader ends the process on long words."""
    if data is None:
        raise ImageError(f"{path}: voxels as text are read from one file only")
    with open(data, "rb") as file:
        file.seek(place)
        words = file.read().split()
    if len(words) != wanted:
        raise ImageError(f"{path}: it holds {len(words)} voxels as text, but its header says {wanted}")
    odd = next((w for w in words if len(w) > _LONGEST_NUMBER or not _TEXT_NUMBER.fullmatch(w)), None)
    if odd is not None:
        raise ImageError(f"{path}: {odd[:40]!r} among its voxels isn't a number")
