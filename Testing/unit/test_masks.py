"""Masks that hold more, or something else, than one nodule."""

import numpy as np
import pytest
import SimpleITK as sitk

from fake_model import bright_model
from LungNoduleKit.errors import MaskError, PointError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.mask_parts import SPECK_MM3, mask_parts, place_of
from LungNoduleKit.masks import read_mask
from LungNoduleKit.segmentation_file import write_segmentation
from LungNoduleUncertaintyLib import __main__ as cli
from LungNoduleUncertaintyLib.outlining.segmentation import segment_nodule
from SoftMaskLabelerLib.__main__ import main as label
from test_segmentation import ball_ct

GRID = Grid((60, 50, 40), (0.7, 0.7, 1.25), (-10.0, 5.0, 40.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def points(grid=GRID):
    k, j, i = np.indices(grid.shape)
    return grid.indices_to_points(np.stack([i, j, k], -1))


def ball(center, radius, grid=GRID):
    return np.linalg.norm(points(grid) - grid.indices_to_points(center), axis=-1) <= radius


A, B, SPECK = ball((15, 15, 10), 5), ball((45, 35, 28), 3), ball((15, 40, 30), 0.8)


def centroid(mask):
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(GRID.image(mask.astype(np.uint8)))
    return shape.GetCentroid(1)


def write(path, array, kind=np.uint8, grid=GRID):
    sitk.WriteImage(grid.image(np.asarray(array).astype(kind)), str(path))
    return path


def test_each_part_of_a_mask_has_its_place():
    said = []
    parts = mask_parts(GRID.image((A | B | SPECK).astype(np.uint8)), said.append)
    assert [part.point_lps for part in parts] == [centroid(A), centroid(B)]
    assert [part.volume_mm3 for part in parts] == pytest.approx([m.sum() * 0.7 * 0.7 * 1.25 for m in (A, B)])
    assert said == [f"the mask given as the nodule's place: a speck of less than {SPECK_MM3:g} mm3 left out"]


def test_a_compact_part_has_its_centroid_to_the_last_bit():
    for mask in (A, B, SPECK, A | ball((23, 15, 10), 2)):
        (part,) = mask_parts(GRID.image(mask.astype(np.uint8)))
        assert part.point_lps == centroid(mask)


def test_fragments_of_one_outline_are_one_part():
    broken = A.copy()
    broken[10] = False
    (part,) = mask_parts(GRID.image(broken.astype(np.uint8)), pytest.fail)
    assert part.volume_mm3 == pytest.approx(broken.sum() * 0.7 * 0.7 * 1.25)


def test_a_ring_has_a_point_inside_of_it():
    ring = ball((30, 25, 20), 12) & ~ball((30, 25, 20), 8)
    (part,) = mask_parts(GRID.image(ring.astype(np.uint8)))
    index = np.rint(GRID.points_to_indices(part.point_lps)).astype(int)
    assert ring[tuple(index[::-1])]
    assert np.linalg.norm(np.subtract(part.point_lps, GRID.indices_to_points((30, 25, 20)))) == pytest.approx(10, abs=1)


def test_several_parts_are_counted_and_one_can_be_chosen():
    mask = GRID.image((A | B).astype(np.uint8))
    with pytest.raises(
        MaskError, match=r"has 2 parts \(1: 5\d\d mm3 at \(.*\); 2: 1\d\d mm3 at .*choose one \(--part\)"
    ):
        place_of(mask)
    assert place_of(mask, 2).point_lps == centroid(B)
    with pytest.raises(MaskError, match="no part 3: it has 2 parts"):
        place_of(mask, 3)
    with pytest.raises(PointError, match="empty"):
        place_of(GRID.image())


def two_balls():
    """A CT with two nodules, and their masks' arrays."""
    ct, center = ball_ct()
    both = sitk.GetArrayFromImage(ct) > -300
    first = both.copy()
    first[:, :, 60:] = False
    return ct, center, first, both & ~first


def test_near_a_mask_of_two_nodules_is_refused_and_one_part_means_its_nodule(tmp_path, monkeypatch, capsys):
    ct, center, first, second = two_balls()
    assert second.any()
    grid = Grid.of(ct)
    with pytest.raises(MaskError, match="has 2 parts"):
        segment_nodule(ct, near=grid.image(first | second), model=bright_model())
    number = 1 if first.sum() >= second.sum() else 2
    expected = segment_nodule(ct, center, model=bright_model())
    found = segment_nodule(ct, near=grid.image(first | second), part=number, model=bright_model())
    assert found.measurements == expected.measurements
    monkeypatch.setattr(cli, "load_model", lambda *_: bright_model())
    sitk.WriteImage(ct, str(tmp_path / "ct.nrrd"))
    path = write(tmp_path / "labels.nii.gz", first + 2 * second, np.int64, grid)
    given = [
        "segment",
        str(tmp_path / "ct.nrrd"),
        "--near",
        str(path),
        "--output",
        str(tmp_path / "n.seg.nrrd"),
        "--quiet",
    ]
    assert cli.main(given) == 1
    assert "it holds 2 labels: 1 (" in capsys.readouterr().err
    assert cli.main([*given, "--label", "1"]) == 0
    assert sitk.GetArrayFromImage(read_mask(tmp_path / "n.seg.nrrd", warn=str)).any()
    with pytest.raises(SystemExit):
        cli.main(["segment", "ct.nrrd", "--point", "1", "2", "3", "--part", "1", "--output", "n.seg.nrrd"])


def test_labels_are_chosen(tmp_path):
    path = write(tmp_path / "m.nrrd", A + 2 * B, np.int16)
    with pytest.raises(MaskError, match=r"m.nrrd: it holds 2 labels: 1 \(5\d\d mm3\), 2 \(1\d\d mm3\); choose one"):
        read_mask(path)
    for number, expected in (("1", A), ("2", B)):
        assert np.array_equal(sitk.GetArrayFromImage(read_mask(path, label=number)), expected)
    with pytest.raises(MaskError, match="it has no label 7"):
        read_mask(path, label="7")
    for value in (1, 7, 255):
        assert np.array_equal(sitk.GetArrayFromImage(read_mask(write(path, value * A))), A)
    floats = write(tmp_path / "f.nrrd", A + 2.0 * B, np.float32)
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(floats, label="2")), B)


@pytest.mark.parametrize(("scale", "kind"), [(1, np.float32), (1, np.float64), (255, np.uint8), (65535, np.uint16)])
def test_probabilities_count_from_a_half(tmp_path, scale, kind):
    probability = np.clip(1 - np.linalg.norm(points() - GRID.indices_to_points((30, 25, 20)), axis=-1) / 20, 0.01, 1)
    path, said = write(tmp_path / "p.nrrd", np.round(probability * scale, 3 if scale == 1 else 0), kind), []
    mask = sitk.GetArrayFromImage(read_mask(path, warn=said.append))
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(mask, stored >= scale / 2)
    assert said == [f"{path}: it holds probabilities; from 0.5 on they are the mask"]


@pytest.mark.parametrize(
    ("array", "kind", "words"),
    [
        (np.where(A, 0.3, 0), np.float32, "the mask is empty .its largest probability is 0.3"),
        (np.linspace(-1000, 400, A.size).reshape(A.shape), np.int16, "it isn't a mask: .* different values"),
        (np.linspace(0, 9, A.size).reshape(A.shape), np.float32, "neither labels nor probabilities"),
        (np.where(A, np.nan, 0), np.float32, "NaN or infinite"),
        (np.zeros(A.shape), np.uint8, "the mask is empty"),
    ],
)
def test_what_is_no_mask(tmp_path, array, kind, words):
    with pytest.raises(MaskError, match=words):
        read_mask(write(tmp_path / "m.nrrd", array, kind))


def test_a_lungs_mask_is_refused(tmp_path, capsys):
    grid = Grid((40, 40, 60), (2.0, 2.0, 2.5), (0.0, 0, 0), GRID.direction)
    lung = np.zeros(grid.shape, np.uint8)
    lung[5:50, 5:35, 5:30] = 1
    path = write(tmp_path / "lung.nrrd", lung, grid=grid)
    with pytest.raises(MaskError, match=r"lung.nrrd: it is 112 mm long, no nodule .at most 100 mm"):
        read_mask(path)
    ct = write(tmp_path / "ct.nrrd", np.full(grid.shape, -800), np.int16, grid)
    for option in ("--mask", "--readers"):
        assert label([str(ct), option, str(path), "--output", str(tmp_path / "s.nrrd"), "--quiet"]) == 1
        assert "112 mm long" in capsys.readouterr().err
    apart = np.zeros(grid.shape, np.uint8)
    apart[2:6, 5:9, 5:9] = apart[52:56, 5:9, 5:9] = 1  # two nodules far from each other
    assert read_mask(write(path, apart, grid=grid)) is not None


def test_soft_mask_of_a_label(tmp_path, capsys):
    hu = np.where(A | B, 40, -850)
    ct, mask = write(tmp_path / "ct.nrrd", hu, np.int16), write(tmp_path / "m.nrrd", A + 2 * B)
    alone = write(tmp_path / "b.nrrd", B)
    given = [str(ct), "--mask", str(mask), "--output", str(tmp_path / "s.nrrd"), "--quiet"]
    assert label(given) == 1
    assert "2 labels" in capsys.readouterr().err
    assert label([*given, "--label", "2"]) == 0
    assert label([str(ct), "--mask", str(alone), "--output", str(tmp_path / "t.nrrd"), "--quiet"]) == 0
    one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{n}.nrrd"))) for n in "st")
    assert np.array_equal(one, other)


def test_a_segment_is_chosen_by_name(tmp_path):
    path, said = tmp_path / "s.seg.nrrd", []
    write_segmentation(path, [("Final", GRID.image(A), (1, 0, 0)), ("Vessel", GRID.image(B), (0, 1, 0))])
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(path, label="Final", warn=pytest.fail)), A)
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(path, warn=said.append)), A | B)
    assert said == [f"{path}: the union of its 2 segments is the mask"]
    with pytest.raises(MaskError, match="it has no segment 'HC'; it has Final, Vessel"):
        read_mask(path, label="HC")
