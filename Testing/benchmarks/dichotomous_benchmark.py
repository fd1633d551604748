"""IFE's measures against their peer: `python Testing/benchmarks/dichotomous_benchmark.py --data DIR`.

Two readers' masks of real nodules (`lidc-nodules`) on the slice with the largest consensus, on 64 x 64 pixels and
magnified to 256 x 256 and 512 x 512. Peer: pysodmetrics' human correction effort (HCE), mean absolute error and
F-measure; the other measures have `metrics_benchmark.py`. Everyone gets the same masks in the form it wants, made
beforehand, and is timed in turns on one thread, minimum of the repeats for each nodule; the ratio is that of the sums
over nodules, `worst` the smallest of any nodule. Values are compared in the same run. `all` is `score_image`: nine
measures, human correction effort at full size and on 64 x 64, and the released forms (`correct`: without these).
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import types
import warnings
from pathlib import Path

# Set before numpy is loaded: one thread for everybody.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty"), str(ROOT / "SoftMaskLabeler")]
MAGNIFIED = {"64x64": 1, "256x256": 4, "512x512": 8}


def cases(folder: Path, count: int) -> dict[str, list]:
    """(probability map, predicted mask, true mask) by size; nodules of all sizes, ordered by volume."""
    from scipy import ndimage

    from Training.config import load_config
    from Training.data.folder import load_folder
    from Training.sampling.slice_images import cut_slices

    nodules = sorted(load_folder(folder, progress=False), key=lambda n: float(n.row["consensus_volume_mm3"]))
    picked = [nodules[i] for i in np.linspace(0, len(nodules) - 1, count).round().astype(int)]
    slices = cut_slices(picked, load_config("ugsnet"))
    out = {}
    for name, factor in MAGNIFIED.items():
        rows = []
        for first, second in slices.readers[:, :2]:
            if first.any() and second.any():
                # Smooth outlines, as a network's on a finer grid, rather than steps.
                masks = [ndimage.zoom(m, factor, order=1, grid_mode=True, mode="nearest") for m in (first, second)]
                probability = np.clip(ndimage.gaussian_filter(masks[1], factor), 0, 1).astype(np.float64)
                rows.append((probability, probability >= 0.5, masks[0] >= 0.5))
        out[name] = rows
    return out


def peer() -> dict:
    """Functions of pysodmetrics; its package is kept from importing what only other metrics need."""
    spec = importlib.util.find_spec("py_sod_metrics")
    if spec is None:
        raise ImportError("pysodmetrics isn't installed")
    bare = types.ModuleType("py_sod_metrics")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["py_sod_metrics"] = bare
    module = importlib.import_module("py_sod_metrics.sod_metrics")
    effort, error, f_measure = module.HumanCorrectionEffortMeasure(), module.MAE(), module.Fmeasure(beta=0.3)
    return {
        "hce": lambda p, m, t: effort.cal_hce(m.astype(np.float64), t),
        "mae": lambda p, m, t: error.cal_mae(p, t),
        # Of a mask its adaptive threshold finds the mask itself.
        "f": lambda p, m, t: f_measure.cal_adaptive_fm(m.astype(np.float64), t),
    }


def ours() -> dict:
    from Training import metrics

    return {
        "hce": lambda p, m, t: metrics.human_correction_effort(m, t),
        "mae": lambda p, m, t: metrics.mean_absolute_error(p, t),
        "f": lambda p, m, t: metrics.f_measure(m, t),
        "correct": lambda p, m, t: metrics.score_image(p, t, released=False)["dsc"],
        "all": lambda p, m, t: metrics.score_image(p, t)["dsc"],
    }


def timed(function, *arguments) -> tuple[float, float]:
    begun = time.perf_counter()
    value = function(*arguments)
    return 1e3 * (time.perf_counter() - begun), float(value)


def compare(rows: list, own: dict, other: dict, repeats: int) -> dict:
    """For each metric: our mean time, and where the peer has it its time, the ratio and the largest difference."""
    out = {}
    for metric in own:
        times, difference = {"ours": [], "peer": []}, 0.0
        for arguments in rows:
            calls = {"ours": own[metric]} | ({"peer": other[metric]} if metric in other else {})
            best, values = dict.fromkeys(calls, np.inf), {}
            for _ in range(repeats + 1):
                for name, function in calls.items():
                    ms, values[name] = timed(function, *arguments)
                    best[name] = min(best[name], ms)
            for name, ms in best.items():
                times[name].append(ms)
            if "peer" in values:
                difference = max(difference, abs(values["peer"] - values["ours"]))
        out[metric] = {"ours_ms": round(statistics.mean(times["ours"]), 4)}
        if times["peer"]:
            out[metric]["pysodmetrics"] = {
                "ms": round(statistics.mean(times["peer"]), 4),
                "ratio": round(sum(times["peer"]) / sum(times["ours"]), 2),
                "smallest_ratio": round(min(t / o for t, o in zip(times["peer"], times["ours"], strict=True)), 2),
                "largest_difference": float(f"{difference:.3g}"),
                "equal": bool(difference < 1e-9),
            }
    return out


def quirks(rows: list) -> dict[str, float]:
    """Means over nodules of what the released forms change (the facts that make IFE's figures hard to compare)."""
    from Training.metrics import score_image

    scores = [score_image(p, t) for p, _, t in rows]
    names = ("hce", "hce64", "hce_released", "mae", "mae_released", "dsc", "dsc_released")
    return {name: float(f"{np.mean([s[name] for s in scores]):.4g}") for name in names}


def print_table(results: dict) -> None:
    print(f"{'case':10}{'metric':9}{'ours ms':>9}{'pysodmetrics ms':>17}{'ratio':>8}{'worst':>8}  values")
    for case, measures in results.items():
        for metric, row in measures.items():
            line = f"{case:10}{metric:9}{row['ours_ms']:9.3f}"
            if "pysodmetrics" in row:
                p = row["pysodmetrics"]
                note = "equal" if p["equal"] else f"DIFFERENT up to {p['largest_difference']:.3g}"
                line += f"{p['ms']:17.3f}{p['ratio']:8.1f}{p['smallest_ratio']:8.1f}  {note}"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nodules.csv and the nodules")
    parser.add_argument("--nodules", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        other, absent = peer(), None
    except ImportError as error:
        other, absent = {}, str(error)
        print(f"pysodmetrics is left out: {error}", file=sys.stderr)
    given = cases(args.data, args.nodules)
    results = {case: compare(rows, ours(), other, args.repeats) for case, rows in given.items() if rows}
    print_table(results)
    forms = {case: quirks(rows) for case, rows in given.items() if rows}
    for case, values in forms.items():
        print(case, ", ".join(f"{name} {value:g}" for name, value in values.items()))
    packages = {}
    for name in ("numpy", "scipy", "scikit-image", "opencv-python-headless", "pysodmetrics"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    figures = {
        "cpus": os.cpu_count(),
        "load_average_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": packages,
        "absent": absent,
        "nodules": {case: len(rows) for case, rows in given.items()},
        "repeats": args.repeats,
        "results": results,
        "released_forms": forms,
    }
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
