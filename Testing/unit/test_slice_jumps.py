"""A slice that fits neither of its neighbors is told; a sound CT, and what is only large or bright, is not."""

import numpy as np
import pytest

from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import check_ct
from LungNoduleKit.slice_jumps import slice_warnings
from LungNoduleKit.warning_codes import code_of
from test_hounsfield import chest


def told(array):
    return [str(warning) for warning in slice_warnings(array, "scan")]


@pytest.mark.parametrize("noise", [0.0, 20.0, 80.0])
def test_a_chest_is_sound(noise):
    assert told(chest(noise=noise)) == []
    assert told(chest(noise=noise).astype(np.float32)) == []
    assert told(chest(noise=noise)[:6]) == []


@pytest.mark.parametrize("k", [0, 1, 14, 28, 29])
def test_a_slice_of_other_pixels_is_told(k):
    damaged = chest()
    damaged[k] = np.random.default_rng(1).integers(-1024, 3071, damaged[k].shape)
    (warning,) = slice_warnings(damaged, "scan")
    assert f"scan: 1 slice fits neither of the neighbors (number {k + 1} of 30: " in warning
    assert code_of(warning) == "odd-slice"
    grid = Grid((60, 60, 30), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    assert warning in check_ct(grid.image(damaged), "scan")


def test_a_slice_with_shifted_bytes_and_one_that_lost_its_bits_are_told():
    damaged = chest()
    damaged[7] = damaged[7].byteswap()
    damaged[20] = -1024
    assert "2 slices fit neither of the neighbors (number 8, 21 of 30" in told(damaged)[0]


def test_a_volume_that_changes_once_is_sound():
    """As where the patient breathed, or a nodule, a dense bone or metal begins."""
    moved = chest()
    moved[15:] = np.roll(moved[15:], 6, axis=1)
    assert told(moved) == []
    bright = chest()
    bright[12:, 10:30, 10:30] = 3071
    assert told(bright) == []


def test_little_that_is_odd_in_one_slice_is_sound():
    metal = chest()
    metal[15, 30:34, 30:34] = 3071
    assert told(metal) == []
    assert told(np.full((20, 8, 8), -800, np.int16)) == []
    few = chest()[:4]
    few[1] = 3000
    assert told(few) == []
    hollow = chest().astype(float)
    hollow[3, :10] = np.nan
    assert told(hollow) == []
