"""Grids in patient space: exact where they can be, and accurate on analytic shapes everywhere else."""

import tracemalloc
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, PointError
from LungNoduleKit.geometry import (
    AIR_HU,
    Grid,
    crop,
    nodule_grid,
    put_back,
    ras_lattice,
    region_of_interest,
    sample,
    swap_lps_ras,
)

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
LEFT_HANDED = (1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)
CORONAL = (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)  # columns: left, inferior, posterior
SAGITTAL = (0, 0, -1.0, 1.0, 0, 0, 0, -1.0, 0)  # columns: posterior, inferior, right


def rotation(seed: int, degrees: float) -> np.ndarray:
    """Rotation about a random axis."""
    axis = np.random.default_rng(seed).normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def turned(direction, seed, degrees):
    return tuple((rotation(seed, degrees) @ np.reshape(direction, (3, 3))).ravel().tolist())


def grid_about(center, extent_mm, spacing, direction) -> Grid:
    """A CT's grid of about `extent_mm` in every direction around `center`."""
    size = tuple(max(4, round(extent_mm / s)) for s in spacing)
    grid = Grid(size, spacing, (0.0, 0.0, 0.0), direction)
    shift = np.asarray(center) - grid.center_lps
    return Grid(size, spacing, tuple(shift.tolist()), direction)


def positions(grid: Grid) -> np.ndarray:
    """(z, y, x, 3) LPS positions of the voxels."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return grid.indices_to_points(np.stack([i, j, k], axis=-1))


def ellipsoid_depth(grid, center, semi_axes, turn=None):
    """Approximate signed distance to an ellipsoid's surface in millimeters, positive inside."""
    local = (positions(grid) - center) @ (np.eye(3) if turn is None else turn)
    scaled = np.linalg.norm(local / semi_axes, axis=-1)
    gradient = np.linalg.norm(local / np.square(semi_axes), axis=-1)
    return (1 - scaled) * scaled / np.maximum(gradient, 1e-9) + (scaled == 0) * min(semi_axes)


def probability(depth, width_mm=0.6):
    return 1 / (1 + np.exp(-depth.clip(-20, 20) / width_mm))


def centroid_and_volume(mask, grid):
    return positions(grid)[mask].mean(axis=0), mask.sum() * grid.voxel_volume_mm3


CASES = [
    ("axial", (0.7, 0.7, 0.7), IDENTITY, 10.0),
    ("axial, 2.5 mm", (0.7, 0.7, 2.5), IDENTITY, 14.0),
    ("oblique 12°", (0.7, 0.7, 1.25), turned(IDENTITY, 1, 12), 11.0),
    ("oblique 30°, 2.5 mm", (0.7, 0.7, 2.5), turned(IDENTITY, 2, 30), 14.0),
    ("oblique 75°", (0.62, 0.62, 1.0), turned(IDENTITY, 3, 75), 9.0),
    ("left-handed, oblique", (0.7, 0.7, 2.0), turned(LEFT_HANDED, 4, 20), 13.0),
    ("coronal order", (0.7, 0.7, 2.5), CORONAL, 14.0),
    ("sagittal order, oblique", (0.8, 0.8, 1.5), turned(SAGITTAL, 5, 15), 12.0),
    ("5 mm, oblique", (0.7, 0.7, 5.0), turned(IDENTITY, 6, 10), 24.0),
    ("finer than the grid", (0.25, 0.25, 0.25), turned(IDENTITY, 7, 40), 6.0),
    ("three spacings", (0.6, 0.9, 1.4), turned(LEFT_HANDED, 8, 50), 10.0),
    ("huge", (0.98, 0.98, 2.5), turned(IDENTITY, 9, 8), 40.0),
]


@pytest.mark.parametrize(("spacing", "direction", "radius"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("shape", ["sphere", "ellipsoid"])
def test_shapes_come_back_where_they_were(spacing, direction, radius, shape):
    """An outline found on the grid: centroid within 0.1 mm and volume within 2 % on the CT's own grid."""
    center = np.array([-61.37, 22.81, -140.29])
    semi_axes = np.array([1.0, 1.0, 1.0] if shape == "sphere" else [1.2, 0.9, 1.0]) * radius
    turn = None if shape == "sphere" else rotation(11, 35)
    ct_grid = grid_about(center + np.array([3.3, -2.1, 1.7]), 2.6 * radius + 12, spacing, direction)
    ct = ct_grid.image(np.zeros(ct_grid.shape, np.int16))
    cells = int(np.ceil((2.6 * radius + 8) / min(max(sorted(spacing)[0], 0.45), 1.0) / 8) * 8)
    grid = nodule_grid(ct, center, size=(cells,) * 3)
    region = region_of_interest(ct, grid)
    back = put_back(probability(ellipsoid_depth(grid, center, semi_axes, turn)), grid, region)
    found, volume = centroid_and_volume(back >= 0.5, region)
    assert np.linalg.norm(found - center) < 0.1
    assert volume == pytest.approx(4 / 3 * np.pi * semi_axes.prod(), rel=0.02)


@pytest.mark.parametrize(
    ("spacing", "direction", "radius"), [c[1:] for c in CASES[:-1]], ids=[c[0] for c in CASES[:-1]]
)
def test_shapes_seen_in_the_ct_come_back(spacing, direction, radius):
    """The same from the CT's gray values: sampled, outlined at half height, put back."""
    center = np.array([40.17, -12.63, 71.9])
    ct_grid = grid_about(center + np.array([-1.1, 2.2, 0.6]), 2.2 * radius + 12, spacing, direction)
    soft = probability(ellipsoid_depth(ct_grid, center, np.full(3, radius)), width_mm=0.5 * max(spacing))
    ct = ct_grid.image(np.round(-850 + 900 * soft).astype(np.int16))
    cells = int(np.ceil((2.2 * radius + 8) / min(max(sorted(spacing)[0], 0.45), 1.0) / 8) * 8)
    grid = nodule_grid(ct, center, size=(cells,) * 3)
    region = region_of_interest(ct, grid)
    back = put_back(((sample(ct, grid) + 850) / 900), grid, region)
    found, volume = centroid_and_volume(back >= 0.5, region)
    assert np.linalg.norm(found - center) < 0.1
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


def signed_permutations():
    for axes in ((0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1), (2, 1, 0), (1, 0, 2)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[axes, range(3)] = signs
            yield matrix


def test_isotropic_ct_is_copied_exactly_and_put_back_exactly():
    values = np.random.default_rng(0).integers(-1024, 3000, (40, 36, 32)).astype(np.int16)
    ct = Grid((32, 36, 40), (0.7, 0.7, 0.7), (-20.3, 11.7, 99.123), IDENTITY).image(values)
    own = Grid.of(ct)
    grid = nodule_grid(ct, own.center_lps, size=own.size)
    assert grid == own
    assert np.array_equal(sample(ct, grid), values)
    assert np.array_equal(put_back(values, grid, own), values.astype(np.float32))
    part = nodule_grid(ct, own.indices_to_points((12.4, 15.2, 20.9)), size=(16, 16, 16))
    assert np.array_equal(sample(ct, part), values[13:29, 8:24, 5:21])
    for width in (0.7, 0.7 * 1.004):  # a spacing that agrees within 1 % is the CT's own
        assert nodule_grid(ct, own.center_lps, own.size, spacing=width) == own


def test_every_orientation_of_an_isotropic_ct_comes_out_axial_and_exact():
    values = np.random.default_rng(1).integers(-1024, 3000, (10, 12, 14)).astype(np.int16)
    tilt = rotation(3, 9)
    for matrix in signed_permutations():
        ct = Grid((14, 12, 10), (0.8, 0.8, 0.8), (5.0, -7.0, 3.0), tuple((tilt @ matrix).ravel())).image(values)
        size = tuple(int(n) for n in np.abs(matrix @ (14, 12, 10)))
        grid = nodule_grid(ct, Grid.of(ct).center_lps, size)
        assert np.allclose(np.reshape(grid.direction, (3, 3)), tilt, atol=1e-12)
        sampled = sample(ct, grid)
        assert np.array_equal(np.sort(sampled, axis=None), np.sort(values, axis=None).astype(np.float32))
        where = Grid.of(ct).points_to_indices(grid.indices_to_points((3, 4, 5)))
        i, j, k = np.rint(where).astype(int)
        assert np.allclose(where, (i, j, k), atol=1e-9)
        assert sampled[5, 4, 3] == values[k, j, i]
        assert np.array_equal(put_back(sampled, grid, Grid.of(ct)), values.astype(np.float32))


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (0.7, 0.7, 2.5), (0.3, 0.3, 5.0)])
def test_a_moved_point_moves_the_grid_by_whole_voxels(spacing):
    ct = grid_about((10, 20, 30), 90, spacing, turned(LEFT_HANDED, 2, 17)).image()
    reference = nodule_grid(ct, (11.0, 19.0, 31.0))
    seen = set()
    for offset in np.random.default_rng(3).uniform(-1.5, 1.5, (40, 3)):
        grid = nodule_grid(ct, np.array([11.0, 19.0, 31.0]) + offset)
        shift = reference.points_to_indices(grid.origin)
        assert np.abs(shift - np.rint(shift)).max() < 1e-9
        assert np.abs(shift).max() * min(grid.spacing) < 3.5
        center = grid.points_to_indices(np.array([11.0, 19.0, 31.0]) + offset) - (np.array(grid.size) - 1) / 2
        assert np.abs(center).max() <= 0.5 + 1e-6
        seen.add(tuple(np.rint(shift)))
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("ct_spacing", "expected"),
    [
        ((0.7, 0.7, 2.5), (0.7, 0.7, 0.7)),
        ((0.7, 0.7, 0.5), (0.7, 0.7, 0.7)),
        ((0.3, 0.3, 1.0), (0.45, 0.45, 0.45)),
        ((1.4, 1.4, 5.0), (1.0, 1.0, 1.0)),
        ((0.703125, 0.703125, 0.7037037), (0.703125, 0.703125, 0.7037037)),
    ],
)
def test_spacing_follows_the_plane_within_limits(ct_spacing, expected):
    ct = Grid((20, 20, 20), ct_spacing, (0.0, 0.0, 0.0), IDENTITY).image()
    assert nodule_grid(ct, (5, 5, 5)).spacing == expected


def test_air_beyond_the_border_and_nothing_put_back_there():
    values = np.random.default_rng(4).integers(-900, 100, (20, 20, 20)).astype(np.int16)
    ct = Grid((20, 20, 20), (0.7, 0.7, 0.7), (0.0, 0.0, 0.0), IDENTITY).image(values)
    grid = nodule_grid(ct, (0.0, 0.0, 7.0), size=(16, 16, 16))
    sampled = sample(ct, grid)
    inside = np.zeros(grid.shape, bool)
    inside[:, 7:, 7:] = True  # an even grid whose point is a voxel's center has one voxel more beyond it
    assert (sampled[~inside] == AIR_HU).all()
    assert np.array_equal(sampled[inside].reshape(16, 9, 9), values[3:19, :9, :9])
    region = region_of_interest(ct, grid)
    assert region.size == (9, 9, 16)
    assert put_back(np.ones(grid.shape), grid, region).min() == 1
    whole = put_back(np.ones(grid.shape), grid, Grid.of(ct))
    assert whole.sum() == region.voxel_volume_mm3 / Grid.of(ct).voxel_volume_mm3 * np.prod(region.size)
    far = nodule_grid(ct, (500.0, 0.0, 0.0), size=(8, 8, 8))
    assert (sample(ct, far) == AIR_HU).all()
    with pytest.raises(PointError, match="outside the volume"):
        region_of_interest(ct, far)


def test_oblique_border_agrees_with_itk():
    rng = np.random.default_rng(5)
    ct = Grid((30, 28, 9), (0.7, 0.7, 2.5), (3.0, 1.0, -4.0), IDENTITY).image(rng.normal(size=(9, 28, 30)))
    grid = Grid((24, 24, 24), (0.7, 0.7, 0.7), (-2.0, 3.0, -6.0), turned(IDENTITY, 6, 25))
    expected = sitk.GetArrayFromImage(
        sitk.Resample(ct, grid.image(), sitk.Transform(), sitk.sitkLinear, -7.0, sitk.sitkFloat32)
    )
    got = sample(ct, grid, outside=-7.0)
    assert (got == -7).any()
    assert np.allclose(got, expected, atol=1e-5)


def test_a_fine_ct_is_smoothed_and_keeps_its_mean():
    fine = np.random.default_rng(6).normal(-800, 100, (120, 120, 120)).astype(np.float32)
    ct = Grid((120, 120, 120), (0.2, 0.2, 0.2), (0.0, 0.0, 0.0), IDENTITY).image(fine)
    sampled = sample(ct, nodule_grid(ct, (11.7, 11.7, 11.7), size=(40, 40, 40), spacing=0.6))
    assert sampled.mean() == pytest.approx(-800, abs=2)
    assert sampled.std() < 25  # the noise of 27 fine voxels, not of one


def test_parts_share_the_lattice():
    values = np.random.default_rng(7).integers(-900, 100, (30, 30, 30)).astype(np.int16)
    ct = Grid((30, 30, 30), (0.9, 0.9, 0.9), (1.0, 2.0, 3.0), turned(SAGITTAL, 1, 14)).image(values)
    grid = nodule_grid(ct, Grid.of(ct).center_lps, size=(10, 10, 10))
    grown = grid.part((-3, -3, -3), (16, 16, 16))
    assert np.allclose(grown.center_lps, grid.center_lps, atol=1e-9)
    assert np.array_equal(sample(ct, grown)[3:13, 3:13, 3:13], sample(ct, grid))
    assert np.array_equal(sample(ct, grid.part((2, 0, -1), grid.size))[1:, :, :8], sample(ct, grid)[:-1, :, 2:])
    region = region_of_interest(ct, grid)
    assert np.array_equal(sitk.GetArrayFromImage(crop(ct, region)), sample(ct, region))
    with pytest.raises(ImageError):
        crop(ct, grid)


def test_lps_and_ras_are_told_apart_by_two_signs():
    grid = Grid((4, 5, 6), (0.7, 0.8, 2.5), (0.0, 2.0, 3.0), turned(LEFT_HANDED, 4, 20))
    there = swap_lps_ras(grid.indices_to_points((1, 2, 3)))
    assert np.allclose(ras_lattice(grid) @ (1, 2, 3, 1), (*there, 1))
    assert np.allclose(swap_lps_ras(there), grid.indices_to_points((1, 2, 3)))
    assert str(swap_lps_ras((0, 0, 1)).tolist()) == "[0.0, 0.0, 1.0]"


def test_region_of_points_and_thin_regions():
    ct = Grid((40, 40, 10), (0.7, 0.7, 5.0), (0.0, 0.0, 0.0), IDENTITY).image()
    assert region_of_interest(ct, [(7.0, 7.0, 20.0), (14.0, 10.5, 30.0)]) == Grid.of(ct).part((10, 10, 4), (11, 6, 3))
    assert region_of_interest(ct, (7.0, 7.0, 22.0)).size == (1, 1, 1)
    assert region_of_interest(ct, (7.0, 7.0, 20.0), margin_mm=5.0).size == (15, 15, 3)


def test_only_the_region_of_a_large_ct_is_touched():
    ct = sitk.Image([512, 512, 300], sitk.sitkInt16)
    ct.SetSpacing((0.7, 0.7, 1.0))
    tracemalloc.start()
    grid = nodule_grid(ct, (180, 170, 150))
    put_back(sample(ct, grid), grid, region_of_interest(ct, grid))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the CT itself has 157 MB


def test_bad_points_and_arrays():
    ct = Grid((9, 9, 9), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY).image()
    for point in ((1, 2), (np.nan, 1, 2), (1, 2, np.inf)):
        with pytest.raises(PointError, match="finite"):
            nodule_grid(ct, point)
    with pytest.raises(ImageError, match="shape"):
        Grid.of(ct).image(np.zeros((3, 3, 3)))
