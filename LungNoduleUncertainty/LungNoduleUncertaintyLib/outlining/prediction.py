"""The network applied to a nodule cube: stacks of slices, flips and views averaged, memory bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..models.bundle import Model
from ..models.network_input import (
    VIEWS,
    Averaging,
    SliceInput,
    neighboring_slices,
    normalize_hu,
    position_channel,
)

if TYPE_CHECKING:
    import torch

Maps: TypeAlias = dict[str, np.ndarray]
Box: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # first and last (exclusive) of (z, y, x)
_BATCH = 16  # slices; at width 64 and 64x64 this stays under 1 GB


def view_input(
    hu: np.ndarray,
    point_offset_mm: Sequence[float] | np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    options: SliceInput,
    first: int = 0,
    last: int | None = None,
) -> np.ndarray:
    """Network input (slices, channels, H, W) of slices `first` to `last` (exclusive) of a cube (z, y, x) of HU.

    `point_offset_mm` (z, y, x) leads from the point to voxel (0, 0, 0). Outside the cube the last slice is repeated.
    """
    last = len(hu) if last is None else last
    slices = neighboring_slices(hu, np.arange(first, last), spacing_mm, options)
    stack = normalize_hu(slices, options.window_hu).astype(np.float32)
    if options.position:
        near = position_channel(hu.shape, point_offset_mm, spacing_mm)[first:last, None]
        stack = np.concatenate([stack, near], axis=1)
    return np.ascontiguousarray(stack)


def to_probability(name: str, logits: torch.Tensor) -> torch.Tensor:
    """The map in [0, 1] behind an output's logits. `soft` is DSNet's soft mask, (tanh z + 1) / 2 = sigmoid(2 z)."""
    import torch

    return torch.sigmoid(2 * logits if name == "soft" else logits)


def _run(
    model: Model, stack: np.ndarray, progress: Callable[[float], None] | None = None, networks: int | None = None
) -> Maps:
    """Probabilities {output: (slices, H, W)} of a stack of slices, averaged over the bundle's (first) networks.

    For a model that has Final alone `final`; where there is a soft mask (DSNet), that is the map. If a network has no
    branches for union and intersection (every single-mask network) and the model has HC and LC nevertheless, `final`
    takes their place: HC, LC and Final then come from one map, by a threshold each.
    """
    import torch

    parts: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for start in range(0, len(stack), _BATCH):
            batch = torch.from_numpy(stack[start : start + _BATCH]).to(model.device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            outputs = [network(batch) for network in model.networks[:networks]]
            for key in outputs[0]:
                each = [to_probability(key, out[key][:, 0].float()) for out in outputs]
                mean = sum(each[1:], each[0]) / len(each)
                parts.setdefault(key, []).append(mean.cpu().numpy())
            if progress:
                progress(min((start + _BATCH) / len(stack), 1.0))
    maps = {key: np.concatenate(value) for key, value in parts.items()}
    final = maps["soft"] if "soft" in maps else maps["final"]
    if not model.outputs.has_interval:
        return {"final": final}
    return {"union": final, "intersection": final, **maps, "final": final}


def run_with_fallback(
    model: Model, stack: np.ndarray, progress: Callable[[float], None] | None = None, networks: int | None = None
) -> Maps:
    """`_run`, on the CPU when the accelerator's memory doesn't suffice; says so in the log. The model stays there."""
    import torch

    try:
        return _run(model, stack, progress, networks)
    except torch.OutOfMemoryError:
        if model.device.type == "cpu":
            raise
        logging.getLogger(__name__).warning("%s: out of memory on %s, going on with the CPU", model.name, model.device)
        torch.cuda.empty_cache()
        model.to(torch.device("cpu"))
        return _run(model, stack, progress, networks)


def predict_cube(
    model: Model,
    hu: np.ndarray,
    point_offset_mm: Sequence[float] | np.ndarray,
    spacing_mm: Sequence[float] | np.ndarray,
    box: Box | None = None,
    averaging: Averaging | None = None,
    progress: Callable[[float], None] | None = None,
    networks: int | None = None,
) -> Maps:
    """Probability maps {output: float32 (z, y, x)} of a nodule cube of HU.

    `box` ((z0, z1), (y0, y1), (x0, x1)) limits the slices of each view that are computed; elsewhere the maps are zero.
    `progress` is called with the share done, 0 to 1, after every batch of slices; it may raise to stop. `networks`:
    only so many of the bundle's (all).
    """
    averaging = averaging or Averaging()
    depth, height, width = hu.shape
    box = box or ((0, depth), (0, height), (0, width))
    spacing_mm, point_offset_mm = np.asarray(spacing_mm, float), np.asarray(point_offset_mm, float)
    total: Maps = {}
    count, passes = 0, len(averaging.views) * len(averaging.flips)

    def within(share: float) -> None:
        if progress:
            progress((count + share) / passes)

    for view in averaging.views:
        axis = VIEWS[view]
        order = [axis, *(a for a in range(3) if a != axis)]
        back = np.argsort(order)
        first, last = box[axis]
        for flip in averaging.flips:
            # A flip of the cube turns its offset round: the first voxel becomes the last one.
            offset = point_offset_mm.copy()
            for a in flip:
                offset[a] = -(point_offset_mm[a] + spacing_mm[a] * (hu.shape[a] - 1))
            flipped = np.flip(hu, flip).transpose(order)
            low, high = (len(flipped) - last, len(flipped) - first) if axis in flip else (first, last)
            stack = view_input(flipped, offset[order], spacing_mm[order], model.metadata.input, low, high)
            for key, value in run_with_fallback(model, stack, within, networks).items():
                whole = np.zeros(flipped.shape, np.float32)
                whole[low:high] = value
                total[key] = total.get(key, 0.0) + np.flip(whole.transpose(back), flip)
            count += 1
    return {key: (value / count).astype(np.float32) for key, value in total.items()}
