"""Writes the file lists of the CMake files anew, so that every file that belongs to a module is installed with it.

A list stands between a line with BEGIN and one with END; lists named SCRIPTS take the Python files, those named
RESOURCES all others. Run as ``make cmake-lists``; with ``--check`` nothing is written, and the exit status is 1 if a
list isn't up to date.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("LungNoduleUncertainty", "SoftMaskLabeler", "Training")
_BLOCK = re.compile(
    r"(?P<begin>^(?P<indent> *)# BEGIN (?P<kind>SCRIPTS|RESOURCES)\n).*?(?P<end>^ *# END (?P=kind)\n)", re.M | re.S
)
_LEFT_OUT = {"CMakeLists.txt", "__pycache__", "Testing"}


def files(module: Path, kind: str) -> list[str]:
    """Paths of a module's files of one kind, relative to its folder, sorted."""
    found = []
    for path in module.rglob("*"):
        relative = path.relative_to(module)
        hidden = any(part in _LEFT_OUT or part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and (path.suffix == ".py") == (kind == "SCRIPTS"):
            found.append(relative.as_posix())
    return sorted(found)


def updated(module: Path) -> str:
    """The text of a module's CMakeLists.txt with its lists as they should be."""

    def block(match):
        lines = "".join(f"{match['indent']}{name}\n" for name in files(module, match["kind"]))
        return match["begin"] + lines + match["end"]

    return _BLOCK.sub(block, (module / "CMakeLists.txt").read_text())


def main(arguments) -> int:
    stale = [m for m in MODULES if (ROOT / m / "CMakeLists.txt").read_text() != updated(ROOT / m)]
    for module in stale:
        if "--check" in arguments:
            print(f"{module}/CMakeLists.txt: its file lists aren't up to date; run make cmake-lists", file=sys.stderr)
        else:
            (ROOT / module / "CMakeLists.txt").write_text(updated(ROOT / module))
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
