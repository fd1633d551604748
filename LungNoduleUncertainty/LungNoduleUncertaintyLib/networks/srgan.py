"""SRGAN's generator, which enlarges a CT slice four times, and networks on what it predicts.

Source: Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network (CVPR 2017).
DSNet's teacher. Intensities are in whatever range the generator was trained on; the output has the input's range. The
discriminator that it is trained against is in `discriminators`.
"""

from collections.abc import Mapping
from math import gcd
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_size


class ResidualBlock(nn.Module):
    """x + norm(conv(PReLU(norm(conv(x))))): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SRGANGenerator(Network):
    """Super-resolution by four: (B, in_channels, H, W) -> {"image": (B, in_channels, 4H, 4W)}.

    Not a segmentation network: there is no `final`, so a bundle of it is refused where a nodule model is needed.
    `blocks` residual blocks: 16 as published; 5 make 734,219 parameters with three channels, the size of a common
    public implementation. `skip="bicubic"` predicts what bicubic interpolation lacks in place of the image itself,
    which needs far less training to be better than it (not in the paper).
    """

    scale = 4
    SKIPS = ("none", "bicubic")

    def __init__(self, in_channels: int = 1, width: int = 64, blocks: int = 16, skip: str = "none"):
        super().__init__()
        if min(in_channels, width, blocks) < 1:
            raise ValueError(
                f"in_channels, width and blocks must be at least 1, got {in_channels}, {width} and {blocks}"
            )
        if skip not in self.SKIPS:
            raise ValueError(f"unknown skip {skip!r}; available: {', '.join(self.SKIPS)}")
        self.in_channels, self.width, self.skip, self.stride = in_channels, width, skip, 1
        self.head = nn.Sequential(nn.Conv2d(in_channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        self.up = nn.Sequential(*(layer for _ in range(2) for layer in self._doubling(width)))
        self.tail = nn.Conv2d(width, in_channels, 9, padding=4)

    @staticmethod
    def _doubling(width: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """F_SR, the output of the last upsampling block: (B, in_channels, H, W) -> (B, width, 4H, 4W)."""
        check_size(x, self.in_channels, self.stride)
        first = self.head(x)
        return self.up(first + self.body(first))

    def image(self, features: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The image of `features(x)`, (B, in_channels, 4H, 4W): a caller who needs both runs the network once."""
        image = self.tail(features)
        return image + enlarge(x, self.scale) if self.skip == "bicubic" else image

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": self.image(self.features(x), x)}


def enlarge(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic interpolation (B, C, H, W) -> (B, C, scale * H, scale * W), pixel corners aligned."""
    return functional.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


def with_image(x: torch.Tensor, image: torch.Tensor, channel: int) -> torch.Tensor:
    """The batch `x` (B, C, H, W) with `image` (B, 1, H, W) in place of one channel."""
    return torch.cat([x[:, :channel], image, x[:, channel + 1 :]], dim=1)


def middle_channel(in_channels: int) -> int:
    """The slice itself among an odd number of slices, whether or not a position channel follows them."""
    return (in_channels - 1) // 2


class FrozenGenerator(SRGANGenerator):
    """A generator that nothing trains: no gradients, and always in evaluation, so that its batch norms stay as loaded.

    Calling `train()` on a network that holds it doesn't change that.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenGenerator":
        return super().train(False)

    @torch.no_grad()
    def features_and_image(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """F_SR and the image of a batch, without a gradient to either."""
        features = self.features(x)
        return features, self.image(features, x)


class SuperResolutionInput(Network):
    """A network at four times the resolution of its input, as DSNet v2's comparisons that are marked with a dagger.

    (B, in_channels, H, W) -> the maps of `network`, each (B, 1, H, W).

    A frozen SRGAN generator enlarges the middle slice, interpolation the other channels; the network's logits are
    averaged over 4x4 pixels. `networks.create` builds it for every network that is given the option `teacher` (the
    generator's options) and has no teacher of its own. H and W: multiples of the network's stride over four.
    """

    def __init__(self, network: Network, teacher: Mapping[str, Any], in_channels: int = 1):
        super().__init__()
        self.network, self.in_channels = network, in_channels
        self.teacher = FrozenGenerator(**{**teacher, "in_channels": 1})
        self.scale, self.image_channel = self.teacher.scale, middle_channel(in_channels)
        self.stride = network.stride // gcd(network.stride, self.scale)

    def load_teacher(self, state: Mapping[str, torch.Tensor]) -> "SuperResolutionInput":
        """Weights of a trained generator (its state dict), copied; returns self. Raises RuntimeError for another's."""
        self.teacher.load_state_dict(state)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        at = self.image_channel
        _, image = self.teacher.features_and_image(x[:, at : at + 1])
        out = self.network(with_image(enlarge(x, self.scale), image, at))
        return {key: functional.avg_pool2d(value, self.scale) for key, value in out.items()}
