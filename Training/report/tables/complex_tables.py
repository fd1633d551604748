"""The tables of a baseline's worst nodules (UGS-Net, Table III): gains, whose failures are chosen, each fold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..store import Experiment, Store
from ..text import fold_text, p_text, show, show_percent
from .comparison import comparison_tables
from .complex_nodules import Joined, complex_records, complex_sentences, interval, join_rows, points, threshold_text
from .table import Cell, Head, Record, Table

__all__ = ["complex_tables", "worst_nodules"]

#: {threshold: {role: {metric: per cent}}}
Published = dict[float, dict[str, dict[str, float]]]


def worst_nodules(store: Store, experiment: Experiment) -> tuple[list[Table], list[str], list[str]]:
    """(tables, plain sentences, problems) of an experiment of kind complex; the last table is of all nodules."""
    tables, sentences = complex_tables(store, experiment)
    return tables + comparison_tables(store, experiment)[0][:1], sentences, []


def complex_tables(store: Store, experiment: Experiment) -> tuple[list[Table], list[str]]:
    """(tables, plain sentences) of an experiment of kind complex; both empty before baseline and ours share a fold.

    Raises JobError for options that name no row and for results that can't be read.
    """
    joined, options = join_rows(store, experiment)
    if joined is None:
        return [], []
    thresholds = [float(t) for t in options.get("thresholds", (0.6, 0.7, 0.8))]
    records = complex_records(joined, sorted(thresholds))
    published = published_means(options, thresholds)
    name, kinds = experiment["name"], (("", "dsc"), ("-iou", "iou"))
    tables = [
        *(_gains_table(f"{name}-gains{suffix}", joined, records, published, metric) for suffix, metric in kinds),
        _selection_table(f"{name}-selection", joined, records),
        _fold_table(f"{name}-folds", joined, records),
    ]
    return tables, complex_sentences(records, joined.labels)


def published_means(options: Mapping[str, Any], thresholds: Sequence[float]) -> Published:
    """{threshold: {role: {metric: per cent}}} of the option ``paper``, whose lists follow the thresholds' order."""
    means: Published = {threshold: {} for threshold in thresholds}
    for role, metrics in (options.get("paper") or {}).items():
        for metric, values in metrics.items():
            for threshold, value in zip(thresholds, values, strict=False):
                means[threshold].setdefault(role, {})[metric] = value
    return means


def _gain_cell(record: Record, name: str) -> Cell:
    note = interval(record, name)
    if note and record[f"{name}_n"] != record["nodules"]:
        note += f" (n = {record[f'{name}_n']})"
    sure = bool(note) and (record[f"{name}_low"] > 0 or record[f"{name}_high"] < 0)
    return Cell(points(record.get(name)), bold=sure, note=note)


def _count(record: Record) -> str:
    return f"{record['nodules']:,} of {record['of']:,} ({record['patients']:,})"


def _gains_table(name: str, joined: Joined, records: Sequence[Record], published: Published, metric: str) -> Table:
    """The baseline's worst nodules by one metric; they are chosen by DSC whichever metric is shown."""
    labels, shown = joined.labels, {"dsc": "DSC", "iou": "IoU"}[metric]
    base, ours, control = labels["baseline"], labels["ours"], labels.get("control", "Second seed")
    chosen = [r for r in records if r["selected_by"] == "baseline" and r["fold"] == "pooled"]
    caption = (
        f"The same nodules in IoU; they are still chosen by {base}'s DSC."
        if metric == "iou"
        else f"Chosen by {base}'s own DSC against the first reader, all folds together; means over these nodules in "
        "per cent, differences in points with a 95 % interval (bootstrap over patients; bold where it excludes zero). "
        f"“{control} gains”: what a network that differs from {base} in its seed alone gains on the same nodules, the "
        "part of any gain that comes from choosing one network's failures. “Ahead of it”: what remains. Paper rows: as "
        "published, on the papers' own data and without controls; not measured here."
    )
    heads = [Head(f"{base} DSC", False, rows=2), Head("Nodules (patients)", rows=2)]
    heads += [Head(f"{shown}, %", span=len(joined.values))]
    heads += [Head(text, rows=2) for text in (f"{ours} gains", f"{control} gains", "Ahead of it")]
    second = [Head("one reader" if role == "human" else labels[role]) for role in joined.values]
    table = Table(name, f"Nodules that {base} segments worst, {shown}.", caption, [heads, second], records=chosen)
    for record in chosen:
        cells = [Cell(threshold_text(record["threshold"]), False), Cell(_count(record))]
        cells += [Cell(show_percent(record[f"{role}_{metric}"])) for role in joined.values]
        suffix = "" if metric == "dsc" else f"_{metric}"
        cells += [_gain_cell(record, name + suffix) for name in ("gain", "control_gain", "beyond_control")]
        table.rows.append(("start", cells))
        paper = _paper_cells(record["threshold"], published, joined.values, metric)
        if paper:
            table.rows.append(("", paper))
    return table


def _paper_cells(threshold: float, published: Published, roles: Iterable[str], metric: str) -> list[Cell] | None:
    """The paper's row of a threshold, or None where the experiment's option ``paper`` doesn't have it."""
    means = {role: metrics.get(metric) for role, metrics in published.get(threshold, {}).items()}
    base, ours = means.get("baseline"), means.get("ours")
    if base is None and ours is None:
        return None
    gain = "–" if base is None or ours is None else points((ours - base) / 100)
    texts = ["–", *(show(means.get(role), 2) for role in roles), gain, "–", "–"]
    first = Cell(f"{threshold_text(threshold)}, paper", False, kind="paper")
    return [first, *(Cell(text, kind="paper") for text in texts)]


def _selection_table(name: str, joined: Joined, records: Sequence[Record]) -> Table:
    labels = joined.labels
    table = Table(
        name,
        "The same, chosen by each network in turn.",
        f"The gain of {labels['ours']} over {labels['baseline']} depends on whose failures are chosen. A gain that "
        f"holds only when {labels['baseline']} chooses, and turns round when {labels['ours']} chooses, is the choice's "
        "own; a third network's choice favors neither by luck, though it may share one's kind of failure.",
        [
            [
                Head("Chosen by DSC of", False),
                Head("Threshold", False),
                Head("Nodules (patients)"),
                Head(f"{labels['baseline']} DSC, %"),
                Head(f"{labels['ours']} DSC, %"),
                Head(f"{labels['ours']} gains"),
                Head("p Wilcoxon"),
                Head("IoU gain"),
            ]
        ],
        records=[r for r in records if r["fold"] == "pooled"],
    )
    for record in table.records:
        p = record.get("gain_p")
        cells = [
            Cell(labels[record["selected_by"]], False),
            Cell(threshold_text(record["threshold"]), False),
            Cell(_count(record)),
            Cell(show_percent(record["baseline_dsc"])),
            Cell(show_percent(record["ours_dsc"])),
            _gain_cell(record, "gain"),
            Cell("–" if p is None else p_text(p)),
            _gain_cell(record, "gain_iou"),
        ]
        table.rows.append(("start" if record["selected_by"] == "baseline" else "", cells))
    return table


def _fold_table(name: str, joined: Joined, records: Sequence[Record]) -> Table:
    labels = joined.labels
    chosen = [r for r in records if r["selected_by"] == "baseline" and r["fold"] != "pooled"]
    folds = fold_text({r["fold"] for r in chosen})
    table = Table(
        name,
        f"Each fold (here: {folds}).",
        f"Chosen by {labels['baseline']}'s DSC within a fold.",
        [
            [Head(f"{labels['baseline']} DSC", False), Head("Fold", False), Head("Nodules (patients)")]
            + [Head(f"{labels[role]} DSC, %") for role in ("baseline", "ours")]
            + [Head(f"{labels['ours']} gains"), Head(f"{labels.get('control', 'Second seed')} gains")]
        ],
        records=chosen,
        folded=True,
    )
    for record in chosen:
        cells = [
            Cell(threshold_text(record["threshold"]), False),
            Cell(str(record["fold"]), False),
            Cell(_count(record)),
        ]
        cells += [Cell(show_percent(record[f"{role}_dsc"])) for role in ("baseline", "ours")]
        cells += [_gain_cell(record, "gain"), _gain_cell(record, "control_gain")]
        table.rows.append(("", cells))
    return table
