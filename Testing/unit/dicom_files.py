"""DICOM series of small volumes, written by pydicom: one data set a slice, to be changed before it is saved."""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from LungNoduleKit.geometry import Grid

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
GRID = Grid((24, 20, 9), (0.7, 0.7, 2.5), (-10.0, 5.0, 40.0), IDENTITY)
SERIES = "1.2.3"


def hu(grid=GRID, seed=0):
    """Whole numbers that a CT may hold, int16 (z, y, x)."""
    return np.random.default_rng(seed).integers(-1000, 400, grid.shape).astype(np.int16)


def tilted(degrees, grid=GRID):
    """The grid with slices that are shifted along y by a constant step, as a tilted gantry leaves them."""
    step = np.array([0, np.tan(np.radians(degrees)), 1.0]) * grid.spacing[2]
    length = float(np.linalg.norm(step))
    direction = np.reshape(grid.direction, (3, 3)).copy()
    direction[:, 2] = step / length
    return Grid(grid.size, (*grid.spacing[:2], length), grid.origin, tuple(direction.ravel().tolist()))


def _file(kind, uid):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = kind, uid
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2", "1.2.7"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    return ds


def set_uid(ds, uid):
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid


def slices(values=None, grid=GRID, *, series=SERIES, modality="CT", description="chest", first=1):
    """Data sets of a volume's slices, in its order; stored unsigned with an intercept of -1024."""
    values = hu(grid) if values is None else values
    axes, found = np.reshape(grid.direction, (3, 3)), []
    for k, plane in enumerate(values):
        ds = _file(CTImageStorage, f"{series}.{first + k}")
        ds.SeriesInstanceUID, ds.Modality, ds.SeriesDescription = series, modality, description
        ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], first + k
        ds.ImagePositionPatient = [f"{v:.6f}" for v in grid.indices_to_points((0, 0, k))]
        ds.ImageOrientationPatient = [f"{v:.9g}" for v in (*axes[:, 0], *axes[:, 1])]
        ds.PixelSpacing = [f"{grid.spacing[1]:.6f}", f"{grid.spacing[0]:.6f}"]
        ds.SliceThickness = f"{grid.spacing[2]:.4f}"
        ds.Rows, ds.Columns = plane.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
        set_hu(ds, plane)
        found.append(ds)
    return found


def set_hu(ds, plane):
    """Stores HU by the data set's own bits, sign, slope and intercept."""
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    set_stored(ds, np.rint((np.asarray(plane, float) - intercept) / slope))


def set_stored(ds, stored):
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    ds.PixelData = np.asarray(stored).astype(kind).tobytes()
    ds["PixelData"].VR = "OW"


def stored_of(ds):
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    return np.frombuffer(ds.PixelData, kind).reshape(ds.Rows, ds.Columns).copy()


def save(datasets, folder, prefix="", **options):
    """Writes the data sets into a folder, under names in their order; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(datasets):
        ds.save_as(folder / f"{prefix}{number:03d}.dcm", **({"enforce_file_format": True} | options))
    return folder


def _item(**values):
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return Sequence([ds])


def enhanced(values=None, grid=GRID, *, order=None, series="1.2.4", uid="1", intercept=None, stack="1", phase=None):
    """An Enhanced CT of a volume's slices in any order; `intercept(k)` and `phase(n)` are a slice's and a frame's own.

    `order` has the slice number of each frame. Without `intercept` the rescale is shared: slope 1, intercept -1024.
    """
    values = hu(grid) if values is None else values
    order = list(range(len(values)) if order is None else order)
    axes = np.reshape(grid.direction, (3, 3))
    ds = _file(EnhancedCTImageStorage, f"{series}.{uid}")
    ds.SeriesInstanceUID, ds.Modality, ds.SeriesDescription = series, "CT", "enhanced"
    ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    ds.Rows, ds.Columns, ds.NumberOfFrames = *values.shape[1:], len(order)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(PixelSpacing=[grid.spacing[1], grid.spacing[0]], SliceThickness=5)
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[*axes[:, 0], *axes[:, 1]])
    if intercept is None:
        shared.PixelValueTransformationSequence = _item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    groups, planes = [], []
    for number, k in enumerate(order):
        frame, zero = Dataset(), -1024 if intercept is None else intercept(k)
        content = _item(StackID=stack(k) if callable(stack) else stack, InStackPositionNumber=k + 1)
        if phase is not None:
            content[0].TemporalPositionIndex = phase(number)
        frame.FrameContentSequence = content
        position = [f"{v:.6f}" for v in grid.indices_to_points((0, 0, k))]
        frame.PlanePositionSequence = _item(ImagePositionPatient=position)
        if intercept is not None:
            frame.PixelValueTransformationSequence = _item(
                RescaleIntercept=str(zero), RescaleSlope="1", RescaleType="HU"
            )
        groups.append(frame)
        planes.append((values[k].astype(int) - zero).astype("<u2"))
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = np.stack(planes).tobytes()
    ds["PixelData"].VR = "OW"
    return ds
