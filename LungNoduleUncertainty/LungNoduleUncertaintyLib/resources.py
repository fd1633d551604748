"""Where the files lie that ship with the package."""

from pathlib import Path

from LungNoduleKit import files


def resource_path(*parts: str) -> Path:
    """Path of a shipped resource, e.g. ``resource_path("Models")``; see `LungNoduleKit.files.resource_path`."""
    return files.resource_path(Path(__file__).resolve().parent, *parts)
