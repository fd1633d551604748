"""`python -m Training prepare-images`: a set of single images becomes a folder that training reads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from LungNoduleKit.errors import NoduleError

from . import build, nodules, sources

SETS = {
    "isbi2012": "image/N.png + label/N.png, or train-volume.tif + train-labels.tif: 30 EM sections, folds are blocks",
    "promise12": "CaseXX.mhd + CaseXX_segmentation.mhd: prostate MR, slices with prostate",
    "volumes": "NAME.ext + NAME_segmentation.ext (.nrrd, .nii.gz, .mhd, .mha): slices with foreground",
    "lidc": "a folder with nodules.csv: slices of the largest consensus, folds as there",
    "deeplesion": "a data set that `SoftMaskLabelerLib build` made (LNSM's layout), with its soft masks",
    "cosmos55k": "dataset_organ_....png + ..._mask.png",
    "pairs": "X.png + X_mask.png (or TIFF)",
}
# Option -> the sets that it is for.
_FOR = {
    "foreground": ("isbi2012",),
    "values": ("lidc", "deeplesion"),
    "window": ("lidc", "deeplesion", "volumes"),
    "min_readers": ("lidc",),
    "undecided": ("deeplesion",),
    "mask_suffix": ("volumes", "cosmos55k", "pairs"),
    "patient_pattern": ("cosmos55k", "pairs"),
    "dataset": ("volumes", "cosmos55k", "pairs"),
    "organ": ("volumes", "deeplesion", "cosmos55k", "pairs"),
    "modality": ("volumes", "cosmos55k", "pairs"),
}
_WINDOW = (-1000.0, 400.0)
_SOFT = {"isbi2012": "pixel", "promise12": "tenth"}


class ImagesError(NoduleError):
    """The set can't be prepared with these options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `prepare-images`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Write a set of images with masks as a data folder (images.csv), split by patient.\n\nsets:\n"
        + "\n".join(f"  {name:<11} {text}" for name, text in SETS.items())
    )
    parser.epilog = (
        "Gray images have values 0 to 255: train with --set input.window_hu=[0,255] --set data.fit=pad\n"
        "--set data.net_size=64, or run the experiment `generalization`. Folders with HU (--values hu) take the\n"
        "configurations for CT."
    )
    add = parser.add_argument
    add("set", choices=list(SETS), metavar="SET", help="one of the sets above")
    add("source", type=Path, metavar="SOURCE", help="where its files are")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must not exist")
    add("--folds", type=int, default=5, metavar="N", help="number of folds (5)")
    add("--seed", type=int, default=0, help="of the folds (0)")
    add("--tile", type=int, default=0, metavar="PIXELS", help="a row a tile of so many pixels, e.g. 128 (0: whole)")
    add(
        "--soft",
        choices=("none", "pixel", "tenth"),
        help="write soft masks by matting, in a band to both sides of the mask's edge: one pixel, or a tenth of the "
        "object's diameter (isbi2012: pixel, promise12: tenth, others: none; deeplesion has its own)",
    )
    add("--foreground", choices=("membrane", "cells"), help="of isbi2012 (membrane, as the challenge)")
    add("--values", choices=("gray", "hu"), help="0 to 255, or HU in 16 bits (lidc: gray, deeplesion: hu)")
    add("--window", nargs=2, type=float, metavar="HU", help="what 0 and 255 are (-1000 400; volumes: percentiles)")
    add("--min-readers", type=int, metavar="N", help="of lidc: fewest readers a nodule (2)")
    add("--undecided", choices=("accept", "reject"), help="of deeplesion: cases without a decision (accept)")
    add("--mask-suffix", metavar="TEXT", help="what a mask's name has more (_mask; volumes: _segmentation)")
    add("--patient-pattern", metavar="REGEX", help="its first group is the patient in a file's name (each its own)")
    add("--dataset", metavar="WORD", help="name of the data set (from the names, or the folder's)")
    add("--organ", metavar="WORD", help="what the masks show (deeplesion: lung)")
    add("--modality", nargs="+", metavar="WORD", help="one for all, or DATASET=WORD ...")
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """The command `prepare-images`."""
    for option, sets in _FOR.items():
        if getattr(args, option) is not None and args.set not in sets:
            raise ImagesError(f"--{option.replace('_', '-')}: is for {', '.join(sets)}, not for {args.set}")
    for option, least in (("folds", 1), ("tile", 0)):
        if getattr(args, option) < least:
            raise ImagesError(f"--{option} {getattr(args, option)}: it is at least {least}")
    if args.output.exists():
        raise ImagesError(f"{args.output}: it exists already; choose another --output")
    if not args.source.is_dir():
        raise ImagesError(f"{args.source}: there is no such folder")
    done = build(
        _cases(args),
        args.output,
        folds=args.folds,
        seed=args.seed,
        tile=args.tile,
        soft=args.soft or _SOFT.get(args.set, "none"),
        progress=not args.quiet,
    )
    print(f"{args.output}: {done.images} images, {done.rows} rows, {done.patients} patients")
    if done.cut:
        print(f"{done.cut} images aren't whole tiles: their right or lower edges aren't in the table")
    return 0


def _cases(args: argparse.Namespace) -> sources.Cases:
    """The images that the options name, which are read when they are written."""
    if args.set == "isbi2012":
        return sources.isbi2012(args.source, args.folds, args.foreground or "membrane")
    window = tuple(args.window) if args.window else None
    if window and window[0] >= window[1]:
        raise ImagesError(f"--window {window[0]:g} {window[1]:g}: the second has to be larger")
    if args.set in ("lidc", "deeplesion"):
        keeps_hu = (args.values or {"lidc": "gray", "deeplesion": "hu"}[args.set]) == "hu"
        if keeps_hu and window:
            raise ImagesError("--window: belongs to --values gray")
        window = None if keeps_hu else window or _WINDOW
        if args.set == "lidc":
            return nodules.lidc(args.source, window, args.min_readers or 2)
        return nodules.soft_masks(args.source, window, args.undecided or "accept", args.organ or "lung")
    if args.set == "promise12":
        return sources.volumes(args.source, "_segmentation", "PROMISE12", "prostate", "MR")
    if args.set == "volumes":
        dataset, modality = args.dataset or args.source.resolve().name, _modality(args.modality)
        if isinstance(modality, dict):
            modality = modality.get(dataset, "")
        suffix = args.mask_suffix or "_segmentation"
        return sources.volumes(args.source, suffix, dataset, args.organ or "", modality, window)
    return sources.pairs(
        args.source,
        args.mask_suffix or "_mask",
        dataset=args.dataset or "",
        organ=args.organ or "",
        modality=_modality(args.modality),
        patient=args.patient_pattern or "",
        cosmos=args.set == "cosmos55k",
    )


def _modality(words: Sequence[str] | None) -> dict[str, str] | str:
    if not words:
        return ""
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    if not all("=" in word for word in words):
        raise ImagesError(f"--modality {' '.join(words)}: is one word, or DATASET=WORD several times")
    return dict(word.split("=", 1) for word in words)
