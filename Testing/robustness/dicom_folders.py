"""Damage to a folder of DICOM files as a whole: files or frames missing, doubled, renamed, mixed."""

from __future__ import annotations

import os
from dataclasses import replace

from damage import Rng, pick
from dicom_makers import NUMBER_OF_FRAMES, PER_FRAME, PIXELS, UID, DicomFile, changed, enhanced, padded, series
from seeds import OTHER

Files = list[DicomFile]


def drop(files: Files, rng: Rng) -> tuple[Files, str]:
    """Slices are missing."""
    form = int(rng.integers(4))
    if form == 0:
        n = int(rng.integers(len(files)))
        return [f for k, f in enumerate(files) if k != n], f"without {files[n].name}"
    if form == 1:
        count = int(rng.integers(1, 6))
        return files[count:], f"without the first {count}"
    if form == 2:
        return files[::2], "every second slice alone"
    kept = sorted(rng.choice(len(files), max(1, len(files) // 2), replace=False).tolist())
    return [files[k] for k in kept], f"{len(kept)} of {len(files)} slices"


def double(files: Files, rng: Rng) -> tuple[Files, str]:
    """Slices are there twice: the same, under another UID, or with other pixels."""
    n, form = int(rng.integers(len(files))), int(rng.integers(3))
    copy = files[n].renamed(pick(rng, ("copy.dcm", "IM9999.dcm", "A.dcm", "sub/IM0000.dcm")))
    if form:
        where = copy.find(0x00080018)
        if where is not None:
            uid = replace(copy.elements[where], value=padded(f"{UID}.4.4", b"UI"))
            copy = replace(copy, elements=changed(copy.elements, (where,), [uid]))
    if form == 2:
        where = copy.find(PIXELS)
        if where is not None:
            value = bytes(copy.elements[where].value)
            copy = replace(
                copy, elements=changed(copy.elements, (where,), [replace(copy.elements[where], value=value[::-1])])
            )
    return [*files, copy], f"{files[n].name} twice, {('the same', 'under another UID', 'with other pixels')[form]}"


def rename(files: Files, rng: Rng) -> tuple[Files, str]:
    """Files have other names, among them ones that aren't text, or lie in sub-folders."""
    form = int(rng.integers(7))
    if form == 0:
        order = rng.permutation(len(files))
        return [f.renamed(files[k].name) for f, k in zip(files, order, strict=True)], "names shuffled"
    if form == 1:
        return [f.renamed(f"{n:04d}") for n, f in enumerate(files)], "names without an ending"
    if form == 2:
        return [f.renamed(f"{n % 3}/{f.name}") for n, f in enumerate(files)], "in three sub-folders"
    n = int(rng.integers(len(files)))
    name = (os.fsdecode(b"IM\xff\xfe.dcm"), "Lungenrundherd ä 肺.dcm", ".hidden.dcm", "DICOMDIR")[form - 3]
    out = list(files)
    out[n] = files[n].renamed(name)
    return out, f"{files[n].name} named {os.fsencode(name)!r}"


def mix(files: Files, rng: Rng) -> tuple[Files, str]:
    """Something else lies in the folder or is part of the series."""
    form = int(rng.integers(8))
    if form == 0:
        other = [f.renamed(f"B{f.name}") for f in series(OTHER, 2)]
        return [*files, *other], "with another series"
    if form == 1:
        uid = padded(f"{UID}.1", b"UI")
        count = int(rng.integers(1, OTHER.size[2]))
        other = [_with(f.renamed(f"B{f.name}"), 0x0020000E, uid) for f in series(OTHER, 2)][:count]
        return [*files, *other], f"with {count} slices of another series under the same UID"
    if form == 2:
        one = _with(files[0].renamed("scout.dcm"), 0x00200037, b"1\\0\\0\\0\\0\\-1 ")
        one = _with(one, 0x00080008, padded("ORIGINAL\\PRIMARY\\LOCALIZER"))
        return [one, *files], "with a localizer in the series"
    if form == 3:
        report = replace(
            files[0].renamed("report.dcm"), elements=tuple(e for e in files[0].elements if e.tag < 0x00280000)
        )
        return [*files, _with(report, 0x00080060, b"SR")], "with a report in the series"
    if form == 4:
        return [*files, DicomFile("notes.dcm", raw=b"not DICOM")], "with a text named .dcm"
    if form == 5:
        return [*files, DicomFile("broken.dcm", raw=files[0].content()[:300])], "with a cut-off file"
    if form == 6:
        return [*files, *[f.renamed(f"multi/{f.name}") for f in enhanced(OTHER)]], "with a multi-frame file"
    return [*files, DicomFile("DICOMDIR", raw=rng.bytes(500)), DicomFile("a/b/c/x.txt", raw=b"")], "with other files"


def _with(file: DicomFile, tag: int, value: bytes) -> DicomFile:
    where = file.find(tag)
    if where is None:
        return file
    return replace(file, elements=changed(file.elements, (where,), [replace(file.elements[where], value=value)]))


def frames(files: Files, rng: Rng) -> tuple[Files, str]:
    """Frames of the multi-frame file shuffled, left out, doubled, or more or fewer than it says."""
    file = files[0]
    group, pixels, count = (file.find(tag) for tag in (PER_FRAME, PIXELS, NUMBER_OF_FRAMES))
    if group is None or pixels is None or count is None:
        return files, "no frames"
    items, value = list(file.elements[group].value), bytes(file.elements[pixels].value)
    size = len(value) // len(items)
    planes = [value[k * size : (k + 1) * size] for k in range(len(items))]
    form, n = int(rng.integers(6)), int(rng.integers(len(items)))
    number = len(items)
    if form == 0:
        order = rng.permutation(len(items)).tolist()
        items, planes, told = [items[k] for k in order], [planes[k] for k in order], "frames shuffled"
    elif form == 1:
        del items[n], planes[n]
        number, told = number - 1, f"without frame {n}"
    elif form == 2:
        items.insert(n, items[n])
        planes.insert(n, planes[n])
        number, told = number + 1, f"frame {n} twice"
    elif form == 3:
        del items[n]
        told = f"without the header of frame {n}"
    elif form == 4:
        del planes[n:]
        told = f"without the pixels from frame {n} on"
    else:
        number = int(pick(rng, (0, 1, number - 1, number + 1, 2**31 - 1)))
        told = f"said to have {number} frames"
    elements = list(file.elements)
    elements[group] = replace(elements[group], value=tuple(items))
    elements[pixels] = replace(elements[pixels], value=b"".join(planes))
    elements[count] = replace(elements[count], value=padded(str(number)))
    return [replace(file, elements=tuple(elements))], told
