"""The table of nodules: which columns, from which measurements, as numbers, CSV and text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .measurements import Measurements
from .size_classes import NoduleKind, size_classes, size_sentence

OUT_OF_DATE = "out of date"
NOTICE = "For research, not for diagnosis."
_MISSING = "–"  # in place of an interval that the model doesn't have


class _NumberColumn(NamedTuple):
    """A column of numbers: its name, its unit, where a nodule's measurements have it, and digits that are shown."""

    name: str
    unit: str
    place: tuple[str | int, ...]
    digits: int

    @property
    def title(self) -> str:
        return f"{self.name} [{self.unit}]"

    def number(self, measurements: Measurements) -> float | None:
        """Rounded as it is shown; None for what the measurements don't have."""
        value: Any = measurements
        for key in self.place:
            if isinstance(value, dict) and key not in value:
                return None
            value = value[key]
        return round(float(value) * (100 if self.unit == "%" else 1), self.digits)


# Low and high are of HC and of the union.
_NUMBERS = (
    _NumberColumn("Volume", "mm³", ("volumes_mm3", "final"), 0),
    _NumberColumn("Volume low", "mm³", ("interval", "volume_mm3", 0), 0),
    _NumberColumn("Volume high", "mm³", ("interval", "volume_mm3", 1), 0),
    _NumberColumn("Mean axis", "mm", ("mean_axis_mm", "final"), 1),
    _NumberColumn("Mean axis low", "mm", ("interval", "mean_axis_mm", 0), 1),
    _NumberColumn("Mean axis high", "mm", ("interval", "mean_axis_mm", 1), 1),
    _NumberColumn("Long axis", "mm", ("long_axis_mm", "final"), 1),
    _NumberColumn("Short axis", "mm", ("short_axis_mm", "final"), 1),
    _NumberColumn("Mean density", "HU", ("mean_hu", "final"), 0),
    _NumberColumn("Mean density HC", "HU", ("mean_hu", "hc"), 0),
    _NumberColumn("Mean density LC", "HU", ("mean_hu", "lc"), 0),
    _NumberColumn("Mass", "mg", ("mass_mg", "final"), 0),
    _NumberColumn("Mass low", "mg", ("interval", "mass_mg", 0), 0),
    _NumberColumn("Mass high", "mg", ("interval", "mass_mg", 1), 0),
    _NumberColumn("LC share", "%", ("lc_share",), 0),
    _NumberColumn("Solid share", "%", ("solid_share",), 0),
)


@dataclass(frozen=True)
class NoduleRow:
    """One nodule's row. `numbers` by title, rounded as they are shown; None where the model has none (HC, LC and
    intervals, of one that has Final alone). `warnings` in one text, empty where there are none.
    """

    nodule: str
    numbers: dict[str, float | None]
    size_class: str
    kind: str
    model: str
    warnings: str = ""

    def cells(self) -> list[str | float | None]:
        """The values in the order of `columns`."""
        return [self.nodule, *self.numbers.values(), self.size_class, self.kind, self.model, self.warnings]


def columns() -> list[str]:
    """Titles of the table, units in brackets."""
    return [
        "Nodule",
        *(column.title for column in _NUMBERS),
        "Lung-RADS size class",
        "Nodule type",
        "Model",
        "Warnings",
    ]


def is_number(title: str) -> bool:
    """Whether a column of `columns` has numbers."""
    return any(column.title == title for column in _NUMBERS)


def row(
    name: str,
    measurements: Measurements,
    kind: NoduleKind = "solid",
    model: str = "",
    warnings: Sequence[str] = (),
) -> NoduleRow:
    """One nodule's row."""
    numbers = {column.title: column.number(measurements) for column in _NUMBERS}
    return NoduleRow(
        name, numbers, " / ".join(size_classes(measurements, kind).values()), kind, model, "; ".join(warnings)
    )


def unmeasured_row(name: str, kind: NoduleKind, model: str, warnings: Sequence[str]) -> NoduleRow:
    """The row of a nodule without numbers; `warnings` say why it has none."""
    return NoduleRow(name, {column.title: None for column in _NUMBERS}, "", kind, model, "; ".join(warnings))


def as_csv(rows: Iterable[NoduleRow]) -> str:
    """The table as CSV (RFC 4180: comma, quotes where needed, CRLF); all columns always, None as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns())
    writer.writerows(row.cells() for row in rows)
    return out.getvalue()


def interval_text(measurements: Measurements) -> tuple[str, str]:
    """(volume, mean axis) with their intervals, e.g. ``("182 [96, 310]", "6.8 [5.1, 8.4]")``, in mm³ and mm.

    Without an interval a dash takes its place: ``("182 [–]", "6.8 [–]")``.
    """
    volume, axis = f"{measurements['volumes_mm3']['final']:.0f}", f"{measurements['mean_axis_mm']['final']:.1f}"
    if "interval" not in measurements:
        return f"{volume} [{_MISSING}]", f"{axis} [{_MISSING}]"
    interval = measurements["interval"]
    (v_low, v_high), (a_low, a_high) = interval["volume_mm3"], interval["mean_axis_mm"]
    return f"{volume} [{v_low:.0f}, {v_high:.0f}]", f"{axis} [{a_low:.1f}, {a_high:.1f}]"


def as_text(
    name: str,
    measurements: Measurements,
    kind: NoduleKind = "solid",
    model: str = "",
    warnings: Sequence[str] = (),
) -> str:
    """Lines for a report: every measurement with its interval, warnings, how it was made, that it is for research."""
    m = measurements
    volume, mass, density = f"{m['volumes_mm3']['final']:.0f}", f"{m['mass_mg']['final']:.0f} mg", ""
    shares, meaning = f"Solid {100 * m['solid_share']:.0f} % of the final outline", "The model has no interval."
    if "interval" in m:
        volume, _ = interval_text(m)
        mass += " [{:.0f}, {:.0f}]".format(*m["interval"]["mass_mg"])
        density = f" (HC {m['mean_hu']['hc']:.0f} HU, LC {m['mean_hu']['lc']:.0f} HU)"
        shares = f"LC {100 * m['lc_share']:.0f} % of the volume, s{shares[1:]}"
        meaning = "[a, b]: a is what every reader would include, b what any reader would."
    made = f"Outlined by {model}; {meaning[0].lower()}{meaning[1:]}" if model else meaning
    return "\n".join(
        [
            f"{name} ({kind})",
            f"Volume {volume} mm³",
            f"Mean axis {size_sentence(m, kind)} (long {m['long_axis_mm']['final']:.1f} mm, "
            f"short {m['short_axis_mm']['final']:.1f} mm)",
            f"Density {m['mean_hu']['final']:.0f} HU{density}",
            f"Mass {mass}",
            shares,
            *(f"Warning: {warning}" for warning in warnings),
            f"{made} {NOTICE}",
        ]
    )
