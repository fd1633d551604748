"""A model or an ensemble applied to nodules as a user would apply it: from the CT around a nodule and a point in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
import torch

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.models.bundle import Model

from ..data.nodule import Nodule
from ..metrics import dice
from .score import Score, compare

JITTER_MM = 1.5  # moved points lie within this distance of the nodule's center along each axis


def nodule_image(nodule: Nodule) -> sitk.Image:
    """The nodule cube as an image at the origin: where it lies in the scan doesn't matter here."""
    image = sitk.GetImageFromArray(nodule.hu)
    image.SetSpacing(tuple(float(v) for v in nodule.spacing[::-1]))
    return image


def center_point(nodule: Nodule) -> tuple[float, float, float]:
    """The consensus centroid in LPS mm of the nodule's image."""
    x, y, z = (nodule.center() * nodule.spacing)[::-1]
    return float(x), float(y), float(z)


def on_cube(mask: np.ndarray, region: Grid, nodule: Nodule) -> np.ndarray:
    """A mask (z, y, x) on `region`, a part of the nodule cube's grid, as bool on the whole cube."""
    out = np.zeros(nodule.hu.shape, bool)
    start = np.round(np.array(region.origin)[::-1] / nodule.spacing).astype(int)
    out[tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))] = mask > 0
    return out


class _Remembering(torch.nn.Module):
    """A network that remembers its outputs: points that lie close together mostly end in the same nodule cube."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network
        self.known: dict[bytes, dict[str, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        key = hashlib.sha256(x.cpu().numpy().tobytes()).digest()
        if key not in self.known:
            self.known[key] = self.network(x)
        return self.known[key]


def _remembering(model: Model) -> Model:
    return Model([_Remembering(n) for n in model.networks], model.metadata, model.device, model.folder)


def _masks(nodule: Nodule, point: Sequence[float], model: Model) -> list[np.ndarray | None]:
    """HC, LC and Final (z, y, x) on the nodule cube, None where the model has none. Raises NoduleError."""
    result = segment_nodule(nodule_image(nodule), tuple(point), model=model)
    region = Grid.of(result.final)
    return [
        None if image is None else on_cube(sitk.GetArrayFromImage(image), region, nodule)
        for image in (result.hc, result.lc, result.final)
    ]


def _final(nodule: Nodule, point: Sequence[float], model: Model) -> np.ndarray | None:
    """Final (z, y, x) on the nodule cube; None where the model finds no nodule."""
    try:
        return _masks(nodule, point, model)[2]
    except NoduleError:
        return None


def evaluate_nodule(nodule: Nodule, model: Model, jitter: int = 0, seed: int = 0) -> Score:
    """Score of the masks that a model has for the nodule at its consensus centroid; empty ones where it finds none.

    jitter: so many more points, uniform within `JITTER_MM` of the centroid along each axis; the score's `jitter` is the
    mean Dice of their Final masks with each other.
    """
    model = _remembering(model) if jitter else model
    center, nothing = center_point(nodule), np.zeros(nodule.hu.shape, bool)
    try:
        hc, lc, final = _masks(nodule, center, model)
        score = compare(nodule, hc, lc, nothing if final is None else final)
    except NoduleError as error:
        missing = nothing if model.outputs.has_interval else None
        score = compare(nodule, missing, missing, nothing)
        score.error = str(error)
    if jitter:
        # The nodule has random numbers of its own: its figure doesn't depend on the other nodules of the evaluation.
        rng = np.random.default_rng([seed, *nodule.nodule_id.encode()])
        points = np.array(center) + rng.uniform(-JITTER_MM, JITTER_MM, (jitter, 3))
        found = [_final(nodule, point, model) for point in points]
        finals = [nothing if final is None else final for final in found]
        pairs = [dice(a, b) if a.any() or b.any() else 0.0 for i, a in enumerate(finals) for b in finals[i + 1 :]]
        score.jitter = float(np.mean(pairs))
    return score


def evaluate_ensemble(nodule: Nodule, models: Sequence[Model]) -> Score:
    """Score of an ensemble: HC, Final and the union are what all, at least half and any of the Final masks include.

    A member that finds nothing has an empty mask; `error` counts them.
    """
    found = [_final(nodule, center_point(nodule), model) for model in models]
    silent = sum(final is None for final in found)
    finals = np.stack([np.zeros(nodule.hu.shape, bool) if final is None else final for final in found])
    hc, union = np.logical_and.reduce(finals), np.logical_or.reduce(finals)
    score = compare(nodule, hc, union & ~hc, 2 * finals.sum(0) >= len(finals), finals)
    score.error = f"{silent} of {len(models)} members find nothing" if silent else ""
    return score
