"""Outlines become masks: filled on the pixel lattice, without the outline's own pixels, holes cut out."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from LungNoduleKit.errors import NoduleError
from Training.data.lidc.contours import contour_pixels, fill_contour, interpolate_slices, slice_mask, stacked_masks
from Training.data.lidc.database import Annotation, Contour


def outline(mask):
    """The 8-connected ring of first pixels outside of a mask, walked around a star-shaped mask's center."""
    ring = np.argwhere(binary_dilation(mask) & ~mask)
    center = np.argwhere(mask).mean(0)
    return ring[np.argsort(np.arctan2(*(ring - center).T))]


def disk(radius, size=40):
    i, j = np.indices((size, size)) - size // 2
    return i**2 + j**2 <= radius**2


def contour(ij, z=0.0, inclusion=True):
    return Contour(0, z, inclusion, np.asarray(ij))


def test_a_square_is_filled_without_its_outline():
    inside, ring = fill_contour([[2, 2], [2, 6], [5, 6], [5, 2]], (0, 0), (9, 9))
    assert np.argwhere(inside).tolist() == [[i, j] for i in (3, 4) for j in (3, 4, 5)]
    assert ring.sum() == 14  # the vertices are joined by lines
    assert not (inside & ring).any()


@pytest.mark.parametrize("radius", [1, 2.5, 6, 11.3])
def test_the_outline_of_a_disk_gives_the_disk_back(radius):
    mask = disk(radius)
    inside, ring = fill_contour(outline(mask), (0, 0), mask.shape)
    assert (inside == mask).all()
    again, _ = fill_contour(outline(mask)[::-1] + np.array([100, 200]), (100, 200), mask.shape)
    assert (again == mask).all()
    with_contour = slice_mask([contour(outline(mask))], (0, 0), mask.shape, include_contour=True)
    assert (with_contour == (mask | ring)).all()
    assert with_contour.sum() == mask.sum() + len(outline(mask))


@pytest.mark.parametrize("ij", [[[4, 4]], [[4, 4], [4, 5]], [[4, 2], [4, 8]], [[2, 2], [6, 6], [2, 2]]])
def test_outlines_of_one_pixel_and_thin_lines_surround_nothing(ij):
    inside, ring = fill_contour(ij, (0, 0), (10, 10))
    assert not inside.any()
    assert ring.sum() == len(contour_pixels(ij)) == max(np.ptp(np.asarray(ij), axis=0)) + 1


def test_an_outline_drawn_twice_is_filled_and_a_closed_bay_is_not():
    square = [[1, 1], [1, 7], [7, 7], [7, 1], [1, 1]]
    once, _ = fill_contour(square, (0, 0), (9, 9))
    twice, _ = fill_contour(square + square, (0, 0), (9, 9))
    assert once.sum() == 25
    assert (twice == once).all()
    # A ring-shaped nodule, drawn as one line along its outer and then its inner border, through a closed mouth.
    horseshoe = [[0, 0], [0, 12], [12, 12], [12, 0], [0, 0], [0, 4], [4, 4], [8, 4], [8, 8], [4, 8], [4, 4], [0, 4]]
    inside, _ = fill_contour(horseshoe, (0, 0), (13, 13))
    assert inside[2, 2]
    assert inside[10, 6]
    assert not inside[5:8, 5:8].any()


def test_two_lobes_of_an_outline_that_crosses_itself_are_both_filled():
    inside, _ = fill_contour([[0, 0], [8, 8], [0, 16], [16, 16], [8, 8], [16, 0]], (0, 0), (17, 17))
    assert inside[8, 2]
    assert inside[8, 14]
    assert not inside[2, 8]


def test_distant_vertices_are_joined_by_a_closed_8_connected_line():
    ij = [[0, 0], [3, 17], [25, 20], [19, 1]]
    pixels = contour_pixels(ij)
    picture = np.zeros((26, 21), int)
    picture[tuple(pixels.T)] = 1
    assert label(picture, np.ones((3, 3)))[1] == 1
    inside, ring = fill_contour(ij, (0, 0), picture.shape)
    parts, count = label(~ring)
    for part in range(1, count + 1):  # nothing leaks: what hangs together is inside or outside as a whole
        assert np.ptp(inside[parts == part].astype(int)) == 0
    area = 0.5 * abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(ij, ij[1:] + ij[:1], strict=True)))
    assert inside.sum() + ring.sum() / 2 == pytest.approx(area + 1, abs=4)  # Pick's theorem, up to the slanted edges


def test_holes_are_cut_out_with_their_outline_unless_switched_off():
    big, hole = outline(disk(12)), outline(disk(3))
    contours = [contour(hole, inclusion=False), contour(big)]
    cut = slice_mask(contours, (0, 0), (40, 40))
    assert cut.sum() == disk(12).sum() - disk(3).sum() - len(hole)
    assert (slice_mask(contours, (0, 0), (40, 40), exclusions=False) == disk(12)).all()
    ring = slice_mask(contours, (0, 0), (40, 40), include_contour=True) & ~cut
    assert set(map(tuple, np.argwhere(ring))) == set(map(tuple, big))


def test_bad_outlines_are_refused():
    with pytest.raises(NoduleError, match="leaves the window"):
        fill_contour([[0, 0], [9, 9]], (0, 0), (5, 5))
    with pytest.raises(NoduleError, match="shape"):
        fill_contour(np.zeros((0, 2)), (0, 0), (5, 5))


def test_contours_go_to_the_slice_at_their_z_and_to_no_other():
    ij = outline(disk(5))
    annotation = Annotation(7, "", {}, (contour(ij, z=-3.0), contour(ij, z=-0.5)))
    masks = stacked_masks([annotation], [-3.0, -0.5, 2.0], (0, 0), (40, 40), tolerance=0.5)
    assert masks.shape == (1, 3, 40, 40)
    assert masks.sum((0, 2, 3)).tolist() == [disk(5).sum(), disk(5).sum(), 0]
    with pytest.raises(NoduleError, match=r"annotation 7: no slice at z = -0\.5 mm"):
        stacked_masks([annotation], [-3.0, 2.0], (0, 0), (40, 40), tolerance=0.5)


def test_interpolation_between_slices_keeps_a_cylinders_volume():
    masks = np.zeros((10, 40, 40), bool)
    masks[3:7] = disk(8)
    heights = 2.5 * np.arange(10) - 100
    fine = interpolate_slices(masks, heights, np.arange(-100, -77, 0.1))
    assert fine.any(axis=(1, 2)).sum() * 0.1 == pytest.approx(4 * 2.5, abs=0.11)
    assert (interpolate_slices(masks, heights, heights) == masks).all()
    only = interpolate_slices(masks[3:4], heights[3:4], heights[3] + np.array([-2, -0.5, 0, 0.5, 2]))
    assert only.any(axis=(1, 2)).tolist() == [False, True, True, True, False]
