"""The trainer: data, splits, batches, exact resume, DDP, and the command line down to an exported bundle."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from LungNoduleUncertaintyLib import load_model
from Training.__main__ import main
from Training.config import Config, ConfigError, Schedule, changed, load_config
from Training.data.folder import load_folder
from Training.data.nodule import DatasetError
from Training.data.splits import split
from Training.sampling.volumes import VolumeBatches, VolumeValidator
from Training.trainers.base import Trainer
from Training.trainers.optimization import learning_rate_factor
from training_data import make_nodule, write_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodules():
    return [make_nodule(n) for n in range(12)]


def small_config(**training):
    values = {
        "name": "small",
        "network": {"name": "ugsnet", "width": 8, "levels": 2, "attention_pool": 4},
        "input": {"slice_offsets": [-1, 0, 1], "position": True},
        "data": {"crop": 16, "large_crop": 24, "slices_per_nodule": 4, "validation_share": 0.2},
        "training": {"epochs": 3, "batch": 4, "ema": 0.9, **training},
    }
    return changed(Config(), values)


def test_split_never_shares_a_patient(nodules):
    training, validation, test = split(nodules, 1, 0.25)
    assert {n.fold for n in test} == {1}
    patients = [{n.patient_id for n in part} for part in (training, validation, test)]
    assert validation
    assert sum(map(len, patients)) == len(set.union(*patients)) == 6
    again = split(list(reversed(nodules)), 1, 0.25)[1]
    assert {n.nodule_id for n in again} == {n.nodule_id for n in validation}
    with pytest.raises(DatasetError, match="fold 7 holds no nodule"):
        split(nodules, 7, 0.1)


def test_batches_depend_on_seed_and_step_alone(nodules):
    config = small_config()
    first, second = VolumeBatches(nodules, config), VolumeBatches(nodules, config)
    for step in (5, 0, 3):
        a, b = first(step), second(step)
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.readers, b.readers)
    assert not torch.equal(first(0).image[0], first(1).image[0])
    config = changed(config, {"seed": 1})
    assert not torch.equal(first(0).image, VolumeBatches(nodules, config)(0).image)


def test_a_drawn_first_reader_changes_only_the_order(nodules):
    config = small_config()
    config = changed(config, {"augmentation": dict(flip=False, rotate_degrees=0.0, scale=[1.0, 1.0])})
    fixed = VolumeBatches(nodules, config)
    config = changed(config, {"data": {"first_reader": "random"}})
    drawn = VolumeBatches(nodules, config)
    moved = 0
    for step in range(6):
        a, b = fixed(step), drawn(step)
        assert torch.equal(a.valid, b.valid)
        moved += not torch.equal(a.readers, b.readers)
    assert moved


def test_batches_hold_what_they_say(nodules):
    maker = VolumeBatches(nodules, small_config())
    sizes, empty, filled = set(), 0, 0
    for step in range(maker.epoch_steps):
        batch = maker(step)
        assert batch.image.shape[:2] == (4, 4)
        assert batch.readers.shape[1] == 4
        assert int(batch.valid.sum(1).min()) >= 2
        assert float(batch.image.min()) >= 0
        assert float(batch.image.max()) <= 1
        assert not batch.readers[~batch.valid].any()
        sizes.add(batch.image.shape[-1])
        inside = batch.readers.amax((1, 2, 3)) > 0.5
        filled, empty = filled + int(inside.sum()), empty + int((~inside).sum())
    assert sizes == {16, 24}
    assert filled > empty > 0  # slices without nodule are part of training


@pytest.mark.parametrize("name", ["ugsnet-paper", "ugsnet-released"])
def test_the_papers_settings_train(nodules, tmp_path, name):
    """Crops of 50 resized to 64, one or three windows: a batch, a step and a validation, at a small width."""
    config = load_config(name, ["network.width=8", "training.batch=4"])
    trainer = Trainer(config, nodules[:10], nodules[10:], tmp_path, progress=False)
    batch = trainer.batches(0)
    assert batch.image.shape == (4, 3 if name == "ugsnet-released" else 1, 64, 64)
    trainer._train_step()
    assert set(VolumeValidator(nodules[10:], config)(trainer.model.module, trainer.fabric)) >= {
        "final",
        "union",
        "score",
    }


def test_an_epoch_visits_every_nodule_equally(nodules):
    maker = VolumeBatches(nodules, small_config())
    assert np.array_equal(np.bincount(maker._order(0)), np.full(12, 4))


def test_masks_follow_the_image_through_augmentation(nodules):
    config = small_config()
    config = changed(config, {"augmentation": dict(noise_hu=0.0, shift_hu=0.0, blur=0.0)})
    batch = VolumeBatches(nodules, config)(0)
    bright = batch.image[:, 1] > 0.5
    mean = (batch.readers * batch.valid[:, :, None, None]).sum(1) / batch.valid.sum(1)[:, None, None] > 0.5
    agree = 2 * (bright & mean).sum() / (bright.sum() + mean.sum())
    assert float(agree) > 0.8


def test_schedules():
    cosine = Schedule("cosine_restarts", restart_epochs=50, restart_factor=2, warmup_epochs=0)
    assert [round(learning_rate_factor(cosine, e, 150), 3) for e in (0, 25, 49.999, 50, 100, 149.999)] == [
        1.0,
        0.5,
        0.0,
        1.0,
        0.5,
        0.0,
    ]
    poly = Schedule("poly", warmup_epochs=0)
    assert learning_rate_factor(poly, 5, 10) == pytest.approx(0.5**0.9)


def test_training_learns(nodules, tmp_path):
    config = small_config(epochs=10, ema=0.5)
    config = changed(config, {"optimizer": {"lr": 1e-2}})
    trainer = Trainer(config, nodules[:10], nodules[10:], tmp_path, progress=False)
    best = trainer.train()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss_total"] < 0.6 * log[0]["loss_total"]
    assert best["final"] > 0.5
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_resume_after_a_kill_gives_the_same_weights(nodules, tmp_path):
    """Stopped in the middle of an epoch, after a checkpoint that is older than the stop."""
    config = small_config(accumulate=2)
    whole = Trainer(config, nodules[:10], nodules[10:], tmp_path / "whole", progress=False)
    whole.train()
    killed = Trainer(config, nodules[:10], nodules[10:], tmp_path / "killed", progress=False, checkpoint_seconds=1e9)
    killed.train(stop_at_step=killed.batches.epoch_steps + 3)
    resumed = Trainer(config, nodules[:10], nodules[10:], tmp_path / "killed", progress=False)
    resumed.train()
    assert resumed.step == whole.step == whole.total_steps
    for key, value in whole.model.module.state_dict().items():
        assert torch.equal(value, resumed.model.module.state_dict()[key]), key
    a, b = (load_file(tmp_path / run / "best.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_resume_within_accumulation_is_exact(nodules, tmp_path):
    """A checkpoint between two batches of one accumulated step would lose the first one's gradient."""
    config = small_config(accumulate=3, epochs=1)
    whole = Trainer(config, nodules[:10], [], tmp_path / "whole", progress=False)
    whole.train()
    killed = Trainer(config, nodules[:10], [], tmp_path / "killed", progress=False, checkpoint_seconds=0.0)
    killed.train(stop_at_step=5)
    resumed = Trainer(config, nodules[:10], [], tmp_path / "killed", progress=False)
    resumed.train()
    for key, value in whole.model.module.state_dict().items():
        assert torch.equal(value, resumed.model.module.state_dict()[key]), key


def test_accumulation_equals_the_larger_batch(nodules):
    """Without batch norm's dependence on the batch: the gradient of two halves is the gradient of the whole."""
    config = small_config(accumulate=2)
    trainer = Trainer(config, nodules, [], "unused", progress=False)
    trainer.model.module.eval()
    trainer.model.train = lambda mode=True: trainer.model  # keep evaluation mode: batch norm would see the halves
    before = copy.deepcopy(trainer.model.module.state_dict())
    trainer._train_step()
    halves = [p.grad.clone() for p in trainer.model.module.parameters() if p.grad is not None]
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.module.state_dict().items())
    batch = trainer.batches(0)
    trainer.optimizer.zero_grad()
    (trainer.loss(trainer.model(batch.image), batch.readers, batch.valid)["total"] / 2).backward()
    whole = [p.grad for p in trainer.model.module.parameters() if p.grad is not None]
    for a, b in zip(halves, whole, strict=True):
        torch.testing.assert_close(a, b)


def test_a_run_goes_on_after_an_option_has_been_added(nodules, tmp_path):
    config = small_config()
    trainer = Trainer(config, nodules, [], tmp_path, progress=False)
    trainer.folder.mkdir(exist_ok=True)
    trainer.step = 1
    trainer.save()
    state = torch.load(trainer.checkpoint, weights_only=True)
    before = json.loads(state["config"])
    del before["data"]["least_readers"], before["training"]["sizes"]
    torch.save({**state, "config": json.dumps(before)}, trainer.checkpoint)
    again = Trainer(config, nodules, [], tmp_path, progress=False)
    assert again.resume()
    assert again.step == 1


def test_a_run_folder_of_another_configuration_is_refused(nodules, tmp_path):
    trainer = Trainer(small_config(), nodules, [], tmp_path, progress=False)
    trainer.folder.mkdir(exist_ok=True)
    trainer.save()
    with pytest.raises(ConfigError, match="another configuration"):
        Trainer(small_config(epochs=4), nodules, [], tmp_path, progress=False).resume()


def test_configurations(tmp_path):
    for path in (ROOT / "Training" / "configs").glob("*.toml"):
        assert load_config(path).name == path.stem
    config = load_config("ugsnet-compact", ["training.epochs=2", "network.width=16"])
    assert config.training.epochs == 2
    assert config.network.options["width"] == 16
    bad = tmp_path / "bad.toml"
    bad.write_text("[training]\nepoch = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'training.epoch'"):
        load_config(bad)
    with pytest.raises(ConfigError, match="no such configuration"):
        load_config("nothing")


SMALL = [
    "seed=0",
    "network.width=8",
    "network.levels=2",
    "input.slice_offsets=[0]",
    "data.crop=16",
    "data.large_crop=24",
    "data.slices_per_nodule=2",
    "training.batch=4",
    "training.epochs=2",
    'training.precision="32-true"',
    "data.validation_share=0.3",
]


def settings():
    return [part for value in SMALL for part in ("--set", value)]


def test_command_line_from_data_to_bundle(tmp_path, capsys):
    data, run = write_folder(tmp_path / "data"), tmp_path / "run"
    common = ["--data", str(data)]
    train = ["train", "ugsnet-compact", *common, "--fold", "0", "--output", str(run), "--quiet", *settings()]
    assert main(train) == 0
    assert main(["calibrate", str(run), *common]) == 0
    assert main(["evaluate", str(run), *common, "--fold", "1"]) == 1
    assert "held-out" in capsys.readouterr().err
    assert main(["evaluate", str(run), *common, "--fold", "0", "--limit", "2", "--jitter", "2"]) == 0
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["all"]["nodules"] == 2
    bundle = tmp_path / "bundle"
    assert (
        main(["export", str(run), "--output", str(bundle), "--version", "1", "--figures", str(run / "evaluation.json")])
        == 0
    )
    model = load_model(bundle, "cpu")
    assert model.metadata.training.nodules["training"] > 0
    assert "All 2 nodules with two or more readers" in (bundle / "MODEL_CARD.md").read_text()
    weights = load_file(bundle / "model.safetensors")
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float16}


def test_several_runs_are_averaged_or_an_ensemble(tmp_path, capsys):
    """Two seeds of a single-mask network: as members, as one averaged bundle, in the predictor and the module alike."""
    data, runs = write_folder(tmp_path / "data"), [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        options = [*settings(), "--set", f"seed={seed}", "--set", "data.split_seed=0", "--set", "training.ema=0.0"]
        options += ["--set", "training.epochs=30", "--set", "training.validate_every=10"]
        train = ["train", "unet-compact", "--data", str(data), "--fold", "0", "--output", str(run), "--quiet", *options]
        assert main(train) == 0
    both, common = [str(run) for run in runs], ["--data", str(data)]
    assert main(["calibrate", *both, *common]) == 1
    assert "say where with --output" in capsys.readouterr().err
    calibration = tmp_path / "calibration.json"
    assert main(["calibrate", *both, *common, "--output", str(calibration)]) == 0
    known = ["--calibration", str(calibration)]
    evaluate = ["evaluate", *both, *common, *known, "--fold", "0", "--limit", "2", "--output"]
    assert main([*evaluate, str(tmp_path / "average")]) == 0
    assert main([*evaluate, str(tmp_path / "members"), "--members"]) == 0
    average, members = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("average", "members"))
    assert (average["combined"], members["combined"]) == ("average of networks", "members")
    assert 0 <= members["all"]["ged"] <= 2
    bundle = tmp_path / "bundle"
    assert main(["export", *both, "--output", str(bundle), "--version", "1", *known]) == 0
    model = load_model(bundle, "cpu")
    assert len(model.networks) == 2
    assert model.outputs.maps == ("final",)
    other = json.loads((runs[1] / "config.json").read_text())
    other["input"]["position"] = not other["input"]["position"]
    (runs[1] / "config.json").write_text(json.dumps(other))
    assert main([*evaluate, str(tmp_path / "mixed")]) == 1
    assert "can't be averaged" in capsys.readouterr().err


def test_folds_share_a_calibration_and_are_pooled(tmp_path, capsys):
    """Thresholds from the held-out patients of both runs, except those to be measured; then both folds as one."""
    data, runs = write_folder(tmp_path / "data"), [tmp_path / "1", tmp_path / "2"]
    common = ["--data", str(data)]
    for fold, run in enumerate(runs, 1):
        options = ["--fold", str(fold), "--output", str(run), "--quiet", *settings(), "--set", "training.ema=0.0"]
        options += ["--set", "training.epochs=30", "--set", "training.validate_every=10"]
        assert main(["train", "unet-compact", *common, *options]) == 0
    folds = {n.patient_id: n.fold for n in load_folder(data, progress=False)}
    for fold, (run, other) in enumerate([runs, runs[::-1]], 1):
        assert main(["calibrate", str(run), "--with", str(other), *common]) == 0
        calibrated_on = json.loads((run / "calibration.json").read_text())["patients"]
        assert calibrated_on
        assert fold not in {folds[p] for p in calibrated_on}
        assert 3 - fold in {folds[p] for p in calibrated_on}
        assert main(["evaluate", str(run), *common, "--fold", str(fold)]) == 0
    wrong = ["--calibration", str(runs[1] / "calibration.json"), "--fold", "1", "--output", str(tmp_path / "wrong")]
    assert main(["evaluate", str(runs[0]), *common, *wrong]) == 1
    assert "was trained or calibrated on patients of these nodules" in capsys.readouterr().err
    measured = [str(run / "evaluation.json") for run in runs]
    assert main(["pool", *measured, "--output", str(tmp_path / "pooled.json")]) == 0
    pooled = json.loads((tmp_path / "pooled.json").read_text())
    assert pooled["fold"] == [1, 2]
    assert pooled["all"]["nodules"] == 8
    assert pooled["all"]["final_interval"][0] <= pooled["all"]["final"] <= pooled["all"]["final_interval"][1]
    export = ["export", str(runs[0]), "--output", str(tmp_path / "bundle"), "--version", "1", "--figures"]
    assert main([*export, str(tmp_path / "pooled.json")]) == 0
    figures = load_model(tmp_path / "bundle", "cpu").metadata.figures
    assert [fold["fold"] for fold in figures.test_conditions["folds"]] == [1, 2]
    assert main(["pool", *measured, measured[0], "--output", str(tmp_path / "twice.json")]) == 1
    assert "in an earlier evaluation too" in capsys.readouterr().err
    assert not (tmp_path / "twice.json").exists()


def test_missing_data_is_one_line(tmp_path, capsys):
    assert main(["train", "ugsnet-compact", "--data", str(tmp_path / "none"), "--quiet"]) == 1
    assert capsys.readouterr().err.strip().endswith("(see `prepare-lidc --help`)")
    data = write_folder(tmp_path / "data", 4)
    (data / "N01_ct.nrrd").unlink()
    with pytest.raises(DatasetError, match=r"N01_ct.nrrd: listed in nodules.csv but not found"):
        load_folder(data, progress=False)


def test_torchrun_with_two_processes(tmp_path):
    """DDP: both ranks end with the same weights (DDP checks shapes, the checkpoint is rank 0's), and one run folder."""
    data, run = write_folder(tmp_path / "data"), tmp_path / "run"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "LungNoduleUncertainty", "SoftMaskLabeler")),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29713"),
        *("-m", "Training", "train", "ugsnet-compact", "--data", str(data), "--fold", "0"),
        *("--output", str(run), "--quiet", "--device", "cpu", "--devices", "2", *settings()),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert (run / "best.safetensors").is_file()


@pytest.mark.parametrize("text", ["optimizer.lr = nan", "augmentation.scale = [0.8, inf]", "loss.dice_weight = 1e400"])
def test_a_configuration_with_numbers_that_arent_finite_is_refused(tmp_path, text):
    path = tmp_path / "odd.toml"
    path.write_text(text, encoding="utf-8")
    key = text.split(" = ")[0]
    with pytest.raises(ConfigError, match=rf"^{path}: '{key}.*' must be a finite number, not (nan|inf)$"):
        load_config(path)
