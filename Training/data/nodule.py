"""A nodule with its readers: the record that training, calibration and evaluation share."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from LungNoduleKit.errors import NoduleError

MAX_READERS = 4


class DatasetError(NoduleError):
    """A data folder that can't be used; the message names the file and the reason."""


@dataclass
class Nodule:
    """One nodule: HU (z, y, x) int16, readers (R, z, y, x) bool with R = 2 to 4, voxel spacing in mm (z, y, x).

    row: what its table says of it. soft: (z, y, x) float32 in [0, 1], where it comes with a soft label of its own.
    """

    nodule_id: str
    patient_id: str
    fold: int
    hu: np.ndarray
    readers: np.ndarray
    spacing: np.ndarray
    row: dict[str, Any] = field(repr=False, default_factory=dict)
    soft: np.ndarray | None = None

    @property
    def consensus(self) -> np.ndarray:
        """The mask of what at least half of the readers include."""
        return 2 * self.readers.sum(0) >= len(self.readers)

    def center(self) -> np.ndarray:
        """Centroid of the consensus in voxels (z, y, x)."""
        return np.argwhere(self.consensus).mean(0)

    def largest_slice(self) -> int:
        """Index along z of the slice with the largest area of the consensus."""
        return int(self.consensus.sum((1, 2)).argmax())

    def spread_slices(self, count: int, margin: int) -> list[int]:
        """`count` slices along z, evenly spread from `margin` slices before the readers' union to as many after it."""
        inside = np.flatnonzero(self.readers.any((0, 2, 3)))
        low, high = max(inside[0] - margin, 0), min(inside[-1] + margin, len(self.hu) - 1)
        return sorted({round(z) for z in np.linspace(low, high, count)})

    @property
    def labels(self) -> dict[str, str]:
        """Words that go with its scores, for figures per group."""
        return {}

    @property
    def matting_window(self) -> tuple[float, float] | None:
        """The values between which matting sees it; None: those of CT."""
        return None


def fingerprint(nodules: Iterable[Nodule]) -> str:
    """SHA-256 over ids, HU and masks (and given soft masks): what a result depends on."""
    digest = hashlib.sha256()
    for nodule in sorted(nodules, key=lambda n: n.nodule_id):
        digest.update(f"{nodule.nodule_id}/{nodule.patient_id}/{nodule.fold}".encode())
        digest.update(np.ascontiguousarray(nodule.hu).tobytes())
        digest.update(np.packbits(nodule.readers).tobytes())
        if nodule.soft is not None:
            digest.update(nodule.soft.tobytes())
    return digest.hexdigest()
