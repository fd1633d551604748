"""Size classes at their limits, and what an interval that crosses one says."""

import pytest

from LungNoduleUncertaintyLib.measuring.size_classes import size_class, size_classes, size_sentence


@pytest.mark.parametrize(
    ("size", "expected"),
    [(5.9, "2"), (5.94, "2"), (5.95, "3"), (6.0, "3"), (7.9, "3"), (8.0, "4A"), (14.9, "4A"), (15.0, "4B")],
)
def test_solid(size, expected):
    assert size_class(size) == expected


@pytest.mark.parametrize(("size", "expected"), [(6.0, "2"), (29.9, "2"), (30.0, "3")])
def test_ground_glass(size, expected):
    assert size_class(size, "ground-glass") == expected


@pytest.mark.parametrize(
    ("size", "solid", "expected"),
    [(5.9, 5.9, "2"), (6.0, 5.9, "3"), (20.0, 0.0, "3"), (9.0, 6.0, "4A"), (9.0, 8.0, "4B")],
)
def test_part_solid(size, solid, expected):
    assert size_class(size, "part-solid", solid) == expected


def test_bad_sizes_and_types_are_named():
    with pytest.raises(ValueError, match="needs the mean axis of its solid part"):
        size_class(9.0, "part-solid")
    with pytest.raises(ValueError, match="nodule type 'cavity'"):
        size_class(9.0, "cavity")
    with pytest.raises(ValueError, match="mean axis nan"):
        size_class(float("nan"))


def measured(low, final, high, solid=(0.0, 0.0, 0.0)):
    axes = {"hc": low, "final": final, "union": high}
    return {
        "mean_axis_mm": axes,
        "solid_mean_axis_mm": dict(zip(axes, solid, strict=True)),
        "interval": {"mean_axis_mm": sorted([low, high])},
    }


def test_sentence_names_both_classes_when_the_interval_crosses_a_cut():
    crossing = measured(5.1, 6.8, 8.4)
    assert size_classes(crossing) == {"low": "2", "final": "3", "high": "4A"}
    assert size_sentence(crossing) == "6.8 mm [5.1, 8.4]: between Lung-RADS size classes 2 and 4A"
    assert size_sentence(measured(6.1, 6.8, 7.4)) == "6.8 mm [6.1, 7.4]: Lung-RADS size class 3"
    assert size_sentence(crossing, "ground-glass") == "6.8 mm [5.1, 8.4]: Lung-RADS size class 2"


def test_solid_part_goes_with_its_own_outline():
    part_solid = measured(7.0, 9.0, 11.0, solid=(5.0, 6.5, 8.1))
    assert size_classes(part_solid, "part-solid") == {"low": "3", "final": "4A", "high": "4B"}
    rounder = measured(9.0, 9.5, 8.5, solid=(8.2, 7.0, 5.0))  # HC's axis is the larger one
    assert size_classes(rounder, "part-solid") == {"low": "3", "final": "4A", "high": "4B"}
