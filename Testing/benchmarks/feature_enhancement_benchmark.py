"""What feature enhancement costs: its scores on feature maps, and its share of a U-Net's training step.

1. Maps of 64 and 256 channels, in sizes of 64 and 224 pixel images, batch 16, about half of the activations 0. Timed in
   turns, minimum of the repeats: curvature, entropy in each implementation, and for each a peer of the released code's
   structure (written here: windows cut out by unfolding, a loop over channels and samples). `scores` is the scoring
   alone, `operator` adds selection and concatenation (ratio 0.5), `convolution` is the decoder's 3x3 convolution
   that reads the result (skip, copies and upsampled half: 2.5 C to C channels). The ratio is operator / convolution,
   forward.
2. One training step (forward, backward, Adam) of a U-Net without and with enhancement, and the operator alone, forward
   and backward, on the maps that it sees in that network. The share is operator / step.

    python Testing/benchmarks/feature_enhancement_benchmark.py --output results            a few minutes on one core
    python Testing/benchmarks/feature_enhancement_benchmark.py --no-peers --size 224 --batch 4 --output results
    python Testing/benchmarks/feature_enhancement_benchmark.py --device cuda --size 224 --output results

On one processor thread the time is the processor's, which other programs on the machine disturb less than the clock's.
Writes feature_enhancement.json and feature_enhancement.md into the folder.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

# Set before torch is loaded: one thread for everybody, unless asked otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "LungNoduleUncertainty")]

from LungNoduleUncertaintyLib import networks  # noqa: E402
from LungNoduleUncertaintyLib.networks import feature_enhancement as ife  # noqa: E402

FEATURE_MAPS = ((64, 64), (64, 112), (256, 16), (256, 56))  # channels, height and width
KINDS = (("curvature", ""), *(("entropy", name) for name in ife.IMPLEMENTATIONS))
RATIO = 0.5
NOTE = "scores alone; operator: with selection and concatenation; peer: a loop over channels and samples"


def activations(batch: int, channels: int, size: int, device: str) -> torch.Tensor:
    """Smooth structure and some noise after ReLU, as a trained network's maps look."""
    torch.manual_seed(0)
    coarse = torch.randn(batch, channels, max(size // 4, 1), max(size // 4, 1))
    smooth = functional.interpolate(coarse, (size, size), mode="bilinear")
    return torch.relu(smooth + 0.05 * torch.randn_like(smooth)).to(device)


# --- the peer: structure of the released code ---


def loop_curvature(x):
    batch, channels, height, width = x.shape
    kernel = x.new_tensor(ife.CURVATURE_KERNEL)[None, None]
    return functional.conv2d(x.reshape(batch * channels, 1, height, width), kernel).abs().sum((2, 3)).view(x.shape[:2])


def loop_entropy(x, implementation):
    batch, channels, height, width = x.shape
    windows = functional.unfold(x, 3, padding=1).view(batch * channels, 9, -1).transpose(1, 2).contiguous()
    center = windows[..., 4]
    mean = (windows.sum(-1) - center) / 8
    keys, cells = 100 * center + mean, (height + 2) * (width + 2)
    low, high = float(keys.min()), float(keys.max())
    scores = []
    for i in range(batch * channels):
        if implementation == "unique":
            count = torch.unique(keys[i], return_counts=True)[1]
        elif implementation == "hist_batch":
            count = torch.histc(keys[i], 256, low, high)
        else:
            cells = height * width
            ends = center[i].min(), center[i].max()
            scale = 256 / (ends[1] - ends[0]).clamp(min=1e-12)
            i_level, j_level = (((v - ends[0]) * scale).clamp(0, 255).long() for v in (center[i], mean[i]))
            count = torch.bincount(256 * i_level + j_level, minlength=256 * 256)
        p = count / cells
        scores.append(-(p * torch.log2(p.clamp(min=1e-40))).sum())
    return torch.stack(scores).view(batch, channels)


def loop_operator(x, scores):
    best = scores.topk(int(RATIO * x.shape[1]), dim=1).indices
    copies = torch.stack([x[i].index_select(0, best[i]) for i in range(len(x))])
    return torch.cat([x, copies], dim=1)


# --- timing ---


def clock(function, device: str) -> float:
    now = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    begun = now()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (now() - begun)


def in_turns(calls: dict, repeats: int, device: str) -> dict[str, float]:
    """Smallest of the repeats in ms for every call, after one round to warm up; every round runs each call once."""
    best = dict.fromkeys(calls, math.inf)
    for turn in range(repeats + 1):
        for name, function in calls.items():
            ms = clock(function, device)
            if turn:
                best[name] = min(best[name], ms)
    return best


def maps_table(batch: int, repeats: int, device: str, peers: bool) -> list[dict]:
    rows = []
    for channels, size in FEATURE_MAPS:
        x = activations(batch, channels, size, device)
        convolution = nn.Conv2d(channels * 2 + int(RATIO * channels), channels, 3, padding=1).to(device)
        merged = torch.cat([x, x, x[:, : int(RATIO * channels)]], dim=1)
        calls, slow = {"convolution": lambda c=convolution, m=merged: c(m)}, {}
        for score, implementation in KINDS:
            module = ife.FeatureEnhancement(score, RATIO, implementation or "paper2d").to(device)
            key = implementation or score
            calls[f"scores {key}"] = lambda m=module, x=x: m.scores(x)
            calls[f"operator {key}"] = lambda m=module, x=x: m(x)
            loop = (
                (lambda x=x, i=implementation: loop_entropy(x, i)) if implementation else lambda x=x: loop_curvature(x)
            )
            slow[f"peer {key}"] = lambda x=x, loop=loop: loop_operator(x, loop())
        with torch.no_grad():
            ms = in_turns(calls, repeats, device)
            ms |= in_turns({**slow, **{k: calls[k] for k in calls if k[:8] == "operator"}}, 1, device) if peers else {}
        for score, implementation in KINDS:
            key = implementation or score
            row = {"channels": channels, "size": size, "batch": batch, "score": score, "implementation": implementation}
            row |= {"scores_ms": ms[f"scores {key}"], "operator_ms": ms[f"operator {key}"]}
            row |= {"convolution_ms": ms["convolution"], "ratio": ms[f"operator {key}"] / ms["convolution"]}
            if peers:
                row |= {"peer_ms": ms[f"peer {key}"], "times_faster": ms[f"peer {key}"] / ms[f"operator {key}"]}
            rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
            print("  ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    return rows


def step(network, optimizer, image, mask):
    optimizer.zero_grad(set_to_none=True)
    functional.binary_cross_entropy_with_logits(network(image)["final"], mask).backward()
    optimizer.step()


def both_ways(module, x):
    x = x.detach().requires_grad_()
    out = module(x)
    out.backward(torch.ones_like(out))


def step_table(width: int, size: int, batch: int, repeats: int, device: str) -> list[dict]:
    torch.manual_seed(0)
    image = torch.rand(batch, 1, size, size, device=device)
    mask = (image > 0.5).float()
    calls, kinds = {}, [("none", ""), *KINDS]
    for enhance, implementation in kinds:
        network = networks.create(
            "unet", width=width, up="transposed", enhance=enhance, enhance_implementation=implementation or "paper2d"
        ).to(device)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        key = implementation or enhance
        calls[f"step {key}"] = lambda n=network, o=optimizer: step(n, o, image, mask)
        if enhance != "none":
            with ife.record_selection(network) as picked:
                network(image)
            seen = [(selection.module, selection.features) for selection in picked.values()]
            calls[f"operator {key}"] = lambda seen=seen: [both_ways(module, x) for module, x in seen]
    ms = in_turns(calls, repeats, device)
    rows = []
    for enhance, implementation in kinds:
        key = implementation or enhance
        row = {"width": width, "size": size, "batch": batch, "enhance": enhance, "implementation": implementation}
        row |= {"step_ms": round(ms[f"step {key}"], 2), "step_to_plain": round(ms[f"step {key}"] / ms["step none"], 4)}
        if enhance != "none":
            row |= {"operator_ms": round(ms[f"operator {key}"], 3)}
            row |= {"share": round(ms[f"operator {key}"] / ms[f"step {key}"], 4)}
        rows.append(row)
        print("  ".join(str(v) for v in row.values()), flush=True)
    return rows


# --- output ---


def markdown(figures: dict) -> str:
    host = f"{figures['device']}, {figures['threads']} thread(s), torch {figures['torch']}"
    lines = [f"# Cost of feature enhancement ({host})", "", NOTE, ""]
    for rows in (figures["maps"], figures["training_step"]):
        titles = list(rows[-1])
        lines += ["| " + " | ".join(t.replace("_", " ") for t in titles) + " |", "|" + " --- |" * len(titles)]
        for row in rows:
            cells = (row.get(t, "–") for t in titles)
            lines.append("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) or "–" for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the two files go")
    parser.add_argument("--batch", type=int, default=16, help="samples at once (default 16)")
    parser.add_argument("--width", type=int, default=64, help="the U-Net's width (default 64, the paper's)")
    parser.add_argument("--size", type=int, default=64, help="pixels of the U-Net's image (default 64; the paper: 224)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of which the minimum counts (default 5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--no-peers", action="store_true", help="leave out the slow loops")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    figures = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": args.threads,
        "load_average_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": args.repeats,
        "ratio_of_channels": RATIO,
        "maps": maps_table(args.batch, args.repeats, args.device, not args.no_peers),
        "training_step": step_table(args.width, args.size, args.batch, args.repeats, args.device),
    }
    write(args.output / "feature_enhancement.json", json.dumps(figures, indent=2) + "\n")
    write(args.output / "feature_enhancement.md", markdown(figures))


if __name__ == "__main__":
    main()
