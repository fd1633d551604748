"""Where the files that ship with the package lie: in a source tree, in Slicer's module folder, or in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """Path of a shipped resource, e.g. ``resource_path("Models")``.

    A wheel carries the resources inside the package; a source tree and Slicer's module folder keep them beside it.
    """
    inside = _PACKAGE / "Resources"
    root = inside if inside.is_dir() else _PACKAGE.parent / "Resources"
    return root.joinpath(*parts)
