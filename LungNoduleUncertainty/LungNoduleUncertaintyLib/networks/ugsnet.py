"""UGS-Net and UGS-Net-V1: Attention U-Net, uncertainty-aware module (UAM), feature-aware attention and fusion.

Sources: UGS-Net (both 2023 versions) for the intention-aware uncertainty calibration module (IUCM), and the network
released as UGS-Net-V1 (MICCAI 2022). Where the papers leave a choice the default and its alternatives are arguments;
`PRESETS` names the combinations.
"""

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvBlock, Network
from .unet import AttentionUNetBackbone

# Branch -> filter: Otsu for high confidence (intersection), Gabor for low confidence (union) and for the single branch.
BRANCHES = ("single", "union", "intersection")  # papers: Uni, LC, HC


def gabor_bank(orientations: int = 4, kernel: int = 3, scale: int = 1) -> torch.Tensor:
    """Bank of real Gabor kernels, (orientations, kernel, kernel), each scaled to [0, 1] (Gabor convolutional networks).

    For orientation t = i*pi/orientations, wave number k = (pi/2) / sqrt(2)^(scale-1) and sigma = pi:
    g(x, y) = k^2/sigma^2 * exp(-k^2 (x^2 + y^2) / (2 sigma^2)) * (cos(k (x cos t + y sin t)) - exp(-sigma^2 / 2)).
    A 1x1 kernel has no orientation: the bank is all ones, as in the code released with UGS-Net-V1.
    """
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"kernel must be odd, got {kernel}")
    if kernel == 1:
        return torch.ones(orientations, 1, 1)
    sigma, wave = math.pi, (math.pi / 2) / math.sqrt(2) ** (scale - 1)
    axis = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    theta = torch.arange(orientations, dtype=torch.float64).view(-1, 1, 1) * math.pi / orientations
    envelope = wave**2 / sigma**2 * torch.exp(-(wave**2) * (x**2 + y**2) / (2 * sigma**2))
    bank = envelope * (torch.cos(wave * (x * theta.cos() + y * theta.sin())) - math.exp(-(sigma**2) / 2))
    low, high = bank.amin((1, 2), keepdim=True), bank.amax((1, 2), keepdim=True)
    return ((bank - low) / (high - low)).float()


class GaborConv(nn.Module):
    """Convolution whose learned weights are modulated by a Gabor bank: (B, in, H, W) -> (B, out * orientations, H, W).

    The weight is (out, in * orientations, k, k): every input channel stands for `orientations` equal copies, so the
    copies' weights are summed before the convolution instead of copying the input.
    """

    bank: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, orientations: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * orientations, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.orientations = orientations
        self.register_buffer("bank", gabor_bank(orientations, kernel), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copies = self.weight.unflatten(1, (-1, self.orientations)).sum(2)
        modulated = copies.unsqueeze(1) * self.bank[None, :, None]  # (out, orientations, in, k, k)
        kernel = self.weight.shape[-1]
        return functional.conv2d(x, modulated.flatten(0, 1), padding=kernel // 2)


@torch.no_grad()
def otsu_threshold(x: torch.Tensor, bins: int = 256) -> torch.Tensor:
    """Otsu's threshold of every plane: (B, C, H, W) -> (B, C, 1, 1), the center of the bin that splits best.

    `bins` histogram bins span the plane's own minimum to maximum; a constant plane's threshold is its value.
    """
    planes = x.detach().float().flatten(2)
    low, high = planes.amin(-1, keepdim=True), planes.amax(-1, keepdim=True)
    extent = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    index = ((planes - low) / extent * bins).long().clamp_(0, bins - 1)
    count = torch.zeros(*planes.shape[:2], bins, device=x.device).scatter_add_(-1, index, torch.ones_like(planes))
    gray = torch.arange(bins, device=x.device, dtype=torch.float32) + 0.5
    below = count.cumsum(-1)
    above = planes.shape[-1] - below
    mass = (count * gray).cumsum(-1)
    between = below * above * (mass / below.clamp_min(1) - (mass[..., -1:] - mass) / above.clamp_min(1)) ** 2
    best = between[..., :-1].argmax(-1, keepdim=True)
    threshold = low + (best + 0.5) / bins * (high - low)
    return threshold.unsqueeze(-1).to(x.dtype)


class OtsuFilter(nn.Module):
    """Keep what lies above each plane's own Otsu threshold.

    mode `masked`: feature x hard mask, the mask detached, so the gradient passes where the mask is one.
    mode `binary`: the mask itself, straight-through gradient.
    mode `quantize_released`: the released code's, gray levels 0, 128, 255 by thresholds -0.5 and 0.5; no gradient.
    """

    MODES = ("masked", "binary", "quantize_released")

    def __init__(self, mode: str = "masked"):
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f"otsu must be one of {', '.join(self.MODES)}, got {mode!r}")
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "quantize_released":
            codes = x.detach()
            return 128.0 * (codes > -0.5).to(x.dtype) + 127.0 * (codes > 0.5).to(x.dtype)
        mask = (x > otsu_threshold(x)).to(x.dtype)
        return x * mask if self.mode == "masked" else mask + x - x.detach()


class SelfAttention(nn.Module):
    """Attention of every pixel to all pixels, without the 1/sqrt(d) scaling: (B, C, H, W) -> (B, C, H, W).

    `pool` averages keys and values over pool x pool windows first: with pool 4 a 64x64 map costs 1/16 of the paper's.
    """

    def __init__(self, channels: int, pool: int = 1):
        super().__init__()
        reduced = max(channels // 8, 1)
        self.query = nn.Conv2d(channels, reduced, 1)
        self.key = nn.Conv2d(channels, reduced, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        source = functional.avg_pool2d(x, self.pool) if self.pool > 1 else x
        query, key, value = (
            layer(y).flatten(2).transpose(1, 2).unsqueeze(1)  # (B, one head, pixels, channels)
            for layer, y in ((self.query, x), (self.key, source), (self.value, source))
        )
        # Fused kernels want equal head sizes; zero channels don't change the scores and avoid the full score matrix.
        missing = value.shape[-1] - query.shape[-1]
        query, key = functional.pad(query, (0, missing)), functional.pad(key, (0, missing))
        out = functional.scaled_dot_product_attention(query, key, value.contiguous(), scale=1.0)
        return out.squeeze(1).transpose(1, 2).reshape(x.shape)


def _filter(branch: str, channels: int, otsu: str, gabor_kernel: int, enabled: bool) -> nn.Module:
    if not enabled:
        return nn.Identity()
    if branch == "intersection":
        return OtsuFilter(otsu)
    if channels % 4:
        raise ValueError(f"Gabor branches have four orientations: width / 2 must be a multiple of 4, got {channels}")
    return GaborConv(channels, channels // 4, gabor_kernel)


class _UncertaintyNet(Network):
    """What both versions share: backbone, three UAM branches with their logits, attention and texture filters.

    `enhance` and its options are those of the backbone.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        levels: int,
        otsu: str,
        gabor_kernel: int,
        filters: bool,
        attention_pool: int,
        **enhance: Any,
    ):
        super().__init__()
        self.backbone = AttentionUNetBackbone(in_channels, width, levels, **enhance)
        self.in_channels, self.stride = in_channels, self.backbone.stride
        half = width // 2
        self.branch = nn.ModuleDict({b: ConvBlock(width, half, repeats=1) for b in BRANCHES})
        self.logits = nn.ModuleDict({b: nn.Conv2d(half, 1, 1) for b in BRANCHES})
        self.attention = nn.ModuleDict({b: SelfAttention(half, attention_pool) for b in BRANCHES})
        self.filter = nn.ModuleDict({b: _filter(b, half, otsu, gabor_kernel, filters) for b in BRANCHES})

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """R (B, width, H, W), the branch features R_z and the branch logits."""
        shared = self.backbone(x)
        branches = {b: self.branch[b](shared) for b in BRANCHES}
        return shared, branches, {b: self.logits[b](branches[b]) for b in BRANCHES}


class UGSNetV1(_UncertaintyNet):
    """The released network: R'_z = gamma * filter(attention(R_z)) + R_z, fused with R by a double convolution.

    The released 1x1 "Gabor" kernel is the default here because it is part of what V1 is; `gabor_kernel=3` is the
    oriented filter. Outputs: single, union, intersection, final.
    """

    PRESETS: ClassVar = {
        "default": {"gabor_kernel": 1, "otsu": "masked"},
        "released": {"gabor_kernel": 1, "otsu": "quantize_released", "in_channels": 3},
    }
    PARAMETERS: ClassVar = {1: 35_068_523, 3: 35_069_675}

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        levels: int = 5,
        otsu: str = "masked",
        gabor_kernel: int = 1,
        filters: bool = True,
        attention_pool: int = 1,
        **enhance: Any,
    ):
        super().__init__(in_channels, width, levels, otsu, gabor_kernel, filters, attention_pool, **enhance)
        self.gamma = nn.ParameterDict({b: nn.Parameter(torch.zeros(1)) for b in BRANCHES})
        self.fusion = nn.Sequential(ConvBlock(3 * (width // 2) + width, width), nn.Conv2d(width, 1, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        shared, branches, out = self.features(x)
        enhanced = {b: self.gamma[b] * self.filter[b](self.attention[b](branches[b])) + branches[b] for b in BRANCHES}
        order = ("intersection", "single", "union")  # the released code's order of concatenation
        out["final"] = self.fusion(torch.cat([*(enhanced[b] for b in order), shared], dim=1))
        return out


class FeatureDistance(nn.Module):
    """S_z = d(R'_z, R), the weight that a branch's enhanced feature gets in the fusion: larger distance, larger weight.

    reduction: `per_pixel` (B, 1, H, W), `per_channel` (B, C, 1, 1) or `per_sample` (B, 1, 1, 1) Euclidean distance.
    normalize: `sqrt_c` divides by the root of the number of reduced elements (the root mean square), `none`,
    `softmax` over the three branches, or `sigmoid`.
    """

    REDUCTIONS: ClassVar = {"per_pixel": (1,), "per_channel": (2, 3), "per_sample": (1, 2, 3)}
    NORMALIZATIONS = ("sqrt_c", "none", "softmax", "sigmoid")

    def __init__(self, reduction: str = "per_pixel", normalize: str = "sqrt_c"):
        super().__init__()
        if reduction not in self.REDUCTIONS or normalize not in self.NORMALIZATIONS:
            raise ValueError(f"unknown distance {reduction!r} or normalization {normalize!r}")
        self.dims, self.normalize = self.REDUCTIONS[reduction], normalize

    def forward(self, enhanced: list[torch.Tensor], shared: torch.Tensor) -> list[torch.Tensor]:
        squared = [(e - shared).square() for e in enhanced]
        if self.normalize == "sqrt_c":
            return [(s.mean(self.dims, keepdim=True) + 1e-12).sqrt() for s in squared]
        distance = [(s.sum(self.dims, keepdim=True) + 1e-12).sqrt() for s in squared]  # guard: d sqrt(0) is infinite
        if self.normalize == "softmax":
            return list(torch.stack(distance).softmax(0))
        return [torch.sigmoid(d) for d in distance] if self.normalize == "sigmoid" else distance


class UGSNet(_UncertaintyNet):
    """UGS-Net with the intention-aware uncertainty calibration module (IUCM).

    R'_z = R_z (+) filter(attention(R_z)) (Eq. 1), S_z = d(R'_z, R), fused feature = concatenation of S_z * R'_z over
    the branches with R, then the head. `combine="concat"` makes R'_z as wide as R, so that the distance is defined;
    with "add" a 1x1 projection of R to half its width takes that place. The head has 184,769 parameters at width 64.
    `enhance` and its options (`feature_enhancement.enhancements`) are for the backbone's skips 2 and 3; the paper has
    none. Outputs: single, union, intersection, final.
    """

    PRESETS: ClassVar = {
        "default": {},
        "paper": {"combine": "concat", "normalize": "none", "head": "single"},
        "released": {"gabor_kernel": 1, "otsu": "quantize_released", "combine": "add", "in_channels": 3},
    }

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        levels: int = 5,
        otsu: str = "masked",
        gabor_kernel: int = 3,
        filters: bool = True,
        attention_pool: int = 1,
        combine: str = "concat",
        reduction: str = "per_pixel",
        normalize: str = "sqrt_c",
        head: str = "double",
        **enhance: Any,
    ):
        super().__init__(in_channels, width, levels, otsu, gabor_kernel, filters, attention_pool, **enhance)
        if combine not in ("concat", "add") or head not in ("double", "single"):
            raise ValueError(f"combine is concat or add, head double or single; got {combine!r} and {head!r}")
        half, enhanced = width // 2, width if combine == "concat" else width // 2
        self.combine = combine
        self.gamma = nn.ParameterDict({b: nn.Parameter(torch.zeros(1)) for b in BRANCHES} if combine == "add" else {})
        self.project = nn.Identity() if combine == "concat" else nn.Conv2d(width, half, 1)
        self.distance = FeatureDistance(reduction, normalize)
        fused = 3 * enhanced + width
        block = ConvBlock(fused, width) if head == "double" else ConvBlock(fused, width, repeats=1)
        self.head = nn.Sequential(block, nn.Conv2d(width, 1, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        shared, branches, out = self.features(x)
        filtered = {b: self.filter[b](self.attention[b](branches[b])) for b in BRANCHES}
        if self.combine == "concat":
            enhanced = [torch.cat([branches[b], filtered[b]], dim=1) for b in BRANCHES]
        else:
            enhanced = [branches[b] + self.gamma[b] * filtered[b] for b in BRANCHES]
        weights = self.distance(enhanced, self.project(shared))
        out["final"] = self.head(torch.cat([*(w * e for w, e in zip(weights, enhanced, strict=True)), shared], dim=1))
        return out
