"""Nodules per second of the data set builder: `python Testing/benchmarks/builder_benchmark.py --data DIR [--jobs N]`.

Builds a data set of real nodules (`lidc-nodules`) in a temporary folder with every strategy, in turns, and reports the
fastest of the repeats: the cases alone with their processes' start, the whole run with manifest and contact sheets.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SoftMaskLabeler")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nodules.csv and the nodules")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    from SoftMaskLabelerLib.dataset.builder import Settings, build
    from SoftMaskLabelerLib.dataset.sources import STRATEGIES, folder_cases

    cases = folder_cases(args.data)[: args.limit]
    best: dict = {}
    for _ in range(args.repeats):
        for strategy in STRATEGIES:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                summary = build(cases, Path(folder) / "set", Settings(strategy=strategy), jobs=args.jobs)
                whole = time.perf_counter() - begun
            made = summary.done + summary.failed
            row = best.setdefault(strategy, {"cases_per_second": 0.0, "whole_run_per_second": 0.0})
            row["done"], row["failed"] = summary.done, summary.failed
            row["cases_per_second"] = round(max(row["cases_per_second"], made / summary.seconds), 1)
            row["whole_run_per_second"] = round(max(row["whole_run_per_second"], made / whole), 1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    figures = {
        "jobs": args.jobs,
        "cpus": os.cpu_count(),
        "load_average_after": load,
        "python": platform.python_version(),
        "repeats": args.repeats,
        "strategies": best,
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
