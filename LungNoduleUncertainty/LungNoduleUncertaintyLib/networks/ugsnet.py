"""UGS-Net and UGS-Net-V1: Attention U-Net, uncertainty-aware module (UAM), feature-aware attention and fusion.

Sources: UGS-Net (both 2023 versions) for the IUCM, and the network released as UGS-Net-V1 (MICCAI 2022). Where the
papers leave a choice the default and its alternatives are arguments; `PRESETS` names the combinations.
"""

import torch
from torch import nn
from torch.nn import functional

from .attention_unet import AttentionUNetBackbone
from .blocks import ConvBlock
from .filters import GaborConv, OtsuFilter

# Branch -> filter: Otsu for high confidence (intersection), Gabor for low confidence (union) and for the single branch.
BRANCHES = ("single", "union", "intersection")  # papers: Uni, LC, HC


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


class _UncertaintyNet(nn.Module):
    """What both versions share: backbone, three UAM branches with their logits, attention and texture filters.

    `enhance` and its options are those of the backbone.
    """

    def __init__(self, in_channels, width, levels, otsu, gabor_kernel, filters, attention_pool, **enhance):
        super().__init__()
        self.backbone = AttentionUNetBackbone(in_channels, width, levels, **enhance)
        self.stride = self.backbone.stride
        half = width // 2
        self.branch = nn.ModuleDict({b: ConvBlock(width, half, repeats=1) for b in BRANCHES})
        self.logits = nn.ModuleDict({b: nn.Conv2d(half, 1, 1) for b in BRANCHES})
        self.attention = nn.ModuleDict({b: SelfAttention(half, attention_pool) for b in BRANCHES})
        self.filter = nn.ModuleDict({b: _filter(b, half, otsu, gabor_kernel, filters) for b in BRANCHES})

    def features(self, x):
        """R (B, width, H, W), the branch features R_z and the branch logits."""
        shared = self.backbone(x)
        branches = {b: self.branch[b](shared) for b in BRANCHES}
        return shared, branches, {b: self.logits[b](branches[b]) for b in BRANCHES}


class UGSNetV1(_UncertaintyNet):
    """The released network: R'_z = gamma * filter(attention(R_z)) + R_z, fused with R by a double convolution.

    35,068,523 parameters at width 64, one input channel and the released 1x1 "Gabor" kernel, which is the default
    here because it is part of what V1 is; `gabor_kernel=3` gives the oriented filter. Outputs: single, union,
    intersection, final.
    """

    PRESETS = {  # noqa: RUF012
        "default": {"gabor_kernel": 1, "otsu": "masked"},
        "released": {"gabor_kernel": 1, "otsu": "quantise_released", "in_channels": 3},
    }

    def __init__(
        self,
        in_channels=1,
        width=64,
        levels=5,
        otsu="masked",
        gabor_kernel=1,
        filters=True,
        attention_pool=1,
        **enhance,
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
    normalise: `sqrt_c` divides by the root of the number of reduced elements (the root mean square), `none`,
    `softmax` over the three branches, or `sigmoid`.
    """

    REDUCTIONS = {"per_pixel": (1,), "per_channel": (2, 3), "per_sample": (1, 2, 3)}  # noqa: RUF012
    NORMALISATIONS = ("sqrt_c", "none", "softmax", "sigmoid")

    def __init__(self, reduction: str = "per_pixel", normalise: str = "sqrt_c"):
        super().__init__()
        if reduction not in self.REDUCTIONS or normalise not in self.NORMALISATIONS:
            raise ValueError(f"unknown distance {reduction!r} or normalisation {normalise!r}")
        self.dims, self.normalise = self.REDUCTIONS[reduction], normalise

    def forward(self, enhanced: list[torch.Tensor], shared: torch.Tensor) -> list[torch.Tensor]:
        squared = [(e - shared).square() for e in enhanced]
        if self.normalise == "sqrt_c":
            return [(s.mean(self.dims, keepdim=True) + 1e-12).sqrt() for s in squared]
        distance = [(s.sum(self.dims, keepdim=True) + 1e-12).sqrt() for s in squared]  # guard: d sqrt(0) is infinite
        if self.normalise == "softmax":
            return list(torch.stack(distance).softmax(0))
        return [torch.sigmoid(d) for d in distance] if self.normalise == "sigmoid" else distance


class UGSNet(_UncertaintyNet):
    """UGS-Net with the intention-aware uncertainty calibration module (IUCM).

    R'_z = R_z (+) filter(attention(R_z)) (Eq. 1), S_z = d(R'_z, R), fused feature = concatenation of S_z * R'_z over
    the branches with R, then the head. `combine="concat"` makes R'_z as wide as R, so that the distance is defined;
    with "add" a 1x1 projection of R to half its width takes that place. The head has 184,769 parameters at width 64.
    `enhance` and its options (`feature_enhancement.enhancements`) are for the backbone's skips 2 and 3; the paper has
    none. Outputs: single, union, intersection, final.
    """

    PRESETS = {  # noqa: RUF012
        "default": {},
        "paper": {"combine": "concat", "normalise": "none", "head": "single"},
        "released": {"gabor_kernel": 1, "otsu": "quantise_released", "combine": "add", "in_channels": 3},
    }

    def __init__(
        self,
        in_channels=1,
        width=64,
        levels=5,
        otsu="masked",
        gabor_kernel=3,
        filters=True,
        attention_pool=1,
        combine="concat",
        reduction="per_pixel",
        normalise="sqrt_c",
        head="double",
        **enhance,
    ):
        super().__init__(in_channels, width, levels, otsu, gabor_kernel, filters, attention_pool, **enhance)
        if combine not in ("concat", "add") or head not in ("double", "single"):
            raise ValueError(f"combine is concat or add, head double or single; got {combine!r} and {head!r}")
        half, enhanced = width // 2, width if combine == "concat" else width // 2
        self.combine = combine
        self.gamma = nn.ParameterDict({b: nn.Parameter(torch.zeros(1)) for b in BRANCHES} if combine == "add" else {})
        self.project = nn.Identity() if combine == "concat" else nn.Conv2d(width, half, 1)
        self.distance = FeatureDistance(reduction, normalise)
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
