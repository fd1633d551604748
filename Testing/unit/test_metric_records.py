"""Metrics and kinds of experiments as records: what is listed is there, and a new record is all that a metric takes."""

import numpy as np
import pytest

from report_results import write_results
from Training.experiments import definition
from Training.experiments.kinds import KINDS
from Training.metrics import METRICS, Metric, catalog, score_human, score_nodule
from Training.metrics.catalog import TABLES, TRUTHS, Place
from Training.report import JobStore, figures, tables
from Training.report.measures import explained, measure_set, measures_of


def test_a_new_metric_is_one_record(monkeypatch, tmp_path):
    area = Metric(
        "area_error",
        lambda pair: abs(float(pair.mask.sum()) - float(pair.truth.sum())),
        "Area",
        "difference of the areas in pixels",
        unit="px",
        direction=-1,
        one_reader=True,
        places=(Place("ugsnet", 9, truth="label1", tested=True),),
    )
    monkeypatch.setattr(catalog, "METRICS", (*METRICS, area))
    readers = np.zeros((2, 8, 8), bool)
    readers[0, :3], readers[1, :4] = True, True
    row = score_nodule(readers, {"final": np.zeros((8, 8))})
    assert (row["area_error_label1"], row["area_error_consensus"]) == (24, 32)
    assert score_human(readers)["area_error_label1"] == 8
    results = write_results(tmp_path / "results")
    store = JobStore(results)
    (experiment,) = (e for e in store.experiments() if e["name"] == "table1")
    made, _, _ = tables.comparison(store, experiment)
    assert made[0].heads[0][-1].text == "Area, px"
    assert np.isfinite(made[0].records[0]["area_error_label1"])
    assert {r["measure"] for r in next(t for t in made if t.name.endswith("tests")).records} >= {"area_error_label1"}
    assert "difference of the areas in pixels" in {measure.meaning for measure in explained()}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.of}-{metric.name}")
def test_a_record_is_complete(metric):
    assert metric.of in ("pair", "prediction", "fold")
    assert metric.label
    assert metric.meaning[0] == metric.meaning[0].strip()
    assert metric.direction in (-1, 0, 1)
    assert set(metric.truths) <= set(TRUTHS)
    assert {place.table for place in metric.places} <= set(TABLES)
    assert sum(m.name == metric.name and m.of == metric.of for m in METRICS) == 1


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_each_place_once_and_one_that_ranks(table):
    orders = [place.order for metric in METRICS for place in metric.places if place.table == table]
    assert len(orders) == len(set(orders)) > 2
    measures = measures_of(table)
    assert len({measure.label for measure in measures}) == len(measures)
    if table != "readers":
        assert sum(measure.ranked for measure in measures) == 1
        assert measure_set({"measures": table}).ranked.ranked


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_names_what_there_is(kind):
    assert kind.figures or kind.tables
    assert not kind.figures or callable(getattr(figures, kind.figures))
    assert not kind.tables or callable(getattr(tables, kind.tables))
    assert (kind.name in figures.FIGURES) == bool(kind.figures)


def test_every_definition_is_of_a_kind():
    assert {definition.load(name, "tiny").kind for name in definition.available()} <= set(KINDS)
