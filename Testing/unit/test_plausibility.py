"""Results that can't be a nodule get a warning with the reason; nodules get none."""

import logging
import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from fake_model import bright_model, with_input
from LungNoduleKit.errors import NoNoduleError
from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.measuring.measurements import measure
from LungNoduleUncertaintyLib.outlining.plausibility import Outlined, doubts, solid_tissue_mm
from test_segmentation import ball_ct

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((64, 64, 56), (0.9, 0.9, 1.25), (-40.0, 12.0, -400.0), IDENTITY)
MIDDLE = GRID.center_lps


def points():
    i, j, k = np.meshgrid(*(np.arange(n) for n in GRID.size), indexing="ij")
    lps = GRID.indices_to_points(np.stack([i, j, k], -1).reshape(-1, 3)) - MIDDLE
    return lps.reshape(*GRID.size, 3).transpose(2, 1, 0, 3)


POINTS = points()


def ball(radius, center=(0.0, 0.0, 0.0)):
    return np.linalg.norm(POINTS - center, axis=-1) <= radius


def tube(radius, axis, half_length=1000.0):
    across = [a for a in range(3) if a != axis]
    return (np.linalg.norm(POINTS[..., across], axis=-1) <= radius) & (np.abs(POINTS[..., axis]) <= half_length)


def codes(final, hc=None, union=None, probability=0.95, hu=30.0, first=None, point=MIDDLE):
    """Codes of the warnings for a result with this Final; by default HC and the union are a little off it."""
    if hc is None:
        hc = ndimage.distance_transform_edt(final, sampling=GRID.spacing[::-1]) > 1.0
    if union is None:
        union = ndimage.distance_transform_edt(~final, sampling=GRID.spacing[::-1]) < 1.0
    images = [GRID.image(mask.astype(np.uint8)) for mask in (hc, union & ~hc, final)]
    values = np.where(final, np.float32(hu), np.float32(-860))
    measured = measure(GRID.image(values), *images)
    first = measured["volumes_mm3"]["final"] if first is None else first
    chances = np.where(final, np.float32(probability), np.float32(0))
    return [w.code for w in doubts(Outlined(GRID, final, union, chances, measured, point, first), GRID)]


@pytest.mark.parametrize("radius", [3.0, 6.0, 12.0, 20.0])
def test_a_ball_is_a_nodule(radius):
    assert codes(ball(radius)) == []


def test_an_egg_and_a_lobulated_nodule_are_nodules():
    assert codes(np.linalg.norm(POINTS / (9.0, 6.0, 8.0), axis=-1) <= 1) == []
    assert codes(ball(7.0) | ball(5.0, (6.0, 3.0, 0.0))) == []
    assert codes(ball(6.0) | tube(1.2, 2, 9.0)) == []  # a short spicule


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("radius", [2.5, 3.5])
def test_a_nodule_on_a_straight_vessel(axis, radius):
    assert "elongated" in codes(ball(4.5) | tube(radius, axis, 20.0))


def test_a_thin_tail():
    assert codes(ball(9.0) | tube(2.0, 0, 24.0) & (POINTS[..., 0] > 0)) == ["tail"]


def test_a_flat_outline_along_the_pleura():
    flat = (np.abs(POINTS[..., 0]) < 3.0) & (np.abs(POINTS[..., 1]) < 14.0) & (np.abs(POINTS[..., 2]) < 10.0)
    assert codes(flat) == ["elongated"]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_the_border_of_the_ct(axis, side):
    center = np.zeros(3)
    center[axis] = side * GRID.size[axis] * GRID.spacing[axis] / 2
    point = tuple(np.array(MIDDLE) + center)
    assert codes(ball(8.0, center), point=point) == ["ct-border"]
    center[axis] -= side * 10.0
    assert codes(ball(8.0, center), point=tuple(np.array(MIDDLE) + center)) == []


def test_far_from_the_point():
    assert codes(ball(5.0), point=tuple(np.add(MIDDLE, (10.0, 0.0, 0.0)))) == []
    assert codes(ball(5.0), point=tuple(np.add(MIDDLE, (14.0, 0.0, 0.0)))) == ["away-from-point"]


def test_another_part_than_the_first_look_found():
    volume = ball(6.0).sum() * GRID.voxel_volume_mm3
    assert codes(ball(6.0), first=1.3 * volume) == []
    assert codes(ball(6.0), first=2.5 * volume) == ["other-part"]
    assert codes(ball(6.0), first=0.3 * volume) == ["other-part"]


def test_an_unsure_model():
    assert codes(ball(6.0), probability=0.7) == ["unsure"]
    assert "unsure" in codes(ball(6.0), hc=ball(2.0), union=ball(6.5))
    assert codes(ball(6.0), hc=ball(5.0), union=ball(8.0)) == ["wide-interval"]


def test_a_density_that_no_nodule_has():
    assert codes(ball(6.0), hu=-900.0) == ["density"]
    assert codes(ball(6.0), hu=2900.0) == ["density"]
    assert codes(ball(6.0), hu=-700.0) == codes(ball(6.0), hu=900.0) == []


def test_final_alone_is_judged_too():
    final = ball(4.5) | tube(3.0, 2, 20.0)
    measured = measure(GRID.image(np.where(final, 30.0, -860.0)), None, None, GRID.image(final.astype(np.uint8)))
    found = Outlined(GRID, final, None, final.astype(np.float32), measured, MIDDLE, measured["volumes_mm3"]["final"])
    (warning,) = doubts(found, GRID)
    assert re.fullmatch(
        r"the outline is (39|40) mm long at a mean axis of [89]\.\d mm: it may follow a vessel", warning
    )


def test_a_ball_and_a_cylinder_along_z_are_told(caplog):
    """From the CT to the warning: the ball alone has none; with the vessel the warning is there, and logged once."""
    values = np.clip((4.0 - np.linalg.norm(POINTS, axis=-1)) / 1.5 + 0.5, 0, 1)
    vessel = np.clip((3.0 - np.linalg.norm(POINTS[..., :2], axis=-1)) / 1.5 + 0.5, 0, 1)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 15, values.shape)
    alone = GRID.image((-860 + 890 * values + noise).astype(np.float32))
    both = GRID.image((-860 + 890 * np.maximum(values, vessel) + noise).astype(np.float32))
    ball_alone = segment_nodule(alone, MIDDLE, model=bright_model())
    assert ball_alone.warnings == []
    with caplog.at_level(logging.WARNING):
        result = segment_nodule(both, MIDDLE, model=bright_model())
    assert result.measurements["mean_axis_mm"]["final"] == ball_alone.measurements["mean_axis_mm"]["final"]
    assert result.measurements["volumes_mm3"]["final"] > 4 * ball_alone.measurements["volumes_mm3"]["final"]
    assert "elongated" in result.provenance.warning_codes
    assert [record.getMessage() for record in caplog.records] == result.warnings


def test_what_the_model_cant_look_at_is_told():
    ct, center = ball_ct(radius=14.0)
    model = with_input(bright_model(), cube_sizes=(32,))
    result = segment_nodule(ct, center, model=model)
    assert result.provenance.warning_codes[0] == "larger-than-cube"


def test_solid_tissue_around_a_point():
    for radius in (10.0, 20.0):
        ct, center = ball_ct(radius=radius)
        assert solid_tissue_mm(ct, center) == pytest.approx(2 * radius, abs=4.0)
        assert solid_tissue_mm(ct, tuple(np.add(center, (0.0, radius - 4, 0.0)))) == pytest.approx(2 * radius, abs=4.0)
        assert solid_tissue_mm(ct, tuple(np.add(center, (0.0, radius + 3, 0.0)))) == 0


class _Blind(torch.nn.Module):
    """A network that sees nothing."""

    def forward(self, x):
        return {key: torch.full_like(x[:, 1:2], -20.0) for key in ("union", "final", "single", "intersection")}


def test_nothing_found_in_solid_tissue_says_how_large_it_is():
    ct, center = ball_ct(radius=24.0)
    model = bright_model()
    model.networks = [_Blind()]
    with pytest.raises(NoNoduleError, match=r"no nodule found .*; it lies in solid tissue of at least (44|46|48) mm"):
        segment_nodule(ct, center, model=model)
    ct, center = ball_ct(radius=16.0)
    with pytest.raises(NoNoduleError, match=r"no nodule found within 6 mm of the point \([^)]*\) mm LPS$"):
        segment_nodule(ct, center, model=model)
