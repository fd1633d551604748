"""DICOM files as lists of elements that may be changed in any way, also in ways that no DICOM library would write.

The undisturbed files are pydicom's, in explicit little endian; sequences are read down to their last element.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from seeds import Ball

_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT"}
_ITEM, _OPEN = 0xFFFEE000, 0xFFFFFFFF
PIXELS, NUMBER_OF_FRAMES, PER_FRAME = 0x7FE00010, 0x00280008, 0x52009230
UID = "1.2.826.0.1.3680043.8.498"


@dataclass(frozen=True)
class Element:
    """One element. `value`: bytes, or a sequence's items. `length`: what is said of its length, if not the truth."""

    tag: int
    vr: bytes
    value: bytes | tuple[tuple[Element, ...], ...]
    length: int | None = None

    def encoded(self) -> bytes:
        """As it stands in a file."""
        if isinstance(self.value, bytes):
            body = self.value
        else:
            items = [b"".join(e.encoded() for e in item) for item in self.value]
            body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        length = len(body) if self.length is None else self.length
        head = struct.pack("<HH", self.tag >> 16, self.tag & 0xFFFF) + self.vr
        if self.vr in _LONG:
            return head + struct.pack("<HI", 0, length & 0xFFFFFFFF) + body
        return head + struct.pack("<H", length & 0xFFFF) + body


@dataclass(frozen=True)
class DicomFile:
    """A file by its name below the folder: its elements, or any bytes in their place."""

    name: str
    elements: tuple[Element, ...] = ()
    raw: bytes | None = None
    head: bytes = bytes(128) + b"DICM"

    def content(self) -> bytes:
        """Its bytes."""
        return self.head + b"".join(e.encoded() for e in self.elements) if self.raw is None else self.raw

    def find(self, tag: int) -> int | None:
        """Where an element stands; None if it isn't there."""
        return next((n for n, element in enumerate(self.elements) if element.tag == tag), None)

    def pixels_at(self) -> int:
        """Where in the content the pixels begin."""
        place = self.content().rfind(struct.pack("<HH", PIXELS >> 16, PIXELS & 0xFFFF))
        return place + 12 if place >= 0 else len(self.content())

    def renamed(self, name: str) -> DicomFile:
        """The same under another name."""
        return replace(self, name=name)


def padded(text: str, vr: bytes = b"DS") -> bytes:
    """A text as a value of even length."""
    value = text.encode("utf-8", "surrogateescape")
    return value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)


def parsed(content: bytes) -> tuple[Element, ...]:
    """Elements of explicit little endian bytes (without preamble)."""
    return tuple(_elements(content))


def _elements(content: bytes) -> Iterator[Element]:
    place = 0
    while place < len(content):
        group, number = struct.unpack_from("<HH", content, place)
        vr = content[place + 4 : place + 6]
        long = vr in _LONG
        (length,) = struct.unpack_from("<I" if long else "<H", content, place + (8 if long else 6))
        place += 12 if long else 8
        if length == _OPEN:  # compressed pixels, which stand at the end
            yield Element(group << 16 | number, vr, content[place:], _OPEN)
            return
        value = content[place : place + length]
        yield Element(group << 16 | number, vr, tuple(_items(value)) if vr == b"SQ" else value)
        place += length


def _items(content: bytes) -> Iterator[tuple[Element, ...]]:
    place = 0
    while place < len(content):
        _, _, length = struct.unpack_from("<HHI", content, place)
        yield tuple(_elements(content[place + 8 : place + 8 + length]))
        place += 8 + length


def places(elements: tuple[Element, ...], tag: int, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Where elements of a tag stand, in sequences too: a path of element, item, element, ..."""
    found = []
    for number, element in enumerate(elements):
        if element.tag == tag:
            found.append((*path, number))
        if not isinstance(element.value, bytes):
            for item, inner in enumerate(element.value):
                found += places(inner, tag, (*path, number, item))
    return found


def at(elements: tuple[Element, ...], path: tuple[int, ...]) -> Element:
    """The element at a place."""
    element = elements[path[0]]
    if len(path) == 1:
        return element
    assert not isinstance(element.value, bytes)
    return at(element.value[path[1]], path[2:])


def changed(elements: tuple[Element, ...], path: tuple[int, ...], new: list[Element]) -> tuple[Element, ...]:
    """The elements with others in place of the one at a place."""
    number = path[0]
    if len(path) > 1:
        outer = elements[number]
        assert not isinstance(outer.value, bytes)
        item = changed(outer.value[path[1]], path[2:], new)
        new = [replace(outer, value=(*outer.value[: path[1]], item, *outer.value[path[1] + 1 :]))]
    return (*elements[:number], *new, *elements[number + 1 :])


def _saved(dataset: FileDataset, name: str) -> DicomFile:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return DicomFile(name, parsed(stream.getvalue()[132:]))


def _dataset(sop_class: str, uid: str, ball: Ball) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"{UID}.1"
    ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, uid, "CT"
    ds.PatientName, ds.PatientID, ds.StudyDate, ds.StudyTime = "Ball^Soft", "B1", "20260101", "120000"
    ds.Rows, ds.Columns = ball.size[1], ball.size[0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    return ds


@cache
def series(ball: Ball, number: int = 1) -> tuple[DicomFile, ...]:
    """A series of single slices; `number` tells series of one study apart."""
    made, hu = [], ball.hu()
    for k in range(ball.size[2]):
        ds = _dataset(CTImageStorage, f"{UID}.{number}.{k + 1}", ball)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{UID}.9", f"{UID}.{number}", f"{UID}.8"
        ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = "ball", number, k + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        z = ball.origin[2] + k * ball.spacing[2]
        ds.ImagePositionPatient = [f"{v:.4f}" for v in (*ball.origin[:2], z)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [f"{ball.spacing[1]:.4f}", f"{ball.spacing[0]:.4f}"]
        ds.SliceThickness, ds.SpacingBetweenSlices = f"{ball.spacing[2]:.4f}", f"{ball.spacing[2]:.4f}"
        ds.SliceLocation = f"{z:.4f}"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
        ds.PixelData = (hu[k].astype(np.int32) + 1024).astype(np.uint16).tobytes()
        ds["PixelData"].VR = "OW"
        made.append(_saved(ds, f"IM{k:04d}.dcm"))
    return tuple(made)


def _one(**values: object) -> Sequence:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return Sequence([ds])


@cache
def enhanced(ball: Ball) -> tuple[DicomFile, ...]:
    """The same as one multi-frame file."""
    ds = _dataset(EnhancedCTImageStorage, f"{UID}.5.1", ball)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{UID}.9", f"{UID}.5", f"{UID}.8"
    ds.SeriesDescription, ds.InstanceNumber, ds.NumberOfFrames = "enhanced ball", 1, ball.size[2]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.DimensionOrganizationSequence = _one(DimensionOrganizationUID=f"{UID}.6")
    pointers = [(0x00209056, 0x00209111), (0x00209057, 0x00209111)]
    ds.DimensionIndexSequence = Sequence(
        [
            _one(DimensionOrganizationUID=f"{UID}.6", DimensionIndexPointer=a, FunctionalGroupPointer=b)[0]
            for a, b in pointers
        ]
    )
    shared, (x, y, z) = Dataset(), (f"{v:.4f}" for v in ball.spacing)
    shared.PixelMeasuresSequence = _one(PixelSpacing=[y, x], SliceThickness=z, SpacingBetweenSlices=z)
    shared.PlaneOrientationSequence = _one(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = _one(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k in range(ball.size[2]):
        position = (*ball.origin[:2], ball.origin[2] + k * ball.spacing[2])
        group = Dataset()
        group.FrameContentSequence = _one(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
        group.PlanePositionSequence = _one(ImagePositionPatient=[f"{v:.4f}" for v in position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = (ball.hu().astype(np.int32) + 1024).astype(np.uint16).tobytes()
    ds["PixelData"].VR = "OW"
    return (_saved(ds, "enhanced.dcm"),)


@cache
def compressed(ball: Ball, syntax: str) -> tuple[DicomFile, ...]:
    """The series with compressed pixels: `RLE` by pydicom, `JPEG` (lossless) and `JPEG2000` by GDCM in SimpleITK."""
    out = []
    for file in series(ball):
        ds = pydicom.dcmread(io.BytesIO(file.content()))
        if syntax == "RLE":
            ds.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        else:
            encapsulated, transfer = _by_gdcm(ds, syntax)
            ds.PixelData, ds.file_meta.TransferSyntaxUID = encapsulated, transfer
            ds["PixelData"].VR = "OB"
            ds["PixelData"].is_undefined_length = True
        out.append(_saved(ds, file.name))
    return tuple(out)


def _by_gdcm(dataset: Dataset, syntax: str) -> tuple[bytes, str]:
    """(encapsulated pixels, transfer syntax) as GDCM writes them."""
    import tempfile

    import SimpleITK as sitk

    image = sitk.GetImageFromArray(dataset.pixel_array[None].astype(np.uint16))
    with tempfile.TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(f"{folder}/one.dcm")
        writer.UseCompressionOn()
        writer.SetCompressor(syntax)
        writer.Execute(image)
        written = pydicom.dcmread(f"{folder}/one.dcm")
    return written.PixelData, written.file_meta.TransferSyntaxUID
