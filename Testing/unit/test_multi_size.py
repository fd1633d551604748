"""IFE's training: batches of several sizes, steps of the learning rate, gray-level augmentation, its configurations."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from Training.config import Config, ConfigError, Schedule, changed, load_config
from Training.experiments.rows import job_id
from Training.sampling.augmentation import augment
from Training.sampling.batch import Batch, Crops
from Training.sampling.single_slices import SliceBatches
from Training.sampling.sizes import resized, size_of_step
from Training.sampling.slice_images import cut_slices
from Training.trainers.optimization import learning_rate_factor
from training_data import make_nodule

SIZES = [16, 32, 48]


@pytest.fixture(scope="module")
def nodules():
    return [make_nodule(n) for n in range(12)]


@pytest.fixture
def config():
    overrides = ["data.crop=24", "data.net_size=32", "training.batch=4", f"training.sizes={SIZES}"]
    return load_config("ife", overrides)


def test_every_step_has_one_size_and_all_sizes_come(nodules, config):
    first, second = SliceBatches(nodules, config), SliceBatches(nodules, config, rank=1, world=2)
    seen = {}
    for step in range(24):
        batch = first(step)
        assert batch.image.shape[2:] == batch.readers.shape[2:]
        assert batch.image.shape[2] == batch.image.shape[3] == size_of_step(SIZES, 0, step)
        assert second(step).image.shape[2:] == batch.image.shape[2:]  # all processes of a run
        seen[batch.image.shape[2]] = seen.get(batch.image.shape[2], 0) + 1
        assert batch.image.is_contiguous()
    assert set(seen) == set(SIZES)


def test_a_step_is_a_function_of_seed_and_step(nodules, config):
    first, second = SliceBatches(nodules, config), SliceBatches(nodules, config)
    for step in (5, 0, 17):
        one, other = first(step), second(step)
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.readers, other.readers)
    config = changed(config, {"seed": 1})
    assert [size_of_step(SIZES, 1, s) for s in range(12)] != [size_of_step(SIZES, 0, s) for s in range(12)]
    assert not torch.equal(SliceBatches(nodules, config)(0).readers, first(0).readers)


def test_masks_stay_binary_and_cover_what_they_did(nodules, config):
    config = changed(config, {"augmentation": dict(rotate_degrees=0.0, brightness=0.0, contrast=0.0, clahe=0.0)})
    batches = SliceBatches(nodules, config)
    plain = changed(config, {"training": {"sizes": []}, "data": {"net_size": 0}})
    own = SliceBatches(nodules, plain)
    gray = SliceBatches(nodules, changed(config, {"training": {"sizes_gray": True}}))
    for step in range(9):
        batch, original, soft = batches(step), own(step), gray(step)
        assert original.image.shape[2] == 24
        assert set(batch.readers.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(batch.readers, (soft.readers >= 0.5).float())
        torch.testing.assert_close(batch.readers.mean(), original.readers.mean(), atol=0.01, rtol=0)
        torch.testing.assert_close(batch.image.mean(), original.image.mean(), atol=0.01, rtol=0)
        if batch.image.shape[2] != 24:
            assert ((soft.readers > 0) & (soft.readers < 1)).any()
        assert torch.equal(soft.image, batch.image)


def test_the_own_size_changes_nothing_and_soft_labels_stay_soft():
    batch = Batch(torch.rand(2, 1, 8, 8), (torch.rand(2, 4, 8, 8) > 0.5).float(), torch.ones(2, 4, dtype=torch.bool))
    assert resized(batch, 8) is batch
    batch.soft = torch.rand(2, 1, 8, 8)
    larger = resized(batch, 16)
    assert larger.soft.shape == (2, 1, 16, 16)
    assert torch.equal(larger.valid, batch.valid)
    assert len(larger.soft.unique()) > 128


def test_without_sizes_batches_are_as_before(nodules):
    config = load_config("ife", ["data.crop=24", "data.net_size=32", "training.batch=4", "training.sizes=[]"])
    assert SliceBatches(nodules, config)(3).image.shape == (4, 1, 32, 32)
    assert np.array_equal(SliceBatches(nodules, config).slices.hu, cut_slices(nodules, config).hu)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([32.5], r"'training\.sizes\[0\]' must be a whole number, not 32\.5"),
        (["a"], r"'training\.sizes\[0\]' must be a whole number"),
        ([True], r"'training\.sizes\[0\]' must be a whole number"),
        (32, r"'training\.sizes' must be a list"),
        ([0], r"training\.sizes: positive numbers"),
    ],
)
def test_sizes_that_are_none_are_refused(nodules, config, sizes, message):
    with pytest.raises(ConfigError, match=message):
        SliceBatches(nodules, changed(config, {"training": {"sizes": sizes}}))


# -- schedule


def test_the_rate_falls_in_steps():
    options = Schedule("step", warmup_epochs=0)
    assert [learning_rate_factor(options, e, 120) for e in (0, 49.99, 50, 99.9, 100)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    released = replace(options, step_shift=1)
    assert [learning_rate_factor(released, e, 100) for e in (48.9, 49, 98.9, 99)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert learning_rate_factor(replace(options, step_epochs=30, step_factor=0.5), 61, 90) == 0.25
    assert learning_rate_factor(replace(options, warmup_epochs=2), 1, 90) == pytest.approx(0.5, abs=1e-3)


# -- augmentation


def gray_case(**options):
    config = changed(Config(), {"input": {"window_hu": [0.0, 1000.0]}})
    config = changed(
        config,
        {
            "augmentation": dict(
                flip=False, rotate_degrees=0.0, scale=[1.0, 1.0], noise_hu=0.0, shift_hu=0.0, blur=0.0, **options
            )
        },
    )
    hu = torch.full((64, 1, 16, 16), 500.0)
    hu[:, :, :8] = 400.0
    readers, valid, near = torch.zeros(64, 4, 16, 16), torch.ones(64, 4, dtype=torch.bool), torch.zeros(64, 1, 16, 16)
    return augment(Crops(hu, readers, valid, near), config, 16, torch.Generator().manual_seed(0)).image


def test_brightness_and_contrast_stay_within_their_limits_and_shares():
    plain = gray_case()
    bright = gray_case(brightness=0.2)
    change = (bright - plain)[:, 0, 0, 0]
    assert torch.allclose(bright - plain, change[:, None, None, None].expand_as(plain), atol=1e-6)
    assert float(change.abs().max()) <= 0.2
    assert 0.25 < float((change != 0).float().mean()) < 0.65  # 0.9 times 0.5
    contrast = gray_case(contrast=0.2)
    ratio = contrast / plain
    assert float((ratio[:, 0, 0, 0] - ratio[:, 0, 15, 0]).abs().max()) < 1e-6
    assert 0.8 <= float(ratio.min()) < float(ratio.max()) <= 1.2
    always = gray_case(brightness=0.9, gray_shares=[1.0, 0.0, 1.0])
    assert 0 <= float(always.min()) < float(always.max()) <= 1
    assert not (always == plain).all((1, 2, 3)).any()


def test_equalisation_raises_local_contrast_and_keeps_the_range():
    config = changed(
        Config(),
        {"augmentation": dict(flip=False, rotate_degrees=0.0, scale=[1.0, 1.0], noise_hu=0.0, shift_hu=0.0, blur=0.0)},
    )
    config = changed(config, {"augmentation": dict(clahe=4.0, gray_shares=[0.0, 1.0, 1.0])})
    hu = -700 + 40 * torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    parts = torch.zeros(3, 4, 64, 64), torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 1, 64, 64)
    made = [augment(Crops(hu, *parts), config, 64, torch.Generator().manual_seed(2)).image for _ in range(2)]
    assert torch.equal(*made)
    config = changed(config, {"augmentation": {"clahe": 0.0}})
    plain = augment(Crops(hu, *parts), config, 64, torch.Generator().manual_seed(2)).image
    assert (made[0].std((1, 2, 3)) > 1.2 * plain.std((1, 2, 3))).all()
    assert 0 <= float(made[0].min()) < float(made[0].max()) <= 1


def test_a_share_of_images_is_turned():
    config = changed(
        Config(),
        {"augmentation": dict(flip=False, scale=[1.0, 1.0], noise_hu=0.0, shift_hu=0.0, blur=0.0, rotate_share=0.5)},
    )
    readers = torch.zeros(64, 4, 17, 17)
    readers[:, :, 2:6, 2:6] = 1
    parts = readers, torch.ones(64, 4, dtype=torch.bool), torch.zeros(64, 1, 17, 17)
    batch = augment(Crops(torch.zeros(64, 1, 17, 17), *parts), config, 17, torch.Generator().manual_seed(0))
    same = ((batch.readers - readers).abs() < 1e-4).all(3).all(2).all(1)
    assert 16 < int(same.sum()) < 48


# -- configurations


def test_the_papers_configurations():
    paper, released = load_config("ife"), load_config("ife-released")
    for config in (paper, released):
        assert config.training.sizes == (224, 256, 288, 320, 352, 384)
        assert (config.data.net_size, config.optimizer.lr, config.training.epochs) == (224, 1e-4, 100)
        assert (config.schedule.name, config.training.clip_norm) == ("step", 1.0)
    assert (paper.loss.form, released.loss.form) == ("structure", "structure_released")
    assert (paper.training.sizes_gray, released.training.sizes_gray) == (False, True)
    assert (paper.training.batch, released.training.batch) == (32, 16)


def test_options_at_their_defaults_leave_a_jobs_name():
    config = load_config("ugsnet")
    given = {
        "augmentation": {"brightness": 0.0, "contrast": 0, "clahe": 0.0, "gray_shares": [0.5, 0.5, 0.9]},
        "loss": {"form": ""},
        "schedule": {"step_epochs": 50, "step_factor": 0.1, "step_shift": 0},
        "training": {"sizes": [], "sizes_gray": False},
    }
    assert job_id(changed(config, given), 0, "0" * 64) == job_id(config, 0, "0" * 64)
    assert job_id(changed(config, {"loss": {"form": "structure"}}), 0, "0" * 64) != job_id(config, 0, "0" * 64)


@pytest.mark.parametrize("name", ["ife", "ife-released"])
def test_training_in_several_sizes_learns(nodules, tmp_path, name):
    from Training.trainers.base import Trainer

    overrides = ["network.width=4", "network.levels=2", "data.crop=24", "data.net_size=32", "optimizer.lr=0.01"]
    overrides += ["training.batch=4", "training.epochs=12", "training.validate_every=6", f"training.sizes={SIZES}"]
    trainer = Trainer(load_config(name, overrides), nodules[:8], nodules[8:], tmp_path, progress=False)
    best = trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["loss_total"] < 0.85 * rows[0]["loss_total"]
    assert best["score"] > 0.6
