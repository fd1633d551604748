"""Model bundles: a folder with weights (safetensors, half precision), `metadata.json` and a model card.

Hashes of the weights and of the metadata are checked on loading, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LungNoduleKit.errors import BundleError, shortened, shown
from LungNoduleKit.files import as_output_error, plain_path, whole_folder
from LungNoduleKit.records import record_dict

from .. import networks
from .metadata import (
    CARD_FILE,
    METADATA_FILE,
    BundleMetadata,
    WeightFile,
    checked_weights,
    file_sha256,
    metadata_sha256,
    read_metadata,
)
from .outputs import Outputs
from .store import find_bundle

if TYPE_CHECKING:
    import torch

    from ..networks.blocks import Network


def choose_device(device: str = "auto") -> torch.device:
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
    """A loaded bundle: `networks` (one or several, averaged) on `device`, and its `metadata`; `folder` is where its
    files are, None for a model that was made in memory. `rare` is the same with the network for rare nodules in place
    of those, None where there is none.
    """

    def __init__(
        self,
        networks: Iterable[torch.nn.Module],
        metadata: BundleMetadata,
        device: torch.device,
        folder: Path | None = None,
        rare: torch.nn.Module | None = None,
    ):
        import torch

        # Channels last: 1.5 times as fast on CPUs, the same to rounding.
        self.networks = [network.to(memory_format=torch.channels_last) for network in networks]  # type: ignore[call-overload]
        self.metadata, self.device, self.folder = metadata, device, folder
        self._rare = None if rare is None else rare.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.metadata.name} {self.metadata.version}"

    @property
    def outputs(self) -> Outputs:
        """Which segments and probability maps a result of this model has."""
        return self.metadata.outputs

    @property
    def rare(self) -> Model | None:
        """The model of rare nodules; it has this one's metadata."""
        return None if self._rare is None else Model([self._rare], self.metadata, self.device, self.folder)

    def to(self, device: torch.device) -> Model:
        """Moves the networks; returns self."""
        for network in [*self.networks, *([] if self._rare is None else [self._rare])]:
            network.to(device)
        self.device = device
        return self


def load_model(name_or_path: str | Path | None = None, device: str = "auto") -> Model:
    """Load a bundle, by default the shipped one. device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises BundleError when the bundle is missing, incomplete, corrupted or changed, or names a network that this
    version doesn't know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_bundle(name_or_path)
    metadata = read_metadata(folder)
    target = choose_device(device)
    loaded = []
    for path in checked_weights(folder, metadata):
        try:
            options = dict(metadata.network)
            network = networks.create(str(options.pop("name", "")), **options)
            with plain_path(path) as name:
                state = load_file(name)
            odd = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
            if odd:
                raise ValueError(f"weights {odd[0]} aren't finite")
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
            _try(network.eval(), metadata)
        except (ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
            reason = shortened(" ".join(str(error).splitlines()[:2]), 300)
            raise BundleError(f"{path}: doesn't fit the network that the metadata names: {reason}") from error
        loaded.append(network.to(target))
    rare = loaded.pop() if metadata.rare else None
    return Model(loaded, metadata, target, folder, rare)


def _try(network: Network, metadata: BundleMetadata) -> None:
    """Raises ValueError or RuntimeError where a network can't take the input that the metadata says, or has no map of
    the outputs' that the metadata says.
    """
    import torch

    given = metadata.input
    odd = [size for size in given.cube_sizes if size % network.stride]
    if network.in_channels != given.channels or odd:
        what = f"cube_sizes {odd[0]}" if odd else f"{given.channels} channels"
        raise ValueError(f"it takes {network.in_channels} channels of a size in steps of {network.stride}, not {what}")
    size = given.cube_sizes[0]
    with torch.inference_mode():
        maps = network(torch.zeros(1, given.channels, size, size))
    wanted = (1, 1, size, size)
    wrong = [name for name in metadata.outputs.maps if name not in maps or tuple(maps[name].shape) != wanted]
    if wrong and metadata.outputs.segments:
        raise ValueError(f"it has no map {shown(wrong[0])} of the input's size; it has {', '.join(maps)}")


def write_bundle(
    folder: str | Path,
    states: list[dict[str, torch.Tensor]],
    metadata: BundleMetadata,
    card: str,
    rare: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a bundle from state dicts (float weights become half precision); whole or not at all. Returns its folder.

    `rare` are the weights of the network for rare nodules, which `metadata.rare` tells about; without them that is
    dropped. What `metadata` says of weight files and hashes is replaced by what is written, and so is an existing
    folder. Raises OutputError.
    """
    from safetensors.torch import save

    names = ["model.safetensors"] if len(states) == 1 else [f"model-{n}.safetensors" for n in range(len(states))]
    with whole_folder(folder) as temporary, as_output_error(Path(folder)):
        weights = []
        for file, state in [*zip(names, states, strict=True), *([("rare.safetensors", rare)] if rare else [])]:
            half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
            # Written by Python: a full disk is then an OSError.
            (temporary / file).write_bytes(save(half))
            weights.append(WeightFile(file, file_sha256(temporary / file)))
        described = replace(metadata, weights=tuple(weights[: len(states)]))
        described = replace(
            described, rare=replace(metadata.rare, weights=weights[-1]) if rare and metadata.rare else None
        )
        content = signed(described)
        (temporary / METADATA_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    return Path(folder)


def signed(metadata: BundleMetadata) -> dict[str, Any]:
    """The JSON values of a bundle's metadata with their own SHA-256."""
    content = record_dict(metadata)
    return {**content, "sha256": metadata_sha256(content)}
