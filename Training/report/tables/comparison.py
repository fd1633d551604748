"""Tables that compare an experiment's rows: the papers' measures, what several readers allow, folds, paired tests."""

from collections.abc import Collection, Sequence
from typing import Any

from ..measures import Measure, MeasureSet, measure_set, measures_of
from ..store import Experiment, JobError, Store
from ..summary import RowResult, Summary, human_row, load_rows, mark_best, summarize
from ..text import fold_text, show, show_percent, signed
from .paired import paired_records, paired_table
from .table import Cell, Head, Record, Table

__all__ = ["comparison", "comparison_tables", "measure_cell", "reference_row"]

#: The figures that a comparison's sentences are of: means {row: value}, folds in words, tests, labels ...
Outcome = dict[str, Any]

NBSP = "\u00a0"
_SPREAD = (
    "± is the population standard deviation over folds; where a row has one fold only, it is the standard deviation "
    "over that fold's nodules (marked “(nodules)”), a different and much larger quantity. "
)
_BOTH = (
    "± is the population standard deviation over folds and that over nodules, a different and much larger quantity; "
    "a row with one fold has the latter only. "
)
_BEST = "Bold: best of the networks that were tested on the reference's nodules; the readers' row is left out."


def comparison(store: Store, experiment: Experiment) -> tuple[list[Table], list[str], list[str]]:
    """(tables, plain sentences, problems) of an experiment that compares networks."""
    tables, found = comparison_tables(store, experiment)
    tables[1:1] = _released_table(store, experiment)
    return tables, comparison_sentences(found), []


def comparison_tables(store: Store, experiment: Experiment) -> tuple[list[Table], Outcome]:
    """(tables, figures for the headline) of an experiment with rows of scored jobs; no tables without a finished job.

    Raises JobError for results that can't be read.
    """
    rows = load_rows(store, experiment)
    reference = reference_row(experiment, rows)
    human = human_row(store, rows, reference)
    if human is None:
        return [], {}
    name = experiment["name"]
    try:
        wanted = measure_set(experiment.get("options") or {})
    except ValueError as error:
        raise JobError(f"experiment {name}: {error}") from error
    own = own_references(experiment, rows)
    everyone = [*rows, human]
    tests = paired_records(everyone, reference, wanted.tested, own) if reference is not None or own else []
    ranked, single = wanted.ranked, None if own else reference
    stars = {t["row"] for t in tests if t["measure"] == ranked.key and t["t_p"] < 0.05} if wanted.starred else ()
    tables = [
        _measure_table(f"{name}-measures", "Papers' measures", wanted, everyone, reference, paper=True, stars=stars),
        _measure_table(f"{name}-readers", "Several readers", measure_set({}), everyone, reference),
    ]
    if reference is not None or own:
        tables.append(paired_table(f"{name}-tests", tests, single, wanted.tested))
    tables.append(_fold_table(f"{name}-folds", wanted, everyone))
    means, folds = _comparable_means(everyone, ranked)
    found: dict[str, Any] = {"means": means, "folds": folds, "tests": tests}
    found |= {"labels": {row.key: row.label for row in everyone}, "reference": single.key if single else None}
    return tables, found | {"measure": ranked.key, "label": ranked.label, "against": wanted.against}


def _comparable_means(rows: Sequence[RowResult], measure: Measure) -> tuple[dict[str, float | None], str]:
    """({row: mean}, folds in words): means over the folds that all rows have, named where some rows have more.

    Means of different folds are of different nodules. Without a fold in common every row has the mean of its own.
    """
    folds = {row.key: summarize(row, measure).folds for row in rows if row.jobs}
    shared = sorted(set.intersection(*(set(values) for values in folds.values())))
    if not shared:
        return {row.key: summarize(row, measure).mean for row in rows if row.jobs}, ""
    means: dict[str, float | None] = {k: sum(values[f] for f in shared) / len(shared) for k, values in folds.items()}
    return means, "" if all(len(v) == len(shared) for v in folds.values()) else fold_text(shared)


def reference_row(experiment: Experiment, rows: Sequence[RowResult]) -> RowResult | None:
    """The row that paired tests compare with (option ``reference``), or None where it is absent or has no job."""
    wanted = (experiment.get("options") or {}).get("reference")
    return next((row for row in rows if row.key == wanted and row.jobs), None)


def own_references(experiment: Experiment, rows: Sequence[RowResult]) -> dict[str, RowResult]:
    """{key of a row: the row that it is compared with} of the option ``references``, a table of keys; rows without a
    finished job are left out. Raises JobError for what names no row."""
    wanted = (experiment.get("options") or {}).get("references") or {}
    known = {row.key: row for row in rows}
    unknown = sorted({*wanted, *wanted.values()} - set(known))
    if unknown:
        names = ", ".join(unknown)
        raise JobError(f"experiment {experiment['name']}: option references names {names}, which is no row")
    return {key: known[other] for key, other in wanted.items() if known[other].jobs}


def measure_cell(summary: Summary, measure: Measure, bold: bool = False, of_nodules: bool = False) -> Cell:
    """Mean, and below it ± sd, which says so where it is over nodules (``of_nodules``: both it and that over folds)."""
    if summary.mean is None:
        return Cell("–", kind="absent")
    spread = "" if summary.sd is None else f"± {measure.show(summary.sd)}"
    if summary.over == "nodules":
        spread += " (nodules)"
    elif of_nodules and summary.nodule_sd is not None:
        # A line each: within one nothing may break.
        spread = f"{spread} (folds)".replace(" ", NBSP) + f" ±{NBSP}{measure.show(summary.nodule_sd)}{NBSP}(nodules)"
    return Cell(measure.show(summary.mean), bold=bold, note=spread)


def _paper_cell(row: RowResult, measure: Measure) -> Cell:
    value, sd = row.paper.get(measure.paper), row.paper.get(f"{measure.paper}_sd")
    if value is None:
        return Cell("–", kind="paper absent")
    return Cell(show(float(value), 2), kind="paper", note="" if sd is None else f"± {show(float(sd), 2)}")


def leaked_patients(row: RowResult) -> int:
    """Test patients, summed over folds, of whom other nodules were trained on (0 where folds are split by patient)."""
    return sum(int(m.get("patients_in_training_and_test") or 0) for m in row.manifests.values())


def _leak(row: RowResult) -> str:
    count = leaked_patients(row)
    return f"{count:,} test patients are in training too" if count else ""


def _row_class(row: RowResult, reference: RowResult | None) -> str:
    return "human" if row.human else "reference" if row is reference else ""


def _measure_table(
    name: str,
    title: str,
    wanted: MeasureSet,
    rows: Sequence[RowResult],
    reference: RowResult | None,
    paper: bool = False,
    stars: Collection[str] = (),
) -> Table:
    """Means of the papers' measures of a set (``paper``), or of those that several readers allow."""
    measures = wanted.measures if paper else measures_of("readers")
    summaries = {m.key: [summarize(row, m) for row in rows] for m in measures}
    best = {m.key: mark_best(rows, summaries[m.key], m, reference) for m in measures}
    # A paper's column only where the experiment knows such a number at all.
    beside = {m.key: paper and m.paper and any(m.paper in row.paper for row in rows) for m in measures}
    two = 2 if any(beside.values()) else 1
    plain = [("Network", False), ("Parameters", True), ("Folds", False), ("Nodules", True)]
    plain = plain if paper else [plain[0], plain[2]]
    heads = [[Head(text, number, rows=two) for text, number in plain], []]
    for m in measures:
        heads[0].append(Head(m.heading, span=2) if beside[m.key] else Head(m.heading, rows=two))
        heads[1] += [Head("here"), Head("paper")] if beside[m.key] else []
    caption = (_BOTH if wanted.of_nodules else _SPREAD) + _BEST
    if any(beside.values()):
        caption += " “paper”: what the publication reports on its own data and folds, not measured here."
    if paper and wanted.starred:
        caption += f" *: {wanted.ranked.label} differs from the row's reference in the paired t test, p < 0.05."
    table = Table(name, title + ".", caption, [line for line in heads if line])
    for i, row in enumerate(rows):
        count = sum(len(s["nodule_id"]) for s in row.scores.values())
        cells = [Cell(row.label, number=False, note=_leak(row)), Cell(fold_text(row.jobs), number=False)]
        if paper:
            cells.insert(1, Cell(f"{row.parameters:,}" if row.parameters else "–"))
            cells.append(Cell(f"{count:,}" if count else "–"))
        known = {"parameters": row.parameters, "folds": fold_text(row.jobs)}
        record: Record = {"row": row.key, "label": row.label, **known}
        record |= {"nodules": count, "test_patients_in_training": leaked_patients(row)}
        for m in measures:
            cells.append(measure_cell(summaries[m.key][i], m, i in best[m.key], wanted.of_nodules))
            if m is wanted.ranked and row.key in stars:
                cells[-1].text += "*"
            record |= summaries[m.key][i].record(m.key)
            if beside[m.key]:
                cells.append(_paper_cell(row, m))
                record |= {f"paper_{m.paper}": row.paper.get(m.paper)}
                record |= {f"paper_{m.paper}_sd": row.paper.get(f"{m.paper}_sd")}
        table.rows.append((_row_class(row, reference), cells))
        table.records.append(record)
    return table


def _fold_table(name: str, wanted: MeasureSet, rows: Sequence[RowResult]) -> Table:
    """Each fold's own means of the papers' measures, beside the paper's fold of the same number where it is known."""
    measures = wanted.measures
    table = Table(
        name,
        "Each fold.",
        "Means over the nodules of each test fold (NSD released: one number a fold). The papers' folds hold other "
        "nodules; a paper's fold of the same number is no counterpart and is shown for its spread only.",
        [
            [
                Head("Network", False),
                Head("Fold", False),
                *(Head(m.heading) for m in measures),
                Head(f"{wanted.ranked.label}, paper"),
            ]
        ],
        folded=True,
    )
    for row in rows:
        summaries = [summarize(row, m) for m in measures]
        published = (row.paper.get("folds") or {}).get("dsc") or []
        folds = sorted(set(row.jobs) | (set() if row.human else set(range(len(published)))))
        for number, fold in enumerate(folds):
            values = [s.folds.get(fold) for s in summaries]
            known = published[fold] if fold < len(published) else None
            cells = [Cell(row.label, False), Cell(str(fold), False)]
            cells += [
                Cell(m.show(v), kind="absent" if v is None else "") for m, v in zip(measures, values, strict=True)
            ]
            cells.append(Cell(show(known, 2), kind="paper"))
            kinds = ["human"] * row.human + ["start"] * (number == 0)
            table.rows.append((" ".join(kinds), cells))
            record = {"row": row.key, "fold": fold, "nodules": len(row.scores.get(fold, {}).get("nodule_id", ()))}
            record |= {m.key: v for m, v in zip(measures, values, strict=True)}
            table.records.append(record | {"paper_dsc": known})
    return table


def _released_table(store: Store, experiment: Experiment) -> list[Table]:
    """With the option `released`, IFE's measures once more, in the forms of its released code."""
    options = experiment.get("options") or {}
    if not options.get("released"):
        return []
    tables, _ = comparison_tables(store, {**experiment, "options": {**options, "measures": "ife_released"}})
    for table in tables[:1]:
        table.name, table.title = f"{experiment['name']}-released", "The same in the forms of the released code."
    return tables[:1]


def comparison_sentences(found: Outcome) -> list[str]:
    """A table's outcome in words: best mean Dice, the readers' own, and how the rows stand to the reference."""
    means = {k: v for k, v in (found.get("means") or {}).items() if v is not None}
    networks = {k: v for k, v in means.items() if k != "human"}
    if not networks:
        return []
    labels, dice, against = found["labels"], found["label"], found["against"]
    against += f" on what all were tested on (folds: {found['folds']})" if found["folds"] else ""
    best = max(networks, key=lambda key: networks[key])
    text = "" if len(networks) == 1 else f"Highest mean {dice} against {against}: {labels[best]}, "
    text = (text or f"Mean {dice} against {against} of {labels[best]}: ") + f"{show_percent(networks[best])} %"
    if "human" in means:
        text += f"; one reader against the others: {show_percent(means['human'])} %"
    sentences = [f"{text}."]
    tests = [t for t in found["tests"] if t["measure"] == found["measure"] and t["row"] != "human"]
    if tests:
        below = [t for t in tests if t["high"] < 0]
        above = [t for t in tests if t["low"] > 0]
        parts = [_list(f"lower {dice}", below), _list(f"higher {dice}", above)]
        open_ = [t for t in tests if t not in below and t not in above]
        parts.append(_list("not shown to differ", open_))
        name = labels[found["reference"]] if found["reference"] else "each one's reference"
        sentences.append(f"Nodule by nodule against {name} (95 % intervals): " + "; ".join(p for p in parts if p) + ".")
    return sentences


def _list(words: str, tests: Sequence[Record]) -> str:
    if not tests:
        return ""
    return f"{words}: " + ", ".join(f"{t['label']} ({signed(show_percent, t['difference'])})" for t in tests)
