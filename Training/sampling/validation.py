"""Validation during training: stacks of axial slices against readers' union, intersection and consensus in 3D."""

import numpy as np
import torch
from torch.nn import functional

from LungNoduleUncertaintyLib.outlining.prediction import view_input

from ..config import Config
from ..data.folder import Nodule
from ..metrics import dice


def cube_input(nodule: Nodule, config: Config, crop: int) -> np.ndarray:
    """Network input (z, channels, crop, crop) of a whole cube, centred on the nodule's consensus centroid."""
    point = nodule.center()
    _, height, width = nodule.hu.shape
    top, left = round(point[1]) - crop // 2, round(point[2]) - crop // 2
    rows = np.clip(top + np.arange(crop), 0, height - 1)
    columns = np.clip(left + np.arange(crop), 0, width - 1)
    hu = nodule.hu[:, rows][:, :, columns].astype(np.float32)
    offset = (np.array([0, top, left]) - point) * nodule.spacing
    return view_input(hu, offset, nodule.spacing, config.input)


def resized(image: torch.Tensor, config: Config) -> torch.Tensor:
    """The input magnified as in training (`data.net_size` over `data.crop`); unchanged when no size is set."""
    if not config.data.net_size:
        return image
    size = image.shape[-1] * config.data.net_size // config.data.crop
    return functional.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def crop_masks(nodule: Nodule, crop: int) -> np.ndarray:
    """Readers' masks (R, z, crop, crop) on the grid of `cube_input`; outside of the cube there is nothing."""
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


@torch.no_grad()
def validate(model, nodules: list[Nodule], config: Config, fabric, threshold: float = 0.5) -> dict[str, float]:
    """Mean 3D Dice over nodules of `final` against the >= 50 % consensus, and of `union` and `intersection`.

    No test-time averaging and no connected component: this ranks checkpoints, it isn't the reported figure.
    `score` is the mean of the three (of `final` alone for a network without uncertainty branches).
    """
    model.eval()
    totals: dict[str, list[float]] = {}
    for nodule in nodules:
        extent = max(
            np.ptp(np.flatnonzero(nodule.readers.any((0, 1, 3)))), np.ptp(np.flatnonzero(nodule.readers.any((0, 1, 2))))
        )
        crop = config.data.crop if extent < config.data.crop - 10 else config.data.large_crop
        image = torch.from_numpy(cube_input(nodule, config, crop)).to(fabric.device)
        with fabric.autocast():
            logits = model(resized(image, config))
        back = {k: functional.interpolate(v.float(), (crop, crop), mode="bilinear") for k, v in logits.items()}
        predicted = {k: (v[:, 0].sigmoid() >= threshold).cpu().numpy() for k, v in back.items()}
        readers = crop_masks(nodule, crop)
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
