"""The archive of results: what goes in comes out to the last digit, and a report from it is the one from the jobs."""

import csv
import json

import numpy as np
import pytest

from report_results import write_results
from Training.__main__ import main
from Training.metrics.stats import mean_interval
from Training.report import JobError, JobStore, StudyStore, make_report, read_archive
from Training.report.archive import FILE, RESULTS, read_studies, replace_study, shortened, six_digits
from Training.report.study import archive_study, available
from Training.report.tables import comparison

MB = 1_000_000


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A made-up folder of jobs, its scores written with six digits as the runner does."""
    folder = write_results(tmp_path_factory.mktemp("archive") / "experiments")
    for path in folder.glob("jobs/*/*.csv"):
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        text = [[_six(cell) if i else cell for cell in row] for i, row in enumerate(rows)]
        path.write_text("\n".join(",".join(row) for row in text) + "\n", encoding="utf-8")
    return folder


def _six(cell: str) -> str:
    try:
        return f"{float(cell):.6g}" if "." in cell else cell
    except ValueError:
        return cell


@pytest.fixture(scope="module")
def results(jobs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    archive_study("one", jobs, folder, {"title": "Made up"})
    return folder


def test_decimals_of_six_digits_come_back_from_few_bits():
    rng = np.random.default_rng(0)
    texts = [f"{v:.6g}" for v in np.concatenate([rng.random(5000), rng.normal(0, 1e4, 5000), rng.random(5000) * 1e-9])]
    wanted = np.array([float(text) for text in [*texts, "0", "1", "-1", "1e-16", "123457000", "0.1", "99999.5"]])
    stored = shortened(wanted)
    assert stored.dtype == np.float32
    assert np.array_equal(six_digits(stored), wanted)
    assert np.isnan(six_digits(shortened(np.array([np.nan])))).all()
    zeros = np.mean([int(b) & 7 == 0 for b in stored.view(np.uint32)])
    assert zeros > 0.5, "low bits that aren't needed are zero"


def test_every_figure_comes_back(jobs, results):
    store, study = JobStore(jobs), StudyStore("one", results)
    assert study.jobs() == store.jobs()
    for job in store.jobs():
        for read, again in ((store.scores, study.scores), (store.human, study.human)):
            wanted, found = read(job), again(job)
            filled = {name for name, values in wanted.items() if values.dtype.kind != "f" or np.isfinite(values).any()}
            assert filled == set(found)
            for name in filled:
                number = wanted[name].dtype.kind == "f"
                assert np.array_equal(found[name], wanted[name], equal_nan=number), (job, name)
    frame = read_archive(folder=results)
    assert frame["table"].nunique() == len(store.jobs()) + 2, (
        "the readers' figures are there once a fold, for all networks"
    )


def test_a_report_from_the_archive_is_the_one_from_the_jobs(jobs, results, tmp_path):
    make_report(jobs, tmp_path / "jobs")
    make_report(StudyStore("one", results), tmp_path / "study")
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "tables").iterdir()} for name in ("jobs", "study")
    )
    assert first == second
    one, other = (json.loads((tmp_path / n / "report.json").read_text(encoding="utf-8")) for n in ("jobs", "study"))
    assert one["facts"] == other["facts"]
    assert [e["sentences"] for e in one["experiments"]] == [e["sentences"] for e in other["experiments"]]
    page = (tmp_path / "study" / "index.html").read_text(encoding="utf-8")
    assert "<h1>Made up</h1>" in page
    assert "data:image/png" in page
    assert (tmp_path / "study" / "data" / "ugsnet-0000000003-fold0-scores.csv").is_file()


def test_again_gives_the_same_and_another_study_is_kept(jobs, tmp_path):
    archive_study("one", jobs, tmp_path)
    size = (tmp_path / FILE).stat().st_size
    archive_study("two", jobs, tmp_path)
    assert (tmp_path / FILE).stat().st_size < 1.1 * size, "tables with the same content are stored once"
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    archive_study("two", jobs, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    changed = read_archive("two", tmp_path)
    table = changed["table"].iloc[0]
    frame = changed[changed["table"] == table].drop(columns="table").assign(dsc_label1=0.5)
    replace_study("two", {table: frame}, {"job": {"scores": table, "readers": None}}, tmp_path)
    assert read_studies(tmp_path)["two"] == {"job": {"scores": f"two/{table}", "readers": None}}
    assert (read_archive("two", tmp_path)["dsc_label1"] == 0.5).all()
    assert len(read_archive("one", tmp_path)) == len(changed)


def test_what_is_not_there_is_named(results, tmp_path):
    with pytest.raises(JobError, match="has no study three; there are one"):
        read_archive("three", results)
    with pytest.raises(JobError, match="has no study three; there are: one"):
        StudyStore("three", results)
    with pytest.raises(JobError, match=r"archive\.parquet.*No such file"):
        read_archive(folder=tmp_path)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(JobError, match=r"archive\.parquet"):
        read_archive(folder=tmp_path)
    with pytest.raises(JobError, match="holds no predictions"):
        StudyStore("one", results).predictions("ugsnet-0000000003-fold0")


def test_commands(jobs, tmp_path, capsys):
    results, output = tmp_path / "results", tmp_path / "report"
    assert main(["archive", "mine", "--experiments", str(jobs), "--results", str(results), "--title", "Mine"]) == 0
    assert main(["archive", "more", "--experiments", str(jobs), "--results", str(results)]) == 0
    assert main(["report", "--results", str(results), "--output", str(output), "--quiet"]) == 0
    index = (output / "index.html").read_text(encoding="utf-8")
    assert 'href="mine/index.html">Mine</a>' in index
    assert (output / "more" / "index.html").is_file()
    assert main(["report", "mine", "--results", str(results), "--output", str(tmp_path / "single"), "--quiet"]) == 0
    assert (tmp_path / "single" / "index.html").is_file()
    capsys.readouterr()
    assert main(["report", "mine", "--experiments", str(jobs), "--output", str(output)]) == 1
    assert "--experiments has no studies" in capsys.readouterr().err


# -- the results of this repository


def test_the_shipped_results_are_small():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert (RESULTS / FILE).stat().st_size < 4 * MB
    assert sum(path.stat().st_size for path in files if path.name != FILE) < 3 * MB


@pytest.mark.parametrize("study", available(RESULTS))
def test_a_shipped_study_holds_together(study):
    store = StudyStore(study)
    assert {"title", "commands", "date"} <= set(store.summary)
    for experiment in store.experiments():
        for row in experiment["rows"]:
            for fold, job in store.row_jobs(row).items():
                scores = store.scores(job)
                assert set(scores["fold"]) == {fold}
                assert len(scores["nodule_id"]) == store.manifest(job)["split"]["test"]["nodules"]
    assert store.experiments() or store.sections()


def test_shipped_tables_follow_from_the_archive():
    """The summary's numbers are those that the nodules' figures give today."""
    store = StudyStore("ugsnet-papers-five-folds")
    (experiment,) = store.experiments()
    shown = {table["name"]: table["rows"] for table in experiment["shown"]["tables"]}
    tables, sentences, _ = comparison(store, experiment)
    assert sentences == experiment["shown"]["sentences"]
    for table in tables:
        for record, row in zip(table.records, shown[table.name], strict=True):
            for key, value in row.items():
                found = record[key]
                assert float(f"{found:.6g}") == value if isinstance(found, float) else found == value, (table.name, key)


def test_the_shipped_models_figures_follow_from_the_archive():
    frame = read_archive("ugsnet-compact")
    summary = StudyStore("ugsnet-compact").summary["pooled"]["native-slices"]
    folds = frame[frame["table"].isin([f"ugsnet-compact/native-slices-fold{k}" for k in range(3)])]
    four = folds[folds["readers"] == 4]
    assert (len(folds), folds["patient_id"].nunique()) == (711, 325)
    assert (len(four), four["patient_id"].nunique()) == (345, 227)
    for name in ("final", "hc", "union"):
        assert four[name].mean() == pytest.approx(summary["four"][name], abs=1e-6)
        low, high = mean_interval(four[name].to_numpy(), four["patient_id"].to_numpy())
        assert (low, high) == pytest.approx(summary["four"][f"{name}_interval"], abs=1e-4)
    inside = [int(flag) for flags in four["readers_inside"] for flag in flags.split()]
    assert np.mean(inside) == pytest.approx(summary["four"]["coverage"])
    assert four["width_ratio"].median() == pytest.approx(summary["four"]["width_ratio"], abs=1e-4)
