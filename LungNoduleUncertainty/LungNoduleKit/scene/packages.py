"""Python packages that a module needs inside Slicer: found without importing them, installed by Slicer's own means.

Installed through `slicer.packaging` (Slicer 5.12 and newer) or `slicer.util.pip_install` (older). Slicer's own numpy,
SciPy and SimpleITK are never listed, so they are never replaced. Called on the main thread.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from typing import TYPE_CHECKING

from ..errors import NoduleError

if TYPE_CHECKING:
    from pathlib import Path


class MissingPackagesError(NoduleError):
    """Packages are missing and weren't installed."""


def requirements(path: Path) -> list[str]:
    """Lines of a requirements file, `name` or `name>=version`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def satisfied(line: str) -> bool:
    """Whether an installed distribution meets `name>=version`; requirements files hold nothing more than that."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?", line)
    if not found:
        raise MissingPackagesError(f"requirements: line {line!r} isn't of the form name>=version")
    try:
        installed = importlib.metadata.version(found[1])
    except importlib.metadata.PackageNotFoundError:
        return False
    return found[2] is None or _numbers(installed) >= _numbers(found[2])


def install(lines: list[str], path: Path, requester: str) -> None:
    """Installs lines of the requirements file `path` into this Slicer; raises what pip raises."""
    try:
        import slicer.packaging
    except ImportError:  # before Slicer 5.12
        import slicer.util

        slicer.util.pip_install(lines)
        return
    parsed = slicer.packaging.load_requirements(os.fspath(path))
    slicer.packaging.pip_ensure(parsed, prompt_install=False, requester=requester)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3]]
