"""Size classes of Lung-RADS v2022 for a nodule found at baseline, and what an interval of sizes means for them.

Sizes are the mean of the long and the short axis in millimeters, to one decimal (American College of Radiology,
Lung-RADS v2022). Only the limits of size are applied: growth, location, airway nodules and the additional features of
the scheme (4X, S) are the reader's. For research; it assigns nobody a category.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

from .measurements import Measurements

NoduleKind: TypeAlias = Literal["solid", "part-solid", "ground-glass"]
KINDS: tuple[NoduleKind, ...] = get_args(NoduleKind)


def size_class(mean_axis_mm: float, kind: NoduleKind = "solid", solid_axis_mm: float | None = None) -> str:
    """`2`, `3`, `4A` or `4B`: the class of a mean axis in millimeters, by the limits for baseline nodules.

    solid: below 6, 8, 15 mm. ground-glass: below 30 mm is 2, from there 3. part-solid: below 6 mm in total is 2;
    otherwise the mean axis of its solid part decides, `solid_axis_mm`: below 6 mm is 3, below 8 mm 4A, from there 4B.

    Raises ValueError for another kind, for sizes that aren't finite and positive, and for a part-solid nodule of 6 mm
    or more without the size of its solid part.
    """
    if kind not in KINDS:
        raise ValueError(f"nodule type {kind!r}: it isn't one of {', '.join(KINDS)}")
    size = round(float(mean_axis_mm), 1)
    if not math.isfinite(size) or size < 0:
        raise ValueError(f"mean axis {mean_axis_mm!r}: it isn't a size in millimeters")
    if kind == "ground-glass":
        return "2" if size < 30 else "3"
    if kind == "solid":
        return "2" if size < 6 else "3" if size < 8 else "4A" if size < 15 else "4B"
    if size < 6:
        return "2"
    if solid_axis_mm is None:
        raise ValueError("a part-solid nodule of 6 mm or more needs the mean axis of its solid part")
    solid = round(float(solid_axis_mm), 1)
    return "3" if solid < 6 else "4A" if solid < 8 else "4B"


def size_classes(measurements: Measurements, kind: NoduleKind = "solid") -> dict[str, str]:
    """Classes {"low", "final", "high"} of HC, Final and the union in `measurements.measure`'s result.

    Low and high are ordered by size of the mean axis, as the interval is; without an interval there is only "final".
    """
    axes, solid = measurements["mean_axis_mm"], measurements["solid_mean_axis_mm"]
    outlines = {"final": "final"}
    if "interval" in measurements:
        low, high = sorted(("hc", "union"), key=lambda name: axes[name])
        outlines = {"low": low, "final": "final", "high": high}
    return {end: size_class(axes[name], kind, solid[name]) for end, name in outlines.items()}


def size_sentence(measurements: Measurements, kind: NoduleKind = "solid") -> str:
    """One plain sentence, e.g. ``6.8 mm [5.1, 8.4]: between Lung-RADS size classes 2 and 4A``."""
    size = f"{measurements['mean_axis_mm']['final']:.1f} mm"
    if "interval" in measurements:
        low, high = measurements["interval"]["mean_axis_mm"]
        size += f" [{low:.1f}, {high:.1f}]"
    classes = size_classes(measurements, kind)
    if len(set(classes.values())) == 1:
        return f"{size}: Lung-RADS size class {classes['final']}"
    order = sorted(classes.values())  # as text, "2" < "3" < "4A" < "4B"
    return f"{size}: between Lung-RADS size classes {order[0]} and {order[-1]}"
