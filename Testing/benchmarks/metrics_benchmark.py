"""Surface metrics against their peers: `python Testing/benchmarks/metrics_benchmark.py --data DIR`.

Two readers' masks of real nodules (`lidc-nodules`), as the slice with the largest consensus in 64 x 64 and as a cube
padded to 64^3, and two spheres of radius 10 in 64^3. Peers: MONAI (borders of voxels) and DeepMind's surface-distance
(area weighted surface elements). Everyone gets the same masks in the form it wants, made beforehand, and is
timed in turns on one thread, minimum of the repeats for each nodule; the ratio is that of the sums over nodules,
`worst` the smallest of any nodule. Values are compared in the same run: `equal` where the definitions are the same,
else the largest difference.
"""

import argparse
import csv
import importlib.metadata
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
sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty")]
SIZE = 64
# Goals: times faster than each peer on 64^3.
GOALS = {"monai": 1.5, "surface-distance": 1.5}


def padded(mask: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The mask in the middle of a cube or square; what is longer is cut at both ends."""
    out = np.zeros((size,) * mask.ndim, bool)
    source, target = [], []
    for n in mask.shape:
        begin, low = max(0, (n - size) // 2), max(0, (size - n) // 2)
        length = min(n, size)
        source.append(slice(begin, begin + length))
        target.append(slice(low, low + length))
    out[tuple(target)] = mask[tuple(source)]
    return out


def cases(folder: Path, count: int) -> dict[str, list]:
    """Pairs of masks and spacing by kind of case; nodules of all sizes, ordered by volume."""
    from Training.data.folder import load_folder

    out = {"64x64": [], "64^3": []}
    if folder.is_dir():
        with open(folder / "nodules.csv", newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: float(row["consensus_volume_mm3"]))
        picked = [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
        for nodule in load_folder(folder, nodules={row["nodule_id"] for row in picked}, progress=False):
            first, second = nodule.readers[:2]
            z = int(nodule.row["largest_consensus_slice"])
            spacing = tuple(float(s) for s in nodule.spacing)
            if first[z].any() and second[z].any():
                out["64x64"].append((padded(first[z]), padded(second[z]), spacing[1:]))
            out["64^3"].append((padded(first), padded(second), spacing))
    grid = np.indices((SIZE,) * 3)
    spheres = [
        sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) <= 100 for center in ((32,) * 3, (32, 33, 34))
    ]
    out["spheres 64^3"] = [(*spheres, (1.0, 1.0, 1.0))]
    return out


def ours() -> dict:
    from Training import metrics

    return {
        "nsd": lambda a, b, s: metrics.normalized_surface_dice(a, b, 1.0, s),
        "hd": metrics.hausdorff_distance,
        "hd95": lambda a, b, s: metrics.hausdorff_distance(a, b, s, 95),
        "assd": metrics.average_symmetric_surface_distance,
    }


def monai_peer() -> dict:
    import torch
    from monai.metrics import compute_average_surface_distance as asd
    from monai.metrics import compute_hausdorff_distance as hausdorff
    from monai.metrics import compute_surface_dice as surface_dice

    torch.set_num_threads(1)
    options = {"include_background": True}
    return {
        "prepare": lambda m: torch.from_numpy(m)[None, None],
        "nsd": lambda a, b, s: float(surface_dice(a, b, [1.0], spacing=s, **options)),
        "hd": lambda a, b, s: float(hausdorff(a, b, spacing=s, **options)),
        "hd95": lambda a, b, s: float(hausdorff(a, b, percentile=95, spacing=s, **options)),
        "assd": lambda a, b, s: float(asd(a, b, symmetric=True, spacing=s, **options)),
        "same": ("nsd", "hd", "hd95", "assd"),
    }


def surface_distance_peer() -> dict:
    from scipy import ndimage
    from surface_distance import metrics

    # Version 0.1 uses names that NumPy 2 and SciPy 2 have dropped; the functions behind them are today's.
    metrics.ndimage = types.SimpleNamespace(filters=ndimage, morphology=ndimage)
    if not hasattr(np, "Inf"):
        setattr(np, "Inf", np.inf)  # noqa: B010

    def average(a, b, s):
        return float(np.mean(metrics.compute_average_surface_distance(metrics.compute_surface_distances(a, b, s))))

    def robust(percent):
        return lambda a, b, s: metrics.compute_robust_hausdorff(metrics.compute_surface_distances(a, b, s), percent)

    return {
        "prepare": lambda m: m,
        "nsd": lambda a, b, s: metrics.compute_surface_dice_at_tolerance(
            metrics.compute_surface_distances(a, b, s), 1.0
        ),
        "hd": robust(100),
        "hd95": robust(95),
        "assd": average,
        "same": (),
    }


PEERS = {"monai": monai_peer, "surface-distance": surface_distance_peer}


def timed(function, *arguments) -> tuple[float, float]:
    begun = time.perf_counter()
    value = function(*arguments)
    return 1e3 * (time.perf_counter() - begun), float(value)


def compare(pairs: list, own: dict, peers: dict, repeats: int) -> dict:
    """For each metric: our time and value, and of each peer its time, the ratio and the difference."""
    out = {}
    for metric in own:
        times = {name: [] for name in ("ours", *peers)}
        differences = {name: [] for name in peers}
        for a, b, spacing in pairs:
            calls = {"ours": (own[metric], (a, b, spacing))}
            for name, peer in peers.items():
                calls[name] = (peer[metric], (peer["prepare"](a), peer["prepare"](b), spacing))
            best, values = dict.fromkeys(calls, np.inf), {}
            for _ in range(repeats + 1):
                for name, (function, arguments) in calls.items():
                    ms, values[name] = timed(function, *arguments)
                    best[name] = min(best[name], ms)
            for name, ms in best.items():
                times[name].append(ms)
            for name in peers:
                differences[name].append(abs(values[name] - values["ours"]))
        row = {"ours_ms": round(statistics.mean(times["ours"]), 4), "peers": {}}
        for name, peer in peers.items():
            row["peers"][name] = {
                "ms": round(statistics.mean(times[name]), 4),
                "ratio": round(sum(times[name]) / sum(times["ours"]), 2),
                "smallest_ratio": round(min(t / o for t, o in zip(times[name], times["ours"], strict=True)), 2),
                "largest_difference": float(f"{max(differences[name]):.3g}"),
                # MONAI returns float32.
                "equal": bool(max(differences[name]) < 1e-5) if metric in peer["same"] else None,
            }
        out[metric] = row
    return out


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def print_table(results: dict) -> None:
    print(f"{'case':14}{'metric':8}{'ours ms':>9}{'peer':>18}{'ms':>10}{'ratio':>8}{'worst':>8}  values")
    for case, metrics in results.items():
        for metric, row in metrics.items():
            for name, peer in row["peers"].items():
                words = {True: "equal", False: "DIFFERENT", None: "other definition,"}[peer["equal"]]
                note = words if peer["equal"] else f"{words} up to {peer['largest_difference']:.3g}"
                print(
                    f"{case:14}{metric:8}{row['ours_ms']:9.3f}{name:>18}{peer['ms']:10.3f}{peer['ratio']:8.1f}"
                    f"{peer['smallest_ratio']:8.1f}  {note}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nodules.csv and the nodules")
    parser.add_argument("--nodules", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    peers, absent = {}, {}
    for name, make in PEERS.items():
        try:
            peers[name] = make()
        except ImportError as error:
            absent[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
    results = {
        case: compare(pairs, ours(), peers, args.repeats)
        for case, pairs in cases(args.data, args.nodules).items()
        if pairs
    }
    print_table(results)
    figures = {
        "cpus": os.cpu_count(),
        "load_average_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "torch", *PEERS)},
        "absent": absent,
        "nodules": args.nodules,
        "repeats": args.repeats,
        "tolerance_mm": 1.0,
        "goals_64^3": GOALS,
        "results": results,
    }
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
