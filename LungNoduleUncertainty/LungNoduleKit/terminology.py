"""What segments are called in DICOM's terms, as Slicer writes it into a segment's tag."""

from .errors import printable

# SNOMED CT codes: Morphologically Altered Structure, Nodule; Lung.
NODULE_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^27925004^Nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)


def tag_name(text: str) -> str:
    """A text as the name of a segment's tag: Slicer's file format ends a tag at | and its name at the first colon."""
    return str(text).replace(":", "_").replace("|", "_")


def tag_text(text: object) -> str:
    """A value as the text of a segment's tag: on one line, without the | that ends a tag in Slicer's file format."""
    return printable(" ".join(str(text).split())).replace("|", "/")
