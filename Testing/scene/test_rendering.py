"""Slicer's own displayable managers draw the three segments where they are and as their display node says."""

import types

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from rendering import add_ct, off_screen_gl, render_3d, render_slice
from scipy import ndimage

from LungNoduleUncertaintyLib.models.network_input import Averaging
from LungNoduleUncertaintyLib.outlining.result import Provenance
from LungNoduleUncertaintyLib.phantom.chest import chest_phantom
from LungNoduleUncertaintyLib.scene.segments import add_result
from LungNoduleUncertaintyLib.segments import SEGMENTS

REASON = off_screen_gl()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
SIZE = (400, 320)
BACKGROUND = (0.15, 0.15, 0.17)


@pytest.fixture(scope="module")
def phantom():
    """The generated chest and the result that a perfect network would give for a nodule."""
    ct, nodules = chest_phantom()
    nodule = nodules[2]  # the one whose readers disagree: LC is thick
    masks = np.stack([sitk.GetArrayFromImage(reader) for reader in nodule.readers])

    def image(mask):
        out = sitk.GetImageFromArray(mask.astype(np.uint8))
        out.CopyInformation(nodule.readers[0])
        return out

    every, any_of = masks.all(0), masks.any(0)
    parts = {"hc": every, "lc": any_of & ~every, "final": masks.mean(0) >= 0.5}
    x, y, z = nodule.center_lps
    provenance = Provenance("readers", "0", "0" * 64, "tests", {}, Averaging(), (x, y, z))
    masks = {key: image(mask) for key, mask in parts.items()}
    texts = provenance.texts()
    result = types.SimpleNamespace(**masks, provenance=provenance, measurements={}, tag_texts=lambda: texts)
    return ct, result, (-x, -y, z)


@pytest.fixture
def shown(scene, phantom):
    """(volume node, segmentation node, center in RAS)"""
    ct, result, center = phantom
    volume = add_ct(scene, ct)
    return volume, add_result(result, volume), center


def nodes_of(scene):
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


def near_color(pixels, color, tolerance=40):
    return (np.abs(pixels.astype(int) - np.array(color) * 255) <= tolerance).all(-1)


def ras_to_index(image):
    """4x4 matrix from RAS mm to a SimpleITK image's index (i, j, k)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return np.linalg.inv(matrix) @ np.diag([-1.0, -1, 1, 1])


def cut(picture, image):
    """A mask's cut through a slice view, (height, width; bool): pixels whose centers lie in a voxel of it."""
    array, matrix = sitk.GetArrayViewFromImage(image), ras_to_index(image)
    index = np.rint(picture.unproject() @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < image.GetSize())).all(-1)
    mask = np.zeros(inside.shape, bool)
    i, j, k = index[inside].T
    mask[inside] = array[k, j, i] != 0
    return mask


@pytest.mark.parametrize("orientation", ["Axial", "Coronal", "Sagittal"])
def test_outlines_lie_on_the_segments_ends(scene, shown, phantom, tools, tmp_path, orientation):
    volume, node, center = shown
    display, ids = node.GetDisplayNode(), tools.ids_by_name(node)
    display.SetSliceIntersectionThickness(1)
    options = {"orientation": orientation, "field_of_view_mm": 50, "size": SIZE}
    for part, (attribute, color) in SEGMENTS.items():
        for other in ids.values():
            display.SetSegmentVisibility(other, other == ids[part])
        display.SetSegmentVisibility2DFill(ids[part], False)
        display.SetSegmentOpacity2DOutline(ids[part], 1.0)
        picture = render_slice(scene, volume, center, **options, path=tmp_path / f"{part}.png")
        drawn = near_color(picture.pixels, color)
        mask = cut(picture, getattr(phantom[1], attribute))
        expected = mask & ~ndimage.binary_erosion(mask)
        assert expected.sum() > 100
        assert ndimage.distance_transform_edt(~expected)[drawn].max() <= 2
        assert ndimage.distance_transform_edt(~drawn)[expected].max() <= 2
        assert drawn.sum() < 0.5 * mask.sum()  # an outline, the CT is seen inside
    assert (tmp_path / "Final.png").read_bytes().startswith(b"\x89PNG")


def test_all_three_outlines_are_seen_together_and_nothing_without_segments(scene, shown):
    volume, node, center = shown
    before = nodes_of(scene)
    colors = {part: color for part, (_, color) in SEGMENTS.items()}
    seen = render_slice(scene, volume, center, size=SIZE, field_of_view_mm=40).pixels
    assert all(near_color(seen, colors[part]).sum() > 100 for part in ("HC", "Final"))
    orange = (seen[..., 0].astype(int) - seen[..., 2] > 60) & (seen[..., 1] > seen[..., 2])  # LC may be translucent
    assert orange.sum() > 100
    assert nodes_of(scene) == before, "drawing left nodes in the scene"
    node.GetDisplayNode().SetVisibility(False)
    plain = render_slice(scene, volume, center, size=SIZE, field_of_view_mm=40).pixels
    assert (plain == plain[..., :1]).all(), "a CT has no colors"
    assert plain.std() > 10


def test_ct_is_where_it_says_and_has_the_lung_window(scene, shown, phantom):
    volume, node, center = shown
    node.GetDisplayNode().SetVisibility(False)
    picture = render_slice(scene, volume, center, size=SIZE, field_of_view_mm=40)
    column, row, depth = picture.project(center)[0]
    assert abs(column - SIZE[0] / 2) <= 1
    assert abs(row - SIZE[1] / 2) <= 1
    assert abs(depth) < 1e-3
    right, front = picture.project([center, np.add(center, [10, 0, 0]), np.add(center, [0, 10, 0])])[1:, :2]
    assert right[0] < column - 90, "the patient's right is on the left"
    assert front[1] < row - 90, "the patient's front is on top"
    matrix = ras_to_index(phantom[0])
    array = slicer.util.arrayFromVolume(volume)
    ijk = picture.unproject()[::8, ::8] @ matrix[:3, :3].T + matrix[:3, 3]
    hu = ndimage.map_coordinates(array.astype(float), ijk[..., ::-1].reshape(-1, 3).T, order=1)
    width, level = 1500, -600
    expected = ((hu - level) / width + 0.5).clip(0, 1) * 255
    assert np.median(np.abs(picture.pixels[::8, ::8, 0].ravel() - expected)) < 3


def test_solid_hc_is_seen_through_lc_in_3d(scene, shown, tools, tmp_path):
    _volume, node, center = shown
    display, ids = node.GetDisplayNode(), tools.ids_by_name(node)
    before = nodes_of(scene)

    def draw(name, *parts):
        for part, segment_id in ids.items():
            display.SetSegmentVisibility(segment_id, part in parts)
        path = tmp_path / f"{name}.png"
        pixels = render_3d(scene, center, size=SIZE, height_mm=40, background=BACKGROUND, path=path).pixels
        return pixels.astype(int)

    empty = draw("empty")
    assert np.ptp(empty.reshape(-1, 3), axis=0).max() == 0, "nothing in an empty view"
    np.testing.assert_allclose(empty[0, 0], np.multiply(BACKGROUND, 255), atol=1)
    hc, lc, both, final = draw("hc", "HC"), draw("lc", "LC"), draw("both", "HC", "LC"), draw("final", "Final")
    where_hc, where_lc = (np.abs(p - empty).max(-1) > 12 for p in (hc, lc))
    assert where_hc.sum() > 500
    assert where_lc.sum() > 1.1 * where_hc.sum(), "LC surrounds HC"
    inside = ndimage.binary_erosion(where_hc, iterations=3)
    assert (both[..., 2] > lc[..., 2] + 20)[inside].mean() > 0.8, "HC's blue is seen where LC is in front of it"
    rim = ndimage.binary_erosion(where_lc & ~ndimage.binary_dilation(where_hc, iterations=3), iterations=2)
    assert rim.sum() > 100
    assert (both[..., 0] > both[..., 2] + 20)[rim].mean() > 0.7, "with LC's color around it"
    # Translucent: what is drawn where both are is neither of the two alone.
    assert np.abs(both - hc).max(-1)[inside & where_lc].mean() > 10
    assert np.abs(final - empty).max() <= 12, "Final lies between the two and is hidden"
    assert nodes_of(scene) == before
