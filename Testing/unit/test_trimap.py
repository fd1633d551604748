"""Trimaps from one mask, several readers and RECIST marks."""

import sys

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from SoftMaskLabelerLib import (
    SoftMaskError,
    mask_from_recist,
    trimap_from_mask,
    trimap_from_readers,
    trimap_from_recist,
)
from SoftMaskLabelerLib.errors import ImageError, MaskError, RecistError
from SoftMaskLabelerLib.trimap.morphology import dilate, erode


def disc(shape, center, radius):
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)) <= radius**2


def blob(seed=0, shape=(48, 52)):
    """An irregular mask that doesn't touch the edges."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(6):
        mask |= disc(shape, rng.uniform(18, 30, len(shape)), rng.uniform(2, 7))
    return mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.7), (2.5, 0.6)])
@pytest.mark.parametrize("radius", [0.3, 1.0, 2.9, 6.4])
def test_dilation_and_erosion_agree_with_distance_maps(spacing, radius):
    mask = blob()
    assert (dilate(mask, radius, spacing) == (distance_transform_edt(~mask, spacing) <= radius + 1e-9)).all()
    assert (erode(mask, radius, spacing) == (distance_transform_edt(mask, spacing) > radius + 1e-9)).all()


def test_3d_dilation_agrees_with_distance_maps():
    mask, spacing = disc((12, 30, 31), (5, 14, 15), 4), (2.5, 0.8, 0.7)
    for radius in (0.9, 3.0, 40.0):
        assert (dilate(mask, radius, spacing) == (distance_transform_edt(~mask, spacing) <= radius + 1e-9)).all()


def test_default_band_is_a_tenth_of_the_diameter_to_either_side():
    mask = disc((96, 96), (48, 48), 31)
    trimap = trimap_from_mask(mask)
    assert trimap.dtype == np.uint8
    assert set(np.unique(trimap)) == {0, 128, 255}
    row = trimap[48]
    assert np.flatnonzero(row == 255)[[0, -1]].tolist() == [24, 72]
    assert np.flatnonzero(row)[[0, -1]].tolist() == [11, 85]
    # A nodule of a few pixels still gets a band of one pixel.
    small = trimap_from_mask(disc((16, 16), (8, 8), 2))
    assert np.flatnonzero(small[8]).tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert np.flatnonzero(small[8] == 255).tolist() == [7, 8, 9]


def test_radii_are_millimeters():
    mask = blob()
    assert (
        trimap_from_mask(mask, (0.5, 0.5), erode_mm=1.0, dilate_mm=2.0)
        == trimap_from_mask(mask, erode_mm=2.0, dilate_mm=4.0)
    ).all()
    assert (trimap_from_mask(mask, (0.5, 0.5)) == trimap_from_mask(mask, (3.0, 3.0))).all()
    # Three times 0.1 isn't 0.3 in floating point; the third pixel is reached all the same.
    line = trimap_from_mask(disc((1, 21), (0, 10), 0), (0.1, 0.1), dilate_mm=0.3, erode_mm=0.0)
    assert np.flatnonzero(line[0]).tolist() == list(range(7, 14))


@pytest.mark.parametrize("dimension", [2, 3])
def test_wider_radii_give_bands_that_contain_the_narrower(dimension):
    mask = blob(3, (20, 40, 40)) if dimension == 3 else blob(3)
    before = None
    for radius in (0.5, 1.0, 1.5, 3.0, 5.0, 50.0):
        unknown = trimap_from_mask(mask, erode_mm=radius, dilate_mm=radius, dimension=dimension) == 128
        if before is not None:
            assert not (before & ~unknown).any()
        before = unknown


def test_the_lesion_never_vanishes():
    notes = []
    trimap = trimap_from_mask(disc((32, 32), (16, 16), 5), erode_mm=30, dilate_mm=1, notes=notes)
    assert trimap[16, 16] == 255
    assert (trimap == 255).sum() < 5
    assert "deepest" in notes[0]
    single = np.zeros((9, 9), bool)
    single[4, 4] = True
    assert trimap_from_mask(single)[4, 4] == 255


@pytest.mark.parametrize("move", [np.flipud, np.fliplr, np.transpose, np.rot90])
def test_trimaps_turn_with_the_mask(move):
    mask = blob(1)
    assert (trimap_from_mask(move(mask)) == move(trimap_from_mask(mask))).all()


def test_a_mask_at_the_edge_of_the_image():
    mask = np.zeros((20, 20), bool)
    mask[:6, :8] = True
    trimap = trimap_from_mask(mask, erode_mm=2, dilate_mm=2)
    # What lies beyond the image isn't background: the corner stays lesion.
    assert trimap[0, 0] == 255
    assert (trimap[:, 10:] == 0).all()


def test_stacks_are_treated_slice_by_slice():
    stack = np.stack([np.zeros((40, 40), bool), disc((40, 40), (20, 20), 10), disc((40, 40), (20, 20), 3)])
    trimap = trimap_from_mask(stack, (5.0, 0.7, 0.7))
    for slice_, part in zip(stack[1:], trimap[1:], strict=True):
        assert (part == trimap_from_mask(slice_, (0.7, 0.7))).all()
    assert not trimap[0].any()
    volume = trimap_from_mask(disc((30, 30, 30), (15, 15, 15), 8), dimension=3, erode_mm=2, dilate_mm=3)
    assert volume[4, 15, 15] == 128
    assert volume[3, 15, 15] == 0


def test_readers_intersection_and_union():
    masks = np.stack([disc((40, 40), (20, 18 + k), 8) for k in range(4)])
    notes = []
    trimap = trimap_from_readers(masks, notes=notes)
    assert ((trimap == 255) == masks.all(axis=0)).all()
    assert ((trimap == 0) == ~masks.any(axis=0)).all()
    assert notes == []
    wider = trimap_from_readers(masks, erode_mm=1, dilate_mm=1)
    assert ((trimap == 128) & (wider != 128)).sum() == 0
    assert (wider == 128).sum() > (trimap == 128).sum()


def test_readers_without_a_common_pixel_fall_back_to_the_consensus():
    masks = np.stack([disc((40, 40), (20, c), 6) for c in (14, 15, 16, 34)])
    notes = []
    trimap = trimap_from_readers(masks, notes=notes)
    half = masks.sum(axis=0) >= 2
    assert len(notes) == 1
    assert "half" in notes[0]
    lesion = trimap == 255
    assert lesion.any()
    assert not (lesion & ~half).any()
    assert lesion.sum() < half.sum()
    assert ((trimap == 0) == ~masks.any(axis=0)).all()


def test_readers_stack_end_slices():
    one, all_ = np.zeros((4, 32, 32), bool), np.stack([disc((32, 32), (16, 16), r) for r in (4, 5, 5, 6)])
    one[0] = disc((32, 32), (16, 16), 3)
    notes = []
    trimap = trimap_from_readers(np.stack([one, all_], axis=1), notes=notes)
    assert (trimap[0][one[0]] == 128).all()
    assert (trimap[1] == 255).any()
    assert len(notes) == 1
    assert notes[0].startswith("slice 0")


@pytest.mark.parametrize(
    "masks",
    [
        [],
        np.zeros((3, 8, 8)),
        [np.ones((8, 8)), np.ones((8, 9))],
        np.stack([disc((40, 40), (20, c), 2) for c in (6, 16, 26)]),
    ],
)
def test_unusable_readers(masks):
    with pytest.raises(MaskError):
        trimap_from_readers(masks)


def test_unusable_masks():
    for bad in (np.zeros((8, 8)), np.ones(5), np.array([["a"]])):
        with pytest.raises(SoftMaskError):
            trimap_from_mask(bad)
    with pytest.raises(MaskError, match="spacing"):
        trimap_from_mask(blob(), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="dimension"):
        trimap_from_mask(blob(), dimension=3)
    with pytest.raises(ValueError, match="radius"):
        trimap_from_mask(blob(), erode_mm=-1)


def marked_image(noise=0.03):
    """A bright oblique ellipse with a gray edge, and its RECIST end points."""
    y, x = np.mgrid[:96, :96]
    u, v = (x - 45) * 0.8 + (y - 50) * 0.6, -(x - 45) * 0.6 + (y - 50) * 0.8
    inside = (u / 20) ** 2 + (v / 12) ** 2
    image = 0.2 + 0.5 / (1 + np.exp(8 * (inside - 1))) + np.random.default_rng(0).normal(0, noise, u.shape)
    along, across = np.array([0.8, 0.6]), np.array([-0.6, 0.8])
    center = np.array([45, 50])
    points = [center - 20 * along, center + 20 * along, center - 12 * across, center + 12 * across]
    return image.clip(0, 1), np.array(points), inside <= 1


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_grabcut_finds_the_marked_lesion():
    image, points, truth = marked_image()
    notes = []
    mask = mask_from_recist(image, points, notes=notes)
    assert notes == []
    assert dice(mask, truth) > 0.9
    assert (mask_from_recist(image, points.ravel()) == mask).all()
    trimap = trimap_from_recist(image, points)
    assert (trimap == trimap_from_mask(mask)).all()


def test_grabcut_follows_the_image_and_not_the_ellipse():
    y, x = np.mgrid[:80, :80]
    truth = (abs(x - 40) <= 18) & (abs(y - 40) <= 10)
    points = [(22, 40), (58, 40), (40, 30), (40, 50)]
    mask = mask_from_recist(np.where(truth, 0.8, 0.2), points)
    assert dice(mask, truth) > 0.97


def test_flat_image_and_missing_opencv_fall_back_to_the_ellipse(monkeypatch):
    image, points, truth = marked_image()
    notes = []
    flat = mask_from_recist(np.full_like(image, 0.4), points, notes=notes)
    assert dice(flat, truth) > 0.97
    assert "ellipse" in notes[0]
    monkeypatch.setitem(sys.modules, "cv2", None)
    missing = mask_from_recist(image, points, notes=notes)
    assert (missing == flat).all()
    assert "OpenCV" in notes[1]


def test_ellipse_is_round_in_millimeters():
    flat = np.zeros((60, 60))
    # Pixels twice as high as wide: 10 by 10 mm is 10 pixels wide and 5 high.
    points = [(20, 30), (40, 30), (30, 25), (30, 35)]
    mask = mask_from_recist(flat, points, (2.0, 1.0))
    assert abs(mask.sum() * 2.0 - np.pi * 100) < 0.06 * np.pi * 100


@pytest.mark.parametrize(
    "points",
    [
        [(1, 1), (5, 5), (2, 4)],
        [(1, 1), (5, 5), (2, 4), (np.nan, 2)],
        [(1, 1), (50, 5), (2, 4), (4, 2)],
        [(5, 5), (5, 5), (2, 4), (4, 2)],
        [(1, 1), (5, 5), (3, 3), (3, 3)],
        "abcdefgh",
    ],
)
def test_unusable_recist_marks(points):
    with pytest.raises(RecistError):
        trimap_from_recist(np.zeros((20, 20)), points)


def test_recist_needs_a_2d_image():
    with pytest.raises(ImageError):
        mask_from_recist(np.zeros((3, 20, 20)), [(1, 1), (5, 5), (2, 4), (4, 2)])
