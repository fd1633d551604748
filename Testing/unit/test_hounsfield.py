"""Values that aren't Hounsfield units are told so, with padding or without; a chest CT and parts of it are not."""

import numpy as np
import pytest
import SimpleITK as sitk

from fake_model import bright_model
from LungNoduleKit.errors import NoNoduleError
from LungNoduleKit.hounsfield import value_warnings
from LungNoduleKit.warning_codes import code_of
from LungNoduleUncertaintyLib import segment_nodule
from SoftMaskLabelerLib.pipeline import Parameters, soft_mask_volume
from test_segmentation import ball_ct

LUNG, TISSUE, AIR = -860.0, 40.0, -1000.0


def chest(seed=0, noise=20.0):
    """A block (z, y, x) of air, chest wall with some fat and lung, with noise: int16 HU as a scanner writes them."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:30, :60, :60]
    radius = np.hypot(y - 30, x - 30) + 0 * z
    hu = np.select([radius < 18, radius < 24, radius < 27], [LUNG, TISSUE, -100.0], AIR)
    hu[10:16, 28:33, 28:33] = TISSUE
    return np.rint(hu + rng.normal(0, noise, hu.shape)).clip(-1024, 3071).astype(np.int16)


def padded(hu, value):
    """As scanners do outside of a round field of view."""
    y, x = np.ogrid[: hu.shape[1], : hu.shape[2]]
    out = hu.copy()
    out[:, np.hypot(y - 30, x - 30) > 28] = value
    return out


def warned(hu):
    return [str(warning) for warning in value_warnings(hu, "scan")]


def test_a_chest_is_in_hu():
    assert warned(chest()) == []
    assert warned(chest(noise=80.0)) == []
    assert warned(chest().astype(np.float32)) == []
    assert warned(chest().clip(-1024, 300)) == []  # as the nodule cubes of LIDC are stored
    for value in (-1024, -2000, -2048, -3024):
        assert warned(padded(chest(), value)) == []


def test_parts_of_a_chest_without_air_are_in_hu():
    rng = np.random.default_rng(1)
    assert warned(np.rint(rng.normal(40, 25, (20, 40, 40))).astype(np.int16)) == []
    assert warned(np.rint(rng.normal(-820, 60, (20, 40, 40))).astype(np.int16)) == []


def test_values_that_no_ct_has_are_told():
    for kind, value in ((np.int32, 63487), (np.float32, 1e30), (np.float64, 40000)):
        hu = chest().astype(kind)
        assert warned(hu) == []
        hu[3, 4, 5] = value
        assert warned(hu) == [f"scan: it holds values up to {value:g}, which no CT has"]
    hu[3, 4, 5] = np.inf
    hu[3, 4, 6] = np.nan
    assert warned(hu) == []


PADDING = (None, -1000, -2000, -3024)


def eight_bit(hu, low, high):
    return np.rint((hu.clip(low, high) - low) / (high - low) * 255).astype(np.int16)


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "offset, such as HU + 1024"),
        (lambda hu: hu + 1000, "doesn't seem to be"),
        (lambda hu: hu - 1024, "rescaled twice"),
        (lambda hu: hu.clip(-160, 240), "display window"),
        (lambda hu: hu.clip(-600, 1000), "display window"),
        (lambda hu: eight_bit(hu, -1350, 150), "8-bit"),
        (lambda hu: eight_bit(hu, -160, 240), "8-bit"),
        (lambda hu: ((hu + 1350) / 1500).clip(0, 1).astype(np.float32), "scaled to [0, 1]"),
        (lambda hu: (hu / 1100).clip(-1, 1).astype(np.float32), "scaled to [-1, 1]"),
        (lambda hu: (hu / 200).astype(np.float32), "scaled down"),
    ],
    ids=[
        "+1024",
        "+1000",
        "-1024",
        "soft-tissue window",
        "-600",
        "8-bit lung",
        "8-bit tissue",
        "0 to 1",
        "-1 to 1",
        "a 200th",
    ],
)
def test_values_that_are_not_hu(change, words, padding):
    changed = change(chest())
    (warning,) = value_warnings(changed if padding is None else padded(changed, padding), "scan")
    assert code_of(warning) == "not-hu"
    assert warning.startswith("scan: it doesn't seem to be")
    assert words in warning


def test_padding_that_was_moved_along_is_no_air():
    """-2000 and -3024 outside of the field of view become -976 and -2000 with the rest."""
    for value in (-2000, -3024):
        (warning,) = warned(padded(chest(), value) + 1024)
        assert "offset" in warning


def test_a_soft_tissue_window_is_told_by_its_lowest_value():
    (warning,) = warned(chest().clip(-160, 240))
    assert "values from -160 to" in warning


@pytest.mark.parametrize("padding", [None, -2000])
def test_nothing_found_says_that_it_is_not_hu(padding):
    """Rescaled twice, nothing is as bright as a nodule: the message says why nothing was found."""
    ct, center = ball_ct()
    hu = sitk.GetArrayFromImage(ct) - 1024
    if padding:
        hu[:, :4] = padding
    changed = sitk.GetImageFromArray(hu.astype(np.float32))
    changed.CopyInformation(ct)
    with pytest.raises(NoNoduleError, match=r"no nodule found .*; CT: it doesn't seem to be in HU"):
        segment_nodule(changed, center, model=bright_model())


def test_an_offset_is_never_measured_silently():
    ct, center = ball_ct()
    right = segment_nodule(ct, center, model=bright_model())
    assert right.warnings == []
    result = segment_nodule(ct + 1024, center, model=bright_model())
    assert result.measurements["volumes_mm3"]["final"] > 10 * right.measurements["volumes_mm3"]["final"]
    assert "not-hu" in result.provenance.warning_codes


def test_only_the_region_of_the_point_is_not_hu():
    """Half of a volume was rescaled twice: the other half is enough air for the whole."""
    values = np.concatenate([chest()] * 4, axis=1).astype(np.float32)
    values[:, 120:] += 1024
    ct = sitk.GetImageFromArray(values)
    ct.SetSpacing((2.0, 2.0, 2.0))
    result = segment_nodule(ct, (60.0, 420.0, 26.0), model=bright_model())
    assert "not-hu" in result.provenance.warning_codes
    assert any(warning.startswith("CT near the point: ") for warning in result.warnings)


def test_a_soft_mask_of_values_that_are_not_hu():
    array = chest().astype(np.float32)
    mask = np.zeros(array.shape, np.uint8)
    mask[10:16, 28:33, 28:33] = 1

    def notes(values, **parameters):
        image, marks = sitk.GetImageFromArray(values), sitk.GetImageFromArray(mask)
        return soft_mask_volume(image, masks=marks, parameters=Parameters(**parameters)).notes

    assert notes(array) == []
    (note,) = notes(array + 1024)
    assert "HU + 1024" in note
    assert notes(array + 1024, window=(24.0, 1424.0)) == []  # who chooses the window knows the values


@pytest.mark.published("lidc-nodules")
def test_real_nodule_cubes_are_in_hu(published):
    paths = sorted((published / "lidc-nodules").glob("*_ct.nrrd"))[::40]
    assert len(paths) >= 30
    for path in paths:
        hu = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert warned(hu) == [], path.name
        for changed in (hu + 1024, hu - 1024, hu.clip(-160, 240), eight_bit(hu, -1350, 150)):
            assert len(warned(changed)) == 1, path.name
