"""The figures of one nodule: its masks compared in 3D with its readers, and the table (CSV) of many nodules."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from LungNoduleKit import tables
from LungNoduleKit.files import write_whole
from LungNoduleUncertaintyLib.measuring.measurements import equivalent_diameter_mm

from ..data.nodule import DatasetError, Nodule
from ..metrics import dice, generalized_energy_distance

_NUMBERS = ("equivalent_diameter_mm", "final", "hc", "union", "ged", "jitter")
_LISTS = ("readers_inside", "interval_mm3", "readers_interval_mm3")


@dataclass
class Score:
    """Figures of one nodule. Volumes in mm3; `error` says why there is no result (all Dice are then 0).

    final, hc, union: Dice of Final with the consensus, of HC with the intersection, of HC and LC with the union.
    readers_inside: for each reader, whether that reader's volume lies in `interval_mm3`, [V(HC), V(HC and LC)].
    readers_interval_mm3: the readers' own interval, [V(intersection), V(union)]. ged: generalized energy distance to
    the readers. jitter: mean Dice of the Final masks of moved points with each other, where there were any.

    Of a model with Final alone `hc`, `union` and `interval_mm3` are None, and `readers_inside` is empty.
    """

    nodule_id: str
    patient_id: str
    readers: int
    equivalent_diameter_mm: float
    final: float = 0.0
    hc: float | None = 0.0
    union: float | None = 0.0
    readers_inside: list[bool] = field(default_factory=list)
    interval_mm3: tuple[float, float] | None = (0.0, 0.0)
    readers_interval_mm3: tuple[float, float] = (0.0, 0.0)
    ged: float = 1.0
    jitter: float | None = None
    error: str = ""

    @property
    def width_ratio(self) -> float:
        """Width of the interval over that of the readers' own; NaN where there is none."""
        own = self.readers_interval_mm3[1] - self.readers_interval_mm3[0]
        if self.interval_mm3 is None:
            return float("nan")
        return (self.interval_mm3[1] - self.interval_mm3[0]) / own if own else float("nan")


def compare(
    nodule: Nodule,
    hc: np.ndarray | None,
    lc: np.ndarray | None,
    final: np.ndarray,
    samples: np.ndarray | None = None,
) -> Score:
    """Score of masks (z, y, x) on the nodule cube; HC and LC are None for a model with Final alone.

    `samples` are the masks (S, z, y, x) whose generalized energy distance (squared, d = 1 - IoU, in 3D) to the readers
    is taken: those of HC, Final and the union that there are, unless given (an ensemble's members).
    """
    voxel = float(np.prod(nodule.spacing))
    union = interval = None
    if hc is not None and lc is not None:
        union = hc | lc
        interval = (float(hc.sum() * voxel), float(union.sum() * voxel))
    if samples is None:
        samples = np.stack([mask for mask in (hc, final, union) if mask is not None])
    volumes = nodule.readers.sum((1, 2, 3)) * voxel
    consensus = nodule.consensus
    own = (float(nodule.readers.all(0).sum() * voxel), float(nodule.readers.any(0).sum() * voxel))
    return Score(
        nodule.nodule_id,
        nodule.patient_id,
        len(nodule.readers),
        equivalent_diameter_mm(consensus.sum() * voxel),
        dice(final, consensus),
        None if hc is None else dice(hc, nodule.readers.all(0)),
        None if union is None else dice(union, nodule.readers.any(0)),
        [] if interval is None else [bool(interval[0] <= v <= interval[1]) for v in volumes],
        interval,
        own,
        generalized_energy_distance(samples, nodule.readers),
    )


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """A CSV with a row for each nodule, to four decimals; what a model doesn't have is an empty cell."""
    rows = [_cells(score) for score in scores]

    def write(target: str | Path) -> None:
        with open(target, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def _cells(score: Score) -> dict[str, Any]:
    row: dict[str, Any] = {**asdict(score), "width_ratio": score.width_ratio}
    for key in _LISTS:
        row[key] = " ".join(f"{float(v):g}" for v in row[key] or ())
    return {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}


def read_scores(path: Path) -> list[Score]:
    """What `write_scores` wrote. Raises `DatasetError` for a file that isn't such a table."""
    try:
        return [_score(row) for row in tables.read_table(path, error=DatasetError)]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: isn't an evaluation's table ({error!r})") from error


def _score(row: dict[str, str]) -> Score:
    """A score from the cells of its row."""
    given: dict[str, Any] = {f.name: row[f.name] for f in fields(Score)}
    for key in _NUMBERS:
        given[key] = float(given[key]) if given[key] else None
    for key in _LISTS:
        given[key] = tuple(float(value) for value in given[key].split())
    given["readers"] = int(given["readers"])
    given["readers_inside"] = [bool(value) for value in given["readers_inside"]]
    given["interval_mm3"] = given["interval_mm3"] or None
    return Score(**given)
