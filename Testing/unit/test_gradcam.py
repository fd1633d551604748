"""Grad-CAM: maps that can be checked by hand, on the right layers, of a network that is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from figure_jobs import make_config, nodules, noisy_maps, write_job
from LungNoduleUncertaintyLib import networks
from Training.config import changed
from Training.report.figures import FIGURES
from Training.report.figures.gradcam import grad_cams
from Training.report.store import JobStore
from Training.runs import build_network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return networks.create("ugsnet", width=8, levels=3)


def biased(network, value: float):
    """The network with its last layer's bias shifted, so that something (or nothing) is predicted."""
    with torch.no_grad():
        network.head[-1].bias.fill_(value)
    return network


def test_maps_have_the_inputs_size_and_lie_between_0_and_1(network):
    probability, cams = grad_cams(biased(network, 0.5), torch.rand(1, 1, 32, 48))
    assert probability.shape == (32, 48)
    assert len(cams) == 3
    for cam in cams:
        assert cam.map.shape == (32, 48)
        assert cam.map.min() >= 0
        assert cam.map.max() == pytest.approx(1) if cam.peak > 0 else cam.map.max() == 0
    assert any(cam.peak > 0 for cam in cams)


def test_layers_are_the_last_three_before_the_output_and_branches_count_as_one(network):
    _, cams = grad_cams(biased(network, 0.5), torch.rand(1, 1, 32, 32))
    assert [cam.layers for cam in cams] == [
        ("head.0.3",),
        ("head.0.0",),
        ("branch.single.0", "branch.union.0", "branch.intersection.0"),
    ]
    plain = networks.create("attention_unet", width=8, levels=3)
    _, cams = grad_cams(plain, torch.rand(1, 1, 32, 32))
    assert [cam.layers for cam in cams] == [
        ("backbone.decoder.1.3",),
        ("backbone.decoder.1.0",),
        ("backbone.up.1.1",),
    ]


@pytest.mark.parametrize("mode", [True, False])
def test_a_network_comes_back_as_it_was(network, mode):
    network.train(mode)
    network.branch.eval()  # a part in another mode keeps its own
    network.backbone.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grad_cams(network, torch.rand(1, 1, 32, 32))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_hooks_and_mode_go_back_when_the_network_fails(network):
    network.train()
    with pytest.raises(ValueError, match="multiples of"):
        grad_cams(network, torch.rand(1, 1, 30, 30))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match="one image"):
        grad_cams(network, torch.rand(2, 1, 32, 32))


def test_nothing_predicted_gives_maps_of_zero(network):
    probability, cams = grad_cams(biased(network, -50.0), torch.rand(1, 1, 32, 32))
    assert probability.max() < 0.5
    assert [cam.map.max() for cam in cams] == [0, 0, 0]


class Known(nn.Module):
    """A convolution that copies the image, an in-place activation, and a 3x3 layer as output: the CAM is known."""

    def __init__(self, weight: float = 2.0):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.unused = nn.Conv2d(1, 1, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.out = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            for layer, value in ((self.first, 1.0), (self.out, weight)):
                layer.weight.zero_()
                layer.weight[0, 0, 1, 1] = value

    def forward(self, x):
        features = self.first(x)
        self.unused(features)
        return {"final": self.out(self.activation(features))}


def test_a_known_networks_map_is_the_feature_map_before_the_activation():
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 2:5, 3:6] = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    network = Known()
    with torch.inference_mode(False), torch.no_grad():  # a caller's no_grad doesn't matter
        _, cams = grad_cams(network, image)  # a final of 0 is 0.5: all pixels are in the mask
    assert [cam.layers for cam in cams] == [("first",)], "neither the output layer nor one that doesn't feed it"
    # d target / d feature is 2 on the 9 positive pixels of 64: the channel's weight is 18 / 64.
    assert cams[0].peak == pytest.approx(9 * 18 / 64)
    assert np.allclose(cams[0].map, image.relu()[0, 0].numpy() / 9)


def test_a_figure_says_which_networks_it_left_out_and_why(tmp_path):
    arrays, rows = nodules(), []
    for key, change in (("good", {}), ("stack", {"slice_offsets": [-1, 0, 1]}), ("bare", {})):
        config = changed(make_config("attention_unet"), {"input": change})
        network = build_network(config).eval() if key != "bare" else None
        job = write_job(
            tmp_path / "jobs" / f"{key}-fold0", config, 0, noisy_maps(arrays, ("final",), 0), arrays, network
        )
        rows.append({"key": key, "label": key, "jobs": {"0": job}})
    experiment = {"name": "x", "rows": rows, "options": {"nodules": 1}}
    caption = FIGURES["gradcam"](experiment, JobStore(tmp_path))[0].caption
    assert "stack (it takes more than the one slice" in caption
    assert "bare (its weights aren't stored)" in caption


def test_gradcam_reproduces_the_stored_prediction(tmp_path):
    config, arrays = make_config("ugsnet"), nodules()
    network = build_network(config).eval()
    with torch.no_grad():
        image = (torch.from_numpy(arrays["hu"]).float()[:, None].clip(-1000, 300) + 1000) / 1300
        maps = {k: torch.sigmoid(v)[:, 0].numpy().astype(np.float16) for k, v in network(image).items()}
    job = write_job(tmp_path / "jobs" / "a-fold0", config, 0, maps, arrays, network)
    experiment = {"name": "x", "rows": [{"key": "a", "label": "A", "jobs": {"0": job}}], "options": {"nodules": 3}}
    drawn = FIGURES["gradcam"](experiment, JobStore(tmp_path))
    assert [one.name for one in drawn] == ["gradcam-1", "gradcam-2"]
    for one in drawn:
        assert all(row["difference_from_stored"] < 2e-3 for row in one.data["table"])
