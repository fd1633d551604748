"""The readers' tables: reader against reader, reader and network against a consensus, and who is closer (DSNet)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...metrics import MetricError
from ...metrics.agreement import pair_numbers
from ...metrics.stats import population_sd
from ..reader_rows import NAMES, ReaderRow, reader_rows
from ..store import Experiment, Store
from ..text import fold_text, p_text, show, show_percent, signed
from .table import Cell, Head, Record, Table

__all__ = ["reader_tables"]

_OWN = "D1 to D4 are the readers in the order of the annotation files, which is anonymous and changes between scans. "
_MEAN = "mean of the four"


def reader_tables(store: Store, experiment: Experiment) -> tuple[list[Table], list[str], list[str]]:
    """(tables, plain sentences, what is left out and why); no tables before a row has a job with four readers' nodules.

    The readers' own figures are on the nodules of the option `network`'s row, or else of the first one.
    """
    rows, left_out = reader_rows(experiment, store)
    if not rows:
        return [], [], left_out
    name, paper = experiment["name"], (experiment.get("options") or {}).get("paper") or {}
    records = _difference_records(rows)
    tables = [
        _pairs_table(f"{name}-pairs", rows[0], paper.get("pairs") or {}),
        _consensus_table(f"{name}-consensus", rows, paper),
        _difference_table(f"{name}-closer", records),
    ]
    return tables, _sentences(rows, records), left_out


def _on(row: ReaderRow) -> str:
    return (
        f"{len(row.nodules):,} test nodules of {len(set(row.patients)):,} patients with four readers, "
        f"fold{'s' * (len(row.folds) > 1)} {fold_text(row.folds)}"
    )


def _cell(values: np.ndarray) -> Cell:
    """Mean in per cent, and its sd over nodules below it."""
    return Cell(show_percent(float(np.mean(values))), note=f"± {show_percent(population_sd(values))}")


def _paper(value: float | None) -> Cell:
    return Cell("–", kind="paper absent") if value is None else Cell(show(float(value), 2), kind="paper")


def _stats(key: str, values: np.ndarray) -> Record:
    return {key: float(np.mean(values)), f"{key}_sd": population_sd(values)}


def _pairs_table(name: str, row: ReaderRow, paper: Mapping[str, Any]) -> Table:
    caption = f"Dice in per cent, mean ± standard deviation over nodules: {_on(row)}. {_OWN}"
    heads = [[Head("Readers", False), Head("here"), Head("paper")]]
    table = Table(name, "Each reader against each other one.", caption, heads)
    for (i, j), values in zip(pair_numbers(len(NAMES)), row.agreement.pairs.T, strict=True):
        key = f"{NAMES[i]}-{NAMES[j]}"
        table.rows.append(("", [Cell(key.replace("-", "–"), False), _cell(values), _paper(paper.get(key))]))
        table.records.append({"pair": key, **_stats("dice", values), "paper": paper.get(key)})
    mean, values_of_paper = row.agreement.pairs.mean(1), [float(v) for v in paper.values()]
    published = sum(values_of_paper) / len(values_of_paper) if values_of_paper else None
    table.rows.append(("human start", [Cell("mean of the pairs", False), _cell(mean), _paper(published)]))
    table.records.append({"pair": "mean", **_stats("dice", mean), "paper": published})
    return table


def _consensus_table(name: str, rows: Sequence[ReaderRow], paper: Mapping[str, Any]) -> Table:
    """Readers and networks against each reader, the consensus of all four and that of the others."""
    caption = (
        f"Dice in per cent, mean ± standard deviation over nodules. Readers: on {_on(rows[0])}. {_OWN}“All four”: what "
        "at least half of the four include; a reader's own mask is part of it, so the readers' figures are biased "
        "upwards and the networks' aren't. “The others”: what at least two of the other three include; a network is "
        "compared with all four such consensuses. The paper gives the first consensus alone."
    )
    if any(set(row.nodules) != set(rows[0].nodules) for row in rows):
        caption += " Nodules: " + "; ".join(f"{row.label}: {_on(row)}" for row in rows) + "."
    heads = [
        [Head("Mask of", False, rows=2), Head("against", span=2 * len(NAMES)), *_group("all four"), Head("the others")],
        [*(Head(w) for n in NAMES for w in (n, "paper")), Head("here"), Head("paper"), Head("here")],
    ]
    table = Table(name, "Readers and networks against readers and consensus.", caption, heads)
    own, none = rows[0].agreement, [Cell("–", kind="absent")] * (2 * len(NAMES))
    published = [float(v) for v in paper.get("readers") or ()]
    for i, reader in enumerate(NAMES):
        _consensus_row(
            table, "", reader, none, own.reader_consensus[:, i], published[i : i + 1], own.reader_others[:, i]
        )
    mean = [sum(published) / len(published)] if published else []
    _consensus_row(table, "human", _MEAN, none, own.reader_consensus.mean(1), mean, own.reader_others.mean(1))
    for number, row in enumerate(rows):
        a, known = row.agreement, paper if number == 0 else {}
        against = known.get("network") or [None] * len(NAMES)
        cells = [
            c for values, value in zip(a.network_reader.T, against, strict=True) for c in (_cell(values), _paper(value))
        ]
        whole = [known["network_consensus"]] if "network_consensus" in known else []
        _consensus_row(
            table, "start" if not number else "", row.label, cells, a.network_consensus, whole, a.network_others.mean(1)
        )
        for reader, values, value in zip(NAMES, a.network_reader.T, against, strict=True):
            table.records[-1] |= {**_stats(f"dice_{reader}", values), f"dice_{reader}_paper": value}
        table.records[-1] |= {"nodules": len(row.nodules), "folds": fold_text(row.folds)}
    return table


def _group(text: str) -> list[Head]:
    return [Head(text, span=2)]


def _consensus_row(
    table: Table,
    kind: str,
    label: str,
    cells: Sequence[Cell],
    whole: np.ndarray,
    paper: Sequence[float],
    others: np.ndarray,
) -> None:
    value = paper[0] if paper else None
    table.rows.append((kind, [Cell(label, False), *cells, _cell(whole), _paper(value), _cell(others)]))
    record = {"mask": label, **_stats("dice_all_four", whole), "dice_all_four_paper": value}
    table.records.append(record | _stats("dice_others", others))


def _difference_records(rows: Sequence[ReaderRow]) -> list[Record]:
    """Network minus reader against the others' consensus: on all nodules, and on those where all four readers drew."""
    records = []
    for row in rows:
        complete, everyone = row.agreement.complete, np.ones(len(row.nodules), bool)
        for words, chosen in (("all", everyone), ("all four drew", complete)):
            if words != "all" and complete.all():
                continue
            try:
                tests = row.agreement.differences(row.patients, chosen)
            except MetricError:
                continue
            network, reader = row.agreement.network_others[chosen], row.agreement.reader_others[chosen]
            pairs = [*zip(network.T, reader.T, strict=True), (network.mean(1), reader.mean(1))]
            for who, test, (a, b) in zip((*NAMES, _MEAN), tests, pairs, strict=True):
                records.append(
                    {
                        "row": row.key,
                        "label": row.label,
                        "nodules_of": words,
                        "reader": who,
                        "nodules": test.n,
                        "patients": test.groups,
                        "network": float(a.mean()),
                        "reader_dice": float(b.mean()),
                        "difference": test.mean_difference,
                        "low": test.low,
                        "high": test.high,
                        "closer_share": float((a > b).mean()),
                        "equal_share": float((a == b).mean()),
                        "wilcoxon_p": test.wilcoxon_p,
                    }
                )
    return records


def _difference_table(name: str, records: list[Record]) -> Table:
    caption = (
        "Network and reader against the same truth, what at least two of the other three readers include, nodule by "
        "nodule; in per cent and points. The 95 % interval is a bootstrap that draws whole patients; Wilcoxon's test "
        "takes nodules as independent. “Closer on”: share of the nodules where the network's Dice is the higher one. "
        "Bold: the interval excludes zero. “All four drew”: without the nodules where a reader who marked the nodule "
        "drew nothing on this slice, and so has a Dice of 0."
    )
    texts = ["Network", "Nodules", "Reader", "n (patients)", "Network, %", "Reader, %", "Difference", "95 % interval"]
    heads = [[Head(text, text not in ("Network", "Nodules", "Reader")) for text in (*texts, "Closer on", "p Wilcoxon")]]
    table = Table(name, "Is the network closer to the consensus than each reader?", caption, heads, records=records)
    last = None
    for r in records:
        sure = r["low"] > 0 or r["high"] < 0
        ends = [signed(show_percent, r[end]) for end in ("low", "high")]
        cells = [
            Cell(r["label"], False),
            Cell(r["nodules_of"], False),
            Cell(r["reader"], False),
            Cell(f"{r['nodules']:,} ({r['patients']:,})"),
            Cell(show_percent(r["network"])),
            Cell(show_percent(r["reader_dice"])),
            Cell(signed(show_percent, r["difference"]), bold=sure),
            Cell(" to ".join(ends)),
            Cell(f"{show_percent(r['closer_share'], 0)} %"),
            Cell(p_text(r["wilcoxon_p"])),
        ]
        group = (r["row"], r["nodules_of"])
        table.rows.append(("start" if group != last else "human" if r["reader"] == _MEAN else "", cells))
        last = group
    return table


def _sentences(rows: Sequence[ReaderRow], records: Sequence[Record]) -> list[str]:
    sentences = []
    for row in rows:
        of_row = [r for r in records if r["row"] == row.key]
        own = [r for r in of_row if r["nodules_of"] == "all"]
        if not own:
            continue
        *each, mean = own
        parts = [
            _readers("closer than", [r for r in each if r["low"] > 0]),
            _readers("less close than", [r for r in each if r["high"] < 0]),
            _readers("not shown to differ from", [r for r in each if r["low"] <= 0 <= r["high"]]),
        ]
        surely = sum(r["low"] > 0 for r in each)
        answer = {0: "No", len(each): "Yes"}.get(surely, f"Than {surely} of {len(each)}")
        text = (
            f"Is {row.label} closer to the consensus of the other three readers than each reader is? {answer}: "
            f"{'; '.join(p for p in parts if p)} (points of Dice). Mean over the readers: network "
            f"{show_percent(mean['network'])} %, reader {show_percent(mean['reader_dice'])} %, {_difference(mean)}, on "
            f"{mean['nodules']:,} nodules of {mean['patients']:,} patients."
        )
        strict = next((r for r in of_row if r["nodules_of"] != "all" and r["reader"] == _MEAN), None)
        if strict:
            text += f" Only where all four drew on the slice (n = {strict['nodules']:,}): {_difference(strict)}."
        sentences.append(text)
    a = rows[0].agreement
    readers = [show_percent(v) for v in sorted(a.reader_consensus.mean(0))]
    sentences.append(
        f"Against the consensus of all four, which holds the reader's own mask, the readers have {readers[0]} to "
        f"{readers[-1]} % and {rows[0].label} {show_percent(a.network_consensus.mean())} %."
    )
    return sentences


def _difference(record: Record) -> str:
    low, high = (signed(show_percent, record[end]) for end in ("low", "high"))
    return f"difference {signed(show_percent, record['difference'])} (95 % interval {low} to {high})"


def _readers(words: str, records: Sequence[Record]) -> str:
    if not records:
        return ""
    return f"{words} " + ", ".join(f"{r['reader']} ({signed(show_percent, r['difference'])})" for r in records)
