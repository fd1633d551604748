"""The same scan and point have the same masks: in every run, with any number of threads, as DICOM and as NRRD."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from LungNoduleKit.geometry import Grid
from LungNoduleKit.images import read_ct
from LungNoduleUncertaintyLib import load_model, segment_nodule
from test_images import write_slices
from test_segmentation import ball_ct

IMAGES = ("hc", "lc", "final", "probability_union", "probability_intersection", "probability_final")
MASKS = IMAGES[:3]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """(folder of DICOM, NRRD file, point on a nodule with noise, the shipped model)."""
    folder = tmp_path_factory.mktemp("scan")
    ct, center = ball_ct(radius=4.0, size=(60, 60, 24), spacing=(0.7, 0.7, 2.5))
    noise = np.random.default_rng(0).normal(0, 25, Grid.of(ct).shape)
    write_slices(folder / "dicom", np.rint(sitk.GetArrayFromImage(ct) + noise), spacing=2.5)
    read = read_ct(folder / "dicom")
    sitk.WriteImage(read, str(folder / "ct.nrrd"), useCompression=True)
    point = Grid.of(read).indices_to_points(Grid.of(ct).points_to_indices(center))
    return folder, point, load_model(device="cpu")


def arrays(result):
    return {name: sitk.GetArrayFromImage(getattr(result, name)) for name in IMAGES}


def test_masks_are_the_same_with_any_number_of_threads(scan):
    folder, point, model = scan
    ct, before, found = read_ct(folder / "ct.nrrd"), torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found[threads] = arrays(segment_nodule(ct, point, model=model))
    finally:
        torch.set_num_threads(before)
    assert found[1]["final"].any()
    for threads in (2, 4):
        for name in MASKS:
            assert np.array_equal(found[1][name], found[threads][name]), (name, threads)
        for name in IMAGES[3:]:  # sums of another order: the last bits of a float may differ
            np.testing.assert_allclose(found[1][name], found[threads][name], rtol=0, atol=1e-5)


def test_everything_is_the_same_to_the_last_bit_in_every_run_and_from_dicom_and_nrrd(scan):
    folder, point, model = scan
    first = segment_nodule(read_ct(folder / "ct.nrrd"), point, model=model)
    for again in (folder / "ct.nrrd", folder / "dicom"):
        result = segment_nodule(read_ct(again), point, model=model)
        for name, array in arrays(result).items():
            assert array.tobytes() == arrays(first)[name].tobytes(), (name, again.name)
        assert result.measurements == first.measurements
        assert result.warnings == first.warnings
