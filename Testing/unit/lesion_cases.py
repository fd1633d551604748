"""A folder of small nodules laid out as the data set builder takes it."""

import csv

import numpy as np
import SimpleITK as sitk

from test_pipeline import nodule


def write_segmentation(path, masks):
    """Masks (z, y, x) as a layered Slicer segmentation."""
    layers = sitk.Compose([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks])
    for number in range(len(masks)):
        layers.SetMetaData(f"Segment{number}_LabelValue", "1")
        layers.SetMetaData(f"Segment{number}_Layer", str(number))
        layers.SetMetaData(f"Segment{number}_Name", f"Reader {number + 1}")
    sitk.WriteImage(layers, str(path))


def nodule_folder(folder, count=5, table=True):
    """`count` nodules with four readers each; their names."""
    folder.mkdir()
    names = [f"N-{number}" for number in range(count)]
    for number, name in enumerate(names):
        hu, _, readers = nodule(shape=(8, 70, 72), center=(4, 30 + number, 36), radius=7 + number % 3, seed=number)
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(folder / f"{name}_ct.nrrd"))
        write_segmentation(folder / f"{name}_readers.seg.nrrd", readers)
    if table:
        with open(folder / "nodules.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["nodule_id", "patient_id", "largest_consensus_slice"])
            writer.writerows([name, f"P-{number // 2}", 4] for number, name in enumerate(names))
    return names


def rows_of(path):
    """A CSV's rows by their first column."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return {row["case"]: row for row in csv.DictReader(file)}
