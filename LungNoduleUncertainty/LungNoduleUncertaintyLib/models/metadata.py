"""A bundle's `metadata.json` as typed records: read, checked, hashed.

The metadata has everything that prediction needs (network, input, outputs, thresholds, averaging) and where the model
comes from (training, figures, license). It holds the SHA-256 of every weight file and of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LungNoduleKit.errors import BundleError, shortened, shown
from LungNoduleKit.records import parsed_json, read_record

from .network_input import Averaging, NetworkInput
from .outputs import Outputs, calibration_problem

FORMAT = 1
METADATA_FILE, CARD_FILE = "metadata.json", "MODEL_CARD.md"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights in the bundle's folder and the SHA-256 of its content, hexadecimal."""

    file: str
    sha256: str


@dataclass(frozen=True)
class TrainingRecord:
    """How the weights were trained. `patients` and `nodules` are numbers of the parts `training` and `validation`.

    configuration: what `python -m Training train` was given, all defaults included. conditions: date, commit, versions
    and hardware. averaged_runs: names of the runs, where prediction averages the networks of several.
    """

    configuration: dict[str, Any]
    data: str
    patients: dict[str, int]
    nodules: dict[str, int]
    conditions: dict[str, str] = field(default_factory=dict)
    averaged_runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredFigures:
    """What was measured. A group of nodules has figures by the names of their metrics, e.g. `final`; `final_interval`
    is a figure's 95 % interval, `final_sd` its standard deviation over nodules, `final_folds_sd` over folds.

    test: figures of each group of test nodules. test_conditions: of which model, thresholds and data. conditions: a
    note in words on how it was measured. calibration: figures of the nodules in `calibrated_on`, which the thresholds
    were chosen on.
    """

    test: dict[str, dict[str, Any]] = field(default_factory=dict)
    test_conditions: dict[str, Any] = field(default_factory=dict)
    conditions: str = ""
    calibration: dict[str, Any] | None = None
    calibrated_on: str | None = None


@dataclass(frozen=True)
class RareNodules:
    """The network for nodules of which training data have few: cavitary ones, large ones, those on vessels.

    It is built as the usual network is. weights: its file. training: as the bundle's own. description: what it is, in
    a sentence for the model card.
    """

    training: TrainingRecord
    description: str = ""
    weights: WeightFile = WeightFile("", "")


@dataclass(frozen=True, kw_only=True)
class BundleMetadata:
    """A bundle's metadata.

    network: name and options of `networks.create`. thresholds: of the maps that make the segments, in (0, 1).
    size_calibration: slopes, see `size_calibration.calibrated`. license: of the code and weights; data_license: of what
    they were trained on, with its sources. exported: conditions of the export.
    """

    format: int = FORMAT
    name: str
    version: str
    sha256: str = ""
    network: dict[str, Any]
    input: NetworkInput
    outputs: Outputs
    thresholds: dict[str, float]
    size_calibration: dict[str, float] = field(default_factory=dict)
    averaging: Averaging = field(default_factory=Averaging)
    description: str = ""
    license: str
    data_license: str = ""
    intended_use: str = ""
    training: TrainingRecord | None = None
    exported: dict[str, str] = field(default_factory=dict)
    figures: MeasuredFigures = field(default_factory=MeasuredFigures)
    weights: tuple[WeightFile, ...] = ()
    rare: RareNodules | None = None

    def problem(self) -> str:
        """What is wrong with the thresholds and the size calibration, or an empty text."""
        return calibration_problem(self.thresholds, self.size_calibration, self.outputs.maps)


def metadata_sha256(content: dict[str, Any]) -> str:
    """SHA-256 of the metadata's JSON values without their own `sha256` entry, in canonical JSON."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_metadata(folder: str | Path) -> BundleMetadata:
    """A bundle's metadata, its own hash and its entries checked. Raises BundleError with file, key and reason."""
    path = Path(folder) / METADATA_FILE
    try:
        content = parsed_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: can't be read as JSON: {shortened(error, 200)}") from error
    missing = [key for key in ("format", "weights", "sha256") if not isinstance(content, dict) or key not in content]
    if missing:
        raise BundleError(f"{path}: lacks {', '.join(missing)}")
    if content["format"] != FORMAT:
        raise BundleError(f"{path}: bundle format {shown(content['format'])}, this version reads {FORMAT}")
    if content["sha256"] != metadata_sha256(content):
        raise BundleError(f"{path}: was changed after the bundle was written (its SHA-256 doesn't match)")
    metadata = read_record(BundleMetadata, content, str(path), BundleError)
    if not metadata.weights:
        raise BundleError(f"{path}: names no file of weights")
    lacking = [name for name in metadata.outputs.thresholds if name not in metadata.thresholds]
    if lacking:
        segments = ", ".join(metadata.outputs.segments)
        raise BundleError(f"{path}: has {segments}, but lacks threshold {', '.join(lacking)}")
    return metadata


def checked_weights(folder: Path, metadata: BundleMetadata) -> list[Path]:
    """The bundle's weight files, each with the hash that the metadata says; that for rare nodules, if any, is the last.

    Raises BundleError.
    """
    paths = []
    for entry in (*metadata.weights, *([metadata.rare.weights] if metadata.rare else [])):
        name = Path(entry.file).name  # a name, never a path out of the bundle
        path = folder / name
        if not name or not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise BundleError(
                f"{folder / METADATA_FILE}: weights {shown(entry.file)}: missing; the bundle is incomplete"
            )
        if file_sha256(path) != entry.sha256:
            raise BundleError(f"{path}: corrupted or changed (its SHA-256 doesn't match the metadata)")
        paths.append(path)
    return paths
