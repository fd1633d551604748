"""A container's user: no home folder, another user's home, nothing that can be written but the output's folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleKit.errors import BundleError, OutputError
from LungNoduleKit.segmentation_file import read_segmentation
from LungNoduleUncertaintyLib.models import store
from test_segmentation import ball_ct

REPOSITORY = Path(__file__).resolve().parents[2]


def without_home(monkeypatch):
    """What `Path.home` does for a user whom the system doesn't know, without HOME."""

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(store.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", unknown)


def test_shipped_models_are_there_without_a_home(tmp_path, monkeypatch):
    without_home(monkeypatch)
    assert store.DEFAULT_BUNDLE in store.available_bundles()
    assert store.find_bundle().name == store.DEFAULT_BUNDLE
    assert not store.is_removable(store.DEFAULT_BUNDLE)
    with pytest.raises(OutputError, match=f"there is no home folder; set {store.FOLDER_VARIABLE}"):
        store.import_bundle(store.find_bundle())
    with pytest.raises(BundleError, match="neither a known bundle"):
        store.find_bundle("none")


def test_another_users_home_is_no_crash(monkeypatch):
    """Looking into a folder without permission raises, in `is_file` too."""
    real = Path.stat

    def stat(self, **options):
        if "closed" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setenv(store.FOLDER_VARIABLE, "/closed/models")
    monkeypatch.setattr(Path, "stat", stat)
    assert store.find_bundle().name == store.DEFAULT_BUNDLE
    assert store.DEFAULT_BUNDLE in store.available_bundles()
    assert store.summary().name == store.DEFAULT_BUNDLE


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/proc"])
def test_a_nodule_is_segmented_with_a_figure(tmp_path, home):
    """The whole command as another user where the system lets us; as ourselves without a home otherwise."""
    ct, center = ball_ct()
    sitk.WriteImage(ct, str(tmp_path / "ct.nrrd"))
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")}
    environment |= {} if home is None else {"HOME": home}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *sys.path])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = ["segment", tmp_path / "ct.nrrd", "--output", tmp_path / "n.seg.nrrd", "--figure", tmp_path / "n.png"]
    command += ["--report", tmp_path / "r.json", "--quiet", "--point", *map(str, center)]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, command)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert np.any(sitk.GetArrayFromImage(read_segmentation(tmp_path / "n.seg.nrrd")["Final"]))
    assert (tmp_path / "n.png").is_file()


# The user's number changes once all is imported: a virtual environment may lie in a home that others can't see.
_PROGRAM = """
import os, pwd, sys
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
from LungNoduleUncertaintyLib.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
