"""The Python packages that segmentation needs inside Slicer: found without importing them, installed after a question.

PyTorch comes through Slicer's PyTorch extension, which picks the build that fits the computer; the few others through
`slicer.packaging` (Slicer 5.12 and newer) or `slicer.util.pip_install` (older). Slicer's own numpy and SimpleITK are
never listed, so they are never replaced. Called on the main thread, when the user has asked for a segmentation.
"""

import importlib.metadata
import importlib.util
import os
import re

from LungNoduleKit.errors import NoduleError

from ..resources import resource_path

REQUIREMENTS = "LungNoduleUncertainty-requirements.txt"


class MissingPackagesError(NoduleError):
    """Packages are missing and weren't installed."""


def requirements() -> list[str]:
    """Lines of the requirements file: packages beside PyTorch and what Slicer brings, with lower bounds."""
    lines = resource_path(REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def missing() -> list[str]:
    """What has to be installed, PyTorch first. Loads none of the packages."""
    absent = [] if importlib.util.find_spec("torch") else ["torch"]
    return absent + [line for line in requirements() if not _satisfied(line)]


def ensure(ask=None, requester="LungNoduleUncertainty") -> bool:
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
        _install(others, requester)
    left = missing()
    if left:
        raise MissingPackagesError(f"Python packages are still missing: {', '.join(left)}; see Slicer's error log")
    return True


def _torch_installer():
    try:
        import PyTorchUtils
    except ImportError:
        raise MissingPackagesError(
            "PyTorch is missing: install Slicer's PyTorch extension (Extensions Manager) and restart Slicer"
        ) from None
    return PyTorchUtils.PyTorchUtilsLogic()


def _install_torch(logic):
    try:
        installed = logic.installTorch(askConfirmation=False)
    except TypeError as error:  # what the extension raises on an installation that broke off half-way
        raise MissingPackagesError(
            f"PyTorch can't be installed ({error}): in the module PyTorch Utils uninstall it, restart Slicer, try again"
        ) from error
    if installed is None:
        raise MissingPackagesError("PyTorch is missing: the PyTorch extension couldn't install it")


def _install(lines, requester):
    try:
        import slicer.packaging
    except ImportError:  # before Slicer 5.12
        import slicer.util

        slicer.util.pip_install(lines)
        return
    parsed = slicer.packaging.load_requirements(os.fspath(resource_path(REQUIREMENTS)))
    slicer.packaging.pip_ensure(parsed, prompt_install=False, requester=requester)


def _satisfied(line) -> bool:
    """Whether an installed distribution meets `name>=version`; the file holds nothing more than that."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?", line)
    if not found:
        raise MissingPackagesError(f"{REQUIREMENTS}: line {line!r} isn't of the form name>=version")
    try:
        installed = importlib.metadata.version(found[1])
    except importlib.metadata.PackageNotFoundError:
        return False
    return found[2] is None or _numbers(installed) >= _numbers(found[2])


def _numbers(version):
    return [int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3]]
