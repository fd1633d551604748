"""Typed records read from JSON or TOML: dataclasses whose keys and types are checked when they are read.

The standard library alone, because bundles are read inside Slicer, where nothing else may be installed yet.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from .errors import NoduleError, shortened, shown

R = TypeVar("R")
#: `field(default_factory=dict, metadata=REST)`: a dict that takes in the keys that the record has no other field of.
REST = types.MappingProxyType({"rest": True})
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
_DEEPEST = 50  # tables and lists in each other; no file of ours has ten


class RecordError(NoduleError):
    """A key or a value that a record doesn't have; the message names the file, the key and the reason."""


def read_record(
    kind: type[R], values: Mapping[str, Any], source: str, error: type[Exception] = RecordError, path: str = ""
) -> R:
    """An instance of the dataclass `kind` from `values`, as JSON or TOML holds them; nested records are read too.

    Fields without a default are required; a field with `metadata=REST` holds all other keys. A whole number may stand
    where a number is wanted and stays what it is, so that a record written again is the same to the letter; lists
    become tuples where the field is a tuple. What a record's method `problem` says, if it has one and that isn't empty,
    is an error, too. `source` names the file in messages, `path` says where in it `values` is.
    Raises `error` for an unknown or missing key and for a value of another type, with the file, the key and the
    reason in one line. A number is finite: an undefined one is left out of a record, or null.
    """
    if not isinstance(values, Mapping):
        raise error(f"{source}: {_where(path)} must be a table, not {shown(values)}")
    hints = _hints(typing.cast(typing.Hashable, kind))
    rest = next((f.name for f in _fields(kind) if f.metadata.get("rest")), None)
    unknown = [key for key in values if key not in hints or key == rest]
    if unknown and rest is None:
        raise error(f"{source}: unknown key '{_join(path, unknown[0])}'; known here: {', '.join(sorted(hints))}")
    missing = [f.name for f in _fields(kind) if _required(f) and f.name not in values]
    if missing:
        raise error(f"{source}: lacks {', '.join(repr(_join(path, name)) for name in missing)}")
    given = {
        key: _value(hints[key], value, source, error, _join(path, key))
        for key, value in values.items()
        if key not in unknown
    }
    if rest is not None:
        given[rest] = {key: _value(Any, values[key], source, error, _join(path, key)) for key in unknown}
    made = kind(**given)
    problem: str = made.problem() if hasattr(made, "problem") else ""
    if problem:
        raise error(f"{source}: {path}: {problem}" if path else f"{source}: {problem}")
    return made


def checked_value(kind: Any, value: Any, path: str, error: type[Exception] = RecordError, source: str = "") -> Any:
    """`value` as the type hint `kind` wants it, as `read_record` does for a field. Raises `error`."""
    return _value(kind, value, source, error, path)


def record_dict(record: Any) -> dict[str, Any]:
    """What `read_record` reads: nested dicts and lists for JSON or TOML, without the fields whose value is None.

    A number that isn't finite, such as a figure that isn't defined, becomes None.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found: dict[str, Any] = {}
            for f in _fields(type(value)):
                item = getattr(value, f.name)
                found.update(item if f.metadata.get("rest") else {f.name: item})
            return {name: made for name, item in found.items() if (made := plain(item)) is not None}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value

    return plain(record)


def read_record_file(kind: type[R], path: str | Path, error: type[Exception] = RecordError) -> R:
    """`read_record` of a JSON file. Raises `error` also where there is no such file or it isn't valid JSON."""
    return read_record(kind, read_json(path, error), str(path), error)


def read_json(path: str | Path, error: type[Exception] = RecordError) -> Any:
    """The values of a JSON file. Raises `error` where there is no such file or it isn't valid JSON."""
    try:
        return parsed_json(read_text(path, error))
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: can't be read as JSON ({shortened(reason, 200)})") from reason


def read_text(path: str | Path, error: type[Exception] = RecordError, fallback: str | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; one at the begin is left out.

    Bytes that are no UTF-8 are read in the encoding `fallback`, if one is given. Raises `error` otherwise, and where
    there is no such file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as reason:
        raise error(f"{path}: it can't be read ({reason.strerror or reason})") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as reason:
        if fallback is None or marked:
            line = content[: reason.start].count(b"\n") + 1
            raise error(f"{path}: it can't be read (line {line} isn't text in {reason.encoding})") from None
        return content.decode(fallback, errors="replace")


def parsed_json(text: str) -> Any:
    """The values of a JSON text.

    Raises ValueError, also for a key that stands twice with different values and for values nested too deep.
    """
    return checked_depth(json.loads(text, object_pairs_hook=_table))


def checked_depth(values: Any) -> Any:
    """The values, if tables and lists lie in each other no deeper than any file of ours has them; else ValueError."""
    level = [values]
    for _ in range(_DEEPEST):
        inner = [list(v.values()) if isinstance(v, Mapping) else v for v in level if isinstance(v, Mapping | list)]
        level = [item for items in inner for item in items]
        if not level:
            return values
    raise ValueError(f"tables or lists are nested more than {_DEEPEST} deep")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    for key, value in pairs:
        if values[key] is not value and values[key] != value:
            raise ValueError(f"key '{shortened(key)}' stands there twice")
    return values


@cache
def _hints(kind: Any) -> dict[str, Any]:
    found = typing.get_type_hints(kind)
    return {f.name: found[f.name] for f in _fields(kind)}


def _fields(kind: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(kind) if f.init]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, source: str, error: type[Exception], path: str) -> Any:
    """`value` as a type hint wants it: a record, a list, tuple or dict of values, one of several types, or a value."""
    _check_finite(value, source, error, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else read_record(hint, value, source, error, path)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, hint, value, source, error, path)
    if origin is typing.Literal and value in arguments and type(value) in {type(a) for a in arguments}:
        return value
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(value) == len(arguments):
                pairs = enumerate(zip(arguments, value, strict=True))
                return tuple(_value(a, v, source, error, f"{path}[{n}]") for n, (a, v) in pairs)
        else:
            (item,) = arguments[:1] or (Any,)
            made = list if origin is Sequence else origin
            return made(_value(item, v, source, error, f"{path}[{n}]") for n, v in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        item = arguments[1] if arguments else Any
        return {str(key): _value(item, v, source, error, _join(path, str(key))) for key, v in value.items()}
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if origin is None and _fits(hint, value):
        return value
    raise error(f"{_of(source)}'{path}' must be {_described(hint)}, not {shown(value)}")


def _check_finite(value: Any, source: str, error: type[Exception], path: str) -> None:
    """Raises `error` for a number that isn't finite in values of any type."""
    if isinstance(value, float) and not math.isfinite(value):
        raise error(f"{_of(source)}'{path}' must be a finite number, not {value}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, source, error, _join(path, str(key)))
    elif isinstance(value, list | tuple):
        for n, item in enumerate(value):
            _check_finite(item, source, error, f"{path}[{n}]")


def _one_of(options: tuple[Any, ...], hint: Any, value: Any, source: str, error: type[Exception], path: str) -> Any:
    for option in options:
        try:
            return _value(option, value, source, RecordError, path)
        except RecordError as reason:
            nested = dataclasses.is_dataclass(option) and isinstance(value, Mapping)
            if nested and len([o for o in options if o is not type(None)]) == 1:
                raise error(str(reason)) from None
    raise error(f"{_of(source)}'{path}' must be {_described(hint)}, not {shown(value)}")


def _fits(hint: Any, value: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(a) for a in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}"
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return "a list"
    if origin in (dict, Mapping) or hint is dict or dataclasses.is_dataclass(hint):
        return "a table"
    return "nothing" if hint is type(None) else _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _join(path: str, key: str) -> str:
    return f"{path}.{shortened(key)}" if path else shortened(key)


def _of(source: str) -> str:
    return f"{source}: " if source else ""


def _where(path: str) -> str:
    return f"'{path}'" if path else "its content"
