"""Weights of another run as the start of this one, also when this one's network sees more than the other's did."""

import json
from dataclasses import fields
from pathlib import Path

import torch

from LungNoduleKit.records import read_record
from LungNoduleUncertaintyLib.models.network_input import SliceInput, windows

from ..config import Config, ConfigError
from ..runs import load_weights


def input_names(options: SliceInput) -> list[tuple]:
    """What each input channel of an `input` table holds, in the network's order."""
    names = [("HU", tuple(w), offset) for w in windows(options.window_hu) for offset in options.slice_offsets]
    return [*names, ("position",)] if options.position else names


def warm_start(network: torch.nn.Module, config: Config) -> None:
    """Load the weights that `training.init_from` names: a `.safetensors` file of a run or of a bundle.

    Input channels that its run didn't have (slices farther off, the point) start with weights of zero, so that the
    network begins where the other one ended. What that run saw stands beside the file, in its `config.json`
    or in the bundle's `metadata.json`. Raises ConfigError when the weights don't fit.
    """
    path = Path(config.training.init_from)
    if not path.is_file():
        raise ConfigError(f"training.init_from: {path} not found")
    state, own = load_weights(path), network.state_dict()
    before, now = (input_names(options) for options in (_input_of(path) or config.input, config.input))
    if before != now:
        if not set(before) <= set(now):
            raise ConfigError(f"training.init_from: {path} sees what this network doesn't: {set(before) - set(now)}")
        if len(before) == len(now):  # nothing tells which tensors to put in another order
            raise ConfigError(f"training.init_from: {path} has its slices in another order: {[n[-1] for n in before]}")
        places = [now.index(name) for name in before]
        for key, value in state.items():
            if key in own and value.shape != own[key].shape and value.dim() > 1 and value.shape[1] == len(before):
                wider = torch.zeros(value.shape[0], len(now), *value.shape[2:], dtype=value.dtype)
                wider[:, places] = value
                state[key] = wider
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"training.init_from: {path} isn't of this network: {reason}") from error


def _input_of(path: Path) -> SliceInput | None:
    """The `input` table of the run or the bundle that a file of weights lies in."""
    for name in ("config.json", "metadata.json"):
        if (path.parent / name).is_file():
            found = json.loads((path.parent / name).read_text(encoding="utf-8"))["input"]
            options = {
                f.name: found[f.name] for f in fields(SliceInput) if f.name in found
            }  # a bundle's table has more
            return read_record(SliceInput, options, str(path.parent / name), ConfigError, "input")
    return None
