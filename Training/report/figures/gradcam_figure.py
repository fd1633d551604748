"""Grad-CAM M1 to M3 of every variant of an experiment on a few nodules (UGS-Net, Fig. 9)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from LungNoduleUncertaintyLib.models.network_input import normalize_hu

from ...config import Config
from ..store import Experiment, JobStore, Record, Row
from . import style
from .cases import Case, common_fold, load_cases, networks_words, profile_words, varied_cases
from .drawn import Drawn
from .gradcam import Cam, grad_cams

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

#: A network's probability of `final` (H, W) and its maps.
Result = tuple[np.ndarray, Sequence[Cam]]

MAPS = ("M1", "M2", "M3")
A_FIGURE = 2  # nodules side by side


def _load(folder: Path) -> tuple[Config, "nn.Module"]:
    """(configuration, network in evaluation mode) of a job's folder."""
    from ...runs import build_network, load_run

    config, state = load_run(folder)
    network = build_network(config)
    network.load_state_dict(state)
    return config, network.eval()


def network_image(hu: np.ndarray, config: Config) -> "torch.Tensor":
    """The network's input (1, C, H, W), float32, of a slice of HU (H, W) that is on its grid already."""
    import torch

    stack = torch.from_numpy(np.ascontiguousarray(hu[None, None], dtype=np.float32))
    return normalize_hu(stack, config.input.window_hu)


def _cannot(folder: Path) -> str:
    """Why a job's network can't be run on one stored slice, or nothing."""
    if not (folder / "best.safetensors").is_file():
        return "its weights aren't stored"
    options = json.loads((folder / "config.json").read_text(encoding="utf-8"))["input"]
    if list(options["slice_offsets"]) != [0] or options["position"]:
        return "it takes more than the one slice that is stored"
    return ""


def gradcam(experiment: Experiment, jobs: JobStore) -> list[Drawn]:
    """A `Drawn` for every two of `options["nodules"]` (2) nodules: a row a variant, CT and M1 to M3 a nodule."""
    fold, rows = common_fold(experiment, jobs)
    usable, skipped = [], []
    for row in rows:
        reason = _cannot(jobs.folder(jobs.row_jobs(row)[fold]))
        if reason:
            skipped.append(f"{row['label']} ({reason})")
        else:
            usable.append(row)
    if not usable:
        return []
    cases = {case.nodule_id: case for case in load_cases(jobs.row_jobs(usable[0])[fold], jobs)}
    names, rule = varied_cases(cases, int((experiment.get("options") or {}).get("nodules", 2)), 0.25, 0.75)
    chosen = [cases[name] for name in names]
    results, table = {}, []
    for row in usable:
        job = jobs.row_jobs(row)[fold]
        config, network = _load(jobs.folder(job))
        stored = {case.nodule_id: case for case in load_cases(job, jobs)}
        for case in chosen:
            if case.nodule_id not in stored:
                continue
            probability, cams = grad_cams(network, network_image(stored[case.nodule_id].hu, config), len(MAPS))
            results[row["key"], case.nodule_id] = probability, cams
            table.append(_table_row(row, stored[case.nodule_id], probability, cams))
    caption = (
        "Grad-CAM of the last (M1), second (M2) and third to last (M3) convolution before the final output of each "
        "variant; the target is the sum of the final logits inside the variant's predicted mask (green outline; "
        "white: reader 1). Convolutions larger than 1x1 count, and layers that run side by side, as UGS-Net's three "
        "branches do, as one. Each map is scaled by its own maximum. Nodules: those "
        f"{rule} of test fold {fold} (n = {len(cases)}). "
        f"{style.WINDOW_WORDS}. {networks_words(usable, fold, jobs)}{profile_words(experiment)}"
    )
    if skipped:
        caption += " Left out: " + "; ".join(skipped) + "."
    drawn = []
    for start in range(0, len(chosen), A_FIGURE):
        part = chosen[start : start + A_FIGURE]
        name = "gradcam" if len(chosen) <= A_FIGURE else f"gradcam-{start // A_FIGURE + 1}"
        rows_of = [line for line in table if line["nodule"] in {case.nodule_id for case in part}]
        figure = _draw(usable, part, results)
        drawn.append(
            Drawn(name, "Grad-CAM of the last convolutions", caption, figure, {"table": rows_of, "fold": fold})
        )
    return drawn


def _table_row(row: Row, case: Case, probability: np.ndarray, cams: Sequence[Cam]) -> Record:
    """Numbers behind a line of panels: where the maps' mass lies, and how far the stored prediction was reproduced."""
    out = {"variant": row["label"], "nodule": case.nodule_id}
    for name, cam in zip(MAPS, cams, strict=False):
        total = float(cam.map.sum())
        out[f"{name}_layers"] = " + ".join(cam.layers)
        inside = float(cam.map[case.any_reader].sum() / total) if total else None
        out[f"{name}_share_in_union"] = None if inside is None else round(inside, 4)
    out["difference_from_stored"] = round(float(np.abs(probability - case.maps["final"]).max()), 4)
    return out


def _draw(rows: Sequence[Row], cases: Sequence[Case], results: Mapping[tuple[str, str], Result]) -> "Figure":
    columns = 1 + len(MAPS)
    figure, axes, _ = style.panel_grid(
        len(rows), columns * len(cases), left=1.32, top=0.78, bottom=0.5, gap=0.05, groups=len(cases)
    )
    views = []
    for number, case in enumerate(cases):
        found = [
            results[row["key"], case.nodule_id][0] >= 0.5 for row in rows if (row["key"], case.nodule_id) in results
        ]
        views.append(style.field_of_view([case.any_reader, *found], case.spacing, factor=2.4))
        head = axes[0][number * columns]
        words = f"{case.short_id}, {case.diameter_mm:.1f} mm, readers disagree on {100 * case.disagreement:.0f} %"
        head.annotate(words, (0, 1), (0, 19), "axes fraction", textcoords="offset points", fontsize=9, weight="bold")
        for column, name in enumerate(("CT", *MAPS)):
            axes[0][number * columns + column].set_title(name, fontsize=9.5, color=style.TEXT, pad=3)
    for line, row in zip(axes, rows, strict=True):
        style.row_label(figure, line[0], [row["label"]])
        for number, (case, view) in enumerate(zip(cases, views, strict=True)):
            panels = line[number * columns : (number + 1) * columns]
            _line(panels, case, view, results.get((row["key"], case.nodule_id)), bar=line is axes[0])
    entries: list[style.Entry] = [("reader 1", "#9a9a9a", "solid"), ("Final, predicted", style.FINAL, "solid")]
    style.legend(figure, entries, y_inches=0.08)
    _scale(figure)
    return figure


def _line(panels: Sequence["Axes"], case: Case, view: style.View, result: Result | None, bar: bool) -> None:
    style.show_ct(panels[0], case.hu, case.spacing, view)
    if bar:
        style.scale_bar(panels[0], case.spacing, view)
    probability, cams = result if result else (np.zeros_like(case.hu, float), [])
    blank = np.zeros_like(probability)
    for number, axis in enumerate(panels[1:]):  # opaque: over the CT a color wouldn't be the scale's any more
        shown = cams[number].map if number < len(cams) else blank
        style.show(axis, shown, case.spacing, view, cmap="inferno", vmin=0, vmax=1)
        if number >= len(cams):
            style.note(axis, "no such layer", corner="upper left", size=7.5)
    for axis in panels:
        style.outline(axis, case.readers[0], "#f2f2f2", width=0.8)
        style.outline(axis, probability, style.FINAL, width=1.3)
    if not (probability >= 0.5).any():
        style.note(panels[0], "nothing predicted", corner="upper left", size=7.5)


def _scale(figure: "Figure") -> None:
    width, height = figure.get_size_inches()
    bar = figure.add_axes((0.5 - 1.1 / width, 0.24 / height, 2.2 / width, 0.11 / height))
    bar.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap="inferno", vmin=0, vmax=1)
    style.bare(bar)
    for x, text, align in ((-0.03, "Grad-CAM  0", "right"), (1.03, "maximum", "left")):
        bar.text(x, 0.5, text, transform=bar.transAxes, ha=align, va="center", fontsize=8.5, color=style.MUTED)
