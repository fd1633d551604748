"""A locale with decimal commas that needs no package of the system: what Qt sets on a German computer.

python -m decimal_comma FOLDER: every reader and writer in turn, under that locale if the environment variable
DECIMAL_COMMA is set; prints what came back as JSON.
"""

import ctypes
import hashlib
import json
import locale
import os
import struct
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

NAME = "decimal-comma"
_CATEGORY = 1  # LC_NUMERIC


def write_locale(folder: Path) -> None:
    """The C library's compiled form of LC_NUMERIC, which it finds by the environment variable LOCPATH (glibc).

    `localedef` would write the same from sources that a small installation lacks: decimal point, separator of
    thousands, groups of three, both marks as code points, and the character set.
    """
    values = [b",\0", b".\0", b"\3\3\0", struct.pack("<I", ord(",")), struct.pack("<I", ord(".")), b"UTF-8\0"]
    start, offsets, data = 8 + 4 * len(values), [], b""
    for value in values:
        data += b"\0" * (-(start + len(data)) % 4)
        offsets.append(start + len(data))
        data += value
    (folder / NAME).mkdir(parents=True)
    head = struct.pack("<II", 0x20031115 ^ _CATEGORY, len(values)) + struct.pack(f"<{len(offsets)}I", *offsets)
    (folder / NAME / "LC_NUMERIC").write_bytes(head + data)


def set_locale() -> None:
    """As an application does for the whole process; macOS and Windows have such a locale of their own."""
    for name in (NAME, "de_DE.UTF-8", "German"):
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
        except locale.Error:
            continue
        break
    assert locale.localeconv()["decimal_point"] == ","
    text = ctypes.create_string_buffer(16)
    ctypes.CDLL(None if sys.platform != "win32" else "ucrtbase").sprintf(text, b"%.2f", ctypes.c_double(1.25))
    assert text.value == b"1,25"


def told(image) -> list:
    """Where an image lies, and a hash of its values."""
    values = hashlib.sha256(np.ascontiguousarray(sitk.GetArrayFromImage(image)).tobytes()).hexdigest()
    return [image.GetSpacing(), image.GetOrigin(), image.GetDirection(), values]


def everything(folder: Path) -> dict:
    """What each reader says of each file, files of other writers (in `folder`) and of this process."""
    from fake_model import bright_model
    from LungNoduleKit.files import image_writer, read_image, write_whole
    from LungNoduleKit.images import read_ct, read_volume
    from LungNoduleKit.masks import read_mask, read_masks
    from LungNoduleKit.readers import read_readers
    from LungNoduleKit.segmentation_file import read_segmentation
    from LungNoduleUncertaintyLib import __main__ as cli
    from LungNoduleUncertaintyLib.models import bundle
    from SoftMaskLabelerLib.__main__ import main as label
    from SoftMaskLabelerLib.pipeline import read_trimap
    from Training.data.folder import load_folder

    cli.load_model = bundle.load_model = lambda *_: bright_model()
    out = {}
    for ending in ("nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz", "vtk"):
        path = folder / f"ct.{ending}"
        out[ending] = [told(read_ct(path)), told(read_volume(path))]
        again = folder / f"again.{ending}"
        write_whole(again, image_writer(read_image(path))) if ending not in ("nhdr", "mhd") else again.write_bytes(b"")
        out[f"{ending} written"] = told(read_image(again)) if again.stat().st_size else None
    out["DICOM"] = told(read_ct(folder / "dicom", warn=lambda line: None))
    out["mask"] = told(read_mask(folder / "mask.nrrd"))
    for read in (read_masks, read_readers, read_segmentation):
        out[read.__name__] = {key: told(mask) for key, mask in read(folder / "readers.seg.nrrd").items()}
    out["trimap"] = told(read_trimap(folder / "trimap.nrrd"))
    nodules = load_folder(folder / "nodules", progress=False)
    out["Training"] = [[n.spacing.tolist(), int(n.hu.sum()), n.readers.sum((1, 2, 3)).tolist()] for n in nodules]
    point = json.loads((folder / "point.json").read_text())
    files = ("n.seg.nrrd", "r.json", "n.png")
    given = ["--output", "--report", "--figure"]
    arguments = [str(x) for pair in zip(given, (folder / f for f in files), strict=True) for x in pair]
    arguments += ["--probabilities", str(folder / "maps"), "--quiet"]
    assert cli.main(["segment", str(folder / "ct.nrrd"), "--point", *map(str, point), *arguments]) == 0
    report = json.loads((folder / "r.json").read_text())
    out["segment"] = [
        report["measurements"],
        report["warnings"],
        {k: report["files"][k] for k in sorted(report["files"])},
    ]
    soft = ["--output", str(folder / "soft.nrrd"), "--segment", str(folder / "soft.seg.nrrd"), "--quiet"]
    assert label([str(folder / "ct.nrrd"), "--mask", str(folder / "mask.nrrd"), *soft]) == 0
    out["soft mask"] = told(read_image(folder / "soft.nrrd"))
    out["soft segment"] = told(read_mask(folder / "soft.seg.nrrd"))
    assert label(["build", str(folder / "nodules"), "--output", str(folder / "set"), "--jobs", "1", "--quiet"]) == 0
    out["build"] = (folder / "set" / "manifest.csv").read_text()
    return out


if __name__ == "__main__":
    if os.environ.get("DECIMAL_COMMA"):
        set_locale()
    print(json.dumps(everything(Path(sys.argv[1]))))
