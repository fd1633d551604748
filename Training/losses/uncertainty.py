"""Losses of UGS-Net: multi-confidence BCE on union and intersection, and multiple-annotation fusion.

Logits are (B, 1, H, W); readers' masks (B, R, H, W) in [0, 1] with `valid` (B, R) marking the readers that exist.
"""

import torch
from torch.nn import functional

from .structure import structure_loss


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


def fusion_bce(logits, readers, valid, double_sigmoid: bool = False):
    """Mean over annotations of BCE(p, GT_j). BCE is linear in its target, so this is BCE(p, mean_j GT_j) exactly."""
    return bce(logits, mean_annotation(readers, valid), double_sigmoid)


def fusion_dice(logits, readers, valid):
    """Mean over annotations of 1 - Dice(p, GT_j) (the earlier paper prints the score; the loss is one minus it)."""
    weight = valid.to(readers.dtype)
    return ((soft_dice(logits, readers) * weight).sum(1) / weight.sum(1)).mean()


def outline(mask: torch.Tensor) -> torch.Tensor:
    """The pixels of a mask (B, 1, H, W) that touch the background, diagonals included."""
    return mask - (1 - functional.max_pool2d(1 - mask, 3, stride=1, padding=1))


KINDS = ("bce", "dice", "bce+dice")
FORMS = ("", "structure", "structure_released")


class UncertaintyLoss:
    """L = w0 * L_MCM + w1 * Phi(single) + w2 * Phi(final), weights 0.5/0.5/1.

    L_MCM = BCE(union', union) + BCE(intersection', intersection). Phi fuses all annotations (`target="readers"`), or is
    the loss against the first reader alone (`target="first"`, UGS-Net-V1's Label_1); `final_readers` is the same for
    final alone, empty: as `target`. Networks without the uncertainty branches are trained on `final` alone. With
    `final_target="consensus"` final learns what at least half of the readers include in place of every annotation.
    Side outputs (`side_*`) learn what final does, with the same weight, and `edge` the outline of the consensus, as
    networks with deep supervision want. Where a kind is `bce+dice`, Dice is weighted by `dice_weight`: BCE averages
    over all pixels of a crop and Dice over the nodule's, so at weight 1 Dice would drown BCE. With `form` final and
    side outputs learn by `structure_loss` in place of `fusion` (`structure_released`: in its released form).
    """

    def __init__(
        self,
        mcm="bce",
        fusion="bce",
        weights=(0.5, 0.5, 1.0),
        target="readers",
        final_readers="",
        final_target="annotations",
        dice_weight=1.0,
        double_sigmoid=False,
        form="",
    ):
        final_readers = final_readers or target
        if mcm not in KINDS or fusion not in KINDS or not {target, final_readers} <= {"readers", "first"}:
            raise ValueError(f"loss: mcm and fusion are one of {KINDS}, target and final_readers readers or first")
        if final_target not in ("annotations", "consensus"):
            raise ValueError(f"loss: final_target is annotations or consensus, got {final_target!r}")
        if form not in FORMS or (form and double_sigmoid):
            raise ValueError(f"loss: form is empty or one of {FORMS[1:]} without double_sigmoid, got {form!r}")
        self.final_target, self.form = final_target, form
        self.mcm, self.fusion, self.weights = mcm, fusion, weights
        self.target, self.final_readers = target, final_readers
        self.dice_weight, self.double_sigmoid = dice_weight, double_sigmoid

    def _sum(self, kind, bce_loss, dice_loss):
        """The parts that `kind` names; the losses come as functions so that an unused one costs nothing."""
        loss = bce_loss() if "bce" in kind else 0.0
        return loss + self.dice_weight * dice_loss() if "dice" in kind else loss

    def _fused(self, logits, readers, valid):
        return self._sum(
            self.fusion,
            lambda: fusion_bce(logits, readers, valid, self.double_sigmoid),
            lambda: fusion_dice(logits, readers, valid),
        )

    def _final(self, logits, readers, valid):
        """Loss of final and of the side outputs: the mean over annotations of what `form` names."""
        if not self.form:
            return self._fused(logits, readers, valid)
        weight = valid.to(readers.dtype)
        each = structure_loss(logits, readers, released=self.form == "structure_released")
        return ((each * weight).sum(1) / weight.sum(1)).mean()

    def _against(self, logits, target):
        return self._sum(
            self.mcm,
            lambda: bce(logits, target, self.double_sigmoid),
            lambda: soft_dice(logits, target).mean(),
        )

    def __call__(self, logits: dict, readers: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the parts and their weighted sum `total`."""
        logits = {key: value.float() for key, value in logits.items()}
        first = valid & (torch.arange(valid.shape[1], device=valid.device) == 0)
        used = valid if self.final_readers == "readers" else first
        consensus = (mean_annotation(readers, used) >= 0.5).to(readers.dtype)
        target, known = readers, used
        if self.final_target == "consensus":
            target, known = consensus, torch.ones_like(used[:, :1])
        parts = {"final": self._final(logits["final"], target, known)}
        total = self.weights[2] * parts["final"]
        sides = [self._final(value, target, known) for key, value in logits.items() if key.startswith("side_")]
        if sides:
            parts["sides"] = sum(sides)
            total = total + self.weights[2] * parts["sides"]
        if "edge" in logits:
            parts["edge"] = bce(logits["edge"], outline(consensus), self.double_sigmoid)
            total = total + self.weights[2] * parts["edge"]
        if "union" in logits:
            union, intersection = union_and_intersection(readers, valid)
            parts["mcm"] = self._against(logits["union"], union) + self._against(logits["intersection"], intersection)
            parts["single"] = self._fused(logits["single"], readers, valid if self.target == "readers" else first)
            total = total + self.weights[0] * parts["mcm"] + self.weights[1] * parts["single"]
        return {**parts, "total": total}
