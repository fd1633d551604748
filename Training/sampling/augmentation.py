"""Augmentation of batches of slices, on tensors, every batch from its own random generator."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from LungNoduleUncertaintyLib.models.network_input import normalize_hu

from ..config import Augmentation, Config, ConfigError
from .batch import Batch, Crops

#: uniform(low, high, *shape): a random number an image, (B, *shape).
Uniform = Callable[..., torch.Tensor]


def augment(crops: Crops, config: Config, size: int, generator: torch.Generator) -> Batch:
    """An augmented batch on `size` x `size` pixels, with HU scaled for the network; chance is `generator`'s alone."""
    options, count = config.augmentation, len(crops.hu)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    # What lies on the same pixels moves together: HU, readers, position and soft label.
    parts = [crops.hu, crops.readers, crops.position, *([] if crops.soft is None else [crops.soft])]
    parts = _turned(parts, options, generator)
    if options.rotate_degrees or options.scale != (1.0, 1.0) or size != crops.hu.shape[-1]:
        parts = _resampled(parts, options, size, uniform)
    hu, readers, position, *soft = parts
    hu = _disturbed(hu, options, uniform, generator)
    image = normalize_hu(hu, config.input.window_hu)
    if options.brightness or options.contrast or options.clahe:
        image = _gray_levels(image, options, uniform)
    if config.input.position:
        image = torch.cat([image, position], 1)
    return Batch(image.contiguous(), readers.contiguous(), crops.valid, soft[0].contiguous() if soft else None)


def _turned(parts: list[torch.Tensor], options: Augmentation, generator: torch.Generator) -> list[torch.Tensor]:
    """Flips and quarter turns, the same for all images of the batch; the first part holds stacks of slices."""
    if options.flip and torch.rand(1, generator=generator) < 0.5:
        parts = [parts[0].flip(1), *parts[1:]]  # the stack upside down
    if options.quarter_turns:
        turns = int(torch.randint(4, (1,), generator=generator))
        parts = [torch.rot90(part, turns, (2, 3)) for part in parts]
    if options.flip and torch.rand(1, generator=generator) < 0.5:
        parts = [part.flip(3) for part in parts]
    return parts


def _resampled(parts: list[torch.Tensor], options: Augmentation, size: int, uniform: Uniform) -> list[torch.Tensor]:
    """Rotation, scale and resizing in one interpolation, each image by its own chance."""
    angle = uniform(-1, 1) * math.radians(options.rotate_degrees)
    if options.rotate_share < 1:
        angle = torch.where(uniform(0, 1) < options.rotate_share, angle, 0.0)
    low, high = (math.log(s) for s in options.scale)
    zoom = uniform(low, high).exp()
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    zeros = torch.zeros(len(angle))
    matrix = torch.stack([torch.stack([cosine, -sine, zeros], -1), torch.stack([sine, cosine, zeros], -1)], 1)
    grid = functional.affine_grid(matrix, [len(angle), 1, size, size], align_corners=False)
    stacked = functional.grid_sample(torch.cat(parts, 1), grid, padding_mode="border", align_corners=False)
    return list(stacked.split([part.shape[1] for part in parts], 1))


def _disturbed(hu: torch.Tensor, options: Augmentation, uniform: Uniform, generator: torch.Generator) -> torch.Tensor:
    """Blur, noise and a shift of the HU, as scanners differ in them."""
    if options.blur:
        chosen = uniform(0, 1, 1, 1, 1) < options.blur
        kernel = torch.tensor([0.25, 0.5, 0.25])
        blurred = functional.pad(hu, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
        blurred = functional.conv2d(blurred, torch.outer(kernel, kernel)[None, None]).view_as(hu)
        hu = torch.where(chosen, blurred, hu)
    if options.noise_hu:
        level = uniform(0, options.noise_hu, 1, 1, 1)
        hu = hu + level * torch.randn(hu.shape, generator=generator)
    if options.shift_hu:
        hu = hu + uniform(-options.shift_hu, options.shift_hu, 1, 1, 1)
    return hu


def _gray_levels(image: torch.Tensor, options: Augmentation, uniform: Uniform) -> torch.Tensor:
    """Brightness, contrast and local equalization of images (B, C, H, W) in [0, 1], each image with its own chance."""
    tone_share, clahe_share, share = options.gray_shares
    chosen = uniform(0, 1, 1, 1, 1) < share
    if options.brightness or options.contrast:
        factor = 1 + uniform(-options.contrast, options.contrast, 1, 1, 1)
        added = uniform(-options.brightness, options.brightness, 1, 1, 1)
        altered = (image * factor + added).clamp(0, 1)
        image = torch.where(chosen & (uniform(0, 1, 1, 1, 1) < tone_share), altered, image)
    if options.clahe:
        limit = uniform(1, options.clahe)
        wanted = chosen.flatten() & (uniform(0, 1) < clahe_share)
        image = image.clone()
        for index in wanted.nonzero().flatten().tolist():
            image[index] = _equalized(image[index], float(limit[index]))
    return image


def _equalized(image: torch.Tensor, clip_limit: float) -> torch.Tensor:
    """Contrast limited adaptive histogram equalization of the channels (C, H, W) in [0, 1], at 8 bits."""
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("augmentation.clahe needs OpenCV: pip install opencv-python-headless") from error
    tool = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8))
    channels = [tool.apply((channel * 255).round().to(torch.uint8).numpy()) for channel in image]
    return torch.stack([torch.from_numpy(channel) for channel in channels]).to(image.dtype) / 255
