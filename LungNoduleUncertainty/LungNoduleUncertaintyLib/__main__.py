"""Command line: `python -m LungNoduleUncertaintyLib segment | demo | models` (each with --help).

Exit status: 0 done, 1 the input can't be processed (one line on standard error), 2 wrong usage.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

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
        "or as Final alone, with a model that gives nothing else (see `models`).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    segment = commands.add_parser("segment", help="segment the nodule at a point of a CT")
    segment.add_argument("ct", type=Path, help="CT: an image file (NRRD, NIfTI, MetaImage, ...) or a folder of DICOM")
    where = segment.add_mutually_exclusive_group(required=True)
    where.add_argument("--point", nargs=3, type=float, metavar=("X", "Y", "Z"), help="on the nodule, mm, LPS")
    where.add_argument("--near", type=Path, metavar="MASK", help="a mask whose centroid marks the nodule")
    segment.add_argument("--series", metavar="UID", help="DICOM series, when the folder holds several")
    segment.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE.seg.nrrd",
        help="segments HC, LC, Final, or those of them that the model gives",
    )
    segment.add_argument(
        "--probabilities", type=Path, metavar="DIR", help="folder for the model's probability maps (NRRD)"
    )
    segment.add_argument("--report", type=Path, metavar="FILE.json", help="measurements, model and versions")
    segment.add_argument("--figure", type=Path, metavar="FILE.png", help="picture of the result")

    demo = commands.add_parser("demo", help="the whole path on a generated chest phantom, or on a CT of yours")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (default: demo-output)")
    demo.add_argument("--ct", type=Path, help="a real CT in place of the phantom (file or DICOM folder); needs --point")
    demo.add_argument("--point", nargs=3, type=float, metavar=("X", "Y", "Z"), help="on the nodule, mm, LPS")
    demo.add_argument("--seed", type=int, default=0, help="seed of the phantom")
    for command in (segment, demo):
        command.add_argument("--ras", action="store_true", help="the point is RAS, as Slicer shows it")
        command.add_argument("--model", metavar="NAME|PATH", help="a bundle (default: the shipped one; see `models`)")
        command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        command.add_argument("--quiet", action="store_true", help="no progress bar and no summary")

    commands.add_parser("models", help="the model bundles that are here, and what each of them gives")
    return parser


class _Progress:
    """A progress bar with the stage, on standard error."""

    def __init__(self, quiet: bool):
        from tqdm import tqdm

        self.bar = tqdm(total=100, disable=quiet, leave=False, bar_format="{desc:<22} {percentage:3.0f}%|{bar:30}|")

    def __call__(self, stage: str, share: float) -> None:
        self.bar.set_description_str(stage)
        self.bar.update(round(100 * share) - self.bar.n)

    def close(self) -> None:
        self.bar.close()


def lps_point(point, ras: bool):
    """The point in LPS mm."""
    return (-point[0], -point[1], point[2]) if ras else tuple(point)


def make_report(result, ct_name: str, model, seconds: float) -> dict:
    """What is written as the measurement report: measurements with units, where they come from, and with what."""
    import platform

    import numpy
    import SimpleITK
    import torch

    return {
        "input": ct_name,
        "measurements": result.measurements,
        "provenance": result.provenance,
        "warnings": result.warnings,
        "seconds": round(seconds, 2),
        "device": str(model.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "SimpleITK": SimpleITK.Version_VersionString(),
        },
        "notice": "Research use only, not for diagnosis.",
    }


def write_outputs(
    result, ct, report: dict, *, segmentation, probabilities=None, report_path=None, figure=None, title=""
):
    """Write all outputs of one nodule; if one fails, those already written by this call are removed again."""
    import SimpleITK as sitk

    from LungNoduleKit.files import write_whole
    from LungNoduleKit.geometry import Grid
    from LungNoduleKit.segmentation_file import write_segmentation

    from .segments import SEGMENTS, TAG_PREFIX, masks_of

    segments = [(name, mask, SEGMENTS[name][1]) for name, mask in masks_of(result).items()]
    tags = {TAG_PREFIX + key: value for key, value in result.provenance.items()}
    steps = [(segmentation, lambda path: write_segmentation(path, segments, tags=tags, reference=Grid.of(ct)))]
    if probabilities:
        for key, image in result.probabilities.items():
            steps.append(
                (probabilities / f"probability-{key}.nrrd", lambda p, i=image: write_whole(p, lambda t: _save(i, t)))
            )
    if report_path:
        text = json.dumps(report, indent=2) + "\n"
        steps.append((report_path, lambda p: write_whole(p, lambda t: t.write_text(text, encoding="utf-8"))))
    if figure:
        from .measuring.figure import result_figure

        steps.append((figure, lambda p: result_figure(ct, result, p, title=title)))

    def _save(image, path):
        sitk.WriteImage(image, str(path), useCompression=True)

    made_folder = probabilities is not None and not probabilities.exists()
    # What stood there before is kept aside until everything is written.
    kept = {path: path.read_bytes() for path, _ in steps if path.is_file()}
    written = []
    try:
        if made_folder:
            probabilities.mkdir(parents=True)
        for path, write in steps:
            write(path)
            written.append(path)
    except BaseException:
        for path in written:
            if path in kept:
                path.write_bytes(kept[path])
            else:
                path.unlink(missing_ok=True)
        if made_folder and probabilities.is_dir():
            probabilities.rmdir()
        raise
    return [path for path, _ in steps]


def _check_output(path: Path, ending: str) -> None:
    from LungNoduleKit.errors import OutputError

    if path and not path.name.endswith(ending):
        raise OutputError(f"{path}: the name must end in {ending}")
    if path and not path.resolve().parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}")


def _segment_one(ct, ct_name, point, near, model, quiet, **outputs):
    """Segment, write, and return (result, written paths)."""
    from .outlining.segmentation import segment_nodule

    progress = _Progress(quiet)
    try:
        begun = time.perf_counter()
        result = segment_nodule(ct, point, near=near, model=model, progress=progress)
        seconds = time.perf_counter() - begun
        progress("writing", 0.95)
        paths = write_outputs(result, ct, make_report(result, ct_name, model, seconds), **outputs)
    finally:
        progress.close()
    return result, paths


def _summary(result) -> str:
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


def _segment(args) -> int:
    from LungNoduleKit.images import read_ct, read_mask

    from .models.bundle import load_model

    _check_output(args.output, ".seg.nrrd")
    _check_output(args.report, ".json")
    _check_output(args.figure, ".png")
    ct = read_ct(args.ct, args.series)
    near = read_mask(args.near, ct) if args.near else None
    point = None if near is not None else lps_point(args.point, args.ras)
    model = load_model(args.model, args.device)
    result, paths = _segment_one(
        ct,
        str(args.ct),
        point,
        near,
        model,
        args.quiet,
        segmentation=args.output,
        probabilities=args.probabilities,
        report_path=args.report,
        figure=args.figure,
        title=args.ct.name,
    )
    if not args.quiet:
        print(_summary(result))
        for path in paths:
            print(f"wrote {path}")
    return 0


def _demo(args) -> int:
    from LungNoduleKit.errors import OutputError
    from LungNoduleKit.files import write_whole
    from LungNoduleKit.images import read_ct

    from .models.bundle import load_model

    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{args.output}: can't be made a folder ({error.strerror})") from error
    model = load_model(args.model, args.device)
    if args.ct:
        ct, name = read_ct(args.ct), args.ct.name
        places = [("nodule", lps_point(args.point, args.ras), None)]
    else:
        import SimpleITK as sitk

        from .phantom.chest import chest_phantom

        print("generating a chest phantom with nodules outlined by four LIDC readers each ...")
        ct, nodules = chest_phantom(args.seed)
        name = "chest-phantom.nrrd"
        write_whole(args.output / name, lambda t: sitk.WriteImage(ct, str(t), useCompression=True))
        print(f"wrote {args.output / name}")
        places = [(n.name, n.center_lps, n.readers) for n in nodules]
    for label, point, readers in places:
        stem = "".join(c if c.isalnum() else "-" for c in label).strip("-").lower()
        result, paths = _segment_one(
            ct,
            name,
            point,
            None,
            model,
            args.quiet,
            segmentation=args.output / f"{stem}.seg.nrrd",
            report_path=args.output / f"{stem}-report.json",
            figure=args.output / f"{stem}.png",
            title=f"{label} in {name}",
        )
        agreement = f"; Dice of Final with the readers' majority {_agreement(result, readers):.2f}" if readers else ""
        print(f"{label}: {_summary(result)}{agreement}")
        print("  segments {}\n  report   {}\n  picture  {}".format(*paths))
    return 0


def _agreement(result, readers) -> float:
    """Dice of Final with what at least half of the readers include; outside of the result's region nothing is Final."""
    import numpy as np
    import SimpleITK as sitk

    def on_grid(mask):
        identity = sitk.Transform(3, sitk.sitkIdentity)
        return sitk.GetArrayFromImage(sitk.Resample(mask, result.final, identity, sitk.sitkNearestNeighbor)) > 0

    final = sitk.GetArrayFromImage(result.final) > 0
    majority = 2 * np.sum([on_grid(r) for r in readers], axis=0) >= len(readers)
    return 2 * (final & majority).sum() / (final.sum() + majority.sum())


def _with_intervals(gives) -> str:
    if not gives.segments:
        return ""
    return ", with an interval on every size" if gives.has_interval else ", without intervals"


def _models(args) -> int:
    from .models.bundle import DEFAULT_BUNDLE, available_bundles, find_bundle, read_metadata
    from .models.outputs import read_outputs

    for name in available_bundles():
        folder = find_bundle(name)
        metadata = read_metadata(folder)
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
        default = " (default)" if name == DEFAULT_BUNDLE else ""
        print(f"{name}{default}: version {metadata['version']}, {size:.1f} MB, {metadata['license']}")
        gives = read_outputs(metadata)
        print(f"  {metadata['description']}\n  {metadata['intended_use']}")
        print(f"  segments: {', '.join(gives.segments) or 'none'}{_with_intervals(gives)}")
        print(f"  probability maps: {', '.join(gives.probabilities) or 'none'}")
    return 0


def main(argv=None) -> int:
    """Run a command; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "demo" and bool(args.ct) != bool(args.point):
        parser.error("demo: --ct and --point belong together")
    from LungNoduleKit.errors import NoduleError

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.captureWarnings(True)
    try:
        return {"segment": _segment, "demo": _demo, "models": _models}[args.command](args)
    except NoduleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
