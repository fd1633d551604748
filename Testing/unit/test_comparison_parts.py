"""Parts of the comparison networks against written-out formulas, loops and, where it is installed, MONAI."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks import ce_net, encoders, medt, reverse_attention, unet3plus


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def busy(module, seed=0):
    """Evaluation mode, with norms that do something: they start as the identity, which would hide a missing one."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


# --- encoders ---


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032), ("resnet101", 42_500_160)],
)
def test_encoders_have_the_published_sizes(name, size):
    """torchvision's counts less their classifiers; a larger output changes no shape."""
    with torch.device("meta"):
        assert parameters(encoders.ResNet(3, name)) == size
        assert parameters(encoders.ResNet(3, name, output_stride=16)) == size


def test_state_dicts_have_the_released_names():
    with torch.device("meta"):
        plain, scaled = encoders.ResNet(3, "resnet101").state_dict(), encoders.Res2Net50(3).state_dict()
    assert plain["layer3.22.conv3.weight"].shape == (1024, 256, 1, 1)
    assert plain["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert plain["layer1.0.bn2.running_var"].shape == (64,)
    assert scaled["conv1.6.weight"].shape == (64, 32, 3, 3)
    assert scaled["layer2.0.downsample.1.weight"].shape == (512, 256, 1, 1)
    assert scaled["layer4.2.convs.2.weight"].shape == (208, 208, 3, 3)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_encoders_equal_monai(name):
    pytest.importorskip("monai", reason="MONAI isn't installed")
    from monai.networks.nets.resnet import ResNet

    kind = "basic" if name == "resnet34" else "bottleneck"
    theirs = busy(
        ResNet(
            kind,
            [3, 4, 6, 3],
            [8, 16, 32, 64],
            spatial_dims=2,
            n_input_channels=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
    )
    ours = encoders.ResNet(2, name, width=8).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 64, 64)
    torch.testing.assert_close(ours(x)[-1].mean((2, 3)), theirs(x), rtol=1e-4, atol=1e-4)


def test_output_stride_16_keeps_the_last_stage_and_dilates_it():
    network = encoders.ResNet(1, "resnet50", width=4, output_stride=16).eval()
    assert [f.shape[-1] for f in network(torch.zeros(1, 1, 64, 64))] == [16, 8, 4, 4]
    assert [block.conv2.dilation[0] for block in network.layer4] == [2, 4, 8]
    assert {block.conv2.dilation[0] for block in network.layer3} == {1}
    assert [f.shape[-1] for f in encoders.ResNet(1, "resnet18", width=4)(torch.zeros(2, 1, 64, 64))] == [16, 8, 4, 2]


def test_res2net_block_equals_the_written_out_formula():
    block = busy(encoders.Res2NetBlock(32, 8))
    x = torch.randn(2, 32, 6, 6)
    one, two, three, four = torch.relu(block.bn1(block.conv1(x))).split(3, dim=1)
    step = [lambda y, c=c, n=n: torch.relu(n(c(y))) for c, n in zip(block.convs, block.bns, strict=True)]
    first = step[0](one)
    second = step[1](first + two)
    third = step[2](second + three)
    expected = torch.relu(block.bn3(block.conv3(torch.cat([first, second, third, four], 1))) + x)
    torch.testing.assert_close(block(x), expected)


def test_first_res2net_block_keeps_its_groups_apart():
    block = busy(encoders.Res2NetBlock(16, 8, stride=2, first=True))
    x = torch.randn(2, 16, 6, 6)
    groups = torch.relu(block.bn1(block.conv1(x))).split(3, dim=1)
    parts = [torch.relu(n(c(g))) for c, n, g in zip(block.convs, block.bns, groups[:3], strict=True)]
    parts.append(functional.avg_pool2d(groups[3], 3, 2, padding=1))
    expected = torch.relu(block.bn3(block.conv3(torch.cat(parts, 1))) + block.downsample(x))
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 32, 3, 3)


# --- UNet 3+ ---


def test_full_scale_fusion_pools_shallow_and_enlarges_deep_sources():
    layer = busy(unet3plus.FullScaleFusion([2, 4, 6, 5], level=1, width=3))
    sources = [torch.randn(1, c, 32 // 2**i, 32 // 2**i) for i, c in enumerate((2, 4, 6, 5))]
    resized = [
        functional.max_pool2d(sources[0], 2),
        sources[1],
        functional.interpolate(sources[2], scale_factor=2, mode="bilinear"),
        functional.interpolate(sources[3], scale_factor=4, mode="bilinear"),
    ]
    parts = [reduce(x) for reduce, x in zip(layer.reduce, resized, strict=True)]
    torch.testing.assert_close(layer(sources), layer.fuse(torch.cat(parts, 1)))


def test_full_scale_fusions_take_decoded_levels():
    """At each level: encoder maps above and at it, decoder maps below it, and the bottleneck."""
    network = networks.create("unet3plus", width=4, levels=4).eval()
    seen = []
    for fusion in network.decoder:
        fusion.register_forward_hook(lambda m, i, y: seen.append((m.level, list(i[0]), y)))
    encoded = []
    for block in network.encoder:
        block.register_forward_hook(lambda m, i, y: encoded.append(y))
    network(torch.randn(1, 1, 32, 32))
    decoded = {level: y for level, _, y in seen}
    assert [level for level, _, _ in seen] == [2, 1, 0]
    for level, sources, _ in seen:
        expected = [*encoded[: level + 1], *(decoded[k] for k in range(level + 1, 3)), encoded[3]]
        assert [id(a) for a in sources] == [id(a) for a in expected]


def test_deep_supervision_adds_one_head_per_deeper_level():
    with torch.device("meta"):
        plain, deep = (parameters(networks.create("unet3plus", deep_supervision=d)) for d in (False, True))
    assert deep - plain == 3 * (320 * 9 + 1) + 1024 * 9 + 1


# --- CE-Net ---


def test_dense_atrous_convolution_equals_the_four_cascades():
    torch.manual_seed(0)
    layer = ce_net.DenseAtrousConv(4)
    for convolution in (*layer.dilated, layer.last):
        nn.init.normal_(convolution.bias)
    one, three, five, last = *layer.dilated, layer.last
    x = torch.randn(2, 4, 12, 12)
    cascades = [one(x), last(three(x)), last(three(one(x))), last(five(three(one(x))))]
    torch.testing.assert_close(layer(x), x + sum(c.clamp_min(0) for c in cascades))


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (2, 2), (1, 1), (3, 8)])
def test_pooling_equals_plain_pools_where_they_fit(size):
    torch.manual_seed(0)
    layer = ce_net.MultiKernelPooling(3)
    x = torch.randn(2, 3, *size)
    out = layer(x)
    assert out.shape == (2, 7, *size)
    torch.testing.assert_close(out[:, 4:], x)
    for i, kernel in enumerate((2, 3, 5, 6)):
        if kernel <= min(size):
            pooled = nn.MaxPool2d(kernel, kernel)(x)
        else:  # cut on each axis that is too short, which takes that axis' maximum
            pooled = nn.MaxPool2d([min(kernel, s) for s in size])(x)
        expected = functional.interpolate(layer.reduce(pooled), size, mode="bilinear")
        torch.testing.assert_close(out[:, i : i + 1], expected)


def test_pooling_of_a_map_that_is_too_small_is_global():
    layer = ce_net.MultiKernelPooling(3)
    x = torch.randn(1, 3, 4, 4)
    expected = layer.reduce(x.amax((2, 3), keepdim=True)).expand(1, 1, 4, 4)
    torch.testing.assert_close(layer(x)[:, 2:3], expected)  # kernels 5 and 6
    torch.testing.assert_close(layer(x)[:, 3:4], expected)


# --- Inf-Net and SINetV2 ---


@pytest.mark.parametrize("neighbor", [False, True])
def test_shallow_features_come_from_the_neighbor_or_from_the_deep_level(neighbor):
    """With the middle level refined to nothing, only the neighbor connection loses the shallow level."""
    torch.manual_seed(0)
    decoder = reverse_attention.PartialDecoder(4, neighbor).eval()
    nn.init.zeros_(decoder.deep_to_middle[0].weight)
    deep, middle, shallow = (torch.randn(1, 4, s, s) for s in (2, 4, 8))
    out, without = decoder(deep, middle, shallow), decoder(deep, middle, torch.zeros_like(shallow))
    assert out.shape == (1, 1, 8, 8)
    assert torch.equal(out, without) == neighbor


def test_reverse_attention_looks_where_the_guide_sees_background():
    torch.manual_seed(0)
    layer = reverse_attention.ReverseAttention(6, 4, 3, depth=2, kernel=3, head_kernel=3).eval()
    edge, guide = torch.randn(1, 3, 16, 16), torch.full((1, 1, 8, 8), 200.0)
    one, other = torch.randn(2, 1, 6, 8, 8)
    torch.testing.assert_close(layer(one, guide, edge), layer(other, guide, edge), rtol=0, atol=0)
    assert not torch.allclose(layer(one, -guide, edge), layer(other, -guide, edge))
    nn.init.zeros_(layer.head[0].weight)
    torch.testing.assert_close(layer(one, guide, edge), guide)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_reversal_puts_the_guide_behind_every_group(groups):
    torch.manual_seed(0)
    step = reverse_attention.GroupReversal(8, groups)
    x, guide, joined = torch.randn(2, 8, 5, 5), torch.randn(2, 1, 5, 5), []
    for channel in range(8):
        joined.append(x[:, channel : channel + 1])
        if (channel + 1) % (8 // groups) == 0:
            joined.append(guide)
    features = x + step.refine(torch.cat(joined, 1)).clamp_min(0)
    out, score = step(x, guide)
    torch.testing.assert_close(out, features)
    torch.testing.assert_close(score, guide + step.score(features))


def test_reverse_stages_refine_by_one_eight_and_all_groups():
    with torch.device("meta"):
        network = networks.create("sinet_v2")
    assert [[step.groups for step in stage.steps] for stage in network.reverse] == [[1, 4, 32]] * 3


# --- MedT ---


def softmaxed_attention(layer, line, length):
    """One line (C, length) of a gated layer in evaluation mode, element by element."""
    heads, depth, half = layer.heads, layer.depth, layer.depth // 2
    gate = {key: float(value) for key, value in layer.gate.items()}
    projected = layer.project_norm(layer.project(line[None]))[0].view(heads, 2 * depth, length)
    scores = torch.zeros(3 * heads, length, length)
    for h in range(heads):
        query, key = projected[h, :half], projected[h, half : 2 * half]
        for i in range(length):
            for j in range(length):
                offset = layer.relative[:, i - j + length - 1]
                scores[h, i, j] = query[:, i] @ key[:, j]
                scores[heads + h, i, j] = gate["query"] * (query[:, i] @ offset[:half])
                # The key's position is seen from the key: its offset to the query.
                scores[2 * heads + h, i, j] = gate["key"] * (
                    key[:, j] @ layer.relative[half : 2 * half, j - i + length - 1]
                )
    scores = layer.score_norm(scores[None])[0]
    out = torch.zeros(2 * heads * depth, length)
    for h in range(heads):
        weights = (scores[h] + scores[heads + h] + scores[2 * heads + h]).softmax(-1)
        value = projected[h, depth:]
        for i in range(length):
            for c in range(depth):
                embedded = torch.stack([layer.relative[depth + c, i - j + length - 1] for j in range(length)])
                out[2 * (h * depth + c), i] = gate["value"] * (weights[i] @ value[c])
                out[2 * (h * depth + c) + 1, i] = gate["position"] * (weights[i] @ embedded)
    return layer.output_norm(out[None])[0].view(-1, 2, length).sum(1)


@pytest.mark.parametrize("axis", [2, 3])
def test_gated_axial_attention_equals_the_written_out_formula(axis):
    torch.manual_seed(0)
    layer = busy(medt.AxialAttention(8, heads=2, axis=axis, span=5))
    for gate in layer.gate.values():
        nn.init.uniform_(gate, 0.5, 1.5)
    x = torch.randn(1, 8, 5, 3) if axis == 2 else torch.randn(1, 8, 3, 5)
    with torch.no_grad():
        lines = x[0].unbind(3 - axis + 1)  # along the other axis: each is (C, length)
        expected = torch.stack([softmaxed_attention(layer, line, 5) for line in lines], dim=3 - axis + 1)
        torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_attention_without_positions_ignores_the_order_of_a_line():
    layer = busy(medt.AxialAttention(8, heads=2, axis=3))
    x, order = torch.randn(2, 8, 4, 6), torch.randperm(6)
    torch.testing.assert_close(layer(x[..., order]), layer(x)[..., order])
    gated = busy(medt.AxialAttention(8, heads=2, axis=3, span=6))
    assert not torch.allclose(gated(x[..., order]), gated(x)[..., order])


def test_position_embeddings_are_interpolated_for_other_lengths():
    layer = medt.AxialAttention(8, heads=2, axis=2, span=8)
    with torch.no_grad():
        layer.relative.copy_(torch.arange(15.0).expand(8, 15))  # the value tells the offset: i - j + 7
    for length in (4, 8, 12):
        (table, *_) = layer._embeddings(length)
        offset = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        torch.testing.assert_close(table[0], 7 + offset * 7 / (length - 1))


@pytest.mark.parametrize(("size", "patch"), [((64, 64), (16, 16)), ((128, 64), (32, 16)), ((48, 80), (12, 20))])
def test_local_branch_equals_a_loop_over_patches(size, patch):
    network = busy(networks.create("medt", width=4, size=64))
    seen = []
    network.locally.stem.register_forward_hook(lambda m, i, y: seen.append(i[0].shape))
    x = torch.randn(1, 1, *size)
    with torch.no_grad():
        whole = network._local(x)
        assert seen == [(16, 1, *patch)]
        for row in range(4):
            for column in range(4):
                window = (
                    ...,
                    slice(row * patch[0], (row + 1) * patch[0]),
                    slice(column * patch[1], (column + 1) * patch[1]),
                )
                torch.testing.assert_close(whole[window], network.locally(x[window]), rtol=1e-4, atol=1e-5)


def test_patches_set_the_stride():
    network = networks.create("medt", width=2, patches=2, size=32).eval()
    assert network.stride == 8
    assert network(torch.zeros(1, 1, 40, 24))["final"].shape == (1, 1, 40, 24)
