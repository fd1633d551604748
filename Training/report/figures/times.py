"""Time of a prediction of each network, as it was measured in one run (DSNet v2, with and without detail transfer)."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from ..store import Experiment, JobStore, Record
from . import style
from .cases import profile_words
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def times(experiment: Experiment, jobs: JobStore) -> list[Drawn]:
    """One `Drawn` of the experiment's timing.json, none where nothing was measured yet."""
    from ...experiments import timing  # loads torch, which reading results doesn't need

    if not timing.path_of(experiment["name"], jobs.root).is_file():
        return []
    content = jobs.beside(experiment["name"], timing.FILE)
    rows, known = timing.summary(timing.timing_of(content, timing.FILE)), content["conditions"]
    labels = {row["key"]: row for row in content["rows"]}
    reference = labels[content["reference"]]["label"]
    caption = (
        "Least time of a forward pass over all rounds (bar) and its median (line), in ms a slice; above each bar how "
        f"often the least time of {reference} that is. In a round all networks make one pass in turn, so that other "
        f"load meets all of them. Evaluation mode, {known['precision']}, without reading, preparing or copying the "
        f"image. Measured on {known['device']} ({known['processor']}), PyTorch {known['torch']}, {known['date']}, "
        f"commit {str(known['commit'])[:12]}. The paper's times are of a Titan V.{profile_words(experiment)}"
    )
    data = {"table": rows, "sentences": _sentences(rows, content), "conditions": known}
    return [Drawn("times", "Time of a prediction", caption, _draw(rows, content), data)]


def _sentences(rows: Sequence[Record], content: dict[str, Any]) -> list[str]:
    """Every network beside the reference, and the paper's own ratio."""
    labels = {row["key"]: row for row in content["rows"]}
    base = labels[content["reference"]]
    sentences = []
    for batch in content["batches"]:
        own = [row for row in rows if row["batch"] == batch]
        start = next(row for row in own if row["key"] == content["reference"])
        others = [f"{r['network']} {r['ratio']:.2f} times" for r in own if r["key"] != content["reference"]]
        sentences.append(
            f"Batch {batch}: {base['label']} takes {start['least_ms_a_slice']:.2f} ms a slice; {', '.join(others)} as "
            f"long (least of {start['rounds']} rounds, {content['conditions']['device']})."
        )
        if content["enlarged"] is not None:
            large = labels[content["enlarged"]]["label"]
            rest = [r for r in own if r["key"] not in (content["reference"], content["enlarged"])]
            words = ", ".join(f"{r['network']} {r['ratio_to_enlarged']:.2f} times" for r in rest)
            sentences.append(f"Batch {batch}, beside {large}, which has as many pixels: {words} as long.")
    published = [r for r in content["rows"] if r["paper"].get("ms") and r["key"] != content["reference"]]
    if base["paper"].get("ms") and published:
        ratios = [
            f"{r['paper']['ms']:g} / {base['paper']['ms']:g} ms = {r['paper']['ms'] / base['paper']['ms']:.2f} times"
            for r in published
        ]
        sentences.append(f"The paper: {', '.join(ratios)}.")
    return sentences


def _draw(rows: Sequence[Record], content: dict[str, Any]) -> "Figure":
    batches = content["batches"]
    figure = style.new_figure(style.PAGE_WIDTH, 3.9)
    gap, left = 0.05, 0.05
    width = (0.985 - left - gap * (len(batches) - 1)) / len(batches)
    for number, batch in enumerate(batches):
        axes = figure.add_axes((left + number * (width + gap), 0.19, width, 0.7))
        own = [row for row in rows if row["batch"] == batch]
        for at, row in enumerate(own):
            chosen = row["key"] == content["reference"]
            axes.bar(at, row["least_ms_a_slice"], width=0.66, color=style.MUTED if chosen else style.HC)
            level = row["median_ms_a_slice"]
            axes.plot([at - 0.33, at + 0.33], [level, level], color=style.LC, linewidth=2)
            words = f"{row['ratio']:.2f}x" if not chosen else "1"
            axes.annotate(
                words,
                (at, max(level, row["least_ms_a_slice"])),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=style.TEXT,
            )
        axes.set_xticks(range(len(own)), [fill(row["network"], 13) for row in own], fontsize=8)
        axes.set_ylim(0, 1.15 * max(max(r["median_ms_a_slice"], r["least_ms_a_slice"]) for r in own))
        axes.set_title(f"batch {batch}", loc="left", fontsize=10.5, color=style.TEXT)
        axes.tick_params(axis="y", labelsize=8.5)
        if number == 0:
            axes.set_ylabel("ms a slice", fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure
