"""How well readers agree: each one with the others, and reader panels with each other.

`python -m Training readers` writes it of a data folder. What all or any of k readers include is compared with the same
of k others, and the interval between the two with the others' volumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from LungNoduleKit.files import write_record
from LungNoduleKit.records import record_dict

from ..data.folder import load_folder
from ..data.nodule import DatasetError, Nodule
from ..metrics import another_panel, dice, leave_one_out, one_against_others, panel_counts

Slices = Literal["native", "cubes"]


@dataclass(frozen=True)
class ReaderFigures:
    """One reader against the others, means over nodules. final: Dice with what at least half of the others include.

    coverage: how often a reader's volume lies inside the others' own interval, [V(intersection), V(union)].
    """

    final: float | None = None
    coverage: float | None = None
    nodules: int = 0


def reader_figures(nodules: Sequence[Nodule]) -> ReaderFigures:
    """Each nodule counts once; where it has two readers, each is compared with the other."""
    if not nodules:
        return ReaderFigures()
    return ReaderFigures(
        float(np.mean([one_against_others(nodule.readers, dice) for nodule in nodules])),
        float(np.mean([_inside_the_others(nodule.readers) for nodule in nodules])),
        len(nodules),
    )


def _inside_the_others(readers: np.ndarray) -> float:
    """Share of the readers whose volume lies between the intersection and the union of the others."""
    inside = [others.all(0).sum() <= one.sum() <= others.any(0).sum() for one, others in leave_one_out(readers)]
    return float(np.mean(inside))


@dataclass(frozen=True)
class PanelFigures:
    """Panels of `readers` readers each, means over nodules.

    below, above: share of the other readers' volumes below V(intersection) and above V(union) of a panel; coverage:
    share between the two. width: V(union) - V(intersection) over that of all readers (median). union, intersection:
    Dice of two panels that share no reader; None where there are too few readers for two.
    """

    readers: int
    below: float
    above: float
    width: float
    coverage: float
    union: float | None = None
    intersection: float | None = None


@dataclass(frozen=True, kw_only=True)
class ReaderAgreement:
    """What `readers` writes: agreement of nodules that have `readers` readers each.

    one_against_the_others: mean Dice of a reader with what at least half of the others include.
    another_panel_at_most: see `metrics.another_panel`.
    """

    data: str = ""
    fold: tuple[int, ...] | None = None
    slices: Slices = "native"
    readers: int
    nodules: int
    patients: int
    one_against_the_others: float
    panels: tuple[PanelFigures, ...]
    another_panel_at_most: dict[str, Any] = field(default_factory=dict)


def agreement(nodules: Sequence[Nodule], progress: bool = False, **source: Any) -> ReaderAgreement:
    """Figures of nodules with equally many readers; `source` are the record's fields data, fold and slices."""
    counts = [panel_counts(n.readers) for n in tqdm(nodules, desc="nodules", disable=not progress, leave=False)]
    means = {key: np.mean([getattr(c, key) for c in counts], 0) for key in ("below", "above", "union", "intersection")}
    means["width"] = np.nanmedian([c.width for c in counts], 0)
    means["coverage"] = 1 - means["below"] - means["above"]
    size = len(means["width"])
    panels = [
        PanelFigures(readers=k, **{key: float(v[k - 1]) for key, v in means.items() if k <= len(v)})
        for k in range(1, size)
    ]
    return ReaderAgreement(
        **source,
        readers=size,
        nodules=len(nodules),
        patients=len({n.patient_id for n in nodules}),
        one_against_the_others=float(np.mean([one_against_others(n.readers, dice) for n in nodules])),
        panels=tuple(panels),
        another_panel_at_most=another_panel(counts, [n.patient_id for n in nodules]),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `readers`."""
    parser.description = (
        "How well readers agree with each other, one by one and as reader panels: what all or any of k readers include "
        "is compared with the same of k others, and the interval between the two with the others' volumes. From how "
        "agreement grows with k follows what another panel of as many readers would reach at most: a model can't be "
        "expected to agree with these readers better than that."
    )
    parser.add_argument("--data", required=True, type=Path, help="data folder (see prepare-lidc)")
    parser.add_argument("--fold", type=int, nargs="+", metavar="K", help="only the nodules of these folds (all)")
    parser.add_argument("--readers", type=int, default=4, metavar="N", help="only nodules with N readers (4)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the figures to this file, too")
    add_cubes_argument(parser)


def add_cubes_argument(parser: argparse.ArgumentParser) -> None:
    """`--cubes` of the commands that read nodules to measure something on them."""
    parser.add_argument(
        "--cubes",
        action="store_true",
        help="measure on the data folder's nodule cubes as they are, with slices interpolated along z; without this "
        "option on the scan's native slices, which readers drew on and a user's CT has (they are recovered from the "
        "cubes)",
    )


def slices_of(args: argparse.Namespace) -> Slices:
    """What `--cubes` chose, as files of figures say it."""
    return "cubes" if args.cubes else "native"


def run(args: argparse.Namespace) -> int:
    """The command `readers`; returns its exit status."""
    nodules = load_folder(args.data, native_slices=not args.cubes)
    chosen = [n for n in nodules if len(n.readers) == args.readers and (args.fold is None or n.fold in args.fold)]
    if not chosen:
        where = "" if args.fold is None else f" in fold {' '.join(map(str, args.fold))}"
        raise DatasetError(f"{args.data}: no nodule with {args.readers} readers{where}")
    fold = None if args.fold is None else tuple(args.fold)
    found = agreement(chosen, progress=True, data=args.data.name, fold=fold, slices=slices_of(args))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_record(args.output, found)
    print(json.dumps(record_dict(found), indent=2))
    return 0
