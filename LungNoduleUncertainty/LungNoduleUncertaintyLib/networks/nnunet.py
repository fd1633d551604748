"""nnU-Net's plain convolutional U-Net in 2D, built by nnU-Net's own package.

Source: Isensee et al., nnU-Net (Nature Methods 2021); architecture: package dynamic-network-architectures.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from .blocks import Network, check_depth, check_size
from .feature_enhancement import skip_enhancements

PACKAGE = "dynamic-network-architectures"
# The IFE paper enhances "middle layers", without code: taken as the skips of its U-Net, with one pair of ratios.
SKIP_RATIOS = {"curvature": (0.75, 0.5), "entropy": (0.75, 0.5)}


class MissingPackageError(ImportError, ValueError):
    """The package that builds the network isn't installed: this installation can't build this configuration."""


def _unregister_aliases(network: nn.Module) -> None:
    """Let every layer be registered once, so that the state dict names each tensor once (safetensors demands it).

    The package registers a layer both by name and inside a sequence, and the encoder in the decoder too. The sequence
    keeps it; elsewhere it stays an attribute, which forward and conversions don't notice.
    """
    containers = [m for m in network.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    seen = {id(child) for container in containers for child in container.children()}
    for module in network.modules():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        for name, child in list(module._modules.items()):
            if id(child) in seen:
                del module._modules[name]
                object.__setattr__(module, name, child)
            seen.add(id(child))


class NNUNet(Network):
    """nnU-Net with one output, `final`: logits (B, 1, H, W). Needs the package dynamic-network-architectures.

    Two convolutions with instance norm and leaky ReLU per stage, strided convolutions down, transposed ones up.
    Channels double from `width` up to 16 x width: 32-64-128-256-512-512 for width 32 and six stages, nnU-Net's plan for
    2D. The four deeper heads of its deep supervision (964 parameters) are left out. Weights start as nnU-Net's do. An
    image that leaves one bottleneck pixel is refused, because instance norm needs more than one. `enhance` and its
    options, for the skips of stages 2 and 3, are those of `feature_enhancement.enhancements`.

    Raises MissingPackageError (an ImportError and a ValueError) where the package is absent.
    """

    PARAMETERS: ClassVar = {1: 20_617_121, 3: 20_617_697}

    def __init__(self, in_channels: int = 1, width: int = 32, stages: int = 6, **enhance: Any):
        super().__init__()
        check_depth(width, stages)
        self.enhance = skip_enhancements(stages - 1, SKIP_RATIOS, **enhance)
        try:
            from dynamic_network_architectures.architectures.unet import PlainConvUNet
            from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
        except ImportError as error:
            raise MissingPackageError(
                f"network 'nnunet' needs the package {PACKAGE} ({error}): pip install --no-deps {PACKAGE}"
            ) from error
        self.in_channels, self.stride = in_channels, 2 ** (stages - 1)
        channels = [width * min(2**stage, 16) for stage in range(stages)]
        layers: dict[str, Any] = {
            "conv_bias": True,
            "norm_op": nn.InstanceNorm2d,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": nn.LeakyReLU,
            "nonlin_kwargs": {"inplace": True},
        }
        network = PlainConvUNet(
            input_channels=in_channels,
            n_stages=stages,
            features_per_stage=channels,
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=[1] + [2] * (stages - 1),
            n_conv_per_stage=2,
            num_classes=1,
            n_conv_per_stage_decoder=2,
            deep_supervision=False,
            **layers,
        )
        more = self.enhance.extra_channels(channels)
        for extra, c, stage in zip(more, channels, reversed(range(stages - 1)), strict=False):
            if extra:  # the decoder's stages start at the deepest
                network.decoder.stages[stage] = StackedConvBlocks(2, nn.Conv2d, 2 * c + extra, c, 3, 1, **layers)
        network.apply(network.initialize)
        # Without deep supervision the deeper heads never run: parameters without a gradient, which DDP refuses.
        for deeper in range(stages - 2):
            network.decoder.seg_layers[deeper] = nn.Identity()
        _unregister_aliases(network)
        self.network = network

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        if x.shape[2] * x.shape[3] <= self.stride**2:
            raise ValueError(f"height and width must exceed {self.stride} x {self.stride}, got an image of that size")
        *skips, deepest = self.network.encoder(x)
        skips = [place(skip) for place, skip in zip(self.enhance, skips, strict=True)]
        return {"final": self.network.decoder([*skips, deepest])}
