"""Observed nodes that change with the choices of a panel, and the events of the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_FIRST = 100.0  # priority of an observer that is to be called before those of Slicer's widgets


@dataclass
class _Observed:
    node: Any
    tags: list[int] = field(default_factory=list)


class NodeObservers:
    """The nodes that play a role in a panel, each observed as long as it does.

    A node is kept alive no longer than that. (Slicer's VTKObservationMixin keeps all that it has ever observed; a
    segmentation that lives on after it was removed makes Slicer complain.)
    """

    def __init__(self) -> None:
        self._observed: dict[str, _Observed] = {}

    def observe(
        self, role: str, node: Any, events: Sequence[Any], callback: Callable[..., Any], priority: float = 0.0
    ) -> bool:
        """Lets a node (or None) play a role; returns whether another one played it before."""
        old = self._observed.get(role)
        if (old.node if old else None) is node:
            return False
        self._let_go(role)
        if node is not None:
            self._observed[role] = _Observed(node, [node.AddObserver(event, callback, priority) for event in events])
        return True

    def release(self) -> None:
        """Stops observing all of them."""
        for role in list(self._observed):
            self._let_go(role)

    def release_node(self, node: Any) -> None:
        """Stops observing a node in whichever roles it plays."""
        for role in [role for role, observed in self._observed.items() if observed.node is node]:
            self._let_go(role)

    def _let_go(self, role: str) -> None:
        old = self._observed.pop(role, None)
        if old is not None:
            for tag in old.tags:
                old.node.RemoveObserver(tag)


class SceneObserver:
    """Tells a panel of what happens to a scene as a whole, once for each thing.

    `closing`: all nodes are about to go. `reading`: nodes begin to be read into the scene or restored. After either of
    them its nodes are incomplete until `ended`. `removing(node)`: a node is about to go, told before any widget of
    Slicer knows. `changed`: nodes are gone, or a batch of changes is done. The last two aren't told while nodes are
    incomplete.
    """

    def __init__(
        self,
        scene: Any,
        *,
        closing: Callable[[], object],
        reading: Callable[[], object],
        ended: Callable[[], object],
        removing: Callable[[Any], object],
        changed: Callable[[], object],
    ):
        import vtk

        self._scene, self._waiting = scene, False

        def on_closing(caller: Any, event: str) -> None:
            self._waiting = True
            closing()

        def on_reading(caller: Any, event: str) -> None:
            if not self._waiting:
                self._waiting = True
                reading()

        def on_ended(caller: Any, event: str) -> None:
            """Closing, reading and restoring are batches too; the outermost batch ends last."""
            waited, self._waiting = self._waiting, False
            ended() if waited else changed()

        def on_removing(caller: Any, event: str, node: Any) -> None:
            if not self._waiting:
                removing(node)

        def on_removed(caller: Any, event: str) -> None:
            if not self._waiting and not scene.IsBatchProcessing():
                changed()

        on_removing.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
        self._tags = [
            scene.AddObserver(scene.StartCloseEvent, on_closing),
            *(scene.AddObserver(event, on_reading) for event in (scene.StartImportEvent, scene.StartRestoreEvent)),
            scene.AddObserver(scene.EndBatchProcessEvent, on_ended),
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, on_removing, _FIRST),
            scene.AddObserver(scene.NodeRemovedEvent, on_removed),
        ]

    @property
    def waiting(self) -> bool:
        """Whether the scene's nodes are incomplete."""
        return self._waiting

    def stop(self) -> None:
        """Tells nothing any more."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags.clear()
