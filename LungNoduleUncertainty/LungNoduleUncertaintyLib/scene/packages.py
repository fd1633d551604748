"""The Python packages that segmentation needs inside Slicer: found without importing them, installed after a question.

PyTorch comes through Slicer's PyTorch extension, which picks the build that fits the computer; the few others as
`LungNoduleKit.scene.packages` says. Called on the main thread, when the user has asked for a segmentation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from LungNoduleKit.scene.packages import MissingPackagesError, install, requirements, satisfied

from ..resources import resource_path

REQUIREMENTS = resource_path("LungNoduleUncertainty-requirements.txt")


def missing() -> list[str]:
    """What has to be installed, PyTorch first. Loads none of the packages."""
    absent = [] if importlib.util.find_spec("torch") else ["torch"]
    return absent + [line for line in requirements(REQUIREMENTS) if not satisfied(line)]


def ensure(ask: Callable[[list[str]], bool] | None = None, requester: str = "LungNoduleUncertainty") -> bool:
    """Installs what is missing; returns whether anything was installed.

    `ask` is called once with the list of missing packages and tells whether the user agrees; without it nothing is
    installed. Raises `MissingPackagesError`, with what is missing and why it still is.
    """
    absent = missing()
    if not absent:
        return False
    names = ", ".join(absent)
    if ask is None:
        raise MissingPackagesError(f"Python packages are missing: {names}")
    torch_logic = _torch_installer() if "torch" in absent else None
    if not ask(absent):
        raise MissingPackagesError(f"Python packages are missing and weren't installed: {names}")
    if torch_logic is not None:
        _install_torch(torch_logic)
    others = [line for line in absent if line != "torch"]
    if others:
        install(others, REQUIREMENTS, requester)
    left = missing()
    if left:
        raise MissingPackagesError(f"Python packages are still missing: {', '.join(left)}; see Slicer's error log")
    return True


def _torch_installer() -> Any:
    try:
        import PyTorchUtils
    except ImportError:
        raise MissingPackagesError(
            "PyTorch is missing: install Slicer's PyTorch extension (Extensions Manager) and restart Slicer"
        ) from None
    return PyTorchUtils.PyTorchUtilsLogic()


def _install_torch(logic: Any) -> None:
    try:
        installed = logic.installTorch(askConfirmation=False)
    except TypeError as error:  # what the extension raises on an installation that broke off half-way
        raise MissingPackagesError(
            f"PyTorch can't be installed ({error}): in the module PyTorch Utils uninstall it, restart Slicer, try again"
        ) from error
    if installed is None:
        raise MissingPackagesError("PyTorch is missing: the PyTorch extension couldn't install it")
