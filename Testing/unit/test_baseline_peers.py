"""The baselines against MONAI's networks, where those are the same network: same weights, same result."""

import pytest
import torch
from torch import nn

from LungNoduleUncertaintyLib import networks

pytest.importorskip("monai", reason="MONAI isn't installed")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def copy_in_order(source, target):
    """Copy a layer's or a network's tensors where both list them in the same order."""
    ours, theirs = source.state_dict(), target.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in theirs.values()]
    target.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))


def build_with_busy_norms(name, **options):
    """Norms start at scale 1 and shift 0, which would hide one that is missing or swapped."""
    torch.manual_seed(0)
    network = networks.create(name, width=8, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network


def copy_blocks(pairs):
    for source, target in pairs:
        copy_in_order(source, target)


def test_transposed_unet_equals_monai():
    """MONAI's BasicUNet, but for its last upsampling, which keeps the channels there; its own block halves them."""
    from monai.networks.nets import basic_unet

    ours = build_with_busy_norms("unet", up="transposed", in_channels=2)
    theirs = basic_unet.BasicUNet(2, 2, 1, (8, 16, 32, 64, 128, 8), act="relu", norm="batch")
    theirs.upcat_1 = basic_unet.UpCat(2, 16, 8, 8, "relu", "batch", True)
    backbone = ours.backbone
    downs = (theirs.conv_0, theirs.down_1, theirs.down_2, theirs.down_3, theirs.down_4)
    ups = (theirs.upcat_4, theirs.upcat_3, theirs.upcat_2, theirs.upcat_1)
    copy_blocks(zip(backbone.encoder, downs, strict=True))
    copy_blocks(zip(backbone.up, (u.upsample for u in ups), strict=True))
    copy_blocks(zip(backbone.decoder, (u.convs for u in ups), strict=True))
    copy_in_order(ours.head, theirs.final_conv)
    assert parameters(ours) == parameters(theirs)
    x = torch.randn(2, 2, 32, 48)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x)["final"], theirs.train(mode)(x), rtol=1e-4, atol=1e-5)


def test_nested_unet_equals_monai():
    """MONAI's BasicUNetPlusPlus with bilinear upsampling and without the convolution that it puts before that."""
    from monai.networks.nets import BasicUNetPlusPlus, basic_unet

    ours = build_with_busy_norms("nested_unet", deep_supervision=True)
    theirs = BasicUNetPlusPlus(2, 1, 1, (8, 16, 32, 64, 128, 8), True, act="relu", norm="batch")
    channels, extra = (8, 16, 32, 64, 128), {"upsample": "nontrainable", "pre_conv": None}
    for node, ours_block in ours.nodes.items():
        level, step = map(int, node.split("_"))
        merge = basic_unet.UpCat(
            2, channels[level + 1], step * channels[level], channels[level], "relu", "batch", True, **extra
        )
        copy_in_order(ours_block, merge.convs)
        setattr(theirs, f"upcat_{node}", merge)
    copy_blocks((block, getattr(theirs, f"conv_{level}_0")) for level, block in enumerate(ours.encoder))
    copy_blocks((head, getattr(theirs, f"final_conv_0_{step}")) for step, head in enumerate(ours.heads, 1))
    assert parameters(ours) == parameters(theirs)
    x = torch.randn(2, 1, 32, 32)
    for mode in (True, False):
        expected = torch.stack(theirs.train(mode)(x)).mean(0)
        torch.testing.assert_close(ours.train(mode)(x)["final"], expected, rtol=1e-4, atol=1e-5)


def test_nnunet_equals_monais_dynunet():
    """DynUNet is MONAI's rebuild of nnU-Net's network; its convolutions lack the bias that instance norm cancels."""
    pytest.importorskip("dynamic_network_architectures")
    from monai.networks.nets import DynUNet

    ours = build_with_busy_norms("nnunet", stages=4).eval()
    theirs = DynUNet(2, 1, 1, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 16, 32, 64], trans_bias=True).eval()

    def layers(module):
        kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d)
        return [m for m in module.modules() if isinstance(m, kinds)]

    def copy_layers(source, target):
        for one, other in zip(layers(source), layers(target), strict=True):
            assert type(one) is type(other)
            other.weight.data.copy_(one.weight.data)
            if other.bias is not None:
                other.bias.data.copy_(one.bias.data)

    def flat(block):  # DynUNet's blocks register both convolutions before both norms
        return nn.ModuleList([block.conv1, block.norm1, block.conv2, block.norm2])

    network = ours.network
    downs = [theirs.input_block, *theirs.downsamples, theirs.bottleneck]
    for stage, block in zip(network.encoder.stages, downs, strict=True):
        copy_layers(stage, flat(block))
    decoder = zip(network.decoder.transpconvs, network.decoder.stages, theirs.upsamples, strict=True)
    for transposed, stage, block in decoder:
        copy_layers(transposed, block.transp_conv)
        copy_layers(stage, flat(block.conv_block))
    copy_layers(network.decoder.seg_layers[-1], theirs.output_block)
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(ours(x)["final"], theirs(x), rtol=1e-3, atol=1e-4)
