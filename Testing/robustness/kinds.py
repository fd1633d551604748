"""The kinds of input: how each is made and read, what the undisturbed one looks like, and what excuses a difference."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import bundle_inputs
import dicom_inputs
import excuses
import image_inputs
import table_inputs
import targets
import text_inputs
from damage import Rng, pick
from judge import Figures, measure_mask
from seeds import LARGE, SMALL, Ball, parts
from targets import Target

Build = Callable[[Rng, Path], tuple[Path, str]]


@dataclass(frozen=True)
class Kind:
    """A kind of input. `share`: how many of a hundred or so inputs are of it."""

    share: int
    about: str
    build: Build
    undisturbed: Callable[[Path], Path]
    target: Callable[[Rng], Target]
    expected: Callable[[Target], Figures | None]
    """Figures of the undisturbed input for a target; None: those of the product itself, which must not change."""
    excuse: excuses.Excuse
    """Whether a result that differs is what the damaged input itself says"""
    reason: str
    """Why a difference that is excused can't be seen"""
    one_seed: bool = True
    """Whether all inputs come from the undisturbed one; if not, each is compared with what it says alone"""

    def rng(self, name: str, number: int) -> Rng:
        """The generator of an input: its kind and its number are all that it depends on."""
        return np.random.default_rng([zlib.crc32(name.encode()), number])


def _always(target: Target) -> Callable[[Rng], Target]:
    return lambda rng: target


_SOUND = "the file's only header says another sound image"


def _ct_kind(
    share: int, about: str, build: Callable[[Rng, Path, Ball], tuple[Path, str]], plain: Callable[[Path], Path]
) -> Kind:
    return Kind(
        share,
        about,
        lambda rng, folder: build(rng, folder, SMALL),
        plain,
        _always(targets.ct),
        lambda target: excuses.ball(SMALL),
        excuses.claimed,
        _SOUND,
    )


def _write_dicom(folder: Path, files: tuple[Any, ...]) -> Path:
    target = folder / "dicom"
    target.mkdir()
    for file in files:
        (target / file.name).write_bytes(file.content())
    return target


def _plain_nrrd(folder: Path) -> Path:
    array = SMALL.hu()
    head = ["NRRD0004", *(a + b for a, b in image_inputs.nrrd_fields(SMALL, array, "raw", "little"))]
    (folder / "ct.nrrd").write_bytes(("\n".join(head) + "\n\n").encode() + array.tobytes())
    return folder / "ct.nrrd"


def _plain_nifti(folder: Path) -> Path:
    content = bytes(image_inputs.nifti_header(SMALL, 4, 16)) + SMALL.hu().tobytes()
    (folder / "ct.nii").write_bytes(content)
    return folder / "ct.nii"


def _plain_metaimage(folder: Path) -> Path:
    array = SMALL.hu()
    lines = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = {} {} {}\nElementSpacing = {} {} {}\nDimSize = {} {} {}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    ).format(*SMALL.origin, *SMALL.spacing, *SMALL.size)
    (folder / "ct.mha").write_bytes(lines.encode() + array.tobytes())
    return folder / "ct.mha"


def _plain_segmentation(folder: Path) -> Path:
    array = np.ascontiguousarray(np.moveaxis(parts(SMALL), 0, -1))
    head = ["NRRD0004", *(a + b for a, b in image_inputs.segmentation_fields(SMALL, array, "raw", False))]
    path = folder / "readers.seg.nrrd"
    path.write_bytes(("\n".join(head) + "\n\n").encode() + array.tobytes())
    return path


def _readers(target: Target) -> Figures:
    lattice = SMALL.matrix, np.asarray(SMALL.origin), SMALL.center
    each = {f"segment {n}": measure_mask(mask > 0, *lattice) for n, mask in enumerate(parts(SMALL), 1)}
    return measure_mask(parts(SMALL).any(0), *lattice) if target is targets.mask else each


def _any_segment(rng: Rng) -> Target:
    return pick(rng, (targets.masks, targets.segmentation, targets.mask))


@cache
def _large() -> Figures:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = _write_dicom(Path(folder), dicom_inputs.series(LARGE))
        notes: list[str] = []
        found = targets.command_line(path, notes, LARGE)
    if notes:
        raise SystemExit(f"the undisturbed CT is warned of: {notes}")
    return found


def _any_image(rng: Rng, folder: Path) -> tuple[Path, str]:
    return pick(
        rng, (dicom_inputs.plain, dicom_inputs.multi_frame, dicom_inputs.packed, image_inputs.nrrd, image_inputs.nifti)
    )(rng, folder, LARGE)


def _record_kind(name: str) -> Callable[[Path], Path]:
    return lambda folder: text_inputs.undisturbed_record(folder, name)


def _table_kind(name: str, share: int, about: str, target: Target) -> Kind:
    return Kind(
        share,
        about,
        lambda rng, folder: table_inputs.table_of(rng, folder, name),
        lambda folder: table_inputs.undisturbed_table(folder, name),
        _always(target),
        lambda _: None,
        excuses.given_table(table_inputs.TABLES[name][0]),
        "the table says other values",
    )


KINDS: dict[str, Kind] = {
    "dicom": _ct_kind(30, "a DICOM series", dicom_inputs.plain, lambda f: _write_dicom(f, dicom_inputs.series(SMALL))),
    "multi-frame": _ct_kind(
        8, "a multi-frame DICOM file", dicom_inputs.multi_frame, lambda f: _write_dicom(f, dicom_inputs.enhanced(SMALL))
    ),
    "compressed": _ct_kind(
        4,
        "a DICOM series with compressed pixels",
        dicom_inputs.packed,
        lambda f: _write_dicom(f, dicom_inputs.compressed(SMALL, "RLE")),
    ),
    "nrrd": _ct_kind(10, "a CT as NRRD", image_inputs.nrrd, _plain_nrrd),
    "nifti": _ct_kind(10, "a CT as NIfTI", image_inputs.nifti, _plain_nifti),
    "metaimage": _ct_kind(5, "a CT as MetaImage", image_inputs.metaimage, _plain_metaimage),
    "segmentation": Kind(
        9,
        "a Slicer segmentation, as masks",
        lambda rng, folder: image_inputs.segmentation(rng, folder),
        _plain_segmentation,
        _any_segment,
        _readers,
        excuses.claimed_segments,
        _SOUND,
    ),
    "nodules": Kind(
        6,
        "a data folder for training",
        table_inputs.nodules,
        table_inputs.undisturbed_nodules,
        _always(targets.nodules),
        lambda _: None,
        excuses.given_nodules,
        "the table or a cube's only header says other values",
    ),
    "images-table": _table_kind("images-table", 2, "the table of single images", targets.images_table),
    "labeler-cases": _table_kind("labeler-cases", 2, "the cases of a set of soft masks", targets.labeler_cases),
    "decisions": _table_kind("decisions", 1, "a reviewer's decisions", targets.decisions),
    "lesions": _table_kind("lesions", 1, "DeepLesion's table", targets.lesions),
    "store": Kind(
        3,
        "results that the report reads",
        table_inputs.store,
        table_inputs.undisturbed_store,
        _always(targets.store),
        lambda _: None,
        excuses.given_store,
        "the results say other values",
    ),
    "config": Kind(
        5,
        "a training configuration (TOML)",
        text_inputs.config,
        text_inputs.undisturbed_config,
        _always(targets.config),
        lambda _: None,
        excuses.given_toml,
        "the configuration says so",
        one_seed=False,
    ),
    "definition": Kind(
        3,
        "an experiment's definition (TOML)",
        text_inputs.definition,
        text_inputs.undisturbed_definition,
        _always(targets.definition),
        lambda _: None,
        excuses.given_rows,
        "the definition says so",
        one_seed=False,
    ),
    "record": Kind(
        5,
        "JSON files of runs, jobs and evaluations",
        text_inputs.record,
        _record_kind("manifest.json"),
        _always(targets.record),
        lambda _: None,
        excuses.given_json,
        "the record says so",
        one_seed=False,
    ),
    "bundle": Kind(
        5,
        "a model bundle",
        bundle_inputs.bundle,
        bundle_inputs.undisturbed,
        _always(targets.bundle),
        lambda _: None,
        excuses.signed_otherwise,
        "another bundle with hashes that fit",
    ),
    "segment": Kind(
        1,
        "a larger CT through the command line with the shipped model",
        _any_image,
        lambda f: _write_dicom(f, dicom_inputs.series(LARGE)),
        _always(partial(targets.command_line, ball=LARGE)),
        lambda _: _large(),
        excuses.says_otherwise,
        _SOUND,
    ),
}
