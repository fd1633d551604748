"""A Slicer with a window, without the application: real MRML scene and logics, widgets on PySide6 off screen.

`slicer_gui` is the fixture; see `fake_slicer.Gui` for what it offers. In short:

    def test_apply(slicer_gui, repository):
        widget = slicer_gui.module_widget(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
        widget.ui.volumeSelector.setCurrentNode(volume)
        slicer_gui.click(widget.ui.applyButton)
        slicer_gui.wait_until(lambda: widget.ui.applyButton.text == "Apply")
        assert not slicer_gui.dialogs.shown

`panel` is the nodule panel on such a Slicer, with a CT; what a person does with it is in `panel_steps`.
"""

import importlib.util
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
HERE = Path(__file__).resolve().parent
CENTERS = {"A": (20, 18, 12), "B": (34, 30, 20), "C": (8, 28, 10)}  # voxels (x, y, z) of the panel's CT


def _scene_fixtures():
    """The conftest of the MRML tests, whose scene is used here too; it skips if slicer-core isn't there."""
    spec = importlib.util.spec_from_file_location("scene_fixtures", HERE.parent / "scene" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MISSING = ""
try:
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6 isn't installed", exc_type=ImportError)
    scene_fixtures = _scene_fixtures()
    scene, tools = scene_fixtures.scene, scene_fixtures.tools
except pytest.skip.Exception as skipped:
    MISSING = str(skipped)


class _Skipped(pytest.Module):
    """A test file whose imports would fail: skipped with the reason."""

    def collect(self):
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return _Skipped.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture
def write(tmp_path):
    """Function that writes a text into a file of the test's folder; returns the path."""

    def write(text, name="Panel.ui"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def slicer_gui(scene, monkeypatch, tmp_path):
    """`fake_slicer.Gui`: module qt, ctk, slicer.app, slicer.util, slicer.modules... in place, on a fresh scene.

    Fails the test if an exception was raised in a slot or an observer and left in `slicer_gui.errors`, or if the
    subject hierarchy complained.
    """
    import fake_slicer

    gui = fake_slicer.install(monkeypatch, scene, tmp_path)
    yield gui
    gui.close()
    assert not gui.errors, f"raised in slots or observers: {gui.errors}"
    assert not gui.subject_hierarchy.complaints


@pytest.fixture
def panel(slicer_gui, tools, repository):
    """The panel on a CT with three balls of tissue; `segment` is a stand-in whose speed the test controls."""
    g, matrix = slicer_gui, tools.oblique()
    g.volume, centers = tools.add_balls(g.scene, matrix, CENTERS.values())
    g.points = dict(zip(CENTERS, centers, strict=True))
    widget = g.module_widget(repository / "LungNoduleUncertainty" / "LungNoduleUncertainty.py")
    g.gate = threading.Event()
    g.gate.set()
    g.asked, g.warnings = [], []

    def segment(ct, point_lps, progress=None, **more):
        g.asked.append({"point_lps": point_lps, "size": ct.GetSize(), **more})
        progress("finding the nodule", 0.3)
        while not g.gate.wait(0.01):
            progress("outlining", 0.6)
        return replace(tools.fake_segment(ct, point_lps, progress=progress, **more), warnings=list(g.warnings))

    widget.logic.runs._segment = segment
    widget.logic._segmentNodule = segment
    g.widget, g.ui = widget, widget.ui
    return g
