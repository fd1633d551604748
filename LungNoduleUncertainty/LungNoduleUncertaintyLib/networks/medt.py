"""Medical Transformer (MedT): gated axial attention on the whole image and axial attention on its patches.

Source: Valanarasu et al., Medical Transformer (MICCAI 2021). It trains from random weights.
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from .blocks import Network, check_size

BLOCKS = (1, 2, 4, 1)  # axial blocks per stage; the global branch has the first two stages only
GATES = {"query": 0.1, "key": 0.1, "position": 0.1, "value": 1.0}  # starting values


class AxialAttention(nn.Module):
    """Multi-head attention along one axis (2: height, 3: width): (B, C, H, W) -> the same, average-pooled by `stride`.

    `span` is the length that the relative position embeddings are made for, 0 leaves them out. Along another length
    they are interpolated linearly, so that any size works. With them, gates weight the query's and the key's positional
    scores, the values and their positional part (G_Q, G_K, G_V1, G_V2 of the paper). Batch norm normalizes each kind of
    score and output before they are summed.

    The released training keeps the gates fixed for ten epochs; here they learn from the first step.
    """

    def __init__(self, channels: int, heads: int, axis: int, span: int = 0, stride: int = 1):
        super().__init__()
        self.channels, self.heads, self.axis, self.span = channels, heads, axis, span
        self.depth = channels // heads  # of the values; queries and keys have half of it
        kinds = 3 if span else 1
        self.project = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.project_norm = nn.BatchNorm1d(2 * channels)
        self.score_norm = nn.BatchNorm2d(heads * kinds)
        self.output_norm = nn.BatchNorm1d(channels * (2 if span else 1))
        nn.init.normal_(self.project.weight, 0.0, channels**-0.5)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        if span:
            self.relative = nn.Parameter(torch.randn(2 * self.depth, 2 * span - 1) * self.depth**-0.5)
            self.gate = nn.ParameterDict({name: nn.Parameter(torch.tensor(value)) for name, value in GATES.items()})

    def _embeddings(self, length: int) -> tuple[torch.Tensor, ...]:
        """Query, key and value embeddings, (depth, length, length), at [c, i, j] that of offset i - j."""
        relative: torch.Tensor = self.relative
        if length != self.span:
            size = 2 * length - 1
            relative = functional.interpolate(relative[None], size, mode="linear", align_corners=True)[0]
        index = torch.arange(length, device=relative.device)
        table = relative[:, index[:, None] - index[None, :] + length - 1]
        return table.split([self.depth // 2, self.depth // 2, self.depth])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lines = x.movedim(self.axis, 3).movedim(1, 2)  # (B, lines, C, length)
        batch, count, _, length = lines.shape
        projected = self.project_norm(self.project(lines.reshape(batch * count, self.channels, length)))
        projected = projected.view(batch * count, self.heads, 2 * self.depth, length)
        query, key, value = projected.split([self.depth // 2, self.depth // 2, self.depth], dim=2)
        scores = torch.einsum("bhci,bhcj->bhij", query, key)
        if self.span:
            for_query, for_key, for_value = self._embeddings(length)
            by_query = self.gate["query"] * torch.einsum("bhci,cij->bhij", query, for_query)
            by_key = self.gate["key"] * torch.einsum("bhcj,cji->bhij", key, for_key)
            scores = torch.cat([scores, by_query, by_key], dim=1)
        scores = self.score_norm(scores).view(batch * count, -1, self.heads, length, length).sum(1)
        weights = scores.softmax(dim=-1)
        out = torch.einsum("bhij,bhcj->bhci", weights, value)
        if self.span:
            position = self.gate["position"] * torch.einsum("bhij,cij->bhci", weights, for_value)
            out = torch.stack([self.gate["value"] * out, position], dim=3)  # (lines, heads, depth, 2, length)
        out = self.output_norm(out.reshape(batch * count, -1, length))
        out = out.view(batch, count, self.channels, -1, length).sum(3)
        return self.pool(out.movedim(2, 1).movedim(3, self.axis))


class AxialBlock(nn.Module):
    """1x1 convolution, attention along height and width, 1x1 convolution, shortcut: C -> 2 * channels, by `stride`."""

    def __init__(self, in_channels: int, channels: int, heads: int, span: int = 0, stride: int = 1):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.height = AxialAttention(channels, heads, 2, span)
        self.width = AxialAttention(channels, heads, 3, span, stride)
        self.up = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != 2 * channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, 2 * channels, 1, stride, bias=False), nn.BatchNorm2d(2 * channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attended = torch.relu(self.width(self.height(torch.relu(self.down(x)))))
        return torch.relu(self.up(attended) + self.shortcut(x))


def _stem(in_channels: int, channels: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b, kernel in ((in_channels, channels, 7), (channels, hidden, 3), (hidden, channels, 3)):
        stride = 2 if kernel == 7 else 1
        layers += [nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class AxialBranch(nn.Module):
    """Stem, `depth` stages of axial blocks and their decoder: (B, in_channels, H, W) -> (B, 2 * width, H, W).

    `span` is half the side that position embeddings are made for, 0 for none. Four stages add a strided convolution at
    the bottom of the decoder.
    """

    def __init__(self, in_channels: int, stem: int, width: int, heads: int, depth: int, span: int = 0):
        super().__init__()
        self.stem = _stem(in_channels, stem, 16 * width)
        outputs = [4 * width * 2**stage for stage in range(depth)]  # channels after each stage
        self.stages = nn.ModuleList()
        before = stem
        for stage, after in enumerate(outputs):
            blocks = []
            for i in range(BLOCKS[stage]):
                stride = 2 if stage and i == 0 else 1
                # Two stages at most have positions: the second one's first block still works at the first one's size.
                blocks.append(AxialBlock(before, after // 2, heads, span // 2 if stage and i else span, stride))
                before = after
            self.stages.append(nn.Sequential(*blocks))
        self.bottom = nn.Conv2d(outputs[-1], outputs[-1], 3, stride=2, padding=1) if depth == len(BLOCKS) else None
        self.decoder = nn.ModuleList(nn.Conv2d(c, c // 2, 3, padding=1) for c in reversed(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, skips = x.shape[2:], []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        if self.bottom is not None:
            x = x + torch.relu(functional.interpolate(self.bottom(x), x.shape[2:], mode="bilinear"))
        skips.pop()
        for convolution in self.decoder[:-1]:
            skip = skips.pop()
            x = skip + torch.relu(functional.interpolate(convolution(x), skip.shape[2:], mode="bilinear"))
        return torch.relu(functional.interpolate(self.decoder[-1](x), size, mode="bilinear"))


class MedT(Network):
    """MedT with one output, `final`: logits (B, 1, H, W).

    The global branch sees the image, the local branch its `patches` x `patches` patches, which follow from the image's
    size (the release cuts 4 x 4 patches of 32 pixels, whatever the size). Position embeddings of the global branch are
    made for images of `size` x `size` and interpolated for others. Size: multiples of 4 x `patches`.

    `width` is the paper's 64 s: 8 for its s = 0.125. It is a multiple of 8, or less than 8. The published network has
    1.560 M parameters with three input channels, because it declares 1x1 convolutions in the local blocks and a local
    head that never run (35,570), and a logit for the background (17).

    The patches of a batch go through the local branch at once, so that in training its batch norm sees all of them; the
    release lets it see one position of the grid after another, which is the same in evaluation and 16 times the calls.
    A batch of one trains.
    """

    PARAMETERS: ClassVar = {1: 1_517_497, 3: 1_524_553}

    def __init__(self, in_channels: int = 1, width: int = 8, patches: int = 4, size: int = 128):
        super().__init__()
        heads = min(8, width)
        if width < 1 or width % heads:
            raise ValueError(f"width must be less than 8 or a multiple of 8, got {width}")
        if patches < 1 or size < 16 or size % 4:
            raise ValueError(f"patches must be at least 1 and size a multiple of 4, got {patches} and {size}")
        self.in_channels, self.patches, self.stride = in_channels, patches, 4 * patches
        self.globally = AxialBranch(in_channels, width, width, heads, depth=2, span=size // 2)
        # The release's local stem has eight times the global one's channels.
        self.locally = AxialBranch(in_channels, 8 * width, width, heads, depth=4)
        self.head = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2 * width, 1, 1)
        )

    def _local(self, x: torch.Tensor) -> torch.Tensor:
        """The local branch's features of all patches, put together again: (B, C, H, W) -> (B, 2 * width, H, W)."""
        grid = x.unflatten(3, (self.patches, -1)).unflatten(2, (self.patches, -1))  # (B, C, rows, h, columns, w)
        features = self.locally(grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        features = features.unflatten(0, (-1, self.patches, self.patches)).permute(0, 3, 1, 4, 2, 5)
        return features.flatten(4, 5).flatten(2, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        check_size(x, self.in_channels, self.stride)
        return {"final": self.head(self.globally(x) + self._local(x))}
