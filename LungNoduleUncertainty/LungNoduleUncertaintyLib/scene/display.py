"""How the segments of nodules are shown in slice and 3D views, and how that is brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from LungNoduleKit.scene.nodes import Node

_DISPLAY = (
    *("Visibility", "Visibility3D", "Visibility2DFill", "Visibility2DOutline"),
    *("Opacity3D", "Opacity2DFill", "Opacity2DOutline"),
)


def show_parts(segmentationNode: Node, ids: Mapping[str, str], added: Iterable[str], final_3d: bool = True) -> None:
    """Shows a nodule's segments `ids` {part: ID}, of which the parts in `added` are new.

    Slices: outlines, and LC filled lightly, so that the CT is seen. 3D: HC solid within a translucent LC; Final, which
    lies between the two, only where they are missing, unless `final_3d` is False: then that stays as it is.
    """
    display = segmentationNode.GetDisplayNode()
    if display is None:
        return
    for part in added:
        if part == "LC":
            display.SetSegmentOpacity2DFill(ids[part], 0.4)
            display.SetSegmentOpacity2DOutline(ids[part], 0.8)
            display.SetSegmentOpacity3D(ids[part], 0.3)
        else:
            display.SetSegmentVisibility2DFill(ids[part], False)
    if final_3d and "Final" in ids:
        display.SetSegmentVisibility3D(ids["Final"], "HC" not in ids and "LC" not in ids)


def display_of(segmentationNode: Node, segment_id: str, names: Iterable[str] = _DISPLAY) -> Callable[[], None]:
    """A function that shows a segment again as it is shown now; what removes a segment forgets how it was shown."""
    display = segmentationNode.GetDisplayNode()
    if display is None:
        return lambda: None
    values = {name: getattr(display, f"GetSegment{name}")(segment_id) for name in names}

    def back() -> None:
        if segmentationNode.GetSegmentation().GetSegment(segment_id) is not None:
            for name, value in values.items():
                getattr(display, f"SetSegment{name}")(segment_id, value)

    return back
