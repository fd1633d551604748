"""A drawn figure with its words and numbers, and how it becomes files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LungNoduleKit.files import write_whole

DPI = 110


@dataclass
class Drawn:
    """One figure of an experiment.

    name: file stem, unique within the experiment. title: one line. caption: how the nodules were chosen, fold, counts
    and network width. figure: a matplotlib `Figure` (no pyplot state). data: numbers behind the figure that fit JSON,
    `{"table": [one dict a row], ...}`, or None.
    """

    name: str
    title: str
    caption: str
    figure: Any = field(repr=False)
    data: dict | None = field(default=None, repr=False)


def save(drawn: Drawn, folder, formats=("png", "svg")) -> list[Path]:
    """Write `folder/<name>.png` and `.svg`, each whole or not at all; returns the paths. Raises OutputError.

    The same figure gives the same bytes: no date is written, and the SVG's element names don't vary.
    """
    from matplotlib import rc_context

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in formats:
        path = folder / f"{drawn.name}.{kind}"
        metadata = {"Date": None} if kind == "svg" else {}
        with rc_context({"svg.hashsalt": drawn.name}):
            write_whole(
                path,
                lambda temporary, kind=kind, metadata=metadata: drawn.figure.savefig(
                    temporary, format=kind, dpi=DPI, metadata=metadata
                ),
            )
        paths.append(path)
    return paths
