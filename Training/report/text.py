"""Numbers as the report prints them."""

from collections.abc import Callable, Iterable

__all__ = ["counted", "fold_text", "p_text", "show", "show_percent", "signed"]


def show(value: float | None, digits: int) -> str:
    """A number with fixed digits and a true minus sign; an en dash for what is absent (None, NaN)."""
    if value is None or value != value:
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def show_percent(value: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as a percentage without its sign."""
    return show(None if value is None else 100 * value, digits)


def signed(shown: Callable[[float], str], value: float) -> str:
    """``shown(value)`` with a plus sign where it is above zero as printed."""
    text = shown(value)
    return f"+{text}" if value > 0 and any(c in text for c in "123456789") else text


def p_text(p: float) -> str:
    """A p-value as printed: three digits, or below 0.001."""
    return "< 0.001" if p < 0.001 else show(p, 3)


def fold_text(folds: Iterable[int]) -> str:
    """Folds as a reader writes them: "0–4", "0, 2", "none"."""
    numbers = sorted(folds)
    if not numbers:
        return "none"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def counted(nodules: int, patients: int, images: bool = False) -> str:
    """So many nodules of so many patients; of a set of images subjects, which may be blocks of tissue."""
    one, many = ("image", "subject") if images else ("nodule", "patient")
    return f"{nodules:,} {one}{'s' * (nodules != 1)} of {patients:,} {many}{'s' * (patients != 1)}"
