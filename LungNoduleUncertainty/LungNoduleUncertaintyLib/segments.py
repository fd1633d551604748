"""The three segments of a result: their names, colours and tags, the same in files and in Slicer's scene."""

# Name of the segment: (attribute of the result, colour). The colours are Okabe and Ito's, safe for the colour-blind.
SEGMENTS = {
    "HC": ("hc", (0x00 / 255, 0x72 / 255, 0xB2 / 255)),
    "LC": ("lc", (0xE6 / 255, 0x9F / 255, 0x00 / 255)),
    "Final": ("final", (0x00 / 255, 0x9E / 255, 0x73 / 255)),
}
TAG_PREFIX = "LungNoduleUncertainty."  # of every tag that says where a segment comes from
