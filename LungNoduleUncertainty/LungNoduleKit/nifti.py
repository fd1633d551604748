"""What SimpleITK's reader of NIfTI leaves out: two positions in one file that disagree, and NaN.

A NIfTI header may state where its voxels lie twice: by `qform` (a rotation, an offset, and the voxels' size `pixdim`)
and by `sform` (a matrix). SimpleITK takes one of the two by their codes, and the voxels' size from `pixdim` even where
it takes the matrix; other programs take the other one. Here a file that states two different things is refused, unless
the caller chooses. SimpleITK also turns NaN into 0, which is water in HU; here NaN stays NaN.

NIfTI-1: https://nifti.nimh.nih.gov/nifti-1; NIfTI-2 has the same fields in other places.
"""

from __future__ import annotations

import errno
import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = ("sform", "qform")
_ENDINGS = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")
_FLOATS = {16: "f4", 64: "f8"}  # data types whose values may be NaN
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # spatial unit codes: unknown, meter, millimeter, micrometer
# Two frames are one if no corner of the volume lies farther apart than this share of the smallest voxel side: header
# fields are single precision, and some programs round the quaternion.
_SAME_FRAME = 0.25


@dataclass(frozen=True)
class NiftiHeader:
    """What is needed of a header. Matrices (3, 4) lead from indices (i, j, k, 1) to RAS mm, None for code 0."""

    order: str  # of bytes: < or >
    size: tuple[int, ...]
    spacing: tuple[float, float, float]
    unit: int  # of length, its code
    sform: np.ndarray | None
    qform: np.ndarray | None
    data_type: int
    bytes_a_voxel: int
    data_offset: int
    slope: float
    intercept: float


def is_nifti(path: Path) -> bool:
    """Whether a file's name is one of NIfTI (or of its predecessor ANALYZE)."""
    return path.name.lower().endswith(_ENDINGS)


def nifti_image(
    image: sitk.Image, path: Path, frame: str | None = None, warn: Callable[[str], object] | None = None
) -> sitk.Image:
    """An image as SimpleITK read it from a NIfTI file, with the position that `frame` chooses, and NaN where it was.

    Raises `ImageError` for two positions that disagree while `frame` is None, for a `frame` that the file lacks, and
    for a scaling of values that programs understand differently.
    """
    header = read_header(path)
    if header is None:  # ANALYZE, whose files have neither frame
        return image
    name = str(path)
    _check_scaling(header, name)
    if header.unit not in _MM and warn:
        warn(f"{name}: its unit of length has code {header.unit}, which NIfTI doesn't know; mm are taken")
    image = _with_nan(image, header, path)
    if header.sform is None and header.qform is None:
        if warn:
            warn(f"{name}: it states no position (sform and qform have code 0); sides and places can't be told")
        return image
    chosen = _chosen(header, name, frame)
    return image if chosen is None else _placed(image, chosen)


def check_written(path: Path) -> None:
    """Raises `OSError` for a file that isn't whole: SimpleITK's writer of NIfTI says nothing where the disk is full."""
    try:
        header = read_header(path)
        wanted = prod(header.size) * header.bytes_a_voxel + header.data_offset if header else 1
        whole = len(_content(_data_path(path), wanted + 1)) >= wanted  # one more: the end of a .gz has a checksum
    except ImageError:
        whole = False
    if not whole:
        raise OSError(errno.ENOSPC, "the file is incomplete; the disk may be full")


def read_header(path: Path) -> NiftiHeader | None:
    """The header of a NIfTI file (.nii, or .hdr of a pair), None if it isn't one."""
    content = _content(_header_path(path), 540)
    order, version = nifti_version(content) or ("", 0)
    if version == 1:
        return _header(content, order, "h", (40, 70, 76, 108, 112, 123, 252, 256, 280))
    if version == 2:
        return _header(content, order, "q", (16, 12, 104, 168, 176, 500, 344, 352, 400))
    return None


def nifti_version(content: bytes) -> tuple[str, int] | None:
    """(byte order, 1 or 2) of a header by its first 540 bytes; None if it isn't NIfTI's."""
    for order in "<>":
        if content[:4] == struct.pack(order + "i", 348) and content[344:347] in (b"n+1", b"ni1"):
            return order, 1
        if content[:4] == struct.pack(order + "i", 540) and content[4:7] in (b"n+2", b"ni2"):
            return order, 2
    return None


def _header(content: bytes, order: str, whole: str, at: tuple[int, ...]) -> NiftiHeader:
    """`whole` is the kind of number that a size is, `at` where the fields lie: NIfTI-1 and NIfTI-2 differ in both."""
    real, code = ("f", "h") if whole == "h" else ("d", "i")
    size, data_type, steps, offset, scaling, units, codes, turn, rows = at

    def numbers(kind: str, count: int, place: int) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{count}{kind}", content, place)

    unit_code = content[units] if whole == "h" else int(numbers("i", 1, units)[0])
    unit = int(unit_code) & 7
    mm = _MM.get(unit, 1.0)
    axes = max(0, min(int(numbers(whole, 1, size)[0]), 7))
    extent = tuple(int(n) for n in numbers(whole, 8, size)[1 : axes + 1])
    handed, *sides = numbers(real, 4, steps)
    spacing = (abs(sides[0]) * mm, abs(sides[1]) * mm, abs(sides[2]) * mm)
    q_code, s_code = numbers(code, 2, codes)
    matrix = np.reshape(numbers(real, 12, rows), (3, 4)) * mm
    slope, intercept = numbers(real, 2, scaling)
    return NiftiHeader(
        order=order,
        size=extent,
        spacing=spacing,
        unit=unit,
        sform=matrix if s_code > 0 else None,
        qform=_qform(numbers(real, 6, turn), spacing, handed, mm) if q_code > 0 else None,
        data_type=int(numbers("h", 1, data_type)[0]),
        bytes_a_voxel=int(numbers("h", 1, data_type + 2)[0]) // 8,
        data_offset=int(numbers("f" if whole == "h" else "q", 1, offset)[0]),
        slope=slope,
        intercept=intercept,
    )


def _qform(turn: tuple[float, ...], spacing: tuple[float, ...], handed: float, mm: float) -> np.ndarray:
    """The matrix (3, 4) of a quaternion's b, c and d and an offset; `handed` < 0 flips the third axis."""
    b, c, d = turn[:3]
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    rotation[:, 2] *= -1.0 if handed < 0 else 1.0
    return np.column_stack([rotation * spacing, np.asarray(turn[3:6]) * mm])


def _check_scaling(header: NiftiHeader, name: str) -> None:
    slope, intercept = header.slope, header.intercept
    if slope == 0 and intercept != 0 and np.isfinite(intercept):
        raise ImageError(
            f"{name}: its scl_slope is 0 and its scl_inter {intercept:g}: some programs add it to the values, others "
            "don't"
        )
    if np.isfinite(slope) and slope != 0 and not np.isfinite(intercept):
        raise ImageError(f"{name}: its scl_slope is {slope:g}, but its scl_inter isn't a number")


def _chosen(header: NiftiHeader, name: str, frame: str | None) -> np.ndarray | None:
    """The matrix to place the voxels by; None where all that the file states agrees."""
    sform, qform = header.sform, header.qform
    if sform is None:
        if frame == "sform":
            raise ImageError(f"{name}: it has no sform (its code is 0)")
        return None
    other, called = (qform, "qform") if qform is not None else (_sized(sform, header.spacing), "pixdim")
    if not (np.isfinite(sform).all() and np.isfinite(other).all()):
        raise ImageError(f"{name}: its sform or its qform isn't finite")
    if _apart(sform, other, header.size) < _SAME_FRAME * max(min(header.spacing), 1e-6):
        return None
    if frame is None:
        raise ImageError(
            f"{name}: its sform and its {called} disagree: sform {_described(sform)}; {called} {_described(other)}; "
            "choose one (--nifti-frame sform or qform)"
        )
    if frame == "qform" and qform is None:
        raise ImageError(f"{name}: it has no qform (its code is 0)")
    return sform if frame == "sform" else qform


def _sized(matrix: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """A matrix with voxels of another size, as SimpleITK makes of a sform."""
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    return np.column_stack([matrix[:, :3] / np.where(lengths > 0, lengths, 1) * spacing, matrix[:, 3]])


def _apart(one: np.ndarray, other: np.ndarray, size: tuple[int, ...]) -> float:
    """The largest distance in mm between the places of the same corner voxel."""
    ends = [(0, max(n - 1, 1)) for n in (*size, 1, 1, 1)[:3]]
    corners = np.stack(np.meshgrid(*ends, [1], indexing="ij"), axis=-1).reshape(-1, 4)
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def _described(matrix: np.ndarray) -> str:
    x, y, z = np.asarray(matrix[:, 3]) * (-1, -1, 1) + 0.0
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    axes = "".join(
        ("LPS" if column[row] * (-1, -1, 1)[row] > 0 else "RAI")[row]
        for column in matrix[:, :3].T
        for row in [int(np.abs(column).argmax())]
    )
    return f"origin ({x:.2f}, {y:.2f}, {z:.2f}) mm LPS, spacing {' x '.join(f'{n:.4g}' for n in lengths)}, axes {axes}"


def _placed(image: sitk.Image, matrix: np.ndarray) -> sitk.Image:
    """A copy of an image whose first three axes lie where a RAS matrix (3, 4) says."""
    lps = matrix * np.array([[-1.0], [-1.0], [1.0]]) + 0.0
    lengths = np.linalg.norm(lps[:, :3], axis=0)
    if image.GetDimension() < 3 or not (lengths > 0).all():
        raise ImageError("a NIfTI frame can be chosen for volumes whose voxels have a size only")
    axes = lps[:, :3] / lengths
    count = image.GetDimension()
    direction = np.eye(count)
    direction[:3, :3] = axes
    placed = sitk.Image(image)
    placed.SetSpacing([*lengths.tolist(), *image.GetSpacing()[3:]])
    placed.SetOrigin([*lps[:, 3].tolist(), *image.GetOrigin()[3:]])
    placed.SetDirection(direction.ravel().tolist())
    return placed


def _with_nan(image: sitk.Image, header: NiftiHeader, path: Path) -> sitk.Image:
    """The image with NaN and infinite values of the file, in place of which SimpleITK puts 0."""
    kind = _FLOATS.get(header.data_type)
    if kind is None or image.GetNumberOfComponentsPerPixel() != 1:
        return image
    paired = header.data_offset if path.name.lower().endswith((".nii", ".nii.gz")) else 0
    count = prod(header.size)
    content = _content(_data_path(path), paired + count * int(kind[1]))
    values = np.frombuffer(content, header.order + kind, count=-1, offset=min(paired, len(content)))
    if len(values) != count or count != image.GetNumberOfPixels():
        return image
    finite = np.isfinite(values)
    if finite.all():
        return image
    array = sitk.GetArrayFromImage(image)
    array.ravel()[~finite] = values[~finite]
    restored = sitk.GetImageFromArray(array, isVector=False)
    restored.CopyInformation(image)
    return restored


def _header_path(path: Path) -> Path:
    return _sibling(path, ".img", ".hdr")


def _data_path(path: Path) -> Path:
    return _sibling(path, ".hdr", ".img")


def _sibling(path: Path, ending: str, other: str) -> Path:
    """The other file of a pair .hdr and .img, compressed or not."""
    for packed in ("", ".gz"):
        if path.name.lower().endswith(ending + packed):
            stem = path.name[: -len(ending + packed)]
            found = [path.with_name(stem + other + z) for z in (packed, "", ".gz")]
            return next((p for p in found if p.is_file()), found[0])
    return path


def _content(path: Path, count: int) -> bytes:
    """The first bytes of a file, unpacked; fewer where it is shorter or broken off."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            return stream.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{path}: it can't be read ({error})") from None
