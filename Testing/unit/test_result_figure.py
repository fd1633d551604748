"""The picture of a result."""

import numpy as np
import pytest
from PIL import Image

from fake_model import bright_model
from LungNoduleKit.errors import OutputError
from LungNoduleUncertaintyLib import segment_nodule
from LungNoduleUncertaintyLib.measuring.figure import axis_letters, measurement_lines, result_figure
from test_segmentation import OBLIQUE, ball_ct


@pytest.fixture(scope="module")
def case():
    ct, center = ball_ct()
    return ct, segment_nodule(ct, center, model=bright_model())


def test_letters_follow_the_direction():
    assert axis_letters((1, 0, 0, 0, 1, 0, 0, 0, 1)) == [("R", "L"), ("A", "P"), ("I", "S")]
    assert axis_letters((-1, 0, 0, 0, 1, 0, 0, 0, -1)) == [("L", "R"), ("A", "P"), ("S", "I")]
    # Coronal slices: rows run down the patient, slices from front to back.
    assert axis_letters((1, 0, 0, 0, 0, 1, 0, -1, 0)) == [("R", "L"), ("S", "I"), ("A", "P")]
    assert axis_letters(OBLIQUE) == [("R", "L"), ("A", "P"), ("I", "S")]


def test_the_table_says_what_was_measured(case):
    _, result = case
    lines = {name: (value, interval) for name, value, interval in measurement_lines(result.measurements)}
    low, high = result.measurements["interval"]["volume_mm3"]
    assert lines["volume"] == (
        f"{result.measurements['volumes_mm3']['final']:.0f} mm³",
        f"{low:.0f} to {high:.0f}",
    )
    assert lines["mean of long and short axis"][0].endswith(" mm")


def test_the_picture_shows_all_three_outlines(case, tmp_path):
    ct, result = case
    path = tmp_path / "figure.png"
    result_figure(ct, result, path, title="a ball")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape[1] > 1200
    for color in ((0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73), (0x00, 0x72, 0xB2)):
        near = np.abs(pixels[150:700] - color).sum(-1) < 40
        assert near.sum() > 300, color


@pytest.mark.parametrize("direction", [OBLIQUE, (1, 0, 0, 0, 0, 1, 0, -1, 0), (-1, 0, 0, 0, -1, 0, 0, 0, -1)])
def test_any_orientation_can_be_drawn(direction, tmp_path):
    ct, center = ball_ct(direction=direction)
    result = segment_nodule(ct, center, model=bright_model())
    result_figure(ct, result, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 50_000


def test_a_picture_that_cannot_be_written_leaves_nothing(case, tmp_path):
    ct, result = case
    with pytest.raises(OutputError, match="no such folder"):
        result_figure(ct, result, tmp_path / "none" / "figure.png")
    assert list(tmp_path.iterdir()) == []
