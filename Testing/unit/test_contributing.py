"""The recipes of CONTRIBUTING.md, as they stand there: followed in a copy of the code, where their own checks run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training_data import write_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("Add a network", "Add an experiment", "Add a metric", "Add a widget to a panel")
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = {".py", ".toml", ".txt", ".ui", ".json", ".svg", ".html", ".css", ".js", ".safetensors"}
LEFT_OUT = {"Samples", "Screenshots", "results", "__pycache__"}


def section(title: str) -> str:
    """The text below a heading."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def pieces(title: str) -> list[tuple[str, str]]:
    """(first line without its comment signs, the other lines) of a section's code blocks that are of a file."""
    found = re.findall(r"^( *)```\w+\n(.*?)^\1```$", section(title), re.M | re.S)
    texts = [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, block in found]
    parts = [text.split("\n", 1) for text in texts]
    return [(head.removeprefix("# ").removeprefix("<!-- ").removesuffix(" -->"), body) for head, body in parts]


def apply(folder: Path, head: str, body: str) -> None:
    """Follow a code block: `PATH` is a new file; `PATH, into NAME` adds to the end of that table, class or layout;
    `PATH, in place of LINE` replaces it."""
    name, how, what = re.fullmatch(r"([^,]+)(?:, (into|in place of) (.+))?", head).groups()
    path = folder / name
    if not how:
        assert not path.exists()
        path.write_text(body, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    if how == "in place of":
        (begin, end) = one(rf"^ *{re.escape(what)}\n", text).span()
    else:
        ends = "</layout>" if path.suffix == ".ui" else r"[)}]$"
        opened = one(rf'^( *)(?:{what}\b.* = |class {what}:|<layout .*name="{what}">)', text)
        closed = re.compile(rf"^{opened[1]}{ends}|^$", re.M).search(text, opened.end())
        begin = end = closed.start()
    path.write_text(text[:begin] + body + text[end:], encoding="utf-8")


def one(pattern: str, text: str) -> re.Match:
    """The only place of a pattern in a text."""
    (found,) = re.finditer(pattern, text, re.M)
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code, in which all recipes have been followed."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("LungNoduleUncertainty", "SoftMaskLabeler", "Training", "Testing"):
        for path in (ROOT / name).rglob("*"):
            within = path.relative_to(ROOT)
            if path.is_file() and path.suffix in COPIED and not LEFT_OUT & set(within.parts):
                (folder / within.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / within)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for title in RECIPES:
        for head, body in pieces(title):
            apply(folder, head, body)
    run(folder, "Testing/update_cmake_lists.py")
    return folder


def run(folder: Path, *arguments: str) -> str:
    """What Python writes when it runs in the copy, on the copy's code alone."""
    paths = [folder, folder / "LungNoduleUncertainty", folder / "SoftMaskLabeler", folder / "Testing" / "unit"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_recipes_touch_what_they_say(copy):
    added = {path.relative_to(copy).as_posix() for path in copy.rglob("toy.*")}
    network = "LungNoduleUncertaintyLib/networks/toy.py"
    assert added == {f"LungNoduleUncertainty/{network}", "Training/experiments/definitions/toy.toml"}
    assert f"{network}\n" in (copy / "LungNoduleUncertainty/CMakeLists.txt").read_text()
    assert "experiments/definitions/toy.toml\n" in (copy / "Training/CMakeLists.txt").read_text()
    run(copy, "Testing/update_cmake_lists.py", "--check")
    code = {head.split(",")[0] for title in RECIPES for head, _ in pieces(title) if ".py" in head}
    run(copy, "-m", "ruff", "check", "--quiet", *code)
    run(copy, "-m", "ruff", "format", "--check", "--quiet", *code)


def test_the_network_keeps_the_contract_and_the_metrics_record_is_complete(copy):
    tests = ("Testing/contracts/test_networks.py", "Testing/unit/test_metric_records.py")
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", "toy or area_ratio or readers or is_of_a_kind")


def test_the_network_trains_two_steps(copy, tmp_path):
    data = write_folder(tmp_path / "nodules")
    (line,) = (line for line in section("Add a network").splitlines() if "Training train" in line)
    arguments = line.split(" -m ")[1].replace(" nodules ", f" {data} ").split()
    run(copy, "-m", *arguments, "--quiet", "--device", "cpu", "--output", str(tmp_path / "run"))
    assert (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_the_metric_has_its_value_its_columns_and_its_place(copy):
    code = """
import numpy as np
from Training.metrics import score_human, score_nodule
from Training.report.measures import explained, measures_of

readers = np.zeros((2, 8, 8), bool)
readers[0, :2], readers[1, :4] = True, True
row = score_nodule(readers, {"final": (np.arange(8) < 3)[:, None] * np.ones((8, 8))})
assert (row["area_ratio_label1"], row["area_ratio_consensus"]) == (1.5, 0.75), row
assert {"area_ratio_label1", "area_ratio_consensus"} <= set(score_human(readers))
assert measures_of("readers")[-1].label == "Area ratio"
assert "area of the final mask divided by that of the consensus" in {measure.meaning for measure in explained()}
"""
    run(copy, "-c", code)


def test_the_experiment_has_its_rows_and_lists_its_jobs(copy, tmp_path):
    data = write_folder(tmp_path / "nodules")
    (line,) = (line for line in section("Add an experiment").splitlines() if "Training experiment" in line)
    arguments = line.split(" -m ")[1].replace(" nodules ", f" {data} ").split()
    listed = run(copy, "-m", *arguments, "--list", "--output", str(tmp_path / "experiments")).splitlines()
    assert listed[0] == "2 jobs, 0 of them done"
    assert [line.split()[0] for line in listed[1:]] == ["open", "open"]


def test_the_check_box_keeps_the_views(copy):
    pytest.importorskip("PySide6")
    (copy / "Testing/panel/test_toy.py").write_text(PANEL_TEST, encoding="utf-8")
    tests = ("Testing/panel/test_toy.py", "Testing/panel/test_panel.py")
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", "toy or use_only_what_slicer_has")


PANEL_TEST = """
import numpy as np
from panel_steps import apply
from test_panel import center_of


def test_toy(panel):
    view = panel.scene.GetNodeByID("vtkMRMLSliceNodeRed") or panel.scene.GetFirstNodeByClass("vtkMRMLSliceNode")
    apply(panel, "A")
    before = center_of(view)
    assert np.allclose(before, panel.points["A"], atol=1.0)
    panel.click(panel.ui.keepViewsCheckBox)
    apply(panel, "B")
    assert center_of(view) == before
"""
