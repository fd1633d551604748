"""`python -m Training train`: a configuration, a data folder and a fold become a run folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..config import load_config
from ..data.folder import load_folder
from ..data.splits import configured_split
from .registry import make_trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.description = (
        "Train a network. The run folder gets the configuration, the split, a log, checkpoints and the best weights; "
        "the same command again resumes a stopped run exactly where it was."
    )
    parser.add_argument("config", help="a TOML file, or the name of a shipped configuration (see Training/configs)")
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="data folder (see prepare-lidc, prepare-images)"
    )
    parser.add_argument(
        "--fold", type=int, metavar="K", help="fold to hold out as test set (none: trained on all patients)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="run folder (runs/NAME-foldK or runs/NAME-all)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a setting of the configuration, e.g. training.epochs=10",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train (auto)")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="train on N devices with DDP; torchrun works too (1)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The command; returns its exit status."""
    config = load_config(args.config, args.set)
    if args.threads:
        torch.set_num_threads(args.threads)
    nodules = load_folder(args.data, native_slices=config.data.native_slices, progress=not args.quiet)
    training, validation, _ = configured_split(nodules, args.fold, config)
    place = "all" if args.fold is None else f"fold{args.fold}"
    output = args.output or Path("runs") / f"{config.name}-{place}"
    trainer = make_trainer(
        config, training, validation, output, device=args.device, devices=args.devices, progress=not args.quiet
    )
    best = trainer.train()
    trainer.fabric.print(f"best: {json.dumps(best)}\nrun folder: {output}")
    return 0
