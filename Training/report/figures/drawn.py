"""A drawn figure with its words and numbers, and how it becomes files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from LungNoduleKit.files import write_whole

DPI = 110


@dataclass
class Drawn:
    """One figure of an experiment.

    name: file stem, unique within the experiment. title: one line. caption: how the nodules were chosen, fold, counts
    and network width. figure: a matplotlib `Figure` (no pyplot state), or a PNG's bytes. data: numbers behind the
    figure that fit JSON, `{"table": [one dict a row], ...}`, or None.
    """

    name: str
    title: str
    caption: str
    figure: Any = field(repr=False)
    data: dict[str, Any] | None = field(default=None, repr=False)


def save(drawn: Drawn, folder: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `folder/<name>.png` and `.svg`, each whole or not at all; returns the paths. Raises OutputError.

    The same figure gives the same bytes: no date is written, and the SVG's element names don't vary. A figure that is
    a PNG already is written as it is, without an SVG.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in ("png",) if isinstance(drawn.figure, bytes) else formats:
        paths.append(folder / f"{drawn.name}.{kind}")
        write_whole(paths[-1], partial(_write, drawn, kind))
    return paths


def png_bytes(drawn: Drawn) -> bytes:
    """The figure as a PNG."""
    if isinstance(drawn.figure, bytes):
        return drawn.figure
    out = io.BytesIO()
    _draw(drawn, "png", out)
    return out.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """A file of these bytes, whole or not at all, with its folder. Raises OutputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda target: Path(target).write_bytes(content))


def _write(drawn: Drawn, kind: str, path: Path) -> None:
    if isinstance(drawn.figure, bytes):
        path.write_bytes(drawn.figure)
    else:
        _draw(drawn, kind, path)


def _draw(drawn: Drawn, kind: str, target: Path | io.BytesIO) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.savefig(target, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else {})
