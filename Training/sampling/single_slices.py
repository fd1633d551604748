"""The papers' protocol: one axial slice a nodule, cropped around it and resized to the network's grid.

UGS-Net's papers cut 50 x 50 pixels around the nodule on one slice and resize them to 64 x 64. Pixels aren't resampled
to a common size, so a crop's size in mm follows the scan. The slice is the one with the largest >= 50 % consensus.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from LungNoduleUncertaintyLib.measuring.measurements import equivalent_diameter_mm
from LungNoduleUncertaintyLib.models.network_input import normalize_hu, position_channel
from LungNoduleUncertaintyLib.outlining.prediction import to_probability

from ..config import Config, ConfigError, Data
from ..data.folder import MAX_READERS, Nodule
from ..data.soft_labels import GIVEN, soft_label
from ..metrics import dice
from .augmentation import Batch, augment
from .sizes import checked_sizes, own_resolution, resized, size_of_step


@dataclass
class SliceSet:
    """N slices on the network's grid, with what is known about their nodules.

    hu: (N, S, H, W) float32, the slice and its neighbours (`input.slice_offsets`); readers: (N, 4, H, W) float32 of 0
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
    labels: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.nodule_id)


def largest_slice(nodule: Nodule) -> int:
    """Index along z of the slice with the largest area of the >= 50 % consensus."""
    return int(nodule.consensus.sum((1, 2)).argmax())


def spread_slices(nodule: Nodule, count: int, margin: int) -> list[int]:
    """`count` slices along z, evenly spread from `margin` slices before the readers' union to as many after it."""
    inside = np.flatnonzero(nodule.readers.any((0, 2, 3)))
    low, high = max(inside[0] - margin, 0), min(inside[-1] + margin, len(nodule.hu) - 1)
    return sorted({round(z) for z in np.linspace(low, high, count)})


def _resize(array: np.ndarray, size: int, antialias: bool = False) -> np.ndarray:
    """Bilinear resizing of (C, h, w) to (C, size, size)."""
    if array.shape[-2:] == (size, size):
        return array
    tensor = torch.from_numpy(array)[None]
    options = {"mode": "bilinear", "align_corners": False, "antialias": antialias}
    return functional.interpolate(tensor, (size, size), **options)[0].numpy()


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


def _soft_labels(nodules: list[Nodule], given: list, config: Config, hu, readers, valid, spacing) -> np.ndarray | None:
    """(N, 1, H, W) float32, or None without `data.soft_label`."""
    kind, middle = config.data.soft_label, config.input.slice_offsets.index(0)
    if not kind:
        return None
    if kind == GIVEN:
        missing = [n.nodule_id for n, own in zip(nodules, given, strict=True) if own is None]
        if missing:
            raise ConfigError(f"data.soft_label given: {missing[0]} has no soft mask of its own")
        return np.stack(given)[:, None].astype(np.float32)
    made = [
        soft_label(kind, h[middle], r[v] > 0, tuple(s), n.matting_window)
        for n, h, r, v, s in zip(nodules, hu, readers, valid, spacing, strict=True)
    ]
    return np.stack(made)[:, None].astype(np.float32)


def cut_slices(nodules: list[Nodule], config: Config) -> SliceSet:
    """The slices of `nodules` as `data.crop`, `data.fit`, `data.net_size` and `input` ask for.

    With `data.slices` above 1 a nodule has that many, from `data.empty_margin` slices before it to as many after it.
    `data.fit = "pad"` shows whole images: what the square has beyond an image has the window's lower end (0 of gray
    values) and no mask, and all are resized to net_size (0: the longest side of all), with antialiasing.
    Masks are resized bilinearly and cut at 0.5. (The released code cuts at 0.65 by mistake, which shrinks every mask.)
    Nodules without any pixel of the first reader on the slice keep an empty Label_1.
    """
    whole, count = config.data.fit == "pad", config.data.slices
    chosen = [
        (n, z)
        for n in nodules
        for z in ([largest_slice(n)] if count == 1 else spread_slices(n, count, config.data.empty_margin))
    ]
    size = config.data.net_size or (max(max(n.hu.shape[1:]) for n in nodules) if whole else config.data.crop)
    rows, given = [], []
    for nodule, z in chosen:
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
        hu = _resize(hu, size, whole)
        masks = np.zeros((MAX_READERS, size, size), np.float32)
        drawn = (nodule.readers[:, z][:, ys][:, :, xs] & inside).astype(np.float32)
        masks[: len(drawn)] = _resize(drawn, size, whole) >= 0.5
        own = None if nodule.soft is None else (nodule.soft[z][np.ix_(ys, xs)] * inside).astype(np.float32)
        given.append(None if own is None else _resize(own[None], size, whole)[0])
        spacing = nodule.spacing[1:] * crop / size
        offset = (np.array([z, top, left]) - nodule.center()) * nodule.spacing
        # The first pixel of the resized grid lies half of the two pixels' difference from the first of the crop.
        offset[1:] += (spacing - nodule.spacing[1:]) / 2
        near = position_channel((1, size, size), offset, (1.0, *spacing))
        volume = nodule.consensus.sum() * np.prod(nodule.spacing)
        # That of a ball, or of a disc where there is one slice only.
        diameter = equivalent_diameter_mm(volume) if depth > 1 else (4 / np.pi * volume / nodule.spacing[0]) ** 0.5
        rows.append((hu, masks, np.arange(MAX_READERS) < len(nodule.readers), spacing, near, diameter))
    hu, readers, valid, spacing, near, diameter = (np.stack(part) for part in zip(*rows, strict=True))
    nodules = [nodule for nodule, _ in chosen]
    labels = [n.labels for n in nodules]
    return SliceSet(
        np.array([n.nodule_id for n in nodules]),
        np.array([n.patient_id for n in nodules]),
        hu,
        readers,
        valid,
        spacing.astype(np.float32),
        near,
        diameter.astype(np.float32),
        _soft_labels(nodules, given, config, hu, readers, valid, spacing),
        {key: np.array([words.get(key, "") for words in labels]) for key in sorted(set().union(*labels))},
    )


def fingerprint(nodules: list[Nodule]) -> str:
    """SHA-256 over ids, HU and masks (and own soft masks): what a result depends on."""
    digest = hashlib.sha256()
    for nodule in sorted(nodules, key=lambda n: n.nodule_id):
        digest.update(f"{nodule.nodule_id}/{nodule.patient_id}/{nodule.fold}".encode())
        digest.update(np.ascontiguousarray(nodule.hu).tobytes())
        digest.update(np.packbits(nodule.readers).tobytes())
        if nodule.soft is not None:
            digest.update(nodule.soft.tobytes())
    return digest.hexdigest()


class SliceBatches:
    """Training batches of the slice protocol, a function of (seed, step, rank); an epoch visits every slice once.

    With `training.sizes` crops are cut at the scan's own pixels, augmented, and resized to the size of their step.
    """

    def __init__(self, nodules: list[Nodule], config: Config, rank: int = 0, world: int = 1):
        options = config.augmentation
        if options.point_jitter_mm:
            raise ConfigError("the slice protocol cuts its crops once: augmentation.point_jitter_mm must be 0")
        self.config, self.rank, self.world = config, rank, world
        self.batch, self.seed = config.training.batch, config.seed
        self.sizes, self.gray = checked_sizes(config), config.training.sizes_gray
        self.slices = cut_slices(nodules, own_resolution(config) if self.sizes else config)
        self.epoch_steps = max(len(self.slices) // (self.batch * world), 1)

    def __call__(self, step: int) -> Batch:
        epoch, within = divmod(step, self.epoch_steps)
        order = np.arange(len(self.slices))
        if self.config.data.shuffle:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(order)
        start = (within * self.world + self.rank) * self.batch
        chosen = np.take(order, range(start, start + self.batch), mode="wrap")
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        readers, valid = self.slices.readers[chosen], self.slices.valid[chosen]
        if self.config.data.first_reader == "random":
            readers = np.stack([self._another_first(m, int(v.sum()), rng) for m, v in zip(readers, valid, strict=True)])
        if self.slices.soft is not None:
            readers = np.concatenate([readers, self.slices.soft[chosen]], 1)
        batch = augment(
            torch.from_numpy(self.slices.hu[chosen]),
            torch.from_numpy(readers),
            torch.from_numpy(valid),
            torch.from_numpy(self.slices.position[chosen]),
            self.config,
            self.slices.hu.shape[-1],
            torch.Generator().manual_seed(int(rng.integers(2**62))),
        )
        return resized(batch, size_of_step(self.sizes, self.seed, step), self.gray) if self.sizes else batch

    @staticmethod
    def _another_first(masks, count, rng):
        """The valid readers in another order: which one is Label_1 is drawn anew (the later paper's wording)."""
        order = np.arange(len(masks))
        order[:count] = rng.permutation(count)
        return masks[order]


def network_input(slices: SliceSet, config: Config) -> torch.Tensor:
    """The network's input (N, C, H, W) of the slices as they are."""
    image = normalize_hu(slices.hu, config.input.window_hu).astype(np.float32)
    if config.input.position:
        image = np.concatenate([image, slices.position], 1)
    return torch.from_numpy(np.ascontiguousarray(image))


@torch.no_grad()
def predict_slices(model, slices: SliceSet, config: Config, fabric=None, batch: int = 32) -> dict[str, np.ndarray]:
    """Probability maps {output: (N, H, W) float32} of a network in its evaluation mode, without averaging."""
    model.eval()
    image, parts = network_input(slices, config), {}
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


class SliceValidator:
    """Ranks checkpoints by the mean Dice of `final` against Label_1, the same for every network of a table.

    With `data.reference = "consensus"` it is that against what at least half of the readers include (DSNet's papers).
    """

    def __init__(self, nodules: list[Nodule], config: Config):
        self.slices, self.config = (cut_slices(nodules, config) if nodules else None), config

    def __call__(self, model, fabric) -> dict[str, float]:
        maps = predict_slices(model, self.slices, self.config, fabric)
        readers, valid = self.slices.readers > 0, self.slices.valid
        wanted = {"final": readers[:, 0]}
        if self.config.data.reference == "consensus":
            wanted["final"] = 2 * readers.sum(1) >= valid.sum(1)[:, None, None]
        wanted["union"] = readers.any(1)
        wanted["intersection"] = (readers | ~valid[:, :, None, None]).all(1)
        figures = {
            key: float(np.mean([dice(p >= 0.5, t) for p, t in zip(maps[key], target, strict=True)]))
            for key, target in wanted.items()
            if key in maps
        }
        return {**figures, "score": figures["final"]}
