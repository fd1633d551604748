"""Fails when the tracked files, or one of them, have grown beyond what the repository is to hold.

Slicer's extension index allows 100 MB for a working copy with its history. Results of single nodules belong into the
one compressed archive in Resources/results; data and models of experiments don't belong here at all.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALL_MB, ONE_MB = 22, 5


def main() -> int:
    """0, or 1 with a line for everything that is too large."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sizes = {name: (ROOT / name).stat().st_size / 1e6 for name in listed.split("\0") if (ROOT / name).is_file()}
    problems = [f"{name}: {size:.1f} MB, at most {ONE_MB} MB" for name, size in sizes.items() if size > ONE_MB]
    if sum(sizes.values()) > ALL_MB:
        largest = sorted(sizes, key=sizes.get, reverse=True)[:5]
        problems.append(f"all tracked files: {sum(sizes.values()):.1f} MB, at most {ALL_MB} MB ({', '.join(largest)})")
    print("\n".join(problems) or f"{len(sizes)} tracked files, {sum(sizes.values()):.1f} MB")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
