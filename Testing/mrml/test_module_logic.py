"""The module that Slicer loads: its logic and its own test, on Slicer's MRML with stand-ins for the application."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import slicer

from LungNoduleUncertaintyLib.errors import NoduleError, PointError


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
    assert logic.lastResult.provenance["model"] == "fake|model"
    np.testing.assert_array_equal(tools.segment_array(created, "Final", volume), inside)
    again = logic.segment(volume, near=(created, "HC"), segmentationNode=created, prefix="Mine")
    assert again is created
    assert list(tools.ids_by_name(created))[3:] == ["Mine HC", "Mine LC", "Mine Final"]


def test_last_defined_point_of_a_list_counts(module, scene, tools):
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
    logic = module.LungNoduleUncertaintyLogic(segmentNodule=tools.fake_segment)
    with pytest.raises(PointError, match="'Points'"):
        logic.lastPoint(markups)
    markups.AddControlPoint([1, 2, 3])
    markups.AddControlPoint([4, 5, 6])
    assert logic.lastPoint(markups) == (4, 5, 6)
    markups.UnsetNthControlPointPosition(1)
    assert logic.lastPoint(markups) == (1, 2, 3)


def packaging(satisfied, log):
    """A stand-in for slicer.packaging that notes what it is asked to install."""
    stand_in = types.ModuleType("slicer.packaging")
    stand_in.load_requirements = lambda path: [
        line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")
    ]
    stand_in.pip_check = lambda requirement: satisfied
    stand_in.pip_ensure = lambda requirements, requester: log.append((requirements, requester))
    return stand_in


def test_missing_packages_are_installed_only_when_the_user_may_be_asked(module, monkeypatch):
    log, logic = [], module.LungNoduleUncertaintyLogic()
    stand_in = packaging(False, log)
    monkeypatch.setitem(sys.modules, "slicer.packaging", stand_in)
    monkeypatch.setattr(slicer, "packaging", stand_in, raising=False)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoduleError, match="torch, safetensors"):
        logic.ensurePackages()
    assert log == []
    with pytest.raises(NoduleError, match="install Slicer's PyTorch extension"):
        logic.ensurePackages(interactive=True)
    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = lambda: types.SimpleNamespace(
        installTorch=lambda askConfirmation: log.append("torch") or object()
    )
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    logic.ensurePackages(interactive=True)
    assert log == ["torch", (["safetensors>=0.4.3"], "LungNoduleUncertainty")]
    stand_in.pip_check = lambda requirement: True
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    logic.ensurePackages(interactive=True)
    assert len(log) == 2


def test_slicers_own_test_of_the_module_passes(module, tools):
    case = module.LungNoduleUncertaintyTest("test_SyntheticNodule")
    case.logic = module.LungNoduleUncertaintyLogic(segmentNodule=tools.fake_segment)
    case.setUp()
    case.test_SyntheticNodule()


def test_slicers_own_test_passes_with_the_shipped_model(module, monkeypatch):
    from LungNoduleUncertaintyLib.model_bundle import DEFAULT_BUNDLE, available_bundles

    if DEFAULT_BUNDLE not in available_bundles():
        pytest.skip(f"the bundle {DEFAULT_BUNDLE} isn't there")
    stand_in = packaging(True, [])
    monkeypatch.setitem(sys.modules, "slicer.packaging", stand_in)
    monkeypatch.setattr(slicer, "packaging", stand_in, raising=False)
    case = module.LungNoduleUncertaintyTest("test_SyntheticNodule")
    case.setUp()
    case.test_SyntheticNodule()
    assert case.logic is None  # the real one was used
