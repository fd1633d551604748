"""The report with IFE's measures: columns, directions, stars, and each network tested against its own reference."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from report_results import FOLDS, write_results
from Training.report.cli import make_report
from Training.report.measures import measure_set, measures_of
from Training.report.store import JobError, JobStore
from Training.report.tables.comparison import comparison_tables

PAPER = {"con": 84.41, "dsc": 93.695, "hce": 1.988, "mae": 1.338, "hd": 11.464, "assd": 2.287, "rvd": 7.145}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results"))


def tables(results, **options):
    store = JobStore(results)
    experiment = next(e for e in store.experiments() if e["name"] == "table1")
    experiment = {**experiment, "options": options}
    experiment["rows"] = [{**row, "paper": PAPER if row["key"] == "unet" else {}} for row in experiment["rows"]]
    made, found = comparison_tables(store, experiment)
    return {table.name: table for table in made}, found


def column(results, job, name):
    with (results / "jobs" / job / "scores.csv").open(encoding="utf-8") as stream:
        return {r["nodule_id"]: float(r[name] or "nan") for r in csv.DictReader(stream)}


def jobs(results, key):
    rows = json.loads((results / "table1" / "experiment.json").read_text(encoding="utf-8"))["rows"]
    return next(row for row in rows if row["key"] == key)["jobs"]


def finite_mean(values):
    values = np.array(list(values))
    return values[np.isfinite(values)].mean()


@pytest.mark.parametrize("truth", ["consensus", "label1"])
def test_columns_units_and_truth(results, truth):
    made, found = tables(results, measures="ife", truth=truth, reference="unet")
    table = made["table1-measures"]
    labels = [head.text for head in table.heads[0]][4:]
    assert labels == [
        "Con, %",
        "DSC, %",
        "JC, %",
        "F1, %",
        "HCE",
        "HCE 64",
        "MAE, %",
        "HD, px",
        "ASSD, px",
        "RVD, %",
        "Missed, %",
    ]
    record = next(r for r in table.records if r["row"] == "ugsnet")
    for name in ("con", "dsc", "iou", "f", "hce", "hce64", "mae", "hd", "assd", "rvd", "missed"):
        folds = [
            finite_mean(column(results, jobs(results, "ugsnet")[str(f)], f"{name}_{truth}").values()) for f in FOLDS
        ]
        assert record[f"{name}_{truth}"] == pytest.approx(np.mean(folds))
    unet = next(r for r in table.records if r["row"] == "unet")
    assert {name: unet[f"paper_{name}"] for name in PAPER} == PAPER
    assert found["label"] == "DSC"
    assert found["measure"] == f"dsc_{truth}"
    assert found["against"] == {"consensus": "the readers' consensus", "label1": "the first reader"}[truth]


def test_less_is_better_where_it_is(results):
    measures = {m.label: m for m in measures_of("ife")}
    assert {label for label, m in measures.items() if m.better < 0} == {
        *("HCE", "HCE 64", "MAE", "HD, px", "ASSD, px", "RVD", "Missed"),
    }
    made, _ = tables(results, measures="ife", reference="unet")
    table = made["table1-measures"]
    full = [i for i, r in enumerate(table.records) if r["folds"] == "0, 1" and r["row"] != "human"]
    for m in measures.values():
        means = {i: table.records[i][m.key] for i in full}
        best = max(means, key=lambda i, m=m, means=means: m.better * means[i])
        bold = [i for i in full if any(c.bold and c.text.rstrip("*") == m.show(means[i]) for c in table.rows[i][1])]
        if len({m.show(v) for v in means.values()}) > 1:
            assert best in bold


def test_each_network_is_tested_against_its_own_reference_and_starred(results):
    own = {"unet_seed2": "unet", "ugsnet": "attention_unet"}
    made, found = tables(results, measures="ife", references=own)
    tests = made["table1-tests"]
    assert {(r["row"], r["reference"]) for r in tests.records} == set(own.items())
    assert {r["measure"] for r in tests.records} == {"dsc_consensus", "hce64_consensus", "assd_consensus"}
    record = next(r for r in tests.records if r["row"] == "ugsnet" and r["measure"] == "dsc_consensus")
    ours = column(results, jobs(results, "ugsnet")["0"], "dsc_consensus")
    theirs = column(results, jobs(results, "attention_unet")["0"], "dsc_consensus")
    difference = np.array([ours[n] - theirs[n] for n in ours])
    assert record["folds"] == "0"
    assert record["t_p"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert record["dz"] == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert [head.text for head in tests.heads[0]][1] == "Reference"
    assert found["reference"] is None
    starred = {r["row"] for r in tests.records if r["measure"] == "dsc_consensus" and r["t_p"] < 0.05}
    shown = {
        r["row"]
        for r, (_, cells) in zip(made["table1-measures"].records, made["table1-measures"].rows, strict=True)
        if any(cell.text.endswith("*") for cell in cells)
    }
    assert shown == starred == {"ugsnet"}
    assert "p < 0.05" in made["table1-measures"].caption
    before, _ = tables(results, reference="ugsnet")
    assert "p < 0.05" not in before["table1-measures"].caption


def test_released_forms_stand_beside_the_papers_numbers(results):
    made, _ = tables(results, measures="ife_released", reference="unet")
    table = made["table1-measures"]
    record = next(r for r in table.records if r["row"] == "ugsnet")
    means = [
        finite_mean(column(results, jobs(results, "ugsnet")[str(f)], "mae_released_consensus").values()) for f in FOLDS
    ]
    assert record["mae_released_consensus"] == pytest.approx(np.mean(means))
    correct = tables(results, measures="ife", reference="unet")[0]["table1-measures"].records
    assert record["mae_released_consensus"] < next(r for r in correct if r["row"] == "ugsnet")["mae_consensus"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"measures": "ifes"}, "option measures is one of ugsnet, dsnet, ife, ife_released, not 'ifes'"),
        ({"measures": "ife", "truth": "mean"}, "option truth is one of consensus, label1, not 'mean'"),
        ({"references": {"ugsnet": "vnet"}}, "option references names vnet, which is no row"),
    ],
)
def test_wrong_options_are_named(results, options, words):
    with pytest.raises(JobError, match=words):
        tables(results, **options)


def test_the_other_sets_are_as_they_were():
    assert [m.key for m in measure_set({}).tested] == ["dsc_label1", "dsc_consensus", "ged"]
    assert measure_set({}).ranked.key == "dsc_label1"
    assert measure_set({"measures": "dsnet"}).ranked.key == "dsc_consensus"
    assert not measure_set({"measures": "dsnet"}).starred


def test_dsnets_tables_show_the_spread_over_folds_and_over_nodules(results):
    table = tables(results, measures="dsnet")[0]["table1-measures"]
    place = next(i for i, r in enumerate(table.records) if r["row"] == "unet")
    key, record = measure_set({"measures": "dsnet"}).ranked.key, table.records[place]
    every = [np.array(list(column(results, job, key).values())) for job in jobs(results, "unet").values()]
    assert record[f"{key}_sd"] == pytest.approx(np.std([values.mean() for values in every]))
    assert record[f"{key}_sd_nodules"] == pytest.approx(np.std(np.concatenate(every)))
    notes = [cell.note for cell in table.rows[place][1]]
    shown = [note.replace("\u00a0", " ") for note in notes]
    assert f"± {100 * record[f'{key}_sd']:.2f} (folds) ± {100 * record[f'{key}_sd_nodules']:.2f} (nodules)" in shown


def test_a_set_of_images_has_masks_and_no_readers(results, tmp_path):
    path = write_results(tmp_path / "images") / "table1" / "experiment.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "options": {"measures": "dsnet", "data": "images"}}), encoding="utf-8")
    make_report(tmp_path / "images", tmp_path / "report", ["table1"])
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "against the masks" in text
    assert "against the readers" not in text
    assert "28 images of 14 subjects" in text


def test_the_page_shows_it_all(results, tmp_path):
    path = results / "table1" / "experiment.json"
    kept = path.read_text(encoding="utf-8")
    content = json.loads(kept)
    content["options"] = {"measures": "ife", "references": {"ugsnet": "unet"}}
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        make_report(results, tmp_path / "report")
    finally:
        path.write_text(kept, encoding="utf-8")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Highest mean DSC against the readers" in page
    assert "Nodule by nodule against each one" in page
    assert "human correction effort: clicks to correct the mask" in page
