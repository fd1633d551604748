"""Soft masks of lung nodules from binary masks, several readers' masks or RECIST marks, by closed-form matting.

Importing this package loads neither numpy nor torch; the names below are fetched on first use.
"""

from importlib import import_module
from typing import Any

from LungNoduleKit import __version__ as __version__

_EXPORTS = {
    "trimap_from_mask": ".trimap.trimap",
    "trimap_from_readers": ".trimap.trimap",
    "trimap_from_recist": ".trimap.trimap",
    "mask_from_recist": ".trimap.grabcut",
    "closed_form_alpha": ".matting.closed_form",
    "dilation_label": ".soft_labels",
    "bilinear_label": ".soft_labels",
    "mean_of_readers": ".soft_labels",
    "SoftMaskError": ".errors",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
