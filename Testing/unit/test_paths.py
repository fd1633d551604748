"""Files under any name that a file system takes: read and written, or refused in one line; the process never dies."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import ImageError, printable
from LungNoduleKit.files import image_writer, read_image, write_whole

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "undecodable": "r\udcff\udc80w",
    "undecodable-dots": "a.b\udcff",
    "emoji": "lung \U0001fac1 \xfc \u80ba",
    "newline": "two\nlines",
    "quotes": "a'b\"c`d$e",
    "percent": "%d %s %5d",
    "brackets": "[0-9] *? {x}; &|",
    "long": "n" * 200,
}
# The one place that makes paths safe, and what reads nothing but temporary files of its own.
_ALONE = {"LungNoduleKit/files.py", "LungNoduleKit/dicom/voxels.py"}
_CPP = r"sitk\.(ReadImage|WriteImage|Image(File|Series)(Reader|Writer))\b|torch\.(load\(|save\(\w+, )(?!stream)"


def volume():
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetSpacing((0.7, 0.7, 2.5))
    return image


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_images_come_back_from_any_name(tmp_path, name, ending):
    """In a process of its own, which a path with undecodable bytes would end."""
    code = (
        "import os, sys\n"
        "import numpy as np, SimpleITK as sitk\n"
        "from pathlib import Path\n"
        "from LungNoduleKit.files import image_writer, read_image, write_whole\n"
        "folder = Path(os.fsdecode(bytes.fromhex(sys.argv[1])))\n"
        "folder.mkdir()\n"
        f"path = folder / (folder.name + {ending!r})\n"
        "array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)\n"
        "image = sitk.GetImageFromArray(array)\n"
        "write_whole(path, image_writer(image))\n"
        "assert [p.name for p in folder.iterdir()] == [path.name]\n"
        "read = read_image(path)\n"
        "assert np.array_equal(sitk.GetArrayFromImage(read), array)\n"
        "image_writer(image)(path)\n"
        "assert np.array_equal(sitk.GetArrayFromImage(read_image(path)), array)\n"
    )
    folder = str(tmp_path / name).encode("utf-8", "surrogateescape").hex()
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_header_finds_its_data_file_under_any_name(tmp_path):
    folder = tmp_path / "r\udcff"
    folder.mkdir()
    sitk.WriteImage(volume(), str(tmp_path / "ct.mhd"))
    for name in ("ct.mhd", "ct.raw"):
        (tmp_path / name).rename(folder / name)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(folder / "ct.mhd")).ravel(), np.arange(60))
    sitk.WriteImage(volume(), str(tmp_path / "ct.hdr"))
    for ending in (".hdr", ".img"):
        (tmp_path / f"ct{ending}").rename(folder / f"c\udcfft{ending}")
    assert np.array_equal(sitk.GetArrayFromImage(read_image(folder / "c\udcfft.hdr")).ravel(), np.arange(60))


def test_errors_are_one_printable_line_whatever_the_name(tmp_path):
    for name in NAMES.values():
        path = tmp_path / f"{name}.nrrd"
        with pytest.raises(ImageError, match="no such file") as error:
            read_image(path)
        assert str(error.value).isprintable()
        path.write_bytes(b"NRRD0004\ntype: short\n")
        with pytest.raises(ImageError, match="can't be read") as error:
            read_image(path)
        assert str(error.value).isprintable()
    assert printable("a\nb\udcff \xfc") == r"a\nb\udcff" + " \xfc"


def test_a_name_too_long_for_a_temporary_file_with_all_its_endings(tmp_path):
    path = tmp_path / f"a.{'b' * 240}.nrrd"
    write_whole(path, image_writer(volume()))
    assert read_image(path).GetSize() == (5, 4, 3)


def test_paths_go_to_cpp_through_one_place():
    found = []
    for folder in ("LungNoduleUncertainty", "SoftMaskLabeler", "Training"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT / folder).as_posix()
            if name not in _ALONE:
                found += [
                    f"{name}: {line.strip()}"
                    for line in path.read_text(encoding="utf-8").splitlines()
                    if re.search(_CPP, line)
                ]
    assert found == []


def test_bundles_load_and_are_written_under_any_name(tmp_path):
    import torch

    from LungNoduleUncertaintyLib.models.bundle import load_model, write_bundle
    from LungNoduleUncertaintyLib.models.store import DEFAULT_BUNDLE

    model = load_model(DEFAULT_BUNDLE, "cpu")
    folder = tmp_path / "b\udcffndle"
    write_bundle(folder, [network.state_dict() for network in model.networks], model.metadata, "card")
    again = load_model(folder, "cpu")
    for one, other in zip(model.networks, again.networks, strict=True):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])


_SEGMENT = """
import os, sys
from pathlib import Path
sys.path[:0] = {folders!r}
from fake_model import bright_model
from test_segmentation import ball_ct
from LungNoduleKit.files import image_writer
from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib import __main__ as cli
import dicom_files, numpy as np, SimpleITK as sitk
cli.load_model = lambda *_: bright_model()
ct, center = ball_ct()
grid, values = Grid.of(ct), np.rint(sitk.GetArrayFromImage(ct)).astype(np.int16)
for word in sys.argv[1:]:
    folder = Path(os.fsdecode(bytes.fromhex(word)))
    folder.mkdir()
    dicom_files.save(dicom_files.slices(values, grid), folder / "scan" / folder.name)
    path = folder / (folder.name + ".nrrd")
    image_writer(grid.image(values))(path)
    for number, source in enumerate((folder / "scan", path)):
        stem = str(folder / folder.name[:150]) + str(number)
        outputs = ["--output", stem + ".seg.nrrd", "--report", stem + ".json", "--probabilities", stem]
        outputs += ["--figure", stem + ".png"] if number else []
        status = cli.main(["segment", str(source), "--point", *map(str, center), *outputs])
        assert status == 0, (folder, status)
"""


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["", "C"])
def test_the_command_line_takes_any_name(tmp_path, locale):
    """From DICOM and NRRD, with every output; the figures are those under a plain name."""
    code = _SEGMENT.format(folders=[str(ROOT / part) for part in ("LungNoduleUncertainty", "Testing/unit", "")])
    folders = [tmp_path / "plain", *(tmp_path / f"{name}$x_$" for name in NAMES.values())]
    written = [str(folder).encode("utf-8", "surrogateescape").hex() for folder in folders]
    done = subprocess.run([sys.executable, "-c", code, *written], capture_output=True, env=os.environ | locale)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    found = []
    for folder in (os.fsdecode(bytes.fromhex(word)) for word in written):
        assert len(list(Path(folder).glob("*.png"))) == 1
        reports = sorted(Path(folder).glob("*.json"))
        found += [json.loads(path.read_text(encoding="utf-8"))["measurements"] for path in reports]
    assert len(found) == 2 * len(folders)
    assert all(measured == found[0] for measured in found)


def test_a_name_that_is_too_long_is_told_in_one_line(tmp_path, capsys):
    from LungNoduleUncertaintyLib import __main__ as nodule
    from SoftMaskLabelerLib import __main__ as labeler

    path, long = tmp_path / "ct.nrrd", "n" * 300
    image_writer(volume())(path)
    for arguments in (
        [path, "--point", "1", "1", "2", "--output", tmp_path / f"{long}.seg.nrrd"],
        [tmp_path / long / "ct.nrrd", "--point", "1", "1", "2", "--output", tmp_path / "n.seg.nrrd"],
        [path, "--point", "1", "1", "2", "--output", tmp_path / long / "n.seg.nrrd"],
    ):
        assert nodule.main(["segment", "--quiet", *map(str, arguments)]) == 1
    assert labeler.main([str(path), "--mask", str(path), "--output", str(tmp_path / f"{long}.nrrd")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") and long in line for line in lines)
    assert [p.name for p in tmp_path.iterdir()] == ["ct.nrrd"]


def test_notes_about_an_undecodable_name_are_kept_in_every_output(tmp_path):
    """In a process of its own: a note with such a name went to C++ as a text of the image's header."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from LungNoduleKit.files import image_writer, read_image\n"
        "from LungNoduleKit.geometry import Grid\n"
        "from LungNoduleKit.segmentation_file import write_segmentation\n"
        "from SoftMaskLabelerLib import __main__ as cli\n"
        "folder = Path(os.fsdecode(bytes.fromhex(sys.argv[1])))\n"
        "folder.mkdir()\n"
        "mask = np.zeros((5, 30, 30), np.uint8)\n"
        "mask[1:4, 10:20, 10:20] = 1\n"
        "grid = Grid((30, 30, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))\n"
        "image_writer(grid.image(np.where(mask, 50, -850).astype(np.int16)))(folder / 'ct.nrrd')\n"
        "parts = [(n, grid.image(mask), (1, 0, 0)) for n in 'ab']\n"
        "write_segmentation(folder / 'm.seg.nrrd', parts)\n"
        "outputs = ['--output', folder / 's.nrrd', '--segment', folder / 's.seg.nrrd', '--quiet']\n"
        "arguments = [folder / 'ct.nrrd', '--mask', folder / 'm.seg.nrrd', *outputs]\n"
        "assert cli.main([str(a) for a in arguments]) == 0\n"
        "read = read_image(folder / 's.nrrd')\n"
        "assert any('union of its 2 segments' in read.GetMetaData(k) for k in read.GetMetaDataKeys())\n"
    )
    folder = str(tmp_path / NAMES["undecodable"]).encode("utf-8", "surrogateescape").hex()
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
