"""Which channels feature enhancement picks: maps with their scores, the ranking of all channels, and how far criteria
agree (IFE, Figs. 2, 3 and 5, and its forms of the entropy).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...config import Config
from ..store import Experiment, JobStore, Record, Row
from . import style
from .cases import Case, common_fold, load_cases, networks_words, profile_words, varied_cases
from .channel_scores import (
    ALONE,
    CRITERIA,
    FORMS,
    PAIRS,
    SAID,
    Place,
    common_share,
    cut_by_tie,
    enhanced_places,
    picks,
    rank_correlation,
    steadiness,
)
from .drawn import Drawn
from .gradcam_figure import _cannot, _load, network_image

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

BEST, WORST = 4, 2  # maps of each criterion
BATCH = 32
MAP_COLORS, SHARE_COLORS = "magma", "viridis"


def channels(experiment: Experiment, jobs: JobStore) -> list[Drawn]:
    """For each row of the option `shown` (all that enhance): the maps of `nodules` (3) nodules, and the ranking.

    The last figure's tables compare the criteria at every place of every row. Rows without a choice of channels, or
    whose weights aren't there, are named in its caption. Nodules: evenly spaced quantiles of the readers' disagreement.
    """
    fold, rows = common_fold(experiment, jobs)
    options = experiment.get("options") or {}
    drawn, agreement, usable, skipped, forms = [], [], [], [], []
    for row in rows:
        job = jobs.row_jobs(row)[fold]
        reason, places = _cannot(jobs.folder(job)), []
        if not reason:
            cases = load_cases(job, jobs)
            chosen, rule = varied_cases(dict(enumerate(cases)), int(options.get("nodules", 3)), 0.25, 0.75)
            config, network = _load(jobs.folder(job))
            images = _images(cases, config)
            truth = np.stack([case.consensus for case in cases])
            places = enhanced_places(network, images, truth, config.network.name, chosen, BATCH)
            reason = "" if places else "no choice of channels"
        if reason:
            skipped.append(f"{row['label']} ({reason})")
            continue
        usable.append(row)
        forms.append((row, places))
        agreement += [line for place in places for line in _agreement(row, place)]
        if row["key"] not in options.get("shown", [row["key"]]):
            continue
        words = f"{networks_words([row], fold, jobs)}{profile_words(experiment)}"
        of_fold = f"test fold {fold} (n = {len(cases)})"
        shown = [cases[index] for index in chosen]
        drawn.append(_maps(row, places, shown, chosen, images, f"{rule} of {of_fold}", words))
        drawn.append(_ranking(row, places, of_fold, words))
    if not usable:
        return []
    return [*drawn, _comparison(forms, agreement, fold, skipped, networks_words(usable, fold, jobs), experiment)]


def _images(cases: Sequence[Case], config: Config) -> "torch.Tensor":
    import torch

    return torch.cat([network_image(case.hu, config) for case in cases])


# -- the maps ----------------------------------------------------------------------------------------------------------
def _maps(
    row: Row,
    places: Sequence[Place],
    cases: Sequence[Case],
    indices: Sequence[int],
    images: "torch.Tensor",
    rule: str,
    words: str,
) -> Drawn:
    columns = 1 + len(CRITERIA) * (BEST + WORST)
    apart, left, top, gap = 0.16, 1.25, 0.62, 0.04
    side = (style.PAGE_WIDTH - left - 0.08 - gap * (columns - 1) - len(CRITERIA) * apart) / columns
    step = side + 0.3
    height = top + len(cases) * len(places) * step
    figure, table = style.new_figure(style.PAGE_WIDTH, height), []

    def panel(line: int, column: int) -> tuple["Axes", float]:
        group = 0 if column == 0 else 1 + (column - 1) // (BEST + WORST)
        x = left + column * (side + gap) + group * apart
        y = height - top - line * step - side
        box = (x / style.PAGE_WIDTH, y / height, side / style.PAGE_WIDTH, side / height)
        return figure.add_axes(box), x

    for number, (case, index) in enumerate(zip(cases, indices, strict=True)):
        view = (-0.5, case.hu.shape[0] - 0.5), (-0.5, case.hu.shape[1] - 0.5)
        for at, place in enumerate(places):
            line = number * len(places) + at
            axes, _ = panel(line, 0)
            style.show(axes, images[index, 0].numpy(), case.spacing, view, cmap="gray", vmin=0, vmax=1)
            style.outline(axes, case.consensus, "#f2f2f2", width=0.9)
            lines = [f"{case.diameter_mm:.1f} mm", f"{place.name}:", f"{place.channels} maps", f"of {_by(place.size)}"]
            style.row_label(figure, axes, [case.short_id, *lines])
            for which, criterion in enumerate(CRITERIA):
                scores = place.scores[criterion][index]
                order = np.argsort(-scores, kind="stable")
                ranks = [*range(BEST), *range(len(order) - WORST, len(order))]
                for column, rank in enumerate(ranks):
                    axes, x = panel(line, 1 + which * (BEST + WORST) + column)
                    channel = int(order[rank])
                    _map(axes, place.features[index][channel], case, view)
                    axes.set_title(f"#{channel}: {scores[channel]:.3g}", fontsize=7.5, color=style.TEXT, pad=2)
                    known = {"nodule": case.nodule_id, "place": place.name, "criterion": criterion, "rank": rank + 1}
                    table.append({**known, "channel": channel, "score": round(float(scores[channel]), 5)})
                    if line == 0 and column in (0, BEST):
                        word = f"{criterion}: highest" if column == 0 else "lowest"
                        at_word = style.place(figure, x, 0.12)
                        figure.text(*at_word, word, fontsize=9.5, weight="bold", color=style.TEXT, va="top")
    caption = (
        f"Feature maps of {row['label']} where it enhances them: for each nodule and place the {BEST} with the highest "
        f"and the {WORST} with the lowest score by curvature (sum of absolute values, so it grows with a map's scale) "
        "and by entropy (in bit). Above each map its channel and its score; each map from black, its own lowest value, "
        f"to bright, its highest, all black where it is constant. {row['label']} picks by {places[0].own}; the other "
        "criterion is computed on the same maps. Left: the network's input with the readers' consensus. Nodules: those "
        f"{rule}. {words}"
    )
    title = f"Maps with the highest and the lowest score: {row['label']}"
    return Drawn(f"maps-{row['key']}", title, caption, figure, {"table": table})


def _map(axes: "Axes", values: np.ndarray, case: Case, view: style.View) -> None:
    """A feature map over the area of the image, between its own ends."""
    low, high = float(values.min()), float(values.max())
    extent = (-0.5, case.hu.shape[1] - 0.5, case.hu.shape[0] - 0.5, -0.5)
    options = {"cmap": MAP_COLORS, "vmin": low, "vmax": high if high > low else low + 1, "interpolation": "nearest"}
    style.show(axes, values, case.spacing, view, extent=extent, **options)


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


# -- the ranking -------------------------------------------------------------------------------------------------------
def _ranking(row: Row, places: Sequence[Place], of_fold: str, words: str) -> Drawn:
    """Every channel's score at each place by each criterion, and how much the choice varies over the nodules."""
    left, bottom, top, gap = 0.75, 0.55, 0.42, 0.75
    wide = (style.PAGE_WIDTH - left - 0.95 - gap) / len(CRITERIA)
    tall, step = 1.75, 1.75 + bottom + top
    height = step * len(places)
    figure, colors = style.new_figure(style.PAGE_WIDTH, height), _share_colors()
    table: list[Record] = []
    details: list[Record] = []
    for line, place in enumerate(places):
        for which, criterion in enumerate(CRITERIA):
            x, y = left + which * (wide + gap), height - line * step - top - tall
            axes = figure.add_axes((x / style.PAGE_WIDTH, y / height, wide / style.PAGE_WIDTH, tall / height))
            _bars(axes, place, criterion, colors)
            table.append(_choice(place, criterion))
        details += _channel_records(place)
    figure.colorbar(colors, cax=_bar(figure, axes, height)).set_label("share of nodules that pick it", fontsize=8.5)
    caption = (
        f"Score of every channel of {row['label']}: mean over the nodules of {of_fold}, line: from the 10th to the "
        "90th percentile over them, color: share of nodules for which the channel is among those picked. If every "
        "nodule picked the same channels, all bars left of the dashed line would have the last color and all others "
        f"the first. {row['label']} picks by {places[0].own}. In the table, “tie at the cut” is the share of nodules "
        "where the last channel picked and the first one left have equal scores, so that their order decides. "
        f"{words}"
    )
    data = {"table": table, "channels": details, "sentences": _ranking_sentences(row, places, table)}
    return Drawn(f"ranking-{row['key']}", f"All channels by score: {row['label']}", caption, figure, data)


def _bars(axes: "Axes", place: Place, criterion: str, colors: "ScalarMappable") -> None:
    """A bar a channel, from the highest mean score to the lowest, in the color of its share of picks."""
    scores = place.scores[criterion]
    share, mean = picks(scores, place.count).mean(0), scores.mean(0)
    order = np.argsort(-mean, kind="stable")
    positions, ends = np.arange(len(order)), np.percentile(scores, [10, 90], axis=0)[:, order]
    axes.bar(positions, mean[order], width=0.86, color=colors.to_rgba(share[order]))
    axes.vlines(positions, *ends, color=style.TEXT, linewidth=0.8)
    axes.axvline(place.count - 0.5, color=style.MUTED, linewidth=1, linestyle="dashed")
    axes.set_xlim(-0.7, len(order) - 0.3)
    axes.set_ylim(0, None)
    _channel_numbers(axes, order)
    unit = " in bit" if criterion == "entropy" else ""
    head = f"{place.name}, {criterion}{unit}: {place.count} of {place.channels} channels of {_by(place.size)}"
    axes.set_title(head, fontsize=10, loc="left", color=style.TEXT)
    axes.set_xlabel("channel, by mean score", fontsize=8.5, color=style.MUTED)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _choice(place: Place, criterion: str) -> Record:
    """How much the picked channels vary over the nodules."""
    scores = place.scores[criterion]
    steady = steadiness(picks(scores, place.count))
    two = steady.pop("shared_by_two")
    return {
        "place": place.name,
        "criterion": criterion,
        "channels": place.channels,
        "picked": place.count,
        **steady,
        "shared_by_two_nodules": None if two is None else round(two, 4),
        "by_chance": round(place.count / place.channels, 4),
        "tie_at_the_cut_share": round(cut_by_tie(scores, place.count), 4),
    }


def _channel_records(place: Place) -> list[Record]:
    """Every channel's mean score and share of picks by each criterion."""
    records: list[Record] = [{"place": place.name, "channel": channel} for channel in range(place.channels)]
    for criterion in CRITERIA:
        scores = place.scores[criterion]
        share, mean = picks(scores, place.count).mean(0), scores.mean(0)
        for channel, record in enumerate(records):
            record[f"{criterion}_mean"] = round(float(mean[channel]), 5)
            record[f"{criterion}_picked_share"] = round(float(share[channel]), 4)
    return records


def _ranking_sentences(row: Row, places: Sequence[Place], table: Sequence[Record]) -> list[str]:
    return [
        f"{row['label']}, {one['place']}, by {one['criterion']}: picked for every nodule are {one['always_picked']} of "
        f"{one['channels']} channels, for none {one['never_picked']}; two nodules share "
        f"{100 * one['shared_by_two_nodules']:.0f} % of the {one['picked']} picked ones (by chance "
        f"{100 * one['by_chance']:.0f} %)."
        for one, place in zip(table, [p for p in places for _ in CRITERIA], strict=True)
        if one["criterion"] == place.own and one["shared_by_two_nodules"] is not None
    ]


def _share_colors() -> "ScalarMappable":
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), colormaps[SHARE_COLORS])


def _channel_numbers(axes: "Axes", order: np.ndarray) -> None:
    """The channels' numbers below the bars, all or as many as there is room for."""
    every = max(1, -(-len(order) // 32))
    axes.set_xticks(range(0, len(order), every), [str(c) for c in order[::every]], fontsize=6.5)
    axes.tick_params(axis="y", labelsize=8)


def _bar(figure: "Figure", axes: "Axes", height: float) -> "Axes":
    box = axes.get_position()
    return figure.add_axes((box.x1 + 0.15 / style.PAGE_WIDTH, box.y0, 0.12 / style.PAGE_WIDTH, box.height))


# -- how far criteria agree --------------------------------------------------------------------------------------------
def _agreement(row: Row, place: Place) -> list[Record]:
    lines = []
    for first, second in PAIRS:
        a, b = place.scores[first], place.scores[second]
        ranks = rank_correlation(a, b)
        usable = np.isfinite(ranks)  # not where all channels score alike
        shared = common_share(a, b, place.count)[usable]
        ends = np.percentile(ranks[usable], [10, 90]) if usable.any() else (np.nan, np.nan)
        numbers = {
            "spearman": ranks[usable].mean() if usable.any() else np.nan,
            "tenth_percentile": ends[0],
            "ninetieth_percentile": ends[1],
            "picked_by_both": shared.mean() if usable.any() else np.nan,
            "by_chance": place.count / place.channels,
        }
        known = {"network": row["label"], "place": place.name, "first": first, "second": second}
        known |= {"nodules": int(usable.sum())}
        lines.append(known | {k: round(float(v), 4) if np.isfinite(v) else None for k, v in numbers.items()})
    return lines


def _comparison(
    forms: Sequence[tuple[Row, Sequence[Place]]],
    agreement: Sequence[Record],
    fold: int,
    skipped: Sequence[str],
    words: str,
    experiment: Experiment,
) -> Drawn:
    """Spearman and shared picks of every pair, a group of bars a place."""
    known = [(row["label"], place) for row, places in forms for place in places]
    top, bottom, left, gap = 0.95, 0.35, 2.6, 0.3
    height, width = top + bottom + 0.8 * len(known), (style.PAGE_WIDTH - left - gap - 0.15) / 2
    figure = style.new_figure(style.PAGE_WIDTH, height)
    for which, (key, title) in enumerate(_PANELS):
        x = left + which * (width + gap)
        box = (x / style.PAGE_WIDTH, bottom / height, width / style.PAGE_WIDTH, 1 - (top + bottom) / height)
        axes = figure.add_axes(box)
        for number, (label, place) in enumerate(known):
            own = [one for one in agreement if (one["network"], one["place"]) == (label, place.name)]
            for at, one in enumerate(own):
                if one[key] is not None:
                    axes.plot(one[key], number + (at - 3.5) * 0.1, _MARKS[at], color=_COLORS[at], markersize=5)
            if key == "picked_by_both":
                ends = number - 0.48, number + 0.48
                axes.vlines(own[0]["by_chance"], *ends, color=style.MUTED, linestyle="dashed", linewidth=1)
            if number:
                axes.axhline(number - 0.5, color="#d0d0d0", linewidth=0.7)
        axes.set_ylim(len(known) - 0.5, -0.5)
        names = [f"{label}, {place.name}" for label, place in known]
        axes.set_yticks(range(len(known)), names if which == 0 else [""] * len(known))
        axes.set_title(title, fontsize=10, loc="left", color=style.TEXT)
        axes.grid(axis="x", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8.5, left=False)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    _pair_legend(figure)
    caption = (
        "How far two scores order a network's channels alike: Spearman's correlation over the channels, and the share "
        "of the picked channels that both pick (dashed: what two random choices share); means over the nodules of test "
        f"fold {fold}, percentiles of the correlation over nodules in the table. Entropy is the paper's, of value and "
        f"neighbors' mean in two dimensions; “{FORMS['hist_batch']}” and “{FORMS['unique']}” are the forms of the "
        f"released code. The first takes its range from a whole batch, here of {BATCH} nodules; “{ALONE}” is the same "
        "with every nodule by itself, and shows how much batch mates change. Share of non-zero: of a map's pixels. "
        "Contrast of the nodule: |2 AUC − 1|, AUC the chance that a pixel of the readers' consensus has a higher value "
        "in the map than one outside, so 1 for a map that singles the nodule out, brighter or darker, and 0 for one "
        "that doesn't show it; below 0 a score prefers maps that don't. "
        f"{words}{profile_words(experiment)}"
    )
    if skipped:
        caption += " Left out: " + "; ".join(skipped) + "."
    data = {"table": agreement, "sentences": _agreement_sentences(agreement)}
    return Drawn("agreement", "How far scores agree", caption, figure, data)


def _agreement_sentences(agreement: Sequence[Record]) -> list[str]:
    """The first comparisons in words, from the lowest to the highest over networks and places."""

    def ends(values: Sequence[float], factor: float = 1.0, unit: str = "") -> str:
        low, high = (f"{factor * end:.{0 if unit else 2}f}".replace("-", "−") for end in (min(values), max(values)))
        return (low if low == high else f"{low} to {high}") + unit

    out = []
    for first, second in PAIRS[:SAID]:
        own = [one for one in agreement if (one["first"], one["second"]) == (first, second)]
        own = [one for one in own if one["spearman"] is not None]
        if own:
            ranks = [one["spearman"] for one in own]
            shared = ends([one["picked_by_both"] for one in own], 100, " %")
            chance = ends([one["by_chance"] for one in own], 100, " %")
            out.append(
                f"{first.capitalize()} and {second}: Spearman's correlation {ends(ranks)}, {shared} of the picked "
                f"channels in common (by chance {chance}), over {len(own)} place{'s' * (len(own) > 1)}."
            )
    return out


_PANELS = (("spearman", "Spearman's correlation over channels"), ("picked_by_both", "Share picked by both"))
_COLORS = ("#222222", style.HC, style.LC, style.FINAL, "#CC79A7", "#56B4E9", "#D55E00", "#888888")
_MARKS = "osD^vPXd"


def _pair_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=c, marker=m, linestyle="none", markersize=5, label=f"{first} – {second}")
        for (first, second), c, m in zip(PAIRS, _COLORS, _MARKS, strict=True)
    ]
    place = style.place(figure, 0.08, 0.08)
    options = {"ncols": 4, "fontsize": 8.5, "frameon": False, "borderaxespad": 0, "handletextpad": 0.2}
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=place, columnspacing=1.4, **options)
