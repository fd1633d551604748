"""Groups of an experiment's test nodules: by what came with their scores, what readers said, size and agreement."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ...experiments.characteristics import FILE
from ..measures import of_images
from ..store import Experiment, JobStore, Row
from .cases import Case, load_cases

#: Columns of words in scores.csv -> heading.
WORDS = {"modality": "Modality", "organ": "Organ", "dataset": "Data set"}
#: Ratings from 1 to 5 -> (heading, names of the lower end, the middle and the upper end).
RATINGS = {
    "texture": ("Texture", ("ground glass", "part-solid", "solid")),
    "margin": ("Margin", ("poorly defined", "between", "sharp")),
    "subtlety": ("Subtlety", ("subtle", "between", "obvious")),
}
LOW, HIGH = 2.5, 3.5
SIZES_MM = (6.0, 8.0, 15.0)


@dataclass
class Grouping:
    """A way to part the nodules: `groups` is {name: (N,) bool} in the order to show."""

    title: str
    groups: dict[str, np.ndarray] = field(repr=False)


def groupings(row: Row, experiment: Experiment, jobs: JobStore) -> tuple[list[Grouping], np.ndarray]:
    """(groupings, nodule ids (N,)) of all finished folds of a row; columns that part nothing give no grouping."""
    parts: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {}
    cases: list[Case | None] = []
    for job in jobs.row_jobs(row).values():
        scores = jobs.scores(job)
        parts.append(scores["nodule_id"])
        for name in (*WORDS, "diameter_mm"):
            columns.setdefault(name, []).append(scores.get(name, np.full(len(scores["nodule_id"]), "")))
        known = {case.nodule_id: case for case in load_cases(job, jobs)}
        cases += [known.get(str(name)) for name in scores["nodule_id"]]
    ids = np.concatenate(parts)
    found = [_by_words(title, np.concatenate(columns[name]).astype(str)) for name, title in WORDS.items()]
    found += _by_ratings(ids, experiment, jobs)
    if not of_images(experiment.get("options")):  # which may have no pixel size, and have one mask
        diameter = np.array([np.nan if case is None else case.diameter_mm for case in cases])
        found += [_by_size(diameter), *_by_readers(cases)]
    return [one for one in found if len(one.groups) > 1], ids


def _kept(title: str, groups: dict[str, np.ndarray]) -> Grouping:
    return Grouping(title, {name: mask for name, mask in groups.items() if mask.any()})


def _by_words(title: str, values: np.ndarray) -> Grouping:
    return _kept(title, {name: values == name for name in sorted(set(values) - {"", "nan"})})


def _by_ratings(ids: np.ndarray, experiment: Experiment, jobs: JobStore) -> list[Grouping]:
    if not (jobs.root / experiment["name"] / FILE).is_file():
        return []
    known, out = jobs.beside(experiment["name"], FILE)["nodules"], []
    for name, (title, (low, middle, high)) in RATINGS.items():
        values = np.array([known.get(str(nodule), {}).get(name, np.nan) for nodule in ids])
        groups = {
            f"{low} (< {LOW:g})": values < LOW,
            f"{middle} ({LOW:g} to {HIGH:g})": (values >= LOW) & (values <= HIGH),
            f"{high} (> {HIGH:g})": values > HIGH,
        }
        out.append(_kept(f"{title} (readers' mean, 1 to 5)", groups))
    return out


def _by_size(diameter: np.ndarray) -> Grouping:
    ends = (-np.inf, *SIZES_MM, np.inf)
    names = (
        f"< {SIZES_MM[0]:g} mm",
        *(f"{a:g} to {b:g} mm" for a, b in pairwise(SIZES_MM)),
        f"≥ {SIZES_MM[-1]:g} mm",
    )
    groups = {n: (diameter >= a) & (diameter < b) for n, a, b in zip(names, ends[:-1], ends[1:], strict=True)}
    return _kept("Diameter of the consensus", groups)


def _by_readers(cases: Sequence[Case | None]) -> list[Grouping]:
    """By how many readers drew it, and by terciles of how far they disagree."""
    count = np.array([0 if case is None else len(case.readers) for case in cases])
    if count.max(initial=0) < 2:
        return []
    numbers = _kept("Readers", {f"{n}": count == n for n in range(2, count.max() + 1)})
    apart = np.array([np.nan if case is None else case.disagreement for case in cases])
    low, high = np.nanquantile(apart, [1 / 3, 2 / 3])
    groups = {
        f"alike (< {100 * low:.0f} %)": apart < low,
        f"middle ({100 * low:.0f} to {100 * high:.0f} %)": (apart >= low) & (apart < high),
        f"apart (≥ {100 * high:.0f} %)": apart >= high,
    }
    return [numbers, _kept("Readers' disagreement, terciles", groups)]
