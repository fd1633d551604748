"""Losses of DSNet and of its super-resolution teacher: identities, signs of gradients, weights."""

from typing import get_args

import pytest
import torch
from torch import nn

from LungNoduleUncertaintyLib.networks.discriminators import PixelDiscriminator
from LungNoduleUncertaintyLib.outlining.prediction import to_probability
from Training.config import DiceForm, GanForm
from Training.losses import dsnet as losses


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.double)
    alpha = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.double)
    return z, alpha


def logit(p):
    return torch.logit(p.double())


# --- Dice ---


def test_squared_dice_is_the_relative_squared_difference(case):
    z, y = case
    p = torch.sigmoid(z)
    expected = ((p - y).square().sum((1, 2, 3)) / (p.square() + y.square()).sum((1, 2, 3))).mean()
    torch.testing.assert_close(losses.dice_loss(z, y, smooth=0), expected)
    assert float(losses.dice_loss(logit(y), y)) == pytest.approx(0, abs=1e-7)  # soft masks too
    assert float(losses.dice_loss(logit(y), y, "plain")) > 0.1  # the earlier form has no zero there


def test_dice_of_binary_masks_is_the_dice_of_counts():
    truth, predicted = torch.zeros(2, 1, 6, 6), torch.zeros(2, 1, 6, 6)
    truth[0, :, :3], predicted[0, :, 1:3] = 1, 1  # 18 and 12 pixels, 12 in common
    truth[1, :, 0], predicted[1, :, 5] = 1, 1  # nothing in common
    z = (2 * predicted - 1) * 60
    for form in get_args(DiceForm):
        assert float(losses.dice_loss(z[:1], truth[:1], form)) == pytest.approx(1 - 24 / 30, abs=1e-5)
        assert float(losses.dice_loss(z[1:], truth[1:], form)) == pytest.approx(1, abs=1e-5)
        mean = (losses.dice_loss(z[:1], truth[:1], form) + losses.dice_loss(z[1:], truth[1:], form)) / 2
        torch.testing.assert_close(losses.dice_loss(z, truth, form), mean)  # per sample, then the mean
        assert float(losses.dice_loss((2 * truth - 1) * 60, truth, form)) == pytest.approx(0, abs=1e-5)
        empty = torch.zeros(1, 1, 4, 4)
        assert float(losses.dice_loss(empty - 60, empty, form)) == pytest.approx(0, abs=1e-5)
        assert 0.999 < float(losses.dice_loss(empty, empty, form)) <= 1


def test_dice_pulls_towards_the_mask(case):
    z, y = case
    mask = (y > 0.5).double()
    for form in get_args(DiceForm):
        x = z.clone().requires_grad_()
        losses.dice_loss(x, mask, form).backward()
        assert (x.grad[mask == 0] > 0).all()
        # Raising a pixel of the mask helps; in the squared form only up to 1 / Dice > 1, which p never reaches.
        assert (x.grad[mask == 1] < 0).all()


# --- soft mask ---


def test_soft_mask_loss(case):
    z, alpha = case
    same = to_probability("soft", z)
    assert float(losses.soft_mask_l1(z, same)) == pytest.approx(0, abs=1e-12)
    assert float(losses.soft_mask_l1(z, same, "unit")) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(losses.soft_mask_l1(z, alpha, "unit"), (same - alpha).abs().mean())
    torch.testing.assert_close(losses.soft_mask_l1(z, alpha), 2 * losses.soft_mask_l1(z, alpha, "unit"))
    x = z.clone().requires_grad_()
    losses.soft_mask_l1(x, alpha).backward()
    assert torch.equal(x.grad > 0, same > alpha)
    # The soft mask reaches its threshold where the binary map reaches its own.
    assert torch.equal(same >= 0.5, torch.sigmoid(z) >= 0.5)


# --- adversarial ---


@pytest.mark.parametrize("form", get_args(GanForm))
def test_adversaries_pull_in_opposite_directions(form):
    real = torch.linspace(-3, 0.9, 8).requires_grad_()
    fake = torch.linspace(-3, 0.9, 8)[torch.randperm(8)].requires_grad_()
    losses.discriminator_loss(real, fake, form).backward()
    assert (real.grad < 0).all()
    if form == "lsgan":
        assert torch.equal(fake.grad > 0, fake > 0)  # towards zero
    else:
        assert (fake.grad > 0).all()
    judged = fake.detach().clone().requires_grad_()
    losses.generator_loss(judged, form).backward()
    assert (judged.grad < 0).all()


def test_gan_losses_are_their_formulas():
    real, fake = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([-1.0, 0.5, 2.0])
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    objective = d_real.log().mean() + (1 - d_fake).log().mean()  # Eq. 18
    for form in ("saturating", "nonsaturating"):
        torch.testing.assert_close(losses.discriminator_loss(real, fake, form), -objective)
    torch.testing.assert_close(losses.generator_loss(fake, "saturating"), (1 - d_fake).log().mean())
    torch.testing.assert_close(losses.generator_loss(fake), -d_fake.log().mean())
    assert float(losses.discriminator_loss(torch.ones(4), torch.zeros(4), "lsgan")) == 0
    assert float(losses.generator_loss(torch.ones(4), "lsgan")) == 0
    assert float(losses.generator_loss(torch.zeros(4), "lsgan")) == 0.5


def test_saturating_gradient_vanishes_where_the_discriminator_is_sure():
    gradients = {}
    for form in ("saturating", "nonsaturating"):
        fake = torch.full((1,), -12.0, requires_grad=True)
        losses.generator_loss(fake, form).backward()
        gradients[form] = float(fake.grad.abs())
    assert gradients["saturating"] < 1e-4
    assert gradients["nonsaturating"] > 0.99


def test_alternating_steps_move_only_their_own_network():
    """A step of the discriminator leaves the generator as it is, and the other way round; both losses fall."""
    torch.manual_seed(0)
    image, alpha = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    segmenter, judge = nn.Conv2d(1, 1, 3, padding=1), PixelDiscriminator(width=8)
    steps = [torch.optim.SGD(m.parameters(), lr=1e-2) for m in (segmenter, judge)]

    def judged(fake):
        return losses.discriminator_loss(judge(image, 2 * alpha - 1), judge(image, fake))

    soft = torch.tanh(segmenter(image))
    before = judged(soft.detach())
    before.backward()
    assert all(p.grad is None for p in segmenter.parameters())
    steps[1].step()
    assert judged(soft.detach()) < before
    first = losses.generator_loss(judge(image, soft))
    kept = [p.detach().clone() for p in judge.parameters()]
    first.backward()
    steps[0].step()
    assert losses.generator_loss(judge(image, torch.tanh(segmenter(image)))) < first
    assert all(torch.equal(p, k) for p, k in zip(judge.parameters(), kept, strict=True))


# --- sums ---


def test_weights_of_the_parts(case):
    z, alpha = case
    mask, fake = (alpha >= 0.5).double(), torch.randn(3, 1, 8, 8)
    out = {"final": z, "soft": z + 1}
    parts = losses.DSNetLoss()(out, mask, alpha, fake)
    torch.testing.assert_close(parts["total"], 0.5 * parts["dice"] + 100 * parts["soft"] + parts["gan"])
    torch.testing.assert_close(parts["dice"], losses.dice_loss(z.float(), mask.float()))
    torch.testing.assert_close(parts["soft"], losses.soft_mask_l1(z.float() + 1, alpha.float()))
    torch.testing.assert_close(parts["gan"], losses.generator_loss(fake))
    dice_only = losses.DSNetLoss(weights=(1, 0, 0), dice="plain")(out, mask)
    assert set(dice_only) == {"dice", "total"}
    torch.testing.assert_close(dice_only["total"], losses.dice_loss(z.float(), mask.float(), "plain"))


def test_what_the_losses_refuse(case):
    z, alpha = case
    with pytest.raises(ValueError, match="nothing given for soft, gan"):
        losses.DSNetLoss()({"final": z, "soft": z}, alpha)
    with pytest.raises(ValueError, match=r"shapes \(3, 1, 8, 8\) and \(3, 1, 32, 32\) differ"):
        losses.DSNetLoss(weights=(1, 0, 0))({"final": z}, torch.zeros(3, 1, 32, 32))
    with pytest.raises(ValueError, match="three numbers"):
        losses.DSNetLoss(weights=(1, 1))
    with pytest.raises(ValueError, match="none negative"):
        losses.DSNetLoss(weights=(1, -1, 0))
    for option in ("dice", "scale", "gan"):
        with pytest.raises(ValueError, match=r"unknown .* 'best'; available"):
            losses.DSNetLoss(**{option: "best"})
    with pytest.raises(ValueError, match="super-resolution: shapes"):
        losses.SuperResolutionLoss()(z, z[:1])
    with pytest.raises(ValueError, match="must not be negative"):
        losses.SuperResolutionLoss(variation=-1)


def test_super_resolution_loss():
    torch.manual_seed(0)
    image, target, fake = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), torch.randn(2, 1)
    plain = losses.SuperResolutionLoss()(image, target)
    assert set(plain) == {"content", "total"}
    torch.testing.assert_close(plain["total"], (image - target).square().mean())
    parts = losses.SuperResolutionLoss(variation=2e-8, perceptual=torch.sqrt)(image, target, fake)
    expected = parts["content"] + 1e-3 * parts["adversarial"] + 2e-8 * parts["variation"] + 6e-3 * parts["perceptual"]
    torch.testing.assert_close(parts["total"], expected)
    torch.testing.assert_close(parts["adversarial"], losses.generator_loss(fake))
    torch.testing.assert_close(parts["perceptual"], (image.sqrt() - target.sqrt()).square().mean())
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(losses.total_variation(ramp)) == 1
    assert float(losses.total_variation(ramp * 0 + 5)) == 0
