"""Outputs whole or not at all: killed, on a full disk, on read-only targets."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import kill
from fake_model import bright_model
from LungNoduleKit import whole_files
from LungNoduleKit.errors import OutputError
from LungNoduleKit.files import image_writer, whole_folder, write_all, write_whole
from LungNoduleUncertaintyLib import __main__ as cli
from LungNoduleUncertaintyLib.models.bundle import write_bundle
from LungNoduleUncertaintyLib.models.metadata import file_sha256
from test_segmentation import ball_ct


def text(content):
    return lambda path: path.write_text(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_or_none_where_a_later_file_cannot_be_moved(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old a")
    (tmp_path / "b").write_text("old b")
    real = Path.replace

    def replace(self, target):
        if Path(target).name == "b" and self.read_text() == "new b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match=r"b: it can't be written .Permission denied"):
        write_all([(tmp_path / n, text(f"new {n}")) for n in ("a", "c", "b")])
    assert names(tmp_path) == ["a", "b"]
    assert [(tmp_path / n).read_text() for n in "ab"] == ["old a", "old b"]


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """The order of calls that a power failure can't break: all flushed, then renamed, then the folder flushed."""
    calls, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("flush"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append("rename"), replace(self, target))[1])
    write_all([(tmp_path / "a", text("1")), (tmp_path / "b", text("2"))])
    assert calls == ["flush", "flush", "rename", "rename", "flush"]


def test_what_a_killed_process_left_is_deleted_and_what_is_written_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = whole_files._MACHINE
    left = tmp_path / f".unfinished-{machine}-{gone.pid}-0123456789ab.nrrd"
    left_folder = tmp_path / f".unfinished-{machine}-{gone.pid}-ba9876543210"
    left_folder.mkdir()
    (left_folder / "model.safetensors").write_text("half")
    ours = tmp_path / f".unfinished-{machine}-{os.getpid()}-0123456789ab.nrrd"
    elsewhere = tmp_path / f".unfinished-00000000-{gone.pid}-0123456789ab.nrrd"
    old = tmp_path / f".unfinished-00000000-{gone.pid}-1123456789ab.nrrd"
    for path in (left, ours, elsewhere, old):
        path.write_text("half")
    os.utime(old, (time.time() - 3 * 24 * 3600,) * 2)
    write_whole(tmp_path / "a.txt", text("whole"))
    assert names(tmp_path) == sorted([ours.name, elsewhere.name, "a.txt"])


@pytest.mark.parametrize("target", ["/dev/full", "/dev/null"])
def test_a_device_is_not_replaced_by_a_file(target):
    with pytest.raises(OutputError, match="it is a device or a pipe"):
        write_whole(target, text("x"))
    assert not Path(target).is_file()


def test_a_folder_is_replaced_whole(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "old").write_text("old")

    def fails():
        with whole_folder(tmp_path / "f") as new:
            (new / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["old"]
    with whole_folder(tmp_path / "f") as new:
        (new / "new").write_text("new")
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["new"]


@contextmanager
def little_room():
    """No file may grow beyond 4 kB: writing then fails as on a full disk, in C++ too.

    Not a fixture: pytest prints a test's dot before its fixtures end, and where its output is a file the limit would
    stop that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha", "png"])
def test_an_image_on_a_full_disk(tmp_path, ending):
    shape = (300, 300) if ending == "png" else (40, 60, 60)
    values = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    (tmp_path / f"a.{ending}").write_bytes(b"of yesterday")
    with little_room(), pytest.raises(OutputError) as error:
        write_whole(tmp_path / f"a.{ending}", image_writer(sitk.GetImageFromArray(values)))
    assert "\n" not in str(error.value)
    assert f"a.{ending}: it can't be written" in str(error.value)
    assert names(tmp_path) == [f"a.{ending}"]
    assert (tmp_path / f"a.{ending}").read_bytes() == b"of yesterday"


def test_a_bundle_on_a_full_disk(tmp_path):
    model = bright_model()
    import torch

    with little_room(), pytest.raises(OutputError, match=r"bundle: it can't be written"):
        write_bundle(tmp_path / "bundle", [{"a": torch.zeros(100_000)}], model.metadata, "card")
    assert names(tmp_path) == []


@pytest.fixture
def segmenting(tmp_path, monkeypatch):
    """The command's arguments for one nodule with all outputs in `out`."""
    ct, center = ball_ct()
    sitk.WriteImage(ct, str(tmp_path / "ct.nrrd"))
    monkeypatch.setattr(cli, "load_model", lambda *_: bright_model())
    out = tmp_path / "out"
    out.mkdir()
    files = {"--output": "n.seg.nrrd", "--report": "r.json", "--figure": "n.png", "--probabilities": "maps"}
    options = [word for option, name in files.items() for word in (option, str(out / name))]
    return ["segment", str(tmp_path / "ct.nrrd"), "--point", *map(str, center), "--quiet", *options], out


def test_segment_on_a_full_disk_keeps_the_files_of_before(segmenting, capsys):
    arguments, out = segmenting
    assert cli.main(arguments) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with little_room():
        assert cli.main(arguments) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_segment_into_a_folder_that_cannot_be_written(segmenting, capsys, monkeypatch):
    arguments, out = segmenting
    (out / "n.seg.nrrd").write_text("of yesterday")
    real = os.open

    def refused(path, *options, **more):
        if ".unfinished" in str(path):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *options, **more)

    monkeypatch.setattr(os, "open", refused)
    assert cli.main(arguments) == 1
    assert "n.seg.nrrd: it can't be written (Read-only file system)" in capsys.readouterr().err
    assert names(out) == ["n.seg.nrrd"]
    assert (out / "n.seg.nrrd").read_text() == "of yesterday"


def test_the_report_comes_last_and_tells_which_files_belong_to_it(segmenting, monkeypatch):
    arguments, out = segmenting
    moved, real = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(Path(target).name), real(self, target))[1])
    assert cli.main(arguments) == 0
    assert moved[-1] == "r.json"
    report = json.loads((out / "r.json").read_text())
    written = {path.name: path for path in out.rglob("*") if path.is_file()}
    assert sorted(report["files"]) == sorted(set(written) - {"r.json"})
    assert all(file_sha256(written[name]) == digest for name, digest in report["files"].items())


@pytest.mark.parametrize("name", kill.PROGRAMS)
def test_killed_at_any_moment(tmp_path, name):
    """The short version of `Testing/robustness/kill.py`."""
    told = kill.check(name, tmp_path, rounds=2, seed=0)
    assert told.faults == []
