"""Observed nodes that change with the choices of a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Observed:
    node: Any
    events: Sequence[Any]
    callback: Callable[..., Any]


class NodeObservers:
    """The nodes that play a role in a panel, each observed as long as it does; `widget` is a VTKObservationMixin."""

    def __init__(self, widget: Any):
        self._widget = widget
        self._observed: dict[str, _Observed] = {}

    def observe(self, role: str, node: Any, events: Sequence[Any], callback: Callable[..., Any]) -> bool:
        """Lets a node (or None) play a role; returns whether another one played it before."""
        old = self._observed.get(role)
        if (old.node if old else None) is node:
            return False
        self._let_go(role)
        if node is not None:
            for event in events:
                self._widget.addObserver(node, event, callback)
            self._observed[role] = _Observed(node, events, callback)
        return True

    def release(self) -> None:
        """Stops observing all of them."""
        for role in list(self._observed):
            self._let_go(role)

    def _let_go(self, role: str) -> None:
        old = self._observed.pop(role, None)
        if old is not None:
            for event in old.events:
                self._widget.removeObserver(old.node, event, old.callback)
