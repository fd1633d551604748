"""The table of nodules: which columns, from which measurements, as numbers, CSV and text. Knows nothing of Slicer."""

import csv
import io

from .size_classes import size_classes, size_sentence

NOTICE = "For research, not for diagnosis."

# Title: (unit, where a nodule's measurements hold it, digits). Low and high are of HC and of HC and LC together.
_NUMBERS = {
    "Volume": ("mm³", ("volumes_mm3", "final"), 0),
    "Volume low": ("mm³", ("interval", "volume_mm3", 0), 0),
    "Volume high": ("mm³", ("interval", "volume_mm3", 1), 0),
    "Mean axis": ("mm", ("mean_axis_mm", "final"), 1),
    "Mean axis low": ("mm", ("interval", "mean_axis_mm", 0), 1),
    "Mean axis high": ("mm", ("interval", "mean_axis_mm", 1), 1),
    "Long axis": ("mm", ("long_axis_mm", "final"), 1),
    "Short axis": ("mm", ("short_axis_mm", "final"), 1),
    "Mean density": ("HU", ("mean_hu", "final"), 0),
    "Mean density HC": ("HU", ("mean_hu", "hc"), 0),
    "Mean density LC": ("HU", ("mean_hu", "lc"), 0),
    "Mass": ("mg", ("mass_mg", "final"), 0),
    "Mass low": ("mg", ("interval", "mass_mg", 0), 0),
    "Mass high": ("mg", ("interval", "mass_mg", 1), 0),
    "LC share": ("%", ("lc_share",), 0),
    "Solid share": ("%", ("solid_share",), 0),
}
_MISSING = "–"  # in place of an interval that the model doesn't give


def columns() -> list[str]:
    """Titles of the table, units in brackets."""
    titles = [f"{title} [{unit}]" for title, (unit, _, _) in _NUMBERS.items()]
    return ["Nodule", *titles, "Lung-RADS size class", "Nodule type", "Model"]


def is_number(title: str) -> bool:
    """Whether a column of `columns` holds numbers."""
    return title.partition(" [")[0] in _NUMBERS


def row(name: str, measurements: dict, kind: str = "solid", model: str = "") -> list:
    """One nodule's values in the order of `columns`: text, then floats rounded as they are shown, then text.

    What a model doesn't give (HC, LC and intervals, of one that gives Final alone) is None.
    """
    numbers = [_number(measurements, *entry) for entry in _NUMBERS.values()]
    shown = " / ".join(size_classes(measurements, kind).values())
    return [name, *numbers, shown, kind, model]


def _number(measurements, unit, place, digits):
    value = measurements
    for key in place:
        if isinstance(value, dict) and key not in value:
            return None
        value = value[key]
    return round(float(value) * (100 if unit == "%" else 1), digits)


def as_csv(rows: list[list]) -> str:
    """The table as CSV (RFC 4180: comma, quotes where needed, CRLF); all columns always, None as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns())
    writer.writerows(rows)
    return out.getvalue()


def interval_text(measurements: dict) -> tuple[str, str]:
    """(volume, mean axis) with their intervals, e.g. ``("182 [96, 310]", "6.8 [5.1, 8.4]")``, in mm³ and mm.

    Without an interval a dash stands in its place: ``("182 [–]", "6.8 [–]")``.
    """
    volume, axis = f"{measurements['volumes_mm3']['final']:.0f}", f"{measurements['mean_axis_mm']['final']:.1f}"
    if "interval" not in measurements:
        return f"{volume} [{_MISSING}]", f"{axis} [{_MISSING}]"
    (v_low, v_high), (a_low, a_high) = (measurements["interval"][key] for key in ("volume_mm3", "mean_axis_mm"))
    return f"{volume} [{v_low:.0f}, {v_high:.0f}]", f"{axis} [{a_low:.1f}, {a_high:.1f}]"


def as_text(name: str, measurements: dict, kind: str = "solid", model: str = "") -> str:
    """Lines for a report: every measurement with its interval, how it was made, and that it is for research."""
    m = measurements
    volume, mass, density = f"{m['volumes_mm3']['final']:.0f}", f"{m['mass_mg']['final']:.0f} mg", ""
    shares, meaning = f"Solid {100 * m['solid_share']:.0f} % of the final outline", "The model gives no interval."
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
            f"{made} {NOTICE}",
        ]
    )
