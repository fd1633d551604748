"""nnU-Net's plain convolutional U-Net in 2D, built by nnU-Net's own package.

Source: Isensee et al., nnU-Net (Nature Methods 2021); architecture: package dynamic-network-architectures.
"""

import torch
from torch import nn

from .blocks import check_depth, check_size

PACKAGE = "dynamic-network-architectures"


class MissingPackageError(ImportError, ValueError):
    """The package that builds the network isn't installed: a configuration that this installation can't build."""


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


class NNUNet(nn.Module):
    """nnU-Net with one output, `final`: logits (B, 1, H, W). Needs the package dynamic-network-architectures.

    Two convolutions with instance norm and leaky ReLU per stage, strided convolutions down, transposed ones up.
    Channels double from `width` up to 16 x width: 32-64-128-256-512-512 for width 32 and six stages, nnU-Net's plan
    for 2D. The four deeper heads of its deep supervision (964 parameters) are left out: 20,617,121 parameters with one
    input channel, 20,617,697 with three. Weights start as nnU-Net's do. An image that leaves one bottleneck pixel is
    refused, because instance norm needs more than one.

    Raises MissingPackageError (an ImportError and a ValueError) where the package is absent.
    """

    def __init__(self, in_channels: int = 1, width: int = 32, stages: int = 6):
        super().__init__()
        check_depth(width, stages)
        try:
            from dynamic_network_architectures.architectures.unet import PlainConvUNet
        except ImportError as error:
            raise MissingPackageError(
                f"network 'nnunet' needs the package {PACKAGE} ({error}): pip install --no-deps {PACKAGE}"
            ) from error
        self.in_channels, self.stride = in_channels, 2 ** (stages - 1)
        network = PlainConvUNet(
            input_channels=in_channels,
            n_stages=stages,
            features_per_stage=[width * min(2**stage, 16) for stage in range(stages)],
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=[1] + [2] * (stages - 1),
            n_conv_per_stage=2,
            num_classes=1,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=False,
        )
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
        return {"final": self.network(x)}
