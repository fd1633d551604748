"""What the documentation says is what the code does: commands, examples, messages, names of tests, links, words."""

import ast
import importlib.util
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from Training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
TEXTS = dict(zip(NAMES, (path.read_text(encoding="utf-8") for path in PAGES), strict=True))


def blocks(text, language):
    """The fenced code blocks of a language (empty: commands), without indentation."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S)
    return [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, word, block in found if word == language]


@pytest.fixture(scope="module")
def hooks():
    """The documentation's hook for mkdocs."""
    specification = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def commands(text):
    """(package, arguments) of every `python -m` line in the command blocks of a page."""
    lines = "\n".join(blocks(text, "")).replace("\\\n", " ").splitlines()
    for line in lines:
        found = re.search(r"(?:python|torchrun [^#]*) -m (\w+)((?: [^#]*)?)", line)
        if found and found[1] in ("LungNoduleUncertaintyLib", "SoftMaskLabelerLib", "Training"):
            yield found[1], shlex.split(found[2])


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one_that_the_programs_take(name, hooks):
    for package, arguments in commands(TEXTS[name]):
        if "--help" in arguments:
            continue
        own = package == "SoftMaskLabelerLib" and arguments[0] in ("build", "apply-decisions")
        parser = hooks.parser_of(package, *arguments[: int(own)])
        try:
            parser.parse_args(arguments[int(own) :])
        except SystemExit:
            pytest.fail(f"{name}: python -m {package} {shlex.join(arguments)}")


def test_every_experiment_and_configuration_of_a_command_is_shipped():
    known = {path.stem for path in (ROOT / "Training").rglob("*.toml")} | {"all", "toy"}
    for name, text in TEXTS.items():
        for package, arguments in commands(text):
            if package == "Training" and arguments[0] in ("train", "experiment"):
                words = arguments[1 : next((n for n, word in enumerate(arguments) if word.startswith("--")), None)]
                assert {word for word in words if "." not in word} <= known, (name, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_in_python_compiles_and_imports_what_there_is(name):
    for block in blocks(TEXTS[name], "python"):
        if block.startswith(("# LungNoduleUncertainty/", "# Training/")):
            continue  # a file or a part of one: tried as a whole by test_contributing
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(("LungNodule", "SoftMask", "Training")):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_tutorials_configuration_is_read(tmp_path):
    (block,) = (b for b in blocks(TEXTS["docs/tutorial/researcher.md"], "toml") if b.startswith("# my-config.toml"))
    path = tmp_path / "my-config.toml"
    path.write_text(block, encoding="utf-8")
    load_config(path)


def test_every_message_of_the_troubleshooting_table_is_one_of_the_codes():
    table = re.findall(r"^\| `(.*?)`", TEXTS["docs/how-to/troubleshooting.md"], re.M)
    assert len(table) > 5
    folders = ("LungNoduleUncertainty", "SoftMaskLabeler", "Training")
    files = (path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(files))  # strings that go on in the next line
    code = re.sub(r"\{[^{}]*\}", "...", code)
    for message in table:
        parts = [re.sub(r"'\w+'|\d+", "...", part).split("...") for part in message.split(" ... ")]
        for words in (word.strip() for part in parts for word in part if word.strip()):
            assert words in code, message


def test_every_test_that_the_comparison_names_is_there():
    table = [line for line in TEXTS["docs/how-to/other-extensions.md"].splitlines() if line.startswith("|")]
    named = re.findall(r"`((?:unit|scene|panel|contracts)/\S*?)`", "\n".join(table))
    assert len(named) > 15
    for entry in named:
        file, _, test = entry.partition("::")
        path = ROOT / "Testing" / file
        assert path.exists(), entry
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), entry


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 100
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https:") or (ROOT / link).exists(), link


# Slicer's own menus, modules and samples, and names of nodes.
SLICERS = ("Extensions Manager", "Edit →", "File →", "Additional module paths", "CTChest", "LungNodulePhantom nodules")
SLICERS += ("Reload", "Segment Statistics", "Segment Editor", "Markups", "Islands", "Qt Designer", "Developer mode")
PANELS = ("Resources/UI/*.ui", "*Lib/panel/*.py", "LungNoduleKit/panel/*.py", "*Lib/measuring/table.py", "*.py")


@pytest.mark.parametrize("name", ["README.md", *(name for name in NAMES if re.search("radiologist|how-to", name))])
def test_what_is_written_like_a_label_is_one_of_the_panels(name):
    shown = "\n".join(path.read_text(encoding="utf-8") for place in PANELS for path in ROOT.glob(f"*/{place}"))
    prose = re.sub(r"^( *)```.*?^\1```|`[^`]*`", "", TEXTS[name], flags=re.M | re.S)
    for label in re.findall(r"(?<![*\w])\*([^*\n]+)\*(?!\*)", prose):
        assert label in shown or label.startswith(SLICERS), label


UNWANTED = (
    r"\b(doctors?|annotators?|raters?|own slices|protocols?|generalisation|colour|grey|centre|stands? in|clean)\b"
)


@pytest.mark.parametrize("name", NAMES)
def test_the_words_are_those_of_the_glossary(name):
    prose = re.sub(r"^( *)```.*?^\1```|`[^`]*`", "", TEXTS[name], flags=re.M | re.S)
    found = re.findall(UNWANTED, prose, re.I)
    allowed = {"protocol"} if name.endswith("evidence.md") else set()
    assert set(found) <= allowed


@dataclass
class Sample:
    """A record to document. silent: said in the docstring."""

    behind: int = 1  # said behind it,
    # and below
    # said above it
    above: str = "a"
    own: float = 0.5
    """Its own docstring."""
    silent: dict = field(default_factory=dict)


def test_a_records_fields_are_documented_by_what_stands_beside_them(hooks):
    assert hooks.field_notes(Sample) == {
        "behind": "said behind it, and below said above it",
        "own": "Its own docstring.",
        "silent": "Said in the docstring.",
    }


def test_every_row_of_odd_input_names_its_test():
    rows = re.findall(r"^\| (?!input \|)(.+) \|$", TEXTS["docs/reference/odd-input.md"], re.M)
    for row in rows:
        named = re.findall(r"`(Testing/[\w/]+\.py)::(\w+)`", row.split(" | ")[-1])
        assert named, f"no test in the row: {row}"
        for path, test in named:
            names = {
                node.name
                for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
                if hasattr(node, "name")
            }
            assert test in names, f"{path} has no {test}"
