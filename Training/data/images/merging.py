"""`python -m Training merge-images`: several sets of images as one, for figures per data set, organ or modality."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..nodule import DatasetError
from .builder import Summary, new_folder
from .manifest import TABLE, check_rows, read_manifest, write_manifest

_FILES = ("image", "mask", "soft")


def merge_sets(folders: Sequence[str | Path], output: str | Path, *, progress: bool = True) -> Summary:
    """Writes the images of all `folders` as the new folder `output`, each set's files in a folder of its name.

    Folds, patients and names of images stay. Raises DatasetError if `output` exists, a file is missing, or two sets
    have a folder's name, an image_id, or a patient in other folds in common.
    """
    sources = [Path(folder) for folder in folders]
    names = [source.resolve().name for source in sources]
    if len(set(names)) < len(names):
        raise DatasetError(f"{' '.join(map(str, sources))}: folders of one name can't be merged; rename one")
    rows: list[dict[str, Any]] = []
    files: set[Any] = set()
    with new_folder(output) as target:
        for folder, name in zip(sources, names, strict=True):
            for row in tqdm(read_manifest(folder), desc=name, disable=not progress, leave=False):
                for key in _FILES:
                    if row[key]:
                        row[key] = _copy(folder, row[key], target, name)
                files.add(row["image"] if row["slice"] is None else (row["image"], row["slice"]))
                rows.append(row)
        check_rows(rows, str(output))
        write_manifest(target / TABLE, rows)
    return Summary(len(files), len(rows), len({row["patient_id"] for row in rows}), 0)


def _copy(folder: Path, file: str, target: Path, name: str) -> str:
    """Copies a set's file, and the raw data beside a MetaImage header; returns its new relative path."""
    source = folder / file
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise DatasetError(f"{source}: only files within their set's folder can be merged")
    if not source.is_file():
        raise DatasetError(f"{source}: listed in {TABLE} but not found")
    beside = (
        [source.with_suffix(end) for end in (".raw", ".zraw")] if source.suffix.lower() in (".mhd", ".nhdr") else []
    )
    for part in (source, *(path for path in beside if path.is_file())):
        copy = target / name / part.relative_to(folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, copy)
    return f"{name}/{Path(file).as_posix()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `merge-images`."""
    parser.description = "Several sets of images as one, e.g. for figures per modality. Folds and patients stay."
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders with images.csv")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must not exist")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The command `merge-images`; returns its exit status."""
    done = merge_sets(args.folders, args.output, progress=not args.quiet)
    print(f"{args.output}: {done.images} images, {done.rows} rows, {done.patients} patients")
    return 0
