"""The comparisons' soft labels: dilation, bilinear, mean of readers."""

import numpy as np
import pytest

from SoftMaskLabelerLib import bilinear_label, dilation_label, mean_of_readers
from SoftMaskLabelerLib.errors import MaskError


def disc(radius=8, size=40):
    y, x = np.ogrid[:size, :size]
    return (y - 20) ** 2 + (x - 19) ** 2 <= radius**2


def test_dilation_label_has_one_ring():
    mask = disc(10)
    label = dilation_label(mask, value=0.3)
    assert label.dtype == np.float32
    assert np.unique(label).tolist() == [0, np.float32(0.3), 1]
    assert ((label == 1) == mask).all()
    # The lesion is 20 % wider with its ring.
    assert np.flatnonzero(label[20])[[0, -1]].tolist() == [7, 31]
    wide = dilation_label(mask, (0.5, 0.5), dilate_mm=2)
    assert np.flatnonzero(wide[20])[[0, -1]].tolist() == [5, 33]


def test_dilation_label_in_3d_and_by_slices():
    stack = np.stack([np.zeros((40, 40), bool), disc(), np.zeros((40, 40), bool)])
    assert not dilation_label(stack)[0].any()
    assert dilation_label(stack, dimension=3, dilate_mm=1)[0].any()


def test_unusable_dilation_labels():
    with pytest.raises(MaskError):
        dilation_label(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="value"):
        dilation_label(disc(), value=1.0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_bilinear_label(factor):
    mask = disc()
    label = bilinear_label(mask, factor)
    assert label.dtype == np.float32
    assert label.shape == mask.shape
    assert label.min() >= 0
    assert label.max() <= 1
    assert abs(label.sum() - mask.sum()) < 1e-3 * mask.sum()
    assert (label[~disc(8 + 2 * factor)] == 0).all()
    if factor == 1:
        assert (label == mask).all()
    else:
        assert ((label > 0) & (label < 1)).any()
    assert bilinear_label(mask[:37, :33], factor).shape == (37, 33)
    assert (bilinear_label(np.ones((7, 9)), factor) == 1).all()
    assert np.allclose(bilinear_label(mask[:, ::-1], factor), label[:, ::-1], atol=1e-6) == (40 % factor == 0)


def test_bilinear_label_agrees_with_torch():
    import torch

    mask = disc()
    x = torch.from_numpy(mask[None, None].astype(np.float32))
    coarse = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")
    fine = torch.nn.functional.interpolate(coarse, size=mask.shape, mode="bilinear")[0, 0].numpy()
    assert np.allclose(bilinear_label(mask, 2), fine, atol=1e-6)


def test_bilinear_label_of_stacks():
    stack = np.stack([disc(), disc(4), disc(2), np.zeros((40, 40), bool)])
    label = bilinear_label(stack)
    assert (label[1] == bilinear_label(stack[1])).all()
    assert bilinear_label(stack, dimension=3)[3].any()
    with pytest.raises(ValueError, match="factor"):
        bilinear_label(stack, 0)


def test_mean_of_readers():
    masks = np.stack([disc(r) for r in (4, 5, 6, 7)])
    mean = mean_of_readers(masks)
    assert mean.dtype == np.float32
    assert np.unique(mean).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (mean_of_readers([m.astype(np.uint8) * 7 for m in masks]) == mean).all()
    for bad in ([], [np.zeros((3, 3)), np.zeros((3, 4))]):
        with pytest.raises(MaskError):
            mean_of_readers(bad)
