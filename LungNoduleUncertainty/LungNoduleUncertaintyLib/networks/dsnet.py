"""DSNet: a U-Net of CBAM blocks that sees a nodule at four times its resolution and learns from soft masks.

Sources: both versions of the DSNet paper; without detail transfer it is SoftGAN. Neither has public code: depth,
width, and where a layer is not described its default, are this implementation's and arguments.

How it takes over detail from its super-resolution teacher: EDRFM and SDRFM (v1), DRTM (v2). Each of them maps `context`
(B, K, 4H, 4W), the interpolated input and the super-resolution image, and `features` (B, C, 4H, 4W), the teacher's
F_SR, to (B, C, 4H, 4W). Convolutions are 3x3, linear, and keep the size, except where said otherwise.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import gcd
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import CBAM, Network, check_depth, check_size, make_norm
from .feature_enhancement import skip_enhancements
from .srgan import FrozenGenerator, enlarge, middle_channel, with_image

ORDERS = ("conv-relu-bn", "conv-bn-relu")
DETAILS = ("none", "sr_input", "edrfm", "sdrfm", "drtm")


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ChannelSelection(nn.Module):
    """Channel-wise selective fusion: F_out = a * F_c + b * F_d, a + b = 1 in every channel (DSNet v2, Eqs. 11-14).

    v_z = GAP(concat(F_d, F_c)), one fully connected layer 2C -> C, then one C -> C for each branch and a softmax over
    the pair. The papers name no activation between the layers, but without one they would be one layer: ReLU, as in
    selective kernel networks.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(inplace=True))
        self.context = nn.Linear(channels, channels)
        self.detail = nn.Linear(channels, channels)

    def weights(self, context: torch.Tensor, detail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """a and b, each (B, C, 1, 1), of F_c and F_d (B, C, H, W)."""
        compact = self.reduce(torch.cat([detail, context], dim=1).mean((2, 3)))
        a, b = torch.stack([self.context(compact), self.detail(compact)]).softmax(0)
        return a[:, :, None, None], b[:, :, None, None]

    def forward(self, context: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        a, b = self.weights(context, detail)
        return a * context + b * detail


class ConcatFusion(nn.Module):
    """Fusion without selection: concatenation and one convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = _conv(2 * channels, channels)

    def forward(self, context: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([context, detail], dim=1))


class EDRFM(nn.Module):
    """Efficient detailed representation fusion (v1): one convolution of everything, concatenated."""

    def __init__(self, context_channels: int, channels: int):
        super().__init__()
        self.conv = _conv(context_channels + channels, channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([context, features], dim=1))


class SDRFM(nn.Module):
    """Selective detailed representation fusion (v1): a convolution of either branch, then channel selection."""

    def __init__(self, context_channels: int, channels: int):
        super().__init__()
        self.context = _conv(context_channels, channels)
        self.detail = _conv(channels, channels)
        self.fusion = ChannelSelection(channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.fusion(self.context(context), self.detail(features))


class DetailTexture(nn.Module):
    """Detail texture enhancement: F_d = F_SR * F_h, F_h = sigmoid(C_h(F_SR) - C_l(F_SR)) (v2, Eqs. 9 and 10).

    C_h is a 1x1 convolution, C_l a 3x3 one with dilation 2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 1)
        self.surround = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """F_h, (B, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.local(features) - self.surround(features))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.weights(features)


class DRTM(nn.Module):
    """Detailed representation transfer module (v2): texture enhancement (DTM), then channel selection (CSF).

    58,880 parameters with 64 channels and a context of two. Without `dtm` F_d is F_SR; without `csf` the branches are
    concatenated and convolved.
    """

    def __init__(self, context_channels: int, channels: int, dtm: bool = True, csf: bool = True):
        super().__init__()
        self.context = _conv(context_channels, channels)
        self.texture = DetailTexture(channels) if dtm else nn.Identity()
        self.fusion = ChannelSelection(channels) if csf else ConcatFusion(channels)

    def forward(self, context: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.fusion(self.context(context), self.texture(features))


class CBAMBlock(nn.Module):
    """shortcut(x) + CBAM(convolutions(x)): (B, in_channels, H, W) -> (B, out_channels, H, W).

    `convs` 3x3 convolutions, each followed by ReLU and norm in the given order (v2, Fig. 4: ReLU first). The shortcut
    is a 1x1 projection where the channels change.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        convs: int = 2,
        order: str = "conv-relu-bn",
        norm: str = "batch",
        reduction: int = 16,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for step in range(convs):
            after = [nn.ReLU(inplace=True), make_norm(norm, out_channels)]
            layers.append(nn.Conv2d(out_channels if step else in_channels, out_channels, 3, padding=1))
            layers += after if order == "conv-relu-bn" else after[::-1]
        self.convolutions = nn.Sequential(*layers)
        self.cbam = CBAM(out_channels, reduction, norm=norm)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.cbam(self.convolutions(x))


class DSNetBackbone(nn.Module):
    """Encoder and decoder up to the last feature map: (B, in_channels, H, W) -> (B, width, H, W).

    Channels double at every level up to eight times the width: 64-128-256-512-512 for width 64 and five levels. 4x4
    convolutions with stride 2 lead down and 4x4 transposed ones up, each with ReLU; the skip comes first in the
    concatenation. `options` are those of CBAMBlock, `enhance` holds those of `feature_enhancement.enhancements`, for
    skips 2 and 3.
    """

    def __init__(
        self,
        in_channels: int = 64,
        width: int = 64,
        levels: int = 5,
        enhance: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__()
        check_depth(width, levels)
        channels = [width * min(2**level, 8) for level in range(levels)]
        self.in_channels, self.stride = in_channels, 2 ** (levels - 1)
        self.encoder = nn.ModuleList(
            CBAMBlock(c if level else in_channels, c, **options) for level, c in enumerate(channels)
        )
        steps = list(pairwise(channels))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(shallow, deep, 4, stride=2, padding=1), nn.ReLU(inplace=True))
            for shallow, deep in steps
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(deep, shallow, 4, stride=2, padding=1), nn.ReLU(inplace=True))
            for shallow, deep in reversed(steps)
        )
        self.enhance = skip_enhancements(levels - 1, **(enhance or {}))
        extra = self.enhance.extra_channels(channels)
        self.decoder = nn.ModuleList(
            CBAMBlock(2 * c + more, c, **options) for (c, _), more in zip(steps[::-1], extra[::-1], strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, self.in_channels, self.stride)
        skips = []
        for block, down in zip(self.encoder, self.down, strict=False):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = block(torch.cat([self.enhance[len(skips)](skip), up(x)], dim=1))
        return x


class DSNet(Network):
    """DSNet, (B, in_channels, H, W) -> {"final", "soft"}, each (B, 1, H, W), or (B, 1, 4H, 4W): see `output_size`.

    `final` are the logits of the binary mask; `soft` is the map z behind the soft mask, whose opacity alpha is
    (tanh(z) + 1) / 2 = sigmoid(2 z). With `heads="shared"` both are the same map, as in the papers, so that their
    thresholds agree: sigmoid(z) >= 0.5 where alpha >= 0.5, which is z >= 0. `heads="separate"` has a 1x1 convolution
    for each.

    detail: `none` (SoftGAN, at the input's own resolution), or how a super-resolution teacher helps a network that runs
        at four times the input's resolution: `sr_input` (its image in place of the input's), `edrfm`, `sdrfm` or `drtm`
        (fusion with its features). `dtm` and `csf` switch the two parts of `drtm`.
    teacher: options of the SRGAN generator, unused with `none`. The teacher is a part of the network and of its
        weights, but frozen: no gradients, always in evaluation. `load_teacher` puts trained weights in; they must have
        been trained on the intensity window of this network's input.
    image_channel: the input channel that the teacher enlarges; the others are interpolated. By default the middle one
        of an odd number of slices, whether or not a position channel follows them.
    output_size: `input` averages z over 4x4 pixels back to the input's size; `sr` leaves it, as training on masks of
        that size needs it. The attribute of that name may be changed at any time.
    norm: `batch`, or `instance` for batches of one sample. reduction: of CBAM.
    enhance and its options (`feature_enhancement.enhancements`): for the backbone's skips 2 and 3, which the papers
        leave as they are.

    At width 64 backbone and head have 35.12 M parameters behind a fusion of 64 channels (14.33 M with four levels), and
    H and W must be multiples of 4; with `none` of 16.
    """

    PRESETS: ClassVar = {
        "default": {},
        "softgan": {"detail": "none"},
        "v1": {"detail": "sdrfm"},
        "v2": {"detail": "drtm"},
    }
    OUTPUT_SIZES = ("input", "sr")

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 64,
        levels: int = 5,
        convs: int = 2,
        order: str = "conv-relu-bn",
        norm: str = "batch",
        detail: str = "drtm",
        dtm: bool = True,
        csf: bool = True,
        heads: str = "shared",
        reduction: int = 16,
        teacher: Mapping[str, Any] | None = None,
        image_channel: int | None = None,
        output_size: str = "input",
        **enhance: Any,
    ):
        super().__init__()
        for name, value, known in (
            ("order", order, ORDERS),
            ("detail", detail, DETAILS),
            ("heads", heads, ("shared", "separate")),
            ("output_size", output_size, self.OUTPUT_SIZES),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; available: {', '.join(known)}")
        image_channel = middle_channel(in_channels) if image_channel is None else image_channel
        if in_channels < 1 or convs < 1 or not 0 <= image_channel < in_channels:
            raise ValueError(
                f"in_channels and convs must be at least 1 and image_channel one of the input's, "
                f"got {in_channels}, {convs} and {image_channel}"
            )
        self.in_channels, self.image_channel, self.output_size = in_channels, image_channel, output_size
        self.teacher, self.fusion, fused = None, None, in_channels
        if detail != "none":
            self.teacher = FrozenGenerator(**{**(teacher or {}), "in_channels": 1})
            if detail != "sr_input":
                fused, context = self.teacher.width, in_channels + 1
                switches = {"dtm": dtm, "csf": csf} if detail == "drtm" else {}
                self.fusion = {"edrfm": EDRFM, "sdrfm": SDRFM, "drtm": DRTM}[detail](context, fused, **switches)
        self.backbone = DSNetBackbone(
            fused, width, levels, enhance, convs=convs, order=order, norm=norm, reduction=reduction
        )
        if heads == "shared":
            self.heads = nn.ModuleDict({"shared": nn.Conv2d(width, 1, 3, padding=1)})
        else:
            self.heads = nn.ModuleDict({key: nn.Conv2d(width, 1, 1) for key in ("final", "soft")})
        self.scale = self.teacher.scale if self.teacher else 1
        self.stride = self.backbone.stride // gcd(self.backbone.stride, self.scale)

    def load_teacher(self, state: Mapping[str, torch.Tensor]) -> "DSNet":
        """Weights of a trained SRGAN generator (its state dict), copied; returns self.

        Raises ValueError for a network without a teacher, RuntimeError for weights of another generator.
        """
        if self.teacher is None:
            raise ValueError("this network has no super-resolution teacher (detail 'none')")
        self.teacher.load_state_dict(state)
        return self

    def enlarged(self, x: torch.Tensor) -> torch.Tensor:
        """What the backbone sees: x itself, or the teacher's detail fused with it at four times the resolution."""
        if self.teacher is None:
            return x
        at = self.image_channel
        features, image = self.teacher.features_and_image(x[:, at : at + 1])
        context = enlarge(x, self.scale)
        if self.fusion is None:
            return with_image(context, image, at)
        return self.fusion(torch.cat([context, image], dim=1), features)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        features = self.backbone(self.enlarged(x))
        out = {key: head(features) for key, head in self.heads.items()}
        if self.scale > 1 and self.output_size == "input":
            out = {key: functional.avg_pool2d(z, self.scale) for key, z in out.items()}
        return {key: out["shared" if "shared" in out else key] for key in ("final", "soft")}
