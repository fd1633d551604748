"""Values in messages: of any type and length, in one short line."""

import pytest

from LungNoduleKit.errors import NoduleError, shortened, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.5"), ("a'b", '"a\'b"'), (None, "None"), ([1, "x"], "[1, 'x']"), ({"a": 1}, "{'a': 1}")],
)
def test_an_ordinary_value_is_its_repr(value, text):
    assert shown(value) == text == repr(value)


def test_a_long_value_has_its_begin_and_its_end():
    text = shown("begin" + "x" * 5000 + "end")
    assert len(text) <= 80
    assert text.startswith("'beginx")
    assert text.endswith("xend'")
    assert shortened("begin" + "x" * 5000 + "end", 20) == "beginxxxxxxx...xxend"
    assert shortened("x" * 80) == "x" * 80


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [10**30_000, deep(100_000), list(range(10_000)), {str(n): n for n in range(1000)}],
    ids=["number", "deep", "list", "table"],
)
def test_what_has_no_short_repr_is_shown_nevertheless(value):
    assert len(str(NoduleError(f"f: {shown(value)}"))) <= 83
