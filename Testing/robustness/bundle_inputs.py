"""Model bundles: metadata and weights damaged, with and without hashes that fit what was damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import damage
from damage import Rng, pick
from text_inputs import changed_json

_OPTIONS = {"name": "unet", "width": 4, "levels": 2, "in_channels": 1}


@cache
def _files() -> dict[str, bytes]:
    """A sound bundle with a small network of random weights."""
    import torch

    from LungNoduleUncertaintyLib import networks
    from LungNoduleUncertaintyLib.models.bundle import write_bundle
    from LungNoduleUncertaintyLib.models.metadata import BundleMetadata
    from LungNoduleUncertaintyLib.models.network_input import NetworkInput
    from LungNoduleUncertaintyLib.models.outputs import outputs_of_network

    torch.manual_seed(5)
    options = dict(_OPTIONS)
    network = networks.create(str(options.pop("name")), **options).eval()
    with torch.inference_mode():
        maps = sorted(network(torch.zeros(1, 1, 32, 32)))
    metadata = BundleMetadata(
        name="small",
        version="1.0",
        network=_OPTIONS,
        input=NetworkInput(cube_sizes=(32, 48)),
        outputs=outputs_of_network(maps, intervals=True),
        thresholds={"union": 0.3, "intersection": 0.7, "final": 0.5},
        size_calibration={maps[0]: 0.1},
        license="Apache-2.0",
    )
    folder = Path(tempfile.mkdtemp())
    try:
        write_bundle(folder / "small", [network.state_dict()], metadata, "# Small\n")
        return {path.name: path.read_bytes() for path in sorted((folder / "small").iterdir())}
    finally:
        shutil.rmtree(folder)


def undisturbed(folder: Path) -> Path:
    """The sound bundle."""
    path = folder / "bundle"
    path.mkdir()
    for name, content in _files().items():
        (path / name).write_bytes(content)
    return path


def _signed(values: dict[str, Any], weights: bytes | None) -> dict[str, Any]:
    """Metadata with the hashes that fit; what can't be hashed stays as it is."""
    out = dict(values)
    if weights is not None:
        out["weights"] = [{"file": "model.safetensors", "sha256": hashlib.sha256(weights).hexdigest()}]
    rest = {key: value for key, value in out.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}


def bundle(rng: Rng, folder: Path) -> tuple[Path, str]:
    """A bundle damaged in its metadata, its weights or its files."""
    path, form = undisturbed(folder), rng.random()
    weights, text = _files()["model.safetensors"], _files()["metadata.json"]
    values = json.loads(text)
    if form < 0.1:
        content, told = damage.any_bytes(rng, text) if form < 0.05 else damage.flipped(rng, text)
        (path / "metadata.json").write_bytes(content)
        return path, f"metadata: {told}"
    if form < 0.2:
        content, told = damage.any_bytes(rng, weights) if form < 0.15 else damage.flipped(rng, weights)
        (path / "model.safetensors").write_bytes(content)
        return path, f"weights: {told}"
    if form < 0.25:
        name = pick(rng, sorted(_files()))
        (path / name).unlink()
        return path, f"without {name}"
    if form < 0.45:
        content, told = _other_weights(rng, weights)
        (path / "model.safetensors").write_bytes(content)
        (path / "metadata.json").write_text(json.dumps(_signed(values, content)), encoding="utf-8")
        return path, f"weights, with their hash: {told}"
    values, told = _other_metadata(rng, values)
    sign = rng.random() < 0.9
    (path / "metadata.json").write_text(json.dumps(_signed(values, None) if sign else values), encoding="utf-8")
    return path, f"metadata{', with its hash' if sign else ''}: {told}"


def _other_metadata(rng: Rng, values: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A table that prediction depends on changed, or any value."""
    if rng.random() < 0.4:
        return changed_json(rng, values)
    key = pick(rng, ("network", "input", "outputs", "thresholds", "size_calibration", "averaging", "weights"))
    if not isinstance(values[key], dict):
        inner, told = changed_json(rng, {key: values[key]})
        return {**values, **inner}, told
    inner, told = changed_json(rng, values[key])
    return {**values, key: inner}, f"{key}.{told}"


def _other_weights(rng: Rng, weights: bytes) -> tuple[bytes, str]:
    """Weights that aren't numbers, have another name, type or shape; or a header that isn't one."""
    size = int.from_bytes(weights[:8], "little")
    form = int(rng.integers(5))
    if form == 0:
        return damage.any_bytes(rng, weights)
    if form == 1:
        return damage.flipped(rng, weights, 0, size + 8)
    if form == 2:
        head, told = changed_json(rng, json.loads(weights[8 : size + 8]))
        new = json.dumps(head).encode()
        return len(new).to_bytes(8, "little") + new + weights[size + 8 :], f"header {told}"
    body = np.frombuffer(weights[size + 8 :], np.float16).copy()
    value = pick(rng, (np.nan, np.inf, -np.inf, 65504.0))
    many = form == 3
    body[rng.integers(len(body), size=len(body) if many else 1)] = value
    return weights[: size + 8] + body.tobytes(), f"{'most' if many else 'one'} {value}"
