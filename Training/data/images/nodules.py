"""Sets of images made of nodules: the slices of LIDC cubes, and the soft masks that SoftMaskLabelerLib built."""

from functools import partial
from pathlib import Path

import numpy as np

from LungNoduleKit import tables
from LungNoduleKit.errors import shortened, shown

from ..nodule import DatasetError
from ..nodule_files import read_nodule, read_table
from .builder import Sample
from .pixels import as_mask, as_soft, read_file, to_gray
from .sources import Cases

# Added to HU in 16-bit PNG files, as in DeepLesion.
HU_OFFSET = 32768
DECISIONS = ("accept", "reject")


def lidc(source: str | Path, window: tuple[float, float] | None, min_readers: int = 2) -> Cases:
    """The slice with the largest >= 50 % consensus of every nodule of a folder with `nodules.csv`, with that consensus.

    window: HU that become 0 to 255; None keeps HU. Folds are those of `nodules.csv`. Raises DatasetError.
    """
    source = Path(source)
    rows = read_table(source)

    def case(row: tables.Row) -> list[Sample]:
        nodule = read_nodule(source, row)
        if len(nodule.readers) < min_readers:
            return []
        z = nodule.largest_slice()
        image, offset = _values(nodule.hu[z], window)
        known = ("LIDC-IDRI", "lung", "CT", nodule.patient_id)
        spacing = float(nodule.spacing[1]), float(nodule.spacing[2])
        fold = nodule.fold
        return [Sample(nodule.nodule_id, image, nodule.consensus[z], *known, spacing, fold=fold, value_offset=offset)]

    return [partial(case, row) for row in rows]


def soft_masks(
    source: str | Path, window: tuple[float, float] | None, undecided: str = "accept", organ: str = "lung"
) -> Cases:
    """The cases of a data set that `SoftMaskLabelerLib build` made, in DSNet's LNSM layout, with their own soft masks.

    The truth is alpha >= 0.5, as the papers'. Rejected and failed cases are left out, and with `undecided="reject"`
    those without a decision too (the first paper selected by hand, the second didn't). window: as for `lidc`. A patient
    is the builder's. Raises DatasetError.
    """
    source = Path(source)
    table = source / "manifest.csv"
    if undecided not in DECISIONS:
        raise DatasetError(f"undecided is {' or '.join(DECISIONS)}, got {undecided!r}")
    rows = tables.read_table(table, error=DatasetError)
    missing = {"case", "patient", "status", "decision"} - set(rows.columns)
    if missing:
        raise DatasetError(f"{table}: has no column {', '.join(sorted(missing))}; is it one of SoftMaskLabelerLib?")
    kept = []
    for row in rows:
        decision = row["decision"].strip().lower() or undecided
        if decision not in DECISIONS:
            where = f"{table}: the decision on {shortened(row['case'])}"
            raise DatasetError(f"{where} is {shown(row['decision'])}, not accept or reject")
        if row["status"] == "ok" and decision == "accept":
            kept.append(row)
    if not kept:
        raise DatasetError(f"{table}: none of its {len(rows)} cases is done and accepted")

    def case(row: dict) -> list[Sample]:
        name = row["case"]
        layers = {layer: read_file(source / layer / f"{name}.png")[0][0] for layer in ("image", "soft", "binary")}
        image, offset = _values(layers["image"].astype(np.int32) - HU_OFFSET, window)
        steps = [float(step) for step in (row.get("spacing_mm") or "").split()]
        dataset = row.get("source") or source.name
        return [
            Sample(
                name,
                image,
                as_mask(layers["binary"]),
                *(dataset, organ, "CT", f"{dataset}-{row['patient']}"),
                (steps[0], steps[1]) if len(steps) == 2 else None,
                as_soft(layers["soft"], source / "soft" / f"{name}.png"),
                value_offset=offset,
            )
        ]

    return [partial(case, row) for row in kept]


def _values(hu: np.ndarray, window: tuple[float, float] | None) -> tuple[np.ndarray, int]:
    """(values to write, offset that makes HU of them)."""
    if window is not None:
        return to_gray(hu, *window), 0
    return (hu.astype(np.int32) + HU_OFFSET).clip(0, 65535).astype(np.uint16), -HU_OFFSET
