"""Figures of the evaluation and the calibration of thresholds, on nodules whose right answer is known."""

import csv
import json

import numpy as np
import pytest

from fake_model import bright_model
from LungNoduleKit.files import write_record
from LungNoduleKit.geometry import Grid
from LungNoduleKit.records import record_dict
from Training.data.nodule import DatasetError, Nodule
from Training.evaluation.calibration import NoduleMaps, calibrate, maps_of_nodules
from Training.evaluation.folds import pool
from Training.evaluation.nodules import evaluate_nodule, nodule_image
from Training.evaluation.reader_agreement import ReaderFigures, reader_figures
from Training.evaluation.score import Score, compare, read_scores, write_scores
from Training.evaluation.summary import Evaluation, evaluation_of, summarize


def soft_ball(radius=6.0, size=40, name="N0") -> Nodule:
    """A ball whose gray values fall over 6 mm, outlined by four readers at four HU values."""
    index = np.stack(np.meshgrid(*3 * [np.arange(size) - size / 2 + 0.5], indexing="ij"))
    distance = np.sqrt((index**2).sum(0))
    hu = (-850 + 900 * np.clip((radius - distance) / 6 + 0.5, 0, 1)).astype(np.int16)
    readers = np.stack([hu >= cut for cut in (-650, -450, -350, -250)])
    return Nodule(name, f"patient of {name}", 0, hu, readers, np.ones(3))


def test_figures_of_perfect_and_empty_masks():
    nodule = soft_ball()
    inner, outer = nodule.readers.all(0), nodule.readers.any(0)
    perfect = compare(nodule, inner, outer & ~inner, nodule.consensus)
    assert (perfect.final, perfect.hc, perfect.union, perfect.width_ratio) == (1.0, 1.0, 1.0, 1.0)
    assert perfect.readers_inside == [True] * 4
    assert perfect.interval_mm3 == (inner.sum(), outer.sum())
    nothing = np.zeros_like(inner)
    empty = compare(nodule, nothing, nothing, nothing)
    assert (empty.final, empty.hc, empty.union) == (0.0, 0.0, 0.0)
    assert summarize([perfect, empty]).failures == 0.5
    assert summarize([perfect, empty]).final == 0.5


def test_coverage_counts_reader_volumes():
    nodule = soft_ball()
    order = np.argsort(nodule.readers.sum((1, 2, 3)))
    small, large = nodule.readers[order[1]], nodule.readers[order[2]]
    score = compare(nodule, small, large & ~small, small)
    assert sum(score.readers_inside) == 2
    assert summarize([score]).coverage == 0.5
    assert 0 < score.width_ratio < 1


def test_the_readers_row_leaves_the_reader_out():
    nodule = soft_ball()
    same = Nodule("same", "p", 0, nodule.hu, np.stack([nodule.consensus] * 4), np.ones(3))
    assert reader_figures([same]).final == 1.0
    assert reader_figures([same]).coverage == 1.0
    assert 0.5 < reader_figures([nodule]).final < 1.0
    # The smallest and the largest of four nested outlines lie outside of what the other three span.
    assert reader_figures([nodule]).coverage == 0.5


def test_evaluation_goes_through_the_product(tmp_path):
    nodules = [soft_ball(r, name=f"N{r}") for r in (5.0, 7.0)]
    scores = [evaluate_nodule(n, bright_model(), jitter=3) for n in nodules]
    for score in scores:
        assert min(score.final, score.hc, score.union) > 0.95
        assert score.jitter == 1.0
        assert not score.error
    table = evaluation_of(scores, nodules, model="bright", data="balls", slices="cubes")
    assert table.four.nodules == table.all.nodules == 2
    assert table.four.coverage == 1.0
    write_scores(tmp_path / "scores.csv", scores)
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["nodule_id"] for row in rows] == ["N5.0", "N7.0"]
    assert float(rows[0]["final"]) == pytest.approx(scores[0].final, abs=1e-4)
    again = record_dict(summarize(read_scores(tmp_path / "scores.csv")))
    assert again == pytest.approx(record_dict(summarize(scores)), abs=1e-4)


def test_a_table_that_isnt_one_is_named(tmp_path):
    (tmp_path / "other.csv").write_text("nodule_id,final\nN0,much\n")
    with pytest.raises(DatasetError, match=r"other.csv: isn't an evaluation's table"):
        read_scores(tmp_path / "other.csv")


def test_pooled_folds_count_every_nodule_once(tmp_path):
    """Means over all nodules of both folds, whose sizes differ; patients are drawn whole for the interval."""
    paths = []
    for fold, dices in enumerate([(0.8, 0.6), (0.7,)]):
        rows = [
            Score(f"N{fold}{i}", f"P{fold}{i}", 4, 9.0, d, d, d, [True, False], (1.0, 3.0), (1.0, 2.0), 0.2)
            for i, d in enumerate(dices)
        ]
        paths.append(tmp_path / f"{fold}.json")
        write_scores(paths[-1].with_suffix(".csv"), rows)
        readers, own = ReaderFigures(fold / 2, 0.5, len(rows)), summarize(rows)
        groups = {"four": own, "all": own, "human_four": readers, "human_all": readers}
        write_record(paths[-1], Evaluation(data="d", fold=fold, model="m", slices="cubes", **groups))
    pooled = pool(paths)
    assert pooled.four.final == pytest.approx(0.7)
    assert pooled.four.final_interval == pytest.approx([0.6, 0.8], abs=0.001)
    assert pooled.four.final_folds_sd == pytest.approx(0.0)
    assert pooled.four.coverage_interval == (0.5, 0.5)
    assert pooled.four.width_ratio == 2.0
    assert pooled.human_four == ReaderFigures(pytest.approx(1 / 6), pytest.approx(0.5), 3)
    assert [fold.fold for fold in pooled.folds] == [0, 1]
    assert pool(paths[1:]).four.final_interval is None  # of one patient
    with pytest.raises(DatasetError, match=r"0.json: N00 \(and 1 more\) are in an earlier evaluation too"):
        pool([*paths, paths[0]])
    assert pooled.slices == "cubes"
    paths[1].write_text(json.dumps({**json.loads(paths[1].read_text()), "slices": "native"}))
    with pytest.raises(DatasetError, match=r"1.json: some were measured on native slices and others on cubes"):
        pool(paths)
    paths[0].write_text("{}")
    with pytest.raises(DatasetError, match=r"0.json: lacks 'model', 'data', 'slices', 'four'"):
        pool(paths)
    paths[0].write_text(json.dumps({**json.loads(paths[1].read_text()), "median": 1.0}))
    with pytest.raises(DatasetError, match=r"0.json: unknown key 'median'"):
        pool(paths)
    paths[0].unlink()
    with pytest.raises(DatasetError, match=r"0.json: it can't be read \(No such file"):
        pool(paths)


def test_nothing_found_is_a_failure_and_not_left_out():
    nodule = soft_ball()
    dark = Nodule("dark", "p", 0, np.full_like(nodule.hu, -900), nodule.readers, np.ones(3))
    score = evaluate_nodule(dark, bright_model(), jitter=2)
    assert score.final == score.jitter == 0.0
    assert "no nodule found" in score.error
    assert summarize([score]).errors == 1


def test_calibration_finds_the_thresholds():
    """The bright model's maps are steep around fixed HU values; readers drawn elsewhere move the thresholds there."""
    nodules = [soft_ball(r, name=f"N{r}") for r in (5.0, 6.0, 7.0)]
    maps = maps_of_nodules(bright_model(), nodules, progress=False)
    thresholds, slopes, figures = calibrate(maps, coverage=0.9, width=1.3, progress=False)
    assert slopes == {}  # this model needs none, and the simplest that is as good wins
    assert figures.final > 0.95
    assert figures.hc > 0.95
    assert figures.coverage >= 0.9
    hc, lc, final = maps[0].masks(thresholds)
    assert hc.shape == nodules[0].hu.shape
    assert not (hc & lc).any()
    assert not (hc & ~final).any()
    lower = {**thresholds, "union": 0.1, "intersection": 0.9}
    wide_hc, wide_lc, _ = maps[0].masks(lower)
    assert (wide_hc | wide_lc).sum() >= (hc | lc).sum()
    assert wide_hc.sum() <= hc.sum()


def test_calibration_finds_the_slope_for_size():
    """An intersection whose outline lies at a logit that falls by 0.8 with every doubling of the diameter: after
    calibration one threshold fits all sizes, without it none does.
    """
    cases, grid = [], np.stack(np.meshgrid(*3 * [np.arange(48) - 23.5], indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    for radius in (3.0, 4.0, 6.0, 8.0, 12.0):
        outlines = {"union": radius + 1.5, "final": radius, "intersection": radius - 1.5}
        shift = 0.8 * np.clip(np.log2(2 * radius / 8), -1, 2)
        logits = {name: r - distance - (shift if name == "intersection" else 0) for name, r in outlines.items()}
        maps = {name: (1 / (1 + np.exp(-logit))).astype(np.float32) for name, logit in logits.items()}
        readers = np.stack([distance < outlines[name] for name in ("intersection", "final", "final", "union")])
        nodule = Nodule(f"N{radius}", f"P{radius}", 0, np.zeros(readers.shape[1:], np.int16), readers, np.ones(3))
        region = Grid.of(nodule_image(nodule))
        cases.append(NoduleMaps(nodule, region, maps, (distance < radius).astype(np.float32), 2 * radius))
    thresholds, slopes, figures = calibrate(cases, coverage=1.0, width=1.05, progress=False)
    assert slopes == {"intersection": 0.8}
    assert figures.hc > 0.99
    assert figures.union > 0.99
    plain = [compare(c.nodule, *c.masks(thresholds)) for c in cases]
    assert np.mean([s.hc for s in plain]) < 0.95
    assert thresholds["final"] == pytest.approx(0.5, abs=0.03)
