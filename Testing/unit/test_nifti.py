"""NIfTI files that state two positions, and NaN in them."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from fake_model import bright_model
from LungNoduleKit.errors import ImageError
from LungNoduleKit.geometry import Grid, nodule_grid, sample
from LungNoduleKit.images import read_ct
from LungNoduleKit.masks import read_mask
from LungNoduleKit.nifti import read_header
from LungNoduleUncertaintyLib.outlining.segmentation import segment_nodule
from test_segmentation import ball_ct

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((6, 5, 4), (0.7, 0.8, 1.25), (-10.0, 20.0, 30.0), TURNED)


def write(path, grid=GRID, **header):
    """A volume of counted voxels; `header`: codes=(qform, sform), matrix=(3, 4), or pixdim, scl, units, kind."""
    sitk.WriteImage(grid.image(np.arange(np.prod(grid.size), dtype=np.int16).reshape(grid.shape)), str(path))
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    before = np.array(struct.unpack_from("<12f", content, 280)).reshape(3, 4)
    if "codes" in header:
        struct.pack_into("<2h", content, 252, *header["codes"])
    if "sform" in header:
        struct.pack_into("<12f", content, 280, *np.ravel(header["sform"](before.copy())))
    if "pixdim" in header:
        struct.pack_into("<3f", content, 80, *header["pixdim"])
    if "scl" in header:
        struct.pack_into("<2f", content, 112, *header["scl"])
    path.write_bytes(gzip.compress(content) if packed else bytes(content))
    return path


def shifted(matrix):
    matrix[:, 3] += (50, 0, 0)
    return matrix


def enlarged(matrix):
    matrix[:, :3] *= 1.5
    return matrix


def mirrored(matrix):
    matrix[0] *= -1
    return matrix


def sheared(matrix):
    matrix[1, 2] += 0.3
    return matrix


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (0, 1), (1, 0)])
def test_frames_that_agree_are_read_as_before(tmp_path, ending, codes):
    path = write(tmp_path / f"ct.{ending}", codes=codes)
    plain = sitk.ReadImage(str(path))
    for frame in (None, "qform" if codes[0] else None, "sform" if codes[1] else None):
        ct = read_ct(path, nifti_frame=frame, warn=pytest.fail)
        assert Grid.of(ct) == Grid.of(plain)
        assert np.allclose(Grid.of(ct).matrix, GRID.matrix, atol=1e-5)
        assert np.array_equal(sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(plain))


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("change", [shifted, enlarged, mirrored, sheared])
def test_two_frames_that_disagree_are_refused_with_both_unless_one_is_chosen(tmp_path, codes, change):
    path = write(tmp_path / "ct.nii.gz", codes=codes, sform=change)
    with pytest.raises(
        ImageError, match=r"sform and its qform disagree: sform origin .*; qform origin .*--nifti-frame"
    ) as error:
        read_ct(path)
    assert "\n" not in str(error.value)
    assert "0.7 x 0.8 x 1.25" in str(error.value)
    by_qform, by_sform = (read_ct(path, nifti_frame=frame) for frame in ("qform", "sform"))
    assert np.allclose(Grid.of(by_qform).matrix, GRID.matrix, atol=1e-5)
    assert np.allclose(by_qform.GetOrigin(), GRID.origin, atol=1e-4)
    ras = np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([GRID.matrix, GRID.origin])
    expected = np.diag([-1.0, -1.0, 1.0]) @ change(ras)
    assert np.allclose(Grid.of(by_sform).matrix, expected[:, :3], atol=1e-5)
    assert np.allclose(by_sform.GetOrigin(), expected[:, 3], atol=1e-4)
    values = np.arange(np.prod(GRID.size)).reshape(GRID.shape)
    assert np.array_equal(sitk.GetArrayFromImage(by_sform), values)
    with pytest.raises(ImageError, match="disagree"):
        read_mask(path)


def test_a_voxel_size_beside_a_sform_counts(tmp_path):
    """SimpleITK takes the size from `pixdim`, other programs from the sform."""
    path = write(tmp_path / "ct.nii", codes=(0, 1), pixdim=(1.0, 1.0, 1.0))
    with pytest.raises(ImageError, match=r"sform and its pixdim disagree: .*0.7 x 0.8 x 1.25.*1 x 1 x 1"):
        read_ct(path)
    assert np.allclose(read_ct(path, nifti_frame="sform").GetSpacing(), GRID.spacing, atol=1e-6)
    with pytest.raises(ImageError, match="it has no qform"):
        read_ct(path, nifti_frame="qform")


def test_no_position_at_all_is_told(tmp_path):
    said = []
    ct = read_ct(write(tmp_path / "ct.nii", codes=(0, 0)), warn=said.append)
    assert np.allclose(ct.GetSpacing(), GRID.spacing)
    assert len(said) == 1
    assert "it states no position" in said[0]


@pytest.mark.parametrize(
    ("scl", "expected"),
    [((2.0, -5.0), lambda v: 2 * v - 5), ((0.0, 0.0), lambda v: v), ((float("nan"), float("nan")), lambda v: v)],
)
def test_scaling(tmp_path, scl, expected):
    values = np.arange(np.prod(GRID.size)).reshape(GRID.shape)
    assert np.array_equal(sitk.GetArrayFromImage(read_ct(write(tmp_path / "ct.nii", scl=scl))), expected(values))


@pytest.mark.parametrize(
    ("scl", "words"), [((0.0, -1024.0), "scl_slope is 0"), ((1.0, float("nan")), "isn't a number")]
)
def test_scaling_that_programs_understand_differently(tmp_path, scl, words):
    with pytest.raises(ImageError, match=words):
        read_ct(write(tmp_path / "ct.nii", scl=scl))


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_other_types(tmp_path, kind):
    values = (np.arange(np.prod(GRID.size)).reshape(GRID.shape) * 500).astype(kind)
    sitk.WriteImage(GRID.image(values), str(tmp_path / "ct.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(read_ct(tmp_path / "ct.nii.gz")), values)


def test_a_pair_of_files_and_nifti_2(tmp_path):
    sitk.WriteImage(GRID.image(np.zeros(GRID.shape, np.float32)), str(tmp_path / "ct.img"))
    assert read_header(tmp_path / "ct.img").size == GRID.size
    assert read_header(tmp_path / "ct.hdr").spacing == pytest.approx(GRID.spacing)
    one = bytearray(write(tmp_path / "one.nii").read_bytes())
    first = read_header(tmp_path / "one.nii")
    two = bytearray(540)
    struct.pack_into("<i", two, 0, 540)
    two[4:12] = b"n+2\0\r\n\032\n"
    struct.pack_into("<2h", two, 12, 4, 16)
    struct.pack_into("<8q", two, 16, 3, *GRID.size, 1, 1, 1, 1)
    struct.pack_into("<8d", two, 104, *struct.unpack_from("<8f", one, 76))
    struct.pack_into("<q", two, 168, 544)
    struct.pack_into("<2d", two, 176, 1, 0)
    struct.pack_into("<2i", two, 344, *struct.unpack_from("<2h", one, 252))
    struct.pack_into("<6d", two, 352, *struct.unpack_from("<6f", one, 256))
    struct.pack_into("<12d", two, 400, *struct.unpack_from("<12f", one, 280))
    struct.pack_into("<i", two, 500, 2)
    (tmp_path / "two.nii").write_bytes(two)
    second = read_header(tmp_path / "two.nii")
    assert (second.size, second.spacing, second.data_type) == (first.size, first.spacing, first.data_type)
    assert np.allclose(second.sform, first.sform)
    assert np.allclose(second.qform, first.qform)
    assert np.allclose(first.qform, first.sform, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "nii", "mha"])
def test_nan_counts_only_where_the_nodule_is(tmp_path, ending, kind):
    ct, center = ball_ct()
    values = sitk.GetArrayFromImage(ct).astype(kind)
    sitk.WriteImage(Grid.of(ct).image(values), str(tmp_path / f"plain.{ending}"))
    expected = segment_nodule(read_ct(tmp_path / f"plain.{ending}"), center, model=bright_model())
    far = values.copy()
    far[:, :, -3:] = np.nan
    far[0, 0, -1] = np.inf
    sitk.WriteImage(Grid.of(ct).image(far), str(tmp_path / f"far.{ending}"))
    read = read_ct(tmp_path / f"far.{ending}")
    assert np.array_equal(sitk.GetArrayFromImage(read), far, equal_nan=True)
    k, j, i = np.round(Grid.of(ct).points_to_indices(center)).astype(int)[::-1]
    near = values.copy()
    near[k, j + 12, i] = np.nan
    sitk.WriteImage(Grid.of(ct).image(near), str(tmp_path / f"near.{ending}"))
    with pytest.raises(ImageError, match=r"CT, near the nodule: .* NaN or infinite"):
        segment_nodule(read_ct(tmp_path / f"near.{ending}"), center, model=bright_model())
    result = segment_nodule(read, center, model=bright_model())
    assert result.measurements == expected.measurements


def test_nan_stays_where_it_is_when_a_grid_is_sampled():
    ct, center = ball_ct()
    values = sitk.GetArrayFromImage(ct)
    values[3, 4, 5] = np.nan
    grid = nodule_grid(ct, center, (90, 90, 70), 0.9)
    undisturbed, found = sample(ct, grid), sample(Grid.of(ct).image(values), grid)
    away = np.isfinite(found)
    assert 1 <= (~away).sum() <= 27
    assert np.array_equal(found[away], undisturbed[away])


def test_a_unit_that_nifti_does_not_know_is_told(tmp_path):
    path = write(tmp_path / "ct.nii")
    content = bytearray(path.read_bytes())
    content[123] = 4
    path.write_bytes(content)
    said = []
    assert Grid.of(read_ct(path, warn=said.append)) == Grid.of(sitk.ReadImage(str(path)))
    assert said == [f"{path}: its unit of length has code 4, which NIfTI doesn't know; mm are taken"]


def test_a_file_that_ends_too_early(tmp_path):
    path = write(tmp_path / "ct.nii.gz")
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(ImageError) as error:
        read_ct(path)
    assert "\n" not in str(error.value)
