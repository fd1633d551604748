"""What soft masks can't be made from, beside the kit's errors; `SoftMaskError` catches all of them."""

from LungNoduleKit.errors import ImageError, MaskError, NoduleError, OutputError

__all__ = ["ImageError", "MaskError", "OutputError", "RecistError", "SoftMaskError", "SolverError", "TrimapError"]

# The kit's base of all errors that name the input and the reason: what both modules raise is one hierarchy.
SoftMaskError = NoduleError


class RecistError(SoftMaskError):
    """RECIST end points that aren't four finite points inside the image, or axes without length."""


class TrimapError(SoftMaskError):
    """A trimap without known lesion or without known background, or with other values than 0, 128 and 255."""


class SolverError(SoftMaskError):
    """The matting system could not be solved to the tolerance."""
