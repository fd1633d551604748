"""Contact sheets: pages of cases to look through and decide on, each as image, outline, trimap and soft mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


PICTURE_PIXELS = 128
COLUMNS = 2
_GAP, _LABEL = 8, 18
_PAPER, _INK, _NOTED = (24, 24, 24), (235, 235, 235), (255, 196, 84)
_OUTLINE = (255, 140, 40)


class Tile(NamedTuple):
    """A case on a sheet; arrays (y, x) of one shape."""

    image: np.ndarray
    """[0, 1]"""
    trimap: np.ndarray
    """uint8: 0, 128, 255"""
    alpha: np.ndarray
    """[0, 1]"""
    label: str
    noted: bool = False
    """Whether something was done otherwise than asked: its label is set off in color"""


def contact_sheet(tiles: Sequence[Tile], title: str) -> np.ndarray:
    """A page as uint8 RGB (y, x, 3): per case the image, the image with the outline of alpha >= 0.5, trimap, alpha."""
    from PIL import Image, ImageDraw

    rows = -(-len(tiles) // COLUMNS)
    width, height = 4 * PICTURE_PIXELS + _GAP, PICTURE_PIXELS + _LABEL
    page = Image.new("RGB", (COLUMNS * width + _GAP, rows * height + _LABEL + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP // 2), title, fill=_INK)
    for number, tile in enumerate(tiles):
        left = _GAP + number % COLUMNS * width
        top = _GAP + _LABEL + number // COLUMNS * height
        draw.text((left, top), tile.label, fill=_NOTED if tile.noted else _INK)
        for place, picture in enumerate(pictures(tile)):
            page.paste(Image.fromarray(picture), (left + place * PICTURE_PIXELS, top + _LABEL - 4))
    return np.asarray(page)


def pictures(tile: Tile) -> list[np.ndarray]:
    """The four pictures of a case, uint8 RGB (PICTURE_PIXELS, PICTURE_PIXELS, 3) each."""
    gray = _enlarged(tile.image)
    outlined = gray.copy()
    outlined[outline(_enlarged(tile.alpha)[..., 0] >= 127.5)] = _OUTLINE
    return [gray, outlined, _enlarged(tile.trimap / np.float32(255), smooth=False), _enlarged(tile.alpha)]


def outline(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels with a neighbor outside of it, bool (y, x)."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes a uint8 RGB picture."""
    from PIL import Image

    Image.fromarray(picture).save(path, format="PNG", compress_level=1)


def _enlarged(values: np.ndarray, smooth: bool = True) -> np.ndarray:
    """[0, 1] (y, x) to a gray RGB picture; the longer side fills it."""
    from PIL import Image

    gray = Image.fromarray((np.asarray(values, np.float32) * 255).round().clip(0, 255).astype(np.uint8))
    factor = PICTURE_PIXELS / max(gray.size)
    width, height = (max(1, round(side * factor)) for side in gray.size)
    gray = gray.resize((width, height), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    picture = Image.new("L", (PICTURE_PIXELS, PICTURE_PIXELS))
    picture.paste(gray, (0, 0))
    return np.repeat(np.asarray(picture)[..., None], 3, axis=2)
