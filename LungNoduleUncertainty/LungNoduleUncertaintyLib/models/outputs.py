"""What a model gives: which segments and which probability maps, as the `outputs` of its bundle's metadata say.

Either an object, `{"segments": ["Final"], "probabilities": ["soft"], "maps": ["final", "soft"]}`, or, in bundles from
before there were models with Final alone, a list of the network's maps (or nothing): those give everything.
"""

from dataclasses import dataclass

from LungNoduleKit.errors import BundleError

from ..segments import SEGMENTS

INTERVAL_MAPS = ("union", "intersection", "final")
_KNOWN_SEGMENTS = ([], ["Final"], list(SEGMENTS))
# Probability maps that a model can give: those of a network with three branches, or the one behind its Final.
_KNOWN_PROBABILITIES = ([], list(INTERVAL_MAPS), ["final"], ["soft"])


@dataclass(frozen=True)
class Outputs:
    """`segments` and `probabilities` are what a result holds, `maps` what the network itself computes.

    segments: `HC`, `LC` and `Final`; `Final` alone; or none (a network that segments nothing). probabilities: `union`,
    `intersection` and `final`; or the one map that the segments are cuts of, `final` or `soft` (DSNet's soft mask).
    """

    segments: tuple
    probabilities: tuple
    maps: tuple

    @property
    def has_interval(self) -> bool:
        """Whether there are HC and LC, and with them an interval on every measurement."""
        return "HC" in self.segments

    @property
    def thresholds(self) -> tuple:
        """Names of the thresholds that make the segments."""
        return INTERVAL_MAPS if self.has_interval else ("final",) if self.segments else ()

    @property
    def final_map(self) -> str:
        """Name of the map behind Final: `soft` for a soft mask, else `final`."""
        return "soft" if "soft" in self.probabilities else "final"


def read_outputs(metadata: dict) -> Outputs:
    """The outputs of a bundle's metadata. Raises BundleError with what is wrong with them (without the bundle's name).

    A list, or no entry at all, is the older form: HC, LC and Final with three probability maps, if the list holds
    `final`.
    """
    entry = metadata.get("outputs", list(INTERVAL_MAPS))
    if isinstance(entry, list):
        whole = "final" in entry
        return Outputs(tuple(SEGMENTS) if whole else (), INTERVAL_MAPS if whole else (), tuple(entry))
    if not isinstance(entry, dict) or not {"segments", "probabilities"} <= entry.keys():
        raise BundleError("outputs: they have to name segments and probabilities")
    segments, probabilities = entry["segments"], entry["probabilities"]
    if segments not in _KNOWN_SEGMENTS:
        raise BundleError(f"outputs: segments {segments!r} are neither {list(SEGMENTS)} nor ['Final'] nor empty")
    if probabilities not in _KNOWN_PROBABILITIES or bool(segments) != bool(probabilities):
        raise BundleError(
            f"outputs: probabilities {probabilities!r} are neither {list(INTERVAL_MAPS)} nor ['final'] nor ['soft']"
        )
    if segments == ["Final"] and len(probabilities) > 1:
        raise BundleError("outputs: with Final alone there is one probability map, ['final'] or ['soft']")
    return Outputs(tuple(segments), tuple(probabilities), tuple(entry.get("maps", probabilities)))


def outputs_of_network(maps, intervals: bool = False) -> dict:
    """What to write as `outputs` of a network that computes `maps`.

    One with branches for union and intersection gives everything. One with a single map gives Final alone, or with
    `intervals` also HC and LC as cuts of that map at thresholds of their own. Where there is a soft mask, that is the
    map. A network that segments nothing (a super-resolution teacher) gives nothing.
    """
    single = next((name for name in ("soft", "final") if name in maps), None)
    if set(INTERVAL_MAPS) <= set(maps):
        segments, probabilities = list(SEGMENTS), list(INTERVAL_MAPS)
    elif single:
        segments, probabilities = list(SEGMENTS) if intervals else ["Final"], [single]
    else:
        segments, probabilities = [], []
    return {"segments": segments, "probabilities": probabilities, "maps": list(maps)}
