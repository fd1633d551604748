"""Bundles that the user added to those that ship: where they lie, importing from a file, removing.

The folder is `LUNG_NODULE_UNCERTAINTY_MODELS` if that environment variable is set, otherwise one in the user's home.
Nothing is downloaded: a bundle comes as a folder or a zip archive that the user has.
"""

import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from LungNoduleKit.errors import BundleError, OutputError

from ..resources import resource_path
from .outputs import read_outputs

FOLDER_VARIABLE = "LUNG_NODULE_UNCERTAINTY_MODELS"
_LIMIT_BYTES = 2 << 30  # of an unpacked archive: no bundle is nearly as large


def user_folder() -> Path:
    """Folder of the bundles that the user imported; it needn't exist."""
    set_by_user = os.environ.get(FOLDER_VARIABLE)
    return Path(set_by_user) if set_by_user else Path.home() / ".lung-nodule-uncertainty" / "models"


def folders() -> list[Path]:
    """Folders that hold bundles by name, the shipped ones first."""
    return [resource_path("Models"), user_folder()]


def is_removable(name: str) -> bool:
    """Whether a bundle was imported by the user; shipped ones stay."""
    return (user_folder() / name / "metadata.json").is_file() and not _is_shipped(name)


def import_bundle(source) -> str:
    """Copies a bundle (a folder, or a zip archive of one) into the user's folder; returns the bundle's name.

    Every hash is checked before anything is written, and the copy appears whole or not at all. An imported bundle of
    the same name is replaced. Raises BundleError for what isn't a sound bundle or has the name of a shipped one,
    OutputError if the folder can't be written.
    """
    source, target = Path(source), user_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".import-", dir=target))
    except OSError as error:
        raise OutputError(f"{target}: models can't be kept there: {error.strerror or error}") from error
    try:
        found = _unpacked(source, temporary / "archive") if source.is_file() else source
        name = _checked(found)
        if _is_shipped(name):
            raise BundleError(f"{source}: a bundle named {name!r} ships with the extension; give yours another name")
        copy, old = temporary / "copy", temporary / "old"
        shutil.copytree(found, copy)
        if (target / name).exists():
            os.replace(target / name, old)
        os.replace(copy, target / name)
    except OSError as error:
        raise OutputError(f"{target}: the bundle can't be copied there: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return name


def remove_bundle(name: str):
    """Deletes an imported bundle. Raises BundleError for a shipped or unknown one, OutputError if it stays."""
    if not is_removable(name):
        raise BundleError(f"model {name!r}: only imported bundles can be removed")
    folder = user_folder() / name
    doomed = folder.with_name(f".removed-{name}")
    try:
        os.replace(folder, doomed)  # gone at once, even if deleting its files takes long or fails half-way
        shutil.rmtree(doomed)
    except OSError as error:
        raise OutputError(f"{folder}: can't be removed: {error.strerror or error}") from error


def summary(name_or_path=None) -> dict:
    """What a chooser shows of a bundle: name, version, description, license, size_mb, removable, card (path), and what
    it gives: segments, probabilities, thresholds, outputs (the network's own maps).

    Raises BundleError. Weights aren't loaded nor hashed.
    """
    from .bundle import find_bundle, read_metadata

    folder = find_bundle(name_or_path)
    metadata = read_metadata(folder)
    card, gives = folder / "MODEL_CARD.md", read_outputs(metadata)
    return {
        **{key: metadata.get(key, "") for key in ("name", "version", "description", "license")},
        "outputs": list(gives.maps),
        "segments": list(gives.segments),
        "probabilities": list(gives.probabilities),
        "thresholds": {name: metadata["thresholds"][name] for name in gives.thresholds},
        "size_mb": sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6,
        "removable": is_removable(folder.name),
        "card": card if card.is_file() else None,
    }


def _is_shipped(name):
    return (resource_path("Models", name) / "metadata.json").is_file()


def _checked(folder) -> str:
    """Name of a bundle whose metadata and weights have the hashes that they claim."""
    from .bundle import file_sha256, read_metadata

    if not (Path(folder) / "metadata.json").is_file():
        raise BundleError(f"{folder}: it isn't a bundle (a folder or zip archive with a metadata.json)")
    metadata = read_metadata(folder)
    name = str(metadata["name"])
    if not name or PurePosixPath(name).name != name or "\\" in name or name.startswith("."):
        raise BundleError(f"{folder}: its name {name!r} can't be a folder's")
    for entry in metadata["weights"]:
        path = Path(folder) / Path(entry["file"]).name
        if not path.is_file():
            raise BundleError(f"{path}: missing; the bundle is incomplete")
        if file_sha256(path) != entry["sha256"]:
            raise BundleError(f"{path}: corrupted or changed (its SHA-256 doesn't match the metadata)")
    return name


def _unpacked(archive, folder) -> Path:
    """The folder with metadata.json of a zip archive, unpacked into `folder`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [e for e in opened.infolist() if not e.is_dir()]
            if sum(e.file_size for e in entries) > _LIMIT_BYTES:
                raise BundleError(f"{archive}: unpacked it would be larger than any bundle")
            roots = [
                PurePosixPath(e.filename).parent for e in entries if PurePosixPath(e.filename).name == "metadata.json"
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
