"""What a damaged file says of itself, read without the product: the judge of damage that nobody could see.

A file whose only header says another sound geometry is another sound image: the product can't know that it was 0.8 mm
before. Such a result is right if it is what these readers find, too. They know nothing but plain files in which nothing
is missing, doubled, out of range or in contradiction: for anything else they return None, and then the product has to
refuse or to warn.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import get_frame

from lossless_jpeg import decoded

Claimed = tuple[np.ndarray, np.ndarray, np.ndarray]  # values (slice, row, column), matrix, origin
_SPACING = (0.01, 20.0)  # mm; a voxel of another size isn't believed
_VALUES = (-3100.0, 5000.0)  # HU; few voxels of a CT have others
_NRRD_TYPES = {
    **{name: "i2" for name in ("short", "short int", "signed short", "int16", "int16_t")},
    **{name: "u2" for name in ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t")},
    **{name: "u1" for name in ("uchar", "unsigned char", "uint8", "uint8_t")},
    **{"signed char": "i1", "float": "f4", "double": "f8", "int": "i4", "uint": "u4"},
}
_NRRD_SPACES = {
    **{
        "left-posterior-superior": (1, 1, 1),
        "lps": (1, 1, 1),
        "right-anterior-superior": (-1, -1, 1),
        "ras": (-1, -1, 1),
    },
    **{"left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)},
}
_LEAST_AIR = 0.05  # share of voxels below -300 HU: the balls lie in lung
_ODD_SLICE_HU, _ODD_SLICE_TIMES = 120.0, 8.0  # a slice that differs so much from both neighbors was damaged
_MOST_APART = 1.6  # slices farther apart than so many times what they stand for have others between them
_MHA_TYPES = {"SHORT": "i2", "USHORT": "u2", "UCHAR": "u1", "FLOAT": "f4", "DOUBLE": "f8"}
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 512: "u2", 768: "u4"}


class _Doubtful(Exception):
    """The file isn't plain."""


def claimed(path: Path) -> Claimed | None:
    """What an image file or a folder of DICOM says; None where that isn't plain."""
    readers = {".nrrd": _nrrd, ".nhdr": _nrrd, ".mha": _metaimage, ".nii": _nifti, ".gz": _nifti}
    try:
        values, matrix, origin = _dicom(path) if path.is_dir() else readers[path.suffix](path)
        _check_lattice(values, matrix, origin)
        _check_values(values)
    except Exception:  # whatever goes wrong here: it isn't a plain file
        return None
    return values, matrix, origin


def _need(condition: object) -> None:
    if not condition:
        raise _Doubtful


def _check_lattice(values: np.ndarray, matrix: np.ndarray, origin: np.ndarray, shear: float = 0.02) -> None:
    spacing = np.linalg.norm(matrix, axis=0)
    _need(values.ndim == 3 and min(values.shape) > 1 and np.isfinite(origin).all())
    _need(all(_SPACING[0] <= s <= _SPACING[1] for s in spacing))
    _need(np.abs((matrix / spacing).T @ (matrix / spacing) - np.eye(3)).max() < shear)


def _check_values(values: np.ndarray) -> None:
    """Whether values can be those of a CT, in every slice."""
    _need(np.isfinite(values).all() and np.mean((values < _VALUES[0]) | (values > _VALUES[1])) < 0.01)
    _need(np.mean(values < -300) > _LEAST_AIR)
    if len(values) < 5:
        return
    one, two = (np.abs(values[n:].astype(float) - values[:-n]).mean(axis=(1, 2)) for n in (1, 2))
    apart = np.minimum(np.concatenate([two[:1], one]), np.concatenate([one, two[-1:]]))
    _need(apart.max() <= max(_ODD_SLICE_HU, _ODD_SLICE_TIMES * float(np.median(apart))))


def _array(body: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    _need(0 < count < 10_000_000 and len(body) == count * np.dtype(kind).itemsize)
    return np.frombuffer(body, kind).reshape(shape)


def _numbers(text: str, count: int) -> np.ndarray:
    parts = text.split()
    _need(len(parts) == count and all(re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", part) for part in parts))
    return np.array([float(part) for part in parts])


def nrrd_header(path: Path) -> tuple[dict[str, str], dict[str, str], bytes]:
    """(fields, keys, what follows) of an NRRD file; raises for lines that aren't plain and for doubled ones."""
    head, body = path.read_bytes().split(b"\n\n", 1)
    magic, *lines = head.decode("utf-8", "replace").split("\n")
    _need(re.fullmatch(r"NRRD000[1-5]", magic))
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([\w ]+): (.+)|([\w]+):=(.*)", line)
        if match is None:
            raise _Doubtful
        into, name, value = (fields, match[1].lower(), match[2]) if match[1] else (keys, match[3], match[4])
        _need(name not in into and (match[1] is None or name in _NRRD_FIELDS))
        into[name] = value
    return fields, keys, body


_NRRD_FIELDS = {
    *("type", "dimension", "space", "sizes", "space directions", "kinds", "endian", "encoding", "space origin"),
    "data file",
}


def nrrd_values(path: Path, layers: bool = False) -> Claimed:
    """As `claimed`, of an NRRD file; with `layers` the values are (slice, row, column, layer)."""
    fields, _, body = nrrd_header(path)
    axes = int(fields["dimension"])
    _need(axes in ((3, 4) if layers else (3,)))
    if "data file" in fields:
        body = (path.parent / fields["data file"]).read_bytes()
    _need(fields["encoding"] in ("raw", "gzip", "gz"))
    body = body if fields["encoding"] == "raw" else gzip.decompress(body)
    order = {"little": "<", "big": ">"}[fields.get("endian", "little")]
    kind = _NRRD_TYPES[fields["type"]]
    _need("endian" in fields or kind.endswith("1"))
    sizes = _numbers(fields["sizes"], axes).astype(int)
    values = _array(body, order + kind, tuple(int(n) for n in sizes[::-1]))
    directions = re.findall(r"none|\([^)]*\)", fields["space directions"])
    _need(" ".join(directions) == fields["space directions"] and len(directions) == axes)
    if axes == 4:
        _need(directions[0] == "none")
        directions = directions[1:]
    vectors = [_numbers(d.strip("()").replace(",", " "), 3) for d in directions]
    origin = _numbers(fields["space origin"].strip("()").replace(",", " "), 3)
    signs = np.array(_NRRD_SPACES[fields["space"].lower()])
    return values, np.stack(vectors, 1) * signs[:, None], origin * signs


def _nrrd(path: Path) -> Claimed:
    return nrrd_values(path)


def segments(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None:
    """Masks of a segmentation by name; None where it isn't plain."""
    try:
        values, matrix, origin = nrrd_values(path, layers=True)
        _, keys, _ = nrrd_header(path)
        numbers = sorted({int(found[1]) for key in keys if (found := re.match(r"Segment(\d+)_", key))})
        _need(numbers and numbers == list(range(len(numbers))))
        out: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        used: list[tuple[int, int]] = []
        for n in numbers:
            own = {"Layer": "0"} if values.ndim == 3 else {}
            own |= {
                name: keys[f"Segment{n}_{name}"] for name in ("LabelValue", "Layer") if f"Segment{n}_{name}" in keys
            }
            own["Name"] = keys.get(f"Segment{n}_Name", "").strip() or f"Segment {n + 1}"
            own["Name"] += f" {n + 1}" if own["Name"] in out else ""
            _need(re.fullmatch(r"\d{1,3}", own["LabelValue"]) and re.fullmatch(r"\d{1,3}", own["Layer"]))
            layer = values[..., int(own["Layer"])] if values.ndim == 4 else values
            _need(values.ndim == 4 or int(own["Layer"]) == 0)
            used.append((int(own["Layer"]), int(own["LabelValue"])))
            out[own["Name"]] = (layer == int(own["LabelValue"]), matrix, origin)
        # A label that no segment has, or that two have, says that the file's header isn't that of its voxels.
        _need(len(set(used)) == len(used))
        planes = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
        there = {(k, int(v)) for k, plane in enumerate(planes) for v in np.unique(plane) if v}
        _need(there <= set(used))
        _check_lattice(layer, matrix, origin, shear=np.sin(np.radians(45)))  # a tilted gantry's masks
    except Exception:
        return None
    return out


def _metaimage(path: Path) -> Claimed:
    content = path.read_bytes()
    match = re.match(rb"(?s)(.*?\nElementDataFile = LOCAL\n)", content)
    if match is None:
        raise _Doubtful
    body = content[len(match[1]) :]
    pairs = [line.split(" = ", 1) for line in match[1].decode("ascii").strip().split("\n")]
    fields = dict(pairs)  # type: ignore[arg-type]
    _need(all(fields[name] == value for name, value in pairs))
    known = (
        "ObjectType NDims BinaryData BinaryDataByteOrderMSB CompressedData CompressedDataSize TransformMatrix Offset"
    )
    known += " CenterOfRotation AnatomicalOrientation ElementSpacing DimSize ElementType ElementDataFile"
    _need(fields.keys() <= set(known.split()))
    _need(fields["ObjectType"] == "Image" and fields["NDims"] == "3" and fields["BinaryData"] == "True")
    if fields.get("CompressedData", "False") == "True":
        _need(int(fields["CompressedDataSize"]) == len(body))
        body = zlib.decompress(body)
    order = {"False": "<", "True": ">"}[fields.get("BinaryDataByteOrderMSB", "False")]
    sizes = _numbers(fields["DimSize"], 3).astype(int)
    kind = fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")  # arrays of one number are numbers
    _need(fields["ElementType"].startswith("MET_"))
    values = _array(body, order + _MHA_TYPES[kind], tuple(int(n) for n in sizes[::-1]))
    matrix = _numbers(fields["TransformMatrix"], 9).reshape(3, 3).T
    spacing = _numbers(fields["ElementSpacing"], 3)
    _need((spacing > 0).all() and np.abs(matrix.T @ matrix - np.eye(3)).max() < 1e-3)
    return values, matrix * spacing, _numbers(fields["Offset"], 3)


def _nifti(path: Path) -> Claimed:
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    order = "<" if content[:4] == struct.pack("<i", 348) else ">"

    def field(offset: int, form: str) -> np.ndarray:
        return np.array(struct.unpack_from(order + form, content, offset))

    _need(field(0, "i")[0] == 348 and content[344:348] == b"n+1\0" and content[123] == 2)
    dim, pixdim = field(40, "8h"), field(76, "8f")
    start = int(field(108, "f")[0])
    _need(dim[0] == 3 and (dim[1:4] > 1).all() and start >= 352 and (pixdim[1:4] > 0).all())
    kind = _NIFTI_TYPES[int(field(70, "h")[0])]
    _need(field(72, "h")[0] == 8 * np.dtype(kind).itemsize)
    values = _array(content[start:], order + kind, tuple(int(n) for n in dim[3:0:-1])).astype(float)
    slope, shift = (float(v) for v in field(112, "2f"))
    _need(np.isfinite([slope, shift]).all())
    values = values * slope + shift if slope else values
    frames = []
    if field(254, "h")[0] > 0:
        affine = field(280, "12f").reshape(3, 4)
        _need(np.allclose(np.linalg.norm(affine[:, :3], axis=0), pixdim[1:4], rtol=0.005))
        frames.append(affine)
    if field(252, "h")[0] > 0:
        frames.append(_quaternion(field(256, "3f"), float(pixdim[0]), pixdim[1:4], field(268, "3f")))
    _need(frames and all(np.allclose(f, frames[0], atol=0.01) for f in frames))
    ras = np.diag([-1.0, -1.0, 1.0]) @ frames[0]
    return values, ras[:, :3], ras[:, 3]


def _quaternion(bcd: np.ndarray, handed: float, spacing: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The affine of NIfTI's method 2."""
    b, c, d = bcd
    rest = 1 - b * b - c * c - d * d
    _need(rest > -1e-4 and handed in (-1.0, 1.0))
    a = np.sqrt(max(rest, 0.0))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return np.concatenate([turn * spacing * [1, 1, handed], offset[:, None]], axis=1)


def _pixels(ds: pydicom.Dataset) -> np.ndarray:
    """A file's stored values; pydicom has no decoder of lossless JPEG."""
    if ds.file_meta.TransferSyntaxUID != pydicom.uid.JPEGLosslessSV1:
        return ds.pixel_array
    values = decoded(get_frame(ds.PixelData, 0, number_of_frames=1))
    _need(values.shape == (ds.Rows, ds.Columns) and ds.BitsAllocated == 16)
    return values.view(np.int16) if ds.PixelRepresentation else values


def _mm(ds: pydicom.Dataset, name: str) -> float:
    """A length in mm; 0 where it says nothing."""
    try:
        return float(ds.get(name) or 0)
    except (TypeError, ValueError):
        return 0.0


def _dicom(folder: Path) -> Claimed:
    """A folder of one series, or one multi-frame file, in which every slice says everything, and the same."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []  # position, orientation, spacing, HU
    rescale: list[tuple[float, float]] = []
    stated: list[float] = []  # mm that slices say they stand for
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        ds = pydicom.dcmread(path, force=True)
        _need(ds.Modality == "CT" and ds.PhotometricInterpretation == "MONOCHROME2" and ds.SamplesPerPixel == 1)
        extra = len(ds.PixelData) - ds.Rows * ds.Columns * 2 * int(ds.get("NumberOfFrames", 1) or 1)
        _need(pydicom.uid.UID(ds.file_meta.TransferSyntaxUID).is_compressed or 0 <= extra <= 2)
        _need(max(ds.keys()) == 0x7FE00010)  # nothing behind the pixels
        frames = int(ds.NumberOfFrames) if "NumberOfFrames" in ds else 0
        _need(frames == len(ds.get("PerFrameFunctionalGroupsSequence", ())))
        stack = _pixels(ds) if frames else _pixels(ds)[None]
        for k, plane in enumerate(stack):
            groups = [ds.PerFrameFunctionalGroupsSequence[k], ds.SharedFunctionalGroupsSequence[0]] if frames else []

            def value(name: str, sequence: str, ds: pydicom.Dataset = ds, groups: list = groups) -> np.ndarray:
                places = [getattr(g, sequence)[0] for g in groups if sequence in g] if groups else [ds]
                (found,) = [getattr(place, name) for place in places if name in place]
                return np.atleast_1d(np.array(found, float))

            slope = value("RescaleSlope", "PixelValueTransformationSequence")
            shift = value("RescaleIntercept", "PixelValueTransformationSequence")
            parts.append(
                (
                    value("ImagePositionPatient", "PlanePositionSequence"),
                    value("ImageOrientationPatient", "PlaneOrientationSequence"),
                    value("PixelSpacing", "PixelMeasuresSequence"),
                    plane.astype(float) * slope[0] + shift[0],
                )
            )
            rescale.append((slope[0], shift[0]))
            measures = [g.PixelMeasuresSequence[0] for g in groups if "PixelMeasuresSequence" in g] if groups else [ds]
            thick = max((_mm(m, "SliceThickness") for m in measures), default=0.0)
            stated += [max(thick, *(_mm(m, "SpacingBetweenSlices") for m in measures))] if thick > 0 else []
    _need(len(set(rescale)) == 1 and rescale[0][0] > 0)
    position, orientation, spacing, hu = (list(column) for column in zip(*parts, strict=True))
    _need(all(len(o) == 6 and np.allclose(o, orientation[0], atol=1e-4) for o in orientation))
    _need(all(len(s) == 2 and (s > 0).all() and np.allclose(s, spacing[0], rtol=1e-4) for s in spacing))
    row, column = orientation[0][:3], orientation[0][3:]
    _need(abs(np.linalg.norm(row) - 1) < 1e-3 and abs(np.linalg.norm(column) - 1) < 1e-3 and abs(row @ column) < 1e-3)
    normal = np.cross(row, column)
    order = np.argsort([p @ normal for p in position])
    places = np.stack([position[k] for k in order])
    steps = np.diff(places, axis=0)
    step = steps.mean(0)
    _need(np.abs(steps - step).max() < 0.02 * np.linalg.norm(step) and step @ normal > 0.999 * np.linalg.norm(step))
    _need(not stated or np.linalg.norm(step) <= _MOST_APART * np.median(stated))
    matrix = np.stack([row * spacing[0][1], column * spacing[0][0], step], axis=1)
    return np.stack([hu[k] for k in order]), matrix, places[0]
