"""The training package's command line: fast help, one line for what a user can cause, a traceback for our defects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import Training.__main__ as command_line
from Training.__main__ import COMMANDS, main, make_parser
from training_data import write_folder

ROOT = Path(__file__).resolve().parents[2]
_LIST = """
import sys
sys.path[:0] = [{root!r}, {kit!r}]
from Training.__main__ import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "lightning_fabric"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_listing_the_commands_imports_nothing_heavy():
    code = _LIST.format(root=str(ROOT), kit=str(ROOT / "LungNoduleUncertainty"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
    assert "examples" in done.stdout


def test_every_argument_of_every_command_is_explained():
    (commands,) = (a for a in make_parser()._actions if isinstance(a.choices, dict))
    assert list(commands.choices) == list(COMMANDS)
    for name, parser in commands.choices.items():
        assert parser.description, name
        silent = [action.dest for action in parser._actions if not action.help]
        assert not silent, name


def test_wrong_usage_is_status_2(capsys):
    for given in ([], ["train"], ["paint"], ["experiment", "table1", "--data", "d", "--device", "abacus"]):
        with pytest.raises(SystemExit) as end:
            main(given)
        assert end.value.code == 2
        assert "usage: python -m Training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train", "ugsnet", "--data", "DATA", "--set", "network.name=you-net"], "unknown network 'you-net'"),
        (["train", "ugsnet", "--data", "DATA", "--set", "network.wdth=8"], "unknown key 'network.wdth'"),
        (["train", "ugsnet", "--data", "DATA", "--set", "training.epoch=8"], "unknown key 'training.epoch'"),
        (["calibrate", "DATA", "--data", "DATA"], "split.json: it can't be read (No such file or directory)"),
        (["pool", "none.json", "--output", "out.json"], "none.json: it can't be read (No such file or directory)"),
        (["export", "DATA", "--output", "b", "--version", "1", "--calibration", "no.json"], "no.json: not found"),
        (["evaluate", "DATA", "--data", "DATA"], "model"),
        (["job", "DATA", "--data", "DATA"], "jobs are prepared by `experiment`"),
        (["experiment", "table9", "--data", "DATA"], "no such experiment"),
        (["report", "--experiments", "DATA"], "holds no experiment"),
        (["readers", "--data", "DATA", "--readers", "9"], "no nodule with 9 readers"),
    ],
)
def test_what_a_user_can_cause_is_one_line(given, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "DATA", 2)
    assert main(given) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1].rpartition("\r")[2]
    assert "error: " in error
    assert message in error


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    data = write_folder(tmp_path / "data", 4)
    given = ["readers", "--data", str(data), "--readers", "3", "--cubes", "--output", str(tmp_path / "file" / "a.json")]
    assert main(given) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("defect", [ValueError, TypeError, KeyError, IndexError, FileNotFoundError])
def test_a_defect_keeps_its_traceback(defect, monkeypatch):
    class Broken:
        @staticmethod
        def add_arguments(parser):
            pass

        @staticmethod
        def run(args):
            raise defect("a defect of ours")

    monkeypatch.setattr(command_line, "_module", lambda name: Broken)
    with pytest.raises(defect, match="a defect of ours"):
        main(["pool"])


def test_files_name_the_key_that_nobody_knows(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "calibration.json").write_text(json.dumps({"threshold": {"final": 0.5}}))
    assert main(["export", str(run), "--output", str(tmp_path / "b"), "--version", "1"]) == 1
    assert "calibration.json: unknown key 'threshold'; known here: averaging, " in capsys.readouterr().err
