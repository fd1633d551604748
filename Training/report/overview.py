"""What was run and what wasn't: facts for the headline, missing jobs with their reasons, the commands for the rest."""

import inspect
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from LungNoduleUncertaintyLib import networks

from .measures import of_images
from .store import Experiment, Manifest, Store
from .tables.table import Cell, Head, Record, Table
from .text import counted, fold_text

__all__ = ["PROTOCOL_FOLDS", "commands", "conditions_table", "facts", "missing", "missing_table", "used_jobs"]

#: The papers' protocol has five test folds.
PROTOCOL_FOLDS = (0, 1, 2, 3, 4)


def used_jobs(store: Store, experiments: Sequence[Experiment]) -> list[str]:
    """Ids of the finished jobs that an experiment names, each once, in order of first appearance."""
    found: dict[str, None] = {}
    for experiment in experiments:
        for row in experiment["rows"]:
            found |= dict.fromkeys(store.row_jobs(row).values())
    return list(found)


def facts(store: Store, experiments: Sequence[Experiment]) -> list[tuple[str, str]]:
    """(term, text) pairs of what was run."""
    jobs = used_jobs(store, experiments)
    manifests = [store.manifest(job) for job in jobs]
    configs = [m.get("config") or {} for m in manifests]
    conditions = [m.get("conditions") or {} for m in manifests]
    nodules, patients, folds = set(), set(), set()
    for job, manifest in zip(jobs, manifests, strict=True):
        scores = store.scores(job)
        nodules.update(scores["nodule_id"].tolist())
        patients.update(scores["patient_id"].tolist())
        folds.add(manifest.get("fold"))
    images = all(of_images(e.get("options")) for e in experiments)
    # The same data once, as the manifest that says most of them does.
    known = sorted((m.get("data") or {} for m in manifests), key=len)
    data = _distinct(_data_text(d, images) for d in {d.get("sha256"): d for d in known}.values())
    seconds = [m.get("seconds") or {} for m in manifests]
    epochs = [c.get("training", {}).get("epochs") for c in configs]
    versions = [f"Python {c.get('python')}, PyTorch {c.get('torch')}, NumPy {c.get('numpy')}" for c in conditions]
    pairs = [
        ("Experiments", ", ".join(f"{e.get('title') or e['name']}" for e in experiments)),
        ("Data", data),
        ("Tested on", counted(len(nodules), len(patients), images)),
        ("Test folds", f"{fold_text(f for f in folds if f is not None)} of {fold_text(PROTOCOL_FOLDS)}"),
        ("Profile", _distinct(_profile_text(e) for e in experiments)),
        ("Networks' width", _range(network_width(c) for c in configs)),
        ("Epochs", _range(epochs)),
        ("Jobs finished", f"{len(jobs):,}, of {len({m.get('network') for m in manifests})} networks"),
        ("Time", f"{_hours(sum(s.get('train') or 0 for s in seconds))} of training in all"),
        ("Hardware", _distinct(c.get("device") for c in conditions)),
        ("Software", _distinct(versions)),
        ("Dates", _span(c.get("date") for c in conditions)),
        ("Commits", _distinct(str(c.get("commit"))[:12] for c in conditions)),
    ]
    return pairs if jobs else pairs[:1]


def _data_text(data: dict[str, Any], images: bool = False) -> str:
    unit = "images" if images else "nodules"
    text = f"{data.get('name', 'unnamed')}: {data.get('nodules', '?'):,} {unit}" if data.get("nodules") else "unknown"
    return f"{text}, SHA-256 {data['sha256'][:16]}…" if data.get("sha256") else text


def _profile_text(experiment: Experiment) -> str:
    profile = experiment.get("profile") or "unnamed"
    words = {"full": "full (the papers' widths)", "tiny": "tiny (only to see that everything runs; no meaning)"}
    return words.get(profile, f"{profile} (smaller networks than the papers')")


def network_width(config: dict[str, Any]) -> int | None:
    """Width of a configuration's network: its own setting, else the network's default; None where it has none."""
    network = config.get("network") or {}
    if "width" in network:
        return network["width"]
    try:
        parameters = inspect.signature(networks.network_class(network.get("name", "")).__init__).parameters
    except ValueError:  # a network that this version doesn't know
        return None
    width = parameters.get("width")
    return width.default if width is not None and width.default is not inspect.Parameter.empty else None


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(v) for v in values if v is not None)) or "–"


def _range(values: Iterable[Any]) -> str:
    numbers = sorted({v for v in values if v is not None})
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in numbers) or "–"


def _span(dates: Iterable[Any]) -> str:
    found = sorted({str(d) for d in dates if d})
    return " to ".join(dict.fromkeys((found[0], found[-1]))) if found else "–"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def missing(store: Store, experiments: Sequence[Experiment]) -> list[Record]:
    """A dict for every row and declared fold without a result: experiment, row, label, fold, state, reason.

    state: `failed` (with the runner's reason) or `not run`.
    """
    found = []
    for experiment in experiments:
        for row in experiment["rows"]:
            done, failed = store.row_jobs(row), {int(f): r for f, r in (row.get("failed") or {}).items()}
            declared = {int(f) for f in experiment.get("folds") or ()} | set(failed)
            for fold in sorted(declared - set(done)):
                state = "failed" if fold in failed else "not run"
                record = {"experiment": experiment["name"], "row": row.get("key"), "label": row.get("label")}
                found.append(record | {"fold": fold, "state": state, "reason": failed.get(fold, "")})
    return found


def missing_table(records: list[Record]) -> Table:
    """The missing results for reading."""
    heads = [[Head(t, False) for t in ("Row", "Experiments", "Folds", "State", "Reason")]]
    caption = (
        "Jobs of the folds that the experiments were started for. A row's numbers are those of its finished folds."
    )
    table = Table("not-run", "Results that are missing.", caption, heads, records=records)
    # Rows that several experiments share, and folds of one state, are told once.
    experiments: dict[tuple[tuple[str, str, str], int], list[str]] = {}
    folds: dict[tuple[tuple[str, str, str], str], list[int]] = {}
    for r in records:
        key = (r["label"] or r["row"], r["state"], r["reason"] or "–")
        experiments.setdefault((key, r["fold"]), []).append(r["experiment"])
    for (key, fold), names in experiments.items():
        folds.setdefault((key, ", ".join(dict.fromkeys(names))), []).append(fold)
    for ((label, state, reason), named), numbers in folds.items():
        texts = (label, named, fold_text(numbers), state, reason)
        table.rows.append(("", [Cell(str(text), False) for text in texts]))
    return table


def commands(store: Store, experiments: Sequence[Experiment], output: str) -> list[tuple[str, str]]:
    """(what is missing, command) pairs that bring the rest; finished jobs aren't run again.

    output: how the folder of results is named in the commands. Another profile takes a folder of its own.
    """
    groups: dict[tuple[str, str | None, tuple[int, ...]], list[str]] = {}
    found = []
    gaps = missing(store, experiments)
    for experiment in experiments:
        if experiment.get("kind") == "time":  # has no folds
            continue
        declared = {int(f) for f in experiment.get("folds") or ()}
        own = {g["fold"] for g in gaps if g["experiment"] == experiment["name"]}
        protocol = (experiment.get("options") or {}).get("folds", PROTOCOL_FOLDS)
        rest = tuple(sorted(own | (set(protocol) - declared)))
        if rest:
            key = (experiment.get("profile") or "full", experiment.get("preset"), rest)
            groups.setdefault(key, []).append(experiment["name"])
    for (profile, preset, rest), names in groups.items():
        what = f"Profile {profile}, folds {fold_text(rest)}: {', '.join(names)}"
        found.append((what, _command(names, output, profile, preset, rest)))
    small = [e for e in experiments if (e.get("profile") or "full") != "full"]
    for preset in dict.fromkeys(e.get("preset") for e in small):
        names = [e["name"] for e in small if e.get("preset") == preset]
        found.append(
            (
                "At the papers' widths, all folds (made for an accelerator)",
                _command(names, f"{output}-full", "full", preset, ()),
            )
        )
    return found


def _command(names: Sequence[str], output: str, profile: str, preset: str | None, folds: Sequence[int]) -> str:
    words = ["python", "-m", "Training", "experiment", *names, "--data", "DATA", "--output", output]
    words += ["--profile", profile] + (["--preset", preset] if preset else [])
    return shlex.join([*words, *(["--folds", *map(str, folds)] if folds else [])])


def conditions_table(store: Store, experiments: Sequence[Experiment]) -> Table:
    """A row a job: what it was, how long it took, on what, and the hash of its weights."""
    columns = [
        ("job", "Job", False),
        ("network", "Network", False),
        ("width", "Width", True),
        ("parameters", "Parameters", True),
        ("seed", "Seed", True),
        ("fold", "Test fold", True),
        ("training_nodules", "Training nodules", True),
        ("validation_nodules", "Validation nodules", True),
        ("test_nodules", "Test nodules", True),
        ("test_patients", "Test patients", True),
        ("test_patients_in_training", "Test patients in training", True),
        ("epochs", "Epochs", True),
        ("best_epoch", "Best epoch", True),
        ("train_seconds", "Training, s", True),
        ("predict_seconds", "Prediction, s", True),
        ("device", "Device", False),
        ("date", "Date", False),
        ("commit", "Commit", False),
        ("weights_sha256", "Weights SHA-256", False),
    ]
    table = Table(
        "conditions",
        "Conditions of every run.",
        "A row a job, that is one training with its prediction of one test fold. The best epoch is chosen on "
        "the validation part, never on the test fold.",
        [[Head(text, number) for _, text, number in columns]],
        folded=True,
    )
    for job in used_jobs(store, experiments):
        record = _conditions(job, store.manifest(job))
        cells = [Cell(_short(key, record[key]), number) for key, _, number in columns]
        table.rows.append(("", cells))
        table.records.append(record)
    return table


def _conditions(job: str, manifest: Manifest) -> Record:
    config, split = manifest.get("config") or {}, manifest.get("split") or {}
    seconds, conditions = manifest.get("seconds") or {}, manifest.get("conditions") or {}
    record = {"job": job, "network": manifest.get("network"), "width": network_width(config)}
    record |= {"parameters": manifest.get("parameters"), "seed": config.get("seed"), "fold": manifest.get("fold")}
    record |= {f"{part}_nodules": (split.get(part) or {}).get("nodules") for part in ("training", "validation", "test")}
    record["test_patients"] = (split.get("test") or {}).get("patients")
    record["test_patients_in_training"] = manifest.get("patients_in_training_and_test")
    record["epochs"] = (config.get("training") or {}).get("epochs")
    record["best_epoch"] = (manifest.get("best") or {}).get("epoch")
    record |= {f"{part}_seconds": seconds.get(part) for part in ("train", "predict")}
    record |= {key: conditions.get(key) for key in ("device", "date", "commit", "torch", "numpy", "python")}
    return record | {"weights_sha256": manifest.get("weights_sha256")}


def _short(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key in {"commit", "weights_sha256"}:
        return str(value)[:12]
    if isinstance(value, float):
        return f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
