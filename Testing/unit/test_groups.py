"""DSC by group: who belongs where, differences that agree with numpy, what is left out, the ratings' file."""

import csv
import json

import numpy as np
import pytest

from figure_jobs import make_config, nodules, noisy_maps, write_job
from report_results import write_results
from Training.experiments import characteristics, definition
from Training.report.content import make_section
from Training.report.figures import FIGURES, save
from Training.report.figures.groups import LEAST
from Training.report.figures.nodule_groups import groupings
from Training.report.store import JobError, JobStore
from training_data import write_folder

FOLDS = (0, 1)


def _columns(job, columns: dict):
    """Add columns to a job's scores.csv."""
    with (job / "scores.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        row.update({name: values[number] for name, values in columns.items()})
    with (job / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def results(tmp_path):
    """Two rows on two folds; words on every nodule, ratings beside the experiment."""
    rows, ratings = [], {}
    for number, key in enumerate(("unet", "unet_entropy")):
        jobs = {}
        for fold in FOLDS:
            arrays = nodules(fold)
            arrays["nodule_id"] = np.array([f"{n}-f{fold}" for n in arrays["nodule_id"]])
            arrays["patient_id"] = np.array([f"{n}-f{fold}" for n in arrays["patient_id"]])
            ratings |= {n: {"texture": 1.0 + i % 5} for i, n in enumerate(arrays["nodule_id"])}
            maps = noisy_maps(arrays, ("final",), number + 2 * fold)
            job = tmp_path / "jobs" / f"{key}-fold{fold}"
            jobs[str(fold)] = write_job(job, make_config("unet"), fold, maps, arrays)
            count = len(arrays["nodule_id"])
            words = {"modality": ["CT" if i % 2 else "EM" for i in range(count)], "organ": ["lung"] * count}
            _columns(job, words)
        rows.append({"key": key, "label": key, "paper": {}, "jobs": jobs})
    experiment = {"name": "groups", "kind": "groups", "title": "Groups", "profile": "tiny", "options": {}, "rows": rows}
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / characteristics.FILE).write_text(json.dumps({"nodules": ratings}), encoding="utf-8")
    return experiment, JobStore(tmp_path)


def test_every_nodule_is_in_one_group_of_each_way_to_part_them(results):
    experiment, jobs = results
    found, ids = groupings(experiment["rows"][0], experiment, jobs)
    titles = [one.title for one in found]
    assert titles[0] == "Modality"
    assert "Organ" not in titles, "all are lungs"
    assert any(title.startswith("Texture") for title in titles)
    assert {"Readers", "Diameter of the consensus", "Readers' disagreement, terciles"} <= set(titles)
    for one in found:
        assert np.array_equal(np.sum(list(one.groups.values()), axis=0), np.ones(len(ids))), one.title
    texture = next(one for one in found if one.title.startswith("Texture")).groups
    rating = np.array([1.0 + (int(n.split("-")[2]) % 5) for n in ids])
    assert np.array_equal(texture["ground glass (< 2.5)"], rating < 2.5)
    assert np.array_equal(texture["solid (> 3.5)"], rating > 3.5)


def test_means_and_differences_are_those_of_the_scores(results, tmp_path):
    experiment, jobs = results
    (one,) = FIGURES["groups"](experiment, jobs)
    table = json.loads(json.dumps(one.data, allow_nan=False))["table"]
    whole = table[0]
    assert (whole["by"], whole["nodules"], whole["patients"]) == ("All", 24, 12)
    scores = {k: [jobs.scores(r["jobs"][str(f)]) for f in FOLDS] for k, r in zip("ab", experiment["rows"], strict=True)}
    first, second = (np.concatenate([s["dsc_label1"] for s in scores[key]]) for key in "ab")
    modality = np.concatenate([s["modality"] for s in scores["a"]])
    for line in table:
        if line["by"] in ("All", "Modality"):
            chosen = np.ones(24, bool) if line["by"] == "All" else modality == line["group"]
            assert line["nodules"] == chosen.sum()
            assert line["first_mean"] == pytest.approx(first[chosen].mean(), abs=1e-4)
            assert line["difference_mean"] == pytest.approx((second - first)[chosen].mean(), abs=1e-4)
        assert line["nodules"] >= LEAST
        assert line["difference_95"][0] <= line["difference_mean"] <= line["difference_95"][1]
    assert "test folds 0, 1" in one.caption
    assert "By organ there is nothing to compare" in one.caption
    assert one.data["sentences"][0].startswith("unet_entropy minus unet: ")
    assert save(one, tmp_path / "out", ("png",))[0].stat().st_size > 10_000


def test_images_have_no_diameter_and_one_subject_no_interval(results):
    """An image may have no pixel size; sections of one block of tissue say nothing of other blocks."""
    experiment, jobs = results
    for row in experiment["rows"]:
        for fold, job in row["jobs"].items():
            count = len(jobs.scores(job)["nodule_id"])
            one = {"patient_id": [f"P{i}" if i % 2 else f"block{fold}" for i in range(count)]}
            _columns(jobs.folder(job), one)
    experiment["options"] = {"data": "images"}
    jobs = JobStore(jobs.root)
    for row in experiment["rows"]:
        row["jobs"] = {"0": row["jobs"]["0"]}
    (drawn,) = FIGURES["groups"](experiment, jobs)
    lines = {(line["by"], line["group"]): line for line in drawn.data["table"]}
    assert {by for by, _ in lines} == {"All", "Modality", "Texture (readers' mean, 1 to 5)"}
    assert lines["Modality", "EM"]["difference_95"] is None
    assert lines["Modality", "CT"]["difference_95"][0] <= lines["Modality", "CT"]["difference_mean"]
    assert "subjects" in drawn.caption
    json.dumps(drawn.data, allow_nan=False)


def test_small_groups_are_named_and_not_shown(results):
    experiment, jobs = results
    for row in experiment["rows"]:
        job = jobs.folder(row["jobs"]["1"])
        _columns(job, {"modality": ["MR"] * 3 + ["CT"] * 9})
    (one,) = FIGURES["groups"](experiment, jobs)
    assert "MR" not in {line["group"] for line in one.data["table"]}
    assert f"Left out with fewer than {LEAST} nodules: modality, MR: 3" in one.caption


def test_without_ratings_a_second_row_or_a_known_measure(results):
    experiment, jobs = results
    (jobs.root / "groups" / characteristics.FILE).unlink()
    (one,) = FIGURES["groups"](experiment, jobs)
    assert not any(line["by"].startswith("Texture") for line in one.data["table"])
    assert FIGURES["groups"]({**experiment, "rows": experiment["rows"][:1]}, jobs) == []
    with pytest.raises(JobError, match="option measures"):
        FIGURES["groups"]({**experiment, "options": {"measures": "mine"}}, jobs)


def test_the_section_has_the_figure_its_table_and_a_sentence(results):
    experiment, jobs = results
    section = make_section(jobs, experiment, FIGURES)
    assert (len(section.drawn), len(section.tables), len(section.sentences)) == (1, 1, 1)
    assert not section.problems


def test_ratings_come_from_nodules_csv(tmp_path):
    data = write_folder(tmp_path / "data", 3)
    assert not characteristics.write("mine", tmp_path / "out", data), "made-up nodules have no ratings"
    assert not (tmp_path / "out").exists()
    text = (data / "nodules.csv").read_text(encoding="utf-8").splitlines()
    more = [f"{line},{value}" for line, value in zip(text, ("texture", "4.5", "", "x"), strict=True)]
    (data / "nodules.csv").write_text("\n".join(more) + "\n", encoding="utf-8")
    assert characteristics.write("mine", tmp_path / "out", data)
    written = json.loads((tmp_path / "out" / "mine" / characteristics.FILE).read_text(encoding="utf-8"))
    assert written == {"nodules": {"N00": {"texture": 4.5}}}
    assert not characteristics.write("mine", tmp_path / "out", tmp_path), "a set of images"


def test_a_table_in_the_released_forms_stands_beside_the_first_one_if_asked_for(tmp_path):
    jobs = JobStore(write_results(tmp_path / "results", folds=(0,)))
    experiment = next(e for e in jobs.experiments() if e["kind"] == "table")
    experiment = {**experiment, "options": {"measures": "ife", "reference": "unet"}}
    plain = make_section(jobs, experiment, FIGURES).tables
    asked = {**experiment, "options": {**experiment["options"], "released": True}}
    first, released, *rest = make_section(jobs, asked, FIGURES).tables
    assert [table.name for table in plain] == [first.name, *(table.name for table in rest)]
    assert released.name == f"{experiment['name']}-released"
    for before, after in zip(first.records, released.records, strict=True):
        assert before["row"] == after["row"]
        # The wrapped error counts a missed pixel 1/255 and a wrong one whole.
        assert after["mae_released_consensus"] != before["mae_consensus"]


def test_the_table_tests_every_enhanced_network_against_its_plain_one():
    table = definition.load("ife_table1", "compact")
    rows = {row.key: row.config.network for row in table.rows}
    own = table.options.references
    assert set(own) == {key for key, network in rows.items() if network.options.get("enhance")}
    for key, plain in own.items():
        assert rows[key].name == rows[plain].name
        assert "enhance" not in rows[plain].options
