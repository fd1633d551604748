"""What a run of the tests may leave out (`Testing/conftest.py`), tried on small test files of their own."""

import shutil
import subprocess
import sys

import pytest

TESTS = """
import pytest

@pytest.mark.cuda
def test_device():
    import torch
    assert torch.cuda.is_available()

@pytest.mark.published("no-such-data")
def test_published(published):
    raise AssertionError("it should not run")

def test_works(repository, lidc_case):
    assert repository
"""
SETTINGS = "[pytest]\nmarkers =\n    cuda\n    application\n    published\naddopts = -q -p no:cacheprovider\n"


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """Function that runs the texts of test files as on CI, or not; returns (exit status, what was printed)."""
    (tmp_path / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    shutil.copy(repository / "Testing" / "conftest.py", tmp_path)

    def run(*texts, ci):
        monkeypatch.setenv("CI", "true") if ci else monkeypatch.delenv("CI", raising=False)
        for number, text in enumerate(texts):
            (tmp_path / f"test_{number}.py").write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", "pytest", "."], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    return run


def test_what_was_left_out_is_said(run):
    status, said = run(TESTS, ci=True)
    assert status == 0, said
    assert "deselected, because there is no" in said
    assert "test_0.py::test_published" in said
    import torch

    if not torch.cuda.is_available():
        assert "skipped, 1 times: needs a CUDA device\n" in said


@pytest.mark.parametrize(
    "skip",
    [
        "import pytest\npytest.importorskip('no_such_package', reason='no such package')\n",
        "import pytest\n\ndef test_one():\n    pytest.skip('no such package')\n",
    ],
    ids=["file", "test"],
)
def test_another_skip_fails_on_ci_only(run, skip):
    status, said = run(TESTS, skip, ci=True)
    assert status == 1
    assert "skipped, 1 times: no such package (on CI this fails the run)" in said
    status, said = run(TESTS, skip, ci=False)
    assert status == 0
    assert "skipped, 1 times: no such package\n" in said


def test_data_is_used_with_its_marker_only(run):
    status, said = run("def test_published(published):\n    assert published\n", ci=False)
    assert status != 0
    assert "no marker published" in said
