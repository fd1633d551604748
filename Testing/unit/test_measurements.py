"""Measurements against shapes whose sizes are known."""

import json

import numpy as np
import pytest

from LungNoduleKit.errors import ImageError, NoNoduleError
from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib.measuring.measurements import axial_axes, measure

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
CORONAL = (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)
TURNED = tuple(
    (
        np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    ).ravel()
)
LEFT_HANDED = (1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)


def grid_of(extent_mm, spacing, direction=IDENTITY):
    return Grid(tuple(round(extent_mm / s) for s in spacing), spacing, (-30.0, 20.0, 100.0), direction)


def local(grid, shift=(0.0, 0.0, 0.0)):
    """(z, y, x, 3) positions in millimeters along the patient's axes from the grid's center plus `shift`."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return grid.indices_to_points(np.stack([i, j, k], axis=-1)) - grid.center_lps - np.asarray(shift)


def ellipsoid(grid, semi_axes, degrees=0.0, shift=(0.0, 0.0, 0.0)):
    """An ellipsoid turned about the patient's long axis."""
    x, y, z = np.moveaxis(local(grid, shift), -1, 0)
    angle = np.deg2rad(degrees)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / semi_axes[0]) ** 2 + (across / semi_axes[1]) ** 2 + (z / semi_axes[2]) ** 2 <= 1


def plain(grid, hc, union, final=None, hu=None):
    """`measure` on boolean arrays, by default in a nodule of 0 HU."""
    ct = np.zeros(grid.shape, np.int16) if hu is None else hu
    final = hc if final is None else final
    return measure(*(grid.image(a) for a in (ct, hc, union & ~hc, final)))


@pytest.mark.parametrize("diameter", [4.0, 6.3, 10.0, 21.7])
def test_a_disc_measures_its_diameter_within_half_a_pixel(diameter):
    grid = grid_of(30, (0.7, 0.7, 1.5))
    errors = []
    for shift in np.random.default_rng(0).uniform(-0.35, 0.35, (25, 3)):
        x, y, z = np.moveaxis(local(grid, shift), -1, 0)
        axes = axial_axes((x**2 + y**2 <= (diameter / 2) ** 2) & (np.abs(z) < 3), grid)
        errors.append((axes[0] - diameter, axes[1] - diameter, sum(axes) / 2 - diameter))
    errors = np.array(errors) / 0.7
    assert np.abs(errors).max() < 1  # pixels, where a row happens to gain or lose one
    assert np.abs(errors[:, 2]).max() < 0.5
    assert np.abs(errors.mean(axis=0)).max() < 0.4


@pytest.mark.parametrize("direction", [IDENTITY, LEFT_HANDED, CORONAL], ids=["axial", "left-handed", "coronal"])
@pytest.mark.parametrize("degrees", [0, 25, 45, 70, 90, 160])
def test_an_ellipse_measures_both_axes_however_it_lies(direction, degrees):
    spacing = (0.5, 1.0, 0.5) if direction == CORONAL else (0.5, 0.5, 1.0)
    grid = grid_of(34, spacing, direction)
    long, short = axial_axes(ellipsoid(grid, (12.0, 6.0, 9.0), degrees, (0.1, 0.2, 0.0)), grid)
    assert long == pytest.approx(24, abs=0.4)
    assert short == pytest.approx(12, abs=0.5)


def test_oblique_and_anisotropic_pixels():
    grid = grid_of(40, (0.6, 0.9, 2.5), TURNED)
    long, short = axial_axes(ellipsoid(grid, (11.0, 11.0, 11.0)), grid)
    assert long == pytest.approx(22, abs=0.7)
    assert short == pytest.approx(22, abs=0.7)


def test_sheared_axes_measure_in_millimeters():
    """A tilted gantry's axes aren't at right angles; here the tilt lies within the slices so that it matters."""
    tilt = np.deg2rad(20)
    sheared = (1.0, np.sin(tilt), 0, 0, np.cos(tilt), 0, 0, 0, 1.0)
    grid = grid_of(36, (0.5, 0.5, 1.0), sheared)
    mask = ellipsoid(grid, (8.0, 8.0, 8.0))
    assert axial_axes(mask, grid) == pytest.approx((16, 16), abs=0.5)
    assert mask.sum() * grid.voxel_volume_mm3 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.01)


def test_axes_come_from_the_slice_where_the_long_axis_is_largest():
    grid = Grid((40, 40, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    mask = np.zeros(grid.shape, bool)
    mask[1, 10:30, 10:30] = True  # a large square: diagonal 27.6
    mask[3, 20, 3:36] = True  # a thin line of 33 voxels: longer
    long, short = axial_axes(mask, grid)
    assert long == pytest.approx(33, abs=0.1)
    assert short == pytest.approx(1, abs=0.1)
    assert axial_axes(mask & (np.arange(5) == 1)[:, None, None], grid)[0] == pytest.approx(19 * 2**0.5 + 0.7, abs=0.8)


def test_one_voxel_is_one_voxel_wide():
    grid = Grid((3, 3, 3), (0.7, 0.7, 2.5), (0.0, 0.0, 0.0), IDENTITY)
    mask = np.zeros(grid.shape, bool)
    mask[0, 0, 2] = True
    assert axial_axes(mask, grid) == pytest.approx((0.7, 0.7), abs=1e-9)


def test_volumes_mass_and_interval_of_concentric_spheres():
    grid = grid_of(40, (0.7, 0.7, 1.25), TURNED)
    hc, final, union = (ellipsoid(grid, (r, r, r)) for r in (6.0, 8.0, 10.0))
    hu = np.where(hc, -100, np.where(union, -600, -870)).astype(np.int16)
    result = plain(grid, hc, union, final, hu)
    sphere = {r: 4 / 3 * np.pi * r**3 for r in (6, 8, 10)}
    for name, expected in {
        "hc": sphere[6],
        "final": sphere[8],
        "union": sphere[10],
        "lc": sphere[10] - sphere[6],
    }.items():
        assert result["volumes_mm3"][name] == pytest.approx(expected, rel=0.02)
    assert result["mass_mg"]["hc"] == pytest.approx(0.9 * sphere[6], rel=0.02)
    assert result["mass_mg"]["union"] == pytest.approx(0.9 * sphere[6] + 0.4 * (sphere[10] - sphere[6]), rel=0.02)
    assert result["mean_hu"]["hc"] == -100
    assert result["mean_hu"]["lc"] == result["median_hu"]["lc"] == -600
    assert result["mean_hu"]["final"] == pytest.approx(
        (-100 * sphere[6] - 600 * (sphere[8] - sphere[6])) / sphere[8], rel=0.03
    )
    assert result["lc_share"] == pytest.approx(1 - 0.6**3, abs=0.01)
    assert result["solid_share"] == pytest.approx(0.75**3, abs=0.01)
    assert result["equivalent_diameter_mm"]["final"] == pytest.approx(16, rel=0.01)
    interval = result["interval"]
    assert interval["volume_mm3"] == [result["volumes_mm3"]["hc"], result["volumes_mm3"]["union"]]
    assert interval["mass_mg"] == [result["mass_mg"]["hc"], result["mass_mg"]["union"]]
    assert interval["mean_axis_mm"] == pytest.approx([12, 20], abs=0.5)
    for name, diameter in {"hc": 12, "final": 16, "union": 20}.items():
        assert result["mean_axis_mm"][name] == pytest.approx(diameter, abs=0.5)
        assert result["mean_axis_mm"][name] == round(result["mean_axis_mm"][name], 1)
    assert json.loads(json.dumps(result)) == result


def test_air_weighs_nothing_and_the_threshold_is_an_option():
    grid = grid_of(20, (1.0, 1.0, 1.0))
    hc, union = (ellipsoid(grid, (r, r, r)) for r in (4.0, 6.0))
    result = plain(grid, hc, union, hu=np.where(hc, -1024, 0).astype(np.float32))
    assert result["mass_mg"]["hc"] == 0
    assert result["mass_mg"]["union"] == pytest.approx(result["volumes_mm3"]["lc"])
    assert result["solid_share"] == 0
    images = [grid.image(a) for a in (np.full(grid.shape, -400, np.int16), hc, union & ~hc, hc)]
    assert measure(*images, solid_threshold_hu=-450)["solid_share"] == 1


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_mask_is_named(empty):
    grid = grid_of(20, (1.0, 1.0, 1.0))
    hc, union = (ellipsoid(grid, (r, r, r)) for r in (4.0, 6.0))
    masks = [hc, union & ~hc, hc]
    masks[empty] = np.zeros(grid.shape, bool)
    with pytest.raises(NoNoduleError, match=("hc", "lc", "final")[empty]):
        measure(grid.image(), *(grid.image(mask) for mask in masks))


def test_masks_on_another_grid_are_refused():
    grid = grid_of(20, (1.0, 1.0, 1.0))
    hc, union = (ellipsoid(grid, (r, r, r)) for r in (4.0, 6.0))
    with pytest.raises(ImageError, match="mask final"):
        measure(*(grid.image(a) for a in (hc, hc, union & ~hc)), grid.part((1, 0, 0), grid.size).image(hc))
