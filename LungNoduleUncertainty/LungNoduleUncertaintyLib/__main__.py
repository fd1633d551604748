"""Command line: `python -m LungNoduleUncertaintyLib segment | demo | models` (each with --help).

Exit status: 0 done, 1 the input can't be processed (one line on standard error), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from LungNoduleKit.errors import NoduleError, OutputError, print_any_name
from LungNoduleKit.files import (
    as_output_error,
    image_writer,
    name_too_long,
    write_all,
    write_whole,
)
from LungNoduleKit.geometry import Grid, as_triple, swap_lps_ras
from LungNoduleKit.images import read_ct
from LungNoduleKit.masks import read_mask
from LungNoduleKit.nifti import FRAMES
from LungNoduleKit.segmentation_file import write_segmentation

from .measuring.figure import result_figure
from .models.bundle import Model, load_model
from .models.metadata import file_sha256
from .models.outputs import Outputs
from .models.store import DEFAULT_BUNDLE, available_bundles, summary
from .outlining.result import NoduleSegmentation
from .outlining.segmentation import segment_nodule
from .phantom.chest import chest_phantom
from .segments import SEGMENTS, TAG_PREFIX, masks_of

_LOG = logging.getLogger(__name__)
_EPILOG = """examples:
  python -m LungNoduleUncertaintyLib segment ct.nrrd --point -62.5 31.0 -120.4 --output nodule.seg.nrrd
  python -m LungNoduleUncertaintyLib segment dicom-folder --point 62.5 -31.0 -120.4 --ras --output nodule.seg.nrrd \\
         --report report.json --figure nodule.png --probabilities maps
  python -m LungNoduleUncertaintyLib demo --output demo-output

Points are in mm, LPS (DICOM's system); --ras takes what Slicer shows. Research use only, not for diagnosis.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m LungNoduleUncertaintyLib",
        description="Outline a lung nodule as every reader (HC), only some (LC) and most readers (Final) would; "
        "or as Final alone, with a model that has nothing else (see `models`).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    segment = commands.add_parser("segment", help="segment the nodule at a point of a CT")
    segment.add_argument("ct", type=Path, help="CT: an image file (NRRD, NIfTI, MetaImage, ...) or a folder of DICOM")
    where = segment.add_mutually_exclusive_group(required=True)
    where.add_argument("--point", nargs=3, type=float, metavar=("X", "Y", "Z"), help="on the nodule, mm, LPS")
    where.add_argument("--near", type=Path, metavar="MASK", help="a mask of the nodule (file or .seg.nrrd)")
    segment.add_argument("--label", metavar="N", help="which label of MASK, or the name of its segment, is the nodule")
    segment.add_argument(
        "--part", type=int, metavar="N", help="which part of MASK, where it has several; 1 is the largest"
    )
    segment.add_argument(
        "--series", metavar="UID", help="DICOM series, when the folder holds several; UID#2: its second stack"
    )
    segment.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE.seg.nrrd",
        help="segments HC, LC and Final, or Final alone where the model has nothing else",
    )
    segment.add_argument(
        "--probabilities", type=Path, metavar="DIR", help="folder for the model's probability maps (NRRD)"
    )
    segment.add_argument("--report", type=Path, metavar="FILE.json", help="measurements, model and versions")
    segment.add_argument("--figure", type=Path, metavar="FILE.png", help="picture of the result")

    demo = commands.add_parser("demo", help="try everything on a generated chest phantom, or on a CT of yours")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (default: demo-output)")
    demo.add_argument(
        "--ct", type=Path, help="your CT in place of the phantom (file or folder of DICOM); needs --point"
    )
    demo.add_argument("--point", nargs=3, type=float, metavar=("X", "Y", "Z"), help="on the nodule, mm, LPS")
    demo.add_argument("--seed", type=int, default=0, help="seed of the phantom")
    for command in (segment, demo):
        command.add_argument("--ras", action="store_true", help="the point is RAS, as Slicer shows it")
        command.add_argument("--model", metavar="NAME|PATH", help="a bundle (default: the shipped one; see `models`)")
        command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        command.add_argument(
            "--nifti-frame", choices=FRAMES, help="which position counts where those of a NIfTI file disagree"
        )
        command.add_argument("--quiet", action="store_true", help="no progress bar and no summary")

    commands.add_parser("models", help="list the model bundles, with the segments and probability maps of each")
    return parser


class _ReadingWarnings(list[str]):
    """Warnings of the readers: shown when they are told, kept for the result."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)
        _LOG.warning("%s", sentence)


class _Progress:
    """A progress bar with the stage, on standard error."""

    def __init__(self, quiet: bool):
        self.bar = tqdm(total=100, disable=quiet, leave=False, bar_format="{desc:<22} {percentage:3.0f}%|{bar:30}|")

    def __call__(self, stage: str, share: float) -> None:
        self.bar.set_description_str(stage)
        self.bar.update(round(100 * share) - self.bar.n)

    def close(self) -> None:
        self.bar.close()


def lps_point(point: Sequence[float], ras: bool) -> tuple[float, float, float]:
    """The point in LPS mm."""
    return as_triple(swap_lps_ras(point) if ras else point)


def make_report(result: NoduleSegmentation, ct_name: str, model: Model, seconds: float) -> dict[str, Any]:
    """What is written as the measurement report: measurements with units, where they come from, and with what."""
    import torch

    return {
        "input": ct_name,
        "measurements": result.measurements,
        "provenance": result.provenance.as_dict(),
        "warnings": result.warnings,
        "seconds": round(seconds, 2),
        "device": str(model.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "SimpleITK": sitk.Version_VersionString(),
        },
        "notice": "Research use only, not for diagnosis.",
    }


@dataclass(frozen=True)
class Place:
    """Where the nodule is: a point (LPS mm), or a mask and the number of its part."""

    point: Sequence[float] | None = None
    near: sitk.Image | None = None
    part: int | None = None


@dataclass(frozen=True)
class OutputPaths:
    """Where the outputs of one nodule go: the segments, and whatever else is wanted. `title` is the figure's."""

    segmentation: Path
    probabilities: Path | None = None
    report: Path | None = None
    figure: Path | None = None
    title: str = ""


def write_outputs(
    result: NoduleSegmentation, ct: sitk.Image, report: dict[str, Any], outputs: OutputPaths
) -> list[Path]:
    """Writes all outputs of one nodule, or none, and returns their paths.

    The report is the last to appear and has the SHA-256 of the others (`files`): a kill right between two renames is
    the one thing that can leave outputs of two runs side by side, and this tells. Raises `OutputError`.
    """
    hashes: dict[str, str] = {}
    steps = _writers(result, ct, {**report, "files": hashes}, outputs)
    folder = outputs.probabilities
    made_folder = folder if folder is not None and not folder.exists() else None

    def hashed(path: Path, write: Callable[[Path], None]) -> Callable[[Path], None]:
        def run(temporary: Path) -> None:
            write(temporary)
            hashes[path.name] = file_sha256(temporary)

        return run

    try:
        if made_folder:
            with as_output_error(made_folder):
                made_folder.mkdir(parents=True)
        ordered = sorted(steps, key=lambda step: step[0] == outputs.report)
        write_all([(path, hashed(path, write)) for path, write in ordered])
    except BaseException:
        if made_folder and made_folder.is_dir():
            with suppress(OSError):
                made_folder.rmdir()
        raise
    return [path for path, _ in steps]


def _writers(
    result: NoduleSegmentation, ct: sitk.Image, report: dict[str, Any], outputs: OutputPaths
) -> list[tuple[Path, Callable[[Path], None]]]:
    """Each output's path with the function that writes it; the report counts on being written last."""
    segments = [(name, mask, SEGMENTS[name].color) for name, mask in masks_of(result).items()]
    tags = {TAG_PREFIX + key: value for key, value in result.tag_texts().items()}

    def write_segments(path: Path) -> None:
        write_segmentation(path, segments, tags=tags, reference=Grid.of(ct))

    def write_report(path: Path) -> None:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def write_figure(path: Path) -> None:
        model = f"{result.provenance.model} {result.provenance.model_version}"
        result_figure(ct, result, path, title=outputs.title, model=model)

    steps: list[tuple[Path, Callable[[Path], None]]] = [(outputs.segmentation, write_segments)]
    if outputs.probabilities:
        maps = result.probabilities.items()
        steps += [(outputs.probabilities / f"probability-{key}.nrrd", image_writer(image)) for key, image in maps]
    if outputs.report:
        steps.append((outputs.report, write_report))
    if outputs.figure:
        steps.append((outputs.figure, write_figure))
    return steps


def _check_output(path: Path | None, ending: str) -> None:
    if path and not path.name.endswith(ending):
        raise OutputError(f"{path}: the name must end in {ending}")
    if path and path.is_dir():  # which raises for a name that is too long
        raise OutputError(f"{path}: it is a folder")
    if path and not path.resolve().parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}")


def _segment_one(
    ct: sitk.Image,
    ct_name: str,
    place: Place,
    model: Model,
    quiet: bool,
    outputs: OutputPaths,
    notes: Sequence[str] = (),
) -> tuple[NoduleSegmentation, list[Path]]:
    """Segment, write, and return (result, written paths). `notes`: what was said while the input was read."""
    progress = _Progress(quiet)
    try:
        begun = time.perf_counter()
        result = segment_nodule(
            ct, place.point, near=place.near, part=place.part, model=model, progress=progress, notes=notes
        )
        seconds = time.perf_counter() - begun
        progress("writing", 0.95)
        paths = write_outputs(result, ct, make_report(result, ct_name, model, seconds), outputs)
    finally:
        progress.close()
    return result, paths


def _summary(result: NoduleSegmentation) -> str:
    m = result.measurements
    axis = m["mean_axis_mm"]["final"]
    if "interval" not in m:
        return f"volume {m['volumes_mm3']['final']:.0f} mm3, mean axis {axis:.1f} mm (no interval: Final alone)"
    low, high = m["interval"]["volume_mm3"]
    axes = m["interval"]["mean_axis_mm"]
    return (
        f"volume {m['volumes_mm3']['final']:.0f} mm3 [{low:.0f}, {high:.0f}], "
        f"mean axis {axis:.1f} mm [{axes[0]:.1f}, {axes[1]:.1f}], LC share {100 * m['lc_share']:.0f} %"
    )


def _segment(args: argparse.Namespace) -> int:
    _check_output(args.output, ".seg.nrrd")
    _check_output(args.report, ".json")
    _check_output(args.figure, ".png")
    notes = _ReadingWarnings()
    ct = read_ct(args.ct, args.series, nifti_frame=args.nifti_frame, warn=notes)
    near = read_mask(args.near, ct, label=args.label, nifti_frame=args.nifti_frame, warn=notes) if args.near else None
    place = Place(None if near is not None else lps_point(args.point, args.ras), near, args.part)
    model = load_model(args.model, args.device)
    outputs = OutputPaths(args.output, args.probabilities, args.report, args.figure, args.ct.name)
    result, paths = _segment_one(ct, str(args.ct), place, model, args.quiet, outputs, notes)
    if not args.quiet:
        print(_summary(result))
        for path in paths:
            print(f"wrote {path}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{args.output}: can't be made a folder ({error.strerror})") from error
    model = load_model(args.model, args.device)
    notes = _ReadingWarnings()
    places: list[tuple[str, tuple[float, float, float], list[sitk.Image] | None]]
    if args.ct:
        ct, name = read_ct(args.ct, nifti_frame=args.nifti_frame, warn=notes), args.ct.name
        places = [("nodule", lps_point(args.point, args.ras), None)]
    else:
        print("generating a chest phantom with nodules outlined by four LIDC readers each ...")
        ct, nodules = chest_phantom(args.seed)
        name = "chest-phantom.nrrd"
        write_whole(args.output / name, image_writer(ct))
        print(f"wrote {args.output / name}")
        places = [(n.name, n.center_lps, n.readers) for n in nodules]
    for label, point, readers in places:
        stem = "".join(c if c.isalnum() else "-" for c in label).strip("-").lower()
        outputs = OutputPaths(
            args.output / f"{stem}.seg.nrrd",
            report=args.output / f"{stem}-report.json",
            figure=args.output / f"{stem}.png",
            title=f"{label} in {name}",
        )
        result, paths = _segment_one(ct, name, Place(point), model, args.quiet, outputs, notes)
        agreement = f"; Dice of Final with the readers' consensus {_agreement(result, readers):.2f}" if readers else ""
        print(f"{label}: {_summary(result)}{agreement}")
        print("  segments {}\n  report   {}\n  picture  {}".format(*paths))
    return 0


def _agreement(result: NoduleSegmentation, readers: list[sitk.Image]) -> float:
    """Dice of Final with what at least half of the readers include; outside of the result's region nothing is Final."""

    def on_grid(mask: sitk.Image) -> np.ndarray:
        identity = sitk.Transform(3, sitk.sitkIdentity)
        return sitk.GetArrayFromImage(sitk.Resample(mask, result.final, identity, sitk.sitkNearestNeighbor)) > 0

    final = sitk.GetArrayFromImage(result.final) > 0
    consensus = 2 * np.sum([on_grid(r) for r in readers], axis=0) >= len(readers)
    return 2 * (final & consensus).sum() / (final.sum() + consensus.sum())


def _with_intervals(outputs: Outputs) -> str:
    if not outputs.segments:
        return ""
    return ", with an interval on every size" if outputs.has_interval else ", without intervals"


def _models(args: argparse.Namespace) -> int:
    for name in available_bundles():
        shown = summary(name)
        default = " (default)" if name == DEFAULT_BUNDLE else ""
        print(f"{name}{default}: version {shown.version}, {shown.size_mb:.1f} MB, {shown.license}")
        print(f"  {shown.description}\n  {shown.intended_use}")
        print(f"  segments: {', '.join(shown.outputs.segments) or 'none'}{_with_intervals(shown.outputs)}")
        print(f"  probability maps: {', '.join(shown.outputs.probabilities) or 'none'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    print_any_name()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "demo" and bool(args.ct) != bool(args.point):
        parser.error("demo: --ct and --point belong together")
    if args.command == "segment" and args.point and (args.label is not None or args.part is not None):
        parser.error("segment: --label and --part belong to --near")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.captureWarnings(True)
    try:
        return {"segment": _segment, "demo": _demo, "models": _models}[args.command](args)
    except NoduleError as error:
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
