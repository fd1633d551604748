"""Spatial attention of the first block: the weights that the block uses, on its grid, and the figure's rules."""

import json

import numpy as np
import pytest
import torch

from figure_jobs import SIZE, make_config, nodules, noisy_maps, write_job
from LungNoduleUncertaintyLib import networks
from Training.experiments import definition
from Training.experiments.rows import jobs_of
from Training.report.figures import FIGURES, save
from Training.report.figures.attention import _auc, spatial_attention
from Training.report.store import JobStore
from Training.runs import build_network

TEACHER = {"width": 4, "blocks": 1}


def _network(**options):
    torch.manual_seed(0)
    network = networks.create("dsnet", width=8, levels=2, teacher=TEACHER, **options)
    layer = network.backbone.encoder[0].cbam.spatial
    layer.norm.running_var.fill_(0.01)  # so that the weights aren't all near a half
    return network


@pytest.mark.parametrize(("detail", "factor"), [("none", 1), ("sr_input", 4), ("drtm", 4)])
def test_weights_are_those_that_the_first_block_multiplies_by(detail, factor):
    network = _network(detail=detail).train()
    image = torch.rand(1, 1, 16, 16)
    seen = {}
    spatial = network.backbone.encoder[0].cbam.spatial
    handle = spatial.register_forward_hook(lambda m, i, o: seen.update(before=i[0], after=o))
    probability, weights = spatial_attention(network, image)
    handle.remove()
    assert network.training, "the mode comes back"
    assert not spatial._forward_hooks, "and the hook is gone"
    assert weights.shape == (16 * factor, 16 * factor)
    assert probability.shape == (16, 16)
    assert 0 <= weights.min() < weights.max() <= 1
    expected = seen["before"][0] * torch.from_numpy(weights)
    assert torch.allclose(expected, seen["after"][0], atol=1e-6)
    with torch.no_grad():
        final = torch.sigmoid(network.eval()(image)["final"])[0, 0]
    assert torch.equal(final, torch.from_numpy(probability)), "in evaluation mode, like a prediction"


def test_other_inputs_and_networks_are_refused():
    with pytest.raises(ValueError, match="one image"):
        spatial_attention(_network(detail="none"), torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="no spatial attention"):
        spatial_attention(networks.create("unet", in_channels=1, width=4, levels=2), torch.rand(1, 1, 16, 16))


def test_auc_is_the_chance_of_a_higher_value():
    assert _auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert _auc(np.array([0.0]), np.array([0.0])) == 0.5
    assert _auc(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75
    assert _auc(np.array([]), np.array([1.0])) is None


@pytest.fixture
def results(tmp_path):
    """Two variants with weights, a U-Net, and a job whose weights are gone."""
    arrays, rows = nodules(), []
    for key, detail in (("softgan", "none"), ("drtm", "drtm"), ("unet", None), ("lost", "none")):
        if detail is None:
            config = make_config("unet")
        else:
            options = {"detail": detail, "levels": 2}
            config = make_config("dsnet", **options, **({"teacher": TEACHER} if detail != "none" else {}))
        network = None if key == "lost" else build_network(config)
        maps = noisy_maps(arrays, ("final",), 1)
        job = write_job(tmp_path / "jobs" / f"{key}-fold0", config, 0, maps, arrays, network)
        rows.append({"key": key, "label": key, "paper": {}, "jobs": {"0": job}})
    experiment = {"name": "attention", "kind": "attention", "profile": "tiny", "options": {"nodules": 3}, "rows": rows}
    return experiment, JobStore(tmp_path)


def test_the_figure_shows_what_can_be_shown_and_names_the_rest(results, tmp_path):
    experiment, jobs = results
    (one,) = FIGURES["attention"](experiment, jobs)
    assert "unet (UNet has no spatial attention); lost (its weights aren't stored)" in one.caption
    assert "percentiles 10, 50, 90" in one.caption
    assert "width 8" in one.caption
    table = json.loads(json.dumps(one.data, allow_nan=False))["table"]
    assert [row["variant"] for row in table] == ["softgan"] * 3 + ["drtm"] * 3
    assert {row["grid"] for row in table} == {f"{SIZE}x{SIZE}", f"{4 * SIZE}x{4 * SIZE}"}
    assert len({row["nodule"] for row in table}) == 3
    for row in table:
        assert row["lowest"] <= row["mean_in_consensus"] <= row["highest"]
    assert len(one.figure.axes) == 3 * (1 + 2) + 2, "CT and two variants, a bar each"
    assert save(one, tmp_path / "out")[0].stat().st_size > 10_000
    assert FIGURES["attention"]({**experiment, "rows": []}, jobs) == []


def test_the_definition_needs_no_job_of_its_own():
    shown = definition.load("dsnet_attention", "compact")
    known = {}
    for name in ("dsnet_ablation", "dsnet_parts"):
        for row in definition.load(name, "compact").rows:
            known[jobs_of(row, 0, "x")[-1][0]] = name
    assert all(jobs_of(row, 0, "x")[-1][0] in known for row in shown.rows)
