"""Augmentation of batches of slices, on tensors, every batch from its own random generator."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from LungNoduleUncertaintyLib.models.network_input import normalize_hu

from ..config import Augmentation, Config, ConfigError
from ..data.folder import MAX_READERS


@dataclass
class Batch:
    """image (B, C, H, W); readers (B, 4, H, W) in [0, 1]; valid (B, 4) bool: which readers exist.

    soft: (B, 1, H, W) in [0, 1], the soft label of `data.soft_label` if there is one.
    """

    image: torch.Tensor
    readers: torch.Tensor
    valid: torch.Tensor
    soft: torch.Tensor | None = None

    def to(self, device):
        soft = None if self.soft is None else self.soft.to(device)
        return Batch(self.image.to(device), self.readers.to(device), self.valid.to(device), soft)


def augment(hu, readers, valid, position, config: Config, size: int, generator) -> Batch:
    """An augmented batch on `size` x `size` pixels, with HU scaled for the network.

    hu (B, S, H, W) in HU, readers (B, 4, H, W) in [0, 1] (with a soft label as a fifth channel, if there is one),
    position (B, 1, H, W); chance comes from `generator` alone.
    """
    options = config.augmentation
    count = len(hu)

    def uniform(low, high, *shape):
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    if options.flip and torch.rand(1, generator=generator) < 0.5:
        hu = hu.flip(1)  # the stack upside down
    if options.quarter_turns:
        turns = int(torch.randint(4, (1,), generator=generator))
        hu, readers, position = (torch.rot90(part, turns, (2, 3)) for part in (hu, readers, position))
    if options.flip and torch.rand(1, generator=generator) < 0.5:
        hu, readers, position = (part.flip(3) for part in (hu, readers, position))
    moves = options.rotate_degrees or options.scale != (1.0, 1.0)
    if moves or size != hu.shape[-1]:
        angle = uniform(-1, 1) * math.radians(options.rotate_degrees)
        if options.rotate_share < 1:
            angle = torch.where(uniform(0, 1) < options.rotate_share, angle, 0.0)
        low, high = (math.log(s) for s in options.scale)
        zoom = uniform(low, high).exp()
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        zeros = torch.zeros(count)
        matrix = torch.stack([torch.stack([cosine, -sine, zeros], -1), torch.stack([sine, cosine, zeros], -1)], 1)
        grid = functional.affine_grid(matrix, (count, 1, size, size), align_corners=False)
        stacked = functional.grid_sample(
            torch.cat([hu, readers, position], 1), grid, padding_mode="border", align_corners=False
        )
        hu, readers, position = stacked.split([hu.shape[1], readers.shape[1], 1], 1)
    if options.blur:
        chosen = uniform(0, 1, 1, 1, 1) < options.blur
        kernel = torch.tensor([0.25, 0.5, 0.25])
        soft = functional.pad(hu, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
        soft = functional.conv2d(soft, torch.outer(kernel, kernel)[None, None]).view_as(hu)
        hu = torch.where(chosen, soft, hu)
    if options.noise_hu:
        level = uniform(0, options.noise_hu, 1, 1, 1)
        hu = hu + level * torch.randn(hu.shape, generator=generator)
    if options.shift_hu:
        hu = hu + uniform(-options.shift_hu, options.shift_hu, 1, 1, 1)
    image = normalize_hu(hu, config.input.window_hu)
    if options.brightness or options.contrast or options.clahe:
        image = _gray_levels(image, options, uniform)
    if config.input.position:
        image = torch.cat([image, position], 1)
    soft = readers[:, MAX_READERS:].contiguous() if readers.shape[1] > MAX_READERS else None
    return Batch(image.contiguous(), readers[:, :MAX_READERS].contiguous(), valid, soft)


def _gray_levels(image, options: Augmentation, uniform):
    """Brightness, contrast and local equalisation of images (B, C, H, W) in [0, 1], each image with its own chance."""
    tone_share, clahe_share, share = options.gray_shares
    chosen = uniform(0, 1, 1, 1, 1) < share
    if options.brightness or options.contrast:
        factor = 1 + uniform(-options.contrast, options.contrast, 1, 1, 1)
        added = uniform(-options.brightness, options.brightness, 1, 1, 1)
        changed = (image * factor + added).clamp(0, 1)
        image = torch.where(chosen & (uniform(0, 1, 1, 1, 1) < tone_share), changed, image)
    if options.clahe:
        limit = uniform(1, options.clahe)
        wanted = chosen.flatten() & (uniform(0, 1) < clahe_share)
        image = image.clone()
        for index in wanted.nonzero().flatten().tolist():
            image[index] = _equalized(image[index], float(limit[index]))
    return image


def _equalized(image, clip_limit: float):
    """Contrast limited adaptive histogram equalisation of the channels (C, H, W) in [0, 1], at 8 bits."""
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("augmentation.clahe wants OpenCV: pip install opencv-python-headless") from error
    tool = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8))
    channels = [tool.apply((channel * 255).round().to(torch.uint8).numpy()) for channel in image]
    return torch.stack([torch.from_numpy(channel) for channel in channels]).to(image.dtype) / 255
