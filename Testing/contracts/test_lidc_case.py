"""The data folder that the tests ship: as its script makes it, in the layout of published data, usable as it is."""

import csv
import importlib.util

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.segmentation_file import read_segmentation
from Training.data.folder import load_folder


@pytest.fixture(scope="module")
def made(lidc_case):
    spec = importlib.util.spec_from_file_location("make_lidc_case", lidc_case.parent / "make_lidc_case.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.case()


def test_it_is_what_its_script_makes(made, lidc_case):
    cube, readers, row = made
    shipped = sitk.ReadImage(str(lidc_case / f"{row['nodule_id']}_ct.nrrd"))
    np.testing.assert_allclose(shipped.GetOrigin(), cube.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(shipped.GetSpacing(), cube.GetSpacing(), atol=1e-6)
    # Another processor may round a value to the next of 256 levels.
    ours, theirs = (sitk.GetArrayFromImage(image).astype(int) for image in (cube, shipped))
    assert np.abs(ours - theirs).max() <= 6
    assert (ours == theirs).mean() > 0.999
    masks = read_segmentation(lidc_case / f"{row['nodule_id']}_readers.seg.nrrd")
    assert list(masks) == [f"Reader {n}" for n in (1, 2, 3, 4)]
    for mask, shipped_mask in zip(readers, masks.values(), strict=True):
        assert (sitk.GetArrayFromImage(mask) == sitk.GetArrayFromImage(shipped_mask)).mean() > 0.9999
    with (lidc_case / "nodules.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [row]


def test_it_loads_as_a_data_folder(lidc_case):
    (nodule,) = load_folder(lidc_case, progress=False)
    assert nodule.hu.shape == (20, 48, 48)
    assert nodule.readers.shape == (4, 20, 48, 48)
    assert nodule.readers.any((1, 2, 3)).all()
    assert nodule.hu[nodule.consensus].mean() > -400
    assert nodule.hu[~nodule.readers.any(0)].mean() < -700


@pytest.mark.published("lidc-nodules")
def test_its_columns_are_those_of_published_data(lidc_case, published):
    headers = []
    for folder in (lidc_case, published / "lidc-nodules"):
        with (folder / "nodules.csv").open(newline="", encoding="utf-8") as stream:
            headers.append(csv.DictReader(stream).fieldnames)
    assert headers[0] == headers[1]
