"""What the header of a DICOM file says of each slice in it: a single-frame image is one, a multi-frame image many."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, BinaryIO

from .pixels import Pixels, pixels_of, tag_of, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

# CT, Enhanced CT and Legacy Converted Enhanced CT Image Storage (DICOM PS3.4, annex B.5).
CT_IMAGES = {f"1.2.840.10008.5.1.4.1.1.2{ending}" for ending in ("", ".1", ".2")}
# What may tell apart slices at one position (phases, stacks, reconstructions), the likeliest first.
TELLING = (
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "AcquisitionNumber",
    "TriggerTime",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ConvolutionKernel",
    "ContentTime",
    "ImageType",
)
_ENDINGS = (".dcm", ".ima")


@dataclass(frozen=True)
class Frame:
    """One slice: an image, or a frame of one. Positions in LPS millimeters, directions as DICOM has them."""

    path: str
    number: int
    """Of the frame in its file, from 0"""
    uid: str
    """SOPInstanceUID of its file"""
    pixels: Pixels
    position: tuple[float, ...] | None
    """Center of the first pixel"""
    orientation: tuple[float, ...] | None
    """Direction along a row, then along a column"""
    spacing: tuple[float, ...] | None
    """mm from row to row, then from column to column (PixelSpacing)"""
    thickness: float | None
    """mm that it stands for: SliceThickness or SpacingBetweenSlices, whichever is more; None without the former"""
    reference: str
    """FrameOfReferenceUID"""
    slope: float | None
    intercept: float | None
    unit: str
    """RescaleType; usually HU, or empty"""
    stack: str
    """StackID of a multi-frame image"""
    telling: dict[str, str] = field(compare=False)
    """Its values of `TELLING`"""
    localizer: bool
    modality_table: bool
    """Whether a table (ModalityLUTSequence) takes the place of slope and intercept"""


@dataclass(frozen=True)
class Header:
    """A DICOM file: its series, and its slices or the reason why it has none."""

    path: str
    series: str
    modality: str
    description: str
    frames: tuple[Frame, ...]
    no_slice: str = ""
    """Why it is no slice of a CT, such as: a color image"""


class UnreadableError(Exception):
    """A file that seems to be DICOM and can't be read; the message says why."""


def is_dicom(path: str | Path) -> bool:
    """Whether a file seems to be DICOM: by its first bytes, with or without preamble, or its ending."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _begins_without_preamble(head) or str(path).lower().endswith(_ENDINGS)


def _begins_without_preamble(head: bytes) -> bool:
    """Whether the first bytes are a data element of group 0002 or 0008 as every data set begins, little endian."""
    if head[:2] not in (b"\x02\x00", b"\x08\x00") or len(head) < 132:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (head[3] == 0 and 0 < int.from_bytes(head[4:8], "little") < 0x10000)


def series_uid(path: str | Path) -> str | None:
    """The SeriesInstanceUID in a DICOM file's header; None for any other file, and for one that can't be read."""
    if not is_dicom(path):
        return None
    from pydicom import dcmread

    try:
        with open(path, "rb") as stream, quiet_pydicom():
            dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=["SeriesInstanceUID"])
            return _text(dataset, "SeriesInstanceUID") or None
    except Exception:  # pydicom raises of every kind on damaged files
        return None


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keeps pydicom's remarks on odd values off standard error: what matters here is checked here."""
    from pydicom import config

    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = before


def read_header(path: str) -> Header | None:
    """A file's header; None if it turns out not to be DICOM. Raises `UnreadableError`. Within `quiet_pydicom`."""
    from pydicom import dcmread

    try:
        with open(path, "rb") as stream:
            dataset = dcmread(stream, stop_before_pixels=True, force=True)
            return _header(path, dataset, stream)
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(error.strerror or "it can't be opened") from None
    except Exception as error:  # pydicom raises of every kind on damaged files
        raise UnreadableError(f"damaged: {type(error).__name__}") from None


def _header(path: str, dataset: Dataset, stream: BinaryIO) -> Header | None:
    stored_as = _text(dataset.file_meta, "MediaStorageSOPClassUID")
    kind = _text(dataset, "SOPClassUID") or stored_as
    series = _text(dataset, "SeriesInstanceUID")
    if not (kind or series or "Rows" in dataset):
        if str(path).lower().endswith(_ENDINGS) or "TransferSyntaxUID" in dataset.file_meta:
            raise UnreadableError("damaged: nothing of its header can be read")
        return None
    if CT_IMAGES & {kind, stored_as} and not ("Rows" in dataset and "Columns" in dataset):
        raise UnreadableError("cut off: its header isn't whole")
    modality, description = _text(dataset, "Modality"), _text(dataset, "SeriesDescription")
    reason = _no_slice(dataset, kind)
    frames: tuple[Frame, ...] = ()
    if not reason:
        pixels = pixels_of(dataset, stream)
        if isinstance(pixels, str):
            raise UnreadableError(pixels)
        frames = tuple(_frames(path, dataset, pixels))
        if kind not in CT_IMAGES:
            reason = _kind_name(kind, modality)
        elif frames and all(frame.localizer for frame in frames):
            reason = "a localizer"
    return Header(path, series, modality, description, frames, reason)


def _no_slice(dataset: Dataset, kind: str) -> str:
    if "Rows" not in dataset or "Columns" not in dataset:
        return f"no image ({_kind_name(kind, _text(dataset, 'Modality'))})"
    photometric = _text(dataset, "PhotometricInterpretation").upper()
    samples = value_of(dataset, "SamplesPerPixel")
    if samples not in (None, 1) or photometric.startswith(("RGB", "YBR", "PALETTE", "ARGB", "CMYK", "HSV")):
        return "a color image"
    return ""


def _kind_name(kind: str, modality: str) -> str:
    from pydicom.uid import UID

    name = str(UID(kind).name) if kind else ""
    name = name.removesuffix(" Storage") if name != kind else ""
    return name or f"no CT image{f' but {modality}' if modality not in ('', 'CT') else ''}"


def _frames(path: str, dataset: Dataset, pixels: Pixels) -> Iterator[Frame]:
    """The slices of an image; where there are functional groups, each frame's, then the shared, then the image."""
    shared = _item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = list(value_of(dataset, "PerFrameFunctionalGroupsSequence") or [])
    if per_frame and len(per_frame) != pixels.frames:
        raise UnreadableError(f"damaged: {pixels.frames} frames, but {len(per_frame)} descriptions of frames")
    kind = _text(dataset, "ImageType")
    for number in range(pixels.frames):
        groups = [group for group in (per_frame[number] if per_frame else None, shared) if group is not None]

        def within(sequence: str, groups: list[Dataset] = groups) -> list[Dataset]:
            """Where to look for an attribute: the sequence in the frame's groups, and the image itself."""
            items = (_item(group, sequence) for group in groups)
            return [*(item for item in items if item is not None), dataset]

        content, rescale = within("FrameContentSequence"), within("PixelValueTransformationSequence")
        measures = within("PixelMeasuresSequence")
        frame_type = _first_text(within("CTImageFrameTypeSequence"), "FrameType")
        places = [*content, *within("TemporalPositionSequence"), *within("CardiacSynchronizationSequence")]
        yield Frame(
            path=path,
            number=number,
            uid=_text(dataset, "SOPInstanceUID"),
            pixels=pixels,
            position=_first_numbers(within("PlanePositionSequence"), "ImagePositionPatient", 3),
            orientation=_first_numbers(within("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            spacing=_first_numbers(measures, "PixelSpacing", 2),
            thickness=_thickness(measures),
            reference=_text(dataset, "FrameOfReferenceUID"),
            slope=_one(_first_numbers(rescale, "RescaleSlope", 1)),
            intercept=_one(_first_numbers(rescale, "RescaleIntercept", 1)),
            unit=_first_text(rescale, "RescaleType"),
            stack=_first_text(content, "StackID"),
            telling={name: _first_text(places, name) for name in TELLING},
            localizer="LOCALIZER" in f"{kind}\\{frame_type}".upper(),
            modality_table="ModalityLUTSequence" in dataset,
        )


def _item(dataset: Dataset, sequence: str) -> Dataset | None:
    items = value_of(dataset, sequence)
    return items[0] if items else None


def _text(dataset: Dataset, name: str) -> str:
    value = value_of(dataset, name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip(" \0")
    parts = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)
    return "\\".join(str(part) for part in parts).strip(" \0")


def _first_text(datasets: list[Dataset], name: str) -> str:
    return next((text for text in (_text(dataset, name) for dataset in datasets) if text), "")


def _first_numbers(datasets: list[Dataset], name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers from the first data set that has the attribute; None if it has anything else there."""
    for dataset in datasets:
        try:
            value = value_of(dataset, name)
            if value is None:
                continue
            values = tuple(float(v) for v in (value if hasattr(value, "__len__") else [value]))
        except (TypeError, ValueError, OverflowError):
            return None
        return values if len(values) == count and all(isfinite(v) for v in values) else None
    return None


def _thickness(measures: list[Dataset]) -> float | None:
    """Not by SpacingBetweenSlices alone: ITK writes 1 there in files of single slices, whatever their distance."""
    thick, between = (_plain_number(measures, name) for name in ("SliceThickness", "SpacingBetweenSlices"))
    return max(thick, between) if thick > 0 else None


def _plain_number(datasets: list[Dataset], name: str) -> float:
    """A decimal from the first data set that has the attribute, taken as it stands in the file; 0 where it is none.

    Ten times as fast as `_first_numbers`: pydicom's own numbers are slow to make.
    """
    for dataset in datasets:
        if tag_of(name) in dataset:
            try:
                value = dataset.get_item(tag_of(name)).value
                number = float(value.decode("ascii").strip(" \0") if isinstance(value, bytes) else value)
            except (TypeError, ValueError):
                return 0.0
            return number if isfinite(number) else 0.0
    return 0.0


def _one(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else values[0]
