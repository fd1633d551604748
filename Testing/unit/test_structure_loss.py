"""Structure loss: weights by hand, the released form's cancelled weights, and its place in the training loss."""

import pytest
import torch
from torch.nn import functional

from Training.config import Config, ConfigError, Loss, changed
from Training.losses.structure import outline_weight, structure_loss
from Training.losses.uncertainty import UncertaintyLoss


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(2, 1, 40, 48, dtype=torch.double)
    target[0, :, 10:30, 12:30] = 1
    target[1, :, 5:9, 20:44] = 1
    return torch.randn(target.shape, generator=generator, dtype=torch.double), target


def test_weights_are_those_of_a_31_pixel_window(case):
    _, target = case
    square = functional.avg_pool2d(target, 31, stride=1, padding=15)
    torch.testing.assert_close(outline_weight(target), 1 + 5 * (square - target).abs())
    single = torch.zeros(1, 1, 63, 63, dtype=torch.double)
    single[..., 31, 31] = 1
    weight = outline_weight(single)
    assert float(weight[0, 0, 31, 31]) == pytest.approx(1 + 5 * (1 - 1 / 961))
    assert float(weight[0, 0, 16, 46]) == pytest.approx(1 + 5 / 961)
    assert float(weight[0, 0, 15, 31]) == 1
    # Beyond the image there is background: a full mask weighs more at its border.
    full = outline_weight(torch.ones(1, 1, 64, 64, dtype=torch.double))
    assert float(full[0, 0, 32, 32]) == 1
    assert float(full[0, 0, 0, 0]) == pytest.approx(1 + 5 * (1 - 256 / 961))


def test_both_parts_are_weighted(case):
    logits, target = case
    weight, probability = outline_weight(target), torch.sigmoid(logits)
    for sample in range(2):
        w, m, p = weight[sample], target[sample], probability[sample]
        entropy = -(m * p.log() + (1 - m) * (1 - p).log())
        common, union = (w * p * m).sum(), (w * (p + m - p * m)).sum()
        expected = (w * entropy).sum() / w.sum() + 1 - (common + 1) / (union + 1)
        torch.testing.assert_close(structure_loss(logits, target)[sample, 0], expected)


def test_in_the_released_form_the_weights_of_the_cross_entropy_cancel(case):
    logits, target = case
    mean = functional.binary_cross_entropy_with_logits(logits, target)
    weight = outline_weight(target)
    as_coded = ((weight * mean).sum((2, 3)) / weight.sum((2, 3))).mean()
    iou = (
        structure_loss(logits, target).mean()
        - (
            (weight * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum((2, 3))
            / weight.sum((2, 3))
        ).mean()
    )
    torch.testing.assert_close(structure_loss(logits, target, released=True).mean(), as_coded + iou)
    assert (
        abs(float(structure_loss(logits, target, released=True).mean() - structure_loss(logits, target).mean())) > 1e-3
    )


def test_a_certain_and_right_map_costs_nothing_and_training_gets_there(case):
    _, target = case
    assert float(structure_loss(40 * (2 * target - 1), target).max()) < 1e-6
    assert float(structure_loss(-40 * (2 * target - 1), target).min()) > 40
    logits = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        structure_loss(logits, target).mean().backward()
        optimizer.step()
    assert torch.equal(logits.detach() > 0, target > 0)


def test_final_and_sides_learn_it_and_the_rest_stays(case):
    logits, target = case
    readers = target.repeat(1, 4, 1, 1)
    readers[:, 1, :, 20:] = 0
    readers[:, 3] = 1  # not there
    valid = torch.tensor([[True, True, False, False], [True, True, True, False]])
    out = {"final": logits, "side_1": logits + 1, "side_2": -logits}
    before, after = UncertaintyLoss(), UncertaintyLoss(Loss(form="structure"))
    parts = after(out, readers, valid)
    each = structure_loss(logits.float(), readers)
    expected = torch.stack([each[0, :2].mean(), each[1, :3].mean()]).mean()
    torch.testing.assert_close(parts["final"].double(), expected)
    sides = sum(after({"final": out[key]}, readers, valid)["final"] for key in ("side_1", "side_2"))
    torch.testing.assert_close(parts["sides"], sides)
    torch.testing.assert_close(parts["total"], parts["final"] + parts["sides"])
    assert float(before(out, readers, valid)["final"]) != pytest.approx(float(parts["final"]))
    branches = {**out, "union": logits, "intersection": logits - 1, "single": logits + 2}
    old, new = before(branches, readers, valid), after(branches, readers, valid)
    assert (old["mcm"], old["single"]) == (new["mcm"], new["single"])
    consensus = UncertaintyLoss(Loss(form="structure_released", final_target="consensus"))(out, readers, valid)
    mean = (readers * valid[:, :, None, None]).sum(1, True) / valid.sum(1)[:, None, None, None]
    wanted = structure_loss(logits.float(), (mean >= 0.5).double(), released=True).mean()
    torch.testing.assert_close(consensus["final"].double(), wanted)


def test_unknown_forms_are_refused():
    with pytest.raises(ConfigError, match=r"'loss\.form' must be one of"):
        changed(Config(), {"loss": {"form": "focal"}})
    with pytest.raises(ConfigError, match="form structure has no double_sigmoid"):
        UncertaintyLoss(Loss(form="structure", double_sigmoid=True))
