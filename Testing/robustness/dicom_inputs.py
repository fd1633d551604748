"""DICOM folders: a series of single slices, one multi-frame file, and a series with compressed pixels, damaged.

Each damage is a function of the files and a random generator that returns other files and says what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import damage
from damage import Rng, pick
from dicom_folders import double, drop, frames, mix, rename
from dicom_makers import (
    PIXELS,
    UID,
    DicomFile,
    Element,
    at,
    changed,
    compressed,
    enhanced,
    padded,
    places,
    series,
)
from seeds import Ball

Files = list[DicomFile]
Damage = Callable[[Files, Rng], tuple[Files, str]]

NUMBERS = {
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00280030: "PixelSpacing",
    0x00180050: "SliceThickness",
    0x00180088: "SpacingBetweenSlices",
    0x00201041: "SliceLocation",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00200013: "InstanceNumber",
    0x00280008: "NumberOfFrames",
}
COUNTS = {
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280002: "SamplesPerPixel",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
}
WORDS = {
    0x00080060: ("Modality", ("MR", "PT", "SR", "", "ct", "CT\\MR", "OT")),
    0x00080008: ("ImageType", ("", "ORIGINAL\\PRIMARY\\LOCALIZER", "DERIVED\\SECONDARY", "\\\\", "AXIAL")),
    0x00280004: ("PhotometricInterpretation", ("MONOCHROME1", "RGB", "PALETTE COLOR", "", "YBR_FULL")),
    0x00080005: ("SpecificCharacterSet", ("ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87", "nonsense", "\\", "GB18030")),
    0x0008103E: ("SeriesDescription", ("", "\xe4\xf6", "x" * 64, "\x1b$B", "a\\b", "\x00")),
    0x00281054: ("RescaleType", ("US", "", "MGML", "OD")),
    0x00100010: ("PatientName", ("", "\xff\xfe", "^^^^^", "=" * 20)),
}
IDENTIFIERS = {
    0x0020000E: "SeriesInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x00200052: "FrameOfReferenceUID",
    0x00080018: "SOPInstanceUID",
    0x00080016: "SOPClassUID",
    0x00020010: "TransferSyntaxUID",
    0x00020002: "MediaStorageSOPClassUID",
}
SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.5",
    f"{UID}.77",
    "",
)
NAMED = {**NUMBERS, **COUNTS, **{tag: name for tag, (name, _) in WORDS.items()}, **IDENTIFIERS, PIXELS: "PixelData"}
VRS = (b"DS", b"IS", b"US", b"SS", b"UL", b"FD", b"FL", b"LO", b"UI", b"OB", b"OW", b"UN", b"SQ", b"AT", b"PN", b"??")


def _which(files: Files, rng: Rng, every: float = 0.12) -> list[int]:
    """The files that are damaged: mostly one, sometimes a few, the first, or all."""
    form = rng.random()
    if form < every:
        return list(range(len(files)))
    if form < every + 0.15:
        return sorted(set(rng.integers(len(files), size=3).tolist()))
    return [0] if form < every + 0.25 else [int(rng.integers(len(files)))]


def _edit(
    files: Files, rng: Rng, tags: dict[int, str], new: Callable[[Element], list[Element]], what: str
) -> tuple[Files, str]:
    """`new` in place of an element of one of the tags, in some files or at some of its places in a file."""
    tag = pick(rng, sorted(tags))
    out, done = list(files), []
    for n in _which(files, rng):
        found = places(out[n].elements, tag)
        if not found:
            continue
        chosen = found if rng.random() < 0.1 else [pick(rng, found)]
        for path in reversed(chosen):
            out[n] = replace(out[n], elements=changed(out[n].elements, path, new(at(out[n].elements, path))))
        done.append(f"{out[n].name}" + (f" ({len(chosen)} of {len(found)} places)" if len(found) > 1 else ""))
    return out, f"{what} {tags[tag]} in {', '.join(done) if len(done) < 5 else f'{len(done)} files'}"


def change_number(files: Files, rng: Rng) -> tuple[Files, str]:
    """A decimal in a header becomes another one, or none; the same one in every file that is changed."""
    seed = int(rng.integers(2**31))
    told: list[str] = []

    def new(element: Element) -> list[Element]:
        own = np.random.default_rng(seed)
        parts = bytes(element.value).decode().strip(" \0").split("\\")
        form = own.integers(12)
        if form == 0:
            parts = parts[:-1]
        elif form == 1:
            parts = [*parts, parts[-1]]
        elif form == 2:
            parts = [pick(own, damage.NO_NUMBERS)]
        else:
            n = int(own.integers(len(parts)))
            try:
                parts[n] = damage.odd_number(own, float(parts[n]))
            except ValueError:  # damaged already
                parts[n] = pick(own, damage.NO_NUMBERS)
        told[:] = ["\\".join(parts)]
        return [replace(element, value=padded(told[0]))]

    files, what = _edit(files, rng, NUMBERS, new, "changed")
    return files, f"{what} to {''.join(told)!r}"


def change_count(files: Files, rng: Rng) -> tuple[Files, str]:
    """A 16-bit number in a header becomes another one."""
    value = pick(rng, (*damage.LARGE_COUNTS[:11], 8, 12, 16, 24, 32, 48, 64))
    raw = (value & 0xFFFF).to_bytes(2, "little")
    files, what = _edit(files, rng, COUNTS, lambda e: [replace(e, value=raw)], "changed")
    return files, f"{what} to {value & 0xFFFF}"


def change_word(files: Files, rng: Rng) -> tuple[Files, str]:
    """A word or text in a header becomes another one."""
    tag = pick(rng, sorted(WORDS))
    name, words = WORDS[tag]
    word = pick(rng, words)
    out = list(files)
    chosen = _which(files, rng)
    for n in chosen:
        element = Element(tag, b"CS", padded(word))
        where = out[n].find(tag)
        kept = [e for k, e in enumerate(out[n].elements) if k != where]
        out[n] = replace(out[n], elements=tuple(sorted([*kept, element], key=lambda e: e.tag)))
    return out, f"{name} {word!r} in {len(chosen)} files"


def change_identifier(files: Files, rng: Rng) -> tuple[Files, str]:
    """A UID becomes another one, an illegal one or another syntax's."""
    value = pick(rng, SYNTAXES) if rng.random() < 0.5 else pick(rng, (f"{UID}.4711", "", "abc", "1..2", "9" * 70))
    files, what = _edit(files, rng, IDENTIFIERS, lambda e: [replace(e, value=padded(value, b"UI"))], "changed")
    return files, f"{what} to {value!r}"


def remove(files: Files, rng: Rng) -> tuple[Files, str]:
    """An element is taken out."""
    return _edit(files, rng, NAMED, lambda e: [], "removed")


def empty(files: Files, rng: Rng) -> tuple[Files, str]:
    """An element loses its value."""
    return _edit(files, rng, NAMED, lambda e: [replace(e, value=b"")], "emptied")


def repeat(files: Files, rng: Rng) -> tuple[Files, str]:
    """An element stands there twice, the second time with another value."""
    other = padded(damage.odd_number(rng, 1.0))
    return _edit(files, rng, NUMBERS, lambda e: [e, replace(e, value=other)], f"repeated with {other!r}")


def wrong_type(files: Files, rng: Rng) -> tuple[Files, str]:
    """An element has another value representation."""
    vr = pick(rng, VRS)
    return _edit(files, rng, NAMED, lambda e: [replace(e, vr=vr)], f"called {vr.decode()}:")


def wrong_length(files: Files, rng: Rng) -> tuple[Files, str]:
    """An element says that it is longer or shorter than it is."""
    length = int(pick(rng, (0, 1, 2, 6, 100, 65534, 65535, 2**24, 2**31 - 2, 2**32 - 2, 2**32 - 1)))
    return _edit(files, rng, NAMED, lambda e: [replace(e, length=length)], f"length {length} of")


def swap_values(files: Files, rng: Rng) -> tuple[Files, str]:
    """Two elements of a file have each other's value."""
    out, n = list(files), int(rng.integers(len(files)))
    plain = [k for k, e in enumerate(out[n].elements) if isinstance(e.value, bytes) and e.tag in NAMED]
    if len(plain) < 2:
        return out, "nothing to swap"
    one, two = rng.choice(plain, 2, replace=False).tolist()
    elements = list(out[n].elements)
    elements[one], elements[two] = (
        replace(elements[one], value=elements[two].value),
        replace(elements[two], value=elements[one].value),
    )
    out[n] = replace(out[n], elements=tuple(elements))
    return out, f"{NAMED[elements[one].tag]} and {NAMED[elements[two].tag]} swapped in {out[n].name}"


def reorder_elements(files: Files, rng: Rng) -> tuple[Files, str]:
    """Elements stand in another order."""
    out, n = list(files), int(rng.integers(len(files)))
    head = [e for e in out[n].elements if e.tag < 0x00030000]
    rest = [e for e in out[n].elements if e.tag >= 0x00030000]
    shuffled = [rest[k] for k in rng.permutation(len(rest))]
    out[n] = replace(out[n], elements=(*head, *shuffled))
    return out, f"elements of {out[n].name} shuffled"


def damage_bytes(files: Files, rng: Rng) -> tuple[Files, str]:
    """Files cut off, emptied, doubled, overwritten."""
    out, told = list(files), ""
    for n in _which(files, rng):
        content, told = damage.any_bytes(rng, out[n].content())
        out[n] = replace(out[n], raw=content)
        told = f"{out[n].name}: {told}"
    return out, told


def flip_header(files: Files, rng: Rng) -> tuple[Files, str]:
    """Bytes changed before the pixels."""
    out, n = list(files), int(rng.integers(len(files)))
    content, told = damage.flipped(rng, out[n].content(), 128, out[n].pixels_at())
    out[n] = replace(out[n], raw=content)
    return out, f"{out[n].name}: header {told}"


def flip_pixels(files: Files, rng: Rng) -> tuple[Files, str]:
    """Bytes changed in the pixels."""
    out, n = list(files), int(rng.integers(len(files)))
    content, told = damage.flipped(rng, out[n].content(), out[n].pixels_at())
    out[n] = replace(out[n], raw=content)
    return out, f"{out[n].name}: pixels {told}"


def resize_pixels(files: Files, rng: Rng) -> tuple[Files, str]:
    """More or fewer pixels than rows and columns say."""
    amount = int(pick(rng, (-2, -1, 1, 2, -48, 48, 96, -500, 4096)))

    def new(element: Element) -> list[Element]:
        value = bytes(element.value)
        return [replace(element, value=value[:amount] if amount < 0 else value + bytes(amount))]

    return _edit(files, rng, {PIXELS: "PixelData"}, new, f"{amount:+d} bytes of")


def other_head(files: Files, rng: Rng) -> tuple[Files, str]:
    """No preamble, another one, or none of the group that comes first."""
    form, out = int(rng.integers(4)), list(files)
    head = (b"", b"DICM", b"\xff" * 128 + b"DICM", b"II*\0" + bytes(124) + b"DICM")[form]
    chosen = _which(files, rng, every=0.4)
    for n in chosen:
        elements = out[n].elements
        if rng.random() < 0.3:
            elements = tuple(e for e in elements if e.tag >= 0x00030000)
        out[n] = replace(out[n], head=head, elements=elements)
    return out, f"preamble {('none', 'DICM alone', 'of 0xff', 'of a TIFF')[form]} in {len(chosen)} files"


_COMMON: tuple[Damage, ...] = (
    *(change_number,) * 6,
    *(change_count, remove, flip_header) * 2,
    *(change_word, change_identifier, empty, repeat, wrong_type, wrong_length, swap_values, reorder_elements),
    *(damage_bytes, flip_pixels, resize_pixels, other_head),
)
SERIES = (*_COMMON, *(drop, double, rename, mix) * 2)
MULTI_FRAME = (*_COMMON, *(frames,) * 6, rename)


def _build(files: tuple[DicomFile, ...], damages: tuple[Damage, ...], rng: Rng, folder: Path) -> tuple[Path, str]:
    out, told = list(files), []
    for _ in range(int(pick(rng, (1, 1, 1, 1, 2, 3)))):
        out, what = pick(rng, damages)(out, rng) if out and all(f.raw is None for f in out) else (out, "")
        told += [what] if what else []
    target = folder / "dicom"
    target.mkdir()
    for file in out:
        path = target / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content())
        except OSError:  # a name that this system can't have
            told.append(f"{file.name!r} can't be written here")
    return target, "; ".join(told)


def plain(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """A series of single slices."""
    return _build(series(ball), SERIES, rng, folder)


def multi_frame(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """One multi-frame file."""
    return _build(enhanced(ball), MULTI_FRAME, rng, folder)


def packed(rng: Rng, folder: Path, ball: Ball) -> tuple[Path, str]:
    """A series with compressed pixels."""
    syntax = pick(rng, ("RLE", "JPEG", "JPEG2000"))
    path, told = _build(compressed(ball, syntax), SERIES, rng, folder)
    return path, f"{syntax}: {told}"
