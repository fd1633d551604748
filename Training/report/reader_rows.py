"""Dice of networks and readers on the test nodules that four readers marked, for the readers' tables and figure."""

from dataclasses import dataclass, field

import numpy as np

from ..metrics.agreement import Agreement, reader_agreement
from .store import Experiment, Store

READERS = 4
NAMES = tuple(f"D{number}" for number in range(1, READERS + 1))


@dataclass
class ReaderRow:
    """One network on N test nodules of all its finished folds. nodules, patients: (N,) ids; agreement: see there."""

    key: str
    label: str
    folds: tuple[int, ...]
    jobs: list[str]
    nodules: np.ndarray = field(repr=False)
    patients: np.ndarray = field(repr=False)
    agreement: Agreement = field(repr=False)


def reader_rows(experiment: Experiment, jobs: Store) -> tuple[list[ReaderRow], list[str]]:
    """(rows with finished jobs, the option `network`'s first; why others with jobs are left out).

    A network that was trained on other nodules of its test patients is left out: nothing here may be of patients that
    were trained on. So is one without any nodule of four readers.
    """
    rows, left_out = [], []
    for row in experiment["rows"]:
        done = jobs.row_jobs(row)
        if not done:
            continue
        if any(int(jobs.manifest(job).get("patients_in_training_and_test") or 0) for job in done.values()):
            left_out.append(f"{row['label']} was trained on patients of its test nodules and is left out.")
            continue
        parts = [_four_readers(jobs.predictions(job)) for job in done.values()]
        readers, network, nodules, patients = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not len(readers):
            left_out.append(f"{row['label']}: none of its test nodules has four readers.")
            continue
        agreement = reader_agreement(readers, network)
        rows.append(ReaderRow(row["key"], row["label"], tuple(done), list(done.values()), nodules, patients, agreement))
    wanted = (experiment.get("options") or {}).get("network")
    return sorted(rows, key=lambda row: row.key != wanted), left_out


def _four_readers(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Masks and ids of the nodules with four readers: readers (N, 4, H, W), network (N, H, W), ids (N,) twice."""
    four = arrays["valid"].sum(1) == READERS
    masks = arrays["final"][four].astype(np.float32) >= 0.5
    return arrays["readers"][four], masks, arrays["nodule_id"][four], arrays["patient_id"][four]
