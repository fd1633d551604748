"""Readers and network: agreement of readers, consensus and network against counts by hand, and what the report says."""

import json

import numpy as np
import pytest

from figure_jobs import make_config, nodules, noisy_maps, write_job
from report_results import write_results
from Training.config import changed
from Training.experiments import definition
from Training.experiments.rows import jobs_of
from Training.metrics import MetricError, consensus, dice
from Training.metrics.agreement import pair_numbers, reader_agreement
from Training.report import JobStore, make_report
from Training.report.figures import FIGURES
from Training.report.reader_rows import reader_rows
from Training.report.tables.readers import reader_tables

PAPER = {"pairs": {"D1-D2": 70.65, "D3-D4": 76.31}, "readers": [77.5, 82.9, 83.0, 69.7], "network_consensus": 86.35}


def _strips(*ends) -> np.ndarray:
    """Masks (R, 1, 10): the first `end` pixels of a line."""
    return np.arange(10)[None, None] < np.array(ends)[:, None, None]


def test_agreement_is_what_one_counts_on_a_line_of_pixels():
    readers = _strips(2, 4, 6, 10)  # at least two of four: 6 pixels; of the others: 6, 6, 4, 4
    network = _strips(5)
    found = reader_agreement(readers[None], network)
    assert pair_numbers(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert found.pairs[0] == pytest.approx([4 / 6, 4 / 8, 4 / 12, 8 / 10, 8 / 14, 12 / 16])
    assert found.reader_consensus[0] == pytest.approx([4 / 8, 8 / 10, 1, 12 / 16])
    assert found.reader_others[0] == pytest.approx([4 / 8, 8 / 10, 8 / 10, 8 / 14])
    assert found.network_reader[0] == pytest.approx([4 / 7, 8 / 9, 10 / 11, 10 / 15])
    assert found.network_consensus == pytest.approx([10 / 11])
    assert found.network_others[0] == pytest.approx([10 / 11, 10 / 11, 8 / 9, 8 / 9])
    assert found.complete.tolist() == [True]


def test_a_reader_has_no_part_in_the_consensus_that_it_is_compared_with():
    readers = _strips(0, 4, 4, 9)
    changed = _strips(10, 4, 4, 9)
    before, after = (reader_agreement(r[None], _strips(4)) for r in (readers, changed))
    assert before.network_others[0, 0] == after.network_others[0, 0] == 1, "the truth doesn't move with the reader"
    assert before.reader_others[0, 0] == 0
    assert after.reader_others[0, 0] == pytest.approx(8 / 14)
    assert not before.complete[0]


def test_differences_pair_nodules_and_take_the_mean_over_readers_whatever_their_order():
    rng = np.random.default_rng(0)
    readers = np.stack([_strips(*rng.integers(2, 10, 4)) for _ in range(9)])
    network = np.stack([_strips(e)[0] for e in rng.integers(2, 10, 9)])
    patients = np.arange(9) // 2
    found = reader_agreement(readers, network)
    *each, mean = found.differences(patients)
    by_hand = [dice(n, consensus(np.delete(r, 2, 0))) - dice(r[2], consensus(np.delete(r, 2, 0)))
               for n, r in zip(network, readers, strict=True)]  # fmt: skip
    assert each[2].mean_difference == pytest.approx(np.mean(by_hand))
    assert mean.mean_difference == pytest.approx(np.mean([t.mean_difference for t in each]))
    assert mean.low <= mean.mean_difference <= mean.high
    assert (mean.n, mean.groups) == (9, 5)
    shuffled = reader_agreement(readers[:, [2, 0, 3, 1]], network).differences(patients)[-1]
    assert (shuffled.mean_difference, shuffled.low) == pytest.approx((mean.mean_difference, mean.low))
    assert found.differences(patients, np.arange(9) < 4)[-1].n == 4


@pytest.mark.parametrize(
    ("readers", "network", "message"),
    [
        (np.zeros((3, 4, 8), bool), None, "nodules, at least 3 readers"),
        (np.zeros((0, 4, 8, 8), bool), None, "nodules, at least 3 readers"),
        (np.zeros((2, 2, 8, 8), bool), None, "nodules, at least 3 readers"),
        (np.zeros((2, 4, 8, 8), bool), np.zeros((2, 8, 9)), "network: masks of shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(readers, network, message):
    with pytest.raises(MetricError, match=message):
        reader_agreement(readers, network)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A perfect network (it is the consensus), one that is nothing, one that has seen its patients; two folds."""
    folder = tmp_path_factory.mktemp("doctors")
    rows = []
    for number, (key, label) in enumerate([("empty", "Empty"), ("perfect", "Perfect"), ("leak", "Leak")]):
        jobs = {}
        for fold in (0, 1):
            arrays = nodules(fold)
            for name in ("nodule_id", "patient_id"):
                arrays[name] = np.array([f"{n}-f{fold}" for n in arrays[name]])
            # Readers of the fixture differ by size alone; here each one is moved by a pixel of its own, too.
            moves = ((0, 0), (2, 0), (0, 2), (-2, -1))
            arrays["readers"] = np.stack([np.roll(arrays["readers"][:, i], m, (1, 2)) for i, m in enumerate(moves)], 1)
            middle = np.stack([consensus(r[v]) for r, v in zip(arrays["readers"], arrays["valid"], strict=True)])
            maps = noisy_maps(arrays, ("final",), number)
            maps["final"] = (middle if key != "empty" else np.zeros_like(middle)).astype(np.float16)
            job = folder / "jobs" / f"{key}-fold{fold}"
            jobs[str(fold)] = write_job(job, make_config("unet"), fold, maps, arrays)
            if key == "leak":
                path = job / "manifest.json"
                content = json.loads(path.read_text(encoding="utf-8")) | {"patients_in_training_and_test": 3}
                path.write_text(json.dumps(content), encoding="utf-8")
        rows.append({"key": key, "label": label, "paper": {}, "jobs": jobs})
    experiment = {"name": "doctors", "kind": "readers", "title": "Doctors", "profile": "tiny", "folds": [0, 1]}
    experiment |= {"options": {"network": "perfect", "paper": PAPER}, "rows": rows}
    (folder / "doctors").mkdir()
    (folder / "doctors" / "experiment.json").write_text(json.dumps(experiment), encoding="utf-8")
    return JobStore(folder)


def test_only_nodules_with_four_readers_of_patients_not_trained_on_count(results):
    rows, left_out = reader_rows(results.experiments()[0], results)
    assert [row.key for row in rows] == ["perfect", "empty"], "the option's network comes first"
    assert left_out == ["Leak was trained on patients of its test nodules and is left out."]
    four = [int((nodules(fold)["valid"].sum(1) == 4).sum()) for fold in (0, 1)]
    assert len(rows[0].nodules) == sum(four) > 0
    assert rows[0].agreement.network_consensus == pytest.approx(np.ones(sum(four)))


def test_tables_answer_whether_a_network_is_closer_than_each_reader(results):
    tables, sentences, _ = reader_tables(results, results.experiments()[0])
    pairs, against, closer = tables
    mean = np.mean([r["dice"] for r in pairs.records[:-1]])
    assert pairs.records[-1]["dice"] == pytest.approx(mean)
    assert [r["paper"] for r in pairs.records[:2]] == [70.65, None]
    by_name = {r["mask"]: r for r in against.records}
    assert by_name["Perfect"]["dice_all_four"] == 1
    assert by_name["Perfect"]["dice_all_four_paper"] == 86.35
    assert by_name["Empty"]["dice_all_four_paper"] is None, "the paper's figures are of its own network"
    assert by_name["Empty"]["dice_D1"] == 0
    assert by_name["D2"]["dice_all_four"] > by_name["D2"]["dice_others"], "being inside the consensus helps"
    for record in closer.records:
        assert record["difference"] == pytest.approx(record["network"] - record["reader_dice"])
        assert record["low"] <= record["difference"] <= record["high"]
    assert "Is Perfect closer" in sentences[0]
    assert "? Yes: closer than D1" in sentences[0]
    assert "? No: less close than D1" in sentences[1]
    assert "Perfect 100.00 %" in sentences[2]


def test_the_page_has_tables_figure_and_what_is_left_out(results, tmp_path):
    (drawn,) = FIGURES["readers"](results.experiments()[0], results)
    assert len(drawn.figure.axes) == 3
    sections, page = make_report(results.root, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert [t.name for t in sections[0].tables] == ["doctors-pairs", "doctors-consensus", "doctors-closer"]
    assert "Leak was trained on patients" in text
    assert "Is Perfect closer to the consensus" in text
    assert (tmp_path / "figures" / "doctors-agreement.svg").is_file()


def test_without_a_finished_job_there_is_nothing_to_show(results):
    experiment = results.experiments()[0]
    experiment = experiment | {"rows": [row | {"jobs": {}} for row in experiment["rows"]]}
    assert reader_tables(results, experiment) == ([], [], [])
    assert FIGURES["readers"](experiment, results) == []


def test_the_definition_shares_its_jobs_and_has_the_papers_numbers():
    doctors, others = definition.load("dsnet_readers", "compact"), definition.load("dsnet_networks", "compact")
    shared = {row.key: jobs_of(row, 0, "x") for row in others.rows}
    for row in doctors.rows[:2]:
        assert jobs_of(row, 0, "x") == shared[row.key]
    paper = doctors.options.paper
    assert np.mean(list(paper["pairs"].values())) == pytest.approx(70.34, abs=0.005)
    assert len(paper["readers"]) == len(paper["network"]) == 4


def test_outlines_are_compared_with_the_consensus_where_the_paper_does(tmp_path):
    store = JobStore(write_results(tmp_path / "results", folds=(0,)))
    experiment = next(e for e in store.experiments() if e["name"] == "table1")
    column = {}
    for measures, name in (("ugsnet", "dsc_label1"), ("dsnet", "dsc_consensus")):
        given = experiment | {"kind": "qualitative", "options": {"measures": measures, "baseline": "unet"}}
        drawn = FIGURES["qualitative"](given, store)
        scores = store.scores(store.row_jobs(experiment["rows"][-1])[0])
        known = dict(zip(scores["nodule_id"].tolist(), scores[name], strict=True))
        column[measures] = drawn[0].data["table"]
        for row in column[measures]:
            assert row["UGS-Net"] == pytest.approx(known[row["nodule"]], abs=1e-4)
        assert ("consensus" in drawn[0].caption) == (measures == "dsnet")
        assert ("reader 1" in drawn[0].caption) == (measures == "ugsnet")
        assert ("reader 1" in drawn[1].caption) == (measures == "ugsnet")
    assert column["ugsnet"] != column["dsnet"]


def test_soft_masks_are_shown_beside_their_label(tmp_path):
    arrays, rows = nodules(), []
    soft = np.stack([r[v].mean(0) for r, v in zip(arrays["readers"], arrays["valid"], strict=True)]).astype(np.float16)
    for key, maps in (("plain", {}), ("soft", {"soft": soft}), ("off", {"soft": (soft + 1) / 2})):
        config = changed(make_config("unet"), {"data": {"soft_label": "mean"}})
        job = write_job(tmp_path / "jobs" / key, config, 0, {**noisy_maps(arrays, ("final",), 0), **maps}, arrays)
        rows.append({"key": key, "label": key, "paper": {}, "jobs": {"0": job}})
    experiment = {"name": "q", "kind": "qualitative", "options": {"soft_nodules": 3, "baseline": "plain"}, "rows": rows}
    drawn = {one.name: one for one in FIGURES["qualitative"](experiment, JobStore(tmp_path))}
    table = drawn["soft-masks"].data["table"]
    assert [row["network"] for row in table] == ["soft"] * 3 + ["off"] * 3
    by_id = dict(zip(arrays["nodule_id"].tolist(), soft.astype(float), strict=True))
    for row in table:
        expected = 0 if row["network"] == "soft" else np.mean((1 - by_id[row["nodule"]]) / 2)
        assert row["mean_absolute_error"] == pytest.approx(expected, abs=1e-3)
    assert "Soft label (mean)" in drawn["soft-masks"].caption
    without = FIGURES["qualitative"]({**experiment, "rows": rows[:1]}, JobStore(tmp_path))
    assert "soft-masks" not in {one.name for one in without}
