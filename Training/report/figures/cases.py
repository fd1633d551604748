"""Which rows, folds and nodules a figure shows: chosen by rules that are fixed before any result is looked at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ...metrics import consensus
from ..store import Experiment, Manifest, Row, Store

#: What a case is known by: its nodule's id, or its number in a list.
Key = TypeVar("Key", str, int)

MAPS = ("union", "intersection")
#: Below this a nodule has too few pixels for a picture of a network's maps.
LEAST_DIAMETER_MM = 8.0


@dataclass
class Case:
    """One test nodule on the network's grid.

    hu (H, W) int16; readers (R, H, W) bool, those who exist, the first is "Label_1"; spacing in mm (row, column);
    maps: probability maps (H, W) float32 by name (`final`, and for UGS-type networks `union`, `intersection`).
    """

    nodule_id: str
    patient_id: str
    diameter_mm: float
    hu: np.ndarray = field(repr=False)
    readers: np.ndarray = field(repr=False)
    spacing: np.ndarray = field(repr=False)
    maps: dict[str, np.ndarray] = field(repr=False)

    @property
    def any_reader(self) -> np.ndarray:
        """Union of the readers, (H, W) bool."""
        return np.any(self.readers, axis=0)

    @property
    def all_readers(self) -> np.ndarray:
        """Intersection of the readers, (H, W) bool."""
        return np.all(self.readers, axis=0)

    @property
    def consensus(self) -> np.ndarray:
        """What at least half of the readers include, (H, W) bool."""
        return consensus(self.readers)

    @property
    def disagreement(self) -> float:
        """(union - intersection) / union of the readers' areas, in [0, 1]; NaN where no reader marked the slice."""
        union = self.any_reader.sum()
        return float(1 - self.all_readers.sum() / union) if union else float("nan")

    @property
    def short_id(self) -> str:
        """The nodule's id without the data set's name."""
        return self.nodule_id.removeprefix("LIDC-IDRI-")


def load_cases(job: str, jobs: Store) -> list[Case]:
    """Every test nodule of a job, in its own order."""
    arrays = jobs.predictions(job)
    names = [name for name in ("final", "union", "intersection", "single") if name in arrays]
    return [
        Case(
            str(arrays["nodule_id"][i]),
            str(arrays["patient_id"][i]),
            float(arrays["diameter_mm"][i]),
            arrays["hu"][i],
            arrays["readers"][i][arrays["valid"][i]],
            arrays["spacing_mm"][i].astype(float),
            {name: arrays[name][i].astype(np.float32) for name in names},
        )
        for i in range(len(arrays["nodule_id"]))
    ]


def has_uncertainty(job: str, jobs: Store) -> bool:
    """Whether a job's network predicts union and intersection."""
    return all(name in jobs.predictions(job) for name in MAPS)


def find_row(experiment: Experiment, key: str | None) -> Row | None:
    """The row of that key, or None."""
    return next((row for row in experiment["rows"] if row["key"] == key), None)


def uncertainty_row(experiment: Experiment, jobs: Store) -> Row | None:
    """The row whose HC and LC are shown: option `row`, `ours` or `reference`, else `ugsnet`, else the first that fits.

    None when no row with finished jobs predicts union and intersection.
    """
    options = experiment.get("options") or {}
    wanted = [options.get(name) for name in ("row", "ours", "reference")] + ["ugsnet"]
    rows = [find_row(experiment, key) for key in wanted if key] + list(experiment["rows"])
    for row in rows:
        done = jobs.row_jobs(row) if row else {}
        if done and all(has_uncertainty(job, jobs) for job in done.values()):
            return row
    return None


def baseline_row(experiment: Experiment, rows: Sequence[Row]) -> Row:
    """Option `baseline`, else `unet`, else the first of `rows`."""
    wanted = (experiment.get("options") or {}).get("baseline", "unet")
    return next((row for row in rows if row["key"] == wanted), rows[0])


def common_fold(experiment: Experiment, jobs: Store) -> tuple[int, list[Row]]:
    """The fold that most rows have a finished job for (the lowest of several), and those rows in their order.

    No rows, and fold 0, before any job has finished.
    """
    done = [(row, jobs.row_jobs(row)) for row in experiment["rows"]]
    folds = sorted({fold for _, by_fold in done for fold in by_fold})
    if not folds:
        return 0, []
    fold = max(folds, key=lambda f: (sum(f in by_fold for _, by_fold in done), -f))
    return fold, [row for row, by_fold in done if fold in by_fold]


def quantile_picks(values: Mapping[Key, float], quantiles: Iterable[float]) -> list[Key]:
    """Ids whose value has the rank nearest to each quantile, without repeats; values that aren't finite drop out.

    Equal values are ordered by id, so the choice depends on nothing but the values.
    """
    ranked = sorted((value, name) for name, value in values.items() if np.isfinite(value))
    picks = [ranked[round(q * (len(ranked) - 1))][1] for q in quantiles] if ranked else []
    return list(dict.fromkeys(picks))


def evenly(count: int, low: float, high: float) -> list[float]:
    """`count` quantiles from low to high; the middle alone for one."""
    return [float(q) for q in (np.linspace(low, high, count) if count > 1 else [(low + high) / 2])]


def scored_dice(job: str, jobs: Store, column: str = "dsc_label1") -> dict[str, float]:
    """{nodule id: DSC of `final`} as scored by the experiment (scores.csv): against Label_1, or `dsc_consensus`."""
    table = jobs.scores(job)
    return {str(name): float(value) for name, value in zip(table["nodule_id"], table[column], strict=True)}


def network_words(manifest: Manifest) -> str:
    """A job's network as `width 16, 4 levels`, from its configuration."""
    network = manifest["config"]["network"]
    words = [f"width {network['width']}" if "width" in network else "its default width"]
    if "levels" in network:
        words.append(f"{network['levels']} levels")
    return ", ".join(words)


def networks_words(rows: Sequence[Row], fold: int, jobs: Store) -> str:
    """The widths of several rows' networks, said once where they are equal."""
    words = {row["label"]: network_words(jobs.manifest(jobs.row_jobs(row)[fold])) for row in rows}
    if len(set(words.values())) == 1:
        return f"Every network: {next(iter(words.values()))}."
    return "Networks: " + "; ".join(f"{label}: {text}" for label, text in words.items()) + "."


def profile_words(experiment: Experiment) -> str:
    """The experiment's profile as the last sentence of a caption."""
    profile = experiment.get("profile")
    return f" Profile: {profile}." if profile else ""


def varied_cases(cases: Mapping[Key, Case], count: int, low: float, high: float) -> tuple[list[Key], str]:
    """(keys of `count` cases at even quantiles `low` to `high` of the readers' disagreement, the rule in words).

    cases: {key: Case}. Images with one mask each go by its diameter. Small nodules show little: those of
    LEAST_DIAMETER_MM and more, if there are any.
    """
    values, what = {key: case.disagreement for key, case in cases.items()}, "the readers' disagreement"
    if not any(np.isfinite(value) and value > 0 for value in values.values()):
        values, what = {key: case.diameter_mm for key, case in cases.items()}, "diameter"
    large = {key: value for key, value in values.items() if cases[key].diameter_mm >= LEAST_DIAMETER_MM}
    size = f"of at least {LEAST_DIAMETER_MM:.0f} mm"
    if not large:
        large, size = values, "of any size"
    quantiles = evenly(count, low, high)
    places = ", ".join(f"{100 * q:.0f}" for q in quantiles)
    rule = f"at the percentile{'s' * (count > 1)} {places} of {what} among the {len(large)} nodules {size}"
    return quantile_picks(large, quantiles), rule
