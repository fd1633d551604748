"""Errors that name the input and the reason; everything that a user can cause derives from `SoftMaskError`."""


class SoftMaskError(Exception):
    """An input that can't be processed. The message is one line: which input, and why."""


class ImageError(SoftMaskError):
    """The image can't be read, isn't finite, isn't windowed to [0, 1] or doesn't have the expected shape."""


class MaskError(SoftMaskError):
    """A mask is empty, isn't an array of two or three axes or doesn't fit the other masks or the image."""


class RecistError(SoftMaskError):
    """RECIST end points that aren't four finite points inside the image, or axes without length."""


class TrimapError(SoftMaskError):
    """A trimap without known lesion or without known background, or with other values than 0, 128 and 255."""


class SolverError(SoftMaskError):
    """The matting system could not be solved to the tolerance."""


class OutputError(SoftMaskError):
    """An output can't be written; nothing half-written is left behind."""
