"""The undisturbed inputs that are damaged: a soft ball in a piece of lung, small enough to be read in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LUNG_HU, BALL_HU, NOISE_HU, EDGE_MM = -850.0, 30.0, 15.0, 0.6


@dataclass(frozen=True)
class Ball:
    """A piece of lung with a ball in its middle: LPS mm, axes along the patient's."""

    size: tuple[int, int, int]
    """Columns, rows, slices"""
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    diameter_mm: float

    @property
    def matrix(self) -> np.ndarray:
        """Index (column, row, slice) to mm, without the origin."""
        return np.diag(self.spacing)

    @property
    def center(self) -> np.ndarray:
        """The ball's, LPS mm."""
        return np.asarray(self.origin) + np.asarray(self.spacing) * (np.asarray(self.size) - 1) / 2

    def depth(self) -> np.ndarray:
        """How far inside the ball each voxel lies, mm, (slice, row, column)."""
        axes = [s * (np.arange(n) - (n - 1) / 2) for n, s in zip(self.size[::-1], self.spacing[::-1], strict=True)]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        return self.diameter_mm / 2 - np.sqrt(x**2 + y**2 + z**2)

    def hu(self) -> np.ndarray:
        """int16 (slice, row, column)."""
        share = np.clip(self.depth() / EDGE_MM + 0.5, 0, 1)
        noise = np.random.default_rng(7).normal(0, NOISE_HU, share.shape)
        return np.rint(LUNG_HU + share * (BALL_HU - LUNG_HU) + noise).astype(np.int16)


#: What nearly every input is made of.
SMALL = Ball((24, 24, 12), (0.8, 0.8, 1.25), (-60.3, 21.7, -105.0), 9.0)
#: What the shipped model outlines, for one input in a hundred.
LARGE = Ball((72, 72, 40), (0.8, 0.8, 1.25), (-90.3, -11.7, -105.0), 12.0)
#: In place of a nodule cube of a data folder.
CUBE = Ball((20, 20, 10), (0.8, 0.8, 0.8), (10.0, 20.0, 30.0), 6.0)
#: Another series in the same folder: of another size, place and ball.
OTHER = Ball((20, 20, 8), (0.7, 0.7, 2.5), (-60.3, 21.7, -205.0), 12.0)


def readers(ball: Ball, steps: tuple[float, ...] = (-0.6, 0.0, 0.6)) -> np.ndarray:
    """Masks (reader, slice, row, column) of readers who draw the ball smaller or larger by so many mm."""
    depth = ball.depth()
    return np.stack([depth > -step for step in steps]).astype(np.uint8)


def parts(ball: Ball) -> np.ndarray:
    """Masks (part, slice, row, column) of the ball's lower, middle and upper part, which don't overlap."""
    inside, third = ball.depth() > 0, ball.size[2] // 3
    number = np.minimum(np.arange(ball.size[2]) // third, 2)[:, None, None]
    return np.stack([inside & (number == n) for n in range(3)]).astype(np.uint8)
