"""The table of nodules: which columns, from which measurements, as numbers, CSV and text. Knows nothing of Slicer."""

import csv
import io

NOTICE = "For research, not for diagnosis."

# Title: (unit, function of a nodule's measurements and type). Low and high are of HC and of HC and LC together.
_NUMBERS = {
    "Volume": ("mm³", lambda m: m["volumes_mm3"]["final"], 0),
    "Volume low": ("mm³", lambda m: m["interval"]["volume_mm3"][0], 0),
    "Volume high": ("mm³", lambda m: m["interval"]["volume_mm3"][1], 0),
    "Mean axis": ("mm", lambda m: m["mean_axis_mm"]["final"], 1),
    "Mean axis low": ("mm", lambda m: m["interval"]["mean_axis_mm"][0], 1),
    "Mean axis high": ("mm", lambda m: m["interval"]["mean_axis_mm"][1], 1),
    "Long axis": ("mm", lambda m: m["long_axis_mm"]["final"], 1),
    "Short axis": ("mm", lambda m: m["short_axis_mm"]["final"], 1),
    "Mean density": ("HU", lambda m: m["mean_hu"]["final"], 0),
    "Mean density HC": ("HU", lambda m: m["mean_hu"]["hc"], 0),
    "Mean density LC": ("HU", lambda m: m["mean_hu"]["lc"], 0),
    "Mass": ("mg", lambda m: m["mass_mg"]["final"], 0),
    "Mass low": ("mg", lambda m: m["interval"]["mass_mg"][0], 0),
    "Mass high": ("mg", lambda m: m["interval"]["mass_mg"][1], 0),
    "LC share": ("%", lambda m: 100 * m["lc_share"], 0),
    "Solid share": ("%", lambda m: 100 * m["solid_share"], 0),
}


def columns() -> list[str]:
    """Titles of the table, units in brackets."""
    titles = [f"{title} [{unit}]" for title, (unit, _, _) in _NUMBERS.items()]
    return ["Nodule", *titles, "Lung-RADS size class", "Nodule type", "Model"]


def row(name: str, measurements: dict, kind: str = "solid", model: str = "") -> list:
    """One nodule's values in the order of `columns`: text, then floats rounded as they are shown, then text."""
    from .lung_rads import size_classes

    numbers = [round(float(value(measurements)), digits) for _, value, digits in _NUMBERS.values()]
    classes = size_classes(measurements, kind)
    shown = " / ".join(classes[end] for end in ("low", "final", "high"))
    return [name, *numbers, shown, kind, model]


def as_csv(rows: list[list]) -> str:
    """The table as CSV (RFC 4180: comma, quotes where needed, CRLF)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns())
    writer.writerows(rows)
    return out.getvalue()


def interval_text(measurements: dict) -> tuple[str, str]:
    """(volume, mean axis) with their intervals, e.g. ``("182 [96, 310]", "6.8 [5.1, 8.4]")``, in mm³ and mm."""
    (v_low, v_high), (a_low, a_high) = (measurements["interval"][key] for key in ("volume_mm3", "mean_axis_mm"))
    volume = f"{measurements['volumes_mm3']['final']:.0f} [{v_low:.0f}, {v_high:.0f}]"
    return volume, f"{measurements['mean_axis_mm']['final']:.1f} [{a_low:.1f}, {a_high:.1f}]"


def as_text(name: str, measurements: dict, kind: str = "solid", model: str = "") -> str:
    """Lines for a report: every measurement with its interval, how it was made, and that it is for research."""
    from .lung_rads import size_sentence

    m = measurements
    volume, _ = interval_text(m)
    mass_low, mass_high = m["interval"]["mass_mg"]
    made = f"Outlined by {model}; " if model else ""
    return "\n".join(
        [
            f"{name} ({kind})",
            f"Volume {volume} mm³",
            f"Mean axis {size_sentence(m, kind)} (long {m['long_axis_mm']['final']:.1f} mm, "
            f"short {m['short_axis_mm']['final']:.1f} mm)",
            f"Density {m['mean_hu']['final']:.0f} HU (HC {m['mean_hu']['hc']:.0f} HU, LC {m['mean_hu']['lc']:.0f} HU)",
            f"Mass {m['mass_mg']['final']:.0f} mg [{mass_low:.0f}, {mass_high:.0f}]",
            f"LC {100 * m['lc_share']:.0f} % of the volume, solid {100 * m['solid_share']:.0f} % of the final outline",
            f"{made}[a, b]: a is what every reader would include, b what any reader would. {NOTICE}",
        ]
    )
