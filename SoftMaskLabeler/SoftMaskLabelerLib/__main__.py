"""Command line: `python -m SoftMaskLabelerLib CT ... | build SOURCE ... | apply-decisions FOLDER` (each with --help).

Exit status: 0 done, 1 the input can't be processed (one line on standard error), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from LungNoduleKit.errors import OutputError, print_any_name, printable
from LungNoduleKit.files import image_writer, name_too_long, write_all
from LungNoduleKit.geometry import Grid, swap_lps_ras
from LungNoduleKit.images import read_volume
from LungNoduleKit.masks import read_mask
from LungNoduleKit.nifti import FRAMES
from LungNoduleKit.readers import read_readers
from LungNoduleKit.segmentation_file import write_segmentation

from .dataset.builder import Settings, build
from .dataset.manifest import apply_decisions
from .dataset.sources import SourceCase, deeplesion_cases, folder_cases
from .errors import SoftMaskError
from .pipeline import NOTES_TAG, SEGMENT_COLOR, Parameters, SoftMaskResult, read_trimap, soft_mask_volume

_PROGRAM = "python -m SoftMaskLabelerLib"
_EPILOG = """the trimap says where is lesion (255), where background (0) and where matting decides (128). It comes from
  --mask        one mask: shrunk it is lesion, beyond the grown one is background
  --readers     several readers' masks: lesion in all, background in none
  --recist      a RECIST mark: GrabCut from its two axes (needs opencv-python-headless), then as for a mask
  --use-trimap  a trimap of yours, such as an edited one

examples:
  python -m SoftMaskLabelerLib ct.nrrd --readers readers.seg.nrrd --output soft.nrrd
  python -m SoftMaskLabelerLib ct.nrrd --mask nodule.nrrd --erode 1 --dilate 2 --output soft.nrrd \\
         --trimap trimap.nrrd --segment binarized.seg.nrrd
  python -m SoftMaskLabelerLib ct.nrrd --use-trimap trimap.nrrd --output soft.nrrd
  python -m SoftMaskLabelerLib ct.nrrd --output soft.nrrd --recist 10.5 -31 -120 28.2 -25 -120 17 -36 -120 22 -20 -120

other commands:
  python -m SoftMaskLabelerLib build SOURCE --output FOLDER    a data set of soft masks of many nodules
  python -m SoftMaskLabelerLib apply-decisions FOLDER          the list of its accepted cases

Research use only, not for diagnosis.
"""
_BUILD_EPILOG = """SOURCE is
  a folder with NAME_ct.nrrd and NAME_readers.seg.nrrd (or NAME_mask.nrrd) for every nodule, and optionally nodules.csv
  (columns nodule_id, patient_id, largest_consensus_slice); the slice with the largest consensus is taken; or
  DeepLesion's DL_info.csv, with the folder of its 16-bit key slices as --images.

FOLDER gets, per case, image/ soft/ trimap/ binary/ CASE.png (HU + 32768; alpha * 65535; 0, 128, 255; 0, 255),
manifest.csv, dataset.json and contact-sheets/. Look through the sheets, write accept or reject into the manifest's
column "decision", and run apply-decisions. A run that was stopped goes on where it was when the same command is given
again: cases that are done are skipped, decisions stay. A case that fails is recorded with its reason and tried again.

examples:
  python -m SoftMaskLabelerLib build lidc-nodules --output soft-lidc --jobs 2
  python -m SoftMaskLabelerLib build DL_info.csv --images Images_png --lesion-type 5 --output soft-deeplesion
"""


def _number(kind: type, low: float, inclusive: bool = True) -> Callable[[str], Any]:
    """A type for argparse: a finite number from a bound on."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not math.isfinite(value) or value < low or (value == low and not inclusive):
            raise ValueError
        return value

    parse.__name__ = f"number {'from' if inclusive else 'above'} {low}"
    return parse


_LENGTH, _COUNT = _number(float, 0), _number(int, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} CT (--mask M | --readers R.seg.nrrd | --recist X1 Y1 Z1 ... X4 Y4 Z4 | --use-trimap T)\n"
        "           --output soft.nrrd [--trimap trimap.nrrd] [--segment binarized.seg.nrrd] [options]",
        description="The soft mask of a lesion: alpha from 0 to 1 per voxel, by closed-form matting on a trimap.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ct", type=Path, metavar="CT", help="an image file (NRRD, NIfTI, ...) or a folder of DICOM")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mask", type=Path, metavar="M", help="one mask, non-zero inside, or a .seg.nrrd (its union)")
    source.add_argument("--readers", type=Path, metavar="R.seg.nrrd", help="a segmentation with a segment a reader")
    source.add_argument(
        "--recist", nargs=12, type=float, metavar="MM", help="end points x y z, mm, LPS: long axis, then short axis"
    )
    source.add_argument("--use-trimap", type=Path, metavar="T", help="a trimap: 0 background, 128 unknown, 255 lesion")
    parser.add_argument("--label", metavar="N", help="which label of the mask, or the name of its segment")
    parser.add_argument(
        "--nifti-frame", choices=FRAMES, help="which position counts where those of a NIfTI file disagree"
    )
    parser.add_argument(
        "--series", metavar="UID", help="DICOM series, when the folder holds several; UID#2: its second stack"
    )
    parser.add_argument("--ras", action="store_true", help="the RECIST points are RAS, as Slicer shows them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="soft mask, on the CT's grid")
    parser.add_argument("--trimap", type=Path, metavar="FILE", help="write the trimap")
    parser.add_argument("--segment", type=Path, metavar="FILE.seg.nrrd", help="write alpha >= 0.5 as a segmentation")
    _add_parameters(parser)
    parser.add_argument("--dimension", type=int, choices=(2, 3), default=2, help="2: slice by slice; 3: all at once")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    return parser


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} build",
        description="A data set of soft masks, laid out like DSNet's LNSM: a 64 x 64 crop per nodule.",
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of nodules, or DL_info.csv")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the data set; made or continued")
    parser.add_argument(
        "--strategy",
        choices=("mask", "readers", "recist"),
        help="trimap from one reader's mask, all readers, or RECIST marks (of a folder: measured on the consensus); "
        "default: readers for a folder; DL_info.csv has recist only",
    )
    parser.add_argument("--reader", type=_COUNT, default=1, metavar="N", help="whose mask, for --strategy mask (1)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="DeepLesion's key slices")
    parser.add_argument("--lesion-type", type=int, action="append", metavar="N", help="of DeepLesion; 5: lung (all)")
    parser.add_argument("--own-window", action="store_true", help="DeepLesion's DICOM_windows in place of --window")
    parser.add_argument("--size", type=_COUNT, default=64, metavar="PIXELS", help="side of the crops (64)")
    parser.add_argument("--jobs", type=_COUNT, metavar="N", help="processes (default: one a CPU)")
    parser.add_argument("--limit", type=_COUNT, metavar="N", help="the first N cases only")
    parser.add_argument("--per-page", type=_COUNT, default=20, metavar="N", help="cases on a contact sheet (20)")
    _add_parameters(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    return parser


def _decisions_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} apply-decisions",
        description="Writes accepted.csv: the manifest's rows of the cases that are done and accepted.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set made by build")
    parser.add_argument(
        "--undecided", choices=("accept", "reject"), default="reject", help="what an empty decision means (reject)"
    )
    return parser


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parameters")
    group.add_argument("--window", nargs=2, type=float, default=(-1000, 400), metavar="HU", help="(-1000 400)")
    tenth = "default: a tenth of the lesion's diameter, at least a pixel; with readers 0"
    group.add_argument("--erode", type=_LENGTH, metavar="MM", help=f"how far in lesion begins to be known; {tenth}")
    group.add_argument("--dilate", type=_LENGTH, metavar="MM", help="how far out background begins; default: as above")
    group.add_argument("--epsilon", type=_number(float, 0, inclusive=False), default=1e-7, help="of matting (1e-7)")
    group.add_argument("--radius", type=_COUNT, default=1, metavar="PIXELS", help="of the matting windows (1)")
    group.add_argument("--iterations", type=_COUNT, default=5, metavar="N", help="of GrabCut (5)")


def _parameters(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Parameters:
    if not args.window[0] < args.window[1]:
        parser.error(f"--window: from a lower to a higher value, not {args.window[0]:g} to {args.window[1]:g}")
    return Parameters(
        window=(float(args.window[0]), float(args.window[1])),
        erode_mm=args.erode,
        dilate_mm=args.dilate,
        dimension=getattr(args, "dimension", 2),
        epsilon=args.epsilon,
        radius=args.radius,
        iterations=args.iterations,
    )


def _label(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """The first form: one lesion in one volume."""
    _check_outputs(args)
    parameters = _parameters(args, parser)
    said: list[str] = []

    def warn(note: str) -> None:
        said.append(note)
        print(f"note: {note}", file=sys.stderr)

    image = read_volume(args.ct, args.series, nifti_frame=args.nifti_frame, warn=warn)
    source = _source(args, warn)
    bar = _bar(args.quiet, total=100, bar_format="{desc:<8} {percentage:3.0f}%|{bar:30}|")

    def progress(stage: str, share: float) -> None:
        bar.set_description_str(stage)
        bar.update(round(100 * share) - bar.n)

    try:
        result = soft_mask_volume(image, **source, parameters=parameters, progress=progress)
        progress("writing", 0.95)
        tags = {NOTES_TAG: "; ".join([*said, *result.notes])} if said or result.notes else {}
        outputs = [(args.output, image_writer(_tagged(result.alpha, tags)))]
        if args.trimap:
            outputs.append((args.trimap, image_writer(_tagged(result.trimap, tags))))
        if args.segment:
            segments = [("Soft mask from 0.5", result.binary, SEGMENT_COLOR)]
            outputs.append((args.segment, partial(write_segmentation, segments=segments, tags=tags)))
        write_all(outputs)
    finally:
        bar.close()
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if not args.quiet:
        print(_summary(result))
        for path, _ in outputs:
            print(f"wrote {path}")
    return 0


def _tagged(image: sitk.Image, tags: Mapping[str, str]) -> sitk.Image:
    """The image with texts by name, which stand in the header of the formats that have room for them (NRRD, MHA)."""
    for key, text in tags.items():
        image.SetMetaData(key, printable(text))
    return image


def _source(args: argparse.Namespace, warn: Callable[[str], object]) -> dict[str, Any]:
    """What marks the lesion, as an argument of `soft_mask_volume`; `warn` is told what is odd about it."""
    if args.recist:
        points = np.reshape(args.recist, (4, 3))
        return {"recist_points_lps": swap_lps_ras(points) if args.ras else points}
    if args.use_trimap:
        return {"trimap": read_trimap(args.use_trimap, args.nifti_frame)}
    if args.mask:
        return {"masks": [read_mask(args.mask, label=args.label, nifti_frame=args.nifti_frame, warn=warn)]}
    masks = read_readers(args.readers, nifti_frame=args.nifti_frame, warn=warn)
    if len(masks) == 1:
        warn(f"{args.readers}: it has one segment, which is taken as one mask")
    return {"masks": list(masks.values())}


def _build(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """The second form: a data set."""
    table = args.source.suffix.lower() == ".csv"
    if table != bool(args.images):
        parser.error("--images belongs to a DL_info.csv, and a DL_info.csv needs it")
    if table and args.strategy not in (None, "recist"):
        parser.error(f"DeepLesion has RECIST marks only: --strategy {args.strategy} isn't possible")
    if not table and (args.lesion_type or args.own_window):
        parser.error("--lesion-type and --own-window are for a DL_info.csv")
    settings = Settings(
        strategy="recist" if table else args.strategy or "readers",
        size=args.size,
        reader=args.reader,
        own_window=args.own_window,
        parameters=_parameters(args, parser),
    )
    cases: list[SourceCase] = []
    if table:
        cases += deeplesion_cases(
            args.source, args.images, args.lesion_type or (), lambda note: print(f"note: {note}", file=sys.stderr)
        )
    else:
        cases += folder_cases(args.source)
    bar = _bar(args.quiet, total=None, unit="case")

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        summary = build(
            cases[: args.limit],
            args.output,
            settings,
            jobs=args.jobs or os.cpu_count() or 1,
            per_page=args.per_page,
            progress=progress,
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from what {args.output} holds", file=sys.stderr)
        return 1
    finally:
        bar.close()
    if not args.quiet:
        rate = f" ({(summary.done + summary.failed) / summary.seconds:.1f} a second)" if summary.done else ""
        print(f"{summary.done} done{rate}, {summary.skipped} done before, {summary.failed} failed")
        print(f"manifest {args.output / 'manifest.csv'}, {summary.pages} contact sheets beside it")
    if summary.failed and not summary.done + summary.skipped:
        print(f"error: {args.source}: all cases failed, see {args.output / 'manifest.csv'}", file=sys.stderr)
        return 1
    return 0


def _apply_decisions(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    path, counts = apply_decisions(args.folder, args.undecided)
    print(
        f"{counts['accepted']} accepted, {counts['rejected']} rejected ({counts['undecided']} of all undecided, "
        f"taken as {args.undecided}), {counts['failed']} failed; wrote {path}"
    )
    return 0


def _summary(result: SoftMaskResult) -> str:
    voxel = Grid.of(result.alpha).voxel_volume_mm3
    alpha, trimap = (sitk.GetArrayViewFromImage(image) for image in (result.alpha, result.trimap))
    return (
        f"soft volume {float(alpha.sum(dtype=np.float64)) * voxel:.0f} mm3, from alpha 0.5 on "
        f"{int(sitk.GetArrayViewFromImage(result.binary).sum()) * voxel:.0f} mm3, "
        f"{int((trimap == 128).sum())} unknown voxels on {int((trimap > 0).any(axis=(1, 2)).sum())} slices"
    )


def _bar(quiet: bool, **options: Any) -> tqdm:
    return tqdm(disable=quiet, leave=False, **options)


def _check_outputs(args: argparse.Namespace) -> None:
    """What can be known before the work: endings, folders, and that no output takes another's or an input's place."""
    inputs = {path.resolve() for path in (args.ct, args.mask, args.readers, args.use_trimap) if path}
    images = (".nrrd", ".nii", ".nii.gz", ".mha")
    for path, endings in ((args.output, images), (args.trimap, images), (args.segment, (".seg.nrrd",))):
        if path is None:
            continue
        if not path.name.endswith(endings) or (endings is images and path.name.endswith(".seg.nrrd")):
            raise OutputError(f"{path}: the name must end in {' or '.join(endings)}")
        if path.is_dir():  # which raises for a name that is too long
            raise OutputError(f"{path}: it is a folder")
        if not path.resolve().parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}")
        if path.resolve() in inputs:
            raise OutputError(f"{path}: it is an input or another output too")
        inputs.add(path.resolve())


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    print_any_name()
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"build": (_build_parser, _build), "apply-decisions": (_decisions_parser, _apply_decisions)}
    if argv and argv[0] in commands:
        (make, run), argv = commands[argv[0]], argv[1:]
    else:
        make, run = _parser, _label
    parser = make()
    args = parser.parse_args(argv)
    if getattr(args, "ras", False) and not args.recist:
        parser.error("--ras belongs to --recist")
    if getattr(args, "label", None) is not None and not args.mask:
        parser.error("--label belongs to --mask")
    if getattr(args, "dimension", 2) == 3 and args.recist:
        parser.error("--dimension 3: RECIST marks lie on one slice, their soft mask is 2D")
    try:
        return run(args, parser)
    except SoftMaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {name_too_long(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
