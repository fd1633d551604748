"""The registry of networks. Listing names loads no torch; `create` imports the family that a name belongs to.

Every network maps a float tensor (B, C, H, W) to a dict of logits, each (B, 1, H, W). The keys say what a network
predicts: `union`, `intersection` and `single` are the branches of UGS-Net's uncertainty-aware module, `final` is the
segmentation itself, `side_*` and `edge` what deep supervision trains beside it, `soft` DSNet's soft mask. H and W
must be multiples of `network.stride`. `srgan_generator`, DSNet's teacher, gives an `image` and no segmentation.
"""

from importlib import import_module

# name -> (module, class, configuration that the name stands for)
_REGISTRY = {
    "attention_unet": ("attention_unet", "AttentionUNet", {}),
    "cascaded_cnn": ("cascaded_cnn", "CascadedCNN", {}),
    "ce_net": ("ce_net", "CENet", {}),
    "cf_cnn": ("cf_cnn", "CFCNN", {}),
    "channel_unet": ("channel_unet", "ChannelUNet", {}),
    "db_resnet": ("db_resnet", "DBResNet", {}),
    "deeplabv3plus": ("deeplabv3plus", "DeepLabV3Plus", {}),
    "dsnet": ("dsnet", "DSNet", {}),
    "fcn32s": ("fcn", "FCN32s", {}),
    "inf_net": ("inf_net", "InfNet", {}),
    "mc_cnn": ("mc_cnn", "MCCNN", {}),
    "mcroi_cnn": ("mcroi_cnn", "MCROICNN", {}),
    "medt": ("medt", "MedT", {}),
    "mv_dcnn": ("mv_dcnn", "MVDCNN", {}),
    "nested_unet": ("nested_unet", "NestedUNet", {}),
    "nnunet": ("nnunet", "NNUNet", {}),
    "r2_attention_unet": ("recurrent_unet", "R2AttentionUNet", {}),
    "r2_unet": ("recurrent_unet", "R2UNet", {}),
    "sinet_v2": ("sinet_v2", "SINetV2", {}),
    "srgan_generator": ("srgan", "SRGANGenerator", {}),
    "ugsnet": ("ugsnet", "UGSNet", {}),
    "ugsnet_v1": ("ugsnet", "UGSNetV1", {}),
    "unet": ("unet", "UNet", {}),
    "unet3plus": ("unet3plus", "UNet3Plus", {}),
}


def available() -> list[str]:
    """Names that `create` builds, sorted."""
    return sorted(_REGISTRY)


def _entry(name):
    if name not in _REGISTRY:
        raise ValueError(f"unknown network {name!r}; available: {', '.join(available())}")
    module, attribute, fixed = _REGISTRY[name]
    return getattr(import_module(f".{module}", __name__), attribute), fixed


def network_class(name: str) -> type:
    """The class behind a name. Raises ValueError for an unknown one."""
    return _entry(name)[0]


def presets(name: str) -> dict[str, dict]:
    """Named configurations of a network: `default`, and `paper` and `released` where the two differ from it."""
    cls, fixed = _entry(name)
    named = getattr(cls, "PRESETS", {"default": {}})
    return {preset: {**values, **fixed} for preset, values in named.items()}


def create(name: str, preset: str = "default", **config):
    """Build a network: the preset's configuration, overridden by `config`.

    `teacher`, for a network that has no such option of its own: it sees a super-resolution image in place of its input
    (`super_resolution_input`). Raises ValueError for an unknown name or preset, and for a configuration that the
    network refuses.
    """
    cls, fixed = _entry(name)
    named = presets(name)
    if preset not in named:
        raise ValueError(f"network {name!r} has no preset {preset!r}; available: {', '.join(sorted(named))}")
    teacher = None if hasattr(cls, "load_teacher") else config.pop("teacher", None)
    network = cls(**{**named[preset], **fixed, **config})
    if teacher is None:
        return network
    from .super_resolution_input import SuperResolutionInput

    return SuperResolutionInput(network, teacher, config.get("in_channels", 1))
