"""The task `volume`: batches of random slices of every nodule, and what ranks checkpoints of it, in 3D.

Slices are drawn, cropped around a jittered point and augmented, all as a function of (seed, step, rank). Nothing here
keeps state between steps, so a resumed run sees exactly the batches of the uninterrupted one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from LungNoduleUncertaintyLib.models.network_input import neighboring_slices, position_channel, slices_per_pixel
from LungNoduleUncertaintyLib.outlining.prediction import view_input

from ..config import Config
from ..data.nodule import MAX_READERS, Nodule
from ..metrics import dice
from .augmentation import augment
from .batch import Batch, Crops
from .painting import painted_copies

_CLICKED_ANYWHERE = 0.3  # of the slices of painted copies, whose point lies anywhere in the nodule


class VolumeBatches:
    """Cuts augmented training batches out of nodules; `epoch_steps` batches are an epoch."""

    def __init__(self, nodules: Sequence[Nodule], config: Config, rank: int = 0, world: int = 1):
        self.given = len(nodules)  # the nodules behind them are painted copies
        nodules = self.nodules = [*nodules, *painted_copies(nodules, config.painting, config.seed)]
        self.config, self.rank, self.world = config, rank, world
        self.batch, self.seed = config.training.batch, config.seed
        extents = [np.flatnonzero(n.readers.any((0, 2, 3)))[[0, -1]] for n in nodules]
        margin = config.data.empty_margin
        ends = [self._end(n) for n in nodules]
        self.first = np.array([max(e[0] - margin, end) for e, end in zip(extents, ends, strict=True)])
        self.last = np.array(
            [min(e[1] + margin, len(n.hu) - 1 - end) for e, n, end in zip(extents, nodules, ends, strict=True)]
        )
        self.centers = np.stack([n.center() for n in nodules])
        self.share = np.array([config.data.reader_share[len(n.readers) - 2] for n in nodules])
        samples = self.share.sum() * config.data.slices_per_nodule
        self.epoch_steps = max(int(samples) // (self.batch * world), 1)

    def _end(self, nodule: Nodule) -> int:
        """How many slices at a cube's ends aren't drawn, because what they see would give away where the cube ends.

        Among a scan's native slices alone: these cubes end a few mm, not a few slices, beyond the nodule.
        """
        step = slices_per_pixel(nodule.spacing, self.config.input)
        return 0 if step == 1 else int(np.ceil(np.abs(self.config.input.slice_offsets).max() * step - 1e-3))

    def _order(self, epoch: int) -> np.ndarray:
        """Nodule indices of one epoch: every nodule `slices_per_nodule` times (its share of them), shuffled."""
        rng = np.random.default_rng([self.seed, 1, epoch])
        rounds = []
        for _ in range(self.config.data.slices_per_nodule):
            drawn = rng.permutation(len(self.nodules))
            rounds.append(drawn[rng.random(len(drawn)) < self.share[drawn]])
        return np.concatenate(rounds)

    def __call__(self, step: int) -> Batch:
        """The batch of a global step (0, 1, ...)."""
        epoch, within = divmod(step, self.epoch_steps)
        order = self._order(epoch)
        start = (within * self.world + self.rank) * self.batch
        indices = np.take(order, range(start, start + self.batch), mode="wrap")
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        data = self.config.data
        crop = data.large_crop if rng.random() < data.large_crop_share else data.crop
        cut = [self._cut(index, crop, rng) for index in indices]
        crops = Crops(*(torch.from_numpy(np.stack(part)) for part in zip(*cut, strict=True)))
        size = crop * (data.net_size or data.crop) // data.crop
        return augment(crops, self.config, size, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def _cut(self, index: int, crop: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One slice with its neighbors (HU), its readers' masks, which of them exist, and its position channel, cropped
        to crop x crop pixels.
        """
        nodule, options = self.nodules[index], self.config.augmentation
        point = self.centers[index] + rng.normal(0, 1, 3) * options.point_jitter_mm / nodule.spacing
        if index >= self.given and rng.random() < _CLICKED_ANYWHERE:
            inside = np.argwhere(nodule.consensus)
            point = inside[rng.integers(len(inside))].astype(float)
        z = int(rng.integers(self.first[index], self.last[index] + 1))
        _, height, width = nodule.hu.shape
        # Beyond the cube the edge is repeated, as at the border of a CT in prediction.
        rows = np.clip(round(point[1]) - crop // 2 + np.arange(crop), 0, height - 1)
        columns = np.clip(round(point[2]) - crop // 2 + np.arange(crop), 0, width - 1)
        window = nodule.hu[:, rows[:, None], columns]
        hu = neighboring_slices(window, [z], nodule.spacing, self.config.input)[0].astype(np.float32)
        masks = np.zeros((MAX_READERS, crop, crop), np.float32)
        masks[: len(nodule.readers)] = nodule.readers[:, z][:, rows][:, :, columns]
        if self.config.data.first_reader == "random":
            masks[: len(nodule.readers)] = masks[rng.permutation(len(nodule.readers))]
        valid = np.arange(MAX_READERS) < len(nodule.readers)
        top_left = np.array([round(point[1]) - crop // 2, round(point[2]) - crop // 2])
        offset = (np.array([z, *top_left]) - point) * nodule.spacing
        return hu, masks, valid, position_channel((1, crop, crop), offset, nodule.spacing)


class VolumeValidator:
    """Stacks of axial slices against readers' union, intersection and consensus: mean 3D Dice over nodules.

    No test-time averaging and no connected component: this ranks checkpoints, it isn't the reported figure.
    """

    def __init__(self, nodules: Sequence[Nodule], config: Config):
        self.nodules, self.config = nodules, config

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module, fabric: Fabric) -> dict[str, float]:
        """Dice of `final` against the >= 50 % consensus, and of `union` and `intersection`; `score` is the mean of the
        three (of `final` alone for a network without uncertainty branches).
        """
        model.eval()
        totals: dict[str, list[float]] = {}
        for nodule in self.nodules:
            crop = self._crop_of(nodule)
            image = torch.from_numpy(_cube_input(nodule, self.config, crop)).to(fabric.device)
            with fabric.autocast():
                logits = model(self._resized(image))
            back = {k: functional.interpolate(v.float(), (crop, crop), mode="bilinear") for k, v in logits.items()}
            predicted = {k: (v[:, 0].sigmoid() >= 0.5).cpu().numpy() for k, v in back.items()}
            readers = _cropped_readers(nodule, crop)
            wanted = {
                "final": 2 * readers.sum(0) >= len(readers),
                "union": readers.any(0),
                "intersection": readers.all(0),
            }
            for key, mask in wanted.items():
                if key in predicted:
                    totals.setdefault(key, []).append(dice(predicted[key], mask))
        out = {key: float(np.mean(values)) for key, values in totals.items()}
        out["score"] = float(np.mean(list(out.values())))
        return out

    def _crop_of(self, nodule: Nodule) -> int:
        """The crop, or the large one for a nodule that nearly fills it."""
        rows, columns = (np.flatnonzero(nodule.readers.any(axes)) for axes in ((0, 1, 3), (0, 1, 2)))
        extent = max(np.ptp(rows), np.ptp(columns))
        return self.config.data.crop if extent < self.config.data.crop - 10 else self.config.data.large_crop

    def _resized(self, image: torch.Tensor) -> torch.Tensor:
        """The input magnified as in training (`data.net_size` over `data.crop`); unchanged when no size is set."""
        data = self.config.data
        if not data.net_size:
            return image
        size = image.shape[-1] * data.net_size // data.crop
        return functional.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def _cube_input(nodule: Nodule, config: Config, crop: int) -> np.ndarray:
    """Network input (z, channels, crop, crop) of a whole cube, centered on the nodule's consensus centroid."""
    point = nodule.center()
    _, height, width = nodule.hu.shape
    top, left = round(point[1]) - crop // 2, round(point[2]) - crop // 2
    rows = np.clip(top + np.arange(crop), 0, height - 1)
    columns = np.clip(left + np.arange(crop), 0, width - 1)
    hu = nodule.hu[:, rows][:, :, columns].astype(np.float32)
    offset = (np.array([0, top, left]) - point) * nodule.spacing
    return view_input(hu, offset, nodule.spacing, config.input)


def _cropped_readers(nodule: Nodule, crop: int) -> np.ndarray:
    """Readers' masks (R, z, crop, crop) on the grid of `_cube_input`; outside of the cube there is nothing."""
    point = nodule.center()
    out = np.zeros((len(nodule.readers), len(nodule.hu), crop, crop), bool)
    source, target = [], []
    for axis in (1, 2):
        start, size = round(point[axis]) - crop // 2, nodule.hu.shape[axis]
        low, high = max(start, 0), min(start + crop, size)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    out[:, :, target[0], target[1]] = nodule.readers[:, :, source[0], source[1]]
    return out
