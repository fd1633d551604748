"""Which channels are enhanced: scores and picks as the network's own, agreement against scipy, the figures' rules."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from figure_jobs import make_config, nodules, noisy_maps, write_job
from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks import feature_enhancement as ife
from Training.experiments import definition
from Training.experiments.rows import jobs_of
from Training.report.figures import FIGURES, save
from Training.report.figures.channel_scores import (
    ALONE,
    FORMS,
    NONZERO,
    PAIRS,
    common_share,
    contrast,
    cut_by_tie,
    enhanced_places,
    on_grid,
    picks,
    place_name,
    rank_correlation,
    steadiness,
)
from Training.report.store import JobStore
from Training.runs import build_network

MASKS = np.zeros((5, 32, 32), bool)
MASKS[:, 10:20, 12:22] = True
ENTROPY = {"name": "unet", "enhance": "entropy", "enhance_ratios": [0.5, 0.25]}


def _network(**options):
    torch.manual_seed(0)
    return networks.create("unet", width=8, levels=4, **options)


def test_scores_and_picks_are_those_of_the_running_network():
    network, images = _network(enhance="entropy", enhance_ratios=[0.5, 0.25]).train(), torch.rand(5, 1, 32, 32)
    places = enhanced_places(network, images, MASKS[:5], "unet", kept=(0, 4))
    assert network.training, "the mode comes back"
    assert not any(module._forward_pre_hooks for module in network.modules())
    with ife.record_selection(network.eval()) as picked, torch.no_grad():
        network(images)
    assert [place.name for place in places] == ["skip 2", "skip 3"]
    for place, selection in zip(places, (picked["backbone.enhance.1"], picked["backbone.enhance.2"]), strict=True):
        assert (place.own, place.count) == ("entropy", selection.channels.shape[1])
        np.testing.assert_allclose(place.scores["entropy"], selection.scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(place.scores["curvature"], ife.curvature_scores(selection.features), rtol=1e-4)
        own = np.zeros((5, place.channels), bool)
        np.put_along_axis(own, selection.channels.numpy(), True, axis=1)
        assert np.array_equal(picks(place.scores["entropy"], place.count), own), "ties included"
        assert sorted(place.features) == [0, 4]
        np.testing.assert_allclose(place.features[4], selection.features[4], rtol=1e-4, atol=1e-5)
        assert place.size == tuple(selection.features.shape[2:])
        zeros = (selection.features != 0).float().mean((2, 3))
        np.testing.assert_allclose(place.scores[NONZERO], zeros, atol=1e-6)


def test_the_batch_rules_one_form_alone():
    network = _network(enhance="entropy")
    images = torch.rand(4, 1, 32, 32) * torch.tensor([1.0, 1.0, 1.0, 30.0])[:, None, None, None]
    whole, single = (enhanced_places(network, images, MASKS[:4], "unet", batch=n)[0].scores for n in (4, 1))
    histogram = FORMS["hist_batch"]
    assert np.abs(whole[histogram] - single[histogram]).max() > 0.1
    np.testing.assert_allclose(single[histogram], single[ALONE], atol=1e-6)
    np.testing.assert_allclose(whole[ALONE], single[ALONE], atol=1e-6)
    for criterion in ("curvature", "entropy", FORMS["unique"]):
        np.testing.assert_allclose(whole[criterion], single[criterion], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"enhance": "curvature", "enhance_ratios": [1.0, 1.0]}])
def test_no_place_where_there_is_no_choice(options):
    assert enhanced_places(_network(**options), torch.rand(2, 1, 32, 32), MASKS[:2], "unet") == []


def test_maps_that_are_too_small_for_scores_are_no_place():
    torch.manual_seed(0)
    network = networks.create("sinet_v2", width=16, enhance="entropy")
    places = enhanced_places(network, torch.rand(2, 1, 64, 64), np.ones((2, 64, 64), bool), "sinet_v2")
    assert [(place.name, place.size) for place in places] == [("texture x3", (4, 4)), ("texture x2", (8, 8))]


def test_place_names():
    assert place_name("nnunet", "enhance.2") == "skip 3"
    assert place_name("deeplabv3plus", "enhance.0") == "low level"
    assert place_name("sinet_v2", "enhance.2") == "texture x2"
    assert place_name("mine", "enhance.0") == "enhance.0"


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (4, 30)), rng.normal(size=(4, 30))
    b[3] = 1.0
    found = rank_correlation(a, b)
    assert found[:3] == pytest.approx([spearmanr(x, y).statistic for x, y in zip(a[:3], b[:3], strict=True)])
    assert np.isnan(found[3]), "a constant has no order"


def test_contrast_is_that_of_the_nodule_in_a_map():
    inside = on_grid(MASKS[0], (16, 16))
    assert inside.reshape(16, 16)[5:10, 6:11].all()
    assert inside.sum() == 25
    rng = np.random.default_rng(0)
    maps = np.stack([inside * 1.0, 1.0 - inside, np.zeros(256), rng.normal(size=256)])
    found = contrast(maps, inside)
    assert found[:3].tolist() == [1, 1, 0]
    higher = (maps[3][inside][:, None] > maps[3][~inside]).mean()
    assert found[3] == pytest.approx(abs(2 * higher - 1), abs=1e-6)
    assert contrast(maps, np.zeros(256, bool)).tolist() == [0] * 4, "no nodule, no contrast"
    small = np.zeros((32, 32), bool)
    small[8, 8] = True
    assert on_grid(small, (8, 8)).sum() == 1, "a nodule smaller than a pixel is one pixel"
    assert not on_grid(np.zeros((32, 32), bool), (8, 8)).any()


def test_picks_shares_and_steadiness():
    scores = np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    picked = picks(scores[:2], 2)
    assert picked.tolist() == [[True, False, True, False], [True, True, False, False]]
    assert picks(scores, 2).sum(1).tolist() == [2, 2, 2]
    assert cut_by_tie(scores, 2) == pytest.approx(1 / 3)
    picked = np.vstack([picked, picked[1]])
    assert common_share(scores[:2], scores[[1, 1]], 2).tolist() == [0.5, 1.0]
    found = steadiness(picked)
    assert (found["always_picked"], found["never_picked"]) == (1, 1)
    assert found["shared_by_two"] == pytest.approx(np.mean([0.5, 0.5, 1.0]))
    assert steadiness(picked[:1])["shared_by_two"] is None


@pytest.fixture
def results(tmp_path):
    arrays, rows = nodules(), []
    specs = {"plain": {"name": "unet"}, "entropy": ENTROPY, "curvature": {**ENTROPY, "enhance": "curvature"}}
    for key, network in {**specs, "lost": ENTROPY}.items():
        config = make_config(**network, **({"levels": 4} if key != "plain" else {}))
        torch.manual_seed(1)
        weights = None if key == "lost" else build_network(config)
        maps = noisy_maps(arrays, ("final",), 1)
        job = write_job(tmp_path / "jobs" / f"{key}-fold0", config, 0, maps, arrays, weights)
        rows.append({"key": key, "label": f"U-Net {key}", "paper": {}, "jobs": {"0": job}})
    options = {"nodules": 1, "shown": ["entropy"]}
    experiment = {"name": "channels", "kind": "channels", "profile": "tiny", "options": options, "rows": rows}
    return experiment, JobStore(tmp_path)


def test_the_figures_show_what_was_asked_for_and_name_the_rest(results, tmp_path):
    experiment, jobs = results
    maps, ranking, agreement = FIGURES["channels"](experiment, jobs)
    assert (maps.name, ranking.name, agreement.name) == ("maps-entropy", "ranking-entropy", "agreement")
    assert "U-Net plain (no choice of channels); U-Net lost (its weights aren't stored)" in agreement.caption
    assert "percentile 50 of the readers' disagreement" in maps.caption
    data = [json.loads(json.dumps(one.data, allow_nan=False)) for one in (maps, ranking, agreement)]
    shown = data[0]["table"]
    assert len(shown) == 1 * 2 * 2 * 6, "nodules, places, criteria, maps"
    for one in shown:
        others = [o for o in shown if all(o[k] == one[k] for k in ("nodule", "place", "criterion"))]
        assert all(o["score"] <= one["score"] for o in others if o["rank"] > one["rank"])
    assert len(maps.figure.axes) == 2 * 13
    assert [(r["place"], r["criterion"], r["picked"]) for r in data[1]["table"]] == [
        ("skip 2", "curvature", 8), ("skip 2", "entropy", 8), ("skip 3", "curvature", 8), ("skip 3", "entropy", 8),
    ]  # fmt: skip
    assert len(data[1]["channels"]) == 16 + 32
    for place, count in (("skip 2", 8), ("skip 3", 8)):
        own = [r["entropy_picked_share"] for r in data[1]["channels"] if r["place"] == place]
        assert sum(own) == pytest.approx(count, abs=0.01)
    assert len(data[1]["sentences"]) == 2, "of its own criterion"
    assert len(data[2]["table"]) == 2 * 2 * len(PAIRS)
    for one in data[2]["table"]:
        assert one["spearman"] is None or -1 <= one["tenth_percentile"] <= one["ninetieth_percentile"] <= 1
        assert 0 <= one["picked_by_both"] <= 1
    for one in (maps, ranking, agreement):
        assert save(one, tmp_path / "out", ("png",))[0].stat().st_size > 10_000
    assert FIGURES["channels"]({**experiment, "rows": []}, jobs) == []


def test_the_definition_needs_no_job_of_its_own():
    known = {jobs_of(row, 0, "x")[-1][0] for row in definition.load("ife_table1", "compact").rows}
    for name in ("ife_channels", "ife_groups", "ife_qualitative"):
        assert {jobs_of(row, 0, "x")[-1][0] for row in definition.load(name, "compact").rows} <= known
