"""The one Python package that soft masks want and Slicer doesn't bring: OpenCV, for GrabCut on RECIST marks.

Without it the ellipse on the two axes takes GrabCut's place, so nothing here is required. Called on the main thread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from LungNoduleKit.files import resource_path
from LungNoduleKit.scene.packages import MissingPackagesError, install, requirements

REQUIREMENTS = resource_path(Path(__file__).resolve().parents[1], "SoftMaskLabeler-requirements.txt")


def missing() -> list[str]:
    """Lines of the requirements file if OpenCV isn't there, from whichever of its packages; loads nothing."""
    return [] if importlib.util.find_spec("cv2") is not None else requirements(REQUIREMENTS)


def ensure(ask: Callable[[list[str]], bool] | None = None, requester: str = "SoftMaskLabeler") -> bool:
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
        install(absent, REQUIREMENTS, requester)
    except Exception as error:  # what pip raises has many types
        raise MissingPackagesError(f"{', '.join(absent)} couldn't be installed: {error}") from error
    importlib.invalidate_caches()
    return not missing()
