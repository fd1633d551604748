"""Figures of the experiments: chosen by rule, whole files, numbers that agree with scipy."""

import copy
import json

import numpy as np
import pytest
import torch

from figure_jobs import COUNT, SIZE, UNCERTAIN, make_config, nodules, noisy_maps, write_job
from LungNoduleKit.errors import OutputError
from Training.report.figures import FIGURES, Drawn, complex_nodules, save
from Training.report.figures.cases import Case, common_fold, evenly, load_cases, quantile_picks, uncertainty_row
from Training.report.figures.densities import (
    HIGHEST_HU,
    LOWEST_HU,
    STORED_STEP_HU,
    bandwidth_hu,
    compare,
    distances,
    histograms,
    kernel_density,
    nodule_means,
    paired,
    regions,
)
from Training.report.figures.gallery import multi_confidence_mask
from Training.report.figures.style import field_of_view
from Training.report.store import JobStore
from Training.runs import build_network


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """An output folder: a baseline with a second seed, V1 and UGS-Net on fold 0, UGS-Net on fold 1 too."""
    folder = tmp_path_factory.mktemp("results")
    rows = []
    specs = {
        "unet": ("U-Net", "attention_unet", ("final",)),
        "unet_seed2": ("U-Net, second seed", "attention_unet", ("final",)),
        "ugsnet_v1": ("UGS-Net-V1", "ugsnet_v1", UNCERTAIN),
        "ugsnet": ("UGS-Net", "ugsnet", UNCERTAIN),
    }
    for number, (key, (label, name, maps)) in enumerate(specs.items()):
        torch.manual_seed(number)
        config, jobs = make_config(name), {}
        network = build_network(config).eval()
        for fold in (0, 1) if key == "ugsnet" else (0,):
            arrays = nodules(fold)
            arrays["nodule_id"] = np.array([f"{n}-f{fold}" for n in arrays["nodule_id"]])
            arrays["patient_id"] = np.array([f"{n}-f{fold}" for n in arrays["patient_id"]])
            job = folder / "jobs" / f"{key}-fold{fold}"
            jobs[str(fold)] = write_job(job, config, fold, noisy_maps(arrays, maps, number), arrays, network)
        rows.append({"key": key, "label": label, "paper": {}, "jobs": jobs, "failed": {"2": "no memory"}})
    rows.append({"key": "late", "label": "Not done", "paper": {}, "jobs": {"0": "late-fold0"}})
    options = {"baseline": "unet", "ours": "ugsnet", "control": "unet_seed2"}
    for kind in FIGURES:
        experiment = {"name": kind, "kind": kind, "profile": "compact", "folds": [0], "options": options, "rows": rows}
        (folder / kind).mkdir()
        (folder / kind / "experiment.json").write_text(json.dumps(experiment), encoding="utf-8")
    return JobStore(folder)


def experiment_of(jobs, kind: str) -> dict:
    return copy.deepcopy(next(e for e in jobs.experiments() if e["kind"] == kind))


ELSEWHERE = {"super_resolution", "attention", "readers", "time", "channels", "groups"}  # have tests of their own


@pytest.mark.parametrize("kind", sorted(set(FIGURES) - ELSEWHERE))
def test_every_kind_draws_says_how_nodules_were_chosen_and_gives_numbers_that_fit_json(kind, results, tmp_path):
    import sys

    before = {name: module for name, module in sys.modules.items() if name == "matplotlib.pyplot"}
    experiment = experiment_of(results, kind)
    experiment["options"]["nodules"] = 2
    drawn = FIGURES[kind](experiment, results)
    assert drawn
    for one in drawn:
        assert isinstance(one, Drawn)
        assert "fold" in one.caption
        assert "width 8" in one.caption
        assert "HU" in one.caption
        assert one.figure.get_size_inches()[0] <= 12
        assert json.loads(json.dumps(one.data, allow_nan=False))["table"]
        paths = save(one, tmp_path / kind)
        assert paths[0].read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in paths[1].read_bytes()[:600]
        assert sorted(p.name for p in (tmp_path / kind).glob(".*")) == []
    assert len({one.name for one in drawn}) == len(drawn)
    if kind == "gradcam":
        variants = {row["variant"] for row in drawn[0].data["table"]}
        assert variants == {"U-Net", "U-Net, second seed", "UGS-Net-V1", "UGS-Net"}
    assert {name for name in sys.modules if name == "matplotlib.pyplot"} == set(before), "pyplot keeps figures alive"


def test_a_figure_that_cannot_be_written_leaves_what_was_there(results, tmp_path):
    one = FIGURES["densities"](experiment_of(results, "densities"), results)[0]
    first = save(one, tmp_path)
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in save(one, tmp_path)] == before, "the same figure gives the same bytes"

    class Broken:
        def savefig(self, path, **options):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        save(Drawn(one.name, "", "", Broken()), tmp_path)
    assert [path.read_bytes() for path in first] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_is_drawn_without_finished_jobs(results):
    for kind, draw in FIGURES.items():
        experiment = experiment_of(results, kind)
        experiment["rows"] = [row for row in experiment["rows"] if row["key"] == "late"]
        assert draw(experiment, results) == []
    experiment["rows"] = []
    assert complex_nodules(experiment, results) == []


# -- what is shown -----------------------------------------------------------------------------------------------------
def test_nodules_are_picked_at_quantiles_of_the_values_alone():
    values = {f"n{i:02d}": float(i) for i in range(21)} | {"none": float("nan")}
    assert quantile_picks(values, [0, 0.5, 1]) == ["n00", "n10", "n20"]
    assert quantile_picks(dict(reversed(values.items())), [0.26, 0.24]) == ["n05"]
    assert quantile_picks({"b": 1.0, "a": 1.0}, [0.0, 1.0]) == ["a", "b"]
    assert quantile_picks({}, [0.5]) == []
    assert evenly(3, 0.0, 1.0) == [0.0, 0.5, 1.0]
    assert evenly(1, 0.2, 0.4) == pytest.approx([0.3])


def test_the_fold_that_most_rows_have_is_compared_and_unfinished_rows_stay_out(results):
    fold, rows = common_fold(experiment_of(results, "qualitative"), results)
    assert fold == 0
    assert [row["key"] for row in rows] == ["unet", "unet_seed2", "ugsnet_v1", "ugsnet"]


def test_maps_are_of_a_network_that_predicts_union_and_intersection(results):
    experiment = experiment_of(results, "gallery")
    assert uncertainty_row(experiment, results)["key"] == "ugsnet"
    experiment["options"] = {"row": "unet"}
    assert uncertainty_row(experiment, results)["key"] == "ugsnet"
    experiment["rows"] = experiment["rows"][:2]
    assert uncertainty_row(experiment, results) is None


def test_readers_who_do_not_exist_take_no_part(results):
    for case in load_cases("ugsnet-fold0", results):
        assert len(case.readers) == 2 + int(case.nodule_id.split("-")[2]) % 3
        assert case.all_readers.any()
        assert 0 < case.disagreement < 1


def test_gallery_orders_by_disagreement_and_shows_the_mean_of_union_and_intersection(results):
    experiment = experiment_of(results, "gallery")
    experiment["options"]["nodules"] = 5
    one = FIGURES["gallery"](experiment, results)[0]
    shown = [row["disagreement"] for row in one.data["table"]]
    assert len(shown) == 5
    assert shown == sorted(shown)
    case = load_cases("ugsnet-fold0", results)[3]
    mask = multi_confidence_mask(case)
    assert mask.max() <= 1
    assert mask[16, 16] == pytest.approx((case.maps["union"][16, 16] + case.maps["intersection"][16, 16]) / 2)


def test_qualitative_includes_the_worst_decile_and_prints_the_scored_dice(results):
    one, worst = FIGURES["qualitative"](experiment_of(results, "qualitative"), results)
    baseline = [row["U-Net"] for row in one.data["table"]]
    assert baseline == sorted(baseline)
    table = results.scores("unet-fold0")
    assert baseline[0] <= np.quantile(table["dsc_label1"], 0.1)
    printed = {text.get_text() for axes in one.figure.axes for text in axes.texts}
    for key, label in (("unet", "U-Net"), ("unet_seed2", "U-Net, second seed"), ("ugsnet", "UGS-Net")):
        scored = results.scores(f"{key}-fold0")
        by_id = dict(zip(scored["nodule_id"], scored["dsc_label1"], strict=True))
        for row in one.data["table"]:
            assert row[label] == pytest.approx(by_id[row["nodule"]], abs=1e-4)
            assert f"{100 * by_id[row['nodule']]:.1f}" in printed
    lowest = sorted(table["dsc_label1"])[:6]
    assert [row["U-Net"] for row in worst.data["table"]] == pytest.approx(lowest, abs=1e-4)
    assert list(worst.data["mean_dsc"]) == ["unet", "ugsnet", "unet_seed2"]
    assert "Selected on U-Net's failures" in worst.caption
    assert "control" in worst.caption


def test_field_of_view_is_square_in_mm_holds_the_masks_and_stays_in_the_grid():
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 2:12, 5:9] = True
    masks[1, 2:6, 20:31] = True
    (top, bottom), (left, right) = field_of_view(masks, (0.5, 0.8))
    assert (bottom - top) * 0.5 == pytest.approx((right - left) * 0.8)
    assert -0.5 <= top <= 1.5
    assert bottom >= 11.5
    assert left <= 4.5
    assert 30.5 <= right <= 63.5
    assert field_of_view(np.zeros((1, 8, 9), bool), (1, 1)) == ((-0.5, 7.5), (-0.5, 8.5))


# -- densities ---------------------------------------------------------------------------------------------------------
def pixels(cases, name):
    return np.concatenate([case.hu[regions(case)[name]] for case in cases])


def test_distances_equal_scipys_on_the_pixels_themselves(results):
    from scipy import stats

    cases = load_cases("ugsnet-fold0", results)
    counts = histograms(cases)
    table = {row["compared"]: row for row in compare(counts, [case.patient_id for case in cases])}
    for label, first, second in (
        ("HC, real and predicted", "real HC", "predicted HC"),
        ("HC and LC, real", "real HC", "real LC"),
    ):
        x, y = pixels(cases, first), pixels(cases, second)
        ks, wasserstein = distances(counts[first].sum(0), counts[second].sum(0))
        assert ks == pytest.approx(stats.ks_2samp(x, y).statistic)
        assert wasserstein == pytest.approx(stats.wasserstein_distance(x, y))
        row = table[label]
        assert row["pixels"] == [len(x), len(y)]
        assert row["ks"] == pytest.approx(ks, abs=1e-4)
        assert row["ks_95"][0] <= row["ks"] <= row["ks_95"][1] * 1.2


def test_distances_equal_those_of_the_metrics(results):
    from Training.metrics import stats as statistics

    cases = load_cases("ugsnet-fold0", results)
    counts = histograms(cases)
    found = statistics.distribution_distance(pixels(cases, "real LC"), pixels(cases, "predicted LC"))
    ours = distances(counts["real LC"].sum(0), counts["predicted LC"].sum(0))
    assert [float(v) for v in ours] == pytest.approx([found.ks, found.wasserstein])


def test_regions_are_disjoint_and_make_up_the_union(results):
    case = load_cases("ugsnet-fold0", results)[5]
    parts = regions(case)
    assert not (parts["real HC"] & parts["real LC"]).any()
    assert np.array_equal(parts["real HC"] | parts["real LC"], case.readers.any(0))
    assert not (parts["predicted HC"] & parts["predicted LC"]).any()


def test_kernel_density_integrates_to_one_and_is_no_finer_than_the_stored_steps():
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    comb = np.where((hu > -800) & (hu < 100) & ((hu - 3) % 5 == 0), 100_000, 0)  # steps, as 8 bits leave them
    one_value = np.where(hu == 0, 100, 0)
    assert bandwidth_hu({"real HC": one_value}) == STORED_STEP_HU
    density = kernel_density(comb, STORED_STEP_HU)
    assert density.sum() == pytest.approx(1, abs=1e-6)
    inside = density[(hu > -750) & (hu < 50)]
    assert inside.max() / inside.min() < 1.001, "the steps would show as a comb"
    spread = np.sqrt((kernel_density(one_value, 20.0) * hu**2).sum())
    assert spread == pytest.approx(20, rel=0.01)


def test_nodule_means_are_paired_and_nodules_without_a_predicted_pixel_are_counted(results):
    cases = load_cases("ugsnet-fold0", results)
    cases[0].maps["intersection"] = np.zeros_like(cases[0].maps["intersection"])
    means = nodule_means(histograms(cases))
    assert means["real HC"][3] == pytest.approx(cases[3].hu[cases[3].all_readers].mean())
    hc, lc = paired(means)
    assert (hc["region"], hc["nodules"], hc["only_real"]) == ("HC", COUNT - 1, 1)
    assert lc["nodules"] == COUNT
    difference = (means["predicted HC"] - means["real HC"])[1:]
    assert hc["bias_hu"] == pytest.approx(difference.mean(), abs=0.01)
    assert hc["sd_hu"] == pytest.approx(difference.std(ddof=1), abs=0.01)


def test_densities_pool_every_fold_and_survive_a_network_that_predicts_nothing(results, tmp_path):
    one = FIGURES["densities"](experiment_of(results, "densities"), results)[0]
    assert one.data["folds"] == [0, 1]
    assert one.data["nodules"] == 2 * COUNT
    assert "clipped above 300" in one.caption
    arrays, config = nodules(), make_config("ugsnet")
    empty = {name: np.zeros((COUNT, SIZE, SIZE), np.float16) for name in UNCERTAIN}
    with np.errstate(invalid="ignore"):
        job = write_job(tmp_path / "jobs" / "empty-fold0", config, 0, empty, arrays)
    experiment = {"name": "x", "rows": [{"key": "ugsnet", "label": "UGS-Net", "jobs": {"0": job}}]}
    table = FIGURES["densities"](experiment, JobStore(tmp_path))[0].data
    assert table["table"][0]["ks"] is None
    json.dumps(table, allow_nan=False)


def test_a_slice_without_any_reader_has_no_disagreement():
    case = Case("n", "p", 5.0, np.zeros((4, 4), np.int16), np.zeros((2, 4, 4), bool), np.ones(2), {})
    assert np.isnan(case.disagreement)
