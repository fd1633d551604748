"""A small data folder in the layout of `prepare-lidc`: bright spheres, and readers that draw them larger or smaller.

python -m Testing.unit.training_data FOLDER
"""

import csv
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.geometry import Grid
from LungNoduleKit.segmentation_file import write_segmentation
from Training.data.nodule import Nodule


def make_nodule(number: int, shape=(16, 32, 32), spacing=0.8) -> Nodule:
    rng = np.random.default_rng(number)
    radius = rng.uniform(3.0, 5.0)
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 + 0.5 for n in shape), indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    hu = np.where(distance < radius, 20, -850) + rng.normal(0, 20, shape)
    readers = np.stack([distance < radius + d for d in (-0.8, -0.3, 0.3, 0.8)[: 2 + number % 3]])
    row = {"nodule_id": f"N{number:02d}", "patient_id": f"P{number // 2:02d}", "fold": (number // 2) % 3}
    return Nodule(
        row["nodule_id"], row["patient_id"], row["fold"], hu.astype(np.int16), readers, np.full(3, spacing), row
    )


def write_folder(folder, count: int = 12):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        nodule = make_nodule(number)
        image = sitk.GetImageFromArray(nodule.hu)
        image.SetSpacing(tuple(nodule.spacing))
        sitk.WriteImage(image, str(folder / f"{nodule.nodule_id}_ct.nrrd"), useCompression=True)
        grid = Grid.of(image)
        segments = [(f"Reader {n}", grid.image(mask), (1.0, 0.0, 0.0)) for n, mask in enumerate(nodule.readers, 1)]
        write_segmentation(folder / f"{nodule.nodule_id}_readers.seg.nrrd", segments)
        rows.append(nodule.row)
    with (folder / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]))
