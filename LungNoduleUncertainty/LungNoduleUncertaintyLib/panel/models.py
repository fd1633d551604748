"""The part of the panel that chooses, shows, imports and removes models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from LungNoduleKit.errors import NoduleError

from ..models.outputs import Outputs
from ..models.store import (
    DEFAULT_BUNDLE,
    BundleSummary,
    available_bundles,
    import_bundle,
    remove_bundle,
    summary,
)


class ModelChooser:
    """`changed()` is called when another model is chosen, `report(text)` with what went wrong or was done.

    `outputs` are the chosen model's, None if there is none or it is broken.
    """

    def __init__(self, ui: Any, changed: Callable[[], None], report: Callable[[str], None]):
        self.outputs: Outputs | None = None
        self.ui, self._changed, self._report, self._filling = ui, changed, report, False
        ui.modelSelector.connect("currentIndexChanged(int)", self._onChosen)
        ui.importModelButton.connect("clicked(bool)", self.onImport)
        ui.removeModelButton.connect("clicked(bool)", self.onRemove)
        self.fill()

    @property
    def name(self) -> str:
        """Name of the chosen bundle, empty if there is none."""
        return self.ui.modelSelector.currentText

    def choose(self, name: str) -> None:
        """Chooses a bundle if it is there."""
        index = self.ui.modelSelector.findText(name)
        if index >= 0:
            self.ui.modelSelector.setCurrentIndex(index)

    def fill(self, chosen: str = "") -> None:
        """Lists the bundles that are there now; one that is gone is replaced by the default one."""
        names = available_bundles()
        chosen = next((name for name in (chosen, self.name) if name in names), DEFAULT_BUNDLE)
        self._filling = True
        try:
            self.ui.modelSelector.clear()
            for name in names:
                self.ui.modelSelector.addItem(name)
            self.choose(chosen)
        finally:
            self._filling = False
        self._onChosen()

    def problem(self) -> str:
        """Why the chosen model can't segment, or an empty text."""
        from slicer.i18n import tr as _

        if not self.name:
            return _("There is no model: import one.")
        try:
            shown = self.summary()
        except NoduleError as error:
            return str(error)
        if shown.outputs.segments:
            return ""
        return _("The model predicts {outputs} and no final.").format(outputs=", ".join(shown.outputs.maps))

    def summary(self) -> BundleSummary:
        """What the chosen bundle is and has. Raises BundleError."""
        return summary(self.name)

    def _onChosen(self, *_unused: Any) -> None:
        from slicer.i18n import tr as _

        if self._filling:
            return
        removable, text, card, self.outputs = False, "", "", None
        if self.name:
            try:
                shown = self.summary()
            except NoduleError as error:
                text = str(error)
            else:
                self.outputs = shown.outputs
                text = _("{description}\nVersion {version}, {license}, {size:.1f} MB. Outlines {outputs}.").format(
                    description=shown.description,
                    version=shown.version,
                    license=shown.license,
                    size=shown.size_mb,
                    outputs=_described(shown.outputs),
                )
                removable = shown.removable
                card = shown.card.read_text(encoding="utf-8") if shown.card else ""
        self.ui.modelInfoLabel.text = text.strip()
        self.ui.removeModelButton.enabled = removable
        self.ui.modelCardBrowser.setMarkdown(card or _("This model has no card."))
        self._changed()

    def onImport(self, *_unused: Any) -> None:
        """Lets the user choose a zip archive or a metadata.json and imports its bundle."""
        import qt
        import slicer
        from slicer.i18n import tr as _

        chosen = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Import model"), "", _("Model bundles (*.zip metadata.json)")
        )
        if not chosen:
            return
        source = Path(chosen)
        try:
            name = import_bundle(source.parent if source.name == "metadata.json" else source)
        except NoduleError as error:
            self._report(str(error))
            return
        self.fill(name)
        self._report(_("Model {name} was imported.").format(name=name))

    def onRemove(self, *_unused: Any) -> None:
        """Removes the chosen model if the user confirms."""
        import slicer
        from slicer.i18n import tr as _

        name = self.name
        if not slicer.util.confirmOkCancelDisplay(_("Delete the model {name} from this computer?").format(name=name)):
            return
        try:
            remove_bundle(name)
        except NoduleError as error:
            self._report(str(error))
            return
        self.fill()
        self._report(_("Model {name} was removed.").format(name=name))


def _described(outputs: Outputs) -> str:
    """What a model outlines, in a few words."""
    from slicer.i18n import tr as _

    if outputs.segments == ("Final",):
        if outputs.final_map == "soft":
            return _("Final, with a soft mask, without HC, LC and intervals")
        return _("Final, without HC, LC and intervals")
    return ", ".join(outputs.segments) or _("nothing")
