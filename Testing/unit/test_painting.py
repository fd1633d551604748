"""Painted copies: what they look like, whose masks they have, and that training sees them."""

import numpy as np
import pytest
from scipy import ndimage

from Training.config import Config, ConfigError, Painting, changed
from Training.data.nodule import Nodule
from Training.sampling.painting import is_fit, magnified, paint_cavity, paint_vessel, painted, painted_copies
from Training.sampling.volumes import VolumeBatches
from training_data import make_nodule

KINDS = ("cavity", "mass", "vessel", "calcified", "flat")


def ball(diameter_mm=14.0, spacing=0.7, margin=7, texture=5.0, seed=0):
    """A ball of tissue in lung with four readers."""
    rng = np.random.default_rng(seed)
    radius = diameter_mm / 2 / spacing
    count = int(2 * (radius + margin)) // 2 * 2
    plane = max(count, 64)
    axes = [np.arange(n) - (n - 1) / 2 for n in (count, plane, plane)]
    away = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    hu = np.where(away < radius, 30, -860) + rng.normal(0, 15, away.shape)
    readers = np.stack([away < radius + d for d in (-0.5, 0, 0.5, 1)])
    row = {"texture": f"{texture:.2f}", "internal_structure": "1.00"}
    return Nodule(f"N{seed}", f"P{seed}", 0, hu.astype(np.int16), readers, np.full(3, spacing), row)


def diameter(nodule):
    return float((6 / np.pi * nodule.consensus.sum() * np.prod(nodule.spacing)) ** (1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_a_nodule_like_any_other(kind):
    nodule = ball(diameter_mm=18.0)
    copy = painted(nodule, kind, np.random.default_rng(1))
    assert (copy.nodule_id, copy.patient_id) == (f"N0+{kind}", nodule.patient_id)
    assert (copy.hu.dtype, copy.readers.dtype) == (np.int16, bool)
    assert -1024 <= copy.hu.min() < copy.hu.max() <= 300
    assert copy.readers.shape == (4, *copy.hu.shape)
    assert copy.readers.any((1, 2, 3)).all()
    assert np.array_equal(painted(nodule, kind, np.random.default_rng(1)).hu, copy.hu), "not a function of the seed"
    assert nodule.hu.max() < 200, "the nodule itself was changed"


@pytest.mark.parametrize(("wall", "wanted"), [(2.0, 14.0), (5.0, 24.0), (6.0, 8.0)])
def test_a_cavity_is_air_behind_a_wall_and_belongs_to_its_nodule(wall, wanted):
    rng = np.random.default_rng(3)
    copy = paint_cavity(magnified(ball(), rng, wanted), rng, wall)
    assert diameter(copy) == pytest.approx(wanted, rel=0.06)
    inside = ndimage.binary_erosion(copy.consensus, iterations=1)
    air = inside & (copy.hu < -600)
    assert air.any(), "no air in the nodule"
    depth = ndimage.distance_transform_edt(copy.consensus, sampling=copy.spacing)
    assert depth[air].min() > 0.5, "the wall has a hole"
    assert (copy.hu[inside & (depth < 1.0)] > -500).mean() > 0.8


def test_a_magnified_nodule_is_as_sharp_as_before():
    copy = painted(ball(diameter_mm=14.0), "mass", np.random.default_rng(0))
    assert 24 < diameter(copy) < 36
    middle = copy.hu[copy.hu.shape[0] // 2]
    share = ((middle > -700) & (middle < -100)).sum() / np.sqrt(copy.consensus[copy.hu.shape[0] // 2].sum())
    assert share < 9, "its border is blurred"


def test_a_vessel_goes_on_where_the_nodule_has_ended():
    nodule = ball(diameter_mm=6.0)
    copy = paint_vessel(nodule, np.random.default_rng(2))
    more = (len(copy.hu) - len(nodule.hu)) // 2
    assert more >= 15
    assert np.array_equal(copy.readers[:, more:-more], nodule.readers)
    assert not copy.readers[:, [*range(more), *range(-more, 0)]].any()
    assert (copy.hu.max((1, 2)) > -100).all(), "a slice without the vessel"


def test_only_solid_nodules_that_are_wide_enough_become_cavities():
    assert is_fit(ball(), "cavity")
    assert not is_fit(ball(diameter_mm=4.0), "cavity")
    assert not is_fit(ball(texture=1.5), "cavity")
    assert is_fit(ball(diameter_mm=4.0, texture=1.5), "vessel")


def test_the_configuration_says_how_many_copies_there_are():
    nodules = [ball(seed=n) for n in range(5)]
    nodules[0].row["internal_structure"] = "2.50"
    options = Painting(cavity=1.4, vessel=0.2, cavitary_repeats=2)
    names = [n.nodule_id for n in painted_copies(nodules, options, seed=0)]
    assert names.count("N0") == 2, "the data's own cavitary nodule is repeated"
    assert [sum(n.endswith(kind) for n in names) for kind in ("+cavity", "+vessel", "+mass")] == [7, 1, 0]
    assert painted_copies(nodules, Painting(), seed=0) == []
    with pytest.raises(ConfigError, match=r"painting\.cavities"):
        changed(Config(), {"painting": {"cavities": 1.0}})


def test_training_sees_the_copies_and_without_any_nothing_changes():
    nodules = [make_nodule(n) for n in range(6)]
    config = changed(Config(), {"training": {"batch": 4}, "data": {"crop": 16, "large_crop": 24}})
    plain, none = VolumeBatches(nodules, config), VolumeBatches(nodules, changed(config, {"painting": {"cavity": 0.0}}))
    assert plain.epoch_steps == none.epoch_steps
    assert all(bool((plain(step).image == none(step).image).all()) for step in range(2))
    more = VolumeBatches(nodules, changed(config, {"painting": {"vessel": 1.0}}))
    assert more.epoch_steps == 2 * plain.epoch_steps
    assert all(bool((more(step).image == more(step).image).all()) for step in range(2))
