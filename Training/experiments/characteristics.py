"""What readers said of the nodules, beside an experiment that shows its figures by group.

The jobs know ids, sizes and readers only; data set, organ and modality of images come with their scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from LungNoduleKit.files import write_record

from ..data.nodule_files import NODULES, read_table

FILE = "characteristics.json"
#: Columns of nodules.csv: mean ratings of the readers (LIDC), 1 to 5.
RATINGS = ("texture", "margin", "subtlety")


@dataclass(frozen=True)
class Characteristics:
    """Ratings of each nodule, by its id; a rating that is empty or no number isn't there."""

    nodules: dict[str, dict[str, float]]


def write(name: str, output: Path, data: Path) -> bool:
    """Write the ratings of a data folder's nodules into the experiment's folder; False if it has none."""
    if not (Path(data) / NODULES).is_file():
        return False
    found = {row["nodule_id"]: _ratings(row) for row in read_table(data)}
    found = {nodule: ratings for nodule, ratings in found.items() if ratings}
    if not found:
        return False
    folder = Path(output) / name
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / FILE, Characteristics(found), indent=1)
    return True


def _ratings(row: Mapping[str, str]) -> dict[str, float]:
    out = {}
    for name in RATINGS:
        try:
            out[name] = float(row.get(name) or "")
        except ValueError:
            continue
    return out
