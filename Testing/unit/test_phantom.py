"""The generated chest CT and its nodules' outlines."""

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib.phantom.chest import NOISE_HU, chest_phantom
from LungNoduleUncertaintyLib.phantom.reader_outlines import reader_distances, sample_outlines

# Half the voxels of the default in each direction: the same chest, faster.
SMALL = {"size": (200, 145, 46), "spacing": (1.7, 1.7, 2.8)}


@pytest.fixture(scope="module")
def phantom():
    return chest_phantom(0)


def at(ct, point, half=2):
    """HU around a point (LPS mm)."""
    i, j, k = ct.TransformPhysicalPointToIndex(point)
    return sitk.GetArrayViewFromImage(ct)[k - 1 : k + 2, j - half : j + half + 1, i - half : i + half + 1]


def test_the_seed_decides():
    first, again, other = chest_phantom(3, **SMALL)[0], chest_phantom(3, **SMALL)[0], chest_phantom(4, **SMALL)[0]
    arrays = [sitk.GetArrayFromImage(image) for image in (first, again, other)]
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])


def test_tissues_have_their_densities(phantom):
    ct, _ = phantom
    wanted = {
        "air": ((-168, -120, 40), (-1024, -950)),
        "lung": ((-95, 60, 45), (-930, -780)),
        "heart": ((30, -35, 25), (0, 90)),
        "vertebra": ((0, 66, 60), (100, 300)),
        "fat": ((-157, 2, 40), (-160, -40)),
        "trachea": ((0, 14, 110), (-1024, -930)),
    }
    for name, (point, (low, high)) in wanted.items():
        assert low < np.median(at(ct, point)) < high, name


def test_noise_is_that_of_a_ct(phantom):
    """Standard deviation in the aorta, where nothing else varies; and neighbors are correlated as in a real scan."""
    ct, _ = phantom
    patch = sitk.GetArrayViewFromImage(ct)
    i, j, k = ct.TransformPhysicalPointToIndex((24, 44, 60))
    patch = patch[k - 12 : k + 12, j - 5 : j + 6, i - 5 : i + 6].astype(float)
    assert patch.std() == pytest.approx(NOISE_HU, rel=0.2)
    assert np.corrcoef(patch[:, :, 1:].ravel(), patch[:, :, :-1].ravel())[0, 1] > 0.3


def test_nodules_lie_in_the_lung_and_stand_out(phantom):
    ct, nodules = phantom
    values = sitk.GetArrayViewFromImage(ct)
    for nodule in nodules:
        grid = Grid.of(nodule.readers[0])
        start = np.round(Grid.of(ct).points_to_indices([grid.origin])[0]).astype(int)[::-1]
        part = values[tuple(slice(s, s + n) for s, n in zip(start, grid.shape, strict=True))]
        masks = np.stack([sitk.GetArrayViewFromImage(r) > 0 for r in nodule.readers])
        assert len(masks) == 4
        assert masks.all(0).any()
        assert np.median(part[~masks.any(0)]) < -780
        agreed, some = part[masks.all(0)].mean(), part[masks.any(0) & ~masks.all(0)].mean()
        assert agreed > some > -800


def inside_pixels(contour) -> float:
    """Pixels strictly inside a contour, by Pick's theorem, with no rasterisation involved."""
    vertices = np.array(contour["ij"], float)
    following = np.roll(vertices, -1, 0)
    area = abs((vertices[:, 0] * following[:, 1] - following[:, 0] * vertices[:, 1]).sum()) / 2
    steps = np.abs(following - vertices).astype(int)
    return area - np.gcd(steps[:, 0], steps[:, 1]).sum() / 2 + 1


@pytest.mark.parametrize("name", ["solid-8mm", "solid-18mm", "lobulated-22mm"])
def test_outlines_have_the_readers_volumes(name):
    outlines = sample_outlines()[name]
    step = 0.4
    axis = np.arange(-16, 16, step)
    depth = reader_distances(outlines, np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1))
    for reader, volume in zip(outlines["readers"], (depth > 0).sum((1, 2, 3)) * step**3, strict=True):
        assert all(contour["inclusion"] for contour in reader["contours"])
        pixels = sum(inside_pixels(contour) for contour in reader["contours"])
        expected = pixels * outlines["pixel_spacing_mm"] ** 2 * outlines["slice_spacing_mm"]
        assert volume == pytest.approx(expected, rel=0.12)


def test_masks_on_the_ct_are_the_readers_outlines(phantom):
    """On the CT's own grid the volume is that of the outlines up to the coarser sampling."""
    _, nodules = phantom
    axis = np.arange(-16, 16, 0.4)
    outlines = sample_outlines()["spiculated-14mm"]
    depth = reader_distances(outlines, np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1))
    masks = next(n for n in nodules if n.name == "spiculated nodule").readers
    for mask, volume in zip(masks, (depth > 0).sum((1, 2, 3)) * 0.4**3, strict=True):
        voxel = np.prod(mask.GetSpacing())
        assert sitk.GetArrayViewFromImage(mask).sum() * voxel == pytest.approx(volume, rel=0.08)


def test_outlines_end_where_the_readers_stopped():
    outlines = sample_outlines()["solid-8mm"]
    heights = [c["z_mm"] for r in outlines["readers"] for c in r["contours"]]
    z = np.linspace(min(heights) - 4, max(heights) + 4, 81)
    points = np.stack([z, np.zeros_like(z), np.zeros_like(z)], -1)
    inside = (reader_distances(outlines, points) > 0).any(0)
    step = outlines["slice_spacing_mm"]
    assert not inside[z > max(heights) + step].any()
    assert not inside[z < min(heights) - step].any()
    assert inside[np.abs(z) < step].all()
