"""Whether an image file is whole and says what is needed, looked at before SimpleITK reads it.

SimpleITK fills up what is missing: a NIfTI file that was cut off ends in zeros, which are water in HU; a compressed
NRRD or MetaImage file with a changed byte becomes noise; a header without the voxels' size means 1 mm, and one with 100
axes ends the process. None of that is told. Here such files are refused: fields that are missing or stand twice, voxels
that are fewer or more than the header says, compressed data whose checksum is wrong.

NRRD: https://teem.sourceforge.net/nrrd/format.html; MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation; NIfTI-1:
https://nifti.nimh.nih.gov/nifti-1. Files of other kinds, and rare forms of these, are left to SimpleITK.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

from .errors import ImageError

_HEADER_BYTES = 1 << 24
_BLOCK = 1 << 20
_MORE = 2  # bytes, such as the end of a line; more of them could stand before the voxels and shift them
_MORE_NIFTI = 512  # a NIfTI header says where the voxels begin, so that nothing can shift them
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
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}


def check_intact(path: str | Path) -> None:
    """Raises `ImageError`, with the reason, for an NRRD, MetaImage or NIfTI file that is incomplete or damaged."""
    path = Path(path)
    check = next((check for endings, check in _CHECKS.items() if path.name.lower().endswith(endings)), None)
    if check is None:
        return
    try:
        check(path)
    except (OSError, EOFError, zlib.error) as error:  # gzip's errors are OSErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: its data is damaged or cut off ({reason})") from None


def _nrrd(path: Path) -> None:
    with open(path, "rb") as file:
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
        if not fields.get("sizes"):
            raise ImageError(f"{path}: it can't be read (its header has no sizes)")
        sizes = _counts(fields["sizes"], path, "sizes")
        if len(sizes) >= 3 and not {"space directions", "spacings"} & fields.keys():
            raise ImageError(f"{path}: its header doesn't say how large the voxels are (no space directions)")
        wanted = prod(sizes) * _NRRD_BYTES.get(fields.get("type", "").lower(), 0)
        encoding = fields.get("encoding", "").lower()
        plain = not {"line skip", "lineskip", "byte skip", "byteskip", "data file", "datafile"} & fields.keys()
        if wanted and plain and encoding in ("gzip", "gz"):
            with gzip.GzipFile(fileobj=file) as stream:
                _check_size(_length(stream, wanted + _MORE), wanted, path)
        elif wanted and plain and encoding == "raw":
            _check_size(path.stat().st_size - file.tell(), wanted, path)


def _nrrd_entry(line: bytes) -> tuple[str, str, str]:
    """(name, mark, value) of a header's line; a comment has no name."""
    text = line.decode("utf-8", "replace")
    found = re.match(r"([^#:][^:]*)(:=|:)\s*(.*)", text)
    if found is None:
        return "", "", ""
    name = found[1] if found[2] == ":=" else found[1].strip().lower()
    return name, found[2], found[3].strip()


def _metaimage(path: Path) -> None:
    with open(path, "rb") as file:
        lines = _lines(file, path, end=b"ElementDataFile")
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode("utf-8", "replace").partition("=")
            name, value = name.strip(), value.strip()
            if fields.setdefault(name, value) != value:
                raise ImageError(f"{path}: its header says {name!r} twice")
        axes = _counts(fields.get("NDims", ""), path, "NDims")
        if len(axes) != 1 or axes[0] > 4:
            raise ImageError(f"{path}: its header says that it has {fields.get('NDims')} axes")
        sizes = _counts(fields.get("DimSize", ""), path, "DimSize")
        if axes[0] >= 3 and not {"ElementSpacing", "ElementSize"} & fields.keys():
            raise ImageError(f"{path}: its header doesn't say how large the voxels are (no ElementSpacing)")
        kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
        channels = _counts(fields.get("ElementNumberOfChannels", "1"), path, "ElementNumberOfChannels")
        wanted = prod(sizes) * channels[0] * _META_BYTES.get(kind, 0)
        if not wanted or fields.get("ElementDataFile", "").upper() != "LOCAL" or "HeaderSize" in fields:
            return
        if fields.get("CompressedData", "").lower() in ("true", "t", "1"):
            if "CompressedDataSize" not in fields:  # without it ITK unpacks less than there is, and says nothing
                raise ImageError(f"{path}: its header doesn't say how many bytes its compressed voxels have")
            _check_size(_inflated(file, wanted + _MORE), wanted, path)
        elif fields.get("BinaryData", "").lower() in ("true", "t", "1"):
            _check_size(path.stat().st_size - file.tell(), wanted, path)


def _nifti(path: Path) -> None:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
        head = stream.read(352)
        order = next((o for o in "<>" if head[:4] == struct.pack(f"{o}i", 348)), None)
        if order is None or len(head) < 348 or head[344:347] != b"n+1":  # NIfTI-2, ANALYZE, a pair, or none of them
            return
        dim = struct.unpack_from(f"{order}8h", head, 40)
        kind, bits = struct.unpack_from(f"{order}2h", head, 70)
        (start,) = struct.unpack_from(f"{order}f", head, 108)
        sizes = dim[1 : max(0, min(dim[0], 7)) + 1]
        if not sizes or min(sizes) < 1:
            raise ImageError(f"{path}: its header says that its size is {list(sizes)}")
        if _NIFTI_BITS.get(kind, bits) != bits:
            raise ImageError(f"{path}: its header says {bits} bits a voxel, but data type {kind} has another number")
        if not 352 <= start <= _HEADER_BYTES:
            raise ImageError(f"{path}: its header says that the voxels begin at byte {start:g}")
        wanted, before = prod(sizes) * bits // 8, len(head) - int(start)
        _check_size(before + _length(stream, wanted + _MORE_NIFTI - before), wanted, path, _MORE_NIFTI)


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


def _length(stream: BinaryIO | gzip.GzipFile, enough: int) -> int:
    """How many bytes follow, counted until there are more than `enough`; a gzip stream is checked on the way."""
    count = 0
    while count <= enough and (block := stream.read(_BLOCK)):
        count += len(block)
    return count


def _inflated(file: BinaryIO, enough: int) -> int:
    """The same of a zlib stream, checked to its end. Raises zlib.error and EOFError."""
    unpacker, count, rest = zlib.decompressobj(), 0, b""
    while count <= enough and not unpacker.eof:
        rest = rest or file.read(_BLOCK)
        if not rest:
            raise EOFError("it ends too early")
        count += len(unpacker.decompress(rest, _BLOCK))
        rest = unpacker.unconsumed_tail
    return count


def _check_size(there: int, wanted: int, path: Path, more: int = _MORE) -> None:
    if not wanted <= there <= wanted + more:
        held = f"{max(there, 0)} bytes" if there < wanted else f"more than {wanted} bytes"
        raise ImageError(f"{path}: it holds {held} of voxels, but its header says {wanted}")
