"""Small image files in public layouts, and the command that makes sets of them."""

import numpy as np
import SimpleITK as sitk

from Training.__main__ import main


def write(path, array, spacing=None, vector=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=vector)
    if spacing:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def disc(height=40, width=40, radius=9, seed=0):
    """A bright disc near the middle: gray values uint8 and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = (y - height / 2 - rng.integers(-4, 5)) ** 2 + (x - width / 2 - rng.integers(-4, 5)) ** 2 < radius**2
    return (np.where(mask, 190, 60) + rng.integers(0, 30, mask.shape)).astype(np.uint8), mask


def prepare(*arguments):
    return main(["prepare-images", *map(str, arguments), "--quiet"])


def write_isbi(folder, count=10, size=64):
    for number in range(count):
        image, mask = disc(size, size, 20, number)
        write(folder / "image" / f"{number}.png", image)
        write(folder / "label" / f"{number}.png", np.where(mask, 0, 255).astype(np.uint8))
    return folder
