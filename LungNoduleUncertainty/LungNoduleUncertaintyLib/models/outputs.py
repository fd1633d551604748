"""What a model's result has: which segments and which probability maps, as `outputs` of its bundle's metadata says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..segments import SEGMENTS

INTERVAL_MAPS = ("union", "intersection", "final")
_KNOWN_SEGMENTS = ((), ("Final",), tuple(SEGMENTS))
# A network with three branches has three probability maps, any other the one behind its Final.
_KNOWN_PROBABILITIES = ((), INTERVAL_MAPS, ("final",), ("soft",))


@dataclass(frozen=True)
class Outputs:
    """`segments` and `probabilities` are what a result has, `maps` what the network itself computes.

    segments: `HC`, `LC` and `Final`; `Final` alone; or none (a network that segments nothing). probabilities: `union`,
    `intersection` and `final`; or the one map whose thresholds make the segments, `final` or `soft` (DSNet's soft
    mask).
    """

    segments: tuple[str, ...]
    probabilities: tuple[str, ...]
    maps: tuple[str, ...]

    @property
    def has_interval(self) -> bool:
        """Whether there are HC and LC, and with them an interval on every measurement."""
        return "HC" in self.segments

    @property
    def thresholds(self) -> tuple[str, ...]:
        """Names of the thresholds that make the segments."""
        return INTERVAL_MAPS if self.has_interval else ("final",) if self.segments else ()

    @property
    def final_map(self) -> str:
        """Name of the map behind Final: `soft` for a soft mask, else `final`."""
        return "soft" if "soft" in self.probabilities else "final"

    def problem(self) -> str:
        """What is wrong with the combination, or an empty text."""
        segments, probabilities = list(self.segments), list(self.probabilities)
        if self.segments not in _KNOWN_SEGMENTS:
            return f"segments {segments!r} are neither {list(SEGMENTS)} nor ['Final'] nor empty"
        if self.probabilities not in _KNOWN_PROBABILITIES or bool(segments) != bool(probabilities):
            return f"probabilities {probabilities!r} are neither {list(INTERVAL_MAPS)} nor ['final'] nor ['soft']"
        if segments == ["Final"] and len(probabilities) > 1:
            return "with Final alone there is one probability map, ['final'] or ['soft']"
        return ""


def outputs_of_network(maps: Iterable[str], intervals: bool = False) -> Outputs:
    """The outputs of a network that computes `maps`.

    One with branches for union and intersection has everything. One with a single map has Final alone, or with
    `intervals` also HC and LC, by other thresholds of that map. Where there is a soft mask, that is the map. A network
    that segments nothing (a super-resolution teacher) has no segments.
    """
    maps = tuple(maps)
    single = next((name for name in ("soft", "final") if name in maps), None)
    if set(INTERVAL_MAPS) <= set(maps):
        return Outputs(tuple(SEGMENTS), INTERVAL_MAPS, maps)
    if single:
        return Outputs(tuple(SEGMENTS) if intervals else ("Final",), (single,), maps)
    return Outputs((), (), maps)
