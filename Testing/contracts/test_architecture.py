"""Rooms and arrows: the contracts of `pyproject.toml` ([tool.importlinter]), one test each, and what they can't say."""

import re
import subprocess
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

importlinter = pytest.importorskip("importlinter.cli", reason="import-linter isn't installed")
SETTINGS = Path(__file__).resolve().parents[2] / "pyproject.toml"
CONTRACTS = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
OPEN = ("kit", "labeler", "training", "circles")  # not yet kept


@pytest.mark.parametrize("contract", [contract["id"] for contract in CONTRACTS])
def test_contract(contract, capsys, request):
    if contract in OPEN:
        request.applymarker(pytest.mark.xfail(reason="arrows that still have to be turned", strict=False))
    status = importlinter.lint_imports(config_filename=str(SETTINGS), limit_to_contracts=(contract,), no_cache=True)
    assert status == importlinter.EXIT_STATUS_SUCCESS, capsys.readouterr().out


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
