"""Writes `lidc-nodules`, a data folder in the layout of `prepare-lidc` with one generated nodule and four readers.

    python Testing/data/make_lidc_case.py

The nodule is the solid one of the chest phantom: tissue and noise are generated, the outlines are those of four LIDC
readers. The cube is isotropic, with HU in 8 bits over [-1024, 300], as published data of this layout has it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty")]

from LungNoduleKit.segmentation_file import write_segmentation  # noqa: E402
from LungNoduleUncertaintyLib.phantom.chest import chest_phantom  # noqa: E402
from LungNoduleUncertaintyLib.phantom.reader_outlines import sample_outlines  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "lidc-nodules"
OUTLINES, NODULE_ID = "solid-8mm", "PHANTOM-0001-1-1"
SIZE, MARGIN = 48, 5  # voxels: edge in plane, slices beyond the nodule
COLORS = ((1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (0.3, 0.5, 1.0), (1.0, 0.9, 0.2))


def case() -> tuple[sitk.Image, list[sitk.Image], dict[str, str]]:
    """(CT cube, the readers' masks on its grid, the row of `nodules.csv`)."""
    ct, nodules = chest_phantom()
    nodule, spacing = nodules[1], ct.GetSpacing()[0]
    used = np.any([sitk.GetArrayViewFromImage(mask) for mask in nodule.readers], axis=(0, 2, 3)).sum()
    grid = sitk.Image(SIZE, SIZE, round(used * ct.GetSpacing()[2] / spacing) + 2 * MARGIN, sitk.sitkUInt8)
    grid.SetSpacing([spacing] * 3)
    grid.SetOrigin([c - spacing * (n - 1) / 2 for c, n in zip(nodule.center_lps, grid.GetSize(), strict=True)])
    hu = sitk.GetArrayFromImage(sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, 0, sitk.sitkFloat32))
    step = (300 + 1024) / 255
    cube = sitk.GetImageFromArray(np.rint(np.rint((hu.clip(-1024, 300) + 1024) / step) * step - 1024).astype(np.int16))
    cube.CopyInformation(grid)
    readers = [
        sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkLinear, 0, sitk.sitkFloat32) >= 0.5
        for mask in nodule.readers
    ]
    return cube, readers, row(cube, readers)


def row(cube: sitk.Image, readers: list[sitk.Image]) -> dict[str, str]:
    """The case's row of `nodules.csv`."""
    outlines = sample_outlines()[OUTLINES]
    masks = np.stack([sitk.GetArrayFromImage(mask) > 0 for mask in readers])
    consensus, voxel = 2 * masks.sum(0) >= len(masks), float(np.prod(cube.GetSpacing()))
    volume = consensus.sum() * voxel
    return {
        "nodule_id": NODULE_ID,
        "patient_id": NODULE_ID.removesuffix("-1-1"),
        "scan_id": "1",
        "fold": "0",
        "readers": str(len(readers)),
        "annotation_ids": " ".join(str(reader["annotation_id"]) for reader in outlines["readers"]),
        "pixel_spacing_mm": f"{cube.GetSpacing()[0]:.6f}",
        "z_spacing_mm": f"{cube.GetSpacing()[2]:.6f}",
        "ct_slice_spacing_mm": "1.4000",
        "slices": str(cube.GetSize()[2]),
        "largest_consensus_slice": str(int(consensus.sum((1, 2)).argmax())),
        "consensus_volume_mm3": f"{volume:.2f}",
        "consensus_equivalent_diameter_mm": f"{(6 * volume / np.pi) ** (1 / 3):.2f}",
        "intersection_volume_mm3": f"{masks.all(0).sum() * voxel:.2f}",
        "union_volume_mm3": f"{masks.any(0).sum() * voxel:.2f}",
        "reader_volumes_mm3": " ".join(f"{mask.sum() * voxel:.2f}" for mask in masks),
        **{name: f"{value:.2f}" for name, value in outlines["ratings"].items()},
    }


def main() -> None:
    """Write the folder anew."""
    cube, readers, values = case()
    FOLDER.mkdir(exist_ok=True)
    sitk.WriteImage(cube, str(FOLDER / f"{NODULE_ID}_ct.nrrd"), useCompression=True)
    segments = [
        (f"Reader {n}", mask, color) for n, (mask, color) in enumerate(zip(readers, COLORS, strict=True), start=1)
    ]
    write_segmentation(FOLDER / f"{NODULE_ID}_readers.seg.nrrd", segments)
    with (FOLDER / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, fieldnames=list(values), lineterminator="\n")
        table.writeheader()
        table.writerow(values)


if __name__ == "__main__":
    main()
