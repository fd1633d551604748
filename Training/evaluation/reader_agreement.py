"""`python -m Training readers`: how well a data folder's readers agree, and another panel of them would at most."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ..data.folder import load_folder
from ..data.nodule import DatasetError
from ..metrics import another_panel, dice, one_against_others, panel_counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `readers`."""
    parser.description = (
        "How well readers agree with each other, alone and as panels: what all or any of k readers include is compared "
        "with the same of k others, and an interval between the two with the others' volumes. Going on from smaller "
        "panels gives what another panel of as many readers would reach at most; a model that is asked for more is "
        "asked to agree with these readers better than their colleagues would."
    )
    parser.add_argument("--data", required=True, type=Path, help="data folder (see prepare-lidc)")
    parser.add_argument("--fold", type=int, nargs="+", help="only the nodules of these folds")
    parser.add_argument(
        "--readers", type=int, default=4, metavar="N", help="of nodules with so many readers (default: 4)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where the figures go too")


def agreement(nodules: list, progress: bool = False) -> dict:
    """Figures of `Nodule`s with equally many readers; see `metrics.panels` for `panels` and `another_panel_at_most`."""
    from tqdm import tqdm

    counts = [panel_counts(n.readers) for n in tqdm(nodules, desc="nodules", disable=not progress, leave=False)]
    means = {key: np.mean([getattr(c, key) for c in counts], 0) for key in ("below", "above", "union", "intersection")}
    means["width"] = np.nanmedian([c.width for c in counts], 0)
    means["coverage"] = 1 - means["below"] - means["above"]
    size = len(means["width"])
    panels = [
        {"readers": k, **{key: float(v[k - 1]) for key, v in means.items() if k <= len(v)}} for k in range(1, size)
    ]
    return {
        "readers": size,
        "nodules": len(nodules),
        "patients": len({n.patient_id for n in nodules}),
        "one_against_the_others": float(np.mean([one_against_others(n.readers, dice) for n in nodules])),
        "panels": panels,
        "another_panel_at_most": another_panel(counts, [n.patient_id for n in nodules]),
    }


def run(args) -> int:
    """The command; returns its exit status."""
    nodules = load_folder(args.data, native_slices=not args.cubes)
    chosen = [n for n in nodules if len(n.readers) == args.readers and (args.fold is None or n.fold in args.fold)]
    if not chosen:
        where = "" if args.fold is None else f" in fold {' '.join(map(str, args.fold))}"
        raise DatasetError(f"{args.data}: no nodule with {args.readers} readers{where}")
    found = {
        "data": Path(args.data).name,
        "fold": args.fold,
        "slices": "cubes" if args.cubes else "own",
        **agreement(chosen, progress=True),
    }
    text = json.dumps(found, indent=2)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0
