"""Files are the same under a locale with decimal commas, which Qt sets in an application: read and written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import decimal_comma
from LungNoduleKit.files import decimal_points
from LungNoduleKit.geometry import Grid
from LungNoduleKit.segmentation_file import write_segmentation
from test_images import write_slices
from test_segmentation import ball_ct
from training_data import write_folder


@pytest.fixture
def inputs(tmp_path):
    """One CT in all formats, masks of it and a small data folder, written under this process' own locale."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    ct, center = ball_ct()
    ct.SetSpacing([1.25 * s for s in ct.GetSpacing()])
    point = (np.asarray(center) - ct.GetOrigin()) * 1.25 + ct.GetOrigin()
    (folder / "point.json").write_text(json.dumps(point.tolist()))
    for ending in ("nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz", "vtk"):
        sitk.WriteImage(ct, str(folder / f"ct.{ending}"))
    array = sitk.GetArrayFromImage(ct)
    write_slices(folder / "dicom", array[:6], spacing=1.25)
    mask = (array > -300).astype(np.uint8)
    mask[:, :, 60:] = 0
    grid = Grid.of(ct)
    sitk.WriteImage(grid.image(mask), str(folder / "mask.nrrd"))
    sitk.WriteImage(grid.image(mask * np.uint8(255)), str(folder / "trimap.nrrd"))
    segments = [(f"Reader {n}", grid.image(np.roll(mask, n, 0)), (1, 0, 0)) for n in (1, 2)]
    write_segmentation(folder / "readers.seg.nrrd", segments)
    write_folder(folder / "nodules", count=2)
    return folder


def everything(folder, **environment):
    place = Path(__file__).parent
    paths = os.pathsep.join([str(place), *sys.path])
    command = [sys.executable, "-m", "decimal_comma", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_all_files_are_the_same_under_decimal_commas(inputs, tmp_path):
    shutil.copytree(inputs, tmp_path / "plain")
    decimal_comma.write_locale(tmp_path / "locales")
    expected = everything(tmp_path / "plain")
    got = everything(inputs, DECIMAL_COMMA="1", LOCPATH=str(tmp_path / "locales"))
    assert expected["nrrd"][0][0][2] == pytest.approx(1.25 * ball_ct()[0].GetSpacing()[2])
    assert sorted(got) == sorted(expected)
    for key, value in expected.items():
        assert got[key] == value, key


def test_the_process_keeps_its_locale(tmp_path):
    """Only the thread that reads has decimal points, and only while it reads."""
    decimal_comma.write_locale(tmp_path)
    program = """
import ctypes, locale, threading
from decimal_comma import set_locale
from LungNoduleKit.files import decimal_points
set_locale()
def text():
    buffer = ctypes.create_string_buffer(16)
    ctypes.CDLL(None).sprintf(buffer, b"%.2f", ctypes.c_double(1.25))
    return buffer.value.decode()
said = []
with decimal_points():
    said.append(text())
    thread = threading.Thread(target=lambda: said.append(text()))
    thread.start()
    thread.join()
said.append(text())
print(said, locale.localeconv()["decimal_point"])
"""
    environment = {
        **os.environ,
        "LOCPATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "['1.25', '1,25', '1,25'] ,", done.stderr


def test_it_may_be_nested():
    with decimal_points(), decimal_points():
        pass
