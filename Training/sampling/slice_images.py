"""Slice images: one axial slice a nodule, cropped around it and resized to the network's grid, as in the papers.

UGS-Net's papers cut 50 x 50 pixels around the nodule on one slice and resize them to 64 x 64. Pixels aren't resampled
to a common size, so a crop's size in mm follows the scan. The slice is the one with the largest >= 50 % consensus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from LungNoduleUncertaintyLib.measuring.measurements import equivalent_diameter_mm
from LungNoduleUncertaintyLib.models.network_input import normalize_hu, position_channel
from LungNoduleUncertaintyLib.outlining.prediction import to_probability

from ..config import Config, ConfigError, Data
from ..data.nodule import MAX_READERS, Nodule
from ..data.soft_labels import GIVEN, soft_label


@dataclass
class SliceSet:
    """N slices on the network's grid, with what is known about their nodules.

    hu: (N, S, H, W) float32, the slice and its neighbors (`input.slice_offsets`); readers: (N, 4, H, W) float32 of 0
    and 1, the first one is Label_1; valid: (N, 4) bool; spacing_mm: (N, 2), size of a pixel of this grid (row, column);
    position: (N, 1, H, W), see `network_input.position_channel`; diameter_mm: of the nodule's consensus in 3D;
    soft: (N, 1, H, W) float32 in [0, 1], the soft label that `data.soft_label` names; labels: {column: (N,)} of words
    that go with the scores (data set, organ and modality of an image).
    """

    nodule_id: np.ndarray
    patient_id: np.ndarray
    hu: np.ndarray
    readers: np.ndarray
    valid: np.ndarray
    spacing_mm: np.ndarray
    position: np.ndarray
    diameter_mm: np.ndarray
    soft: np.ndarray | None = None
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nodule_id)


class _Slice(NamedTuple):
    """One of a `SliceSet`; given: (H, W), the soft mask that came with it."""

    hu: np.ndarray
    readers: np.ndarray
    valid: np.ndarray
    spacing_mm: np.ndarray
    position: np.ndarray
    diameter_mm: float
    given: np.ndarray | None


def cut_slices(nodules: Sequence[Nodule], config: Config) -> SliceSet:
    """The slices of `nodules` as `data.crop`, `data.fit`, `data.net_size` and `input` say.

    With `data.slices` above 1 a nodule has that many, from `data.empty_margin` slices before it to as many after it.
    `data.fit = "pad"` shows whole images: what the square has beyond an image has the window's lower end (0 of gray
    values) and no mask, and all are resized to net_size (0: the longest side of all), with antialiasing.
    Masks are resized bilinearly and are where that reaches 0.5. (The released code's threshold is 0.65 by mistake,
    which shrinks every mask.) Nodules without any pixel of the first reader on the slice keep an empty Label_1.
    """
    data = config.data
    chosen = [
        (n, z)
        for n in nodules
        for z in ([n.largest_slice()] if data.slices == 1 else n.spread_slices(data.slices, data.empty_margin))
    ]
    longest = max(max(n.hu.shape[1:]) for n in nodules) if data.fit == "pad" else data.crop
    cut = [_cut(nodule, z, data.net_size or longest, config) for nodule, z in chosen]
    labels = [nodule.labels for nodule, _ in chosen]
    return SliceSet(
        np.array([nodule.nodule_id for nodule, _ in chosen]),
        np.array([nodule.patient_id for nodule, _ in chosen]),
        np.stack([one.hu for one in cut]),
        np.stack([one.readers for one in cut]),
        np.stack([one.valid for one in cut]),
        np.stack([one.spacing_mm for one in cut]).astype(np.float32),
        np.stack([one.position for one in cut]),
        np.array([one.diameter_mm for one in cut], np.float32),
        _soft_labels([nodule for nodule, _ in chosen], cut, config),
        {key: np.array([words.get(key, "") for words in labels]) for key in sorted(set().union(*labels))},
    )


def _cut(nodule: Nodule, z: int, size: int, config: Config) -> _Slice:
    """Slice z of a nodule on `size` x `size` pixels."""
    whole = config.data.fit == "pad"
    crop, top, left = _square(nodule, config.data)
    depth, height, width = nodule.hu.shape
    # Beyond the cube the edge is repeated, as at the border of a CT in prediction; masks end there.
    ys, xs = np.arange(top, top + crop), np.arange(left, left + crop)
    inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))
    ys, xs = np.clip(ys, 0, height - 1), np.clip(xs, 0, width - 1)
    around = np.clip(z + np.array(config.input.slice_offsets), 0, depth - 1)
    hu = nodule.hu[np.ix_(around, ys, xs)].astype(np.float32)
    if whole:
        hu = np.where(inside, hu, np.float32(np.min(config.input.window_hu)))
    masks = np.zeros((MAX_READERS, size, size), np.float32)
    drawn = (nodule.readers[:, z][:, ys][:, :, xs] & inside).astype(np.float32)
    masks[: len(drawn)] = _resize(drawn, size, whole) >= 0.5
    given = None
    if nodule.soft is not None:
        given = _resize((nodule.soft[z][np.ix_(ys, xs)] * inside).astype(np.float32)[None], size, whole)[0]
    spacing = nodule.spacing[1:] * crop / size
    offset = (np.array([z, top, left]) - nodule.center()) * nodule.spacing
    # The first pixel of the resized grid lies half of the two pixels' difference from the first of the crop.
    offset[1:] += (spacing - nodule.spacing[1:]) / 2
    near = position_channel((1, size, size), offset, (1.0, *spacing))
    volume = float(nodule.consensus.sum() * np.prod(nodule.spacing))
    # That of a ball, or of a disc where there is one slice only.
    diameter = equivalent_diameter_mm(volume) if depth > 1 else (4 / np.pi * volume / nodule.spacing[0]) ** 0.5
    valid = np.arange(MAX_READERS) < len(nodule.readers)
    return _Slice(_resize(hu, size, whole), masks, valid, spacing, near, diameter, given)


def _square(nodule: Nodule, data: Data) -> tuple[int, int, int]:
    """(side, top, left) of the square to cut, in the image's pixels; parts of it may lie beyond the image."""
    _, height, width = nodule.hu.shape
    if data.fit == "pad":
        side = max(height, width)
        return side, -((side - height) // 2), -((side - width) // 2)
    # With a fixed pixel size the crop is the nearest whole number of the scan's pixels.
    crop = round(data.crop * (data.pixel_mm / nodule.spacing[1] if data.pixel_mm else 1))
    _, row, column = nodule.center()
    return crop, round(row) - crop // 2, round(column) - crop // 2


def _resize(array: np.ndarray, size: int, antialias: bool) -> np.ndarray:
    """Bilinear resizing of (C, h, w) to (C, size, size)."""
    if array.shape[-2:] == (size, size):
        return array
    tensor = torch.from_numpy(array)[None]
    resized = functional.interpolate(tensor, (size, size), mode="bilinear", align_corners=False, antialias=antialias)
    return resized[0].numpy()


def _soft_labels(nodules: list[Nodule], cut: list[_Slice], config: Config) -> np.ndarray | None:
    """(N, 1, H, W) float32, or None without `data.soft_label`."""
    kind, middle = config.data.soft_label, config.input.slice_offsets.index(0)
    if not kind:
        return None
    labels = []
    for nodule, one in zip(nodules, cut, strict=True):
        if kind == GIVEN:
            if one.given is None:
                raise ConfigError(f"data.soft_label given: {nodule.nodule_id} has no soft mask of its own")
            labels.append(one.given)
        else:
            readers, spacing = one.readers[one.valid] > 0, tuple(one.spacing_mm)
            labels.append(soft_label(kind, one.hu[middle], readers, spacing, nodule.matting_window))
    return np.stack(labels)[:, None].astype(np.float32)


def network_input(slices: SliceSet, config: Config) -> torch.Tensor:
    """The network's input (N, C, H, W) of the slices as they are."""
    image = normalize_hu(slices.hu, config.input.window_hu).astype(np.float32)
    if config.input.position:
        image = np.concatenate([image, slices.position], 1)
    return torch.from_numpy(np.ascontiguousarray(image))


@torch.no_grad()
def predict_slices(
    model: torch.nn.Module, slices: SliceSet, config: Config, fabric: Fabric | None = None, batch: int = 32
) -> dict[str, np.ndarray]:
    """Probability maps {output: (N, H, W) float32} of a network in its evaluation mode, without averaging."""
    model.eval()
    image = network_input(slices, config)
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(image), batch):
        part = image[start : start + batch]
        if fabric is None:
            logits = model(part)
        else:
            with fabric.autocast():
                logits = model(part.to(fabric.device))
        for key, value in logits.items():
            parts.setdefault(key, []).append(to_probability(key, value[:, 0].float()).cpu().numpy())
    return {key: np.concatenate(value) for key, value in parts.items()}
