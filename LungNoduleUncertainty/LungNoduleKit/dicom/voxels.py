"""The slices' values in HU: each with its own bits, sign, slope and intercept, all in one type that holds them.

The type is the one that GDCM chooses: whole numbers of 8, 16 or 32 bits where slope and intercept are whole, float64
otherwise. Unpacked pixels are read from their place in the file; compressed ones are decoded by GDCM from a temporary
file that holds the pixels and nothing else.
"""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import ImageError, printable, shortened
from ..files import itk_reason, quiet_itk
from .jpeg import check_precision, decoder_complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .headers import Frame
    from .pixels import Pixels

_UNSIGNED = (np.uint8, np.uint16, np.uint32)
_SIGNED = (np.int8, np.int16, np.int32)
_RLE = "1.2.840.10008.1.2.5"
_JPEG = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.([56]\d|70)")  # not JPEG-LS or JPEG 2000
_NAMED = 3  # so many files are named in a warning
_STEEPEST, _FARTHEST = 1000.0, 100_000.0  # rescale slope and intercept of any CT


def read_voxels(frames: Sequence[Frame], name: str, warn: Callable[[str], object]) -> np.ndarray:
    """(slices, rows, columns) in HU of slices of one size; `name` is what messages call them. Raises `ImageError`."""
    rescale = _rescale(frames, name, warn)
    pixels = frames[0].pixels
    volume = np.empty((len(frames), pixels.rows, pixels.columns), _volume_type(frames, rescale))
    beyond = 0
    unclean: list[str] = []
    for k, (frame, (slope, intercept)) in enumerate(zip(frames, rescale, strict=True)):
        try:
            values, odd = _stored_values(_raw(frame, unclean), frame.pixels)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else itk_reason(error)
            raise ImageError(f"{name}: {printable(frame.path)} can't be read ({reason})") from None
        beyond += odd
        volume = _put(volume, k, values, slope, intercept)
    _packed.cache_clear()
    if beyond:
        warn(f"{name}: {beyond} slices hold values of more bits than their headers say; read as they are stored")
    padded = sum(frame.pixels.zeros > 0 for frame in frames)
    if padded:
        warn(
            f"{name}: zeros follow the pixels of {_slices(padded)}; if bytes were put in before, the pixels are shifted"
        )
    if unclean:
        named = ", ".join(dict.fromkeys(printable(path) for path in unclean[:_NAMED]))
        more = ", and others" if len(unclean) > _NAMED else ""
        warn(f"{name}: {_slices(len(unclean))} with compressed pixels that don't decode without errors: {named}{more}")
    return volume


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _rescale(frames: Sequence[Frame], name: str, warn: Callable[[str], object]) -> list[tuple[float, float]]:
    """Slope and intercept of each slice; refuses series of which only some slices have them."""
    if any(frame.modality_table for frame in frames):
        raise ImageError(f"{name}: its HU follow from a table (Modality LUT), which isn't read")
    for what, values in (("slope", [f.slope for f in frames]), ("intercept", [f.intercept for f in frames])):
        missing = values.count(None)
        if 0 < missing < len(values):
            raise ImageError(f"{name}: {missing} of its {len(values)} slices have no rescale {what}, so no HU")
        if missing:
            warn(f"{name}: it has no rescale {what}; {'1' if what == 'slope' else '0'} is taken, values may not be HU")
    units = sorted({frame.unit for frame in frames} - {"", "HU", "US"})  # US: unspecified
    if units:
        warn(f"{name}: its values are said to be {shortened(printable(', '.join(units)))}, not HU")
    found = [(1.0 if f.slope is None else f.slope, 0.0 if f.intercept is None else f.intercept) for f in frames]
    for slope, intercept in found:
        if not 0 < slope <= _STEEPEST or not abs(intercept) <= _FARTHEST:
            raise ImageError(f"{name}: a rescale slope of {slope:g} and an intercept of {intercept:g} aren't a CT's")
    if len(set(found)) > 1:
        ends = f"slope {min(found)[0]:g} to {max(found)[0]:g}, intercept {min(i for _, i in found):g} to "
        ends += f"{max(i for _, i in found):g}"
        warn(f"{name}: its slices have {len(set(found))} different rescales ({ends}); each was read with its own")
    return found


def _volume_type(frames: Sequence[Frame], rescale: list[tuple[float, float]]) -> np.dtype:
    """The smallest type for everything that the slices' bits, slopes and intercepts allow, as GDCM chooses it."""
    kinds = {(f.pixels.allocated, f.pixels.signed, f.pixels.range, r) for f, r in zip(frames, rescale, strict=True)}
    if any(slope % 1 or intercept % 1 for *_, (slope, intercept) in kinds):
        return np.dtype(np.float64)
    if all(r == (1.0, 0.0) for *_, r in kinds):
        return np.result_type(*(_dtype(allocated, signed) for allocated, signed, *_ in kinds))
    ends = [slope * end + intercept for *_, pair, (slope, intercept) in kinds for end in pair]
    return _smallest(min(ends), max(ends))


def _smallest(low: float, high: float) -> np.dtype:
    for kind in _UNSIGNED if low >= 0 else _SIGNED:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _dtype(allocated: int, signed: bool) -> np.dtype:
    return np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")


def _put(volume: np.ndarray, k: int, values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Slice `k` in HU put into the volume; the volume is of a larger type then if some value needs it."""
    if volume.dtype.kind == "f":
        np.multiply(values, slope, out=volume[k])
        volume[k] += intercept
        return volume
    ends = sorted(slope * end + intercept for end in (int(values.min()), int(values.max())))
    info = np.iinfo(volume.dtype)
    if ends[0] < info.min or ends[1] > info.max:
        volume = volume.astype(_smallest(min(ends[0], info.min), max(ends[1], info.max)))
        return _put(volume, k, values, slope, intercept)
    # In the volume's own type: what overflows on the way comes back, as the end is within the type.
    np.copyto(volume[k], values, casting="unsafe")
    for change, number in ((np.multiply, slope), (np.add, intercept)):
        change(volume[k], np.array(int(number) & 0xFFFFFFFF, np.uint32).astype(volume.dtype), out=volume[k])
    return volume


def _stored_values(raw: np.ndarray, pixels: Pixels) -> tuple[np.ndarray, bool]:
    """The stored values out of the file's pixels (rows, columns), and whether some need more bits than there should be.

    Bits beside the stored ones count for nothing where an overlay lies in them, and where they aren't the sign's. The
    padding value often is beyond the stored bits: it stays as it is, as a number below zero. Pixels that are said to
    lie in the upper bits, but fill the lower ones too, lie in all.
    """
    low, (lowest, highest) = pixels.high + 1 - pixels.stored, pixels.range
    if low == 0 and raw.min() >= lowest and raw.max() <= highest:
        return raw, False
    if low and not pixels.overlay and (raw & ((1 << low) - 1)).any():
        return raw, True
    wide = raw.astype(np.int64)
    stored = (wide >> low) & ((1 << pixels.stored) - 1)
    if pixels.signed:
        stored -= (stored > highest) * (1 << pixels.stored)
    if low:
        return stored.astype(raw.dtype), False
    beyond = (wide < lowest) | (wide > highest)
    padded = beyond & _is_padding(wide, pixels)
    signed = wide - (wide >= 1 << (pixels.allocated - 1)) * (1 << pixels.allocated)
    others = beyond & ~padded
    if pixels.overlay or (pixels.signed and (wide[others] >= 0).all() and (wide[others] >> pixels.stored == 0).all()):
        return np.where(padded, signed, stored), False
    return np.where(padded, signed, wide), bool(others.any())


def _is_padding(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Which values the header calls padding; headers write it signed or unsigned."""
    if pixels.padding is None:
        return np.zeros(values.shape, bool)
    bits = (1 << pixels.allocated) - 1
    low, high = pixels.padding
    if high - low > bits:
        return np.zeros(values.shape, bool)
    return ((values - low) & bits) <= high - low


def _raw(frame: Frame, unclean: list[str]) -> np.ndarray:
    """A slice's pixels (rows, columns) as whole numbers of the file's type, in this machine's byte order.

    The path of a file whose compressed pixels the decoder complains of is added to `unclean`.
    """
    pixels = frame.pixels
    if pixels.offset is None:
        return _unpacked(frame, unclean)
    with open(frame.path, "rb", buffering=0) as stream:
        stream.seek(pixels.offset + frame.number * pixels.frame_bytes)
        content = stream.read(pixels.frame_bytes)
    return _as_array(content, pixels)


def _as_array(content: bytes, pixels: Pixels) -> np.ndarray:
    array = np.frombuffer(content, _dtype(pixels.allocated, pixels.signed), count=pixels.rows * pixels.columns)
    if pixels.little != (sys.byteorder == "little"):
        array = array.byteswap()
    return array.reshape(pixels.rows, pixels.columns)


def _unpacked(frame: Frame, unclean: list[str]) -> np.ndarray:
    """As `_raw`, of a file whose data set is deflated as a whole, or whose pixels are compressed."""
    from pydicom.uid import UID

    pixels, content = frame.pixels, _packed(frame.path)
    if not UID(pixels.syntax).is_encapsulated:
        return _as_array(content[frame.number * pixels.frame_bytes :][: pixels.frame_bytes], pixels)
    from pydicom.encaps import get_frame

    packed = get_frame(content, frame.number, number_of_frames=pixels.frames)
    is_jpeg = _JPEG.fullmatch(pixels.syntax) is not None
    if is_jpeg:
        check_precision(packed)
    with decoder_complaints() if is_jpeg else nullcontext() as complaints:
        decoded = _decode(packed, pixels)
    if complaints:
        unclean.append(frame.path)
    bits = decoded.astype(np.int64) & ((1 << pixels.allocated) - 1)
    return bits.astype(_dtype(pixels.allocated, False)).view(_dtype(pixels.allocated, pixels.signed))


@lru_cache(maxsize=1)
def _packed(path: str) -> bytes:
    """The pixel data of a file as they are in its data set; the last file's are kept for its next frame."""
    from pydicom import dcmread

    with open(path, "rb") as stream:
        dataset = dcmread(stream, force=True, specific_tags=["PixelData"])
    if "PixelData" not in dataset:
        raise ValueError("it has no pixel data")
    return bytes(dataset.PixelData)


def _decode(packed: bytes, pixels: Pixels) -> np.ndarray:
    """One compressed frame (rows, columns), by GDCM; the stored values, no slope and intercept."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, CTImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, UID(pixels.syntax)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    with tempfile.TemporaryDirectory(prefix="lung-nodule-") as folder:
        path = str(Path(folder, "slice.dcm"))
        image = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.Rows, image.Columns, image.SamplesPerPixel = pixels.rows, pixels.columns, 1
        stored, high = pixels.stored, pixels.high
        if high >= stored or pixels.syntax == _RLE or _JPEG.fullmatch(pixels.syntax):
            # All bits are asked for: of others GDCM would take away what they hold, such as padding.
            stored, high = pixels.allocated, pixels.allocated - 1
        image.BitsAllocated, image.BitsStored, image.HighBit = pixels.allocated, stored, high
        image.PixelRepresentation, image.PhotometricInterpretation = int(pixels.signed), "MONOCHROME2"
        image.PixelData = encapsulate([packed])
        image["PixelData"].VR = "OB"
        image.save_as(path, enforce_file_format=True)
        with quiet_itk():
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(path)
            found = np.squeeze(sitk.GetArrayFromImage(reader.Execute()))
    if found.size != pixels.rows * pixels.columns:
        raise ValueError(f"its pixels unpack to {found.shape}, not {(pixels.rows, pixels.columns)}")
    return found.reshape(pixels.rows, pixels.columns)
