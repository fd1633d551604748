"""DSNet, its super-resolution teacher and its discriminator: sizes, formulas, switches, the frozen teacher."""

import pytest
import SimpleITK as sitk
import torch
from torch import nn
from torch.nn import functional

from fake_model import bundle_metadata
from LungNoduleUncertaintyLib import NoduleError, networks, segment_nodule
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.networks import blocks, discriminators, dsnet, srgan
from LungNoduleUncertaintyLib.outlining.prediction import to_probability

SMALL = {"width": 8, "levels": 3, "teacher": {"width": 4, "blocks": 1}, "reduction": 4}
DETAILS = ("none", "sr_input", "edrfm", "sdrfm", "drtm")
FORMS = [
    *({"detail": name} for name in DETAILS),
    {"dtm": False},
    {"csf": False},
    {"dtm": False, "csf": False},
    {"heads": "separate"},
    {"order": "conv-bn-relu"},
    {"norm": "instance"},
    {"convs": 1},
    {"in_channels": 4},
    {"in_channels": 4, "detail": "sr_input"},
    {"teacher": {"width": 4, "blocks": 1, "skip": "bicubic"}},
]


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def build(seed=0, **options):
    torch.manual_seed(seed)
    return networks.create("dsnet", **{**SMALL, **options})


# --- published sizes ---


def counted_by_hand(channels):
    """Parameters of backbone and head behind as many channels as the first level has, layer by layer."""

    def block(a, b):
        convolutions = 9 * (a * b + b * b) + 2 * b + 2 * 2 * b
        attention = 2 * b * (b // 16) + b // 16 + b + 2 * 49 + 2
        return convolutions + attention + (a * b + b if a != b else 0)

    shallow, deep = channels[:-1], channels[1:]
    total = sum(block(c, c) for c in channels) + sum(block(2 * c, c) for c in shallow)
    return total + sum(2 * 16 * a * b + a + b for a, b in zip(shallow, deep, strict=True)) + 9 * channels[0] + 1


def test_sizes_of_dsnet():
    """Parameters, and multiplications at 256 x 256, of backbone and head behind a fusion of 64 channels."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        for levels, millions, exact, macs in ((5, 35.12, 35_117_533, 66.8), (4, 14.33, 14_333_653, 55.7)):
            network = networks.create("dsnet", preset="v2", levels=levels)
            used = nn.Sequential(network.backbone, network.heads["shared"]).eval()
            assert parameters(used) == exact == counted_by_hand([64, 128, 256, 512, 512][:levels])
            assert round(exact / 1e6, 2) == millions
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                used(torch.empty(1, 64, 256, 256))
            assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.002)
            assert parameters(network) == exact + 58_880 + parameters(network.teacher)
        assert parameters(network.fusion) == 58_880
        # SoftGAN's first convolution sees the image alone, and its shortcut has to project.
        assert parameters(networks.create("dsnet", preset="softgan")) == 35_117_533 - 63 * 64 * 9 + 2 * 64


def test_sizes_of_teacher_and_discriminators():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        generator = networks.create("srgan_generator", in_channels=3, blocks=5).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            generator(torch.empty(1, 3, 64, 64))
        assert parameters(generator) == 734_219
        assert counter.get_total_flops() / 2e9 == pytest.approx(5.77, rel=0.002)
        assert parameters(discriminators.SRGANDiscriminator(in_channels=3)) == 5_215_425
        assert parameters(discriminators.PixelDiscriminator()) == 8_768
        assert len([m for m in networks.create("srgan_generator").body if isinstance(m, srgan.ResidualBlock)]) == 16
        # Without the parts that a switch takes away: two convolutions; three dense layers for one convolution.
        full = parameters(dsnet.DRTM(2, 64))
        assert full - parameters(dsnet.DRTM(2, 64, dtm=False)) == 64 * 64 + 64 + 64 * 64 * 9 + 64
        assert parameters(dsnet.DRTM(2, 64, csf=False)) - full == 128 * 64 * 9 + 64 - (128 * 64 + 2 * 64 * 64 + 3 * 64)


# --- parts ---


def test_cbam_is_the_written_out_formula():
    torch.manual_seed(0)
    layer = blocks.CBAM(8, reduction=4).eval()
    x = torch.randn(2, 8, 9, 7)
    first, second = layer.channel.mlp[0], layer.channel.mlp[2]
    pooled = [x.mean((2, 3)), x.flatten(2).max(2).values]
    weight = torch.sigmoid(sum(second(torch.relu(first(p))) for p in pooled))
    y = x * weight[:, :, None, None]
    maps = torch.stack([y.max(1).values, y.mean(1)], dim=1)
    weight = torch.sigmoid(layer.spatial.norm(functional.conv2d(maps, layer.spatial.conv.weight, padding=3)))
    torch.testing.assert_close(layer(x), y * weight)
    assert blocks.CBAM(4, reduction=16).channel.mlp[0].out_features == 1
    assert blocks.CBAM(64).channel.mlp[0].out_features == 4
    with pytest.raises(ValueError, match="reduction must be at least 1"):
        blocks.CBAM(4, reduction=0)


def test_blocks_keep_the_order_of_their_layers():
    for order, kinds in (("conv-relu-bn", [nn.ReLU, nn.BatchNorm2d]), ("conv-bn-relu", [nn.BatchNorm2d, nn.ReLU])):
        block = dsnet.CBAMBlock(2, 4, order=order)
        assert [type(layer) for layer in block.convolutions] == [nn.Conv2d, *kinds] * 2
    block = dsnet.CBAMBlock(4, 4)
    with torch.no_grad():
        for layer in block.convolutions:
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.zero_()
        x = torch.randn(2, 4, 6, 6)
        torch.testing.assert_close(block(x), x, rtol=0, atol=0)  # the shortcut of equal channels is the identity


def test_drtm_is_the_written_out_formula():
    torch.manual_seed(0)
    module, context, features = dsnet.DRTM(2, 6), torch.randn(3, 2, 8, 10), torch.randn(3, 6, 8, 10)
    local, surround = module.texture.local, module.texture.surround
    low = functional.conv2d(features, surround.weight, surround.bias, padding=2, dilation=2)
    high = torch.sigmoid(functional.conv2d(features, local.weight, local.bias) - low)
    f_d, f_c = features * high, module.context(context)
    compact = module.fusion.reduce(torch.cat([f_d, f_c], 1).mean((2, 3)))
    v_c, v_d = module.fusion.context(compact), module.fusion.detail(compact)
    a = (v_c.exp() / (v_c.exp() + v_d.exp()))[:, :, None, None]
    torch.testing.assert_close(module(context, features), a * f_c + (1 - a) * f_d)


def test_channel_selection_sums_to_one():
    torch.manual_seed(0)
    module = dsnet.ChannelSelection(6)
    a, b = module.weights(torch.randn(3, 6, 5, 5) * 20, torch.randn(3, 6, 5, 5) * 20)
    assert a.shape == b.shape == (3, 6, 1, 1)
    torch.testing.assert_close(a + b, torch.ones_like(a))
    assert float((a - 0.5).detach().abs().max()) > 0.05
    same = torch.randn(3, 6, 5, 5)
    torch.testing.assert_close(module(same, same), same)  # whatever the weights


def test_switches_of_drtm():
    context, features = torch.randn(1, 2, 8, 8), torch.randn(1, 4, 8, 8)
    neither = dsnet.DRTM(2, 4, dtm=False, csf=False)
    expected = neither.fusion.conv(torch.cat([neither.context(context), features], 1))
    torch.testing.assert_close(neither(context, features), expected)
    assert isinstance(dsnet.DRTM(2, 4, dtm=False).fusion, dsnet.ChannelSelection)
    assert isinstance(dsnet.DRTM(2, 4, csf=False).texture, dsnet.DetailTexture)


# --- super-resolution ---


def test_generator_and_its_features():
    torch.manual_seed(0)
    generator = networks.create("srgan_generator", in_channels=2, width=4, blocks=1).eval()
    x = torch.randn(2, 2, 7, 5)
    features, out = generator.features(x), generator(x)
    assert features.shape == (2, 4, 28, 20)
    assert list(out) == ["image"]
    assert out["image"].shape == (2, 2, 28, 20)
    torch.testing.assert_close(generator.tail(features), out["image"])
    with pytest.raises(ValueError, match=r"expected a tensor \(B, 2, H, W\)"):
        generator(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="unknown skip 'linear'"):
        networks.create("srgan_generator", skip="linear")


def test_generator_on_top_of_bicubic():
    generator = srgan.SRGANGenerator(width=4, blocks=1, skip="bicubic").eval()
    nn.init.zeros_(generator.tail.weight)
    nn.init.zeros_(generator.tail.bias)
    x = torch.rand(1, 1, 8, 8)
    expected = functional.interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(generator(x)["image"], expected)


def test_discriminators():
    judge, x = discriminators.SRGANDiscriminator(width=4), torch.randn(2, 1, 32, 48)
    assert judge(x).shape == (2, 1)
    assert judge.body(x).shape == (2, 32, 2, 3)
    image, soft = torch.randn(2, 1, 12, 12), torch.randn(2, 1, 12, 12)
    for kernel, reach in ((1, 1), (3, 7)):
        judge = discriminators.PixelDiscriminator(width=4, kernel=kernel).eval()
        x = soft.clone().requires_grad_()
        out = judge(image, x)
        assert out.shape == (2, 1, 12, 12)
        out[0, 0, 6, 6].backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
        assert int(rows.max() - rows.min()) + 1 <= reach
        assert int(x.grad[1].abs().sum()) == 0
    discriminators.PixelDiscriminator(width=4, norm="instance")(image, soft).sum().backward()
    with pytest.raises(ValueError, match="kernel 1 or 3"):
        discriminators.PixelDiscriminator(kernel=5)


def test_a_generator_is_refused_as_a_nodule_model():
    generator = networks.create("srgan_generator", width=4, blocks=1).eval()
    metadata = bundle_metadata(outputs={"segments": [], "probabilities": [], "maps": ["image"]}, thresholds={})
    model = Model([generator], metadata, torch.device("cpu"))
    ct = sitk.Image(8, 8, 8, sitk.sitkInt16) - 800
    with pytest.raises(NoduleError, match="predicts image and no final"):
        segment_nodule(ct, (3.0, 3.0, 3.0), model=model)


# --- the network ---


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_every_form_gives_the_inputs_size_and_trains_every_parameter(options):
    network = build(**options)
    teacher = 1 if options.get("detail") == "none" else 4
    assert network.stride == (4 if teacher == 1 else 1)
    x = torch.randn(2, options.get("in_channels", 1), 12, 8)
    out = network(x)
    assert set(out) == {"final", "soft"}
    assert all(z.shape == (2, 1, 12, 8) for z in out.values())
    assert (out["final"] is out["soft"]) == (options.get("heads") != "separate")
    sum((z - 1).square().mean() for z in out.values()).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("teacher."):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    network.output_size = "sr"
    with torch.no_grad():
        assert network.eval()(x)["final"].shape == (2, 1, 12 * teacher, 8 * teacher)


def test_gradients_are_not_zero():
    network = build(width=16, teacher={"width": 16, "blocks": 1})
    network(torch.randn(2, 1, 16, 16))["final"].square().mean().backward()
    dead = [name for name, p in network.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not dead


def test_compact_width_at_64():
    network = networks.create("dsnet", width=16, teacher={"width": 16, "blocks": 1}).eval()
    assert network.stride == 4
    with torch.no_grad():
        assert network(torch.randn(1, 1, 64, 64))["final"].shape == (1, 1, 64, 64)
        softgan = networks.create("dsnet", preset="softgan", width=16).eval()
        assert softgan.stride == 16
        assert softgan(torch.randn(1, 1, 64, 64))["final"].shape == (1, 1, 64, 64)
    with pytest.raises(ValueError, match="multiples of 4, got 66 x 64"):
        network(torch.zeros(1, 1, 66, 64))
    with pytest.raises(ValueError, match="multiples of 16, got 40 x 64"):
        softgan(torch.zeros(1, 1, 40, 64))


def test_output_at_the_inputs_size_is_the_mean_of_the_enlarged_one():
    network, x = build().eval(), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        small = network(x)["final"]
        network.output_size = "sr"
        large = network(x)["final"]
    torch.testing.assert_close(small, large.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5)))


def test_soft_and_binary_mask_agree():
    z = torch.cat([torch.linspace(-4, 4, 801), torch.tensor([0.0, 1e-3, -1e-3])])
    alpha = to_probability("soft", z)
    assert torch.equal(alpha >= 0.5, torch.sigmoid(z) >= 0.5)
    assert float(alpha.min()) >= 0
    assert float(alpha.max()) <= 1
    torch.testing.assert_close(alpha, (torch.tanh(z) + 1) / 2)


def test_which_channel_the_teacher_enlarges():
    for channels, middle in ((1, 0), (3, 1), (4, 1), (6, 2)):
        assert build(in_channels=channels).image_channel == middle
    network = build(in_channels=3, detail="sr_input", image_channel=2).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        seen = network.enlarged(x)
        expected = torch.cat([srgan.enlarge(x[:, :2], 4), network.teacher(x[:, 2:])["image"]], 1)
    torch.testing.assert_close(seen, expected)


def test_the_teacher_stays_as_it_was_loaded():
    torch.manual_seed(1)
    trained = srgan.SRGANGenerator(width=4, blocks=1)
    trained(torch.randn(4, 1, 8, 8))  # moves the running statistics away from their start
    network = build().load_teacher(trained.state_dict())
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    backbone = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        assert network.train().training
        assert not any(module.training for module in network.teacher.modules())
        loss = (network(torch.randn(2, 1, 8, 8) + 3)["final"] - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.teacher.train()
    assert not any(module.training for module in network.teacher.modules())
    after = network.teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(torch.equal(v, backbone[k]) for k, v in network.backbone.state_dict().items() if "weight" in k)
    assert all(module.training for module in network.backbone.modules())
    copy = build(seed=5)
    copy.load_state_dict(network.state_dict())  # the teacher travels with the network
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(copy.eval()(x)["final"], network.eval()(x)["final"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="no super-resolution teacher"):
        build(detail="none").load_teacher(trained.state_dict())


def test_presets_and_refused_options():
    assert set(networks.presets("dsnet")) == {"default", "softgan", "v1", "v2"}
    small = {"width": 4, "levels": 2, "teacher": {"width": 4, "blocks": 1}}
    kinds = {"default": dsnet.DRTM, "v2": dsnet.DRTM, "v1": dsnet.SDRFM, "softgan": type(None)}
    for preset, kind in kinds.items():
        assert isinstance(networks.create("dsnet", preset=preset, **small).fusion, kind)
    for name, value in (("detail", "drm"), ("order", "bn-conv"), ("heads", "two"), ("output_size", "64")):
        with pytest.raises(ValueError, match=f"unknown {name} {value!r}; available: "):
            networks.create("dsnet", **{**small, name: value})
    with pytest.raises(ValueError, match="unknown norm 'layer'"):
        networks.create("dsnet", norm="layer", **small)
    with pytest.raises(ValueError, match="image_channel one of the input's"):
        networks.create("dsnet", image_channel=1, **small)
    with pytest.raises(ValueError, match="levels at least 2"):
        networks.create("dsnet", **{**small, "levels": 1})


@pytest.mark.parametrize(("name", "channels"), [("unet", 1), ("inf_net", 3), ("medt", 1)])
def test_a_network_on_the_teachers_image(name, channels):
    """Its input is the teacher's image with the other channels interpolated, its output four times smaller again."""
    torch.manual_seed(0)
    network = networks.create(name, in_channels=channels, width=8, teacher={"width": 4, "blocks": 1}).eval()
    assert network.stride == max(1, network.network.stride // 4)
    x, at, seen = torch.randn(2, channels, 32, 16), (channels - 1) // 2, []
    network.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        out = network(x)
        image = network.teacher(x[:, at : at + 1])["image"]
        torch.testing.assert_close(seen[0][:, at : at + 1], image)
        if channels > 1:
            torch.testing.assert_close(seen[0][:, :at], srgan.enlarge(x[:, :at], 4))
        full = network.network(seen[0])
    for key, value in out.items():
        assert value.shape == (2, 1, 32, 16)
        torch.testing.assert_close(value[0, 0, 1, 2], full[key][0, 0, 4:8, 8:12].mean())
    assert not any(p.requires_grad for p in network.teacher.parameters())
    with pytest.raises(ValueError, match="expected a tensor"):
        network(torch.randn(1, channels + 1, 32, 16))
