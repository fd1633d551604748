"""Lung nodule segmentation with uncertainty: HC, LC and final outlines with intervals on every measurement.

Importing this package loads neither torch nor SimpleITK; the names below are fetched on first use.
"""

from importlib import import_module
from typing import Any

from LungNoduleKit import __version__ as __version__

_EXPORTS = {
    "load_model": ".models.bundle",
    "segment_nodule": ".outlining.segmentation",
    "NoduleSegmentation": ".outlining.result",
    "NoduleError": "LungNoduleKit.errors",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
