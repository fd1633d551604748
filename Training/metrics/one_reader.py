"""The readers' own row: one reader against the others, by any metric of two masks."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, mask_set

MODES = ("first", "consensus", "pairwise")


def consensus(readers: ArrayLike) -> np.ndarray:
    """Mask (...) of what at least half of the readers (R, ...) include."""
    readers = mask_set(readers, "readers")
    return 2 * readers.sum(0) >= len(readers)


def leave_one_out(readers: ArrayLike) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(mask of one reader (...), masks of the others (R - 1, ...)) of each of the readers (R, ...), R >= 2.

    Raises MetricError for fewer than two readers.
    """
    readers = mask_set(readers, "readers")
    if len(readers) < 2:
        raise MetricError(f"readers: {len(readers)}; comparing one reader with the others takes at least two")
    for number in range(len(readers)):
        yield readers[number], np.delete(readers, number, 0)


def one_against_others(
    readers: ArrayLike, metric: Callable[[np.ndarray, np.ndarray], float], mode: str = "consensus"
) -> float:
    """Mean of `metric(mask of one reader, reference)` over the readers (R, ...) of one nodule, R >= 2.

    mode: `first`, every later reader against the first one (Label_1, the single reference of the UGS-Net papers);
    `consensus`, every reader against what at least half of the others include (with one other reader, that reader);
    `pairwise`, every reader against every other one (each pair once; `metric` is taken as symmetric).
    Raises MetricError for fewer than two readers or an unknown mode.
    """
    readers = mask_set(readers, "readers")
    if len(readers) < 2:
        raise MetricError(f"readers: {len(readers)}; comparing one reader with the others takes at least two")
    if mode == "first":
        values = [metric(reader, readers[0]) for reader in readers[1:]]
    elif mode == "consensus":
        values = [metric(reader, consensus(others)) for reader, others in leave_one_out(readers)]
    elif mode == "pairwise":
        values = [metric(a, b) for i, a in enumerate(readers) for b in readers[i + 1 :]]
    else:
        raise MetricError(f"mode {mode!r}: one of {', '.join(MODES)} is wanted")
    return float(np.mean(values))
