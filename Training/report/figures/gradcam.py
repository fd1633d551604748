"""Grad-CAM of the last convolutions before a segmentation network's `final` output (Selvaraju et al., 2017).

For a layer's feature maps A_c the weight of channel c is the mean over pixels of d target / d A_c, and the map is
ReLU(sum_c weight_c A_c). For segmentation the target is the sum of the logits inside the predicted mask (Vinogradova
et al., 2020). M1 is the last convolution, M2 the one before it, M3 the one before that (UGS-Net, Fig. 9).

Which convolutions: `nn.Conv2d` with a kernel larger than 1x1 whose output `final` depends on, in the order of their
last execution, without the output layer itself. Layers that were executed one after another, on maps of equal size,
and of which none feeds another lie at the same depth: UGS-Net's three branches. They count as one layer with all their
channels, as which of them runs last is an accident of the code.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

#: A layer's name and its output (B, C, H, W).
Layer = tuple[str, "torch.Tensor"]


@dataclass
class Cam:
    """One map: (H, W) float32, at least 0 and scaled so that its maximum is 1 (all 0 if nothing speaks for the mask).

    layers: names of the convolutions that it is of, several where they run side by side. peak: maximum before scaling.
    """

    layers: tuple[str, ...]
    map: np.ndarray = field(repr=False)
    peak: float = 0.0


@contextmanager
def _recorded(network: "nn.Module") -> Iterator[dict[str, "torch.Tensor"]]:
    """Within the block, {name: last output} of every convolution larger than 1x1; hooks and modes go back after it."""
    from torch import nn

    modes = {module: module.training for module in network.modules()}
    outputs: dict[str, torch.Tensor] = {}

    def recorder(name: str) -> Callable[..., "torch.Tensor"]:
        def record(module: "nn.Module", inputs: tuple["torch.Tensor", ...], output: "torch.Tensor") -> "torch.Tensor":
            outputs.pop(name, None)  # a layer that runs again moves to its last place
            outputs[name] = output
            return output.clone()  # so that an in-place activation leaves the recorded tensor alone

        return record

    handles = [
        module.register_forward_hook(recorder(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
    ]
    network.eval()
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def _feeding(outputs: dict[str, "torch.Tensor"], final: "torch.Tensor") -> list[Layer]:
    """(name, output) of the recorded layers that `final` depends on, without the one that is `final`."""
    import torch

    names = [
        name for name, out in outputs.items() if not (out.shape == final.shape and torch.equal(out.detach(), final))
    ]
    if not names:
        return []
    gradients = torch.autograd.grad(final.sum(), [outputs[n] for n in names], allow_unused=True, retain_graph=True)
    return [(name, outputs[name]) for name, g in zip(names, gradients, strict=True) if g is not None]


def _side_by_side(layers: Sequence[Layer], count: int) -> list[list[Layer]]:
    """The last `count` groups, the very last first; a group is layers of equal map size none of which feeds another."""
    import torch

    rest: list[Layer] = list(layers)
    groups: list[list[Layer]] = []
    while rest and len(groups) < count:
        group = [rest.pop()]
        while rest and rest[-1][1].shape[-2:] == group[0][1].shape[-2:]:
            sums = [out.sum() for _, out in group]
            found = torch.autograd.grad(sums, [rest[-1][1]], allow_unused=True, retain_graph=True)
            if found[0] is not None:
                break
            group.append(rest.pop())
        groups.append(group[::-1])
    return groups


def grad_cams(
    network: "nn.Module", image: "torch.Tensor", count: int = 3, threshold: float = 0.5
) -> tuple[np.ndarray, list[Cam]]:
    """(probability of `final` (H, W), [M1, M2, ...]) for one image, a float tensor (1, C, H, W).

    Fewer than `count` maps when the network has fewer such layers; all maps are 0 when nothing is predicted. The
    network comes back as it was: hooks removed, training modes, parameters and their gradients untouched.
    Raises ValueError for another batch size.
    """
    import torch
    from torch.nn import functional

    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"Grad-CAM takes one image (1, C, H, W), got shape {tuple(image.shape)}")
    with torch.enable_grad(), _recorded(network) as outputs:
        # The input asks for gradients so that a network with frozen parameters has a graph too.
        final = network(image.detach().clone().requires_grad_(True))["final"]
        groups = _side_by_side(_feeding(outputs, final), count)
        probability = torch.sigmoid(final.detach())
        mask = probability >= threshold
        target = final[mask].sum() if mask.any() else None
        cams = []
        for group in groups:
            names, maps = tuple(name for name, _ in group), [out for _, out in group]
            if target is None:
                cams.append(Cam(names, np.zeros(tuple(image.shape[2:]), np.float32)))
                continue
            gradients = torch.autograd.grad(target, maps, retain_graph=True)
            pairs = zip(maps, gradients, strict=True)
            weighted = [(g.mean((2, 3), keepdim=True) * a.detach()).sum(1, keepdim=True) for a, g in pairs]
            cam = functional.interpolate(
                reduce(operator.add, weighted).relu(), tuple(image.shape[2:]), mode="bilinear", align_corners=False
            )
            peak = float(cam.max())
            cams.append(Cam(names, (cam / peak if peak > 0 else cam)[0, 0].numpy(force=True), peak))
    return probability[0, 0].numpy(force=True), cams
