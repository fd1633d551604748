"""Packages are found without importing them, asked for once, and never installed without a yes."""

import importlib.metadata
import sys
import types

import pytest

from LungNoduleKit.scene.packages import MissingPackagesError, requirements, satisfied
from LungNoduleUncertaintyLib.scene import packages as dependencies


@pytest.fixture
def bare(monkeypatch):
    """A Slicer without torch and safetensors, and a note of what is installed into it."""
    log, installed = [], set()
    monkeypatch.setattr(dependencies.importlib.util, "find_spec", lambda name: object() if name in installed else None)

    def version(name):
        if name in installed:
            return "99.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)

    def install(names, note):
        log.append(note)
        installed.update(names)
        return object()

    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = lambda: types.SimpleNamespace(
        installTorch=lambda askConfirmation: install(["torch"], f"torch, asking {askConfirmation}")
    )
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    slicer, packaging, util = (types.ModuleType(n) for n in ("slicer", "slicer.packaging", "slicer.util"))
    slicer.packaging, slicer.util = packaging, util
    packaging.load_requirements = lambda path: requirements(dependencies.REQUIREMENTS)
    packaging.pip_ensure = lambda lines, prompt_install, requester: install(
        ["safetensors"], f"pip_ensure {lines}, asking {prompt_install}"
    )
    util.pip_install = lambda lines: install(["safetensors"], f"pip_install {lines}")
    for module in (slicer, packaging, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(log=log, installed=installed, extension=extension)


def test_one_question_names_everything_and_then_all_is_installed(bare):
    questions = []
    assert dependencies.ensure(lambda names: questions.append(names) or True)
    assert questions == [["torch", "safetensors>=0.4.3"]]
    assert bare.log == ["torch, asking False", "pip_ensure ['safetensors>=0.4.3'], asking False"]
    assert not dependencies.ensure(lambda names: pytest.fail("asked again"))


def test_nothing_is_installed_without_a_yes(bare):
    with pytest.raises(MissingPackagesError, match=r"are missing: torch, safetensors>=0.4.3$"):
        dependencies.ensure()
    with pytest.raises(MissingPackagesError, match="weren't installed"):
        dependencies.ensure(lambda names: False)
    assert bare.log == []


def test_without_the_pytorch_extension_nobody_is_asked(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(MissingPackagesError, match="install Slicer's PyTorch extension"):
        dependencies.ensure(lambda names: pytest.fail("asked"))


def test_older_slicer_without_packaging(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    dependencies.ensure(lambda names: True)
    assert bare.log[-1] == "pip_install ['safetensors>=0.4.3']"


def test_half_installed_torch_is_explained(bare):
    def broken(askConfirmation):
        raise TypeError("expected string or bytes-like object")

    bare.extension.PyTorchUtilsLogic = lambda: types.SimpleNamespace(installTorch=broken)
    with pytest.raises(MissingPackagesError, match="in the module PyTorch Utils uninstall it"):
        dependencies.ensure(lambda names: True)


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.0")
    assert satisfied("safetensors>=0.4.3")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.4.2")
    assert not satisfied("safetensors>=0.4.3")


def test_the_file_lists_nothing_that_slicer_brings():
    names = {line.split(">=")[0].lower() for line in requirements(dependencies.REQUIREMENTS)}
    assert names
    assert not names & {"numpy", "simpleitk", "scipy", "torch", "pydicom"}
