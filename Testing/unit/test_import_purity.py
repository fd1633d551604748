"""What Slicer imports at start-up loads nothing heavy: every import of a heavy package is made to fail."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "LungNoduleUncertainty"
SOFT_MODULE = ROOT / "SoftMaskLabeler"
BLOCKED = (
    "torch",
    "skimage",
    "SimpleITK",
    "numpy",
    "scipy",
    "matplotlib",
    "cv2",
    "safetensors",
    "pydicom",
    "vtk",
    "qt",
    "ctk",
)

_RUN = """
import importlib, sys, types

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is imported at the top of a file")

sys.meta_path.insert(0, Refuse())
slicer = types.ModuleType("slicer")
slicer.__path__ = []
scripted = types.ModuleType("slicer.ScriptedLoadableModule")
for kind in ("", "Widget", "Logic", "Test"):
    setattr(scripted, "ScriptedLoadableModule" + kind, type("ScriptedLoadableModule" + kind, (), {{}}))
i18n = types.ModuleType("slicer.i18n")
i18n.tr = lambda text: text
i18n.translate = lambda context, text: text
util = types.ModuleType("slicer.util")
util.VTKObservationMixin = type("VTKObservationMixin", (), {{}})
sys.modules.update({{m.__name__: m for m in (slicer, scripted, i18n, util)}})
sys.path[:0] = {path!r}
for name in {names!r}:
    importlib.import_module(name)
{then}
"""


def run(names, then="", blocked=BLOCKED):
    code = _RUN.format(blocked=set(blocked), path=[str(MODULE), str(SOFT_MODULE), str(ROOT)], names=names, then=then)
    return subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT.parent)


def library_modules(folder):
    """Every file of a module's Lib but the networks' own, which are imported on demand."""
    package = folder / f"{folder.name}Lib"
    names = [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if path.parent.name != "networks" or path.name == "__init__.py"
    ]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize(
    "name", [name for folder in (MODULE, SOFT_MODULE) for name in (folder.name, *library_modules(folder))]
)
def test_importing_loads_nothing_heavy(name):
    done = run([name])
    assert done.returncode == 0, done.stderr


def test_a_heavy_import_would_be_noticed():
    done = run(["numpy"])
    assert done.returncode != 0
    assert "numpy is imported at the top of a file" in done.stderr


def test_names_of_networks_and_bundles_need_nothing_heavy():
    then = "from LungNoduleUncertaintyLib import networks, model_bundle\n"
    then += "assert 'ugsnet' in networks.available(), networks.available()\nmodel_bundle.available_bundles()\n"
    done = run(["LungNoduleUncertaintyLib"], then)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", [MODULE, SOFT_MODULE])
def test_a_library_imports_neither_training_nor_the_other_nor_slicer_outside_of_its_bridge(folder):
    import ast

    other = {"LungNoduleUncertaintyLib", "SoftMaskLabelerLib"} - {f"{folder.name}Lib"}
    for path in sorted((folder / f"{folder.name}Lib").rglob("*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
        assert not imported & {"Training", *other}, path
        if not path.name.startswith(("mrml_", "panel", "vtk_sampling", "dependencies")):
            assert not imported & {"slicer", "vtk", "qt", "ctk"}, path
