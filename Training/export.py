"""A training run becomes a bundle: averaged weights in half precision, metadata and a model card."""

import json
from pathlib import Path

from LungNoduleUncertaintyLib.model_bundle import Model, write_bundle

from .config import ConfigError
from .trainer import build_network, conditions, input_channels

DATA_LICENSE = (
    "Weights trained on LIDC-IDRI (CC BY 3.0): Armato et al. 2011, doi 10.1118/1.3528204; "
    "The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX"
)


def run_state(folder) -> tuple[dict, dict]:
    """(configuration, averaged weights) of a run folder."""
    from safetensors.torch import load_file

    folder = Path(folder)
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / "best.safetensors")


def _run_states(folders) -> tuple[dict, list[dict]]:
    """The first run's configuration, and the weights of all. Raises ConfigError when they can't be averaged."""
    loaded = [run_state(folder) for folder in folders]
    config = loaded[0][0]
    for folder, (other, _) in zip(folders, loaded, strict=True):
        for key in ("network", "input"):
            if other[key] != config[key]:
                raise ConfigError(f"{folder}: its {key} differs from that of {folders[0]}: the two can't be averaged")
    return config, [state for _, state in loaded]


def run_model(*folders, device="cpu") -> Model:
    """The best weights of one run, or of several to be averaged, as a `Model` with thresholds of 0.5."""
    import torch

    config, states = _run_states(folders)
    built = []
    for state in states:
        network = build_network(config)
        network.load_state_dict(state)
        built.append(network.eval().to(device))
    metadata = _metadata(config, _outputs(built[0], config), built[0].stride)
    return Model(built, metadata, torch.device(device), folders[0])


def _outputs(network, config: dict) -> list[str]:
    """Names of what a network gives, from one pass over an empty input."""
    import torch

    size = _cube_sizes(config, network.stride)[0]
    with torch.inference_mode():
        found = network.eval()(torch.zeros(1, input_channels(config), size, size))
    return sorted(found)


def _cube_sizes(config: dict, stride: int) -> list[int]:
    """Edges of the cubes that prediction may look at: from the size of training on, in the network's steps."""
    first = config["data"]["net_size"] or config["data"]["crop"]
    return [size for size in sorted({first, 64, 96, 128}) if size >= first and size % stride == 0]


def _metadata(config: dict, outputs: list[str], stride: int) -> dict:
    return {
        "name": config["name"],
        "version": "0",
        "sha256": "",
        "network": {**config["network"], "in_channels": input_channels(config)},
        "input": {
            **config["input"],
            "spacing_mm": config["data"].get("pixel_mm") or None,  # None: the CT's in-plane spacing
            "magnification": (config["data"]["net_size"] or config["data"]["crop"]) / config["data"]["crop"],
            "cube_sizes": _cube_sizes(config, stride),
        },
        "outputs": list(outputs),
        "thresholds": dict.fromkeys(("union", "intersection", "final"), 0.5),
        "averaging": {"flips": [[]], "views": ["axial"]},
    }


def export_bundle(
    runs,
    output,
    *,
    thresholds: dict,
    averaging: dict,
    figures: dict,
    version: str,
    name: str | None = None,
    data: str = "lidc-nodules",
) -> Path:
    """Write the bundle of one run or of several, whose networks prediction averages; the card describes the first one.

    `figures` are measured ones with their conditions; they go into metadata and card.
    """
    runs = [Path(run) for run in runs]
    run = runs[0]
    config, states = _run_states(runs)
    network = build_network(config)
    outputs = _outputs(network, config)
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    trained = json.loads((run / "conditions.json").read_text(encoding="utf-8"))
    start = Path(config["training"]["init_from"])
    if start.name:  # the run that it started from, not where that lay
        config = {**config, "training": {**config["training"], "init_from": f"{start.parent.name}/{start.name}"}}
    metadata = {
        **_metadata(config, outputs, network.stride),
        "name": name or config["name"],
        "version": version,
        "description": _description(config["network"]["name"], outputs),
        "thresholds": thresholds,
        "averaging": averaging,
        "license": "Apache-2.0",
        "data_license": DATA_LICENSE,
        "intended_use": "Research only, not for diagnosis. Chest CT of adults, one nodule of 3 to 40 mm at a point.",
        "training": {
            "configuration": config,
            "data": data,
            "patients": {part: len(value["patients"]) for part, value in split.items()},
            "nodules": {part: len(value["nodules"]) for part, value in split.items()},
            "conditions": trained,
            **({"averaged_runs": [r.name for r in runs]} if len(runs) > 1 else {}),
        },
        "exported": conditions(),
        "figures": figures,
    }
    return write_bundle(output, states, metadata, model_card(metadata))


def _description(network: str, outputs: list[str]) -> str:
    if "union" in outputs:
        return "UGS-Net for lung nodules: what every reader, some readers and most readers would include."
    return f"{network} for lung nodules: one probability map; HC, LC and Final are its cuts at three thresholds."


def model_card(metadata: dict) -> str:
    """The card in Markdown, from the metadata alone, so that the two can't disagree."""
    training, figures = metadata["training"], metadata["figures"]
    rows = []
    for group, values in figures.get("test", {}).items():
        cells = [f"{values[k]:.3f}" if k in values else "" for k in ("final", "hc", "union", "coverage", "width_ratio")]
        cells += [f"{values[k]:.3f}" if k in values else "" for k in ("failures", "jitter")]
        rows.append(f"| {group} | {values['nodules']} | {' | '.join(cells)} |")
    table = "\n".join(
        [
            "| nodules | n | final | HC | union | coverage | width | Dice < 0.3 | jitter |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    conditions_used = ", ".join(f"{k} {v}" for k, v in training["conditions"].items())
    return f"""# {metadata["name"]} {metadata["version"]}

{metadata["description"]}

**Intended use.** {metadata["intended_use"]}

**Network.** `{json.dumps(metadata["network"])}` on `{json.dumps(metadata["input"])}`; averaged over
`{json.dumps(metadata["averaging"])}`; thresholds `{json.dumps(metadata["thresholds"])}`.

**Training.** {training["data"]}: {training["nodules"]["training"]} nodules of {training["patients"]["training"]}
patients, validation on {training["nodules"]["validation"]} nodules of {training["patients"]["validation"]} others;
{training["configuration"]["training"]["epochs"]} epochs. {conditions_used}.

## Measured

{figures.get("conditions", "")}

{table}

`final` is the mean 3D Dice against what at least half of the readers include, HC against what all include, union
against what any includes. `coverage`: share of reader volumes inside [V(HC), V(union)]; `width`: median width of that
interval over the readers' own [V(intersection), V(union)]; `jitter`: mean Dice of `final` between points moved by
up to 1.5 mm.

## Limits

Trained on nodules that at least two of four LIDC readers outlined, mostly 4 to 20 mm, on axial CT of 0.45 to 1 mm
pixels and 0.45 to 5 mm slices. HC and LC say where readers would differ, not where the tissue's border is. The model
outlines what lies at the point, a vessel too: it detects nothing and tells no nodule from what isn't one.

**Licence.** {metadata["license"]}. {metadata["data_license"]}.
"""
