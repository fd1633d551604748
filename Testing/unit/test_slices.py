"""As the papers train: one slice a nodule (the task slice), on the network's grid."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from Training.config import Config, ConfigError, Loss, changed, load_config
from Training.data.nodule import DatasetError, fingerprint
from Training.data.soft_labels import KINDS
from Training.data.splits import configured_split, nodule_fold, split
from Training.losses.uncertainty import UncertaintyLoss
from Training.sampling.single_slices import SliceBatches
from Training.sampling.slice_images import cut_slices, network_input, predict_slices
from Training.sampling.tasks import make_task
from training_data import make_nodule


@pytest.fixture(scope="module")
def nodules():
    return [make_nodule(n) for n in range(12)]


@pytest.fixture
def config():
    config = load_config("ugsnet")
    config = changed(config, {"data": dict(crop=16, net_size=32)})
    config = changed(config, {"training": {"batch": 4}})
    return config


def test_slices_show_what_the_nodule_has(nodules, config):
    config = changed(config, {"data": {"net_size": 0}})
    slices = cut_slices(nodules, config)
    assert slices.hu.shape == (12, 1, 16, 16)
    for index, nodule in enumerate(nodules):
        z = nodule.largest_slice()
        areas = nodule.consensus.sum((1, 2))
        assert areas[z] == areas.max()
        _, row, column = np.round(nodule.center()).astype(int)
        window = np.s_[row - 8 : row + 8, column - 8 : column + 8]
        assert np.array_equal(slices.hu[index, 0], nodule.hu[z][window])
        count = len(nodule.readers)
        assert np.array_equal(slices.readers[index, :count] > 0, nodule.readers[:, z][(slice(None), *window)])
        assert slices.valid[index].sum() == count
        assert not slices.readers[index, count:].any()
        assert np.allclose(slices.spacing_mm[index], nodule.spacing[1:])


def test_resizing_keeps_areas_and_millimeters(nodules, config):
    small, large = (
        cut_slices(nodules, changed(config, {"data": {"net_size": 0}})),
        cut_slices(nodules, config),
    )
    assert large.hu.shape[-2:] == (32, 32)
    assert set(np.unique(large.readers)) <= {0.0, 1.0}
    area = [(s.readers.sum((1, 2, 3)) * s.spacing_mm.prod(1)) for s in (small, large)]
    assert area[1] == pytest.approx(area[0], rel=0.1)
    # The point's place is the same in mm: where the position channel peaks, relative to the crop.
    peaks = [np.array(np.unravel_index(s.position[0, 0].argmax(), s.position.shape[2:])) for s in (small, large)]
    assert np.abs((peaks[1] + 0.5) / 2 - (peaks[0] + 0.5)).max() <= 0.5


def test_a_fixed_pixel_size_shows_the_same_millimeters_of_every_scan(config):
    nodules = [make_nodule(1, spacing=0.5), make_nodule(1, spacing=1.0)]
    config = changed(config, {"data": dict(crop=16, net_size=32, pixel_mm=1.0)})
    slices = cut_slices(nodules, config)
    assert np.allclose(slices.spacing_mm, 0.5)
    assert slices.readers[1, 0].sum() == pytest.approx(4 * slices.readers[0, 0].sum(), rel=0.15)


def test_a_crop_beyond_the_cube_repeats_the_edge_and_has_no_mask_there(nodules, config):
    config = changed(config, {"data": dict(crop=60, net_size=0)})
    slices = cut_slices(nodules[:1], config)
    nodule = nodules[0]
    _, row, _ = np.round(nodule.center()).astype(int)
    above = 30 - row
    assert above > 0
    assert np.array_equal(slices.hu[0, 0, 0], slices.hu[0, 0, above])
    assert not slices.readers[0, :, :above].any()
    z = nodule.largest_slice()
    assert slices.readers[0].sum() == nodule.readers[:, z].sum()


def test_batches_depend_on_seed_and_step_alone_and_visit_everything(nodules, config):
    config = changed(config, {"augmentation": dict(flip=False, quarter_turns=False)})
    first, second = SliceBatches(nodules, config), SliceBatches(nodules, config)
    for step in (4, 0):
        assert torch.equal(first(step).image, second(step).image)
    seen = torch.cat([first(step).image for step in range(first.epoch_steps)])
    whole = network_input(cut_slices(nodules, config), config)
    assert len({hash(i.numpy().tobytes()) for i in seen}) == len({hash(i.numpy().tobytes()) for i in whole}) == 12
    config = changed(config, {"data": {"shuffle": False}})
    assert torch.equal(SliceBatches(nodules, config)(0).image, whole[:4])


def test_a_random_first_reader_is_always_a_real_one(nodules, config):
    config = changed(config, {"augmentation": dict(flip=False, quarter_turns=False)})
    config = changed(config, {"data": dict(first_reader="random", shuffle=False)})
    fixed = cut_slices(nodules, config)
    firsts = set()
    batches = SliceBatches(nodules, config)
    for epoch in range(8):
        batch = batches(epoch * batches.epoch_steps)
        for i in range(4):
            own = fixed.readers[i][fixed.valid[i]]
            match = [np.array_equal(batch.readers[i, 0].numpy(), reader) for reader in own]
            assert any(match)
            assert np.array_equal(batch.readers[i].sum(0).numpy(), own.sum(0))
            firsts.add((i, match.index(True)))
    assert len(firsts) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_soft_labels_lie_between_what_all_and_what_no_reader_includes(nodules, config, kind):
    config = changed(config, {"data": {"soft_label": kind}})
    slices = cut_slices(nodules, config)
    assert slices.soft.shape == (12, 1, 32, 32)
    assert slices.soft.min() >= 0
    assert slices.soft.max() <= 1
    for i in range(12):
        readers = slices.readers[i, slices.valid[i]] > 0
        consensus = 2 * readers.sum(0) >= len(readers)
        if kind in ("soft_mask", "mean"):
            assert (slices.soft[i, 0][readers.all(0)] == 1).all()
            assert not slices.soft[i, 0][~readers.any(0)].any()
        if kind == "hard":
            assert np.array_equal(slices.soft[i, 0] > 0, consensus)
        assert np.mean((slices.soft[i, 0] >= 0.5) == consensus) > 0.9
    soft = kind not in ("hard",)
    assert bool(((slices.soft > 0.05) & (slices.soft < 0.95)).any()) == soft
    config = changed(config, {"augmentation": dict(flip=False, quarter_turns=False)})
    config = changed(config, {"data": {"shuffle": False}})
    batch = SliceBatches(nodules, config)(0)
    assert torch.equal(batch.soft, torch.from_numpy(slices.soft[:4]))
    assert batch.readers.shape[1] == 4


def test_soft_labels_turn_with_their_image(nodules, config):
    config = changed(config, {"data": {"soft_label": "mean"}})
    config = changed(config, {"training": {"batch": 12}})
    batches = SliceBatches(nodules, config)
    for epoch in range(6):
        batch = batches(epoch)
        weight = batch.valid[:, :, None, None].float()
        assert torch.allclose(batch.soft, (batch.readers * weight).sum(1, True) / weight.sum(1, True))
    with pytest.raises(ConfigError, match=r"soft_label' must be one of '', 'soft_mask'"):
        changed(config, {"data": {"soft_label": "halo"}})


def test_jitter_is_refused_and_unknown_tasks(nodules, config):
    with pytest.raises(ConfigError, match="point_jitter_mm must be 0"):
        SliceBatches(nodules, changed(config, {"augmentation": {"point_jitter_mm": 1.0}}))
    with pytest.raises(ConfigError, match="'volume', 'slice', 'super_resolution'"):
        changed(config, {"data": {"task": "cube"}})


def test_prediction_and_validation(nodules, config):
    class Truth(torch.nn.Module):
        """Answers with the first reader's mask."""

        def __init__(self, masks):
            super().__init__()
            self.masks, self.at = masks, 0

        def forward(self, x):
            part = self.masks[self.at : self.at + len(x)]
            self.at = (self.at + len(x)) % len(self.masks)
            return {"final": torch.from_numpy(part * 20 - 10)}

    slices = cut_slices(nodules, config)
    model = Truth(slices.readers[:, :1])
    maps = predict_slices(model, slices, config, batch=5)
    assert np.array_equal(maps["final"] >= 0.5, slices.readers[:, 0] > 0)
    from lightning_fabric import Fabric

    _, validator = make_task(config, nodules, nodules)
    assert validator(model, Fabric(accelerator="cpu")) == {"final": 1.0, "score": 1.0}


def test_fingerprint_sees_every_change(nodules):
    first = fingerprint(nodules)
    assert first == fingerprint(list(reversed(nodules)))
    other = copy.deepcopy(nodules)
    other[3].readers[0, 0, 0, 0] ^= True
    assert fingerprint(other) != first
    other = copy.deepcopy(nodules)
    other[3].fold = 4
    assert fingerprint(other) != first


def test_split_by_nodule_shares_patients_and_by_patient_does_not(nodules, config):
    training, validation, test = split(nodules, 0, 0.1, by="nodule")
    assert {n.nodule_id for n in test} == {n.nodule_id for n in nodules if nodule_fold(n.nodule_id) == 0}
    assert {n.patient_id for n in test} & {n.patient_id for n in training + validation}
    with pytest.raises(ConfigError, match="'patient', 'nodule'"):
        changed(config, {"data": {"split": "slice"}})
    config = changed(config, {"data": dict(validation_share=0.4, split_seed=7)})
    a = configured_split(nodules, 0, changed(config, {"seed": 1}))[1]
    b = configured_split(nodules, 0, changed(config, {"seed": 2}))[1]
    assert [n.nodule_id for n in a] == [n.nodule_id for n in b]


def many_nodules(count, patients):
    return [
        replace(make_nodule(number, shape=(2, 8, 8)), patient_id=f"P{number % patients}") for number in range(count)
    ]


def test_a_split_in_the_proportions_of_a_paper(config):
    """387 : 55 : 544 of the nodules with four readers, by patient; the number of the fold draws another split."""
    nodules = many_nodules(360, patients=90)  # every third one has four readers
    config = changed(config, {"data": dict(least_readers=4, shares=[387, 55, 544])})
    parts = configured_split(nodules, 0, config)
    assert sum(map(len, parts)) == 120
    assert all(len(n.readers) == 4 for part in parts for n in part)
    for part, share in zip(parts, (387, 55, 544), strict=True):
        assert abs(len(part) - 120 * share / 986) <= 3
    patients = [{n.patient_id for n in part} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients))
    again, other = configured_split(nodules[::-1], 0, config), configured_split(nodules, 1, config)
    assert {n.nodule_id for n in again[2]} == {n.nodule_id for n in parts[2]} != {n.nodule_id for n in other[2]}
    with pytest.raises(DatasetError, match="give a fold"):
        configured_split(nodules, None, config)
    config = changed(config, {"data": {"shares": [1, 0]}})
    with pytest.raises(DatasetError, match="three numbers"):
        configured_split(nodules, 0, config)
    config = changed(config, {"data": dict(least_readers=5)})
    with pytest.raises(DatasetError, match="no nodule has 5 readers"):
        configured_split(nodules, 0, config)


def test_a_split_without_training_nodules_is_refused(config):
    only = [nodule for nodule in many_nodules(20, patients=5) if nodule.fold == 0]
    config = changed(config, {"data": {"validation_share": 0.0}})
    with pytest.raises(DatasetError, match=f"left to train on: {len(only)} are in fold 0, 0 in validation"):
        configured_split(only, 0, config)


def test_another_number_of_folds_by_patient(config):
    nodules = many_nodules(80, patients=30)
    config = changed(config, {"data": {"folds": 4}})
    tests = [configured_split(nodules, fold, config)[2] for fold in range(4)]
    assert max(map(len, tests)) - min(map(len, tests)) <= 2
    patients = [{n.patient_id for n in test} for test in tests]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30
    with pytest.raises(DatasetError, match="fold 4 holds no nodule"):
        configured_split(nodules, 4, config)


def test_final_may_learn_other_readers_than_the_single_branch():
    generator = torch.Generator().manual_seed(0)
    readers = torch.randint(2, (2, 4, 8, 8), generator=generator).float()
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    logits = {k: torch.randn(2, 1, 8, 8, generator=generator) for k in ("final", "single", "union", "intersection")}
    parts = {
        (t, f): UncertaintyLoss(Loss(target=t, final_readers=f))(logits, readers, valid)
        for t in ("first", "readers")
        for f in ("first", "readers", "")
    }
    assert parts["first", ""] == parts["first", "first"]
    assert parts["first", "readers"]["single"] == parts["first", "first"]["single"]
    assert parts["first", "readers"]["final"] == parts["readers", "readers"]["final"]
    assert parts["first", "readers"]["final"] != parts["first", "first"]["final"]
    with pytest.raises(ConfigError, match="final_readers"):
        changed(Config(), {"loss": {"final_readers": "none"}})


def test_several_slices_reach_beyond_both_ends_of_the_nodule(nodules, config):
    config = changed(config, {"data": dict(slices=5, empty_margin=2, net_size=0, soft_label="mean")})
    slices = cut_slices(nodules, config)
    at = 0
    for nodule in nodules:
        zs = nodule.spread_slices(5, 2)
        inside = np.flatnonzero(nodule.readers.any((0, 2, 3)))
        assert zs[0] == max(inside[0] - 2, 0)
        assert zs[-1] == min(inside[-1] + 2, len(nodule.hu) - 1)
        _, row, column = np.round(nodule.center()).astype(int)
        window = np.s_[row - 8 : row + 8, column - 8 : column + 8]
        for z in zs:
            assert slices.nodule_id[at] == nodule.nodule_id
            assert np.array_equal(slices.hu[at, 0], nodule.hu[z][window])
            assert np.allclose(slices.soft[at, 0], nodule.readers[:, z].mean(0)[window])
            at += 1
    assert at == len(slices)
    batches = SliceBatches(nodules, config)
    assert batches.epoch_steps == len(slices) // config.training.batch
