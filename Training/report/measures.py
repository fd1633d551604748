"""The report's columns: which of `Training.metrics.METRICS` a table shows, and under which heading."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..metrics import catalog
from ..metrics.catalog import TABLES, TRUTHS, Metric, Place
from .text import show, show_percent

__all__ = ["MEASURE_SETS", "Measure", "MeasureSet", "explained", "measure_set", "measures_of", "of_images"]


@dataclass(frozen=True)
class Measure:
    """A metric in a table. ``key``: column of scores.csv (or of the manifest's pooled figures, where ``pooled``).
    ``better``: +1 the larger, -1 the smaller, 0 neither (so no best is marked). ``paper``: key of the papers' number in
    an experiment's row. ``median``: a fold's value is the median over its nodules."""

    key: str
    label: str
    meaning: str
    percent: bool = True
    better: int = 1
    pooled: bool = False
    median: bool = False
    paper: str = ""
    tested: bool = False
    ranked: bool = False

    @property
    def heading(self) -> str:
        """Label with its unit."""
        return f"{self.label}, %" if self.percent else self.label

    def show(self, value: float | None) -> str:
        """A value as the tables show it."""
        return show_percent(value) if self.percent else show(value, 3)


def _measure(metric: Metric, place: Place, truth: str) -> Measure:
    truth = place.truth or truth
    label = place.label or metric.label
    return Measure(
        f"{metric.name}_{truth}" if metric.of == "pair" else metric.name,
        label if metric.unit in ("", "%") else f"{label}, {metric.unit}",
        (place.meaning or metric.meaning).replace("{truth}", TRUTHS[truth]),
        percent=metric.unit == "%",
        better=metric.direction,
        pooled=metric.of == "fold",
        median=metric.median,
        paper=place.paper,
        tested=place.tested,
        ranked=place.ranked,
    )


def measures_of(table: str, truth: str = "consensus") -> tuple[Measure, ...]:
    """The measures of one of `TABLES`, from left to right, against a truth where the table leaves that open."""
    placed = [(place, metric) for metric in catalog.METRICS for place in metric.places if place.table == table]
    return tuple(_measure(metric, place, truth) for place, metric in sorted(placed, key=lambda pair: pair[0].order))


def explained() -> list[Measure]:
    """Every measure that a table shows, each label once, for the page's list of meanings."""
    found: dict[str, Measure] = {}
    for table in TABLES:
        for measure in measures_of(table) if table != "ife_released" else ():
            found.setdefault(measure.label, measure)
    return list(found.values())


@dataclass(frozen=True)
class MeasureSet:
    """What an experiment's tables show: ``measures``; what they are taken ``against``; the one that ranks (``ranked``);
    ``tested`` in pairs; ``starred``: mark the ranked measure where the paired t test gives p < 0.05, as IFE's tables;
    ``of_nodules``: show the spread over nodules, too, as DSNet's papers do.
    """

    measures: tuple[Measure, ...]
    against: str
    ranked: Measure
    tested: tuple[Measure, ...]
    starred: bool = False
    of_nodules: bool = False


#: Values of the option `measures` of an experiment: whose measures are shown.
MEASURE_SETS = tuple(table for table in TABLES if table != "readers")


def of_images(options: Mapping[str, Any] | None) -> bool:
    """Whether an experiment's options say that it is for a set of images, which have one mask each and no readers."""
    return (options or {}).get("data") == "images"


def measure_set(options: Mapping[str, Any]) -> MeasureSet:
    """The set that an experiment's options `measures` and (IFE's only) `truth` name. Raises ValueError in one line."""
    wanted, truth = options.get("measures", "ugsnet"), options.get("truth", "consensus")
    if wanted not in MEASURE_SETS:
        raise ValueError(f"option measures is one of {', '.join(MEASURE_SETS)}, not {wanted!r}")
    if truth not in TRUTHS:
        raise ValueError(f"option truth is one of {', '.join(sorted(TRUTHS))}, not {truth!r}")
    measures = measures_of(wanted, truth)
    ranked = next(measure for measure in measures if measure.ranked)
    ife = wanted.startswith("ife")
    shown = measures if ife else (*measures_of("ugsnet"), *measures_of("readers"))
    tested = tuple(measure for measure in shown if measure.tested)
    if wanted == "ugsnet":
        return MeasureSet(measures, TRUTHS["label1"], ranked, tested)
    against = "the masks" if of_images(options) else TRUTHS["consensus" if wanted == "dsnet" else truth]
    return MeasureSet(measures, against, ranked, tested, starred=ife, of_nodules=wanted == "dsnet")
