"""Structure loss: cross-entropy and intersection over union, both weighted towards the outline.

Source: Wei et al., F3Net (AAAI 2020), which the IFE paper trains with. A pixel's weight is 1 + 5 |mean of the mask in
31 x 31 pixels around it - mask|: what lies where the mask changes counts up to six times.
"""

import torch
from torch.nn import functional

WINDOW = 31
EMPHASIS = 5.0


def outline_weight(target: torch.Tensor, window: int = WINDOW) -> torch.Tensor:
    """Weights of target (B, K, H, W) in [0, 1], same shape; beyond the image the mask counts as background."""
    # Rows and columns one after the other: the same mean for a sixteenth of the work.
    pad = window // 2
    mean = functional.avg_pool2d(target, (window, 1), stride=1, padding=(pad, 0))
    mean = functional.avg_pool2d(mean, (1, window), stride=1, padding=(0, pad))
    return 1 + EMPHASIS * (mean - target).abs()


def structure_loss(logits: torch.Tensor, target: torch.Tensor, released: bool = False) -> torch.Tensor:
    """Weighted cross-entropy + weighted 1 - IoU per sample and mask: (B, 1, H, W), (B, K, H, W) -> (B, K).

    Both parts are means under the weights. `released`: as F3Net's and IFE's code has it, where the cross-entropy is
    averaged before it is weighted, so its weights cancel and only the IoU's remain; its mean over the batch is the
    code's value.
    """
    weight = outline_weight(target)
    entropy = functional.binary_cross_entropy_with_logits(
        logits.expand_as(target), target, weight=None if released else weight, reduction="none"
    )
    entropy = entropy.mean((2, 3)) if released else entropy.sum((2, 3)) / weight.sum((2, 3))
    probability = torch.sigmoid(logits)
    common = (probability * target * weight).sum((2, 3))
    total = ((probability + target) * weight).sum((2, 3))
    return entropy + 1 - (common + 1) / (total - common + 1)
