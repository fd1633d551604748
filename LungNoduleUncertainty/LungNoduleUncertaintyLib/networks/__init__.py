"""The registry of networks. Listing names loads no torch; `create` imports the file that a network is in.

A new network is one file in this folder, with a class derived from `blocks.Network`, and one line in `_REGISTRY`: from
then on it can be configured, trained, evaluated and exported, and `Testing/contracts/test_networks.py` tests it.

Every network maps a float tensor (B, C, H, W) to a dict of logits, each (B, 1, H, W). The keys say what a network
predicts: `union`, `intersection` and `single` are the branches of UGS-Net's uncertainty-aware module, `final` is the
segmentation itself, `side_*` and `edge` what deep supervision trains beside it, `soft` DSNet's soft mask. H and W
must be multiples of `network.stride`. `srgan_generator`, DSNet's teacher, predicts an `image` and no segmentation.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from LungNoduleKit.errors import shown

if TYPE_CHECKING:
    from .blocks import Network

# name -> (file, class, and how it trains where it does so in a way of its own, see `training_of`)
_REGISTRY: dict[str, tuple[str, str] | tuple[str, str, str]] = {
    "attention_unet": ("unet", "AttentionUNet"),
    "cascaded_cnn": ("cascaded_cnn", "CascadedCNN", "patch"),
    "ce_net": ("ce_net", "CENet"),
    "cf_cnn": ("cf_cnn", "CFCNN", "patch"),
    "channel_unet": ("channel_unet", "ChannelUNet"),
    "db_resnet": ("db_resnet", "DBResNet", "patch"),
    "deeplabv3plus": ("deeplabv3plus", "DeepLabV3Plus"),
    "dsnet": ("dsnet", "DSNet", "dsnet"),
    "fcn32s": ("fcn", "FCN32s"),
    "inf_net": ("reverse_attention", "InfNet"),
    "mc_cnn": ("mc_cnn", "MCCNN", "patch"),
    "mcroi_cnn": ("mcroi_cnn", "MCROICNN", "patch"),
    "medt": ("medt", "MedT"),
    "mv_dcnn": ("mv_dcnn", "MVDCNN", "patch"),
    "nested_unet": ("nested_unet", "NestedUNet"),
    "nnunet": ("nnunet", "NNUNet"),
    "r2_attention_unet": ("unet", "R2AttentionUNet"),
    "r2_unet": ("unet", "R2UNet"),
    "sinet_v2": ("reverse_attention", "SINetV2"),
    "srgan_generator": ("srgan", "SRGANGenerator", "super_resolution"),
    "ugsnet": ("ugsnet", "UGSNet"),
    "ugsnet_v1": ("ugsnet", "UGSNetV1"),
    "unet": ("unet", "UNet"),
    "unet3plus": ("unet3plus", "UNet3Plus"),
}


def available() -> list[str]:
    """Names that `create` builds, sorted."""
    return sorted(_REGISTRY)


def network_class(name: str) -> "type[Network]":
    """The class behind a name. Raises ValueError for an unknown one."""
    if name not in _REGISTRY:
        raise ValueError(f"unknown network {shown(name)}; available: {', '.join(available())}")
    file, attribute = _REGISTRY[name][:2]
    return getattr(import_module(f".{file}", __name__), attribute)


def training_of(name: str) -> str:
    """How a network trains: `patch` (single pixels), `dsnet`, `super_resolution`, or empty as most do.

    A training configuration has a table of this name for the network. Empty for an unknown name; loads no torch.
    """
    return "".join(_REGISTRY.get(name, ())[2:])


def presets(name: str) -> dict[str, dict[str, Any]]:
    """Named configurations of a network: `default`, and others where a paper or its release differ from it."""
    return {preset: dict(options) for preset, options in network_class(name).PRESETS.items()}


def preset_options(name: str, preset: str = "default") -> dict[str, Any]:
    """The options of a network's preset. Raises ValueError for an unknown name or preset."""
    named = presets(name)
    if preset not in named:
        raise ValueError(f"network {name!r} has no preset {shown(preset)}; available: {', '.join(sorted(named))}")
    return named[preset]


def check(name: str, preset: str, options: Mapping[str, Any], path: str = "network") -> None:
    """Raises ValueError for an unknown network, preset or option, and for an option of another type or out of range.

    `path` is where the options stand in their file; the message names the key. Nothing is built.
    """
    from .options import check_options

    check_options(network_class(name), {**preset_options(name, preset), **options}, path)


def create(name: str, preset: str = "default", **config: Any) -> "Network":
    """Build a network: the preset's configuration, overridden by `config`.

    `teacher`, for a network that has no such option of its own: it sees a super-resolution image in place of its input
    (`srgan.SuperResolutionInput`). Raises ValueError for an unknown name, preset or option, for a value of another type
    or out of range, and for options that the network refuses or that make it larger than any.
    """
    from .options import built

    check(name, preset, config)
    cls, options = network_class(name), {**preset_options(name, preset), **config}
    teacher = None if hasattr(cls, "load_teacher") else options.pop("teacher", None)

    def build() -> "Network":
        network = cls(**options)
        if teacher is None:
            return network
        from .srgan import SuperResolutionInput

        return SuperResolutionInput(network, teacher, config.get("in_channels", 1))

    return built(build)
