"""Soft masks against pymatting on real nodules: `python Testing/benchmarks/matting_benchmark.py --data DIR`.

Nodules of `lidc-nodules` on the slice with the largest consensus: 64 x 64 as they are, upsampled to 128 x 128 and
256 x 256, and in a 512 x 512 slice (the crop in place, its edge values around it). For each, trimaps of one reader's
mask and of all readers. Both sides get the same trimap and are timed in turns, minimum of the repeats; pymatting after
its compilation. `--solvers` adds the time of each solver on the same systems.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

# Set before numpy is loaded: peers with as many threads as ours.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SoftMaskLabeler")]
SIZES = (64, 128, 256, 512)
# DSNet (TNNLS), section 4: trimap and matting of a 256 x 256 image.
PAPER_MS_AT_256 = 20.0


def nodules(folder: Path, count: int):
    """Every n-th nodule, ordered by volume so that all sizes are there: (name, image 64 x 64, masks (R, 64, 64))."""
    import numpy as np
    import SimpleITK as sitk

    with open(folder / "nodules.csv", newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["consensus_volume_mm3"]))
    for number in np.linspace(0, len(rows) - 1, count).round().astype(int):
        row = rows[number]
        name, z = row["nodule_id"], int(row["largest_consensus_slice"])
        ct = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}_ct.nrrd")))
        readers = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}_readers.seg.nrrd")))
        masks = np.moveaxis(readers.reshape(*ct.shape, -1)[z] > 0, -1, 0)
        yield name, ((ct[z] + 1000.0) / 1400).clip(0, 1), masks


def resized(image, masks, size: int):
    """The crop at another size; 512 is the crop in a whole slice."""
    import numpy as np
    from scipy.ndimage import zoom

    if size == 512:
        before = (size - image.shape[0]) // 2
        around = (before, size - image.shape[0] - before)
        return np.pad(image, around, mode="edge"), np.pad(masks, ((0, 0), around, around))
    factor = size / image.shape[0]
    if factor == 1:
        return image, masks
    grown = [zoom(mask.astype(float), factor, order=1, grid_mode=True, mode="nearest") >= 0.5 for mask in masks]
    return zoom(image, factor, order=1, grid_mode=True, mode="nearest"), np.stack(grown)


def alternating_ms(functions: dict, repeats: int) -> dict:
    """Minimum wall time in ms of each function, called three times running, in turns, after one round to warm up.

    Three times, because a folder of nodules is one call after the other, while the first call after the peer's finds
    its caches gone.
    """
    best = dict.fromkeys(functions, float("inf"))
    for turn in range(repeats + 1):
        for name, function in functions.items():
            for _ in range(3):
                begun = time.perf_counter()
                function()
                if turn:
                    best[name] = min(best[name], 1e3 * (time.perf_counter() - begun))
    return best


def one_case(image, masks, strategy: str, repeats: int) -> dict | None:
    """Times and the difference to pymatting for one nodule; None where readers leave nothing unknown."""
    import numpy as np

    from SoftMaskLabelerLib import SoftMaskError, closed_form_alpha, trimap_from_mask, trimap_from_readers

    def make():
        return trimap_from_mask(masks[0]) if strategy == "mask" else trimap_from_readers(masks)

    try:
        trimap = make()
        alpha = closed_form_alpha(image, trimap)
    except SoftMaskError:
        return None
    if not (trimap == 128).any():
        return None
    functions = {"trimap": make, "matting": lambda: closed_form_alpha(image, trimap)}
    row = {"unknown": int((trimap == 128).sum())}
    estimate = _pymatting()
    if estimate:
        # What pymatting takes: float64, three channels, trimap in [0, 1]. Made ready for it outside its time.
        channels, levels = np.repeat(image[..., None], 3, axis=2), np.where(trimap == 128, 0.5, trimap / 255)
        functions["pymatting"] = lambda: estimate(channels, levels)
        row["difference"] = float(abs(estimate(channels, levels) - alpha).max())
        tight = estimate(
            channels, levels, laplacian_kwargs={"epsilon": 1e-5}, cg_kwargs={"rtol": 1e-12, "maxiter": 10000}
        )
        row["difference_at_1e-5"] = float(abs(tight - closed_form_alpha(image, trimap, 1e-5)).max())
    row.update(alternating_ms(functions, repeats))
    return row


def _pymatting():
    try:
        from pymatting import estimate_alpha_cf
    except ImportError:
        return None
    return estimate_alpha_cf


def summary(rows: list[dict]) -> dict:
    """Medians and worst cases of the rows of one size and strategy."""
    ours = [row["trimap"] + row["matting"] for row in rows]
    out = {
        "nodules": len(rows),
        "unknown_median": statistics.median(row["unknown"] for row in rows),
        "unknown_largest": max(row["unknown"] for row in rows),
        "trimap_ms_median": statistics.median(row["trimap"] for row in rows),
        "matting_ms_median": statistics.median(row["matting"] for row in rows),
        "both_ms_median": statistics.median(ours),
        "both_ms_largest": max(ours),
    }
    if "pymatting" in rows[0]:
        theirs = [row["pymatting"] for row in rows]
        # The trimap counts on our side only: pymatting starts from one.
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        out.update(
            pymatting_ms_median=statistics.median(theirs),
            pymatting_ms_largest=max(theirs),
            ratio_of_sums=sum(theirs) / sum(ours),
            ratio_median=statistics.median(ratios),
            ratio_smallest=min(ratios),
            ratio_matting_only_smallest=min(row["pymatting"] / row["matting"] for row in rows),
            largest_difference=max(row["difference"] for row in rows),
            largest_difference_at_epsilon_1e_5=max(row["difference_at_1e-5"] for row in rows),
        )
    return out


def solver_times(image, masks, repeats: int) -> dict:
    """Time of every solver on one system, from the assembled couplings to the solution; ms."""
    import numpy as np

    from SoftMaskLabelerLib import trimap_from_mask
    from SoftMaskLabelerLib.matting import laplacian as matting_laplacian
    from SoftMaskLabelerLib.matting import solvers as matting_solvers

    trimap = trimap_from_mask(masks[0])
    region = matting_laplacian.matting_region(image, trimap == 255, np.flatnonzero(trimap == 128), 1)
    keep = matting_solvers._ORDERED_FROM, matting_solvers._SHORT
    matting_solvers._ORDERED_FROM = matting_solvers._SHORT = 0
    order = matting_solvers.narrow_order(region, 1)
    rows = matting_laplacian.assemble(region, 1e-7, 1)
    ordered = matting_laplacian.assemble(region, 1e-7, 1, order)
    out = {"unknown": int(region.unknown.size)}
    out.update(
        alternating_ms(
            {
                "assembly": lambda: matting_laplacian.assemble(region, 1e-7, 1, order),
                "order": lambda: matting_solvers.narrow_order(region, 1),
                "band, rows": lambda: matting_solvers.solve(rows, 2),
                "band, ordered": lambda: matting_solvers.solve(ordered, 2),
                "sparse LU": lambda: matting_solvers._sparse(rows),
                "CG": lambda: matting_solvers._conjugate_gradients(rows),
            },
            repeats,
        )
    )
    matting_solvers._ORDERED_FROM, matting_solvers._SHORT = keep
    return out


def table(figures: dict) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| size | trimap of | nodules | unknown, median (largest) | trimap + matting, ms median (largest) "
        "| pymatting, ms median (largest) | ratio of sums | median | smallest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in figures.items():
        size, strategy = key.split()
        cells = [
            f"{size}²",
            strategy,
            row["nodules"],
            f"{row['unknown_median']:.0f} ({row['unknown_largest']})",
            f"{row['both_ms_median']:.2f} ({row['both_ms_largest']:.2f})",
        ]
        if "pymatting_ms_median" in row:
            cells += [
                f"{row['pymatting_ms_median']:.2f} ({row['pymatting_ms_largest']:.2f})",
                f"{row['ratio_of_sums']:.1f}",
                f"{row['ratio_median']:.1f}",
                f"{row['ratio_smallest']:.1f}",
            ]
        else:
            cells += ["not installed", "", "", ""]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nodules.csv and the nodules")
    parser.add_argument("--nodules", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--solvers", action="store_true", help="time every solver, too")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if not (args.data / "nodules.csv").is_file():
        sys.exit(f"there are no nodules at {args.data}")
    cases = list(nodules(args.data, args.nodules))
    figures, solvers = {}, {}
    for size in SIZES:
        scaled = [resized(image, masks, size) for _, image, masks in cases]
        for strategy in ("mask", "readers"):
            rows = [row for image, masks in scaled if (row := one_case(image, masks, strategy, args.repeats))]
            figures[f"{size} {strategy}"] = summary(rows)
        if args.solvers and size <= 256:
            for number in (len(scaled) // 2, len(scaled) - 1):
                solvers[f"{size} {cases[number][0]}"] = solver_times(*scaled[number], args.repeats)
    print(table(figures))
    slowest = max(figures[f"256 {strategy}"]["both_ms_largest"] for strategy in ("mask", "readers"))
    median = figures["256 mask"]["both_ms_median"]
    print(
        f"\n256 x 256, trimap + matting: median {median:.2f} ms, slowest {slowest:.2f} ms; paper {PAPER_MS_AT_256} ms"
    )
    for name, row in solvers.items():
        print(f"{name}: " + ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if args.output:
        conditions = {
            "python": platform.python_version(),
            "processor": platform.processor() or platform.machine(),
            "threads": os.environ["OMP_NUM_THREADS"],
            "versions": _versions("numpy", "scipy", "pymatting", "numba"),
            "nodules": [name for name, _, _ in cases],
            "repeats": args.repeats,
        }
        text = json.dumps({"conditions": conditions, "figures": figures, "solvers_ms": solvers}, indent=2) + "\n"
        partial = args.output.with_name(args.output.name + ".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(args.output)


def _versions(*packages: str) -> dict:
    from importlib.metadata import PackageNotFoundError, version

    out = {}
    for package in packages:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = None
    return out


if __name__ == "__main__":
    main()
