"""The segments of a result: their names, colors and tags, the same in files, pictures and Slicer's scene."""

from typing import NamedTuple, Protocol

import SimpleITK as sitk


class SegmentStyle(NamedTuple):
    """How a segment is found in a result, and its color: red, green and blue in [0, 1]."""

    attribute: str
    color: tuple[float, float, float]


# Okabe and Ito's colors, safe for the color-blind.
COLORS = {"HC": "#0072B2", "LC": "#E69F00", "Final": "#009E73"}


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
    return red, green, blue


SEGMENTS = {name: SegmentStyle(name.lower(), _rgb(color)) for name, color in COLORS.items()}
TAG_PREFIX = "LungNoduleUncertainty."  # of every tag that says where a segment comes from
PART_TAG = TAG_PREFIX + "part"  # HC, LC or Final, whatever the segment's name is changed to
NODULE_TAG = TAG_PREFIX + "nodule"  # the same for the segments of one nodule, different for every other
MEASUREMENTS_TAG = TAG_PREFIX + "measurements"  # JSON, see measurements.measure
POINT_TAG = TAG_PREFIX + "point_ras"  # where the nodule was clicked, in the segmentation's own coordinates, mm
WARNINGS_TAG = TAG_PREFIX + "warnings"  # JSON, a list of sentences; without it there are none
KIND_TAG = TAG_PREFIX + "type"  # solid, part-solid or ground-glass, as the reader set it


class Masks(Protocol):
    """What has the masks of a nodule, e.g. a `NoduleSegmentation`."""

    @property
    def hc(self) -> sitk.Image | None: ...
    @property
    def lc(self) -> sitk.Image | None: ...
    @property
    def final(self) -> sitk.Image: ...


def masks_of(result: Masks) -> dict[str, sitk.Image]:
    """The masks that a result has, by segment name: all three, or Final alone."""
    found = {name: getattr(result, style.attribute) for name, style in SEGMENTS.items()}
    return {name: mask for name, mask in found.items() if mask is not None}
