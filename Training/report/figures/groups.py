"""DSC by group of nodules or images, of one network beside others (IFE, Fig. 6: per modality and per structure)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...metrics import MetricError, paired_test
from ..measures import Measure, MeasureSet, measure_set, of_images
from ..store import Experiment, JobError, JobStore, Record
from ..summary import RowResult, common, load_rows
from ..text import counted, fold_text, signed
from . import style
from .cases import profile_words
from .drawn import Drawn
from .nodule_groups import groupings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 5  # nodules of a group for which there is an interval
RESAMPLES = 2000
COLORS = (style.LC, style.FINAL, "#CC79A7", "#56B4E9")


def groups(experiment: Experiment, jobs: JobStore) -> list[Drawn]:
    """One `Drawn`: mean of the ranked measure by group for the row `first` and every other, and paired differences.

    All folds that both rows have. Other rows are compared with the row of the option `first` (the first one).
    """
    options = experiment.get("options") or {}
    rows = [row for row in load_rows(jobs, experiment) if row.jobs]
    if len(rows) < 2:
        return []
    base = next((row for row in rows if row.key == options.get("first")), rows[0])
    others = [row for row in rows if row is not base]
    try:
        wanted = measure_set(options)
    except ValueError as error:
        raise JobError(f"experiment {experiment['name']}: {error}") from error
    known, ids = groupings(next(row for row in experiment["rows"] if row["key"] == base.key), experiment, jobs)
    everyone = {"All": {"all": np.ones(len(ids), bool)}} | {one.title: one.groups for one in known}
    table: list[Record] = []
    left_out: list[Record] = []
    for title, parts in everyone.items():
        for name, mask in parts.items():
            for other in others:
                line = _line(title, name, set(ids[mask]), base, other, wanted.ranked)
                (table if line["nodules"] >= LEAST else left_out).append(line)
    if not table:
        return []
    caption = _caption(experiment, base, others, wanted, table, left_out)
    title = f"{wanted.ranked.label} by group: {base.label} and {' and '.join(other.label for other in others)}"
    data = {"table": table, "sentences": _sentences(table, base, others, wanted)}
    return [Drawn("groups", title, caption, _draw(table, base, others, wanted), data)]


def _line(title: str, name: str, members: set[str], base: RowResult, other: RowResult, measure: Measure) -> Record:
    """Means of both rows on their common nodules of a group, and their difference with its interval."""
    a, b, patients, nodules = _common(other, base, measure.key)
    chosen = np.isin(nodules, list(members))
    a, b, patients = a[chosen], b[chosen], patients[chosen]
    line = {"by": title, "group": name, "row": other.label, "nodules": len(a), "patients": len(set(patients))}
    if len(a) < LEAST:
        return line
    try:
        zeros = np.zeros(len(a))
        own = [paired_test(values, zeros, patients, RESAMPLES) for values in (b, a)]
        test = paired_test(a, b, patients, RESAMPLES)
    except MetricError:
        return {**line, "nodules": 0}
    for key, one in (("first", own[0]), ("other", own[1]), ("difference", test)):
        line[f"{key}_mean"] = round(one.mean_difference, 5)
        # All of one patient have no interval.
        line[f"{key}_95"] = [round(one.low, 5), round(one.high, 5)] if np.isfinite([one.low, one.high]).all() else None
    return {**line, "wilcoxon_p": float(f"{test.wilcoxon_p:.3g}")}


def _common(first: RowResult, second: RowResult, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`common` of two rows with the nodules' ids as well."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    ids: list[str] = []
    for fold in first.scores:
        if fold not in second.scores:
            continue
        parts.append(common(first, second, key, {fold}))
        place = set(second.scores[fold]["nodule_id"])
        values = {n: v for n, v in zip(second.scores[fold]["nodule_id"], second.values(key, fold), strict=True)}
        mine = zip(first.scores[fold]["nodule_id"], first.values(key, fold), strict=True)
        ids += [n for n, v in mine if n in place and np.isfinite(v) and np.isfinite(values[n])]
    if not ids:
        return np.empty(0), np.empty(0), np.empty(0, str), np.empty(0, str)
    a, b, patients = (np.concatenate(part) for part in zip(*parts, strict=True))
    return a, b, patients, np.array(ids)


def _caption(
    experiment: Experiment,
    base: RowResult,
    others: Sequence[RowResult],
    wanted: MeasureSet,
    table: Sequence[Record],
    left_out: Sequence[Record],
) -> str:
    images = of_images(experiment.get("options"))
    unit = "images" if images else "nodules"
    folds = sorted(set(base.jobs).intersection(*(set(other.jobs) for other in others)))
    whole = table[0]
    caption = (
        f"{wanted.ranked.label} against {wanted.against}, test fold{'s' * (len(folds) > 1)} {fold_text(folds)}, "
        f"{counted(whole['nodules'], whole['patients'], images)}. Left: mean and 95 % interval of each network. Right: "
        f"the other minus {base.label}, one by one. Intervals are bootstraps that draw whole "
        f"{'subjects' if images else 'patients'}; they aren't corrected for the {len(table) - len(others)} comparisons "
        "by group, of which one in twenty would exclude zero by chance; a group of a single one has none. Groups of "
        f"different ways to part the {unit} overlap. "
    )
    single = [t for t in ("Modality", "Organ") if t not in {line["by"] for line in table}]
    if single:
        caption += f"By {' and '.join(single).lower()} there is nothing to compare: all are of one, or it isn't known. "
    if left_out:
        names = [
            f"{_short(line['by'])}, {line['group']}: {line['nodules']}"
            for line in left_out
            if line["row"] == others[0].label
        ]
        caption += f"Left out with fewer than {LEAST} {unit}: {', '.join(names)}. "
    return caption.strip() + profile_words(experiment)


def _short(title: str) -> str:
    """A grouping's title without what stands in brackets."""
    return title.partition(" (")[0].lower()


def _sentences(table: Sequence[Record], base: RowResult, others: Sequence[RowResult], wanted: MeasureSet) -> list[str]:
    out = []
    for other in others:
        own = [line for line in table if line["row"] == other.label]
        words = []
        for line in own:
            low, high = line["difference_95"] or (-np.inf, np.inf)
            text = signed(wanted.ranked.show, line["difference_mean"])
            if line["by"] == "All":
                ends = f"{signed(wanted.ranked.show, low)} to {signed(wanted.ranked.show, high)}"
                first = f"{other.label} minus {base.label}: {text} points of {wanted.ranked.label} over all ({ends})"
            elif low > 0 or high < 0:
                words.append(f"{_short(line['by'])}, {line['group']} ({text}, n = {line['nodules']})")
        groups_ = len(own) - 1
        rest = f"; of {groups_} groups the interval excludes zero in {len(words)}" if groups_ > 0 else ""
        out.append(f"{first}{rest}{': ' + '; '.join(words) if words else ''}.")
    return out


def _draw(table: Sequence[Record], base: RowResult, others: Sequence[RowResult], wanted: MeasureSet) -> "Figure":
    """A line a group, the groupings one below the other."""
    places: dict[tuple[str, str], float] = {}
    titles: dict[str, float] = {}
    y = 0.0
    for line in table:
        if line["by"] not in titles:
            y += 1.0 if titles else 0.0
            titles[line["by"]] = y
            y += 1.0
        if (line["by"], line["group"]) not in places:
            places[line["by"], line["group"]] = y
            y += 1.0
    top, below = 0.75, 0.45
    height = top + below + 0.19 * y
    figure = style.new_figure(style.PAGE_WIDTH, height)
    left, wide, gap = 2.9, 4.6, 0.3
    panels = []
    for number in range(2):
        width = wide if number == 0 else style.PAGE_WIDTH - left - wide - gap - 0.2
        x = left + number * (wide + gap)
        axes = figure.add_axes(
            (x / style.PAGE_WIDTH, below / height, width / style.PAGE_WIDTH, 1 - (top + below) / height)
        )
        axes.set_ylim(y - 0.3, -0.7)
        axes.set_yticks([])
        axes.grid(axis="x", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8.5)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        panels.append(axes)
    means, gains = panels
    gains.axvline(0, color=style.MUTED, linewidth=1)
    factor = 100 if wanted.ranked.percent else 1
    shift = 0.28 / len(others)
    for line in table:
        at = places[line["by"], line["group"]]
        number = next(i for i, other in enumerate(others) if other.label == line["row"])
        color = COLORS[number % len(COLORS)]
        if number == 0:
            _interval(means, at - 0.18, line["first_mean"], line["first_95"], style.HC, factor, "o")
        place = at + 0.18 + shift * number
        _interval(means, place, line["other_mean"], line["other_95"], color, factor, "s")
        _interval(gains, at + shift * number, line["difference_mean"], line["difference_95"], color, factor, "s")
    for (by, group), at in places.items():
        line = next(one for one in table if (one["by"], one["group"]) == (by, group))
        words = f"{group}  ({line['nodules']:,})"
        means.text(-0.02, at, words, transform=means.get_yaxis_transform(), ha="right", va="center", fontsize=8.5)
    for title, at in titles.items():
        where = -left / wide + 0.02
        means.text(where, at, title, transform=means.get_yaxis_transform(), va="center", fontsize=9, weight="bold")
    means.set_title(f"{wanted.ranked.heading} (number in brackets)", fontsize=10, loc="left", color=style.TEXT)
    gains.set_title("Difference, points" if wanted.ranked.percent else "Difference", fontsize=10, loc="left")
    entries: list[style.Entry] = [(base.label, style.HC, "solid")]
    entries += [(other.label, COLORS[i % len(COLORS)], "solid") for i, other in enumerate(others)]
    style.legend(figure, entries, y_inches=0.1)
    return figure


def _interval(
    axes: "Axes", at: float, mean: float, ends: Sequence[float] | None, color: str, factor: float, marker: str
) -> None:
    if ends:
        axes.hlines(at, factor * ends[0], factor * ends[1], color=color, linewidth=1.6)
    axes.plot(factor * mean, at, marker, color=color, markersize=4.5)
