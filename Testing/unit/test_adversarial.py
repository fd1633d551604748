"""Training with a discriminator: DSNet and its super-resolution teacher."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from LungNoduleKit.errors import BundleError
from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib import load_model
from Training.__main__ import main
from Training.config import ConfigError, Network, changed, load_config
from Training.evaluation.models import run_model
from Training.metrics import peak_signal_to_noise_ratio, structural_similarity
from Training.sampling.super_resolution import SuperResolutionBatches, bicubic, measure, reduced
from Training.trainers.adversarial import DSNetTrainer, SuperResolutionTrainer
from Training.trainers.registry import make_trainer
from Training.trainers.teacher import teacher_weights
from training_data import make_nodule, write_folder

TEACHER = {"width": 4, "blocks": 1}


@pytest.fixture(scope="module")
def nodules():
    return [make_nodule(n) for n in range(12)]


def super_resolution_config(**training):
    config = load_config("srgan")
    config = replace(config, network=Network("srgan_generator", options={"skip": "bicubic", **TEACHER}))
    config = changed(config, {"data": dict(crop=16, slices_per_nodule=2)})
    config = changed(config, {"super_resolution": dict(discriminator_width=4, warmup_epochs=0)})
    config = changed(config, {"training": {"epochs": 2, "batch": 4, "precision": "32-true", "ema": 0.0, **training}})
    return config


def dsnet_config(**training):
    config = load_config("dsnet")
    config = replace(config, network=Network("dsnet", options={"width": 4, "levels": 3, "teacher": TEACHER}))
    config = changed(config, {"data": dict(crop=16, net_size=16)})
    config = changed(config, {"dsnet": dict(discriminator={"width": 4}, warmup_epochs=0)})
    config = changed(config, {"training": {"epochs": 2, "batch": 4, "precision": "32-true", "ema": 0.9, **training}})
    return config


def trainer(config, nodules, folder):
    return make_trainer(config, nodules[:8], nodules[8:], folder, device="cpu", progress=False)


@pytest.mark.parametrize("config", [super_resolution_config(), dsnet_config()], ids=["srgan", "dsnet"])
def test_a_stopped_run_ends_with_the_same_weights_of_both_networks(nodules, tmp_path, config):
    straight = trainer(config, nodules, tmp_path / "a")
    straight.train()
    stopped = trainer(config, nodules, tmp_path / "b")
    stopped.train(stop_at_step=stopped.total_steps // 2)
    stopped.save()
    again = trainer(config, nodules, tmp_path / "b")
    again.train()
    for name in ("model", "critic"):
        first, second = (getattr(t, name).module.state_dict() for t in (straight, again))
        assert all(torch.equal(first[key], second[key]) for key in first)
    one, two = (load_file(tmp_path / run / "best.safetensors") for run in ("a", "b"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_two_networks_learn_in_turn_and_the_teacher_never(nodules, tmp_path):
    """Each optimizer moves its own network only; the teacher's weights and running statistics stay as they came."""
    run = trainer(dsnet_config(epochs=3), nodules, tmp_path)
    assert isinstance(run, DSNetTrainer)
    run._start()
    moved, order = {"model": 0, "critic": 0}, []
    move = run._move

    def watched(model, optimizer):
        name = "critic" if model is run.critic else "model"
        other = run.model if model is run.critic else run.critic
        before = {k: v.clone() for k, v in model.module.named_parameters()}
        kept = {k: v.clone() for k, v in other.module.named_parameters()}
        move(model, optimizer)
        moved[name] += any(not torch.equal(v, before[k]) for k, v in model.module.named_parameters())
        assert all(torch.equal(v, kept[k]) for k, v in other.module.named_parameters())
        order.append(name)

    run._move = watched
    teacher = {k: v.clone() for k, v in run.model.module.teacher.state_dict().items()}
    for _ in range(4):
        parts = run._train_step()
        assert {"dice", "soft", "gan", "discriminator", "total"} <= set(parts)
    assert order == ["critic", "model"] * 4
    assert moved == {"model": 4, "critic": 4}
    assert all(torch.equal(v, teacher[k]) for k, v in run.model.module.teacher.state_dict().items())
    assert all(torch.equal(run.average.state[f"teacher.{k}"], v) for k, v in teacher.items())
    assert not any(p.grad is not None and p.grad.any() for p in run.critic.module.parameters())


def test_without_an_adversarial_weight_there_is_no_discriminator(nodules, tmp_path):
    config = dsnet_config()
    config = changed(config, {"dsnet": {"weights": [0.5, 100.0, 0.0]}})
    run = trainer(config, nodules, tmp_path)
    assert run.critic is None
    run._start()
    assert set(run._train_step()) == {"dice", "soft", "total"}


def test_configurations_that_cannot_work_are_named(nodules, tmp_path):
    config = dsnet_config()
    config = changed(config, {"data": {"soft_label": ""}})
    with pytest.raises(ConfigError, match="soft_label"):
        trainer(config, nodules, tmp_path)
    with pytest.raises(ConfigError, match="accumulate must be 1"):
        trainer(dsnet_config(accumulate=2), nodules, tmp_path)
    config = dsnet_config()
    config = changed(config, {"training": {"teacher": str(tmp_path / "nowhere")}})
    with pytest.raises(ConfigError, match="is no run folder"):
        trainer(config, nodules, tmp_path)
    config = super_resolution_config()
    config = changed(config, {"data": {"crop": 18}})
    with pytest.raises(ConfigError, match="multiple of 4"):
        trainer(config, nodules, tmp_path)


def test_the_teachers_window_must_be_the_networks(nodules, tmp_path):
    run = trainer(super_resolution_config(epochs=1), nodules, tmp_path / "sr")
    assert isinstance(run, SuperResolutionTrainer)
    run.train()
    assert "tail.weight" in teacher_weights(tmp_path / "sr")
    config = dsnet_config()
    config = changed(config, {"training": {"teacher": str(tmp_path / "sr")}})
    taught = trainer(config, nodules, tmp_path / "ds")
    wanted = load_file(tmp_path / "sr" / "best.safetensors")
    found = taught.model.module.teacher.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    config = changed(config, {"input": {"window_hu": [-1000.0, 200.0]}})
    with pytest.raises(ConfigError, match="window"):
        trainer(config, nodules, tmp_path / "other")


def test_any_network_may_have_a_teacher_before_it(nodules, tmp_path):
    """The dagger of the papers' comparisons: the teacher's weights arrive, and training leaves them alone."""
    trainer(super_resolution_config(epochs=1), nodules, tmp_path / "sr").train()
    wanted = load_file(tmp_path / "sr" / "best.safetensors")
    config = dsnet_config(epochs=1)
    config = changed(config, {"network": {"name": "unet"}})
    config = replace(config, network=Network("unet", options={"width": 4, "levels": 3}))
    config = changed(config, {"loss": {"final_target": "consensus"}})
    config = changed(config, {"training": {"teacher": str(tmp_path / "sr")}})
    with pytest.raises(ConfigError, match=r"unet has none; give it the option network\.teacher"):
        trainer(config, nodules, tmp_path / "plain")
    config = changed(config, {"network": {"teacher": TEACHER}})
    run = trainer(config, nodules, tmp_path / "unet")
    run.train()
    found = load_file(tmp_path / "unet" / "best.safetensors")
    assert all(torch.equal(found[f"teacher.{key}"], value) for key, value in wanted.items())
    assert run_model(tmp_path / "unet").networks[0].teacher.scale == 4


def test_super_resolution_batches_are_pairs(nodules):
    config = super_resolution_config()
    first, second = SuperResolutionBatches(nodules, config), SuperResolutionBatches(nodules, config)
    batch = first(3)
    assert batch.image.shape == (4, 1, 4, 4)
    assert batch.soft.shape == (4, 1, 16, 16)
    assert torch.equal(batch.image, reduced(batch.soft))
    assert torch.equal(batch.soft, second(3).soft)
    assert not torch.equal(batch.soft, first(4).soft)
    # Every crop is somewhere in its data: turned and flipped, not resampled.
    values = {float(v) for n in nodules for v in np.unique(((n.hu.clip(-1000, 400) + 1000) / 1400).astype(np.float32))}
    assert {float(v) for v in batch.soft.unique()} <= values


def test_image_measures():
    rng = np.random.default_rng(0)
    image = rng.random((24, 24))
    assert peak_signal_to_noise_ratio(image, image) == float("inf")
    assert structural_similarity(image, image) == pytest.approx(1.0)
    assert peak_signal_to_noise_ratio(image, image + 0.1) == pytest.approx(20.0)
    with pytest.raises(ValueError, match="shapes"):
        peak_signal_to_noise_ratio(image, image[:-1])


def test_the_generator_learns_to_beat_bicubic(nodules, tmp_path):
    """On patients that it isn't trained on; the balls' sharp edge is what interpolation can't bring back."""
    config = super_resolution_config(epochs=20, validate_every=10)
    config = changed(config, {"network": dict(width=8, blocks=2)})
    config = changed(config, {"optimizer": {"lr": 1e-3}})
    config = changed(
        config, {"data": {"crop": 32, "slices_per_nodule": 4}}
    )  # smaller crops are mostly border to a 9x9 kernel
    config = changed(config, {"super_resolution": {"adversarial": 0.0}})
    run = trainer(config, nodules, tmp_path)
    run.train()
    from Training.evaluation.models import run_model

    network = run_model(tmp_path).networks[0]
    ours = measure(lambda x: network(x)["image"], nodules[8:], config)["psnr"].mean()
    assert ours > measure(bicubic, nodules[8:], config)["psnr"].mean() + 0.2


def test_a_dsnet_bundle_segments_and_a_generator_is_refused(tmp_path, capsys):
    data, run, sr = write_folder(tmp_path / "data"), tmp_path / "run", tmp_path / "sr"
    for name, config, folder in (("dsnet", dsnet_config(), run), ("srgan", super_resolution_config(), sr)):
        values = record_dict(config)
        tables = ("data", "training", "dsnet") if name == "dsnet" else ("data", "training")
        sets = [f"{s}.{k}={json.dumps(v)}" for s in tables for k, v in values[s].items()]
        sets = [s for s in sets if "{" not in s]
        sets += [f"network.{k}={json.dumps(v)}" for k, v in values["network"].items() if k != "teacher"]
        sets += ["network.teacher.width=4", "network.teacher.blocks=1"] if name == "dsnet" else []
        sets += ["data.validation_share=0.3"]
        sets += ["super_resolution={discriminator_width=4, warmup_epochs=0}"] if name == "srgan" else []
        options = [part for value in sets for part in ("--set", value)]
        train = ["train", name, "--data", str(data), "--fold", "0", "--output", str(folder), "--quiet", *options]
        assert main(train) == 0, capsys.readouterr().err
    calibration = tmp_path / "calibration.json"
    thresholds = {"union": 0.25, "intersection": 0.75, "final": 0.5}
    content = {"thresholds": thresholds, "averaging": {"flips": [[]], "views": ["axial"]}}
    calibration.write_text(json.dumps({**content, "figures": {}, "calibrated_on": "nothing", "slices": "native"}))
    export = ["--version", "1", "--calibration", str(calibration), "--output"]
    assert main(["export", str(run), *export, str(tmp_path / "ds-bundle")]) == 0
    assert main(["export", str(sr), *export, str(tmp_path / "sr-bundle")]) == 0
    from LungNoduleUncertaintyLib.outlining.prediction import predict_cube
    from LungNoduleUncertaintyLib.outlining.segmentation import segment_nodule
    from Training.evaluation.nodules import center_point, nodule_image

    model = load_model(tmp_path / "ds-bundle", "cpu")
    assert model.outputs.maps == ("final", "soft")
    assert model.metadata.input.cube_sizes == (16,)  # it has seen no more than its crops
    hu = np.random.default_rng(0).normal(-600, 300, (3, 16, 16)).astype(np.float32)
    maps = predict_cube(model, hu, (-1, -8, -8), (1, 1, 1))
    z = model.networks[0](torch.from_numpy(((hu.clip(-1000, 400) + 1000) / 1400)[:, None]))["soft"][:, 0]
    assert np.allclose(maps["final"], ((torch.tanh(z) + 1) / 2).detach().numpy(), atol=1e-5)
    nodule = make_nodule(0)
    with pytest.raises(BundleError, match="no final"):
        segment_nodule(nodule_image(nodule), center_point(nodule), model=load_model(tmp_path / "sr-bundle", "cpu"))


def warming(config, epochs):
    table = "dsnet" if config.network.name == "dsnet" else "super_resolution"
    return changed(config, {table: {"warmup_epochs": epochs}})


@pytest.mark.parametrize("make", [super_resolution_config, dsnet_config], ids=["srgan", "dsnet"])
def test_the_discriminator_rests_during_the_warm_up(nodules, tmp_path, make):
    """It doesn't move, its part isn't in the loss, and no weights of that time become the run's result."""
    run = trainer(warming(make(epochs=2, validate_every=1), 1), nodules, tmp_path)
    before = {key: value.clone() for key, value in run.critic.module.state_dict().items()}
    half = run.batches.epoch_steps
    assert run.train(stop_at_step=half + 1)["score"] == -1.0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "loss_discriminator" not in lines[0]
    assert "validation_score" in lines[0]
    moved = run.critic.module.state_dict()
    assert any(not torch.equal(before[key], moved[key]) for key in before)  # by the one step after it
    again = trainer(warming(make(epochs=2, validate_every=1), 1), nodules, tmp_path)
    assert again.train()["epoch"] == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss_discriminator"] > 0


def test_dsnet_warms_up_with_dice_alone(nodules, tmp_path):
    run = trainer(warming(dsnet_config(epochs=2), 1), nodules, tmp_path)
    run._start()
    first = run._train_step()
    assert set(first) == {"dice", "total"}
    assert first["total"].item() == pytest.approx(101.5 * first["dice"].item())  # the weights' sum: 0.5 + 100 + 1
    run.step = run.warmup_steps
    assert set(run._train_step()) == {"dice", "soft", "gan", "total", "discriminator"}


def test_a_warm_up_as_long_as_the_training_is_refused(nodules, tmp_path):
    with pytest.raises(ConfigError, match="warmup_epochs 2"):
        trainer(warming(dsnet_config(epochs=2), 2), nodules, tmp_path)
