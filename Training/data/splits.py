"""Which nodules train, choose checkpoints and are tested: always apart by patient, but for the papers' own split.

Every choice follows from names through a hash, so that it is the same on every machine and for every order of the
nodules.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ..config import Config
from .nodule import DatasetError, Nodule

# What of a configuration's table `data` decides who is tested; `validation_share` and `split_seed` divide the others.
SPLIT_KEYS = ("least_readers", "shares", "split", "folds")


class Split(NamedTuple):
    """Nodules to train on, to choose checkpoints by, and to test."""

    training: list[Nodule]
    validation: list[Nodule]
    test: list[Nodule]


def _order(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def nodule_fold(nodule_id: str, folds: int = 5, seed: int = 0) -> int:
    """The fold of a nodule under the papers' split by nodule, which lets a patient into several folds."""
    return int(_order(seed, nodule_id), 16) % folds


def patient_folds(nodules: Sequence[Nodule], folds: int) -> dict[str, int]:
    """The fold of every patient, with about as many nodules in each fold (those with most nodules are dealt first)."""
    counts: dict[str, int] = {}
    for nodule in nodules:
        counts[nodule.patient_id] = counts.get(nodule.patient_id, 0) + 1
    held, dealt = [0] * folds, {}
    for patient in sorted(counts, key=lambda p: (-counts[p], _order(0, p))):
        dealt[patient] = held.index(min(held))
        held[dealt[patient]] += counts[patient]
    return dealt


def split(
    nodules: Sequence[Nodule],
    fold: int | None,
    validation_share: float,
    seed: int = 0,
    by: Literal["patient", "nodule"] = "patient",
    folds: int = 0,
) -> Split:
    """Test is `fold` (none if None); validation is carved from the rest.

    by: `patient` (folds of nodules.csv, or `folds` new ones) or `nodule`, the papers' own split, for measuring its leak
    only. What is picked for validation is decided by a hash of seed and patient (or nodule), so it depends on nothing
    else. With `patient`, no patient is in two of the lists, which is checked.
    """

    def group(nodule: Nodule) -> str:
        return nodule.patient_id if by == "patient" else nodule.nodule_id

    if by == "nodule":
        fold_of = {n.nodule_id: nodule_fold(n.nodule_id, folds or 5) for n in nodules}
    elif folds:
        dealt = patient_folds(nodules, folds)
        fold_of = {n.nodule_id: dealt[n.patient_id] for n in nodules}
    else:
        fold_of = {n.nodule_id: n.fold for n in nodules}
    rest = [n for n in nodules if fold_of[n.nodule_id] != fold]
    test = [n for n in nodules if fold_of[n.nodule_id] == fold]
    if fold is not None and not test:
        raise DatasetError(f"fold {fold} holds no nodule; folds here: {sorted(set(fold_of.values()))}")
    groups = sorted({group(n) for n in rest}, key=lambda g: _order(seed, g))
    chosen = set(groups[: round(validation_share * len(groups))])
    training = [n for n in rest if group(n) not in chosen]
    validation = [n for n in rest if group(n) in chosen]
    return _apart(Split(training, validation, test), group, by)


def proportional_split(nodules: Sequence[Nodule], shares: Sequence[float], draw: int) -> Split:
    """A split by patient, with nodules in the proportion of the three `shares`.

    DSNet's papers have 387, 55 and 544 nodules. Every `draw` is another such split.
    """
    if len(shares) != 3 or min(shares) < 0 or not (shares[0] and shares[2]):
        raise DatasetError(
            f"data.shares: three numbers are needed, for training, validation and test, got {list(shares)}"
        )
    patients: dict[str, list[Nodule]] = {}
    for nodule in nodules:
        patients.setdefault(nodule.patient_id, []).append(nodule)
    parts = Split([], [], [])
    for patient in sorted(patients, key=lambda p: _order(draw, p)):
        # To the part that lacks most of its share.
        lacking = [share / sum(shares) - len(part) / len(nodules) for share, part in zip(shares, parts, strict=True)]
        parts[lacking.index(max(lacking))].extend(patients[patient])
    if not (parts.training and parts.test):
        raise DatasetError(f"data.shares {list(shares)}: {len(patients)} patients are too few for them")
    return _apart(parts, lambda nodule: nodule.patient_id, "patient")


def _apart(parts: Split, group: Callable[[Nodule], str], by: str) -> Split:
    names = [{group(n) for n in part} for part in parts]
    shared = names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    if shared:
        raise DatasetError(f"{by}s in two parts of the split: {', '.join(sorted(shared)[:5])}")
    return parts


def configured_split(nodules: Sequence[Nodule], fold: int | None, config: Config) -> Split:
    """The split that a training configuration's table `data` says. Raises DatasetError where there is none."""
    data = config.data
    wanted = [n for n in nodules if len(n.readers) >= data.least_readers]
    if not wanted:
        raise DatasetError(f"data.least_readers: no nodule has {data.least_readers} readers")
    if data.shares:
        if fold is None:
            raise DatasetError("data.shares: give a fold; its number draws another split of these proportions")
        return proportional_split(wanted, data.shares, fold)
    seed = config.seed if data.split_seed < 0 else data.split_seed
    parts = split(wanted, fold, data.validation_share, seed, data.split, data.folds)
    if not parts.training:
        held = f"{len(parts.test)} are in fold {fold}, {len(parts.validation)} in validation"
        raise DatasetError(f"no nodule is left to train on: {held}")
    return parts
