"""From a point to segments in the node, on Slicer's MRML: `python Testing/benchmarks/second_click.py [--threads 2]`.

A 512 x 512 x 300 CT node, the shipped bundle, the panel's own worker. The first click loads the model; the second one
on another nodule and the ones after show what a reader waits for. Needs slicer-core.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty")]


def _fixtures():
    spec = importlib.util.spec_from_file_location("rendering", ROOT / "Testing" / "scene" / "rendering.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _whole_ct():
    """The phantom repeated to the size of a scan, and the points (RAS) of its nodules."""
    import numpy as np
    import SimpleITK as sitk

    from LungNoduleUncertaintyLib.phantom.chest import chest_phantom

    small, nodules = chest_phantom(0)
    tile = sitk.GetArrayViewFromImage(small)
    repeats = [-(-n // m) for n, m in zip((300, 512, 512), tile.shape, strict=True)]
    ct = sitk.GetImageFromArray(np.ascontiguousarray(np.tile(tile, repeats)[:300, :512, :512]))
    ct.SetSpacing(small.GetSpacing())
    ct.SetOrigin(small.GetOrigin())
    return ct, [(-n.center_lps[0], -n.center_lps[1], n.center_lps[2]) for n in nodules]


class _Stages:
    """Seconds between the reports of a run, by the stage that was reported before."""

    def __init__(self):
        self.seconds, self.begun, self.stage = {}, time.perf_counter(), "reading the nodes"

    def next(self, stage):
        now = time.perf_counter()
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.begun
        self.stage, self.begun = stage, now


def click(runs, volume, point, node):
    """One click through the worker; returns (seconds by stage, segmentation node)."""
    from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest

    stages = _Stages()
    request = SegmentationRequest(volume, point, segmentationNode=node)
    job = runs.start(request)
    stages.next("waiting for the worker")
    original = job.progress

    def progress(stage, share):
        if stage != stages.stage:
            stages.next(stage)
        original(stage, share)

    job.progress = progress
    job.wait()
    stages.next("writing the segments")
    node = runs.finish().segmentationNode
    stages.next("")
    return stages.seconds, node


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the network (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="clicks after the second one (default 5)")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    import torch

    from LungNoduleUncertaintyLib.scene.runs import SegmentationRuns

    torch.set_num_threads(args.threads)
    rendering = _fixtures()
    scene = rendering.new_scene()
    ct, points = _whole_ct()
    volume = rendering.add_ct(scene, ct)
    runs, clicks, node = SegmentationRuns(), [], None
    for number in range(args.repeats + 2):
        seconds, node = click(runs, volume, points[number % len(points)], node)
        clicks.append(seconds)
    runs.worker.stop()
    later = [sum(c.values()) for c in clicks[1:]]
    figures = {
        "first_click_s": round(sum(clicks[0].values()), 3),
        "second_click_s": round(later[0], 3),
        "later_clicks_median_s": round(statistics.median(later), 3),
        "second_click_stages_s": {stage: round(s, 3) for stage, s in clicks[1].items()},
        "threads": args.threads,
        "ct_voxels": list(ct.GetSize()),
    }
    print(json.dumps(figures, indent=2))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
