"""CT series out of DICOM files: found, checked image by image, put in order, and read as one volume in HU.

`headers` reads what a file says of its slices, `choosing` finds the series of a folder, `stacks` makes one stack of the
series' slices or refuses, `voxels` reads the values. Files are opened by Python, so any path will do; pydicom is loaded
when the first file is read.
"""

from .choosing import read_files, read_series
from .headers import is_dicom, series_uid

__all__ = ["is_dicom", "read_files", "read_series", "series_uid"]
