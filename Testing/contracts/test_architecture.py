"""Rooms and arrows: the contracts of `pyproject.toml` ([tool.importlinter]), one test each, and what they can't say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

SETTINGS = Path(__file__).resolve().parents[2] / "pyproject.toml"
CONTRACTS = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Function that checks one contract in a process of its own, as it changes the settings of logging."""
    pytest.importorskip("importlinter", reason="import-linter isn't installed")
    program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--config", str(SETTINGS), "--cache-dir", str(tmp_path_factory.mktemp("imports"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def check(contract):
        command = [*program, *options, "--contract", contract]
        return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")

    return check


@pytest.mark.parametrize("contract", [contract["id"] for contract in CONTRACTS])
def test_contract(check, contract):
    done = check(contract)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_tests_configuration_knows_where_published_data_lies(repository):
    """No path beside the repository, so that a clone works by itself."""
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True).stdout
    beside = re.compile(r"\.\./shared|[\"']shared[\"'] */|\bshared/(data|notes|papers)")
    found = []
    for name in listed.splitlines():
        path = repository / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yml", ".html") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [name] if beside.search(text) else []
    assert found == ["Testing/conftest.py"]
