"""Soft masks against four real readers: `python Testing/benchmarks/soft_mask_quality.py --data DIR [--limit N]`.

Nodules of `lidc-nodules` that four readers drew, on the slice with the largest consensus. Truth is the mean of the
readers' masks. Every label is judged on the same pixels: the band (where readers disagree, dilated by one pixel) and
the whole crop. Writes quality.csv, tables.md and gallery.png; with `--deeplesion FOLDER` the soft
masks of DeepLesion's key slices as a picture too.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SoftMaskLabeler")]
READERS = 4
# (key, what it is, what it saw of the four readers whose mean is the truth)
METHODS = (
    ("strategy 1", "soft mask from one reader's mask", "one reader, mean over the four"),
    ("strategy 2", "soft mask from all readers' masks", "all four readers: band's pixels are the open ones"),
    ("strategy 3", "soft mask from RECIST marks of the consensus", "four end points"),
    ("Kats", "dilation label of one reader's mask", "one reader, mean over the four"),
    ("SoftSeg", "bilinear label of one reader's mask", "one reader, mean over the four"),
    ("one reader", "one reader's mask, binary", "one reader, mean over the four"),
    ("consensus", "mask of at least two readers, binary", "all four readers"),
    ("trimap", "strategy 2's trimap, 0.5 where unknown, no matting", "all four readers"),
)
HELD_OUT = (
    ("strategy 1", "soft mask from the reader's mask"),
    ("strategy 3", "soft mask from RECIST marks of the reader's mask"),
    ("Kats", "dilation label"),
    ("SoftSeg", "bilinear label"),
    ("one reader", "the reader's mask, binary"),
)
MEASURES = ("mae_band", "dice_band", "mae_crop", "dice_crop")


def nodules(folder: Path):
    """(row of the table, image (y, x) in HU, masks (4, y, x), spacing (y, x)) of the nodules with four readers."""
    import numpy as np
    import SimpleITK as sitk

    with open(folder / "nodules.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["readers"] == str(READERS)]
    for row in rows:
        z = int(row["largest_consensus_slice"])
        image = sitk.ReadImage(str(folder / f"{row['nodule_id']}_ct.nrrd"))
        readers = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{row['nodule_id']}_readers.seg.nrrd")))
        masks = np.moveaxis(readers[z] > 0, -1, 0)
        yield row, sitk.GetArrayFromImage(image)[z], masks, image.GetSpacing()[1::-1]


def labels_of(image, spacing, masks) -> dict:
    """Labels of one mask, by method; `masks`: one reader's."""
    from SoftMaskLabelerLib import bilinear_label, dilation_label
    from SoftMaskLabelerLib.pipeline import soft_mask_array
    from SoftMaskLabelerLib.trimap.recist import recist_axes

    return {
        "strategy 1": soft_mask_array(image, spacing, masks=[masks])[0],
        "strategy 3": soft_mask_array(image, spacing, recist=recist_axes(masks, spacing))[0],
        "Kats": dilation_label(masks, spacing),
        "SoftSeg": bilinear_label(masks),
        "one reader": masks.astype("float32"),
    }


def scores(label, truth, band) -> dict:
    """Mean absolute error and soft Dice 2 sum(a t) / (sum(a a) + sum(t t)) in the band and in the crop."""
    import numpy as np

    out = {}
    for name, where in (("band", band), ("crop", np.ones_like(band))):
        a, t = label[where].astype(float), truth[where].astype(float)
        out[f"mae_{name}"] = float(np.abs(a - t).mean())
        out[f"dice_{name}"] = float(2 * (a @ t) / (a @ a + t @ t))
    return out


def mean_scores(many: list) -> dict:
    return {measure: sum(one[measure] for one in many) / len(many) for measure in MEASURES}


def judge(row, image, masks, spacing) -> dict:
    """Scores of every label of a nodule: {"all": by method, "held out": by method}; empty if all readers agree."""
    import numpy as np
    from scipy.ndimage import binary_dilation

    from SoftMaskLabelerLib.pipeline import soft_mask_array
    from SoftMaskLabelerLib.trimap.recist import recist_axes

    truth = masks.mean(axis=0)
    band = binary_dilation((truth > 0) & (truth < 1), np.ones((3, 3)))
    if not band.any():
        return {}
    consensus = truth >= 0.5
    notes: list = []
    by_two, trimap = soft_mask_array(image, spacing, masks=list(masks))
    by_recist = soft_mask_array(image, spacing, recist=recist_axes(consensus, spacing), notes=notes)[0]
    levels = np.where(trimap == 128, 0.5, trimap / 255)
    found: dict = {
        "strategy 2": scores(by_two, truth, band),
        "strategy 3": scores(by_recist, truth, band),
        "consensus": scores(consensus, truth, band),
        "trimap": scores(levels, truth, band),
    }
    alone: dict = {name: [] for name, _ in HELD_OUT}
    against_all: dict = {name: [] for name in ("strategy 1", "Kats", "SoftSeg", "one reader")}
    for number in range(READERS):
        if not masks[number].any():
            continue
        others = np.delete(masks, number, axis=0).mean(axis=0)
        for name, label in labels_of(image, spacing, masks[number]).items():
            alone[name].append(scores(label, others, band))
            if name in against_all:
                against_all[name].append(scores(label, truth, band))
    found.update({name: mean_scores(many) for name, many in against_all.items()})
    return {
        "all": found,
        "held out": {name: mean_scores(many) for name, many in alone.items()},
        "ellipse": any("ellipse" in note for note in notes),
        "band": int(band.sum()),
        "readers": len(alone["Kats"]),
    }


def table(judged: list, part: str, methods) -> list[dict]:
    """One row a method: mean and standard deviation over the nodules."""
    import numpy as np

    rows = []
    for method in methods:
        row = dict(zip(("label", "description", "saw"), method, strict=False))
        for measure in MEASURES:
            values = [one[part][method[0]][measure] for _, one in judged]
            row[measure], row[f"{measure}_sd"] = float(np.mean(values)), float(np.std(values, ddof=1))
        row["nodules"] = len(judged)
        row["patients"] = len({nodule["patient_id"] for nodule, _ in judged})
        rows.append({"truth": "mean of four readers" if part == "all" else "mean of the other three", **row})
    return rows


def markdown(rows: list[dict]) -> str:
    lines = ["| label | band: MAE | band: soft Dice | crop: MAE | crop: soft Dice |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (f"{row[m]:.3f} ± {row[m + '_sd']:.3f}" for m in MEASURES)
        saw = f" ({row['saw']})" if "saw" in row else ""
        lines.append(f"| {row['label']}: {row['description']}{saw} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\n{rows[0]['nodules']} nodules of {rows[0]['patients']} patients; mean ± sd.\n"


def conditions() -> str:
    def told(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    changed = " with uncommitted changes" if told("git", "status", "--porcelain", "SoftMaskLabeler") else ""
    import numpy
    import scipy

    return (
        f"Commit {told('git', 'rev-parse', 'HEAD') or 'unknown'}{changed}, {datetime.date.today().isoformat()}, "
        f"{platform.machine()} with {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy "
        f"{numpy.__version__}, scipy {scipy.__version__}. Deterministic: no random numbers (GrabCut's are seeded).\n"
    )


def gallery(chosen, path: Path) -> None:
    """A row a nodule, cut to its surroundings."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from SoftMaskLabelerLib.pipeline import soft_mask_array, windowed
    from SoftMaskLabelerLib.trimap.morphology import bounding_box
    from SoftMaskLabelerLib.trimap.recist import recist_axes

    titles = ["CT", "four readers", "trimap 1\n(white reader)", "strategy 1", "trimap 2", "strategy 2"]
    titles += ["RECIST,\ntrimap 3", "strategy 3", "Kats", "SoftSeg", "mean of readers"]
    figure, axes = plt.subplots(len(chosen), len(titles), figsize=(15.4, 1.45 * len(chosen) + 0.5), squeeze=False)
    for line, (row, image, masks, spacing) in zip(axes, chosen, strict=True):
        truth = masks.mean(axis=0)
        points = recist_axes(truth >= 0.5, spacing)
        own = labels_of(image, spacing, masks[0])
        two, three = (
            soft_mask_array(image, spacing, **source) for source in ({"masks": list(masks)}, {"recist": points})
        )
        trimap = soft_mask_array(image, spacing, masks=[masks[0]])[1]
        gray = windowed(image, (-1000, 400))
        shown = [gray, gray, trimap / 255, own["strategy 1"], two[1] / 255, two[0], three[1] / 255, three[0]]
        shown += [own["Kats"], own["SoftSeg"], truth]
        box = bounding_box(truth > 0, (0, 0))
        side = max(part.stop - part.start for part in box) + 12
        center = [(part.start + part.stop - 1) / 2 for part in box]
        for number, (ax, values) in enumerate(zip(line, shown, strict=True)):
            plain = number < 2 or number in (2, 4, 6)
            ax.imshow(values, cmap="gray" if plain else "magma", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_xlim(center[1] - side / 2, center[1] + side / 2)
            ax.set_ylim(center[0] + side / 2, center[0] - side / 2)
        for mask, color in zip(masks, ("white", "#4cc9f0", "#f9a826", "#80ed99"), strict=True):
            line[1].contour(mask.astype(float), [0.5], colors=color, linewidths=0.9)
        for ends in (points[:2], points[2:]):
            line[6].plot(*ends.T, color="#ff595e", linewidth=1.4)
        reach = float(np.sqrt(4 * (truth >= 0.5).sum() / np.pi)) * spacing[0]
        line[0].set_ylabel(f"{row['nodule_id'].removeprefix('LIDC-IDRI-')}\n{reach:.0f} mm", fontsize=8)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4, h_pad=0.15, w_pad=0.15)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def deeplesion_gallery(folder: Path, path: Path) -> list[str]:
    """Key slices that are there, from their real RECIST marks; returns what each gave."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from SoftMaskLabelerLib.dataset.deeplesion import key_slice_path, marks, read_key_slice, read_table
    from SoftMaskLabelerLib.errors import ImageError
    from SoftMaskLabelerLib.pipeline import Parameters, soft_mask_array, windowed

    found = []
    for lesion in read_table(folder / "DL_info.csv"):
        try:
            found.append((lesion, read_key_slice(key_slice_path(folder / "images", lesion.file))))
        except ImageError:
            continue
    windows = (("-1000 to 400 HU", None), ("the slice's own window", "own"))
    figure, axes = plt.subplots(len(found), 7, figsize=(13, 1.95 * len(found) + 0.4), squeeze=False)
    told = []
    for line, (lesion, image) in zip(axes, found, strict=True):
        points, spacing = marks(lesion)
        low, high = points.min(axis=0), points.max(axis=0)
        center, side = (low + high) / 2, 1.7 * float((high - low).max()) + 8
        own = lesion.window
        panels = [(windowed(image, own), "gray", True)]
        for name, kind in windows:
            parameters = Parameters(window=own) if kind else Parameters()
            notes: list = []
            alpha, trimap = soft_mask_array(image, spacing, recist=points, parameters=parameters, notes=notes)
            panels += [(trimap / 255, "gray", True), (alpha, "magma", False), ((alpha >= 0.5), None, False)]
            area = float((alpha >= 0.5).sum()) * spacing[0] * spacing[1]
            told.append(f"{lesion.name} (type {lesion.kind}), {name}: {area:.0f} mm2 {'; '.join(notes)}".strip())
        for ax, (values, cmap, marked) in zip(line, panels, strict=True):
            shown = windowed(image, own) if cmap is None else values
            ax.imshow(shown, cmap=cmap or "gray", vmin=0, vmax=1, interpolation="nearest")
            if cmap is None:
                ax.contour(values.astype(float), [0.5], colors="#f9a826", linewidths=1.2)
            if marked:
                for ends in (points[:2], points[2:]):
                    ax.plot(*ends.T, color="#ff595e", linewidth=1.2)
            ax.set(xticks=[], yticks=[])
            ax.set_xlim(center[0] - side / 2, center[0] + side / 2)
            ax.set_ylim(center[1] + side / 2, center[1] - side / 2)
        line[0].set_ylabel(f"{lesion.name}\ntype {lesion.kind}", fontsize=8)
    titles = ["own window, RECIST"]
    for name, _ in windows:
        titles += [f"trimap\n{name}", "soft mask", "alpha 0.5"]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.4, h_pad=0.2, w_pad=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return told


def choose(everything, judged: dict, count: int) -> list:
    """Nodules of all sizes whose readers disagree as much as is usual for the size, one a patient."""
    sized = sorted(
        (case for case in everything if judged.get(case[0]["nodule_id"])),
        key=lambda case: float(case[0]["consensus_equivalent_diameter_mm"]),
    )
    # From 5 mm on there is something to see.
    sized = [case for case in sized if float(case[0]["consensus_equivalent_diameter_mm"]) >= 5]
    chosen, seen = [], set()
    for number in range(count):
        group = sized[number * len(sized) // count : (number + 1) * len(sized) // count]
        group = [case for case in group if case[0]["patient_id"] not in seen]
        # Band per rim: how wide readers disagree.
        group.sort(
            key=lambda case: judged[case[0]["nodule_id"]]["band"] / max(1, (case[2].mean(0) >= 0.5).sum()) ** 0.5
        )
        chosen.append(group[len(group) * 2 // 3])
        seen.add(chosen[-1][0]["patient_id"])
    return chosen


def write_rows(path: Path, listed) -> None:
    """Every nodule's scores."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["nodule_id", "truth", "label", "band_pixels", *MEASURES])
        for row, result in listed:
            for part in ("all", "held out"):
                for label, values in result[part].items():
                    cells = [f"{values[m]:.4f}" for m in MEASURES]
                    writer.writerow([row["nodule_id"], part, label, result["band"], *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nodules.csv and the nodules")
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "results" / "soft-mask")
    parser.add_argument("--limit", type=int, help="the first N nodules only")
    parser.add_argument("--rows", type=Path, metavar="FILE.csv", help="every nodule's scores too")
    parser.add_argument("--deeplesion", type=Path, help="folder with DL_info.csv and images/")
    parser.add_argument("--deeplesion-picture", type=Path, default=Path("deeplesion.png"))
    args = parser.parse_args()
    if args.deeplesion:
        print("\n".join(deeplesion_gallery(args.deeplesion, args.deeplesion_picture)))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    everything = list(nodules(args.data))[: args.limit]
    from tqdm import tqdm

    judged = {}
    for case in tqdm(everything, unit="nodule", disable=None):
        result = judge(*case)
        if result:
            judged[case[0]["nodule_id"]] = result
    rows = {case[0]["nodule_id"]: case[0] for case in everything}
    listed = [(rows[name], result) for name, result in judged.items()]
    tables = [table(listed, "all", METHODS), table(listed, "held out", HELD_OUT)]
    with open(args.output / "quality.csv", "w", newline="", encoding="utf-8") as file:
        names = list(tables[0][0])
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in r.items()} for t in tables for r in t
        )
    if args.rows:
        write_rows(args.rows, listed)
    fewer = sum(result["readers"] < READERS for result in judged.values())
    ellipses = sum(result["ellipse"] for result in judged.values())
    text = (
        f"{conditions()}\nTruth: mean of the four readers' masks\n\n{markdown(tables[0])}\n"
        f"Truth: mean of the three readers whom the label did not see\n\n{markdown(tables[1])}\n"
        f"{len(everything) - len(judged)} more nodules have no band, because all readers agree. On {fewer} slices "
        f"a reader drew nothing: means over readers leave that one out, truth doesn't. GrabCut fell back to the "
        f"ellipse for {ellipses} nodules' consensus marks.\n"
    )
    (args.output / "tables.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    gallery(choose(everything, judged, 8), args.output / "gallery.png")


if __name__ == "__main__":
    main()
