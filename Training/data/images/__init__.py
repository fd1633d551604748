"""Sets of single images with one mask each: a folder with `images.csv`, which the task slice takes as it is.

items      a row of the table as the `Nodule` that training knows, of depth one and with one reader
manifest   the table: its columns, and what is wrong with it
pixels     gray values and masks from PNG, TIFF, NRRD, NIfTI, MetaImage; what is written
builder    writes a set: pictures, folds by patient, tiles
softening  soft masks by matting, for images with a mask alone
sources    public layouts: ISBI 2012, PROMISE12 and other volumes, pairs of files, Cosmos55k
nodules    sets made of nodules: LIDC's central slices, soft masks that SoftMaskLabelerLib built
merging    several sets as one
"""

from .builder import Sample, build
from .items import ImageItem, load_images
from .manifest import TABLE, read_manifest
from .merging import merge_sets

__all__ = ["TABLE", "ImageItem", "Sample", "build", "load_images", "merge_sets", "read_manifest"]
