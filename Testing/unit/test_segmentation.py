"""From a CT and a point to HC, LC and final, with a model whose right answer is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from fake_model import bright_model, with_input
from LungNoduleKit.errors import ImageError, NoNoduleError, PointError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.warning_codes import code_of
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.models.network_input import VIEWS, Averaging
from LungNoduleUncertaintyLib.outlining import prediction
from LungNoduleUncertaintyLib.outlining.masks import nested_masks
from LungNoduleUncertaintyLib.outlining.prediction import predict_cube

OBLIQUE = (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0)


def ball_ct(radius=6.0, size=(80, 80, 60), spacing=(0.8, 0.8, 1.0), direction=None, center=None, hu=50.0):
    """A ball with a soft edge of 3 mm in air-like lung, and a second one 25 mm away; returns the CT and the center."""
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, 12.0, -400.0))
    if direction:
        image.SetDirection(direction)
    grid = Grid.of(image)
    middle = np.array(grid.indices_to_points([[(n - 1) / 2 for n in size]])[0]) if center is None else np.array(center)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1).reshape(-1, 3)
    points = grid.indices_to_points(index)
    values = np.full(len(points), -850.0)
    for place, r in ((middle, radius), (middle + np.array([25.0, 0.0, 0.0]), 3.0)):
        distance = np.linalg.norm(points - place, axis=1)
        values += (hu + 850) * np.clip((r - distance) / 3 + 0.5, 0, 1)
    array = values.reshape(size).transpose(2, 1, 0)
    return grid.image(np.minimum(array, hu).astype(np.float32)), tuple(float(v) for v in middle)


def array(image):
    return sitk.GetArrayFromImage(image)


def volume_of_ball(hu_cut, radius=6.0):
    """The soft edge crosses the cut where 900 * ((r - d)/3 + 0.5) - 850 = cut."""
    return 4 / 3 * np.pi * (radius - 3 * ((hu_cut + 850) / 900 - 0.5)) ** 3


@pytest.mark.parametrize("direction", [None, OBLIQUE, (1, 0, 0, 0, 1, 0, 0, 0, -1)], ids=["axial", "oblique", "left"])
def test_a_ball_is_measured_right(direction):
    ct, center = ball_ct(direction=direction)
    result = segment_nodule(ct, center, model=bright_model())
    volumes = result.measurements["volumes_mm3"]
    assert volumes["hc"] == pytest.approx(volume_of_ball(-250), rel=0.03)
    assert volumes["final"] == pytest.approx(volume_of_ball(-450), rel=0.03)
    assert volumes["union"] == pytest.approx(volume_of_ball(-650), rel=0.03)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(result.final)
    assert np.linalg.norm(np.array(shape.GetCentroid(1)) - center) < 0.2
    assert np.allclose(result.final.GetDirection(), ct.GetDirection())
    assert np.allclose(result.final.GetSpacing(), ct.GetSpacing())
    start = Grid.of(ct).points_to_indices([result.final.GetOrigin()])[0]
    np.testing.assert_allclose(start, np.round(start), atol=1e-6)


def test_masks_are_nested_and_disjoint():
    ct, center = ball_ct()
    result = segment_nodule(ct, center, model=bright_model())
    hc, lc, final = (array(m) > 0 for m in (result.hc, result.lc, result.final))
    assert hc.any()
    assert lc.any()
    assert not (hc & lc).any()
    assert not (hc & ~final).any()
    assert not (final & ~(hc | lc)).any()
    assert result.multi_confidence_map.GetPixelID() == sitk.sitkFloat32
    assert result.provenance.model_sha256 == "0" * 64


def test_the_point_and_the_settings_are_kept_as_numbers():
    ct, center = ball_ct()
    point = tuple(np.add(center, (0.123456789, 0.0, 0.0)))
    provenance = segment_nodule(ct, np.array(point), model=bright_model()).provenance
    assert provenance.point_lps == point
    assert provenance.thresholds == {"union": 0.5, "intersection": 0.5, "final": 0.5}
    assert [float(v) for v in provenance.texts()["point_lps"].split()] == list(point)
    assert json.loads(json.dumps(provenance.as_dict()))["point_lps"] == list(point)


@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_maps_are_calibrated_for_the_nodules_size(radius):
    """Logits of 20 HU: with a slope of 5 every doubling of the diameter from 8 mm on moves a cut by 100 HU."""
    ct, center = ball_ct(radius)
    model = bright_model()
    plain = segment_nodule(ct, center, model=model)
    model.metadata = replace(model.metadata, size_calibration={"union": 5.0, "intersection": 7.0})
    result = segment_nodule(ct, center, model=model)
    diameter = (6 / np.pi * volume_of_ball(-450, radius)) ** (1 / 3)
    lower = 100 * np.log2(diameter / 8)
    volumes = result.measurements["volumes_mm3"]
    assert volumes["union"] == pytest.approx(volume_of_ball(-650 - lower, radius), rel=0.05)
    assert volumes["hc"] == pytest.approx(volume_of_ball(-250 - 1.4 * lower, radius), rel=0.1)  # 75 voxels at 3 mm
    assert result.provenance.size_calibration == {"union": 5.0, "intersection": 7.0}
    assert result.provenance.texts()["size_calibration"] == "intersection 7 per doubling, union 5 per doubling"
    assert "size_calibration" not in plain.provenance.texts()
    assert (volumes["hc"] > plain.measurements["volumes_mm3"]["hc"]) == (diameter > 8)
    assert volumes["final"] == plain.measurements["volumes_mm3"]["final"]
    # HC and LC don't move with the threshold of Final, as long as final holds HC.
    other = segment_nodule(ct, center, model=model, thresholds={"final": 0.45})
    assert other.measurements["volumes_mm3"]["hc"] == volumes["hc"]


def test_all_networks_outline_what_the_first_one_finds():
    """The second network draws everything a little larger: the outline lies between the two, and finding costs one."""
    ct, center = ball_ct()
    first, second = bright_model(), bright_model()
    alone = segment_nodule(ct, center, model=first)
    seen = {"first": 0, "second": 0}
    first.networks[0].register_forward_hook(lambda *_: seen.update(first=seen["first"] + 1))
    lower = second.networks[0]
    lower.register_forward_hook(lambda *_: seen.update(second=seen["second"] + 1))
    lower.forward = lambda x, forward=lower.forward: {key: value + 20 for key, value in forward(x).items()}
    first.networks.append(lower)
    both = segment_nodule(ct, center, model=first)
    assert both.measurements["volumes_mm3"]["final"] > alone.measurements["volumes_mm3"]["final"]
    assert 0 < seen["second"] < seen["first"]


def test_a_magnified_input_gives_the_same_volume():
    ct, center = ball_ct()
    model = with_input(bright_model(), magnification=1.28)
    volume = segment_nodule(ct, center, model=model).measurements["volumes_mm3"]["final"]
    assert volume == pytest.approx(volume_of_ball(-450), rel=0.03)


def test_only_the_nodule_at_the_point_is_outlined():
    ct, center = ball_ct()
    big = segment_nodule(ct, center, model=bright_model()).measurements["volumes_mm3"]["final"]
    other = (center[0] + 25, center[1], center[2])
    small = segment_nodule(ct, other, model=bright_model()).measurements["volumes_mm3"]["final"]
    assert small == pytest.approx(volume_of_ball(-450, 3.0), rel=0.08)
    assert big > 4 * small


def test_nearby_points_give_the_same_voxels():
    ct, center = ball_ct()
    reference = array(segment_nodule(ct, center, model=bright_model()).final)
    rng = np.random.default_rng(1)
    for offset in rng.uniform(-3, 3, (5, 3)):
        moved = tuple(np.array(center) + offset)
        assert np.array_equal(array(segment_nodule(ct, moved, model=bright_model()).final), reference)


def test_what_was_clicked_is_outlined_though_it_was_connected_with_a_larger_neighbor():
    """The first look sees one part, whose center lies in the larger ball; the next ones see two."""
    ct, center = ball_ct()
    small = (center[0] + 25.0, *center[1:])
    values = array(ct)
    _, y, x = np.round(Grid.of(ct).points_to_indices([center])[0]).astype(int)[::-1]
    z = values.shape[0] // 2
    values[z - 2 : z + 3, y - 2 : y + 3, x : x + 32] = np.maximum(
        values[z - 2 : z + 3, y - 2 : y + 3, x : x + 32], -550
    )
    model = bright_model()
    forward, calls = model.networks[0].forward, []

    def changing(stack):
        calls.append(len(stack))
        return {key: value + (10 if len(calls) <= 3 else 0) for key, value in forward(stack).items()}

    with_input(model, cube_sizes=(96,))
    model.networks[0].forward = changing
    result = segment_nodule(Grid.of(ct).image(values), small, model=model)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(result.final)
    assert np.linalg.norm(np.array(shape.GetCentroid(1)) - small) < 2


def test_a_point_a_little_beside_a_small_nodule_finds_it():
    ct, center = ball_ct(radius=3.0)
    assert segment_nodule(ct, (center[0] + 6, center[1], center[2]), model=bright_model())
    with pytest.raises(NoNoduleError, match=r"no nodule found within 6 mm of the point \("):
        segment_nodule(ct, (center[0] - 12, center[1], center[2]), model=bright_model())


def test_a_large_nodule_makes_the_region_grow():
    ct, center = ball_ct(radius=26.0, size=(110, 110, 90))
    result = segment_nodule(ct, center, model=bright_model())
    assert result.measurements["volumes_mm3"]["final"] == pytest.approx(volume_of_ball(-450, 26.0), rel=0.02)
    assert [code_of(warning) for warning in result.warnings] == ["found-large"]


def test_a_nodule_at_the_border_of_the_ct():
    ct, _ = ball_ct()
    corner = Grid.of(ct).indices_to_points([[2, 40, 1]])[0]
    ct, center = ball_ct(center=corner)
    result = segment_nodule(ct, center, model=bright_model())
    inside = array(ct) >= -450
    inside[:, :, 20:] = False  # the second ball
    expected = inside.sum() * np.prod(ct.GetSpacing())
    assert result.measurements["volumes_mm3"]["final"] == pytest.approx(expected, rel=0.05)
    assert result.warnings == ["the nodule reaches the border of the CT: its real size is larger"]
    assert result.provenance.warning_codes == ("ct-border",)


def test_near_a_mask_equals_its_centroid():
    ct, center = ball_ct()
    mask = sitk.Cast(ct > -300, sitk.sitkUInt8)
    mask_array = array(mask)
    mask_array[:, :, 60:] = 0
    mask = Grid.of(ct).image(mask_array)
    result = segment_nodule(ct, near=mask, model=bright_model())
    assert np.array_equal(array(result.final), array(segment_nodule(ct, center, model=bright_model()).final))
    with pytest.raises(PointError, match="empty"):
        segment_nodule(ct, near=mask * 0, model=bright_model())
    with pytest.raises(PointError, match="either a point"):
        segment_nodule(ct, model=bright_model())


def test_bad_inputs_are_named():
    ct, center = ball_ct()
    model = bright_model()
    with pytest.raises(PointError, match="outside the volume"):
        segment_nodule(ct, (1e4, 0, 0), model=model)
    with pytest.raises(PointError, match="three finite numbers"):
        segment_nodule(ct, (float("nan"), 0, 0), model=model)
    broken = array(ct)
    broken[30, 40, 40] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        segment_nodule(Grid.of(ct).image(broken), center, model=model)
    with pytest.raises(ImageError, match="single slice"):
        segment_nodule(ct[:, :, 10:11], center, model=model)
    with pytest.raises(ImageError, match="color or vector"):
        segment_nodule(sitk.Compose([ct, ct, ct]), center, model=model)


def test_thick_slices_still_give_three_outlines():
    ct, center = ball_ct(radius=2.5, size=(80, 80, 16), spacing=(0.8, 0.8, 5.0))
    result = segment_nodule(ct, center, model=bright_model())
    assert all(array(m).any() for m in (result.hc, result.lc, result.final))


def test_empty_outlines_fall_back_and_say_so():
    maps = {key: np.zeros((7, 7, 7), np.float32) for key in ("union", "intersection", "final")}
    maps["final"][3, 3, 3] = 0.4
    notes = []
    hc, lc, final = nested_masks(maps, maps["final"], {"union": 0.5, "intersection": 0.5, "final": 0.5}, notes)
    assert hc.sum() == final.sum() == lc.sum() == 1
    assert hc[3, 3, 3]
    assert not (hc & lc).any()
    assert len(notes) == 3


def test_averaging_over_flips_and_views_keeps_geometry():
    """The bright network looks at one voxel alone, so every flip and view must give the same maps to the last voxel."""
    rng = np.random.default_rng(0)
    hu = rng.uniform(-1000, 300, (16, 16, 16)).astype(np.float32)
    model = bright_model()
    plain = predict_cube(model, hu, np.zeros(3), np.ones(3))
    flips = tuple((a, b) if b != a else (a,) for a in range(3) for b in range(3))
    averaged = predict_cube(model, hu, np.zeros(3), np.ones(3), averaging=Averaging(flips, tuple(VIEWS)))
    for key in plain:
        np.testing.assert_allclose(averaged[key], plain[key], atol=1e-5)


def test_the_position_channel_follows_flips_and_views():
    class Position(torch.nn.Module):
        def forward(self, x):
            return {"final": torch.logit(x[:, -1:].clamp(1e-6, 1 - 1e-6))}

    model = bright_model()
    model.networks = [Position()]
    with_input(model, position=True)
    hu, offset, spacing = np.zeros((12, 14, 16), np.float32), np.array([-3.0, -4.0, -9.0]), np.array([0.7, 0.8, 0.9])
    plain = predict_cube(model, hu, offset, spacing)["final"]
    assert np.unravel_index(plain.argmax(), plain.shape) == (4, 5, 10)
    for axis in range(3):
        for view in VIEWS:
            turned = predict_cube(model, hu, offset, spacing, averaging=Averaging(((axis,),), (view,)))["final"]
            np.testing.assert_allclose(turned, plain, atol=1e-5)


def test_a_box_limits_the_slices_that_are_computed():
    class Counting(torch.nn.Module):
        slices = 0

        def forward(self, x):
            Counting.slices += len(x)
            return {"final": x[:, :1]}

    model = bright_model()
    model.networks = [Counting()]
    out = predict_cube(model, np.zeros((20, 16, 16), np.float32), np.zeros(3), np.ones(3), ((5, 9), (0, 16), (0, 16)))
    assert Counting.slices == 4
    assert not out["final"][:5].any()
    assert not out["final"][9:].any()
    assert out["final"][5:9].all()


def test_out_of_memory_falls_back_to_the_cpu(monkeypatch, caplog):
    model, calls = bright_model(), []
    model.device = torch.device("meta")  # stands for an accelerator
    real = prediction._run

    def run(model, stack, progress=None, networks=None):
        calls.append(model.device.type)
        if model.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, stack, progress)

    monkeypatch.setattr(prediction, "_run", run)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    ct, center = ball_ct()
    assert segment_nodule(ct, center, model=model)
    assert calls[:2] == ["meta", "cpu"]
    assert set(calls[1:]) == {"cpu"}
    assert "going on with the CPU" in caplog.text


def test_progress_rises_to_the_end():
    ct, center = ball_ct()
    seen = []
    segment_nodule(ct, center, model=bright_model(), progress=lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert {stage for stage, _ in seen} == {"finding the nodule", "outlining", "measuring"}
