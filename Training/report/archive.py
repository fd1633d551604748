"""The archive of results: every nodule's figures of all studies in one Parquet file.

A row is a nodule in a *table*: the scores of a job (named as the job), of an evaluation, or of the readers on the grid
of some jobs. Which tables a study has is in the file's metadata, under the key ``studies``:
``{study: {job: {"scores": table, "readers": table or null}}}``. Columns are those of ``scores.csv``.

Figures were written with six significant digits, which float32 holds: they are stored with as many bits as that takes,
and `read_archive` returns the same float64 numbers that the CSV files had. Columns with more digits are stored as
float64.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from LungNoduleKit.files import write_whole

from .store import JobError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILE", "RESULTS", "merge_readers", "read_archive", "read_studies", "replace_study", "table_csv"]

FILE = "archive.parquet"
#: The results that the project ships; absent from an installed package.
RESULTS = Path(__file__).resolve().parents[2] / "Resources" / "results"
#: {study: {job: {"scores": table, "readers": table or None}}}
Studies = dict[str, dict[str, dict[str, str | None]]]

KEY = b"studies"
#: Columns with fewer distinct values than this share of their rows are stored as a dictionary of them.
DICTIONARY_SHARE = 0.3
#: Whole numbers.
_COUNTS = ("fold", "readers")


def read_archive(study: str | None = None, folder: str | Path = RESULTS) -> "pd.DataFrame":
    """Every nodule's figures of all studies, or of one: a row a nodule and table, columns as in ``scores.csv``.

    folder: where ``archive.parquet`` lies. Without a study a table that several have is there once. Raises JobError for
    a file that can't be read and for a study that it doesn't hold.
    """
    frame, studies = _read(Path(folder))
    if study is None:
        return frame
    if study not in studies:
        raise JobError(f"{Path(folder) / FILE}: has no study {study}; there are {', '.join(studies)}")
    tables = {table for job in studies[study].values() for table in job.values() if table}
    return frame[frame["table"].isin(tables)].reset_index(drop=True)


def read_studies(folder: str | Path = RESULTS) -> Studies:
    """The studies of an archive, and the tables of each one's jobs. Raises JobError."""
    return _read(Path(folder))[1]


_CACHE: dict[tuple[Path, int], tuple[Any, Studies]] = {}


def _read(folder: Path) -> tuple["pd.DataFrame", Studies]:
    import pyarrow.parquet

    path = folder / FILE
    try:
        key = (path.resolve(), path.stat().st_mtime_ns)
        if key not in _CACHE:
            table = pyarrow.parquet.read_table(path)
            studies = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
            frame = table.to_pandas()
            for name in frame.select_dtypes("float32"):
                frame[name] = six_digits(frame[name].to_numpy())
            for name in frame.columns.intersection(_COUNTS):
                frame[name] = frame[name].astype("Int8")
            _CACHE.clear()
            _CACHE[key] = frame, studies
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise JobError(f"{path}: {reason}") from None
    frame, studies = _CACHE[key]
    return frame.copy(), studies


def six_digits(values: np.ndarray) -> np.ndarray:
    """float32 numbers as the nearest decimals of six significant digits, in float64, as if read from their text."""
    wide = np.asarray(values, np.float64)
    out, used = wide.copy(), np.isfinite(wide) & (wide != 0)
    place = 5 - np.floor(np.log10(np.abs(wide[used]))).astype(int)
    powers = np.array(
        [float(f"1e{n}") for n in range(23)]
    )  # exact, as are whole numbers, so each result is rounded once
    up, down = powers[np.clip(place, 0, 22)], powers[np.clip(-place, 0, 22)]
    out[used] = np.rint(wide[used] * up / down) / up * down
    return out


def shortened(values: np.ndarray) -> np.ndarray:
    """float32 numbers with as few bits set as `six_digits` needs to find the decimals again; they compress better."""
    wide = np.asarray(values, np.float64)
    out = wide.astype(np.float32)
    bits = out.view(np.uint32)
    for dropped in range(1, 13):
        rounded = ((bits + np.uint32(1 << (dropped - 1))) >> np.uint32(dropped) << np.uint32(dropped)).view(np.float32)
        kept = six_digits(rounded) == wide
        out = np.where(kept, rounded, out)
    return out


def merge_readers(frames: "dict[str, pd.DataFrame]") -> "tuple[dict[str, pd.DataFrame], dict[str, str]]":
    """Readers' tables of jobs as few tables: ({name: frame}, {job: name}); a nodule is in each of them once.

    Jobs with the same nodules on the same grid have the same figures of the readers; one that differs in any figure of
    a common nodule gets another table. The fold of a nodule is left out, because it is the job's.
    """
    import pandas as pd

    merged: list[pd.DataFrame] = []
    places: dict[str, int] = {}
    for job, frame in frames.items():
        own = frame.drop(columns="fold", errors="ignore").set_index("nodule_id")
        for number, other in enumerate(merged):
            nodules, columns = own.index.intersection(other.index), own.columns.intersection(other.columns)
            if len(nodules) and own.loc[nodules, columns].equals(other.loc[nodules, columns]):
                merged[number] = other.combine_first(own)
                places[job] = number
                break
        else:
            places[job] = len(merged)
            merged.append(own)
    names = [f"readers-{number + 1}" for number in range(len(merged))]
    tables = {name: frame.reset_index() for name, frame in zip(names, merged, strict=True)}
    return tables, {job: names[number] for job, number in places.items()}


def replace_study(
    study: str,
    tables: "dict[str, pd.DataFrame]",
    jobs: dict[str, dict[str, str | None]],
    folder: str | Path = RESULTS,
) -> Path:
    """Write a study's tables into the archive in a folder, in place of those that it had; returns the file's path.

    tables: {name: frame with ``nodule_id``}; jobs: {job: {"scores": name, "readers": name or None}}. A table with the
    content of one that is there already is stored once; another one of the same name is called ``study/name``. Tables
    that no study has any longer go. Raises JobError where the archive there can't be read, OutputError.
    """
    import pandas as pd

    path = Path(folder) / FILE
    known, studies = _read(Path(folder)) if path.is_file() else (pd.DataFrame({"table": []}), {})
    studies = {name: content for name, content in studies.items() if name != study}
    used = {table for content in studies.values() for job in content.values() for table in job.values() if table}
    kept = {str(name): frame.drop(columns="table") for name, frame in known.groupby("table") if name in used}
    names: dict[str, str] = {}
    for name, frame in tables.items():
        names[name] = next((n for n in (name, f"{study}/{name}") if n not in kept or _same(kept[n], frame)), "")
        kept[names[name]] = frame
    studies[study] = {
        job: {role: names[name] if name else None for role, name in roles.items()} for job, roles in jobs.items()
    }
    frame = pd.concat([frame.assign(table=name) for name, frame in sorted(kept.items())], ignore_index=True)
    _write(path, frame, dict(sorted(studies.items())))
    return path


def _same(first: "pd.DataFrame", second: "pd.DataFrame") -> bool:
    one, other = (
        frame.dropna(axis="columns", how="all").set_index("nodule_id").sort_index(axis="columns")
        for frame in (first, second)
    )
    if list(one.columns) != list(other.columns) or list(one.index) != list(other.index):
        return False
    return all(one[name].fillna(0).tolist() == other[name].fillna(0).tolist() for name in one.columns)


def _write(path: Path, frame: "pd.DataFrame", studies: Studies) -> None:
    import pyarrow
    import pyarrow.parquet

    first = [name for name in ("table", "nodule_id", "patient_id", *_COUNTS) if name in frame]
    arrays: dict[str, pyarrow.Array] = {}
    dictionary: list[str] = []
    split: list[str] = []
    for name in [*first, *(name for name in frame.columns if name not in first)]:
        values = frame[name]
        if values.isna().all():
            continue
        if values.dtype.kind == "f" and name not in _COUNTS:
            wide = values.to_numpy(np.float64)
            narrow = shortened(wide)
            exact = np.array_equal(six_digits(narrow), wide, equal_nan=True)
            arrays[name] = pyarrow.array(narrow if exact else wide, from_pandas=True)
            repeated = values.nunique() < DICTIONARY_SHARE * values.count()
            (dictionary if repeated else split).append(name)
        else:
            kept = values.astype("Int8") if name in _COUNTS else values.astype("str")
            arrays[name] = pyarrow.array(kept.where(values.notna(), None))
            dictionary.append(name)
    table = pyarrow.table(arrays).replace_schema_metadata({KEY: json.dumps(studies, separators=(",", ":")).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path,
        lambda target: pyarrow.parquet.write_table(
            table,
            target,
            compression="brotli",
            compression_level=11,
            use_dictionary=dictionary,
            use_byte_stream_split=split,
            dictionary_pagesize_limit=1 << 24,
            data_page_size=1 << 24,
            write_statistics=False,
        ),
    )


def table_csv(frame: "pd.DataFrame") -> str:
    """A table of the archive as CSV text, as ``scores.csv`` is written: six digits, empty where nothing is."""
    shown = frame.drop(columns="table", errors="ignore").dropna(axis="columns", how="all")
    return shown.to_csv(index=False, float_format="%.6g", lineterminator="\n")
