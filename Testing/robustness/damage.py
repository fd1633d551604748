"""Damage that fits every kind of file: bytes flipped, cut off or doubled, and numbers and words that are odd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Rng = np.random.Generator
FACTORS = (0.5, 2, 1.1, 0.9, 1.001, 10, 100, 1e-3, 1e6, -1, 0)
NO_NUMBERS = (
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "-1e308",
    "abc",
    "1,5",
    "0x10",
    "--1",
    "1_0",
    "٣",
    "1e",
    "?",
)
LARGE_COUNTS = (-1, 0, 1, 2, 3, 7, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30)


def pick(rng: Rng, values: Sequence[T]) -> T:
    """One of the values, each as likely."""
    return values[int(rng.integers(len(values)))]


def odd_number(rng: Rng, value: float) -> str:
    """A text in place of a number: another number, one out of range, or none at all."""
    form = rng.integers(4)
    if form == 0:
        return pick(rng, NO_NUMBERS)
    if form == 1:
        return str(pick(rng, LARGE_COUNTS))
    if form == 2:
        return f"{value + pick(rng, (1, -1, 0.1, 1000, -1000)):.7g}"
    return f"{value * pick(rng, FACTORS):.7g}"


def flipped(rng: Rng, content: bytes, low: int = 0, high: int | None = None) -> tuple[bytes, str]:
    """1 to 20 bytes between two places changed."""
    high = len(content) if high is None else high
    if high <= low:
        return content, "nothing to flip"
    places = rng.integers(low, high, int(pick(rng, (1, 1, 1, 2, 4, 20))))
    out = bytearray(content)
    for place in places:
        out[place] ^= int(rng.integers(1, 256)) if rng.random() < 0.5 else 1 << int(rng.integers(8))
    return bytes(out), f"bytes {sorted(set(places.tolist()))} changed"


def any_bytes(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """The content damaged as a whole: cut off, emptied, doubled, shifted, overwritten, replaced."""
    size, form = len(content), rng.integers(9)
    place = int(rng.integers(size + 1))
    length = int(rng.integers(1, 200))
    if form <= 1:
        return content[:place], f"cut off at byte {place} of {size}"
    if form == 2:
        return content[: max(0, size - length)], f"the last {length} of {size} bytes cut off"
    if form == 3:
        return b"", "emptied"
    if form == 4:
        return content + content, "doubled"
    if form == 5:
        return content[:place] + content[place + length :], f"{length} bytes taken out at {place}"
    if form == 6:
        return content[:place] + rng.bytes(length) + content[place:], f"{length} bytes put in at {place}"
    if form == 7:
        return content[:place] + bytes(length) + content[place + length :], f"{length} bytes zeroed at {place}"
    return rng.bytes(length * 4), f"replaced by {length * 4} random bytes"


def encoded(rng: Rng, text: str) -> tuple[bytes, str]:
    """A text in another encoding, with other line ends, or with bytes that no text has."""
    form = pick(rng, ("bom", "utf-16", "utf-32", "latin-1", "cr", "crlf", "nul", "tab", "undecodable"))
    if form == "bom":
        return text.encode("utf-8-sig"), "with a byte order mark"
    if form in ("utf-16", "utf-32"):
        return text.encode(form), f"as {form}"
    if form == "latin-1":
        return ("# \u00e4\u00f6 \n" + text).encode("latin-1", "replace"), "as latin-1, with umlauts"
    if form in ("cr", "crlf"):
        return text.replace("\n", "\r" if form == "cr" else "\r\n").encode(), f"with line ends {form}"
    place = int(rng.integers(len(text) + 1))
    what = {"nul": b"\0", "tab": b"\t", "undecodable": b"\xff\xfe\x80"}[form]
    return text[:place].encode() + what + text[place:].encode(), f"{form} at {place}"


def odd_value(rng: Rng, depth: int = 2) -> Any:
    """A JSON value that nobody expects."""
    simple: tuple[Any, ...] = (None, True, False, 0, -1, 1, 0.5, 1e308, float("nan"), float("inf"), 10**30, "", "x")
    words = ("../../x", "\0", "ä\ud7ff", "1", "nan", "x" * 5000, "a\nb", [], {}, [1], ["x"], [[]], {"x": 1})
    if depth and rng.random() < 0.15:
        inner = odd_value(rng, depth - 1)
        return [inner, inner] if rng.random() < 0.5 else {"k": inner}
    if rng.random() < 0.03:
        return nested(400)
    return pick(rng, simple + words)


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of everything in nested dicts and lists, tables included."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += leaves(item, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Replaces what is at a place."""
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def take(value: Any, path: tuple[Any, ...]) -> None:
    """Removes what is at a place."""
    for key in path[:-1]:
        value = value[key]
    del value[path[-1]]
