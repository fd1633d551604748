"""Text files: training configurations and experiment definitions (TOML) and records (JSON), damaged.

A text is damaged as what it says (keys and values), as text (lines, encodings) or as bytes.
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import damage
from damage import Rng, pick

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ("ugsnet-compact", "ugsnet", "dsnet-compact", "srgan", "patch", "ife", "unet-compact")
DEFINITIONS = ("table1", "table2", "dsnet_networks", "ife_table1", "dsnet_time", "densities", "leak")
TOML_VALUES = (
    *("nan", "inf", "-inf", "1e400", "-1", "0", "1.5", "true", '""', '"x"', "[]", "{}", "[[]]", "[nan]", "1979-05-27"),
    *(
        "1_000",
        "0x10",
        "10000000000000000000000000000000",
        "[1, 2, 3, 4, 5]",
        '"""a',
        "'",
        "07:32:00",
        "{ x = 1 }",
        "3",
    ),
    *("[" * 3000, "[" * 500 + "]" * 500, '"\\ud800"', '"ugsnet"', '"dsnet"', "[-1, -1]", "[0.0, 0.0]", '["a", "b"]'),
)


def as_text(rng: Rng, text: str) -> tuple[bytes, str]:
    """Lines taken out, doubled, moved or cut, another encoding, or bytes damaged."""
    lines, form = text.splitlines(keepends=True), rng.random()
    n = int(rng.integers(max(1, len(lines))))
    if form < 0.35 or not lines:
        return damage.encoded(rng, text)
    if form < 0.55:
        return damage.any_bytes(rng, text.encode())
    if form < 0.75:
        return damage.flipped(rng, text.encode())
    if form < 0.81:
        del lines[n]
        what = f"line {n + 1} taken out"
    elif form < 0.87:
        lines.insert(int(rng.integers(len(lines) + 1)), lines[n])
        what = f"line {n + 1} doubled"
    elif form < 0.93:
        other = int(rng.integers(len(lines)))
        lines[n], lines[other] = lines[other], lines[n]
        what = f"lines {n + 1} and {other + 1} swapped"
    else:
        lines[n] = lines[n][: len(lines[n]) // 2] + "\n"
        what = f"line {n + 1} cut in half"
    return "".join(lines).encode(), what


def _toml(rng: Rng, text: str) -> tuple[bytes, str]:
    """A value, a key or a table of a TOML text changed, or the text as text."""
    if rng.random() < 0.35:
        return as_text(rng, text)
    lines = text.splitlines()
    assignments = [n for n, line in enumerate(lines) if re.match(r"[\w.]+ = ", line)]
    n, form = pick(rng, assignments), int(rng.integers(8))
    key, value = lines[n].split(" = ", 1)
    if form <= 3:
        numbers = re.findall(r"(?<![\w.])-?\d[\d.e-]*", value)
        if numbers and rng.random() < 0.5:
            old = pick(rng, numbers)
            new = value.replace(old, damage.odd_number(rng, float(old)), 1)
        else:
            new = pick(rng, TOML_VALUES)
        lines[n] = f"{key} = {new}"
    elif form == 4:
        quoted, deep = f'"{key}"', "a." * 1500 + "a"
        lines[n] = f"{pick(rng, ('x', key + 's', key + '.x', '', quoted, deep, key.upper()))} = {value}"
    elif form == 5:
        lines.insert(n, f"{key} = {pick(rng, TOML_VALUES)}")
    elif form == 6:
        tables = (
            "[network]",
            "[x]",
            "[training.x]",
            "[[rows]]",
            "[data]",
            "[]",
            "[network",
            "[options]",
            "[dsnet]",
            "[patch]",
        )
        lines.insert(n, pick(rng, tables))
    else:
        lines[n] = pick(
            rng, (key, f"{key} =", f"= {value}", f"{key} == {value}", f"{key}: {value}", f"{key} = {value} {value}")
        )
    return ("\n".join(lines) + "\n").encode(), f"line {n + 1}: {lines[n][:100]}"


def undisturbed_config(folder: Path, name: str = CONFIGS[0]) -> Path:
    """A shipped training configuration."""
    path = folder / "config.toml"
    path.write_bytes((ROOT / "Training" / "configs" / f"{name}.toml").read_bytes())
    return path


def config(rng: Rng, folder: Path) -> tuple[Path, str]:
    """A training configuration."""
    path = undisturbed_config(folder, pick(rng, CONFIGS))
    content, told = _toml(rng, path.read_text(encoding="utf-8"))
    path.write_bytes(content)
    return path, told


def undisturbed_definition(folder: Path, name: str = DEFINITIONS[0]) -> Path:
    """A shipped experiment definition."""
    source = ROOT / "Training" / "experiments" / "definitions"
    for other in ("table1", "dsnet_networks"):  # whose rows others use
        (folder / f"{other}.toml").write_bytes((source / f"{other}.toml").read_bytes())
    path = folder / "experiment.toml"
    path.write_bytes((source / f"{name}.toml").read_bytes())
    return path


def definition(rng: Rng, folder: Path) -> tuple[Path, str]:
    """An experiment's definition."""
    name = pick(rng, DEFINITIONS)
    path = undisturbed_definition(folder, name)
    content, told = _toml(rng, path.read_text(encoding="utf-8"))
    path.write_bytes(content)
    return path, f"{name}: {told}"


def changed_json(rng: Rng, values: Any) -> tuple[Any, str]:
    """JSON values with something changed, taken out or put in."""
    out = copy.deepcopy(values)
    place = pick(rng, damage.leaves(out))
    shown, form = ".".join(map(str, place)), int(rng.integers(6))
    if form <= 3:
        new = damage.odd_value(rng)
        damage.put(out, place, new)
        return out, f"{shown} = {repr(new)[:60]}"
    if form == 4:
        damage.take(out, place)
        return out, f"without {shown}"
    new = damage.odd_value(rng)
    table = out
    for key in place[:-1]:
        table = table[key]
    if isinstance(table, dict):
        name = pick(rng, ("x", "", "Name", f"{place[-1]} "))
        table[name] = new
        return out, f"{shown}: also {name!r} = {repr(new)[:60]}"
    table.append(new)
    return out, f"{shown}: also {repr(new)[:60]}"


def any_json(rng: Rng, values: Any) -> tuple[bytes, str]:
    text = json.dumps(values, indent=1)
    form = rng.random()
    if form < 0.3:
        return as_text(rng, text)
    if form < 0.36:
        name = pick(rng, sorted(values))
        double = f'{{"{name}": {json.dumps(damage.odd_value(rng))},{text[1:]}'
        return double.encode("utf-8", "surrogatepass"), f"{name} twice"
    if form < 0.4:
        deep = pick(
            rng, ("[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900, "1" * 5000, "-", "NaN", '"x"', "null")
        )
        return deep.encode(), f"replaced by {deep[:20]}"
    out, told = changed_json(rng, values)
    return json.dumps(out, indent=1).encode(), told


@cache
def records() -> dict[str, Any]:
    """What the JSON files of a run, a job and an evaluation hold, by their name."""
    from LungNoduleKit.records import record_dict
    from LungNoduleUncertaintyLib.models.network_input import Averaging
    from Training.config import load_config
    from Training.evaluation.calibration import Calibration
    from Training.evaluation.reader_agreement import ReaderFigures
    from Training.evaluation.summary import Evaluation, Figures
    from Training.experiments.jobs import Counts, DataSet, Job, Manifest, Seconds, SplitCounts
    from Training.runs import Conditions, Split, SplitPart

    run = load_config("unet-compact")
    data, conditions = DataSet("nodules", "0" * 64, 12), Conditions("2026-01-01", "abc", "2.4", "1.26", "3.12", "CPU")
    counts, figures = Counts(4, 6), Figures(nodules=6, patients=4, final=0.8, hc=0.7, union=0.8, coverage=0.9)
    split = SplitCounts(counts, counts, counts)
    manifest = Manifest(
        *(
            "job-0",
            "unet",
            run,
            0,
            data,
            split,
            0,
            "0" * 64,
            1234,
            {"final": 0.8},
            Seconds(1.0, 2.0, 3.0),
            conditions,
            1,
        ),
        {"dice": 0.8},
    )
    human = ReaderFigures(**{name: 1 for name in ("nodules",) if name in ReaderFigures.__dataclass_fields__})
    slices = "native"
    evaluation = Evaluation(
        model="m", data="d", slices=slices, four=figures, all=figures, human_four=human, human_all=human
    )
    calibration = Calibration(
        thresholds={"final": 0.5}, averaging=Averaging(), slices=slices, calibrated_on="validation", figures=figures
    )
    rows = [{"key": "unet", "label": "U-Net", "jobs": {"0": "job-0"}, "paper": {"dsc": 87.4}, "failed": {}}]
    experiment = {
        **{"name": "toy", "title": "Toy", "source": "none", "kind": "table", "profile": "tiny", "preset": "default"},
        **{"folds": [0], "notes": "", "options": {"reference": "unet"}, "command": "x", "rows": rows},
    }
    part = SplitPart(("P1", "P2"), ("N1", "N2"))
    found = {
        **{"config.json": run, "split.json": Split(part, SplitPart(("P3",), ("N3",))), "conditions.json": conditions},
        **{"job.json": Job("job-0", run, 0, data), "manifest.json": manifest},
        **{"evaluation.json": evaluation, "calibration.json": calibration},
    }
    return {**{name: record_dict(value) for name, value in found.items()}, "experiment.json": experiment}


@cache
def _weights() -> bytes:
    """A run's weights: no network's, because reading them is all that is tried."""
    import numpy as np
    from safetensors.numpy import save

    return save({"a": np.arange(6, dtype=np.float32)})


def undisturbed_record(folder: Path, name: str) -> Path:
    """A JSON file of a run, a job or an evaluation."""
    path = folder / name
    path.write_text(json.dumps(records()[name], indent=1), encoding="utf-8")
    (folder / "best.safetensors").write_bytes(_weights())
    return path


def record(rng: Rng, folder: Path) -> tuple[Path, str]:
    """A JSON file of a run, a job or an evaluation; or a run's weights."""
    name = pick(rng, sorted(records()))
    path = undisturbed_record(folder, name)
    if name == "config.json" and rng.random() < 0.4:
        form = rng.random()
        content, told = damage.any_bytes(rng, _weights()) if form < 0.7 else damage.flipped(rng, _weights())
        (folder / "best.safetensors").write_bytes(content)
        return path, f"best.safetensors: {told}"
    content, told = any_json(rng, records()[name])
    path.write_bytes(content)
    return path, f"{name}: {told}"
