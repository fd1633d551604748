"""Reload, a developer's button: the panel that comes up runs the library's and the kit's code as it is now."""

import shutil
import sys

import pytest
import slicer

PACKAGES = {"LungNoduleKit", "LungNoduleUncertaintyLib", "SoftMaskLabelerLib"}


@pytest.fixture
def sources(tmp_path, repository, monkeypatch):
    """Both modules' files in a folder of the test, imported from there; what is imported already is put back."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    for module in ("LungNoduleUncertainty", "SoftMaskLabeler"):
        shutil.copytree(repository / module, tmp_path / module, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.syspath_prepend(str(tmp_path / module))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("LungNoduleUncertainty", "LungNoduleUncertaintyLib/panel/panel.py"),
        ("LungNoduleUncertainty", "LungNoduleKit/scene/worker.py"),
        ("SoftMaskLabeler", "SoftMaskLabelerLib/scene/results.py"),
        ("SoftMaskLabeler", "LungNoduleKit/scene/worker.py"),
    ],
)
def test_reload_brings_changed_code(slicer_gui, sources, module, changed):
    widget = slicer_gui.module_widget(sources / module / f"{module}.py")
    name = changed.removesuffix(".py").replace("/", ".")
    assert sys.modules[name].__file__.startswith(str(sources))
    folder = "LungNoduleUncertainty" if changed.startswith("LungNodule") else module
    with open(sources / folder / changed, "a", encoding="utf-8") as file:
        file.write("\nCHANGED = True\n")
    old = widget.panel
    widget.onReload()
    new = getattr(slicer.modules, f"{module}Widget")
    slicer_gui.process_events()
    assert sys.modules[name].CHANGED
    assert new.panel.__class__ is not old.__class__
    assert getattr(sys.modules[type(new.panel).__module__], type(new.panel).__name__) is type(new.panel)
    new.enter()
    assert new.ui.applyButton.text == "Apply"
    new.cleanup()
