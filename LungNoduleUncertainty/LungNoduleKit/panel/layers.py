"""Volumes laid over the image in the slice views, and the views brought back as they were."""

from __future__ import annotations

from typing import Any, NamedTuple


class _Layer(NamedTuple):
    volume_id: str | None
    opacity: float


class OverlaidVolumes:
    """Volumes that were laid over the image, in a layer of all slice views: "Foreground" or "Label".

    A volume that is taken away leaves each view that still shows it as that was before.
    """

    def __init__(self, layer: str):
        self._layer = layer
        self._before: dict[str, dict[str, _Layer]] = {}  # by ID of the volume: by ID of the view

    def show(self, volumeNode: Any, opacity: float) -> None:
        """Lays a volume over the image in all slice views."""
        scene = volumeNode.GetScene()
        views = [
            scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")
            for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode"))
        ]
        self._before[volumeNode.GetID()] = {view.GetID(): self._read(view) for view in views}
        for view in views:
            self._write(view, _Layer(volumeNode.GetID(), opacity))

    def take_away(self, volumeNode: Any) -> None:
        """Brings back what the views showed before; called while the volume is still in its scene."""
        scene, gone = volumeNode.GetScene(), volumeNode.GetID()
        before = self._before.pop(gone, {})
        for view_id, layer in before.items():
            for later in self._before.values():  # laid over it: what was before both
                if view_id in later and later[view_id].volume_id == gone:
                    later[view_id] = layer
            view = scene.GetNodeByID(view_id) if scene is not None else None
            if view is not None and self._read(view).volume_id == gone:
                self._write(view, layer)

    def forget(self) -> None:
        """The scene is closed: nothing is brought back."""
        self._before.clear()

    def _read(self, view: Any) -> _Layer:
        return _Layer(getattr(view, f"Get{self._layer}VolumeID")(), getattr(view, f"Get{self._layer}Opacity")())

    def _write(self, view: Any, layer: _Layer) -> None:
        getattr(view, f"Set{self._layer}VolumeID")(layer.volume_id)
        getattr(view, f"Set{self._layer}Opacity")(layer.opacity)
