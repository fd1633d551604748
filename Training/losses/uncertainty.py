"""Losses of UGS-Net: multi-confidence BCE on union and intersection, and multiple-annotation fusion.

Logits are (B, 1, H, W); readers' masks (B, R, H, W) in [0, 1] with `valid` (B, R) marking the readers that exist.
"""

import operator
from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch.nn import functional

from ..config import ConfigError, Loss, LossKind
from .structure import structure_loss

DEFAULT = Loss()
Part = Callable[[], torch.Tensor]


def union_and_intersection(readers: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What any and what every valid reader includes, each (B, 1, H, W)."""
    mask = valid[:, :, None, None]
    union = readers.masked_fill(~mask, 0.0).amax(1, keepdim=True)
    return union, readers.masked_fill(~mask, 1.0).amin(1, keepdim=True)


def mean_annotation(readers: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of the valid readers, (B, 1, H, W)."""
    weight = valid[:, :, None, None].to(readers.dtype)
    return (readers * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)


def bce(logits: torch.Tensor, target: torch.Tensor, double_sigmoid: bool = False) -> torch.Tensor:
    """Binary cross-entropy, mean over pixels. `double_sigmoid` repeats the released code's bug (preset `released`)."""
    logits = torch.sigmoid(logits) if double_sigmoid else logits
    return functional.binary_cross_entropy_with_logits(logits, target)


def soft_dice(logits: torch.Tensor, target: torch.Tensor, smooth: float = 1.0) -> torch.Tensor:
    """1 - Dice per sample and target channel: (B, 1, H, W) against (B, K, H, W) -> (B, K)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum((2, 3))
    total = probability.sum((2, 3)) + target.sum((2, 3))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def fusion_bce(
    logits: torch.Tensor, readers: torch.Tensor, valid: torch.Tensor, double_sigmoid: bool = False
) -> torch.Tensor:
    """Mean over annotations of BCE(p, GT_j). BCE is linear in its target, so this is BCE(p, mean_j GT_j) exactly."""
    return bce(logits, mean_annotation(readers, valid), double_sigmoid)


def fusion_dice(logits: torch.Tensor, readers: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean over annotations of 1 - Dice(p, GT_j) (the earlier paper prints the score; the loss is one minus it)."""
    weight = valid.to(readers.dtype)
    return ((soft_dice(logits, readers) * weight).sum(1) / weight.sum(1)).mean()


def outline(mask: torch.Tensor) -> torch.Tensor:
    """The pixels of a mask (B, 1, H, W) that touch the background, diagonals included."""
    return mask - (1 - functional.max_pool2d(1 - mask, 3, stride=1, padding=1))


class UncertaintyLoss:
    """L = w0 * L_MCM + w1 * Phi(single) + w2 * Phi(final), weights 0.5/0.5/1, by the options of `config.Loss`.

    L_MCM = BCE(union', union) + BCE(intersection', intersection). Phi fuses all annotations (`target="readers"`), or is
    the loss against the first reader alone (`target="first"`, UGS-Net-V1's Label_1); `final_readers` is the same for
    final alone, empty: as `target`. Networks without the uncertainty branches are trained on `final` alone. With
    `final_target="consensus"` final learns what at least half of the readers include in place of every annotation.
    Side outputs (`side_*`) learn what final does, with the same weight, and `edge` the outline of the consensus, as
    networks with deep supervision need. Where a kind is `bce+dice`, Dice is weighted by `dice_weight`: BCE averages
    over all pixels of a crop and Dice over the nodule's, so at weight 1 Dice would drown BCE. With `form` final and
    side outputs learn by `structure_loss` in place of `fusion` (`structure_released`: in its released form).
    """

    def __init__(self, options: Loss = DEFAULT):
        if options.form and options.double_sigmoid:
            raise ConfigError(f"loss: form {options.form} has no double_sigmoid")
        self.options = options
        self.final_readers = options.final_readers or options.target

    def _sum(self, kind: LossKind, bce_loss: Part, dice_loss: Part) -> torch.Tensor:
        """The parts that `kind` names; the losses come as functions so that an unused one costs nothing."""
        if "dice" not in kind:
            return bce_loss()
        if "bce" not in kind:
            return self.options.dice_weight * dice_loss()
        return bce_loss() + self.options.dice_weight * dice_loss()

    def _fused(self, logits: torch.Tensor, readers: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self._sum(
            self.options.fusion,
            lambda: fusion_bce(logits, readers, valid, self.options.double_sigmoid),
            lambda: fusion_dice(logits, readers, valid),
        )

    def _final(self, logits: torch.Tensor, readers: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Loss of final and of the side outputs: the mean over annotations of what `form` names."""
        if not self.options.form:
            return self._fused(logits, readers, valid)
        weight = valid.to(readers.dtype)
        each = structure_loss(logits, readers, released=self.options.form == "structure_released")
        return ((each * weight).sum(1) / weight.sum(1)).mean()

    def _against(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self._sum(
            self.options.mcm,
            lambda: bce(logits, target, self.options.double_sigmoid),
            lambda: soft_dice(logits, target).mean(),
        )

    def __call__(
        self, logits: Mapping[str, torch.Tensor], readers: torch.Tensor, valid: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns the parts and their weighted sum `total`."""
        logits = {key: value.float() for key, value in logits.items()}
        first = valid & (torch.arange(valid.shape[1], device=valid.device) == 0)
        used = valid if self.final_readers == "readers" else first
        consensus = (mean_annotation(readers, used) >= 0.5).to(readers.dtype)
        target, known = readers, used
        if self.options.final_target == "consensus":
            target, known = consensus, torch.ones_like(used[:, :1])
        parts = {"final": self._final(logits["final"], target, known)}
        total = self.options.weights[2] * parts["final"]
        sides = [self._final(value, target, known) for key, value in logits.items() if key.startswith("side_")]
        if sides:
            parts["sides"] = reduce(operator.add, sides)
            total = total + self.options.weights[2] * parts["sides"]
        if "edge" in logits:
            parts["edge"] = bce(logits["edge"], outline(consensus), self.options.double_sigmoid)
            total = total + self.options.weights[2] * parts["edge"]
        if "union" in logits:
            union, intersection = union_and_intersection(readers, valid)
            parts["mcm"] = self._against(logits["union"], union) + self._against(logits["intersection"], intersection)
            parts["single"] = self._fused(
                logits["single"], readers, valid if self.options.target == "readers" else first
            )
            total = total + self.options.weights[0] * parts["mcm"] + self.options.weights[1] * parts["single"]
        return {**parts, "total": total}
