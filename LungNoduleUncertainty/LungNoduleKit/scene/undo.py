"""Steps that can be taken back, as long as what they changed is still in the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .nodes import one_event
from .transforms import Node

_STEPS = 20


@dataclass
class Undo:
    """One step back: `run` restores what a change replaced, if one of the `nodes` it concerns is still in its scene.

    The nodes tell once of all that `function` changes. Nodes that go altogether are removed by `remove`, after that: a
    segmentation that tells of changes when it has left the scene makes Slicer complain.
    """

    what: str
    """What was done, as the panel says it"""
    nodes: tuple[Node, ...]
    function: Callable[[], object]
    remove: Callable[[], object] | None = None

    @property
    def possible(self) -> bool:
        """Whether one of its nodes is still in its scene."""
        return any(node.GetScene() is not None for node in self.nodes)

    def run(self) -> bool:
        """Takes the step back; False if its nodes are gone."""
        if not self.possible:
            return False
        with one_event(*self.nodes):
            self.function()
        if self.remove is not None:
            self.remove()
        return True


class UndoSteps:
    """The last steps, taken back one after the other."""

    def __init__(self, most: int = _STEPS):
        self._steps: list[Undo] = []
        self._most = most

    def push(self, step: Undo) -> None:
        """Adds a step; the oldest is dropped when there are too many."""
        self._steps.append(step)
        del self._steps[: -self._most]

    @property
    def possible(self) -> bool:
        """Whether there is a step to take back whose nodes are still in the scene."""
        return any(step.possible for step in self._steps)

    def undo(self) -> Undo | None:
        """Takes the last possible step back and returns it; None if there is none."""
        while self._steps:
            step = self._steps.pop()
            if step.run():
                return step
        return None

    def drop_gone(self) -> None:
        """Drops the steps whose nodes have left the scene, so that these aren't kept alive."""
        self._steps = [step for step in self._steps if step.possible]

    def clear(self) -> None:
        """Drops all steps: the scene is closed."""
        self._steps.clear()
