"""Model bundles: a folder with weights (safetensors, half precision), `metadata.json` and a model card.

The metadata says everything that prediction needs (network, inputs, thresholds, averaging) and where the model comes
from (configuration, data, split, measured figures, licence). Each weight file's SHA-256 stands in the metadata, and the
metadata carries a SHA-256 of itself; both are checked on loading, and nothing is ever unpickled.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from LungNoduleKit.errors import BundleError

from .. import networks
from .outputs import Outputs, read_outputs
from .store import folders

FORMAT = 1
DEFAULT_BUNDLE = "ugsnet-compact"
_REQUIRED = ("format", "name", "version", "network", "input", "thresholds", "weights", "license", "sha256")


def file_sha256(path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream) -> str:  # Python 3.10
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def metadata_sha256(metadata: dict) -> str:
    """SHA-256 of the metadata without its own `sha256` entry, in canonical JSON."""
    content = {key: value for key, value in metadata.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def available_bundles() -> list[str]:
    """Names of the bundles: the default one, the other shipped ones, those that the user imported (`model_store`)."""
    names: list[str] = []
    for folder in folders():
        found = sorted(p.parent.name for p in folder.glob("[!.]*/metadata.json")) if folder.is_dir() else []
        names += [name for name in found if name not in names]
    return sorted(names, key=lambda name: name != DEFAULT_BUNDLE)


def find_bundle(name_or_path=None) -> Path:
    """Folder of a bundle, given its name (default: the shipped model) or a path. Raises BundleError."""
    name = DEFAULT_BUNDLE if name_or_path is None else str(name_or_path)
    for folder in (*(root / name for root in folders()), Path(name)):
        if (folder / "metadata.json").is_file():
            return folder
    raise BundleError(
        f"model {name!r}: neither a known bundle ({', '.join(available_bundles()) or 'none found'}) "
        "nor a folder with a metadata.json"
    )


def read_metadata(folder) -> dict:
    """A bundle's metadata, its own hash and its entries checked. Raises BundleError."""
    path = Path(folder) / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: can't be read as JSON: {error}") from error
    missing = [key for key in _REQUIRED if not isinstance(metadata, dict) or key not in metadata]
    if missing:
        raise BundleError(f"{path}: lacks {', '.join(missing)}")
    if metadata["format"] != FORMAT:
        raise BundleError(f"{path}: bundle format {metadata['format']}, this version reads {FORMAT}")
    if metadata["sha256"] != metadata_sha256(metadata):
        raise BundleError(f"{path}: was changed after the bundle was written (its SHA-256 doesn't match)")
    try:
        gives = read_outputs(metadata)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    lacking = [name for name in gives.thresholds if name not in metadata["thresholds"]]
    if lacking:
        raise BundleError(f"{path}: gives {', '.join(gives.segments)}, but lacks threshold {', '.join(lacking)}")
    slopes = metadata.get("size_calibration", {})
    if not isinstance(slopes, dict) or not all(isinstance(v, int | float) for v in slopes.values()):
        raise BundleError(f"{path}: size_calibration {slopes!r}: a slope for each map is wanted")
    return metadata


def choose_device(device: str = "auto"):
    """torch device for `auto`, `cpu`, `cuda` or `cuda:N`. Raises BundleError for one that isn't there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BundleError(f"device {device!r}: not a device; use auto, cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BundleError(f"device {device!r}: no CUDA device is available here; use auto or cpu")
    return chosen


class Model:
    """A loaded bundle: `networks` (one or several, averaged) on `device`, and its `metadata`."""

    def __init__(self, networks: list, metadata: dict, device, folder=None):
        import torch

        # Channels last: 1.5 times as fast on CPUs, the same to rounding.
        self.networks = [network.to(memory_format=torch.channels_last) for network in networks]
        self.metadata, self.device, self.folder = metadata, device, folder

    @property
    def name(self) -> str:
        return f"{self.metadata['name']} {self.metadata['version']}"

    @property
    def gives(self) -> Outputs:
        """Which segments and probability maps a result of this model holds."""
        return read_outputs(self.metadata)

    @property
    def outputs(self) -> list[str]:
        """Which maps the network computes: `union`, `intersection`, `final` (and `single`), or `final` and `soft`."""
        return list(self.gives.maps)

    def to(self, device) -> "Model":
        """Move the networks; returns self."""
        for network in self.networks:
            network.to(device)
        self.device = device
        return self


def load_model(name_or_path=None, device: str = "auto") -> Model:
    """Load a bundle, by default the shipped one.

    Raises BundleError when the bundle is missing, incomplete, corrupted, tampered with, or asks for a network that
    this version doesn't know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_bundle(name_or_path)
    metadata = read_metadata(folder)
    target = choose_device(device)
    loaded = []
    for entry in metadata["weights"]:
        path = folder / Path(entry["file"]).name  # a name, never a path out of the bundle
        if not path.is_file():
            raise BundleError(f"{path}: missing; the bundle is incomplete")
        if file_sha256(path) != entry["sha256"]:
            raise BundleError(f"{path}: corrupted or changed (its SHA-256 doesn't match the metadata)")
        try:
            options = dict(metadata["network"])
            network = networks.create(options.pop("name"), **options)
            state = load_file(path)
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        except (ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"{path}: doesn't fit the network that the metadata names: {reason}") from error
        loaded.append(network.eval().to(target))
    return Model(loaded, metadata, target, folder)


def write_bundle(folder, states: list[dict], metadata: dict, card: str) -> Path:
    """Write a bundle from state dicts (float weights become half precision); whole or not at all.

    `metadata` lacks `format`, `weights` and `sha256`, which are added here. An existing folder is replaced.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        weights = []
        for number, state in enumerate(states):
            file = "model.safetensors" if len(states) == 1 else f"model-{number}.safetensors"
            half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
            save_file(half, temporary / file)
            (temporary / file).chmod(0o644)
            weights.append({"file": file, "sha256": file_sha256(temporary / file)})
        content = {"format": FORMAT, **metadata, "weights": weights}
        content["sha256"] = metadata_sha256(content)
        (temporary / "metadata.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (temporary / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
