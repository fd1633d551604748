"""The report's numbers against hand-computed ones, what it says of missing jobs, and the page itself."""

import argparse
import csv
import html.parser
import json
import re

import numpy as np
import pytest

from report_results import FOLDS, NETWORKS, NODULES, SIZE, write_results
from Training.metrics import MetricError, paired_test
from Training.report import JobError, JobStore, make_report
from Training.report.cli import add_arguments, run
from Training.report.tables.paired import holm
from Training.report.text import show

#: Elements without an end tag.
VOID = {"meta", "img"}


class _Page(html.parser.HTMLParser):
    """Checks that every element is closed in turn; gathers links, ids and the cells of each table."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.links, self.ids, self.tables, self.text = [], [], [], {}, []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[key] for key in ("href", "src") if key in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "table":
            self.tables[given["id"]] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in {"td", "th"}:
            list(self.tables.values())[-1][-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> without a start"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.stack):
            list(self.tables.values())[-1][-1][-1] += " " * ("small" in self.stack) + data.replace("\xa0", " ")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results") / "experiments")


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    make_report(results, output)
    return output


@pytest.fixture(scope="module")
def page(report):
    return _Page((report / "index.html").read_text(encoding="utf-8"))


def _column(results, key, fold, column, name="scores.csv"):
    """{nodule: value} by the csv module alone, so that the report's own reader is checked as well."""
    number = [n[0] for n in NETWORKS].index(key)
    path = results / "jobs" / f"{key}-{number:010x}-fold{fold}" / name
    with path.open(encoding="utf-8") as stream:
        return {r["nodule_id"]: float(r[column]) for r in csv.DictReader(stream) if r.get(column)}


def _row(page, table, label):
    return next(row for row in page.tables[f"table-{table}"] if row and row[0].startswith(label))


def _rows(report, table):
    with (report / "tables" / f"{table}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("column", "place"),
    [("dsc_label1", 4), ("iou_label1", 6), ("nsd1px_label1", 8)],
)
def test_mean_and_population_sd_over_folds(results, page, report, column, place):
    folds = [np.mean(list(_column(results, "ugsnet", fold, column).values())) for fold in FOLDS]
    mean, sd = np.mean(folds), np.sqrt(np.mean((folds - np.mean(folds)) ** 2))
    assert _row(page, "table1-measures", "UGS-Net")[place] == f"{100 * mean:.2f} ± {100 * sd:.2f}"
    record = next(r for r in _rows(report, "table1-measures") if r["row"] == "ugsnet")
    assert float(record[column]) == pytest.approx(mean, rel=1e-9)
    assert record[f"{column}_sd_over"] == "folds"
    assert int(record[f"{column}_n"]) == 2 * NODULES


def test_one_fold_shows_the_sd_over_nodules_and_says_so(results, page, report):
    values = list(_column(results, "attention_unet", 0, "dsc_label1").values())
    row = _row(page, "table1-measures", "Attention")
    assert row[2] == "0"
    assert row[4] == f"{100 * np.mean(values):.2f} ± {100 * np.std(values):.2f} (nodules)"
    record = next(r for r in _rows(report, "table1-measures") if r["row"] == "attention_unet")
    assert record["dsc_label1_sd_over"] == "nodules"


def test_paper_and_pooled_numbers_stand_in_columns_of_their_own(page):
    row = _row(page, "table1-measures", "UGS-Net")
    assert row[5] == "87.65 ± 0.57"
    assert row[7] == "78.78"
    assert row[9:11] == ["90.50 ± 0.50", "95.62"]
    assert _row(page, "table1-measures", "Attention")[5] == "–"


def test_the_readers_row_is_in_every_table_of_networks(results, page):
    folds = [np.mean(list(_column(results, "ugsnet", f, "dsc_label1", "human.csv").values())) for f in FOLDS]
    assert _row(page, "table1-measures", "One reader")[4].startswith(f"{100 * np.mean(folds):.2f} ± ")
    consensus = [np.mean(list(_column(results, "ugsnet", f, "dsc_consensus", "human.csv").values())) for f in FOLDS]
    row = _row(page, "table1-readers", "One reader")
    assert row[2].startswith(f"{100 * np.mean(consensus):.2f} ± ")
    assert row[5] == "–"  # GED of one reader has no fair equivalent
    for table in ("table1-tests", "table1-folds", "table3-measures"):
        assert _row(page, table, "One reader")
    assert page.tables["table-table3-gains"][1][-1] == "one reader"


def test_width_ratio_is_the_median_and_empty_cells_are_left_out(results, report):
    record = next(r for r in _rows(report, "table1-readers") if r["row"] == "ugsnet")
    folds = [np.median(list(_column(results, "ugsnet", f, "width_ratio").values())) for f in FOLDS]
    assert float(record["width_ratio"]) == pytest.approx(np.mean(folds))
    assert next(r for r in _rows(report, "table1-readers") if r["row"] == "unet")["hc_dice"] == ""


def test_best_is_marked_among_networks_with_the_same_test_nodules(report, results):
    text = (report / "index.html").read_text(encoding="utf-8")
    table = text[text.index('id="table-table1-measures"') :]
    table = table[: table.index("</table>")]
    complete = [n[0] for n in NETWORKS if n[4] == FOLDS]
    means = {
        k: np.mean([np.mean(list(_column(results, k, f, "dsc_label1").values())) for f in FOLDS]) for k in complete
    }
    best = max(means, key=means.get)
    label = {n[0]: n[1] for n in NETWORKS}[best]
    line = next(line for line in table.splitlines() if f"{label}</th>" in line)
    assert re.findall(r"<strong>([\d.]+)", line)[0] == f"{100 * means[best]:.2f}"
    assert "<strong>90.50" not in table  # where all tie there is no best
    attention = next(line for line in table.splitlines() if "Attention" in line)
    human = next(line for line in table.splitlines() if "One reader" in line)
    assert "<strong>" not in attention + human


def test_the_headline_compares_means_of_the_same_folds(report, results):
    """One network was tested on fold 0 alone."""
    text = (report / "index.html").read_text(encoding="utf-8")
    with_jobs = [n for n in NETWORKS if n[4]]
    means = {n[1]: np.mean(list(_column(results, n[0], 0, "dsc_label1").values())) for n in with_jobs}
    best = max(means, key=means.get)
    wanted = f"on what all were tested on (folds: 0): {best}, {100 * means[best]:.2f} %"
    assert wanted in re.sub(r"\s+", " ", text)


def test_paired_tests_join_by_nodule_and_cluster_by_patient(results, page, report):
    record = next(r for r in _rows(report, "table1-tests") if (r["measure"], r["row"]) == ("dsc_label1", "unet"))
    first, second, patients = [], [], []
    for fold in FOLDS:
        a, b = _column(results, "unet", fold, "dsc_label1"), _column(results, "ugsnet", fold, "dsc_label1")
        for name in a:
            first.append(a[name])
            second.append(b[name])
            patients.append(name.rsplit("-", 1)[0])
    test = paired_test(first, second, groups=patients)
    assert float(record["difference"]) == pytest.approx(np.mean(np.subtract(first, second)), rel=1e-9)
    assert (int(record["nodules"]), int(record["patients"])) == (2 * NODULES, NODULES)
    for key, value in (("low", test.low), ("high", test.high), ("wilcoxon_p", test.wilcoxon_p), ("dz", test.dz)):
        assert float(record[key]) == pytest.approx(value, rel=1e-8)
    attention = next(r for r in _rows(report, "table1-tests") if r["row"] == "attention_unet")
    assert (attention["folds"], attention["nodules"]) == ("0", str(NODULES))
    assert not [r for r in _rows(report, "table1-tests") if r["row"] == "ugsnet"]
    assert show(float(record["dz"]), 2) in _row(page, "table1-tests", "U-Net <b>")


def test_nothing_finished_is_still_a_page(tmp_path):
    results = write_results(tmp_path / "out", folds=())
    _, path = make_report(results, tmp_path / "report")
    text = "".join(_Page(path.read_text(encoding="utf-8")).text)
    assert text.count("nothing can be shown") == 4
    assert "--folds 0 1 2 3 4" in text


def test_holm_adjusts_a_family():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


def test_complex_nodules_gain_and_controls(results, report, page):
    base, ours, control = (
        {k: v for f in FOLDS for k, v in _column(results, key, f, "dsc_label1").items()}
        for key in ("unet", "ugsnet", "unet_seed2")
    )
    assert max(base.values()) > 0.8 > min(base.values())
    for threshold in (0.7, 0.8):
        chosen = [n for n in base if base[n] <= threshold]
        rows = [r for r in _rows(report, "table3-selection") if float(r["threshold"]) == threshold]
        by = {r["selected_by"]: r for r in rows}
        assert int(by["baseline"]["nodules"]) == len(chosen)
        assert float(by["baseline"]["gain"]) == pytest.approx(np.mean([ours[n] - base[n] for n in chosen]))
        assert float(by["baseline"]["control_gain"]) == pytest.approx(np.mean([control[n] - base[n] for n in chosen]))
        assert float(by["baseline"]["beyond_control"]) == pytest.approx(np.mean([ours[n] - control[n] for n in chosen]))
        swapped = [n for n in ours if ours[n] <= threshold]
        assert int(by["ours"]["nodules"]) == len(swapped)
        if swapped:
            assert float(by["ours"]["gain"]) == pytest.approx(np.mean([ours[n] - base[n] for n in swapped]))
    paper = page.tables["table-table3-gains"][5]
    assert paper[0] == "≤ 80 %, paper"
    assert paper[2:7] == ["71.47", "77.11", "–", "–", "+5.64"]
    text = " ".join(page.text)
    gain = 100 * np.mean([control[n] - base[n] for n in base if base[n] <= 0.8])
    assert f"which differs in its seed alone, gains {gain:.2f} points" in text


def test_missing_and_failed_jobs_are_named_with_the_command_for_the_rest(page, report):
    row = next(r for r in page.tables["table-not-run"] if r[0] == "Attention U-Net")
    assert row[1:] == ["table1, table3", "1", "failed", "out of memory <script>"]
    assert ["X", "gradcam", "0, 1", "not run", "–"] in page.tables["table-not-run"]
    text = "".join(page.text)
    start = "python -m Training experiment table1 table3 --data DATA --output experiments"
    assert f"{start} --profile compact --preset default --folds 1 2 3 4" in text
    assert re.search(r"--output experiments-full --profile full --preset default(?! --folds)", text)  # all folds
    assert "nothing can be shown" in text
    missing = json.loads((report / "report.json").read_text(encoding="utf-8"))["missing"]
    assert {(m["row"], m["state"]) for m in missing} == {("attention_unet", "failed"), ("x", "not run")}


def test_headline_counts_nodules_and_patients(page):
    text = "".join(page.text)
    assert f"{2 * NODULES} nodules of {NODULES} patients" in text
    assert "made-up: 140 nodules, SHA-256 abababababababab…" in text
    assert len(page.tables["table-conditions"]) == 1 + 7  # header and every finished job once


def test_page_is_self_contained_and_well_formed(page, report):
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert not re.match(r"\w+://|//", link), link
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:image/png;base64,"):
            assert (report / link).is_file(), link
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "url(" not in text
    assert "U-Net &lt;b&gt;&amp; co&lt;/b&gt;" in text
    assert '"U-Net <b>' not in text


def test_figures_lie_beside_the_page_and_in_it(report, page):
    assert (report / "figures" / "densities-densities.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert (report / "figures" / "densities-densities.png").read_bytes().startswith(b"\x89PNG")
    assert sum(link.startswith("data:image/png") for link in page.links) == 1
    assert "table-densities-densities" in page.tables


def test_scores_are_copied_and_the_readers_once_a_fold(report, results):
    names = {p.name for p in (report / "data").iterdir()}
    assert {n for n in names if n.startswith("human")} == {"human-fold0.csv", "human-fold1.csv"}
    assert len(names) == 7 + 2
    job = "ugsnet-0000000003-fold1"
    assert (report / "data" / f"{job}-scores.csv").read_bytes() == (results / "jobs" / job / "scores.csv").read_bytes()


def test_again_gives_the_same_bytes_and_clears_only_its_own_old_files(results, report, tmp_path):
    make_report(results, tmp_path)
    before = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert before == {p.relative_to(report): p.read_bytes() for p in report.rglob("*") if p.is_file()}
    foreign = tmp_path / "tables" / "mine.csv"
    foreign.write_text("mine", encoding="utf-8")
    args = argparse.ArgumentParser()
    add_arguments(args)
    given = ["--experiments", str(results), "--output", str(tmp_path), "--only", "table1", "--quiet"]
    assert run(args.parse_args(given)) == 0
    assert foreign.is_file()
    assert not (tmp_path / "tables" / "table3-gains.csv").exists()
    assert not list((tmp_path / "figures").iterdir())


def test_a_figure_that_fails_is_said_and_the_rest_is_shown(results, tmp_path, monkeypatch):
    def broken(experiment, store):
        raise MetricError("no pixel <here>")

    monkeypatch.setattr("Training.report.figures.FIGURES", {"densities": broken})
    sections, path = make_report(results, tmp_path)
    assert "no pixel <here>" in next(s for s in sections if s.name == "densities").problems[0]
    text = path.read_text(encoding="utf-8")
    assert "no pixel &lt;here&gt;" in text
    assert 'id="table-table1-measures"' in text


def test_a_split_with_other_nodules_is_not_compared_nodule_by_nodule(tmp_path):
    results = write_results(tmp_path / "out", folds=(0,))
    scores = results / "jobs" / "unet-0000000000-fold0" / "scores.csv"
    scores.write_text(scores.read_text(encoding="utf-8").replace("F0-00-0,", "F9-00-0,"), encoding="utf-8")
    manifest = scores.with_name("manifest.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(content | {"patients_in_training_and_test": 41}), encoding="utf-8")
    make_report(results, tmp_path / "report", ["table1"])
    rows = _rows(tmp_path / "report", "table1-tests")
    assert {r["row"] for r in rows} == {"unet_seed2", "attention_unet", "human"}
    assert "41 test patients are in training too" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_store_reads_what_is_there_and_names_what_is_not(results, tmp_path):
    store = JobStore(results)
    assert [e["name"] for e in store.experiments()] == ["densities", "gradcam", "table1", "table3"]
    assert len(store.jobs()) == 7
    scores = store.scores("ugsnet-0000000003-fold0")
    assert scores["nodule_id"].dtype.kind == "U"
    assert scores["dsc_label1"].dtype == np.float64
    assert np.isnan(store.human("ugsnet-0000000003-fold0")["coverage"]).any()  # nodules with two readers
    assert store.predictions("unet-0000000000-fold1")["final"].shape == (NODULES, SIZE, SIZE)
    with pytest.raises(JobError, match=r"nope.*manifest\.json.*No such file"):
        store.manifest("nope")
    with pytest.raises(JobError, match="not a job's name"):
        store.folder("../jobs")
    with pytest.raises(JobError, match="no such folder"):
        JobStore(tmp_path / "absent")
    with pytest.raises(JobError, match="holds no experiment"):
        make_report(tmp_path, tmp_path / "report")
    with pytest.raises(JobError, match="has no experiment nope"):
        make_report(results, tmp_path / "report", ["nope"])
    job = tmp_path / "jobs" / "x"
    job.mkdir(parents=True)
    (job / "scores.csv").write_text("nodule_id,dsc\nA,1,2\n", encoding="utf-8")
    (job / "predictions.npz").write_bytes(b"PK nothing")
    (job / "manifest.json").write_text("{", encoding="utf-8")
    for call in (JobStore(tmp_path).scores, JobStore(tmp_path).predictions, JobStore(tmp_path).manifest):
        with pytest.raises(JobError) as caught:
            call("x")
        assert str(job) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["nodule_id,dsc,dsc", "nodule_id,dsc,", "nodule_id,dsc,\0"])
def test_a_table_whose_columns_have_no_names_of_their_own_is_refused(tmp_path, header):
    job = tmp_path / "jobs" / "x"
    job.mkdir(parents=True)
    (job / "scores.csv").write_text(f"{header}\nA,0.8,0.7\n", encoding="utf-8")
    with pytest.raises(JobError, match=r"scores\.csv: column .* has no name or stands there twice|NUL"):
        JobStore(tmp_path).scores("x")


@pytest.mark.parametrize(
    "rows", ['""', '["x"]', "[1]", '[{"jobs": 3}]', '[{"key": NaN}]', "[" * 100_000, '[], "rows": [{}]']
)
def test_rows_of_an_experiment_that_are_none_are_refused(tmp_path, rows):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "experiment.json").write_text(f'{{"rows": {rows}}}', encoding="utf-8")
    store = JobStore(tmp_path)

    def read():
        for row in store.experiments()[0]["rows"]:
            store.row_jobs(row)

    with pytest.raises(JobError, match=f"^{tmp_path}"):
        read()
