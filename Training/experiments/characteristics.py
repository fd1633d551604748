"""What readers said of the nodules, beside an experiment that shows its figures by group.

The jobs know ids, sizes and readers only; data set, organ and modality of images come with their scores.
"""

from pathlib import Path

from ..data.folder import NODULES, read_table
from . import jobs

FILE = "characteristics.json"
#: Columns of nodules.csv: mean ratings of the readers (LIDC), 1 to 5.
RATINGS = ("texture", "margin", "subtlety")


def write(name: str, output: Path, data: Path) -> bool:
    """Write the ratings of a data folder's nodules as OUT/<experiment>/characteristics.json; False if it has none.

    {"nodules": {nodule id: {rating: number}}}; a rating that is empty or no number is left out.
    """
    if not (Path(data) / NODULES).is_file():
        return False
    found = {row["nodule_id"]: _ratings(row) for row in read_table(data)}
    found = {nodule: ratings for nodule, ratings in found.items() if ratings}
    if not found:
        return False
    folder = Path(output) / name
    folder.mkdir(parents=True, exist_ok=True)
    jobs.write_json(folder / FILE, {"nodules": found})
    return True


def _ratings(row: dict) -> dict:
    out = {}
    for name in RATINGS:
        try:
            out[name] = float(row.get(name) or "")
        except ValueError:
            continue
    return out
