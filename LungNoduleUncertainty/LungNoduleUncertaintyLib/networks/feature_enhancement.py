"""Instructive feature enhancement (IFE): the channels that carry most structure go to the next layer twice.

Source: Liu et al., Instructive feature enhancement for dichotomous medical image segmentation (MICCAI 2023). Every
channel of a feature map gets a score per sample, curvature or two-dimensional entropy; copies of the best
int(ratio * C) channels are concatenated to the map, and only the next layer's input channels change. Scores carry no
gradient; gradients flow through the copies. How a network takes part is shown at `enhancements`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import log2
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CRITERIA = ("none", "curvature", "entropy")
IMPLEMENTATIONS = ("paper2d", "hist_batch", "unique")
ORDERS = ("score", "channel")
# What p = f / ((H + d) (W + d)) adds to height and width: nothing, so that p sums to 1; the paper's half window; the
# padding on both sides, as released. It scales and shifts all entropies of a map alike: the selection stays the same.
DENOMINATORS = {"pixels": 0, "paper": 1, "padded": 2}
CURVATURE_KERNEL = ((-1 / 16, 5 / 16, -1 / 16), (5 / 16, -1.0, 5 / 16), (-1 / 16, 5 / 16, -1 / 16))
NEIGHBOR_KERNEL = ((1 / 8, 1 / 8, 1 / 8), (1 / 8, 0.0, 1 / 8), (1 / 8, 1 / 8, 1 / 8))
# Ratios for a U-Net's skips 2 and 3 that the paper found best.
SKIP_RATIOS = {"curvature": (0.75, 0.5), "entropy": (0.5, 0.5)}
_RADIX_FROM = 1024  # values in a row from which NumPy's radix sort of 16 bits is fast on every processor
_CHUNK = 2**18  # elements that the CPU works on at a time: they and their intermediate results stay in its caches


def _check_map(x: torch.Tensor) -> None:
    if x.ndim != 4 or min(x.shape[2:]) < 3:
        raise ValueError(f"expected a feature map (B, C, H, W) of at least 3 x 3, got shape {tuple(x.shape)}")


def _float32(x: torch.Tensor) -> torch.Tensor:
    """x without gradient, contiguous, in float32: half precision would merge what the scores tell apart."""
    return x.detach().to(torch.float32, memory_format=torch.contiguous_format)


def _full_precision(x: torch.Tensor) -> AbstractContextManager:
    known = torch.amp.is_autocast_available(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if known else nullcontext()


def _kernel(x: torch.Tensor, kernel: torch.Tensor | None, values: Sequence[Sequence[float]]) -> torch.Tensor:
    """A (1, 1, 3, 3) kernel for x: the buffer given, or one with these values."""
    return (x.new_tensor(values) if kernel is None else kernel.to(x)).reshape(1, 1, 3, 3)


def _convolve(x: torch.Tensor, kernel: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """One kernel on every channel of (1, R, H, W); a group for each is many times faster than R images."""
    rows = x.shape[1]
    return functional.conv2d(x, kernel.expand(rows, 1, 3, 3).contiguous(), padding=padding, groups=rows)


def _by_chunks(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`function` maps (1, R, H, W) to (R,): applied to all channels of all samples of (B, C, H, W) -> (B, C)."""
    rows = x.reshape(1, -1, *x.shape[2:])
    if x.device.type == "cpu" and not _traced():
        parts = rows.split(max(_CHUNK // (x.shape[2] * x.shape[3]), 1), dim=1)
        return torch.cat([function(part) for part in parts]).view(x.shape[:2])
    return function(rows).view(x.shape[:2])


def _traced() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


@torch.no_grad()
def curvature_scores(x: torch.Tensor, normalize: bool = False, kernel: torch.Tensor | None = None) -> torch.Tensor:
    """Curvature of every channel: (B, C, H, W) -> float32 (B, C), the sum of |kernel * x| over the inner pixels.

    The kernel's elements add up to 0, so that a constant scores 0. The score grows with a channel's scale;
    `normalize=True` divides it by the channel's range (0 where the range is 0). Raises ValueError for maps under 3 x 3.
    """
    _check_map(x)
    with _full_precision(x):
        x = _float32(x)
        kernel = _kernel(x, kernel, CURVATURE_KERNEL)
        scores = _by_chunks(lambda rows: _convolve(rows, kernel).abs_().sum((0, 2, 3)), x)
        if normalize:
            span = x.amax((2, 3)) - x.amin((2, 3))
            scores = torch.where(span > 0, scores / span, 0)
    return scores


@torch.no_grad()
def entropy_scores(
    x: torch.Tensor,
    implementation: str = "paper2d",
    bins: int = 256,
    denominator: str | None = None,
    kernel: torch.Tensor | None = None,
) -> torch.Tensor:
    """Entropy of (value, mean of its eight neighbors) of every channel, in bit: (B, C, H, W) -> float32 (B, C).

    Neighbors beyond the border are 0. E = -sum p log2 p over a histogram's cells (Algorithm 1), in one of the forms:

    `paper2d`: pairs of the two quantities, each in `bins` equal levels between the channel's own smallest and largest
        value (neighbor means outside them fall into the end levels). A constant channel scores 0, and nothing
        depends on the channel's scale or on other samples.
    `hist_batch`: as released for U-Net, the one number 100 * value + mean in `bins` levels between the smallest and
        largest of the whole batch and all channels: **scores depend on batch mates**.
    `unique`: as released for DeepLabV3+ and SINetV2, the different values of that number, without bins; mostly it
        measures the fraction of activations that aren't 0.

    denominator: see DENOMINATORS; by default `pixels` for paper2d and `padded` for the released forms.
    Raises ValueError for another name, 2 > bins or bins > 256, and maps under 3 x 3.
    """
    _check_map(x)
    denominator = denominator or ("pixels" if implementation == "paper2d" else "padded")
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"unknown entropy {implementation!r}; available: {', '.join(IMPLEMENTATIONS)}")
    if denominator not in DENOMINATORS or not 2 <= bins <= 256:
        raise ValueError(f"denominator is one of {', '.join(DENOMINATORS)}, bins 2 to 256; got {denominator!r}, {bins}")
    height, width = x.shape[2:]
    pixels, cells = height * width, (height + DENOMINATORS[denominator]) * (width + DENOMINATORS[denominator])
    with _full_precision(x):
        x = _float32(x)
        kernel = _kernel(x, kernel, NEIGHBOR_KERNEL)

        def key(rows: torch.Tensor) -> torch.Tensor:
            mean = _convolve(rows, kernel, padding=1).view(rows.shape[1], -1)
            return mean.add_(rows.view(rows.shape[1], -1), alpha=100)

        def codes(rows: torch.Tensor) -> torch.Tensor:
            if implementation == "hist_batch":
                return _levels(key(rows), low, high, bins)
            if implementation == "unique":
                return key(rows)
            value, mean = rows.view(rows.shape[1], -1), _convolve(rows, kernel, padding=1).view(rows.shape[1], -1)
            ends = value.amin(1, keepdim=True), value.amax(1, keepdim=True)
            return _levels(value, *ends, bins).sub_(128).mul_(256).add_(_levels(mean, *ends, bins))

        if implementation == "hist_batch":
            low = _by_chunks(lambda rows: key(rows).amin(1), x).amin()
            high = _by_chunks(lambda rows: key(rows).amax(1), x).amax()
        counted = _by_chunks(lambda rows: _sum_count_log_count(codes(rows)), x)
        # With p = f / cells: -sum p log2 p = (sum f * log2 cells - sum f log2 f) / cells, and f adds up to the pixels.
        return ((pixels * log2(cells) - counted) / cells).clamp_(min=0)


def _levels(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
    """Histogram level 0 .. bins - 1 between low and high, the last one closed, as int16; 0 where low is high."""
    span = high - low
    scale = torch.where(span > 0, bins / span, 0)
    return (x - low).mul_(scale).clamp_(0, bins - 1).to(torch.int16)


def _sum_count_log_count(codes: torch.Tensor) -> torch.Tensor:
    """Sum of f log2 f over the different codes of every row, f how often one occurs: (R, N) -> float32 (R,)."""
    if codes.device.type == "cpu" and not _traced():
        return _sum_count_log_count_numpy(codes)
    ordered = codes.sort(dim=1).values
    last = functional.pad(ordered[:, 1:] != ordered[:, :-1], (0, 1), value=True)
    position = torch.arange(1, codes.shape[1] + 1, device=codes.device).expand_as(codes)
    # How many elements up to the end of the run before: the largest such end so far, shifted by one place.
    ends = torch.where(last, position, 0).cummax(dim=1).values
    count = (position - functional.pad(ends[:, :-1], (1, 0))).to(torch.float32)
    return torch.where(last, count * torch.log2(count), 0).sum(1)


def _sum_count_log_count_numpy(codes: torch.Tensor) -> torch.Tensor:
    """The same on the CPU, where NumPy sorts many times faster than torch, which sorts the indices along."""
    rows, n = codes.shape
    kind: Literal["stable"] | None = "stable" if codes.dtype == torch.int16 and n >= _RADIX_FROM else None
    ordered = np.sort(codes.numpy(), axis=1, kind=kind)
    begins = np.empty((rows, n), bool)
    begins[:, 0] = True
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    position = np.flatnonzero(begins)
    counts = np.diff(position, append=rows * n)
    table = np.arange(n + 1, dtype=np.float64)
    table[2:] *= np.log2(table[2:])
    table[:2] = 0
    sums = np.add.reduceat(table[counts], np.searchsorted(position, np.arange(rows) * n))
    return torch.from_numpy(sums.astype(np.float32))


def top_channels(scores: torch.Tensor, count: int, order: str = "score") -> torch.Tensor:
    """Indices (B, count) of every sample's best channels by `scores` (B, C), best first or, `channel`, ascending."""
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; available: {', '.join(ORDERS)}")
    best = scores.topk(count, dim=1).indices
    return best if order == "score" else best.sort(dim=1).values


def _gather(x: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Channels `best` (B, k) of every sample: (B, C, H, W) -> (B, k, H, W).

    Whole planes are copied, forward and backward, not element by element.
    The memory format stays, so that what follows runs in the network's own.
    """
    batch, channels, height, width = x.shape
    plane = (best + channels * torch.arange(batch, device=x.device)[:, None]).flatten()
    out = x.flatten(0, 1).index_select(0, plane).view(batch, best.shape[1], height, width)
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out


class FeatureEnhancement(nn.Module):
    """The map and copies of its best channels: (B, C, H, W) -> (B, C + extra_channels(C), H, W).

    score: `curvature` or `entropy`. With ratio 0 the map itself comes back; with ratio 1 every channel is there twice
    and no score is needed. implementation and bins are those of `entropy_scores`, normalize that of `curvature_scores`.
    order: copies stand best first, as released, so that a weight of the next layer belongs to a rank; or by `channel`.
    No parameters, and nothing in the state dict. Raises ValueError for an unknown name or a ratio outside [0, 1].
    """

    kernel: torch.Tensor

    def __init__(
        self,
        score: str = "curvature",
        ratio: float = 0.5,
        implementation: str = "paper2d",
        normalize: bool = False,
        order: str = "score",
        bins: int = 256,
    ):
        super().__init__()
        for name, value, known in (
            ("score", score, CRITERIA[1:]),
            ("entropy", implementation, IMPLEMENTATIONS),
            ("order", order, ORDERS),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; available: {', '.join(known)}")
        if not 0 <= ratio <= 1:
            raise ValueError(f"the ratio of copied channels is between 0 and 1, got {ratio}")
        self.score, self.ratio, self.implementation = score, ratio, implementation
        self.normalize, self.order, self.bins = normalize, order, bins
        values = CURVATURE_KERNEL if score == "curvature" else NEIGHBOR_KERNEL
        self.register_buffer("kernel", torch.tensor(values), persistent=False)

    def extra_channels(self, channels: int) -> int:
        """How many channels are added to a map of `channels`."""
        return int(self.ratio * channels)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Score of every channel: (B, C, H, W) -> float32 (B, C)."""
        if self.score == "curvature":
            return curvature_scores(x, self.normalize, self.kernel)
        return entropy_scores(x, self.implementation, self.bins, kernel=self.kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels, count = x.shape[1], self.extra_channels(x.shape[1])
        if count == 0:
            return x
        if count == channels:
            return torch.cat([x, x], dim=1)
        every = torch.arange(channels, device=x.device).expand(x.shape[0], -1)
        best = top_channels(self.scores(x), count, self.order)
        return _gather(x, torch.cat([every, best], dim=1))  # map and copies are written in one pass

    def extra_repr(self) -> str:
        kind = f"{self.score}, {self.implementation}" if self.score == "entropy" else self.score
        return f"{kind}, ratio={self.ratio}"


class Enhancements(nn.ModuleList):
    """A FeatureEnhancement for each place where a network may have one. No parameters."""

    def extra_channels(self, channels: Iterable[int]) -> list[int]:
        """How many channels each place adds to its map; `channels` has those of the maps, and may be longer."""
        places = (place for place in self if isinstance(place, FeatureEnhancement))
        return [place.extra_channels(c) for place, c in zip(places, channels, strict=False)]


def enhancements(
    defaults: Mapping[str, Sequence[float]],
    enhance: str = "none",
    enhance_ratios: Sequence[float] | None = None,
    enhance_implementation: str = "paper2d",
    enhance_normalize: bool = False,
    enhance_order: str = "score",
) -> Enhancements:
    """One FeatureEnhancement for each place where a network may have one, from the network's own options.

    `defaults` maps `curvature` and `entropy` to the ratios at these places; `enhance_ratios` replaces them. With
    `none` every place passes its map on. A network takes the options as they come and makes room for the copies:

        class Net(nn.Module):
            def __init__(self, channels=64, **enhance):
                super().__init__()
                self.encoder = nn.Conv2d(1, channels, 3, padding=1)
                self.enhance = enhancements({"curvature": (0.75,), "entropy": (0.5,)}, **enhance)
                self.merge = nn.Conv2d(channels + self.enhance[0].extra_channels(channels), 1, 3, padding=1)

            def forward(self, x):
                return {"final": self.merge(self.enhance[0](self.encoder(x)))}

    Raises ValueError for an unknown name, another number of ratios, ratios without a criterion, or one outside [0, 1].
    """
    if enhance not in CRITERIA:
        raise ValueError(f"unknown enhancement {enhance!r}; available: {', '.join(CRITERIA)}")
    if enhance == "none":
        if enhance_ratios is not None and any(enhance_ratios):
            raise ValueError(f"enhance_ratios {list(enhance_ratios)} need enhance = 'curvature' or 'entropy'")
        ratios: Sequence[float] = (0,) * len(next(iter(defaults.values())))
    else:
        ratios = defaults[enhance] if enhance_ratios is None else tuple(enhance_ratios)
        if len(ratios) != len(defaults[enhance]):
            raise ValueError(f"enhance_ratios must be {len(defaults[enhance])} numbers, got {list(ratios)}")
    score = enhance if enhance != "none" else "curvature"
    return Enhancements(
        FeatureEnhancement(score, ratio, enhance_implementation, enhance_normalize, enhance_order) for ratio in ratios
    )


def skip_enhancements(
    skips: int, defaults: Mapping[str, Sequence[float]] | None = None, **enhance: Any
) -> Enhancements:
    """One FeatureEnhancement for each of a U-Net's skips, shallow first; skips 2 and 3 take part (options as above).

    Raises ValueError, too, where an enhanced network has fewer than three skips.
    """
    middle = enhancements(SKIP_RATIOS if defaults is None else defaults, **enhance)
    if skips < 3 and any(place.ratio for place in middle):
        raise ValueError(f"feature enhancement works on skips 2 and 3, but the network has {skips}")
    places = [FeatureEnhancement(ratio=0), *middle, *(FeatureEnhancement(ratio=0) for _ in range(skips - 3))]
    return Enhancements(places[:skips])


@dataclass(frozen=True)
class Selection:
    """What one enhancement (`module`) saw, features (B, C, H, W), and picked. The rest is computed when it is read."""

    module: FeatureEnhancement
    features: torch.Tensor

    @property
    def scores(self) -> torch.Tensor:
        """(B, C)."""
        return self.module.scores(self.features)

    @property
    def channels(self) -> torch.Tensor:
        """(B, k), in their order."""
        return top_channels(self.scores, self.module.extra_channels(self.features.shape[1]), self.module.order)


@contextmanager
def record_selection(network: nn.Module) -> Iterator[dict[str, Selection]]:
    """While open, every forward pass leaves what each active enhancement saw and picked in the dict that this returns.

    Keys are the modules' names in the network, values are `Selection`; the last pass counts:

        with record_selection(network) as picked, torch.no_grad():
            network(image)
        ranking = picked["backbone.enhance.1"].scores[0].argsort(descending=True)
    """
    records: dict[str, Selection] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(module: FeatureEnhancement, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
            records[name] = Selection(module, inputs[0].detach())

        return keep

    active = [(n, m) for n, m in network.named_modules() if isinstance(m, FeatureEnhancement) and m.ratio]
    handles = [module.register_forward_hook(keeper(name)) for name, module in active]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
