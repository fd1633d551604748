"""Nodules that training data have few of, by the shipped model: cavities, masses, nodules on a vessel."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from fake_model import BrightNetwork, bright_model
from LungNoduleKit.errors import NoNoduleError
from LungNoduleKit.warning_codes import code_of
from LungNoduleUncertaintyLib import load_model, segment_nodule
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.outlining.finding import NoduleCube, _air_beside

SPACING = np.array([1.25, 0.7, 0.7])  # (z, y, x), mm


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


def lung(size_mm=70.0):
    """(HU of a block of lung, distance of each voxel from the middle in mm (z, y, x, 3))."""
    counts = np.ceil(size_mm / SPACING).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, SPACING, strict=True)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return np.full(counts, -860.0), place


def as_ct(values):
    ct = sitk.GetImageFromArray(np.rint(values).astype(np.int16))
    ct.SetSpacing(SPACING[::-1].tolist())
    ct.SetOrigin((-(np.array(values.shape[::-1]) - 1) / 2 * SPACING[::-1]).tolist())
    return ct


def outline(hu, truth, point, model):
    """(Dice of Final with the truth, codes of the warnings) for a click (z, y, x) in mm from the middle.

    Where nothing is found the only code is what the message says.
    """
    grain = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(hu.shape), [0.3, 0.65, 0.65])
    values = ndimage.gaussian_filter(hu, [0.3, 0.6, 0.6]) + 25 * grain / grain.std()
    ct = as_ct(values)
    try:
        result = segment_nodule(ct, point[::-1], model=model)
    except NoNoduleError as error:
        return 0.0, ["larger" if "larger than the model looks at" in str(error) else str(error)]
    back = sitk.Resample(result.final, ct, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0)
    final = sitk.GetArrayFromImage(back) > 0
    return 2 * (final & truth).sum() / (final.sum() + truth.sum()), [code_of(line) for line in result.warnings]


@pytest.mark.parametrize(("diameter", "wall"), [(12, 2), (30, 2)])
@pytest.mark.parametrize("where", ["wall", "cavity"])
def test_a_cavity_belongs_to_its_nodule(model, diameter, wall, where):
    hu, place = lung(max(60, diameter + 40))
    away = np.linalg.norm(place, axis=-1)
    hu[away <= diameter / 2], hu[away <= diameter / 2 - wall] = 35, -960
    point = (0.0, diameter / 2 - wall / 2, 0.0) if where == "wall" else (0.0, 0.0, 0.0)
    dice, codes = outline(hu, away <= diameter / 2, point, model)
    assert dice > 0.85
    assert "found-cavity" in codes


@pytest.mark.parametrize("where", ["wall", "cavity"])
def test_a_cavity_whose_wall_looks_open_belongs_to_its_nodule(model, where):
    hu, place = lung()
    away = np.linalg.norm(place, axis=-1)
    hu[away <= 9], hu[away <= 6] = 35, -960
    hu[(away <= 9) & (away > 6) & (np.abs(place[..., 1]) < 0.4) & (place[..., 2] < 0)] = -900
    dice, _ = outline(hu, away <= 9, (0.0, 0.0, 7.5 if where == "wall" else 0.0), model)
    assert dice > 0.85


@pytest.mark.parametrize(("gap_mm", "beside"), [(0.0, True), (1.0, True), (6.0, False)])
def test_air_beside_a_piece_of_a_wall(gap_mm, beside):
    hu, place = lung()
    away = np.linalg.norm(place[..., 1:], axis=-1)
    hu[(away <= 10) & (away > 6)] = 35
    hu[(np.abs(place[..., 1]) < gap_mm / 2) & (place[..., 2] < 0)] = -900
    ct = as_ct(hu)
    cube = NoduleCube(ct, (7.5, 0.0, 0.0), (7.5, 0.0, 0.0), 64, bright_model(), native_slices=True)
    left, _, _ = cube.grid.indices_to_points(np.indices(cube.hu.shape)[::-1].reshape(3, -1).T).T
    piece = (cube.hu > -400) & (left.reshape(cube.hu.shape) > 4)
    assert _air_beside(ct, cube, piece) is beside


def test_a_cavity_that_may_have_been_left_out_is_told():
    hu, place = lung()
    away = np.linalg.norm(place, axis=-1)
    hu[away <= 11], hu[away <= 9], hu[away <= 6] = -550, 35, -960
    usual, second = bright_model(), BrightNetwork().eval()
    second.register_forward_hook(lambda network, x, maps: {key: m + 10 for key, m in maps.items()})
    model = Model(usual.networks, usual.metadata, usual.device, rare=second)
    result = segment_nodule(as_ct(hu), (7.5, 0.0, 0.0), model=model)
    assert "found-air" in [code_of(line) for line in result.warnings]


@pytest.mark.parametrize(("diameter", "across"), [(50, 0.35), (80, 0.0)])
def test_a_mass_is_outlined_wherever_it_is_clicked(model, diameter, across):
    hu, place = lung(diameter + 50)
    inside = np.linalg.norm(place, axis=-1) <= diameter / 2
    hu[inside] = 35
    dice, codes = outline(hu, inside, (0.1 * diameter, 0.0, -across * diameter), model)
    assert dice > 0.9
    assert "found-large" in codes


def test_what_is_larger_than_the_model_looks_at_is_told(model):
    hu, place = lung(150)
    hu[np.linalg.norm(place, axis=-1) <= 74] = 35
    _, codes = outline(hu, hu > 0, (0.0, 0.0, 0.0), model)
    assert {"found-large", "larger-than-cube", "larger"} & set(codes)


def test_a_vessel_along_the_body_is_left_out_or_told(model):
    hu, place = lung(90)
    inside = np.linalg.norm(place, axis=-1) <= 5
    hu[np.hypot(place[..., 1], place[..., 2]) <= 2.5] = 40
    hu[inside] = 35
    dice, codes = outline(hu, inside, (0.0, 0.0, 0.0), model)
    assert dice > 0.7 or {"elongated", "tail"} & set(codes)


def test_an_ordinary_nodule_has_no_such_warning(model):
    hu, place = lung()
    inside = np.linalg.norm(place, axis=-1) <= 6
    hu[inside] = 35
    dice, codes = outline(hu, inside, (0.0, 0.0, 0.0), model)
    assert dice > 0.85
    assert codes == []
