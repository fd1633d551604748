"""Losses of DSNet (binary Dice, soft mask, adversarial) and of its super-resolution teacher.

Maps are (B, 1, H, W). z is a network's map: sigmoid(z) is the binary probability, tanh(z) the soft mask in [-1, 1],
whose opacity alpha is (tanh(z) + 1) / 2. Discriminators return logits of any shape. Losses are means over the batch.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import get_args

import torch
from torch.nn import functional

from ..config import DiceForm, GanForm, SoftScale


def _check(name: str, value: str, kind: object) -> None:
    """Raises ValueError for a word that isn't one of the Literal `kind`."""
    if value not in get_args(kind):
        raise ValueError(f"unknown {name} {value!r}; available: {', '.join(get_args(kind))}")


def _check_shapes(what: str, first: torch.Tensor, second: torch.Tensor) -> None:
    if first.shape != second.shape:  # broadcasting would make a loss of them, a wrong one
        raise ValueError(f"{what}: shapes {tuple(first.shape)} and {tuple(second.shape)} differ")


def dice_loss(z: torch.Tensor, mask: torch.Tensor, form: DiceForm = "squared", smooth: float = 1e-6) -> torch.Tensor:
    """1 - Dice of p = sigmoid(z) and a mask y in [0, 1], per sample, then the mean.

    form: `squared`, 1 - 2 sum(p y) / (sum(p^2) + sum(y^2)) (v2, Eq. 15), which equals sum((p - y)^2) over the same
    denominator; `plain`, with sum(p) + sum(y) below (v1, Eq. 2, its counts of pixels made differentiable). `smooth`
    makes the loss of two empty maps zero.
    """
    _check("form of Dice", form, DiceForm)
    _check_shapes("Dice", z, mask)
    p, y = torch.sigmoid(z).flatten(1), mask.flatten(1)
    total = (p.square() + y.square() if form == "squared" else p + y).sum(1)
    return (1 - (2 * (p * y).sum(1) + smooth) / (total + smooth)).mean()


def soft_mask_l1(z: torch.Tensor, alpha: torch.Tensor, scale: SoftScale = "signed") -> torch.Tensor:
    """Mean |soft mask predicted - given| (v2, Eq. 16), alpha in [0, 1].

    scale: `signed` compares in [-1, 1], tanh(z) with 2 alpha - 1, as v2; `unit` compares opacities, half as much.
    """
    _check("scale of the soft mask", scale, SoftScale)
    _check_shapes("soft mask", z, alpha)
    difference = (torch.tanh(z) - (2 * alpha - 1)).abs().mean()
    return difference if scale == "signed" else difference / 2


def _cross_entropy(logits: torch.Tensor, real: bool) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, form: GanForm = "nonsaturating") -> torch.Tensor:
    """What the discriminator minimizes, from its logits of real and of (detached) fake samples.

    -log D(real) - log(1 - D(fake)) (Eq. 18 with its sign turned), or for `lsgan` half the squared distances to 1 and 0.
    """
    _check("form of the GAN loss", form, GanForm)
    if form == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    return _cross_entropy(real, True) + _cross_entropy(fake, False)


def generator_loss(fake: torch.Tensor, form: GanForm = "nonsaturating") -> torch.Tensor:
    """What the generator minimizes, from the discriminator's logits of its samples.

    form: `nonsaturating` -log D(fake); `saturating` log(1 - D(fake)), Eq. 18 itself, whose gradient vanishes where the
    discriminator is sure, and which is negative; `lsgan` half the squared distance to 1.
    """
    _check("form of the GAN loss", form, GanForm)
    if form == "lsgan":
        return 0.5 * (fake - 1).square().mean()
    return _cross_entropy(fake, True) if form == "nonsaturating" else -_cross_entropy(fake, False)


def _total(parts: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """The weighted sum of a loss's parts."""
    return reduce(operator.add, [weights[name] * part for name, part in parts.items()])


class DSNetLoss:
    """0.5 Dice(final) + 100 L1(soft) + 1 GAN. A part whose weight is zero isn't computed, for ablations."""

    def __init__(
        self,
        weights: Sequence[float] = (0.5, 100.0, 1.0),
        dice: DiceForm = "squared",
        scale: SoftScale = "signed",
        gan: GanForm = "nonsaturating",
    ):
        _check("form of Dice", dice, DiceForm)
        _check("scale of the soft mask", scale, SoftScale)
        _check("form of the GAN loss", gan, GanForm)
        if len(weights) != 3 or min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"weights are three numbers (Dice, L1, GAN), none negative, one positive; got {weights}")
        self.weights, self.dice, self.scale, self.gan = tuple(weights), dice, scale, gan

    def __call__(
        self,
        out: Mapping[str, torch.Tensor],
        mask: torch.Tensor | None = None,
        alpha: torch.Tensor | None = None,
        fake: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Parts `dice`, `soft`, `gan` and their weighted sum `total`.

        out: DSNet's `final` and `soft`; mask, alpha: binary and soft mask of the same size; fake: the discriminator's
        logits of the predicted soft mask. What belongs to a part of weight zero may be None. Raises ValueError where
        something else is missing or sizes differ.
        """
        needed = zip(("dice", "soft", "gan"), self.weights, (mask, alpha, fake), strict=True)
        wanted = {name: (weight, value) for name, weight, value in needed if weight}
        given = {name: value for name, (_, value) in wanted.items() if value is not None}
        missing = [name for name in wanted if name not in given]
        if missing:
            raise ValueError(f"loss: nothing given for {', '.join(missing)}, whose weight isn't zero")
        losses: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "dice": lambda y: dice_loss(out["final"].float(), y, self.dice),
            "soft": lambda y: soft_mask_l1(out["soft"].float(), y, self.scale),
            "gan": lambda y: generator_loss(y, self.gan),
        }
        parts = {name: losses[name](value.float()) for name, value in given.items()}
        return {**parts, "total": _total(parts, {name: weight for name, (weight, _) in wanted.items()})}


def total_variation(image: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of vertical plus that of horizontal neighbors, of (B, C, H, W)."""
    return image.diff(dim=2).square().mean() + image.diff(dim=3).square().mean()


class SuperResolutionLoss:
    """Loss of the SRGAN generator: MSE + 1e-3 adversarial, and as wanted total variation and a perceptual term.

    perceptual: maps a batch of images to features, compared by their MSE (VGG in the paper; no weights come with this
    project). Source: Ledig et al. (CVPR 2017), with MSE for content.
    """

    def __init__(
        self,
        adversarial: float = 1e-3,
        variation: float = 0.0,
        perceptual: Callable[[torch.Tensor], torch.Tensor] | None = None,
        perceptual_weight: float = 6e-3,
        gan: GanForm = "nonsaturating",
    ):
        _check("form of the GAN loss", gan, GanForm)
        if min(adversarial, variation, perceptual_weight) < 0:
            raise ValueError(f"weights must not be negative, got {adversarial}, {variation} and {perceptual_weight}")
        self.adversarial, self.variation, self.gan = adversarial, variation, gan
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight

    def __call__(
        self, image: torch.Tensor, target: torch.Tensor, fake: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Parts `content`, `adversarial`, `variation`, `perceptual` as used, and their weighted sum `total`.

        image, target: (B, C, 4H, 4W), predicted and true; fake: the discriminator's logits of `image`, None while the
        generator is trained without one.
        """
        image, target = image.float(), target.float()
        _check_shapes("super-resolution", image, target)
        parts = {"content": functional.mse_loss(image, target)}
        weights = {"content": 1.0}
        if fake is not None and self.adversarial:
            parts["adversarial"], weights["adversarial"] = generator_loss(fake.float(), self.gan), self.adversarial
        if self.variation:
            parts["variation"], weights["variation"] = total_variation(image), self.variation
        if self.perceptual is not None and self.perceptual_weight:
            with torch.no_grad():
                wanted = self.perceptual(target)
            parts["perceptual"] = functional.mse_loss(self.perceptual(image), wanted)
            weights["perceptual"] = self.perceptual_weight
        return {**parts, "total": _total(parts, weights)}
