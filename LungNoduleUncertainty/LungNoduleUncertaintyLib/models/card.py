"""A bundle's model card: prose and tables in Markdown, written from the metadata alone, so the two can't disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .metadata import BundleMetadata, RareNodules, TrainingRecord
from .network_input import NetworkInput, windows
from .outputs import Outputs
from .size_calibration import REFERENCE_MM

_SEGMENTS = {
    "HC": "what every reader would include (high confidence)",
    "LC": "what some readers would include and others would not (low confidence)",
    "Final": "what at least half of the readers would include",
}
_MEANINGS = {
    "union": "that any reader includes a voxel",
    "intersection": "that every reader includes it",
    "final": "that at least half of the readers include it",
}


class _Measure(NamedTuple):
    """A row of the table of figures."""

    key: str
    words: str
    percent: bool = False
    of_intervals: bool = False


_MEASURES = (
    _Measure("final", "Dice of Final with what at least half of the readers included"),
    _Measure("hc", "Dice of HC with what every reader included", of_intervals=True),
    _Measure("union", "Dice of HC and LC together with what any reader included", of_intervals=True),
    _Measure("coverage", "Coverage: readers' volumes inside the interval", percent=True, of_intervals=True),
    _Measure("width_ratio", "Width of the interval; 1 is as wide as the readers' own", of_intervals=True),
    _Measure("failures", "Failures: nodules with a Dice of Final under 0.3", percent=True),
    _Measure("jitter", "Dice of Final between two clicks up to 1.5 mm beside the center"),
)
# Groups of test nodules, as `python -m Training evaluate` names them; `human_four` and `human_all` are one reader
# compared with the others.
_GROUPS = {
    "four": "{nodules} nodules with four readers",
    "all": "All {nodules} nodules with two or more readers",
}
_READER = "human_"


def model_card(metadata: BundleMetadata) -> str:
    """The card of a bundle in Markdown, for radiologists first; technical settings stand at its end."""
    sections = [
        f"# {metadata.name} {metadata.version}",
        metadata.description,
        f"**Intended use.** {metadata.intended_use}",
        "## What it outlines",
        _outlines(metadata.outputs),
        *_training(metadata.training),
        *_measured(metadata),
        *_rare(metadata.rare),
        "## Limits",
        _limits(metadata.outputs),
        "## Settings",
        _settings(metadata),
        f"**License.** {metadata.license}. {metadata.data_license}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _outlines(outputs: Outputs) -> str:
    if not outputs.segments:
        return f"Nothing: the network predicts {_list(outputs.maps)}."
    lines = [f"- **{name}**: {_SEGMENTS[name]}" for name in outputs.segments]
    if outputs.has_interval:
        lines += [
            "",
            "Every size comes with an interval: at its lower end the size of HC, at its upper end that of HC and LC "
            "together.",
        ]
    if outputs.probabilities == ("soft",):
        maps = "It also has a soft mask: how much of each voxel belongs to the nodule, from 0 to 1."
    else:
        words = [f"{_MEANINGS[name]} ({name})" for name in outputs.probabilities]
        maps = f"It also has {'maps' if len(words) > 1 else 'a map'} of the probability {_list(words)}."
    return "\n".join([*lines, "", maps])


def _training(training: TrainingRecord | None) -> list[str]:
    if training is None:
        return []
    nodules, patients = training.nodules, training.patients
    sentences = [
        f"It was trained on {nodules['training']:,} nodules of {patients['training']:,} patients "
        f"(data set {training.data})."
    ]
    if nodules.get("validation"):
        sentences.append(
            f"{nodules['validation']:,} nodules of {patients['validation']:,} other patients chose the best epoch."
        )
    else:
        sentences.append("No nodules were kept aside for validation.")
    options = training.configuration.get("training", {})
    if options.get("epochs"):
        sentences.append(f"Training took {options['epochs']} epochs.")
    if options.get("init_from"):
        sentences.append(f"It started from the weights of the run {options['init_from'].partition('/')[0]}.")
    if training.averaged_runs:
        sentences.append(f"The predictions of {len(training.averaged_runs)} networks are averaged.")
    return ["## What it was trained on", " ".join(sentences)]


def _measured(metadata: BundleMetadata) -> list[str]:
    figures, outputs = metadata.figures, metadata.outputs
    groups = {name: values for name, values in figures.test.items() if values.get("nodules")}
    if groups.get("all") == groups.get("four"):  # only nodules with four readers were measured
        groups = {name: values for name, values in groups.items() if not name.endswith("all")} or groups
    readers = {name.removeprefix(_READER): values for name, values in groups.items() if name.startswith(_READER)}
    groups = {name: values for name, values in groups.items() if not name.startswith(_READER)}
    if not groups:
        return [] if not figures.conditions else ["## How good it is", figures.conditions]
    titles = [_GROUPS.get(name, name.replace("_", " ")).format(**values) for name, values in groups.items()]
    rows = [
        [measure.words, *cells]
        for measure in _MEASURES
        if outputs.has_interval or not measure.of_intervals
        if any(cells := [_cell(values, measure) for values in groups.values()])
    ]
    notes = ["Dice is the overlap of two outlines in 3D: 0 is none, 1 is the same outline."]
    if any(key.endswith("_interval") for values in groups.values() for key in values):
        notes.append("In brackets are 95 % intervals (bootstrap over patients).")
    compared = _compared(readers, outputs.has_interval)
    return ["## How good it is", figures.conditions, _table(["", *titles], rows), " ".join(notes), compared]


def _compared(readers: Mapping[str, Mapping[str, Any]], has_interval: bool) -> str:
    """A sentence on one reader compared with the others, for the same groups of nodules."""
    shown = list(readers.values())
    if not shown:
        return ""
    dice = _list([f"{values['final']:.3f}" for values in shown])
    text = f"For comparison: one reader has a Dice of {dice} with what at least half of the other readers included"
    if has_interval and all("coverage" in values for values in shown):
        coverage = _list([_percent(values["coverage"]) for values in shown])
        text += f", and {coverage} of the volumes of one reader lie in the interval of the others"
    return f"{text} (same nodules, same order)." if len(shown) > 1 else f"{text} (same nodules)."


def _rare(rare: RareNodules | None) -> list[str]:
    if rare is None:
        return []
    return [
        "## Rare nodules",
        "A second network outlines cavitary nodules (the cavity belongs to the nodule), nodules and masses of more "
        "than 30 mm that the first one doesn't find whole, and nodules on a vessel that it has followed. It went on "
        "from the weights of the first one, with painted examples of these kinds beside "
        f"{rare.training.nodules['training']:,} nodules. Every other nodule is outlined by the first network alone. A "
        "warning says when the second one was used: the figures above don't hold for it. "
        f"{rare.description}".strip(),
    ]


def _limits(outputs: Outputs) -> str:
    meaning = "Final says what at least half of the readers would include, not how far they would differ."
    if outputs.has_interval:
        meaning = "HC and LC say where readers would differ, not where the tissue's border is."
    return (
        "It was trained on nodules that at least two of four LIDC readers outlined, mostly 4 to 20 mm, in axial CT "
        f"with pixels of 0.45 to 1 mm and slices of 0.45 to 5 mm. {meaning} It outlines whatever lies at the point, a "
        "vessel too: it doesn't detect nodules and can't tell a nodule from something else."
    )


def _settings(metadata: BundleMetadata) -> str:
    options = {key: value for key, value in metadata.network.items() if key not in ("name", "in_channels")}
    channels = metadata.network.get("in_channels")
    rows = [
        ["Network", f"{metadata.network['name']} ({_options(options)})" if options else metadata.network["name"]],
        ["Input", _input(metadata.input) + (f" ({channels} channels)" if channels and channels > 1 else "")],
        ["Nodule cube", f"{_list([str(n) for n in metadata.input.cube_sizes], 'or')} voxels along each edge"],
        ["Averaged", _averaged(metadata)],
        ["Thresholds", ", ".join(f"{name} {value:g}" for name, value in metadata.thresholds.items())],
    ]
    if metadata.size_calibration:
        slopes = _list([f"logits of the {name} by {slope:g}" for name, slope in metadata.size_calibration.items()])
        rows.append(["Shifted for size", f"{slopes} for every doubling of the diameter from {REFERENCE_MM:g} mm"])
    if metadata.training and metadata.training.conditions:
        rows.append(["Trained with", _conditions(metadata.training.conditions)])
    if metadata.exported:
        rows.append(["Exported with", _conditions(metadata.exported)])
    return _table(["Setting", "Value"], rows)


def _input(options: NetworkInput) -> str:
    kind = "native slices of the CT" if options.sees_native_slices else "slices as far apart as pixels"
    if len(options.slice_offsets) == 1:
        slices = f"one slice at a time ({kind})"
    else:
        farthest = max(abs(offset) for offset in options.slice_offsets)
        slices = f"{len(options.slice_offsets)} slices ({kind}), up to {farthest} pixel widths above and below"
    levels = _list([f"{low:g} to {high:g} HU" for low, high in windows(options.window_hu)])
    return f"{slices}; {levels}" + ("; how near the point is" if options.position else "")


def _averaged(metadata: BundleMetadata) -> str:
    flips, views = metadata.averaging.flips, metadata.averaging.views
    passes = len(flips) * len(views)
    if passes == 1:
        return f"nothing: one pass of {views[0]} slices"
    return f"{passes} passes of {_list(views)} slices" + (", flipped and not" if len(flips) > 1 else "")


def _options(options: Mapping[str, Any]) -> str:
    parts = [
        f"{key.replace('_', ' ')} ({_options(value)})"
        if isinstance(value, Mapping)
        else f"{key.replace('_', ' ')} {value}"
        for key, value in options.items()
    ]
    return ", ".join(parts)


def _conditions(conditions: Mapping[str, str]) -> str:
    return ", ".join(
        f"{key} {value}" if key not in ("date", "device") else str(value) for key, value in conditions.items()
    )


def _cell(values: Mapping[str, Any], measure: _Measure) -> str:
    value = values.get(measure.key)
    if value is None:
        return ""
    shown = _percent if measure.percent else "{:.3f}".format
    low, high = values.get(f"{measure.key}_interval", (None, None))
    return shown(value) + ("" if low is None else f" ({shown(low)} to {shown(high)})")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _list(words: Any, last: str = "and") -> str:
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
