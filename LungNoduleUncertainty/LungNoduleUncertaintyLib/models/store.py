"""Where bundles lie: those that ship and those that the user added; finding, importing, removing them.

The user's folder is `LUNG_NODULE_UNCERTAINTY_MODELS` if that environment variable is set, otherwise one in the home
folder. Nothing is downloaded: a bundle comes as a folder or a zip archive that the user has.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from LungNoduleKit.errors import BundleError, OutputError, shown
from LungNoduleKit.files import scratch_folder, whole_folder

from ..resources import resource_path
from .metadata import CARD_FILE, METADATA_FILE, checked_weights, read_metadata
from .outputs import Outputs

DEFAULT_BUNDLE = "ugsnet-compact"
FOLDER_VARIABLE = "LUNG_NODULE_UNCERTAINTY_MODELS"
_LIMIT_BYTES = 2 << 30  # of an unpacked archive: no bundle is nearly as large


def user_folder() -> Path | None:
    """Folder of the bundles that the user imported; it needn't exist. None for a user without a home folder."""
    set_by_user = os.environ.get(FOLDER_VARIABLE)
    if set_by_user:
        return Path(set_by_user)
    try:
        return Path.home() / ".lung-nodule-uncertainty" / "models"
    except RuntimeError:  # a container may run as a user that the system doesn't know
        return None


def folders() -> list[Path]:
    """Folders that hold bundles by name, the shipped ones first."""
    users = user_folder()
    return [resource_path("Models"), *([] if users is None else [users])]


def available_bundles() -> list[str]:
    """Names of the bundles: the default one, the other shipped ones, those that the user imported."""
    names: list[str] = []
    for folder in folders():
        found = sorted(p.parent.name for p in _listed(folder))
        names += [name for name in found if name not in names]
    return sorted(names, key=lambda name: name != DEFAULT_BUNDLE)


def _listed(folder: Path) -> list[Path]:
    """The metadata files of the bundles in a folder; none where the folder can't be looked into."""
    try:
        return [p for p in folder.glob(f"[!.]*/{METADATA_FILE}") if p.is_file()]
    except OSError:
        return []


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle; what may not be looked into (another user's home) holds none."""
    try:
        return (folder / METADATA_FILE).is_file()
    except OSError:
        return False


def find_bundle(name_or_path: str | Path | None = None) -> Path:
    """Folder of a bundle, by its name (default: the shipped model) or a path. Raises BundleError."""
    name = DEFAULT_BUNDLE if name_or_path is None else str(name_or_path)
    for folder in (*(root / name for root in folders()), Path(name)):
        if _is_bundle(folder):
            return folder
    raise BundleError(
        f"model {name!r}: neither a known bundle ({', '.join(available_bundles()) or 'none found'}) "
        f"nor a folder with a {METADATA_FILE}"
    )


def is_removable(name: str) -> bool:
    """Whether a bundle was imported by the user; shipped ones stay."""
    users = user_folder()
    return users is not None and _is_bundle(users / name) and not _is_shipped(name)


def import_bundle(source: str | Path) -> str:
    """Copies a bundle (a folder, or a zip archive of one) into the user's folder; returns the bundle's name.

    Every hash is checked before anything is written, and the copy appears whole or not at all. An imported bundle of
    the same name is replaced. Raises BundleError for what isn't a sound bundle or has the name of a shipped one,
    OutputError if the folder can't be written.
    """
    source, target = Path(source), user_folder()
    if target is None:
        raise OutputError(f"models can't be kept: there is no home folder; set {FOLDER_VARIABLE} to a folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as scratch:
            found = _unpacked(source, scratch / "archive") if source.is_file() else source
            name = _checked(found)
            if _is_shipped(name):
                raise BundleError(
                    f"{source}: a bundle named {shown(name)} ships with the extension; give yours another name"
                )
            with whole_folder(target / name) as copy:
                shutil.copytree(found, copy, dirs_exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: models can't be kept there: {error.strerror or error}") from error
    return name


def remove_bundle(name: str) -> None:
    """Deletes an imported bundle. Raises BundleError for a shipped or unknown one, OutputError if it stays."""
    users = user_folder()
    if users is None or not is_removable(name):
        raise BundleError(f"model {name!r}: only imported bundles can be removed")
    folder = users / name
    doomed = folder.with_name(f".removed-{name}")
    try:
        os.replace(folder, doomed)  # gone at once, even if deleting its files takes long or fails half-way
        shutil.rmtree(doomed)
    except OSError as error:
        raise OutputError(f"{folder}: can't be removed: {error.strerror or error}") from error


@dataclass(frozen=True)
class BundleSummary:
    """What a chooser shows of a bundle. `thresholds` are those of its segments, `card` is the model card's file."""

    name: str
    version: str
    description: str
    intended_use: str
    license: str
    outputs: Outputs
    thresholds: dict[str, float]
    size_mb: float
    removable: bool
    card: Path | None


def summary(name_or_path: str | Path | None = None) -> BundleSummary:
    """What a bundle is and has. Weights are neither loaded nor hashed. Raises BundleError."""
    folder = find_bundle(name_or_path)
    metadata, card = read_metadata(folder), folder / CARD_FILE
    return BundleSummary(
        metadata.name,
        metadata.version,
        metadata.description,
        metadata.intended_use,
        metadata.license,
        metadata.outputs,
        {name: metadata.thresholds[name] for name in metadata.outputs.thresholds},
        size_mb=sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6,
        removable=is_removable(folder.name),
        card=card if card.is_file() else None,
    )


def _is_shipped(name: str) -> bool:
    return (resource_path("Models", name) / METADATA_FILE).is_file()


def _checked(folder: Path) -> str:
    """Name of a bundle whose metadata and weights have the hashes that they claim."""
    if not (folder / METADATA_FILE).is_file():
        raise BundleError(f"{folder}: it isn't a bundle (a folder or zip archive with a metadata.json)")
    metadata = read_metadata(folder)
    name = metadata.name
    if not name or PurePosixPath(name).name != name or "\\" in name or name.startswith("."):
        raise BundleError(f"{folder}: its name {shown(name)} can't be a folder's")
    checked_weights(folder, metadata)
    return name


def _unpacked(archive: Path, folder: Path) -> Path:
    """The folder with metadata.json of a zip archive, unpacked into `folder`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [e for e in opened.infolist() if not e.is_dir()]
            if sum(e.file_size for e in entries) > _LIMIT_BYTES:
                raise BundleError(f"{archive}: unpacked it would be larger than any bundle")
            roots = [
                PurePosixPath(e.filename).parent for e in entries if PurePosixPath(e.filename).name == METADATA_FILE
            ]
            if len(roots) != 1:
                raise BundleError(f"{archive}: it isn't a bundle (a zip archive with one metadata.json)")
            folder.mkdir()
            for entry in entries:
                path = PurePosixPath(entry.filename)
                if path.parent == roots[0]:  # a bundle is flat; names that point elsewhere aren't unpacked
                    with opened.open(entry) as source, open(folder / path.name, "wb") as target:
                        shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise BundleError(f"{archive}: it is neither a folder nor a zip archive") from error
    return folder
