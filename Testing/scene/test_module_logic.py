"""The module that Slicer loads: its logic and its own test, on Slicer's MRML with stand-ins for the application."""

import importlib
import sys
import types

import numpy as np
import pytest

from LungNoduleKit.errors import PointError
from LungNoduleUncertaintyLib.scene.points import last_point, line_middle


@pytest.fixture
def module(scene, monkeypatch):
    monkeypatch.delitem(sys.modules, "LungNoduleUncertainty", raising=False)
    yield importlib.import_module("LungNoduleUncertainty")
    sys.modules.pop("LungNoduleUncertainty", None)


def test_module_describes_itself(module):
    parent = types.SimpleNamespace()
    module.LungNoduleUncertainty(parent)
    assert parent.title == "Lung Nodule Uncertainty"
    assert parent.categories == ["Segmentation"]
    assert "HC" in parent.helpText


def test_logic_adds_three_segments(module, scene, tools):
    matrix = tools.oblique()
    center = (matrix @ [20, 18, 12, 1])[:3]
    inside = tools.ball((24, 36, 40), matrix, center, 6.0)
    volume = tools.add_volume(scene, np.where(inside, tools.TISSUE, tools.AIR).astype(np.int16), matrix)
    logic = module.LungNoduleUncertaintyLogic(segmentNodule=tools.fake_segment)
    created = logic.segment(volume, point=center)
    assert list(tools.ids_by_name(created)) == ["HC", "LC", "Final"]
    assert logic.lastResult.provenance.model == "fake|model"
    np.testing.assert_array_equal(tools.segment_array(created, "Final", volume), inside)
    again = logic.segment(volume, near=(created, "HC"), segmentationNode=created, prefix="Mine")
    assert again is created
    assert list(tools.ids_by_name(created))[3:] == ["Mine HC", "Mine LC", "Mine Final"]


def test_last_placed_point_and_middle_of_a_line(scene):
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
    with pytest.raises(PointError, match="'Points'"):
        last_point(markups)
    markups.AddControlPoint([1, 2, 3])
    markups.AddControlPoint([4, 5, 6])
    assert last_point(markups) == (4, 5, 6)
    markups.UnsetNthControlPointPosition(1)
    assert last_point(markups) == (1, 2, 3)
    line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "RECIST")
    line.AddControlPoint([0, 0, 0])
    with pytest.raises(PointError, match="'RECIST': place both of its ends"):
        line_middle(line)
    line.AddControlPoint([2, 4, -6])
    assert line_middle(line) == (1, 2, -3)


def test_slicers_own_test_of_the_module_passes(module, tools):
    case = module.LungNoduleUncertaintyTest("test_SyntheticNodule")
    case.logic = module.LungNoduleUncertaintyLogic(segmentNodule=tools.fake_segment)
    case.setUp()
    case.test_SyntheticNodule()


def test_slicers_own_test_passes_with_the_shipped_model(module):
    case = module.LungNoduleUncertaintyTest("test_SyntheticNodule")
    case.setUp()
    case.test_SyntheticNodule()
    assert case.logic is None  # the real one was used
