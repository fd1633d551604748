"""The part of the panel that says what marks the lesion: a check list of segments, or two lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import MaskError, SoftMaskError
from ..scene.sources import Source, check_lines, trimap_segments
from .parameters import SOURCES


class SourceChooser:
    """Shows the `parameters` that it is given; `changed()` is called when the person chose otherwise."""

    def __init__(self, ui: Any, changed: Callable[[], object]):
        from slicer.i18n import tr as _

        self.ui, self._changed = ui, changed
        self._parameters: Any = None
        self._filling = False
        for text in (_("Segments"), _("RECIST lines")):
            ui.sourceSelector.addItem(text)
        for name, title in (("long", _("Long axis")), ("short", _("Short axis"))):
            getattr(ui, f"{name}Selector").baseName = title
        ui.sourceSelector.connect("currentIndexChanged(int)", self._onSource)
        ui.segmentList.connect("itemChanged(QListWidgetItem*)", self._onChecked)

    def show(self, parameters: Any) -> None:
        """Shows what the parameters say; None: nothing."""
        self._parameters = parameters
        if parameters is None:
            return
        ui = self.ui
        self._filling = True
        try:
            ui.sourceSelector.setCurrentIndex(SOURCES.index(parameters.source) if parameters.source in SOURCES else 0)
            self._fill(parameters)
        finally:
            self._filling = False
        for kind, widgets in {
            "segments": ("markedSegmentationSelector", "segmentList"),
            "lines": ("longSelector", "longPlaceWidget", "shortSelector", "shortPlaceWidget"),
        }.items():
            for name in widgets:
                getattr(ui, name).visible = parameters.source == kind
                getattr(ui, name).enabled = parameters.trimap is None
            for name in (name for name in widgets if not name.endswith("PlaceWidget")):
                getattr(ui, f"{name}Label").visible = parameters.source == kind
        ui.sourceSelector.enabled = parameters.trimap is None
        ui.strategyLabel.text = self._strategy(parameters)

    def source(self, parameters: Any) -> Source:
        """What the parameters say. Raises `SoftMaskError`, with what is to be done, if it isn't complete."""
        from slicer.i18n import tr as _

        if parameters.trimap is not None:
            if parameters.trimap.IsA("vtkMRMLSegmentationNode"):
                trimap_segments(parameters.trimap)
            return Source(trimap=parameters.trimap)
        if parameters.source == "lines":
            lines = (parameters.longLine, parameters.shortLine)
            if None in lines:
                raise SoftMaskError(_("Select or draw two lines: along the lesion's long and short axis."))
            check_lines(lines)
            return Source(lines=lines)
        segments = [(parameters.markedSegmentation, i) for i in checked_segments(parameters)]
        if not segments:
            raise MaskError(_("Check the lesion's segment, or the segments of several readers."))
        return Source(segments=segments)

    def _strategy(self, parameters: Any) -> str:
        from slicer.i18n import tr as _

        if parameters.trimap is not None:
            return _("The edited trimap is used in place of the marks.")
        if parameters.source == "lines":
            return _("GrabCut finds the outline from the two axes; a band around it is unknown.")
        number = len(checked_segments(parameters))
        if number > 1:
            return _("{n} readers: lesion is what all drew, background what none drew.").format(n=number)
        return _("One mask: a band around its border is unknown.") if number else ""

    def _fill(self, parameters: Any) -> None:
        """The check list; rows stay as they are while segments stay, so that the list doesn't jump."""
        import qt

        node, ui = parameters.markedSegmentation, self.ui
        segmentation: Any = node.GetSegmentation() if node is not None else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        items = [ui.segmentList.item(row) for row in range(ui.segmentList.count)]
        if [item.data(qt.Qt.UserRole) for item in items] != ids:
            ui.segmentList.clear()
            items = []
            for segment_id in ids:
                item = qt.QListWidgetItem("")
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
                item.setData(qt.Qt.UserRole, segment_id)
                ui.segmentList.addItem(item)
                items.append(item)
        checked = checked_segments(parameters)
        for item, segment_id in zip(items, ids, strict=True):
            item.setText(segmentation.GetSegment(segment_id).GetName())
            item.setCheckState(qt.Qt.Checked if segment_id in checked else qt.Qt.Unchecked)

    def _onSource(self, index: int) -> None:
        if not self._filling and self._parameters is not None:
            self._parameters.source = SOURCES[index]
            self._changed()

    def _onChecked(self, *_unused: Any) -> None:
        import qt

        if self._filling or self._parameters is None:
            return
        items = [self.ui.segmentList.item(row) for row in range(self.ui.segmentList.count)]
        self._parameters.markedSegments = [
            item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked
        ]
        self._changed()


def checked_segments(parameters: Any) -> list[str]:
    """IDs of the checked segments that are there."""
    node = parameters.markedSegmentation
    if node is None:
        return []
    return [i for i in parameters.markedSegments if node.GetSegmentation().GetSegment(i) is not None]
