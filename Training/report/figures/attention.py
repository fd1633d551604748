"""Spatial attention of the first CBAM block, for variants that differ in what the network sees (DSNet v2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from LungNoduleKit.errors import NoduleError

from ..store import Experiment, JobStore, Record, Row
from . import style
from .cases import Case, common_fold, load_cases, networks_words, profile_words, varied_cases
from .drawn import Drawn
from .gradcam_figure import _cannot, _load, network_image

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import nn

#: A network's probability of `final` (H, W) and its weights of attention (h, w).
Maps = tuple[np.ndarray, np.ndarray]

COLORS = "inferno"


def spatial_attention(network: "nn.Module", image: "torch.Tensor") -> tuple[np.ndarray, np.ndarray]:
    """(probability of `final` (H, W), weights (h, w) of the network's first spatial attention in [0, 1]), float32.

    image: float tensor (1, C, H, W). The weights lie on the grid that the block works on: behind a super-resolution
    teacher that is four times as fine as the input's. First is the first in the order of the network's modules, for
    DSNet that of the encoder's first block. The network comes back as it was. Raises ValueError for another batch size
    and for a network without spatial attention.
    """
    import torch

    from LungNoduleUncertaintyLib.networks.blocks import SpatialAttention

    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"attention is shown of one image (1, C, H, W), got shape {tuple(image.shape)}")
    layer = next((module for module in network.modules() if isinstance(module, SpatialAttention)), None)
    if layer is None:
        raise ValueError(f"{type(network).__name__} has no spatial attention")
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(module.weights(inputs[0])))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            final = torch.sigmoid(network(image)["final"])
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return final[0, 0].numpy(force=True), seen[0][0, 0].numpy(force=True)


def attention(experiment: Experiment, jobs: JobStore) -> list[Drawn]:
    """One `Drawn`: a column a nodule of `options["nodules"]` (4), a row the CT, then a row the attention of a variant.

    Nodules: evenly spaced quantiles of the readers' disagreement, chosen before any network is looked at. Variants
    whose weights aren't there, or without spatial attention, are named in the caption.
    """
    fold, rows = common_fold(experiment, jobs)
    if not rows:
        return []
    cases = {case.nodule_id: case for case in load_cases(jobs.row_jobs(rows[0])[fold], jobs)}
    names, rule = varied_cases(cases, int((experiment.get("options") or {}).get("nodules", 4)), 0.1, 0.9)
    chosen = [cases[name] for name in names]
    results, table, usable, skipped = {}, [], [], []
    for row in rows:
        folder = jobs.folder(jobs.row_jobs(row)[fold])
        reason = _cannot(folder)
        try:
            own = {} if reason else _of_row(folder, chosen)
        except (ValueError, NoduleError) as error:
            reason = str(error)
        if reason:
            skipped.append(f"{row['label']} ({reason})")
            continue
        usable.append(row)
        for case in chosen:
            results[row["key"], case.nodule_id] = own[case.nodule_id]
            table.append(_numbers(row, case, *own[case.nodule_id]))
    if not usable or not chosen:
        return []
    caption = (
        "Weights by which the first block's spatial attention (CBAM) multiplies its features, from 0 (nothing passes) "
        "to 1. Each variant has a scale of its own, from the lowest to the highest weight within the panels of its "
        "row: compare where a map is high, and its range by the bar. White: what at least half of the readers "
        f"include; green: the variant's Final. Nodules: those {rule} of test fold "
        f"{fold} (n = {len(cases)}). In the table, “auc” is the "
        "chance that a pixel of the consensus has a higher weight than one that no reader includes. "
        f"{style.WINDOW_WORDS}. {networks_words(usable, fold, jobs)}{profile_words(experiment)}"
    )
    if skipped:
        caption += " Left out: " + "; ".join(skipped) + "."
    figure = _draw(usable, chosen, results)
    title = "Spatial attention of the first block"
    return [Drawn("maps", title, caption, figure, {"table": table, "fold": fold})]


def _of_row(folder: Path, cases: Sequence[Case]) -> dict[str, Maps]:
    """{nodule id: (probability, weights)} by a job's network."""
    config, network = _load(folder)
    return {case.nodule_id: spatial_attention(network, network_image(case.hu, config)) for case in cases}


def _numbers(row: Row, case: Case, probability: np.ndarray, weights: np.ndarray) -> Record:
    """Mean weights inside the consensus, where readers differ, and outside of every reader's mask."""
    factor = weights.shape[0] // case.hu.shape[0]
    fine = [np.kron(mask, np.ones((factor, factor), bool)) for mask in (case.consensus, case.any_reader)]
    every = np.kron(case.all_readers, np.ones((factor, factor), bool))
    inside, differ, outside = fine[0], fine[1] & ~every, ~fine[1]
    out = {"variant": row["label"], "nodule": case.nodule_id, "grid": "x".join(map(str, weights.shape))}
    for name, mask in (("consensus", inside), ("where_readers_differ", differ), ("outside", outside)):
        out[f"mean_in_{name}"] = round(float(weights[mask].mean()), 4) if mask.any() else None
    out["auc"] = _auc(weights[inside], weights[outside])
    out |= {"lowest": round(float(weights.min()), 4), "highest": round(float(weights.max()), 4)}
    stored = case.maps["final"]
    out["final_pixels"] = int((probability >= 0.5).sum())
    return out if stored.shape == probability.shape else {**out, "final_pixels": None}


def _auc(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """Chance that a value of `inside` exceeds one of `outside`; ties count half."""
    if not inside.size or not outside.size:
        return None
    ranks = rankdata(np.concatenate([inside, outside]))[: inside.size].sum()
    return round(float((ranks - inside.size * (inside.size + 1) / 2) / (inside.size * outside.size)), 4)


def _draw(rows: Sequence[Row], cases: Sequence[Case], results: Mapping[tuple[str, str], Maps]) -> "Figure":
    figure, axes, _ = style.panel_grid(1 + len(rows), len(cases), left=1.25, right=0.75, top=0.72, bottom=0.08)
    views = []
    for axis, case in zip(axes[0], cases, strict=True):
        view = style.field_of_view(case.any_reader, case.spacing, factor=2.4)
        views.append(view)
        words = f"{case.short_id}, {case.diameter_mm:.1f} mm\nreaders disagree on {100 * case.disagreement:.0f} %"
        axis.set_title(words, fontsize=9, color=style.TEXT, pad=3)
        style.show_ct(axis, case.hu, case.spacing, view)
        style.outline(axis, case.consensus, "#f2f2f2", width=0.9)
        style.scale_bar(axis, case.spacing, view)
    style.row_label(figure, axes[0][0], ["CT"])
    for line, row in zip(axes[1:], rows, strict=True):
        found = [results[row["key"], case.nodule_id] for case in cases]
        seen = [_within(weights, case, view) for (_, weights), case, view in zip(found, cases, views, strict=True)]
        low, high = min(part.min() for part in seen), max(part.max() for part in seen)
        high = high if high > low else low + 1e-3
        size = found[0][1].shape
        style.row_label(figure, line[0], [row["label"], f"{size[0]} x {size[1]}"])
        for axis, case, view, (probability, weights) in zip(line, cases, views, found, strict=True):
            shown = style.show(
                axis, weights, case.spacing, view, cmap=COLORS, vmin=low, vmax=high, extent=_extent(case.hu.shape)
            )
            style.outline(axis, case.consensus, "#f2f2f2", width=0.9)
            style.outline(axis, probability, style.FINAL, width=1.3)
        style.color_bar(figure, line[-1], shown)
    entries: list[style.Entry] = [
        ("consensus of the readers", "#9a9a9a", "solid"),
        ("Final, predicted", style.FINAL, "solid"),
    ]
    style.legend(figure, entries, y_inches=0.08)
    return figure


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Where a finer map lies in the pixels of the CT's grid, so that its corners are the grid's corners."""
    return -0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5


def _within(weights: np.ndarray, case: Case, view: style.View) -> np.ndarray:
    """The part of a map that a view shows."""
    factor = weights.shape[0] / case.hu.shape[0]
    spans = []
    for (low, high), size in zip(view, weights.shape, strict=True):
        start, end = int(np.floor((low + 0.5) * factor)), int(np.ceil((high + 0.5) * factor))
        spans.append(slice(max(start, 0), min(max(end, start + 1), size)))
    return weights[tuple(spans)]
