"""The segments of a result: their names, colours and tags, the same in files and in Slicer's scene."""

# Name of the segment: (attribute of the result, colour). The colours are Okabe and Ito's, safe for the colour-blind.
SEGMENTS = {
    "HC": ("hc", (0x00 / 255, 0x72 / 255, 0xB2 / 255)),
    "LC": ("lc", (0xE6 / 255, 0x9F / 255, 0x00 / 255)),
    "Final": ("final", (0x00 / 255, 0x9E / 255, 0x73 / 255)),
}
TAG_PREFIX = "LungNoduleUncertainty."  # of every tag that says where a segment comes from
PART_TAG = TAG_PREFIX + "part"  # HC, LC or Final, whatever the segment's name is changed to
NODULE_TAG = TAG_PREFIX + "nodule"  # the same for the segments of one nodule, different for every other
MEASUREMENTS_TAG = TAG_PREFIX + "measurements"  # JSON, see measurements.measure
POINT_TAG = TAG_PREFIX + "point_ras"  # where the nodule was pointed at, in the segmentation's own coordinates, mm
KIND_TAG = TAG_PREFIX + "type"  # solid, part-solid or ground-glass, as the reader set it


def masks_of(result) -> dict:
    """The masks that a result has, by segment name: all three, or Final alone."""
    found = {name: getattr(result, attribute) for name, (attribute, _) in SEGMENTS.items()}
    return {name: mask for name, mask in found.items() if mask is not None}
