"""The options of a network, checked before it is built: names and types from signatures, sizes from a few limits.

Options come from configurations and bundles, which people write and edit. What passes here may still not go together
(a width that isn't a multiple of the heads'); that the network itself refuses.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from LungNoduleKit.errors import shortened
from LungNoduleKit.records import checked_value

from .blocks import Network
from .feature_enhancement import enhancements
from .srgan import SRGANGenerator

N = typing.TypeVar("N", bound=nn.Module)
#: Largest whole number of an option; no network needs more, and one of that size can still be described.
MOST = {"levels": 10, "stages": 10, "blocks": 256, "convs": 32, "recurrences": 32, "chunk": 1 << 20}
MOST_OF_OTHERS = 4096
#: Of a network; the largest here has 60 million at its published width.
MOST_PARAMETERS = 500_000_000


def check_options(network: type[Network], options: Mapping[str, Any], path: str = "network") -> None:
    """Raises ValueError for an unknown option, a value of another type, and a whole number out of range.

    `path` is where the options stand in their file, such as `network`; a teacher's options are checked, too.
    """
    _check(_parameters(network) | {"teacher": Mapping[str, Any] | None}, options, path)  # every network may have one
    if options.get("teacher") is not None:
        _check(_parameters(SRGANGenerator), options["teacher"], f"{path}.teacher")


def _check(known: Mapping[str, Any], options: Mapping[str, Any], path: str) -> None:
    for name, value in options.items():
        where = f"{path}.{shortened(name)}"
        if name not in known:
            raise ValueError(f"unknown key '{where}'; known here: {', '.join(sorted(known))}")
        checked_value(known[name], value, where, ValueError)
        _check_size(name, value, where)


def built(build: Callable[[], N]) -> N:
    """What `build` makes, after a look at its size that takes no memory. Raises ValueError if it is larger than any
    network, doesn't fit into memory, or PyTorch refuses its shapes.
    """
    try:
        with torch.device("meta"):
            sizes = [parameter.numel() for parameter in build().parameters()]
    except RuntimeError as error:
        raise ValueError(f"PyTorch can't build it ({str(error).splitlines()[0]})") from error
    count = sum(sizes)
    if not all(sizes):
        raise ValueError("some of its layers would have no channels")
    if count > MOST_PARAMETERS:
        raise ValueError(f"it would have {count:.1e} parameters, more than any network ({MOST_PARAMETERS:.0e})")
    try:
        return build()
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"its {count:.1e} parameters don't fit into memory") from error


def _check_size(name: str, value: Any, where: str) -> None:
    most = MOST.get(name, MOST_OF_OTHERS)
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, int) and not 0 <= number <= most:
            raise ValueError(f"'{where}' must be at least 0 and at most {most}, not {number}")


def _parameters(network: type[Network]) -> dict[str, Any]:
    """Name -> type of every option: the class's own, and those that it hands on to a base or to `enhancements`."""
    found: dict[str, Any] = {}
    for cls in network.__mro__:
        own: Callable[..., Any] | None = vars(cls).get("__init__")
        if own is None:
            continue
        rest = _add(own, found)
        if rest == "enhance":
            _add(enhancements, found)
            del found["defaults"]
        if rest != "options":
            break
    return found


def _add(function: Callable[..., Any], found: dict[str, Any]) -> str:
    """Adds the types of a function's arguments; returns the name of the one that takes in all others, or nothing."""
    hints, rest = typing.get_type_hints(function), ""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            rest = name
        elif name != "self":
            found.setdefault(name, hints.get(name, Any))
    return rest
