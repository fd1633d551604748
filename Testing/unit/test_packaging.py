"""What is installed is what is there: CMake's lists, the Python package, pinned versions, the extension's metadata."""

import importlib
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import LungNoduleKit
import LungNoduleUncertaintyLib
import SoftMaskLabelerLib

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("LungNoduleUncertainty", "SoftMaskLabeler", "Training")

# What the macros of Slicer's build check and do, as far as a module of scripts sees it.
_SLICER = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Empty.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Empty.cmake")
"""
_USE_SLICER = """
set(DESTINATION "${CMAKE_BINARY_DIR}/qt-scripted-modules")
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  set(folder "${DESTINATION}")
  if(MY_WITH_SUBDIR)
    get_filename_component(subdirectory "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(folder "${DESTINATION}/${subdirectory}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "nonexistent file ${file}")
    endif()
    get_filename_component(parent "${folder}/${file}" DIRECTORY)
    file(COPY "${CMAKE_CURRENT_SOURCE_DIR}/${file}" DESTINATION "${parent}")
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "nonexistent test ${MY_SCRIPT}")
  endif()
endmacro()
"""


def toml(path):
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def listed(module):
    text = re.sub(r"#.*", "", (ROOT / module / "CMakeLists.txt").read_text())
    blocks = re.findall(r"set\(\w+_(SCRIPTS|RESOURCES)\s([^)]*)\)", text)
    return [name for _, block in blocks for name in block.split()]


def present(module):
    """Every file below a module's folder, but for CMake's own and caches."""
    found = [path.relative_to(ROOT / module) for path in (ROOT / module).rglob("*") if path.is_file()]
    found = [path for path in found if "__pycache__" not in path.parts and not path.name.startswith(".")]
    return {path.as_posix() for path in found if path.name != "CMakeLists.txt" and path.parts[0] != "Testing"}


@pytest.mark.parametrize("module", MODULES)
def test_cmake_lists_name_every_file_and_no_other(module):
    names = listed(module)
    assert len(names) == len(set(names))
    assert set(names) == present(module), "run make cmake-lists"


def test_the_tool_that_writes_the_lists_agrees():
    tool = [sys.executable, ROOT / "Testing" / "update_cmake_lists.py", "--check"]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cmake_would_install_can_be_imported(tmp_path):
    """Both folders land in one; from there the library and the training package import without the repository."""
    installed = set()
    for module in MODULES:
        for name in listed(module):
            target = tmp_path / (module if module == "Training" else "") / name
            assert name not in installed, f"{name} would overwrite another module's file"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / module / name, target)
        installed |= set(listed(module)) if module != "Training" else set()
    code = (
        "import LungNoduleUncertaintyLib, Training, sys\n"
        "from LungNoduleUncertaintyLib import networks, resources\n"
        f"assert LungNoduleUncertaintyLib.__file__.startswith({str(tmp_path)!r})\n"
        f"assert Training.__file__.startswith({str(tmp_path)!r})\n"
        f"assert str(resources.resource_path()).startswith({str(tmp_path)!r})\n"
        "assert resources.resource_path('Icons').is_dir()\n"
        "networks.create('ugsnet')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake isn't installed")
def test_cmake_configures_the_extension(tmp_path):
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(_SLICER)
    (slicer / "UseSlicer.cmake").write_text(_USE_SLICER)
    (slicer / "Empty.cmake").write_text("")
    arguments = [f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON", "-Wno-dev"]
    # The extension itself needs no compiler, but CMake asks for one by default.
    arguments += [f"-DCMAKE_{language}_COMPILER_FORCED=ON" for language in ("C", "CXX")]
    arguments += [f"-DCMAKE_{language}_COMPILER=/bin/true" for language in ("C", "CXX")]
    done = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path / "build", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "build" / "qt-scripted-modules"
    copied = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {*listed("LungNoduleUncertainty"), *listed("SoftMaskLabeler")} | {
        f"Training/{name}" for name in listed("Training")
    }
    assert copied == expected


def test_extension_index_can_read_the_description():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"project\(\s*([^)\s]+)", text).group(1) == "LungNoduleUncertainty"
    for name in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        values = re.findall(rf'^set\(EXTENSION_{name} "([^"$]+)"\)$', text, re.M)
        assert len(values) == 1, name
        if name in ("ICONURL", "SCREENSHOTURLS"):
            for url in values[0].split():
                inside = url.partition("/main/")[2]  # the file that the address stands for is in the repository
                assert (ROOT / inside).read_bytes()[:4] == b"\x89PNG", url
        if name == "DEPENDS":
            assert values[0].split() == ["PyTorch"]
    assert "APPENDIX: How to apply the Apache License" in (ROOT / "LICENSE.txt").read_text()


def test_icon_is_128_pixels_wide_and_the_same_in_both_places():
    icon = (ROOT / "Resources" / "LungNoduleUncertainty.png").read_bytes()
    assert int.from_bytes(icon[16:20], "big") == int.from_bytes(icon[20:24], "big") == 128
    assert icon == (ROOT / "LungNoduleUncertainty" / "Resources" / "Icons" / "LungNoduleUncertainty.png").read_bytes()


def test_python_package_names_every_package():
    settings = toml(ROOT / "pyproject.toml")["tool"]["setuptools"]
    found = {"LungNoduleUncertaintyLib.Resources", "SoftMaskLabelerLib.Resources"}
    for base, parent in (
        (ROOT / "LungNoduleUncertainty", "LungNoduleKit"),
        (ROOT / "LungNoduleUncertainty", "LungNoduleUncertaintyLib"),
        (ROOT / "SoftMaskLabeler", "SoftMaskLabelerLib"),
        (ROOT, "Training"),
    ):
        for path in (base / parent).rglob("__init__.py"):
            found.add(".".join(path.parent.relative_to(base).parts))
    assert set(settings["packages"]) == found


def requirement_names(lines):
    return {re.match(r"[\w.-]+", line.strip()).group().lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize("python", ["3.10.12", "3.11.2", "3.11.7", "3.12.4"])
def test_every_dependency_is_pinned_once_per_python(python):
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}

    def on_this_python(lines):
        found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
        return [one for one in found if one.marker is None or one.marker.evaluate(environment)]

    pins = on_this_python((ROOT / "constraints.txt").read_text().splitlines())
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names))
    project = toml(ROOT / "pyproject.toml")["project"]
    wanted = on_this_python([*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    assert {canonicalize_name(one.name) for one in wanted} | {"setuptools", "pylidc"} <= set(names)


@pytest.mark.parametrize("module", ["LungNoduleUncertainty", "SoftMaskLabeler"])
def test_slicers_own_packages_are_not_replaced(module):
    path = ROOT / module / "Resources" / f"{module}-requirements.txt"
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert all("==" not in line for line in lines)
    assert not requirement_names(lines) & {"torch", "numpy", "scipy", "simpleitk", "pydicom", "matplotlib"}


def test_the_version_stands_in_one_place_and_the_rest_follows():
    version = LungNoduleKit.__version__
    assert LungNoduleUncertaintyLib.__version__ == SoftMaskLabelerLib.__version__ == version
    assert (
        toml(ROOT / "pyproject.toml")["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "LungNoduleKit.__version__"
    )
    written = [
        p
        for p in ROOT.rglob("*.py")
        if ".venv" not in p.parts and re.search(r"^__version__ =", p.read_text(encoding="utf-8"), re.M)
    ]
    assert [path.parent.name for path in written] == ["LungNoduleKit"]
    citation, changes = ((ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    date = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", changes, re.M)[1]
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation


def test_commands_and_types_come_with_the_package():
    project = toml(ROOT / "pyproject.toml")["project"]
    for target in project["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    for package in ("LungNoduleUncertainty/LungNoduleKit", "LungNoduleUncertainty/LungNoduleUncertaintyLib"):
        assert (ROOT / package / "py.typed").is_file()
    assert (ROOT / "SoftMaskLabeler/SoftMaskLabelerLib/py.typed").is_file()
    assert (ROOT / "Training/py.typed").is_file()
