"""Records read from JSON or TOML: types are checked, and messages name file, key and reason."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from LungNoduleKit.files import write_record
from LungNoduleKit.records import REST, RecordError, read_json, read_record, read_record_file, record_dict


@dataclass
class Inner:
    name: Literal["a", "b"] = "a"
    share: float = 0.5
    size: tuple[int, int] = (1, 2)


@dataclass
class Outer:
    title: str
    inner: Inner = field(default_factory=Inner)
    items: list[Inner] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    limit: float | None = None
    windows: list[float] | list[list[float]] = field(default_factory=lambda: [0.0, 1.0])


def test_a_record_comes_back_as_it_was_written():
    values = {
        "title": "t",
        "inner": {"name": "b", "share": 1, "size": [3, 4]},
        "items": [{"name": "a", "share": 0.5, "size": [1, 2]}],
        "table": {"x": 1},
        "limit": 2,
        "windows": [[0.0, 1.0], [2.0, 3.0]],
    }
    record = read_record(Outer, values, "file.json")
    assert record.inner.size == (3, 4)
    assert record.items == [Inner()]
    assert record_dict(record) == values
    assert isinstance(record.inner.share, int)  # written again, it is the same to the letter


def test_a_record_may_hold_keys_that_it_has_no_field_of():
    @dataclass
    class Open:
        name: str
        options: dict[str, Any] = field(default_factory=dict, metadata=REST)

    record = read_record(Open, {"name": "n", "width": 8, "options": 1}, "f")
    assert record == Open("n", {"width": 8, "options": 1})
    assert record_dict(record) == {"name": "n", "width": 8, "options": 1}


def test_defaults_stand_where_nothing_is_given():
    assert read_record(Outer, {"title": "t"}, "f") == Outer("t")
    assert "limit" not in record_dict(Outer("t"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"title": "t", "other": 1}, "f: unknown key 'other'; known here: inner, items, limit, table, title, windows"),
        ({"title": "t", "inner": {"nme": "a"}}, "f: unknown key 'inner.nme'; known here: name, share, size"),
        ({}, "f: lacks 'title'"),
        ({"title": 3}, "f: 'title' must be a text, not 3"),
        ({"title": "t", "inner": {"share": "much"}}, "f: 'inner.share' must be a number, not 'much'"),
        ({"title": "t", "inner": {"share": True}}, "f: 'inner.share' must be a number, not True"),
        ({"title": "t", "inner": {"name": "c"}}, "f: 'inner.name' must be one of 'a', 'b', not 'c'"),
        ({"title": "t", "inner": {"size": [1]}}, "f: 'inner.size' must be a list of 2, not [1]"),
        ({"title": "t", "items": [{}, {"share": "x"}]}, "f: 'items[1].share' must be a number, not 'x'"),
        ({"title": "t", "table": {"x": 1.5}}, "f: 'table.x' must be a whole number, not 1.5"),
        ({"title": "t", "inner": 5}, "f: 'inner' must be a table, not 5"),
        ({"title": "t", "limit": "x"}, "f: 'limit' must be a number or nothing, not 'x'"),
    ],
)
def test_what_does_not_fit_is_named(values, message):
    with pytest.raises(RecordError) as raised:
        read_record(Outer, values, "f")
    assert str(raised.value) == message


def test_the_error_is_of_the_callers_kind():
    with pytest.raises(KeyError):
        read_record(Outer, {}, "f", KeyError)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('{"title": "a", "table": {"x": 1, "x": 1}, "title": "a"}', encoding="utf-8")
    assert read_record_file(Outer, path) == Outer("a", table={"x": 1})
    path.write_text('{"title": "a", "table": {"x": 1, "x": 2}}', encoding="utf-8")
    with pytest.raises(RecordError, match=rf"^{path}: can't be read as JSON \(key 'x' stands there twice\)"):
        read_record_file(Outer, path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_endless_nesting_is_refused(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=f"^{path}: can't be read as JSON"):
        read_record_file(Outer, path)


def test_a_long_value_is_shortened_in_the_message():
    values = {"title": list(range(1000)), "table": {}}
    with pytest.raises(RecordError, match=r"^f: 'title' must be a text, not \[0, 1, 2, 3, 4, 5, \.\.\.\]$"):
        read_record(Outer, values, "f")


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"title": "t", "limit": NAN}, "f: 'limit' must be a finite number, not nan"),
        ({"title": "t", "inner": {"share": INFINITY}}, "f: 'inner.share' must be a finite number, not inf"),
        ({"title": "t", "windows": [0.0, NAN]}, "f: 'windows[1]' must be a finite number, not nan"),
    ],
)
def test_numbers_are_finite(values, message):
    with pytest.raises(RecordError) as raised:
        read_record(Outer, values, "f")
    assert str(raised.value) == message


@dataclass
class Loose:
    figures: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict, metadata=REST)


@pytest.mark.parametrize(
    ("values", "key"),
    [({"figures": {"a": [1, {"b": NAN}]}}, "figures.a[1].b"), ({"other": {"c": -INFINITY}}, "other.c")],
)
def test_numbers_of_any_place_are_finite(values, key):
    with pytest.raises(RecordError) as raised:
        read_record(Loose, values, "f")
    assert str(raised.value).startswith(f"f: '{key}' must be a finite number")


def test_a_figure_that_is_not_defined_is_written_as_none_and_read_again(tmp_path):
    write_record(tmp_path / "f.json", Outer("t", limit=NAN))
    assert "NaN" not in (tmp_path / "f.json").read_text()
    assert read_record_file(Outer, tmp_path / "f.json") == Outer("t")
    assert record_dict(Loose({"a": NAN, "b": [INFINITY, 1.0]})) == {"figures": {"a": None, "b": [None, 1.0]}}


def test_what_is_nested_too_deep_is_refused(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("[" * 900 + "]" * 900)
    with pytest.raises(RecordError, match=r"can't be read as JSON .tables or lists are nested more than 50"):
        read_json(path)
    path.write_text("[" * 49 + "1" + "]" * 49)
    assert str(read_json(path)).count("[") == 49


def test_a_record_may_say_what_is_wrong_with_its_values():
    @dataclass
    class Range:
        low: float
        high: float

        def problem(self) -> str:
            return "" if self.low < self.high else "low has to lie below high"

    @dataclass
    class Holder:
        range: Range

    assert read_record(Holder, {"range": {"low": 1, "high": 2}}, "f").range.high == 2
    with pytest.raises(RecordError) as raised:
        read_record(Holder, {"range": {"low": 2, "high": 1}}, "f")
    assert str(raised.value) == "f: range: low has to lie below high"


def test_long_keys_and_values_are_shortened(tmp_path):
    long = "x" * 5000
    for values in ({"title": "t", long: 1}, {"title": [long]}, {"title": "t", "table": {long: long}}):
        with pytest.raises(RecordError) as raised:
            read_record(Outer, values, "f")
        assert len(str(raised.value)) < 300
    (tmp_path / "f.json").write_text(f'{{"{long}": 1, "{long}": 2}}')
    with pytest.raises(RecordError, match="stands there twice") as raised:
        read_json(tmp_path / "f.json")
    assert len(str(raised.value)) < 300 + len(str(tmp_path))
