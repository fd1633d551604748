"""Speed and memory, shown and not tested: `python Testing/benchmarks/benchmark.py [--output FILE.json]`.

One nodule in a 512 x 512 x 300 CT with the shipped bundle, start-up import of the module shell over bare Python, the
networks' time per 64 x 64 slice, and ONNX Runtime and torch.compile against eager in the same run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty")]


def median_ms(function, repeats: int = 7) -> float:
    """Median wall time of a call in milliseconds, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_nodule(threads: int) -> dict:
    """Segmentation at a point of a whole CT: seconds with the bundle loaded, and the process's memory."""
    import numpy as np
    import SimpleITK as sitk
    import torch

    from LungNoduleUncertaintyLib import load_model, segment_nodule
    from LungNoduleUncertaintyLib.phantom.chest import chest_phantom

    torch.set_num_threads(threads)
    small, nodules = chest_phantom(0)
    # The phantom repeated to the size of a scan; one nodule stays where it was.
    tile = sitk.GetArrayViewFromImage(small)
    repeats = [-(-n // m) for n, m in zip((300, 512, 512), tile.shape, strict=True)]
    ct = sitk.GetImageFromArray(np.tile(tile, repeats)[:300, :512, :512])
    ct.SetSpacing(small.GetSpacing())
    ct.SetOrigin(small.GetOrigin())
    before = peak_mb()
    model = load_model(device="cpu")
    seconds = {}
    for nodule in nodules:
        seconds[nodule.name] = median_ms(lambda n=nodule: segment_nodule(ct, n.center_lps, model=model), 5) / 1e3
    return {
        "ct_voxels": list(ct.GetSize()),
        "threads": threads,
        "seconds": seconds,
        "peak_memory_mb": peak_mb(),
        "of_which_the_ct_and_libraries_mb": before,
    }


_STAND_INS = """
import types
slicer = types.ModuleType("slicer"); slicer.__path__ = []
scripted = types.ModuleType("slicer.ScriptedLoadableModule")
for kind in ("", "Widget", "Logic", "Test"):
    setattr(scripted, "ScriptedLoadableModule" + kind, type("ScriptedLoadableModule" + kind, (), {}))
i18n = types.ModuleType("slicer.i18n"); i18n.tr = lambda text: text; i18n.translate = lambda context, text: text
util = types.ModuleType("slicer.util"); util.VTKObservationMixin = type("VTKObservationMixin", (), {})
sys.modules.update({m.__name__: m for m in (slicer, scripted, i18n, util)})
"""


def shell_import() -> dict:
    """Import of the module shell, with stand-ins for Slicer's own modules, over bare Python; in fresh processes."""
    shell = _STAND_INS + "import LungNoduleUncertainty"
    paths = [str(ROOT / "LungNoduleUncertainty")]

    def run(code):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import sys\nsys.path[:0] = {paths!r}\n{code}"], check=True)
        return time.perf_counter() - begun

    run(shell)
    bare = statistics.median(run("pass") for _ in range(9))
    return {"bare_python_s": bare, "added_s": statistics.median(run(shell) for _ in range(9)) - bare}


def networks_per_slice(threads: int) -> dict:
    """Milliseconds per 64 x 64 slice in batches of eight: paper width and shipped width, eager and compiled."""
    import torch

    from LungNoduleUncertaintyLib import load_model, networks

    torch.set_num_threads(threads)
    shipped = load_model(device="cpu")
    candidates = {
        "ugsnet width 64 (paper)": (networks.create("ugsnet").eval(), 1),
        f"{shipped.metadata['name']} (shipped)": (shipped.networks[0], shipped.metadata["network"]["in_channels"]),
    }
    out = {}
    for name, (network, channels) in candidates.items():
        x = torch.randn(8, channels, 64, 64)
        with torch.inference_mode():
            row = {"eager": median_ms(lambda n=network, x=x: n(x)) / 8}
            if "shipped" in name:
                row.update(_alternatives(network, x))
        out[name] = row
    return out


def _alternatives(network, x) -> dict:
    """ONNX Runtime and torch.compile on the same network; a missing package or compiler is reported as such."""
    import torch

    row = {}
    try:
        compiled = torch.compile(network)
        row["torch.compile"] = median_ms(lambda: compiled(x)) / 8
    except Exception as error:
        row["torch.compile"] = f"not available: {str(error).splitlines()[0][:80]}"
    try:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            torch.onnx.export(_Tuple(network), (x,), str(path), dynamo=False, opset_version=17)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: x.numpy()}
            row["ONNX Runtime"] = median_ms(lambda: session.run(None, feed)) / 8
            difference = abs(session.run(None, feed)[-1] - network(x)["final"].numpy()).max()
            row["ONNX Runtime: largest difference of logits"] = float(difference)
    except Exception as error:
        row["ONNX Runtime"] = f"not available: {str(error).splitlines()[0][:80]}"
    return row


def _Tuple(network):
    import torch

    class AsTuple(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return tuple(self.network(x).values())

    return AsTuple().eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    from LungNoduleKit.records import record_dict
    from Training.runs import conditions

    figures = {
        "conditions": {**record_dict(conditions()), "device": f"CPU, {args.threads} threads"},
        "one_nodule": one_nodule(args.threads),
        "start_up": shell_import(),
        "ms_per_64x64_slice": networks_per_slice(args.threads),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
