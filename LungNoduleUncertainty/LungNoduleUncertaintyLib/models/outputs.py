"""What a model's result has: which segments and which probability maps, as `outputs` of its bundle's metadata says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from LungNoduleKit.errors import shortened, shown

from ..segments import SEGMENTS

INTERVAL_MAPS = ("union", "intersection", "final")
_STEEPEST = 10  # slope of a map's logit for every doubling; those that are chosen lie below 2
_KNOWN_SEGMENTS = ((), ("Final",), tuple(SEGMENTS))
_MAPS = (*INTERVAL_MAPS, "single", "soft")  # of networks that segment
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
            return f"segments {shown(segments)} are neither {list(SEGMENTS)} nor ['Final'] nor empty"
        if self.probabilities not in _KNOWN_PROBABILITIES or bool(segments) != bool(probabilities):
            return f"probabilities {shown(probabilities)} are neither {list(INTERVAL_MAPS)} nor ['final'] nor ['soft']"
        if segments == ["Final"] and len(probabilities) > 1:
            return "with Final alone there is one probability map, ['final'] or ['soft']"
        if not set(probabilities) <= set(self.maps):
            return f"probabilities {shown(probabilities)} aren't all among the network's maps {shown(list(self.maps))}"
        return ""


def calibration_problem(
    thresholds: Mapping[str, float],
    slopes: Mapping[str, float],
    maps: Collection[str] = (*INTERVAL_MAPS, "single", "soft"),
) -> str:
    """What is wrong with a model's thresholds or its size calibration (slopes of `maps`), or an empty text."""
    for key, values, known in (("thresholds", thresholds, INTERVAL_MAPS), ("size_calibration", slopes, maps)):
        unknown = [name for name in values if name not in known]
        if unknown:
            return f"unknown key '{key}.{shortened(unknown[0])}'; known here: {', '.join(known)}"
    for name, value in thresholds.items():
        if not 0 < value < 1:
            return f"'thresholds.{name}' has to lie between 0 and 1, not {shown(value)}"
    for name, value in slopes.items():
        if abs(value) > _STEEPEST:
            return f"'size_calibration.{name}' has to lie between -{_STEEPEST} and {_STEEPEST}, not {shown(value)}"
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
