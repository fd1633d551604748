"""Run inside the Slicer application: loads both modules, opens their panels, reloads them, and runs their own tests.

    Slicer --no-splash --testing --additional-module-paths LungNoduleUncertainty SoftMaskLabeler \
           --python-script Testing/run_in_slicer.py

Slicer ends with status 1 if anything fails or is skipped. A picture of each panel is written to `slicer-screenshots`.
"""

import sys
import traceback
from pathlib import Path

import slicer

MODULES = ("LungNoduleUncertainty", "SoftMaskLabeler")
PICTURES = Path("slicer-screenshots")


def check(name):
    """One module from loading to its own test; raises whatever goes wrong."""
    if not hasattr(slicer.modules, name.lower()):
        raise RuntimeError(f"{name} isn't loaded")
    slicer.util.selectModule(name)
    slicer.app.processEvents()
    PICTURES.mkdir(exist_ok=True)
    slicer.util.mainWindow().grab().save(str(PICTURES / f"{name}.png"))
    getattr(slicer.modules, f"{name}Widget").onReload()
    slicer.app.processEvents()
    getattr(sys.modules[name], f"{name}Test")().runTest()


def main():
    """Exit status."""
    failed = []
    for name in MODULES:
        try:
            check(name)
            print(f"{name}: passed")
        except BaseException:  # SkipTest too: everything that a test needs is installed here
            traceback.print_exc()
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    slicer.util.exit(main())
