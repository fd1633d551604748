"""Image files: NRRD, MetaImage, NIfTI and Slicer segmentations, damaged in their headers and in their voxels."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

import damage
from damage import Rng, pick
from seeds import SMALL, Ball, parts, readers

Field = tuple[str, str]  # a header's key with what separates it from its value, and the value
NRRD_VALUES = {
    "type": (
        "short",
        "unsigned short",
        "int16",
        "uchar",
        "float",
        "double",
        "block",
        "int",
        "long long int",
        "",
        "int99",
    ),
    "dimension": ("2", "4", "1", "0", "16", "17", "-1", "x", ""),
    "space": ("right-anterior-superior", "LAS", "left-posterior-superior-time", "scanner-xyz", "", "3", "nonsense"),
    "endian": ("big", "little", "middle", ""),
    "encoding": ("raw", "gzip", "gz", "bzip2", "ascii", "txt", "hex", "zrl", "", "nonsense"),
    "kinds": (
        "domain domain",
        "domain domain domain domain",
        "list domain domain",
        "vector domain domain",
        "x y z",
        "",
    ),
}
MHA_VALUES = {
    "ObjectType": ("Mesh", "", "image", "Tube"),
    "NDims": ("2", "4", "0", "-1", "100", "x", ""),
    "BinaryData": ("False", "", "true", "maybe"),
    "BinaryDataByteOrderMSB": ("True", "", "1"),
    "CompressedData": ("True", "False", ""),
    "ElementType": (
        "MET_USHORT",
        "MET_UCHAR",
        "MET_FLOAT",
        "MET_DOUBLE",
        "MET_STRING",
        "MET_NONE",
        "",
        "MET_SHORT_ARRAY",
    ),
    "ElementDataFile": ("ct.raw", "LIST", "", "/etc/hostname", "../x.raw", "ct%03d.raw 1 12 1"),
    "AnatomicalOrientation": ("RAI", "LPS", "???", ""),
}
NIFTI_FIELDS = (  # name, offset, format
    *(("sizeof_hdr", 0, "i"), ("dim", 40, "8h"), ("datatype", 70, "h"), ("bitpix", 72, "h"), ("pixdim", 76, "8f")),
    *(("vox_offset", 108, "f"), ("scl_slope", 112, "f"), ("scl_inter", 116, "f"), ("xyzt_units", 123, "B")),
    *(("qform_code", 252, "h"), ("sform_code", 254, "h"), ("quatern", 256, "3f"), ("qoffset", 268, "3f")),
    *(("srow_x", 280, "4f"), ("srow_y", 296, "4f"), ("srow_z", 312, "4f"), ("magic", 344, "i")),
)
ODD_FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e30, 1e-30, 1000.0, 0.001, 2.0, 1e300)


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(f"{v:g}" for v in values) + ")"


def nrrd_fields(ball: Ball, array: np.ndarray, encoding: str, endian: str) -> list[Field]:
    """The header of an array (slice, row, column), or (slice, row, column, layer)."""
    layers = array.ndim == 4
    kind = {"i2": "short", "u1": "unsigned char", "f4": "float"}[array.dtype.str[1:]]
    steps = " ".join(_vector(step) for step in ball.matrix.T)
    return [
        ("type: ", kind),
        ("dimension: ", str(array.ndim)),
        ("space: ", "left-posterior-superior"),
        ("sizes: ", " ".join(str(n) for n in array.shape[::-1])),
        ("space directions: ", ("none " if layers else "") + steps),
        ("kinds: ", ("list " if layers else "") + "domain domain domain"),
        ("endian: ", endian),
        ("encoding: ", encoding),
        ("space origin: ", _vector(np.asarray(ball.origin))),
    ]


def _joined(magic: str, fields: list[Field], body: bytes, end: str = "\n") -> tuple[bytes, int]:
    """(content, where the voxels begin)."""
    lines = ([magic] if magic else []) + [name + value for name, value in fields]
    head = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape") + end.encode()
    return head + body, len(head)


def _other_fields(rng: Rng, fields: list[Field], words: dict[str, tuple[str, ...]]) -> tuple[list[Field], str]:
    """One header line changed, taken out, doubled with another value, moved, or put in."""
    out, form, n = list(fields), int(rng.integers(12)), int(rng.integers(len(fields)))
    name, value = out[n]
    shown = name.strip(" :=")
    if form <= 5:
        new = _other_value(rng, value, words.get(shown))
        out[n] = (name, new)
        return out, f"{shown} {new[:60]!r} in place of {value[:60]!r}"
    if form <= 7:
        del out[n]
        return out, f"without {shown}"
    if form == 8:
        new = _other_value(rng, value, words.get(shown))
        out.insert(int(rng.integers(n, len(out))) + 1, (name, new))
        return out, f"{shown} twice, also {new[:60]!r}"
    if form == 9:
        order = rng.permutation(len(out))
        return [out[k] for k in order], "lines shuffled"
    if form == 10:
        line = pick(
            rng,
            ("spacings: 2 2 2", 'units: "m" "m" "m"', "old min: 3", "thicknesses: 1 nan 1", "x", ":=", "\udcff\udcfe"),
        )
        out.insert(n, (line, ""))
        return out, f"line {line!r} put in"
    out[n] = (pick(rng, (name.upper(), name.replace(" ", ""), " " + name, name + " ", name[:-1])), value)
    return out, f"{shown} written {out[n][0]!r}"


def _other_value(rng: Rng, value: str, words: tuple[str, ...] | None) -> str:
    """Another word where there are words, or an odd number in place of one of a value's numbers."""
    if words and rng.random() < 0.8:
        return pick(rng, words)
    parts = value.replace("(", "").replace(")", "").replace(",", " ").split()
    if rng.random() < 0.15 or not parts:
        return pick(
            rng,
            ("", "none", "()", "(0,0,0) (0,0,0) (0,0,0)", "1", "nan nan nan", value + " 1", value[: len(value) // 2]),
        )
    old = pick(rng, parts)
    try:
        return value.replace(old, damage.odd_number(rng, float(old)), 1)
    except ValueError:
        return value.replace(old, damage.odd_number(rng, 1.0), 1)


def _finish(
    rng: Rng, magic: str, fields: list[Field], body: bytes, words: dict[str, tuple[str, ...]], end: str
) -> tuple[bytes, str]:
    """A text header and its voxels, damaged once or a few times."""
    told = []
    for _ in range(int(pick(rng, (1, 1, 1, 1, 2, 3)))):
        form = rng.random()
        if form < 0.62:
            fields, what = _other_fields(rng, fields, words)
        elif form < 0.66 and magic:
            magic = pick(rng, ("NRRD0001", "NRRD0009", "NRRD", "nrrd0004", "", "NRRD0005\r"))
            what = f"magic {magic!r}"
        elif form < 0.72:
            body, what = damage.any_bytes(rng, body)
            what = f"voxels {what}"
        elif form < 0.8:
            body, what = damage.flipped(rng, body)
            what = f"voxels: {what}"
        else:
            content, start = _joined(magic, fields, body, end)
            if form < 0.9:
                content, what = damage.flipped(rng, content, 0, start)
                return content, "; ".join([*told, f"header {what}"])
            content, what = damage.any_bytes(rng, content)
            return content, "; ".join([*told, what])
        told.append(what)
    return _joined(magic, fields, body, end)[0], "; ".join(told)


def _voxels(rng: Rng, ball: Ball) -> tuple[np.ndarray, str]:
    """HU, sometimes as float, sometimes with voxels that no CT has."""
    array = ball.hu()
    form = rng.random()
    if form < 0.8:
        return array, ""
    real = array.astype(np.float32)
    if form > 0.9:
        where = tuple(int(rng.integers(n)) for n in array.shape) if form < 0.95 else tuple(n // 2 for n in array.shape)
        real[where] = pick(rng, (np.nan, np.inf, -np.inf, 1e30))
        return real, f"voxel {where} {real[where]}"
    return real, "float"


def nrrd(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """An NRRD file: raw or gzip, of either byte order, also with its voxels in another file."""
    array, told = _voxels(rng, ball)
    encoding, endian = pick(rng, ("raw", "gzip")), pick(rng, ("little", "little", "big"))
    stored = array.astype(array.dtype.newbyteorder("<" if endian == "little" else ">"))
    body = gzip.compress(stored.tobytes(), 1, mtime=0) if encoding == "gzip" else stored.tobytes()
    fields = nrrd_fields(ball, array, encoding, endian)
    if rng.random() < 0.1:
        (folder / "ct.raw").write_bytes(body)
        name = pick(
            rng, ("ct.raw", "ct.raw", "gone.raw", "", "LIST", "ct%d.raw 1 3 1", "../input/ct.raw", "/etc/hostname")
        )
        content, what = _finish(rng, "NRRD0004", [*fields, ("data file: ", name)], b"", NRRD_VALUES, "\n")
        path = folder / "ct.nhdr"
    else:
        content, what = _finish(rng, "NRRD0004", fields, body, NRRD_VALUES, "\n")
        path = folder / "ct.nrrd"
    path.write_bytes(content)
    return path, "; ".join(filter(None, [told, what]))


def metaimage(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """A MetaImage file."""
    array, told = _voxels(rng, ball)
    packed = rng.random() < 0.4
    body = __import__("zlib").compress(array.tobytes()) if packed else array.tobytes()
    fields = [
        ("ObjectType = ", "Image"),
        ("NDims = ", "3"),
        ("BinaryData = ", "True"),
        ("BinaryDataByteOrderMSB = ", "False"),
        ("CompressedData = ", str(packed)),
        *([("CompressedDataSize = ", str(len(body)))] if packed else []),
        ("TransformMatrix = ", "1 0 0 0 1 0 0 0 1"),
        ("Offset = ", " ".join(f"{v:g}" for v in ball.origin)),
        ("CenterOfRotation = ", "0 0 0"),
        ("AnatomicalOrientation = ", "RAI"),
        ("ElementSpacing = ", " ".join(f"{v:g}" for v in ball.spacing)),
        ("DimSize = ", " ".join(str(n) for n in ball.size)),
        ("ElementType = ", "MET_SHORT" if array.dtype == np.int16 else "MET_FLOAT"),
        ("ElementDataFile = ", "LOCAL"),
    ]
    content, what = _finish(rng, "", fields, body, MHA_VALUES, "")
    path = folder / "ct.mha"
    path.write_bytes(content)
    return path, "; ".join(filter(None, [told, what]))


def nifti_header(ball: Ball, kind: int, bits: int) -> bytearray:
    """A NIfTI header whose sform and qform agree. NIfTI is RAS."""
    head = bytearray(352)
    x, y, z = ball.spacing
    ox, oy, oz = -ball.origin[0], -ball.origin[1], ball.origin[2]
    values: dict[str, tuple[float | int, ...]] = {
        "sizeof_hdr": (348,),
        "dim": (3, *ball.size, 1, 1, 1, 1),
        "datatype": (kind,),
        "bitpix": (bits,),
        "pixdim": (1.0, x, y, z, 0, 0, 0, 0),
        "vox_offset": (352.0,),
        "scl_slope": (1.0,),
        "scl_inter": (0.0,),
        "xyzt_units": (2,),
        "qform_code": (1,),
        "sform_code": (1,),
        "quatern": (0.0, 0.0, 1.0),  # turned by 180 degrees about z
        "qoffset": (ox, oy, oz),
        "srow_x": (-x, 0, 0, ox),
        "srow_y": (0, -y, 0, oy),
        "srow_z": (0, 0, z, oz),
        "magic": (int.from_bytes(b"n+1\0", "little"),),
    }
    for name, offset, form in NIFTI_FIELDS:
        struct.pack_into(f"<{form}", head, offset, *values[name])
    return head


def _odd_field(rng: Rng, head: bytearray) -> str:
    """One number of the header becomes another one."""
    name, offset, form = pick(rng, NIFTI_FIELDS)
    count, letter = (int(form[:-1]), form[-1]) if len(form) > 1 else (1, form)
    place = offset + int(rng.integers(count)) * struct.calcsize(f"<{letter}")
    (old,) = struct.unpack_from(f"<{letter}", head, place)
    if letter == "f":
        new: float | int = pick(rng, ODD_FLOATS) if rng.random() < 0.5 else old * pick(rng, damage.FACTORS)
        new = float(np.float32(np.clip(new, -3e38, 3e38))) if np.isfinite(new) else new
    else:
        bits = 8 * struct.calcsize(f"<{letter}")
        low, high = (0, 2**bits) if letter == "B" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        new = int(pick(rng, (*damage.LARGE_COUNTS, 4, 8, 16, 64, 512, 768)))
        new = (new - low) % (high - low) + low
    struct.pack_into(f"<{letter}", head, place, new)
    return f"{name} {new:g} in place of {old:g}"


def _swapped(head: bytearray) -> bytearray:
    """The header in the other byte order."""
    out = bytearray(head)
    for _, offset, form in NIFTI_FIELDS[:-1]:
        struct.pack_into(f">{form}", out, offset, *struct.unpack_from(f"<{form}", head, offset))
    return out


def nifti(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """A NIfTI file, mostly gzip-compressed."""
    array, note = _voxels(rng, ball)
    real = array.dtype == np.float32
    told, head = [note] if note else [], nifti_header(ball, 16 if real else 4, 32 if real else 16)
    for _ in range(int(pick(rng, (0, 1, 1, 1, 2)))):
        told.append(_odd_field(rng, head))
    body = array.tobytes()
    if rng.random() < 0.1:
        head, told = _swapped(head), [*told, "header big-endian"]
        body = body if rng.random() < 0.3 else array.astype(array.dtype.newbyteorder(">")).tobytes()
    content = bytes(head) + body
    form = rng.random()
    if not told or form < 0.1:
        content, what = damage.flipped(rng, content, 0, 352) if form < 0.5 else damage.flipped(rng, content, 352)
        told.append(what)
    elif form < 0.15:
        content, what = damage.any_bytes(rng, content)
        told.append(what)
    path = folder / pick(rng, ("ct.nii.gz", "ct.nii.gz", "ct.nii"))
    if path.suffix == ".gz":
        content = gzip.compress(content, 1, mtime=0)
        if form > 0.9:
            content, what = damage.any_bytes(rng, content) if form < 0.95 else damage.flipped(rng, content)
            told.append(f"compressed {what}")
    path.write_bytes(content)
    return path, "; ".join(told)


def segmentation_fields(ball: Ball, array: np.ndarray, encoding: str, shared: bool) -> list[Field]:
    """The header of a Slicer segmentation with three segments, each in its layer or all in one."""
    fields = [f for f in nrrd_fields(ball, array, encoding, "little") if not f[0].startswith("endian")]
    for n in range(3):
        own = {
            "ID": f"Segment_{n + 1}",
            "Name": f"reader {n + 1}",
            "Color": "0.5 0.7 0.5",
            "LabelValue": str(n + 1 if shared else 1),
            "Layer": str(0 if shared else n),
            "Extent": f"0 {ball.size[0] - 1} 0 {ball.size[1] - 1} 0 {ball.size[2] - 1}",
            "Tags": "TerminologyEntry:Segmentation category|",
        }
        fields += [(f"Segment{n}_{key}:=", value) for key, value in own.items()]
    return [
        *fields,
        ("Segmentation_ContainedRepresentationNames:=", "Binary labelmap|"),
        ("Segmentation_MasterRepresentation:=", "Binary labelmap"),
        ("Segmentation_ReferenceImageExtentOffset:=", "0 0 0"),
    ]


SEGMENT_WORDS = {
    f"Segment{n}_{key}": words
    for n in range(3)
    for key, words in {
        "LabelValue": ("0", "2", "3", "4", "-1", "1.0", "x", "", "99999999999", "²"),
        "Layer": ("0", "1", "2", "3", "-1", "x", "", "99999999999", "²"),
        "Name": ("", "reader 1", "reader 2", "a:=b", "ä", "x" * 300),
        "Extent": ("0 -1 0 -1 0 -1", "", "x", "0 5 0 5 0 5"),
        "ID": ("", "Segment_1"),
    }.items()
}


def segmentation(rng: Rng, folder: Path, ball: Ball = SMALL, name: str = "readers.seg.nrrd") -> tuple[Path, str]:
    """A Slicer segmentation: three parts of the ball, each in a layer or all in one; or three readers of a cube."""
    shared = rng.random() < 0.3 and ball is SMALL
    masks = parts(ball) if ball is SMALL else readers(ball)
    array = np.tensordot([1, 2, 3], masks, 1) if shared else np.moveaxis(masks, 0, -1)
    encoding = pick(rng, ("gzip", "gzip", "raw"))
    raw = np.ascontiguousarray(array, np.uint8).tobytes()
    body = gzip.compress(raw, 1, mtime=0) if encoding == "gzip" else raw
    fields = segmentation_fields(ball, np.asarray(array, np.uint8), encoding, shared)
    content, told = _finish(rng, "NRRD0004", fields, body, {**NRRD_VALUES, **SEGMENT_WORDS}, "\n")
    path = folder / name
    path.write_bytes(content)
    return path, ("shared layer; " if shared else "") + told
