"""Several readers, their consensus and a network on the same nodules: whose masks agree with whose, in Dice.

A reader is inside the consensus of all readers, so agreement with that is biased upwards for readers and not for a
network. Compared with what at least half of the others include, reader and network meet the same truth, which neither
has had a part in. Source: the comparison with readers of both DSNet papers, which have the first consensus alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, as_mask
from .one_reader import consensus, leave_one_out
from .readers import pairwise_dice
from .stats import PairedTest, paired_test


@dataclass
class Agreement:
    """Dice in [0, 1] of N nodules with R readers each.

    pairs: (N, R (R - 1) / 2), each reader against each other one, in the order of `pair_numbers`; reader_consensus
    (N, R): a reader against what at least half of all include, that reader among them; reader_others (N, R): against
    what at least half of the other readers include. network_reader (N, R), network_consensus (N,) and network_others
    (N, R): the network against the same masks. complete (N,) bool: no reader's mask is empty.
    """

    pairs: np.ndarray
    reader_consensus: np.ndarray
    reader_others: np.ndarray
    complete: np.ndarray
    network_reader: np.ndarray
    network_consensus: np.ndarray
    network_others: np.ndarray

    def differences(
        self, groups: Sequence[str] | Sequence[int] | np.ndarray | None = None, chosen: ArrayLike | None = None
    ) -> list[PairedTest]:
        """Network minus reader, both against the consensus of the other readers: R tests, then that of their mean.

        The last one takes each nodule's mean over readers, so it doesn't depend on the readers' order. groups: (N,)
        patient of each nodule; chosen: (N,) bool, nodules that count. Raises MetricError for fewer than two nodules.
        """
        chosen = np.ones(len(self.complete), bool) if chosen is None else np.asarray(chosen, bool)
        groups = None if groups is None else np.asarray(groups)[chosen]
        network, reader = self.network_others[chosen], self.reader_others[chosen]
        tests = [paired_test(a, b, groups) for a, b in zip(network.T, reader.T, strict=True)]
        return [*tests, paired_test(network.mean(1), reader.mean(1), groups)]


def pair_numbers(readers: int) -> list[tuple[int, int]]:
    """Indices of the pairs of readers: (0, 1), (0, 2), ..., (1, 2), ..."""
    return list(combinations(range(readers), 2))


def reader_agreement(readers: ArrayLike, network: ArrayLike) -> Agreement:
    """Dice between the readers' masks (N, R, H, W), R >= 3, their consensuses, and the network's masks (N, H, W).

    Two empty masks agree (1.0). Raises MetricError for another shape, or without a nodule.
    """
    readers = as_mask(readers, "readers")
    if readers.ndim != 4 or not len(readers) or readers.shape[1] < 3:
        raise MetricError(f"readers: shape {readers.shape}; (nodules, at least 3 readers, rows, columns) is wanted")
    network = as_mask(network, "network")
    if network.shape != (len(readers), *readers.shape[2:]):
        raise MetricError(f"network: masks of shape {network.shape} for readers of {readers.shape}")
    count = readers.shape[1]
    truths = np.stack([[consensus(r), *(consensus(others) for _, others in leave_one_out(r))] for r in readers])
    own = np.stack([pairwise_dice(r, np.concatenate((r, t))) for r, t in zip(readers, truths, strict=True)])
    first, second = np.array(pair_numbers(count)).T
    numbers = np.arange(count)
    rows = zip(network, readers, truths, strict=True)
    its = np.stack([pairwise_dice(n[None], np.concatenate((r, t)))[0] for n, r, t in rows])
    return Agreement(
        pairs=own[:, first, second],
        reader_consensus=own[:, :, count],
        reader_others=own[:, numbers, count + 1 + numbers],
        complete=np.all(np.any(readers, axis=(2, 3)), axis=1),
        network_reader=its[:, :count],
        network_consensus=its[:, count],
        network_others=its[:, count + 1 :],
    )
