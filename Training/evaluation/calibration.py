"""Thresholds and size calibration of a model, chosen on nodules that its weights weren't fitted to.

The threshold of Final maximizes the mean Dice with the consensus. The thresholds of HC and of the union, and the slope
with which the intersection is calibrated for the nodule's size (see LungNoduleUncertaintyLib.models.size_calibration),
maximize their Dice together, less a penalty where the interval [V(HC), V(HC and LC)] has too few of the reader volumes
inside or is wider than wanted: Dice alone says nothing about how often the interval holds.

`python -m Training calibrate` writes them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from LungNoduleKit.errors import NoduleError
from LungNoduleKit.files import write_record
from LungNoduleKit.geometry import Grid
from LungNoduleKit.records import read_record, read_record_file, record_dict
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.models.network_input import Averaging
from LungNoduleUncertaintyLib.models.outputs import calibration_problem
from LungNoduleUncertaintyLib.models.size_calibration import calibrated
from LungNoduleUncertaintyLib.outlining.masks import high_confidence, nested_masks
from LungNoduleUncertaintyLib.outlining.probability_maps import probability_maps

from ..config import ConfigError
from ..data.folder import load_folder
from ..data.nodule import Nodule
from ..metrics import dice
from ..runs import patients_of
from .models import run_model
from .nodules import center_point, nodule_image, on_cube
from .reader_agreement import Slices, add_cubes_argument, slices_of
from .score import compare
from .summary import Figures, summarize

CALIBRATION = "calibration.json"
GRID = np.round(np.arange(0.10, 0.91, 0.02), 2)  # thresholds that are tried
SLOPES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
START = {"union": 0.5, "intersection": 0.5, "final": 0.5}
_PENALTY = 5.0  # merit lost per unit of coverage missing, and per unit of width too much
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `calibrate` writes: thresholds and slopes, on which nodules they were chosen, and the figures on those."""

    thresholds: dict[str, float]
    size_calibration: dict[str, float] = field(default_factory=dict)
    averaging: Averaging
    slices: Slices
    calibrated_on: str
    runs: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    figures: Figures

    def problem(self) -> str:
        """What is wrong with the thresholds and slopes, or an empty text."""
        return calibration_problem(self.thresholds, self.size_calibration)


def calibration_path(runs: Sequence[Path]) -> Path | None:
    """Where the calibration of a run lies; None for several runs, which have no folder in common."""
    return runs[0] / CALIBRATION if len(runs) == 1 else None


def read_calibration(path: Path) -> Calibration:
    """What `calibrate` wrote. Raises ConfigError that names the file and the key."""
    return read_record_file(Calibration, path, ConfigError)


@dataclass
class NoduleMaps:
    """A nodule and a model's probability maps (z, y, x) on `region`, a part of its cube, not calibrated for its size.

    selected: (z, y, x) in [0, 1], which part of the maps is this nodule. diameter_mm: equivalent diameter of what the
    model found, which the size calibration goes by.
    """

    nodule: Nodule
    region: Grid
    maps: dict[str, np.ndarray]
    selected: np.ndarray
    diameter_mm: float

    def region_masks(self, thresholds: dict[str, float], slopes: dict[str, float] | None = None) -> Masks:
        """HC, LC and Final (z, y, x) on the region at these thresholds and slopes."""
        maps = calibrated(self.maps, self.diameter_mm, slopes)
        return nested_masks(maps, self.selected, thresholds, [], tuple(self.nodule.spacing))

    def masks(self, thresholds: dict[str, float], slopes: dict[str, float] | None = None) -> Masks:
        """HC, LC and Final (z, y, x) on the whole cube at these thresholds and slopes."""
        hc, lc, final = self.region_masks(thresholds, slopes)
        return self.on_cube(hc), self.on_cube(lc), self.on_cube(final)

    def on_cube(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the region on the whole cube."""
        return on_cube(mask, self.region, self.nodule)


def maps_of_nodules(
    model: Model, nodules: Sequence[Nodule], averaging: Averaging | None = None, progress: bool = True
) -> list[NoduleMaps]:
    """Averaged probability maps of every nodule in which the model finds something at the consensus centroid."""
    model = Model(model.networks, replace(model.metadata, size_calibration={}), model.device, model.folder)
    averaging = averaging or model.metadata.averaging
    out = []
    for nodule in tqdm(nodules, desc="probability maps", disable=not progress, leave=False):
        try:
            found = probability_maps(nodule_image(nodule), center_point(nodule), model, START, averaging)
        except NoduleError:
            continue
        out.append(NoduleMaps(nodule, found.region, found.maps, found.selected, found.diameter_mm))
    return out


def slopes_of(slope: float) -> dict[str, float]:
    """What a bundle's `size_calibration` has for a slope of the intersection.

    The union has none: on validation patients a slope improved it too, on test patients it made it worse
    (Resources/results/README.md).
    """
    return {"intersection": slope} if slope else {}


class _Candidates:
    """HC at every slope and threshold, and the union at every threshold, with the Final mask fixed: Dice and voxels.

    With Final fixed HC depends on the threshold of the intersection and the slope alone, and the union on its own
    threshold alone, so that each is made once.
    """

    def __init__(self, nodules: Sequence[NoduleMaps], final: float, progress: bool):
        self.volumes = [n.nodule.readers.sum((1, 2, 3)) for n in nodules]
        self.own = np.array([n.nodule.readers.any(0).sum() - n.nodule.readers.all(0).sum() for n in nodules])
        self.hc: dict[tuple[float, float], list[tuple[float, int]]] = {(s, t): [] for s in SLOPES for t in GRID}
        self.union: dict[float, list[tuple[float, int]]] = {t: [] for t in GRID}
        for nodule in tqdm(nodules, desc="thresholds", disable=not progress, leave=False):
            self._add(nodule, final)

    def _add(self, nodule: NoduleMaps, final: float) -> None:
        readers = nodule.nodule.readers
        sized = {s: calibrated(nodule.maps, nodule.diameter_mm, slopes_of(s))["intersection"] for s in SLOPES}
        for t in GRID:
            hc, lc, inner = nodule.region_masks({"final": final, "intersection": t, "union": t})
            outer = nodule.on_cube(hc | lc)
            self.union[t].append((dice(outer, readers.any(0)), outer.sum()))
            for slope, values in sized.items():
                hc = nodule.on_cube(high_confidence(values, inner, t, []))
                self.hc[slope, t].append((dice(hc, readers.all(0)), hc.sum()))

    def merit(self, slope: float, intersection: float, union: float, coverage: float, width: float) -> float:
        """Mean Dice of HC plus that of the union, less the penalty of an interval that isn't as wanted."""
        low, high = self.hc[slope, intersection], self.union[union]
        inside = [(lo[1] <= v) & (v <= hi[1]) for lo, hi, v in zip(low, high, self.volumes, strict=True)]
        covered = np.mean(np.concatenate(inside))
        ratio = np.median((np.array([x[1] for x in high]) - np.array([x[1] for x in low])) / np.maximum(self.own, 1))
        quality = np.mean([x[0] for x in low]) + np.mean([x[0] for x in high])
        return float(quality - _PENALTY * max(coverage - covered, 0) - _PENALTY * max(ratio - width, 0))


def calibrate(
    nodules: Sequence[NoduleMaps], coverage: float = 0.88, width: float = 1.15, progress: bool = True
) -> tuple[dict[str, float], dict[str, float], Figures]:
    """(thresholds, slopes, figures at them). The figures are of the calibration nodules themselves.

    coverage, width: the share of reader volumes that the interval should hold, and its greatest width over the readers'
    own. Raises `NoduleError` without nodules: a model that finds none of them can't be calibrated.
    """
    if not nodules:
        raise NoduleError("calibration: the model finds none of the validation nodules; train it longer")

    def final_dice(threshold: float) -> float:
        return float(np.mean([dice(n.masks({**START, "final": threshold})[2], n.nodule.consensus) for n in nodules]))

    final = max(GRID, key=final_dice)
    found = _Candidates(nodules, final, progress)
    triples = [(s, i, u) for s in SLOPES for i in GRID for u in GRID if u <= i + 0.2]
    slope, intersection, union = max(triples, key=lambda t: found.merit(t[0], t[1], t[2], coverage, width))
    thresholds = {"union": float(union), "intersection": float(intersection), "final": float(final)}
    slopes = slopes_of(slope)
    return thresholds, slopes, summarize([compare(n.nodule, *n.masks(thresholds, slopes)) for n in nodules])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `calibrate`."""
    parser.description = (
        "Choose the thresholds of HC, LC and Final and the slope for size on nodules with four readers that the "
        "networks weren't fitted to. The validation patients of one run are few; with the runs of other folds (--with) "
        "nearly all patients count."
    )
    parser.add_argument("run", type=Path, nargs="+", help="run folder; the networks of several runs are averaged")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="data folder (see prepare-lidc)")
    parser.add_argument(
        "--with",
        dest="others",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of other folds: their probability maps of patients that they weren't fitted to count too, but for "
        "the test patients of the calibrated run",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="(calibration.json in the run folder)")
    parser.add_argument(
        "--coverage", type=float, default=0.88, help="wanted share of reader volumes inside the interval (0.88)"
    )
    parser.add_argument(
        "--width", type=float, default=1.15, help="largest median width of the interval, times the readers' own (1.15)"
    )
    parser.add_argument(
        "--averaging",
        type=json.loads,
        default=None,
        metavar="JSON",
        help='test-time averaging, e.g. {"flips": [[], [1], [2], [1, 2]], "views": ["axial"]} (axes of z, y, x)',
    )
    add_cubes_argument(parser)


def run(args: argparse.Namespace) -> int:
    """The command `calibrate`; returns its exit status."""
    output = args.output or calibration_path(args.run)
    if output is None:
        raise ConfigError("calibrate: several runs have no calibration.json in common; say where with --output")
    nodules = [n for n in load_folder(args.data, native_slices=not args.cubes) if len(n.readers) == 4]
    averaging = read_record(Averaging, args.averaging or {}, "--averaging", ConfigError)
    maps: list[NoduleMaps] = []
    for runs, patients in _calibration_patients(args.run, args.others):
        maps += maps_of_nodules(run_model(*runs), [n for n in nodules if n.patient_id in patients], averaging)
    thresholds, slopes, figures = calibrate(maps, args.coverage, args.width)
    chosen_on = sorted({n.nodule.patient_id for n in maps})
    distinct = len({n.nodule.nodule_id for n in maps})
    found = Calibration(
        thresholds=thresholds,
        size_calibration=slopes,
        averaging=averaging,
        slices=slices_of(args),
        calibrated_on=f"{distinct} four-reader nodules of {len(chosen_on)} patients, unseen in training",
        runs=tuple(run.resolve().name for run in (*args.run, *args.others)),
        patients=tuple(chosen_on),
        figures=figures,
    )
    write_record(output, found)
    print(json.dumps({key: value for key, value in record_dict(found).items() if key != "patients"}, indent=2))
    return 0


def _calibration_patients(runs: list[Path], others: list[Path]) -> list[tuple[list[Path], set[str]]]:
    """Which runs' networks (averaged) are shown which patients, none of whom they were fitted to."""
    known = set().union(*(patients_of(run, "training", "validation") for run in runs))  # the others are its test
    validation = set.intersection(*(patients_of(run, "validation") for run in runs))
    return [(runs, validation), *(([other], known - patients_of(other, "training")) for other in others)]
