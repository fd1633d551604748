"""What is imported loads nothing heavy: every import of a heavy package is made to fail.

Slicer imports the shells at start-up and the packages with them: these load nothing but the standard library and
Slicer. The Libs' other files may have NumPy, SciPy and SimpleITK at their top, but not what takes long or belongs to
the application. Only the networks' own files, which `networks.create` imports, stand on torch.
"""

import subprocess
import sys

import pytest

FOLDERS = {  # folder of a module -> its shell and its packages
    "LungNoduleUncertainty": ("LungNoduleUncertainty", "LungNoduleKit", "LungNoduleUncertaintyLib"),
    "SoftMaskLabeler": ("SoftMaskLabeler", "SoftMaskLabelerLib"),
}
HEAVY = ("torch", "skimage", "matplotlib", "cv2", "onnxruntime", "pandas", "pyarrow", "pydicom", "safetensors")
APPLICATION = ("vtk", "qt", "ctk")
NUMERIC = ("numpy", "scipy", "SimpleITK")

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
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{{name}}: {{error}}")
{then}
"""


@pytest.fixture
def run(repository):
    """Function that imports modules in a process where the `blocked` packages can't be imported."""

    def run(names, then="", blocked=(*HEAVY, *APPLICATION, *NUMERIC)):
        path = [str(repository / folder) for folder in FOLDERS]
        code = _RUN.format(blocked=set(blocked), path=path, names=list(names), then=then)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository.parent)

    return run


@pytest.mark.parametrize("name", [name for names in FOLDERS.values() for name in names])
def test_shells_and_packages_load_the_standard_library_alone(run, name):
    done = run([name])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_of_the_libraries_load_nothing_heavy(run, repository, folder):
    names = []
    for package in FOLDERS[folder][1:]:
        for path in sorted((repository / folder / package).rglob("*.py")):
            name = ".".join(path.relative_to(repository / folder).with_suffix("").parts).removesuffix(".__init__")
            if not name.startswith("LungNoduleUncertaintyLib.networks."):
                names.append(name)
    assert len(names) > 20
    done = run(names, blocked=(*HEAVY, *APPLICATION))
    assert done.returncode == 0, done.stderr


def test_a_heavy_import_would_be_noticed(run):
    done = run(["numpy"])
    assert done.returncode != 0
    assert "numpy is imported at the top of a file" in done.stderr


def test_names_of_networks_and_bundles_need_nothing_heavy(run):
    listed = "from LungNoduleUncertaintyLib import networks\nassert 'ugsnet' in networks.available()\n"
    done = run([], listed)
    assert done.returncode == 0, done.stderr
    bundles = "from LungNoduleUncertaintyLib.models import bundle, store\n"
    bundles += "assert (store if hasattr(store, 'available_bundles') else bundle).available_bundles()\n"
    done = run([], bundles, blocked=(*HEAVY, *APPLICATION))
    assert done.returncode == 0, done.stderr
