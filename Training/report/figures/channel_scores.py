"""Scores of a network's channels by several criteria where it enhances features, and how far the criteria agree."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    import torch
    from torch import nn

LEAST_SIDE = 3  # pixels: what the scores are defined for
#: What the columns of the tables are called.
CRITERIA = ("curvature", "entropy")
FORMS = {"paper2d": "entropy", "hist_batch": "histogram of the batch", "unique": "distinct values"}
ALONE = "histogram, alone"
NONZERO = "share of non-zero"
CONTRAST = "contrast of the nodule"
#: (first, second) criterion of each comparison; those in the report's sentences come first.
PAIRS = (
    ("curvature", "entropy"),
    ("curvature", CONTRAST),
    ("entropy", CONTRAST),
    ("entropy", FORMS["hist_batch"]),
    ("entropy", FORMS["unique"]),
    (FORMS["hist_batch"], ALONE),
    ("entropy", NONZERO),
    (FORMS["unique"], NONZERO),
)
SAID = 6
_SKIPS = ("unet", "nnunet", "attention_unet", "ugsnet", "dsnet")
_PLACES = {"sinet_v2": ("texture x4", "texture x3", "texture x2"), "deeplabv3plus": ("low level", "ASPP")}


@dataclass
class Place:
    """A place where a network enhances a choice of its channels, on N images.

    scores: {criterion: (N, C) float32}; features: {image: (C, h, w) float32} of those asked for; count: channels that
    are copied; size: (h, w); own: the criterion that the network itself picks by.
    """

    name: str
    own: str
    count: int
    size: tuple[int, int]
    scores: dict[str, np.ndarray] = field(repr=False)
    features: dict[int, np.ndarray] = field(repr=False)

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return next(iter(self.scores.values())).shape[1]


def place_name(network: str, module: str) -> str:
    """What a network's place is called: its skip, counted from 1, or the words of its paper; else the module's name."""
    number = module.rpartition(".")[2]
    if number.isdigit() and network in _SKIPS:
        return f"skip {int(number) + 1}"
    if number.isdigit() and int(number) < len(_PLACES.get(network, ())):
        return _PLACES[network][int(number)]
    return module


def enhanced_places(
    network: "nn.Module",
    images: "torch.Tensor",
    masks: np.ndarray,
    kind: str,
    kept: Sequence[int] = (),
    batch: int = 32,
) -> list[Place]:
    """Scores by every criterion at each place where `network` (of the name `kind`) has a choice, as it runs.

    images: float tensor (N, C, H, W), in batches of which `hist_batch` takes its range; masks: (N, H, W) bool, what the
    maps' contrast is of; kept: indices of the images whose feature maps are kept. The network runs in evaluation mode
    and comes back as it was. No place without enhancement, none where all channels are copied, and none with maps
    under LEAST_SIDE pixels.
    """
    import torch

    from LungNoduleUncertaintyLib.networks.feature_enhancement import record_selection

    found: dict[str, Place] = {}
    parts: dict[str, dict[str, list[np.ndarray]]] = {}
    modes = {layer: layer.training for layer in network.modules()}
    network.eval()
    try:
        for start in range(0, len(images), batch):
            with torch.no_grad(), record_selection(network) as seen:
                network(images[start : start + batch])
            for name, selection in seen.items():
                module, features = selection.module, selection.features.float()
                count, size = module.extra_channels(features.shape[1]), (features.shape[2], features.shape[3])
                if not 0 < count < features.shape[1] or min(size) < LEAST_SIDE:
                    continue
                if name not in found:
                    found[name] = Place(place_name(kind, name), module.score, count, size, {}, {})
                for criterion, values in _scores(features, masks[start : start + batch]).items():
                    parts.setdefault(name, {}).setdefault(criterion, []).append(values.numpy(force=True))
                own = [index for index in kept if start <= index < start + len(features)]
                found[name].features |= {index: features[index - start].numpy(force=True) for index in own}
    finally:
        for layer, mode in modes.items():
            layer.training = mode
    for name, place in found.items():
        place.scores = {criterion: np.concatenate(values) for criterion, values in parts[name].items()}
    return [found[name] for name in sorted(found)]


def _scores(features: "torch.Tensor", masks: np.ndarray) -> dict[str, "torch.Tensor"]:
    import torch

    from LungNoduleUncertaintyLib.networks.feature_enhancement import curvature_scores, entropy_scores

    scores = {"curvature": curvature_scores(features)}
    scores |= {words: entropy_scores(features, form) for form, words in FORMS.items()}
    scores[ALONE] = torch.cat([entropy_scores(one[None], "hist_batch") for one in features])
    scores[NONZERO] = (features != 0).float().mean((2, 3))
    values = features.flatten(2).numpy(force=True)
    contrasts = [contrast(own, on_grid(mask, features.shape[2:])) for own, mask in zip(values, masks, strict=True)]
    scores[CONTRAST] = torch.from_numpy(np.stack(contrasts))
    return scores


def on_grid(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A mask (H, W) on a coarser grid, flat (h * w,) bool: pixels covered to a half or, without one, the most covered.

    All False for an empty mask.
    """
    import torch
    from torch.nn import functional

    pooled = functional.adaptive_avg_pool2d(
        torch.from_numpy(np.asarray(mask, np.float32))[None, None], (size[0], size[1])
    )
    share = pooled.flatten().numpy()
    return share >= min(0.5, share.max()) if share.max() > 0 else np.zeros(share.shape, bool)


def contrast(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """|2 AUC - 1| of every map for a mask: values (C, P), inside (P,) bool -> (C,) float32 in [0, 1].

    AUC is the chance that a pixel inside has a higher value than one outside (ties count half): 1 for a map that is
    brighter, or darker, on the nodule than anywhere else, 0 for one that doesn't show it. 0 where either side is empty.
    """
    count, rest = int(inside.sum()), int((~inside).sum())
    if not count or not rest:
        return np.zeros(len(values), np.float32)
    ranks = rankdata(values, axis=1)[:, inside].sum(1)
    auc = (ranks - count * (count + 1) / 2) / (count * rest)
    return np.abs(2 * auc - 1).astype(np.float32)


def picks(scores: np.ndarray, count: int) -> np.ndarray:
    """(N, C) bool: every image's `count` best channels by scores (N, C), of equal ones those that a network takes."""
    import torch

    from LungNoduleUncertaintyLib.networks.feature_enhancement import top_channels

    out = np.zeros(scores.shape, bool)
    np.put_along_axis(out, top_channels(torch.from_numpy(scores), count).numpy(), True, axis=1)
    return out


def cut_by_tie(scores: np.ndarray, count: int) -> float:
    """Share of images where the last channel that is picked and the first that isn't have equal scores (N, C)."""
    ordered = -np.sort(-scores, axis=1)
    return float((ordered[:, count - 1] == ordered[:, count]).mean())


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the channels of every image: (N, C), (N, C) -> (N,); NaN where one is constant."""
    a, b = (rankdata(scores, axis=1) for scores in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (a * b).sum(1) / scale, np.nan)


def common_share(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Share of the picked channels that both scores pick, for every image: (N, C), (N, C) -> (N,)."""
    return (picks(first, count) & picks(second, count)).sum(1) / count


def steadiness(picked: np.ndarray) -> dict[str, int | float | None]:
    """How much a choice (N, C) varies over the images: channels always and never picked, and what two images share.

    `shared_by_two`: mean over pairs of images of the share of one's picked channels that the other has as well; None
    for one image.
    """
    images, each = len(picked), picked.sum(0).astype(float)
    pairs = images * (images - 1) * int(picked[0].sum())
    return {
        "always_picked": int((each == images).sum()),
        "never_picked": int((each == 0).sum()),
        "shared_by_two": float((each * (each - 1)).sum() / pairs) if pairs else None,
    }
