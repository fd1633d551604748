"""The task `super_resolution`: each slice is its own truth; the generator sees it at a quarter of the resolution.

Images are scaled to [0, 1] by `input.window_hu`. Downsampling is bicubic with antialiasing, as DSNet's papers (and
SRGAN's) assume.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from LungNoduleUncertaintyLib.models.network_input import normalize_hu
from LungNoduleUncertaintyLib.networks.srgan import enlarge

from ..config import Config, ConfigError
from ..data.nodule import Nodule
from ..metrics import peak_signal_to_noise_ratio, structural_similarity
from .batch import Batch

SCALE = 4
#: (B, 1, h, w) -> (B, 1, 4h, 4w), in [0, 1].
Enlarger = Callable[[torch.Tensor], torch.Tensor]


def reduced(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) at a quarter of the resolution: bicubic, antialiased, within the image's range [0, 1]."""
    height, width = (n // SCALE for n in image.shape[-2:])
    return functional.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True).clamp(
        0, 1
    )


class SuperResolutionBatches:
    """Random crops of `data.crop` pixels from random slices, flipped and turned: a function of (seed, step, rank)."""

    def __init__(self, nodules: Sequence[Nodule], config: Config, rank: int = 0, world: int = 1):
        crop = config.data.crop
        if crop % SCALE or any(min(n.hu.shape[1:]) < crop for n in nodules):
            raise ConfigError(f"data.crop {crop}: must be a multiple of {SCALE} and no larger than the slices")
        self.nodules, self.config, self.rank, self.world = nodules, config, rank, world
        self.batch, self.crop = config.training.batch, crop
        slices = config.data.slices_per_nodule * len(nodules)
        self.epoch_steps = max(slices // (self.batch * world), 1)

    def __call__(self, step: int) -> Batch:
        """The batch of a global step: `image` is a quarter of the resolution of `soft`."""
        rng = np.random.default_rng([self.config.seed, 2, step, self.rank])
        crops = []
        for index in rng.integers(len(self.nodules), size=self.batch):
            hu = self.nodules[index].hu
            z, y, x = (rng.integers(n - c + 1) for n, c in zip(hu.shape, (1, self.crop, self.crop), strict=True))
            part = np.rot90(hu[z, y : y + self.crop, x : x + self.crop], int(rng.integers(4)))
            crops.append(part[:, ::-1] if rng.integers(2) else part)
        hu = np.stack(crops)[:, None].astype(np.float32)
        target = torch.from_numpy(np.ascontiguousarray(normalize_hu(hu, self.config.input.window_hu)))
        none = torch.zeros(self.batch, 0, *target.shape[-2:]), torch.zeros(self.batch, 0, dtype=torch.bool)
        return Batch(reduced(target), *none, target)


def _central_slice(nodule: Nodule, config: Config) -> torch.Tensor:
    """The middle slice (1, 1, H, W) in [0, 1], cropped to whole multiples of four pixels."""
    hu = nodule.hu[len(nodule.hu) // 2].astype(np.float32)
    height, width = (n - n % SCALE for n in hu.shape)
    return torch.from_numpy(normalize_hu(hu[None, None, :height, :width], config.input.window_hu))


@torch.no_grad()
def enlarged_slices(
    enlarger: Enlarger, nodules: Sequence[Nodule], config: Config, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """What a picture needs: `nodule_id`, and as (N, H, W) float16 in [0, 1] `truth`, `low` (enlarged by repetition),
    `bicubic` and `made`. Slices are cut to the smallest of them.
    """
    out: dict[str, list[np.ndarray]] = {"truth": [], "low": [], "bicubic": [], "made": []}
    size = min(min(_central_slice(n, config).shape[2:]) for n in nodules)
    for nodule in nodules:
        image = _central_slice(nodule, config)[..., :size, :size]
        low = reduced(image)
        made = enlarger(low.to(device)).float().cpu()
        shown = {"truth": image, "low": low.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)}
        for key, value in {**shown, "bicubic": bicubic(low), "made": made}.items():
            out[key].append(value[0, 0].clamp(0, 1).numpy().astype(np.float16))
    return {
        "nodule_id": np.array([n.nodule_id for n in nodules]),
        **{key: np.stack(value) for key, value in out.items()},
    }


@torch.no_grad()
def measure(
    enlarger: Enlarger, nodules: Sequence[Nodule], config: Config, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """PSNR (dB) and SSIM of every nodule's central slice, enlarged by `enlarger`: {psnr, ssim: (nodules,)}.

    Slices are cropped to whole multiples of four pixels.
    """
    found: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for nodule in nodules:
        image = _central_slice(nodule, config)
        made = enlarger(reduced(image).to(device)).clamp(0, 1).float().cpu().numpy()[0, 0]
        truth = image.numpy()[0, 0]
        found["psnr"].append(peak_signal_to_noise_ratio(made, truth))
        found["ssim"].append(structural_similarity(made, truth))
    return {key: np.array(values) for key, values in found.items()}


def bicubic(image: torch.Tensor) -> torch.Tensor:
    """What super-resolution has to beat."""
    return enlarge(image, SCALE)


class SuperResolutionValidator:
    """Ranks checkpoints by PSNR on validation patients; `psnr_gain` is over bicubic interpolation."""

    def __init__(self, nodules: Sequence[Nodule], config: Config):
        self.nodules, self.config = nodules, config
        self.bicubic = float(measure(bicubic, nodules, config)["psnr"].mean()) if nodules else 0.0

    def __call__(self, model: torch.nn.Module, fabric: Fabric) -> dict[str, float]:
        """Mean PSNR and SSIM, the gain over bicubic interpolation, and `score`, which is the PSNR."""
        model.eval()
        found = measure(lambda x: model(x)["image"], self.nodules, self.config, fabric.device)
        psnr, ssim = float(found["psnr"].mean()), float(found["ssim"].mean())
        return {"psnr": psnr, "ssim": ssim, "psnr_gain": psnr - self.bicubic, "score": psnr}
