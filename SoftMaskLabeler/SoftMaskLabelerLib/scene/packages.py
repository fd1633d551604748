"""The one Python package that soft masks want and Slicer doesn't bring: OpenCV, for GrabCut on RECIST marks.

Without it the ellipse on the two axes stands in for GrabCut, so nothing here is required. Numpy, SciPy and SimpleITK
are Slicer's own and never replaced. Called on the main thread.
"""

import importlib.util
import os
from pathlib import Path

from ..errors import SoftMaskError

REQUIREMENTS = "SoftMaskLabeler-requirements.txt"


class MissingPackagesError(SoftMaskError):
    """The user agreed to an installation, and it failed."""


def missing() -> list[str]:
    """Lines of the requirements file if OpenCV isn't there, from whichever of its packages; loads nothing."""
    if importlib.util.find_spec("cv2") is not None:
        return []
    lines = _requirements_path().read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def ensure(ask=None, requester="SoftMaskLabeler") -> bool:
    """Installs what is missing if the user agrees; returns whether everything is there.

    `ask` is called once with the list of missing packages and tells whether the user agrees; without it nothing is
    installed. Raises `MissingPackagesError` if the installation failed.
    """
    absent = missing()
    if not absent:
        return True
    if ask is None or not ask(absent):
        return False
    try:
        _install(absent, requester)
    except Exception as error:  # what pip raises has many types
        raise MissingPackagesError(f"{', '.join(absent)} couldn't be installed: {error}") from error
    importlib.invalidate_caches()
    return not missing()


def _install(lines, requester):
    try:
        import slicer.packaging
    except ImportError:  # before Slicer 5.12
        import slicer.util

        slicer.util.pip_install(lines)
        return
    parsed = slicer.packaging.load_requirements(os.fspath(_requirements_path()))
    slicer.packaging.pip_ensure(parsed, prompt_install=False, requester=requester)


def _requirements_path() -> Path:
    """A wheel carries the resources inside the package; a source tree and Slicer's module folder beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "Resources"
    return (inside if inside.is_dir() else package.parent / "Resources") / REQUIREMENTS
