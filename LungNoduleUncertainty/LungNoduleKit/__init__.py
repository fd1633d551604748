"""What both modules stand on: errors, files, DICOM, geometry, segmentation files, MRML and Qt pieces; no network."""

__version__ = "0.2.0"  # of the whole project; CITATION.cff and CHANGELOG.md are checked against it
