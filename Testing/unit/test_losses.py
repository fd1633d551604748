"""Losses of UGS-Net, with two to four readers."""

import pytest
import torch

from Training.config import Config, ConfigError, Loss, changed
from Training.losses import uncertainty as losses

VALID = torch.tensor([[True, True, False, False], [True, True, True, False], [True, True, True, True]])


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    readers = (torch.rand(3, 4, 12, 12, generator=generator) > 0.6).double()
    readers[~VALID] = 1.0  # padding that must not count
    logits = torch.randn(3, 1, 12, 12, generator=generator, dtype=torch.double)
    return logits, readers


def test_fusion_bce_is_the_mean_over_annotations(case):
    """mean_j BCE(p, GT_j) = BCE(p, mean_j GT_j), sample by sample, for any number of readers."""
    logits, readers = case
    for index in range(3):
        one = [losses.bce(logits[index], reader) for reader in readers[index][VALID[index]].unsqueeze(1)]
        fused = losses.fusion_bce(logits[index : index + 1], readers[index : index + 1], VALID[index : index + 1])
        torch.testing.assert_close(fused, torch.stack(one).mean())


def test_fusion_dice_is_the_mean_over_annotations_and_not_dice_of_the_mean(case):
    logits, readers = case
    per_sample = []
    for index in range(3):
        one = [losses.soft_dice(logits[index : index + 1], r[None, None]) for r in readers[index][VALID[index]]]
        per_sample.append(torch.stack(one).mean())
    fused = losses.fusion_dice(logits, readers, VALID)
    torch.testing.assert_close(fused, torch.stack(per_sample).mean())
    of_mean = losses.soft_dice(logits, losses.mean_annotation(readers, VALID)).mean()
    assert abs(float(of_mean - fused)) > 1e-6


def test_union_and_intersection_ignore_missing_readers(case):
    _, readers = case
    union, intersection = losses.union_and_intersection(readers, VALID)
    for index in range(3):
        present = readers[index][VALID[index]]
        torch.testing.assert_close(union[index, 0], present.amax(0))
        torch.testing.assert_close(intersection[index, 0], present.amin(0))


def test_weights_of_the_parts(case):
    logits, readers = case
    out = {
        key: logits + shift for key, shift in zip(("union", "intersection", "single", "final"), range(4), strict=True)
    }
    parts = losses.UncertaintyLoss()(out, readers.float(), VALID)
    torch.testing.assert_close(parts["total"], 0.5 * parts["mcm"] + 0.5 * parts["single"] + parts["final"])
    union, intersection = losses.union_and_intersection(readers.float(), VALID)
    expected = losses.bce(out["union"].float(), union) + losses.bce(out["intersection"].float(), intersection)
    torch.testing.assert_close(parts["mcm"], expected)


def test_first_reader_alone(case):
    logits, readers = case
    parts = losses.UncertaintyLoss(Loss(target="first"))({"final": logits}, readers.float(), VALID)
    torch.testing.assert_close(parts["final"], losses.bce(logits.float(), readers[:, :1].float()))


def test_double_sigmoid_has_the_released_floor():
    """A perfect prediction still costs log 2 on background: the released code's bug, kept under its own name."""
    perfect, target = torch.full((1, 1, 4, 4), -50.0), torch.zeros(1, 1, 4, 4)
    assert float(losses.bce(perfect, target, double_sigmoid=True)) == pytest.approx(0.693, abs=1e-3)
    assert float(losses.bce(-perfect, target + 1, double_sigmoid=True)) == pytest.approx(0.313, abs=1e-3)
    assert float(losses.bce(perfect, target)) < 1e-6


def test_unknown_kinds_are_refused():
    with pytest.raises(ConfigError, match=r"'loss\.fusion' must be one of 'bce', 'dice', 'bce\+dice', not 'focal'"):
        changed(Config(), {"loss": {"fusion": "focal"}})


def test_side_outputs_and_edges_are_part_of_the_total():
    generator = torch.Generator().manual_seed(0)
    readers = torch.zeros(2, 4, 16, 16)
    readers[:, :2, 4:12, 5:11] = 1
    valid = torch.tensor([[True, True, False, False]] * 2)
    logits = {key: torch.randn(2, 1, 16, 16, generator=generator) for key in ("final", "side_1", "side_2", "edge")}
    parts = losses.UncertaintyLoss()(logits, readers, valid)
    assert torch.isclose(parts["total"], parts["final"] + parts["sides"] + parts["edge"])
    alone = losses.UncertaintyLoss()({"final": logits["side_1"]}, readers, valid)["final"]
    other = losses.UncertaintyLoss()({"final": logits["side_2"]}, readers, valid)["final"]
    assert torch.isclose(parts["sides"], alone + other)
    drawn = losses.outline(readers[:, :1])
    assert drawn.sum() == 2 * (2 * 8 + 2 * 4)
    assert not (drawn * (1 - readers[:, :1])).any()
