"""One input tried: made, read by the product, judged."""

from __future__ import annotations

import re
import traceback
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from judge import Figures, differences
from kinds import KINDS
from LungNoduleKit.errors import NoduleError
from targets import Target, ct

ROOT = Path(__file__).resolve().parents[2]
OURS = ("LungNoduleUncertainty", "SoftMaskLabeler", "Training")
LONGEST = 700  # characters of an error that is still a line
#: Warnings of what lies beside the CT: they excuse no other result.
_BESIDE = re.compile("no slice of it, left out|several CT series")
#: What became of an input: the first five are as it should be.
GOOD = ("refused", "same", "warned", "as it says", "nothing there")
VERDICTS = (*GOOD, "silent", "exception", "no line", "abort", "hang")


@dataclass(frozen=True)
class Verdict:
    """What became of an input. `group`: what failures of one cause have in common."""

    kind: str
    number: int
    verdict: str
    about: str = ""
    """What was damaged"""
    detail: str = ""
    """The error, the warning, or what differs"""
    group: str = ""

    @property
    def good(self) -> bool:
        """Whether this is as it should be."""
        return self.verdict in GOOD


def build(name: str, number: int, folder: Path) -> tuple[Target, Path, str]:
    """Makes an input in a folder: (what reads it, its path, what was damaged)."""
    kind = KINDS[name]
    rng = kind.rng(name, number)
    target = kind.target(rng)
    path, about = kind.build(rng, folder)
    return target, path, about


def attempt(name: str, number: int) -> Verdict:
    """Makes an input, has it read, and judges what came out."""
    with TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as made:
        folder = Path(made) / "input"
        folder.mkdir()
        target, path, about = build(name, number, folder)
        verdict, detail, group = _judged(name, target, path)
    return Verdict(name, number, verdict, about[:500], detail.replace(made, "")[:1000], group)


def _judged(name: str, target: Target, path: Path) -> tuple[str, str, str]:
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = target(path, notes)
    except NoduleError as error:
        problem = _unhelpful(str(error), path)
        return (
            ("no line", f"{problem}: {error}", f"{type(error).__name__}: {problem}")
            if problem
            else ("refused", str(error), "")
        )
    except BaseException as error:  # also SystemExit, MemoryError, RecursionError: none of them may come out
        return "exception", f"{type(error).__name__}: {error}"[:600], f"{type(error).__name__} in {_place(error)}"
    return _compared(name, target, path, found, notes)


def _compared(name: str, target: Target, path: Path, found: Figures, notes: list[str]) -> tuple[str, str, str]:
    kind = KINDS[name]
    wanted, usual = undisturbed(name, target)
    notes = [note for note in notes if note.replace(str(path.parent), "") not in usual and not _BESIDE.search(note)]
    differing = differences(wanted, found) if kind.one_seed else ["the result isn't what the file says"]
    if not differing:
        return "same", "; ".join(notes), ""
    if notes:
        return "warned", "; ".join(notes), ""
    if found.get("found") == "nothing":
        return "nothing there", "no nodule at the point", ""
    try:
        excused = kind.excuse(path, found)
    except Exception:  # not even plain enough to be read: no excuse
        excused = False
    if excused:
        return "as it says", kind.reason, ""
    what = differing[0].split(" ")[0] if kind.one_seed else path.name
    return "silent", "; ".join(differing), f"{name}: {what}"


@cache
def undisturbed(name: str, target: Target) -> tuple[Figures, list[str]]:
    """Figures of the undisturbed input, after a check that the product finds them; and what it always warns of."""
    kind = KINDS[name]
    with TemporaryDirectory(prefix="fuzz-") as folder:
        path = kind.undisturbed(Path(folder))
        notes: list[str] = []
        found = target(path, notes)
    wanted = kind.expected(target)
    differing = [] if wanted is None else differences(wanted, found)
    notes = [note.replace(folder, "") for note in notes]
    if differing or (notes and target is ct):
        raise SystemExit(f"{name}: the undisturbed input isn't read as it should be: {notes or differing}")
    return found if wanted is None else wanted, notes


def _unhelpful(text: str, path: Path) -> str:
    """What is wrong with an error's text, or nothing: it is one line that names the input."""
    if "\n" in text.strip() or not text.strip():
        return "several lines" if text.strip() else "empty"
    if len(text) > LONGEST:
        return "too long"
    known = any(name in text for name in (path.name, str(path.parent)))
    return "" if known or re.match(r"(CT|point|model|threshold|mask \w+|no nodule found)\b", text) else "names no input"


def _place(error: BaseException) -> str:
    """The innermost function of ours that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        parts = Path(frame.filename).parts
        if any(part in OURS for part in parts) and "robustness" not in parts:
            return f"{'/'.join(parts[-2:])} {frame.name}"
    return f"{Path(frames[-1].filename).name} {frames[-1].name}"
