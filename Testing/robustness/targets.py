"""The product's public ways in, each called on one input: what they returned, as figures that can be compared."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from judge import Figures, measure, measure_mask
from LungNoduleKit.errors import NoduleError
from LungNoduleKit.images import check_ct, read_ct
from LungNoduleKit.records import record_dict
from LungNoduleKit.segmentation_file import read_segmentation
from seeds import SMALL, Ball

try:
    from LungNoduleKit.masks import read_mask, read_masks
except ImportError:
    from LungNoduleKit.images import read_mask, read_masks

Target = Callable[[Path, list[str]], Figures]


def _warned(function: Callable[..., Any], *arguments: Any, notes: list[str]) -> Any:
    """A call that hands its warnings to `notes`, where the function has a way to say any."""
    return (
        function(*arguments, warn=notes.append)
        if "warn" in inspect.signature(function).parameters
        else function(*arguments)
    )


def _lattice(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return matrix, np.array(image.GetOrigin())


def ct(path: Path, notes: list[str], ball: Ball = SMALL) -> Figures:
    """A CT, read and checked as `segment` does."""
    image = _warned(read_ct, path, notes=notes)
    notes += check_ct(image, str(path))
    return measure(sitk.GetArrayViewFromImage(image), *_lattice(image), ball.center)


def _mask_figures(mask: sitk.Image, ball: Ball) -> Figures:
    return measure_mask(sitk.GetArrayViewFromImage(mask) > 0, *_lattice(mask), ball.center)


def mask(path: Path, notes: list[str], ball: Ball = SMALL) -> Figures:
    """One mask, the union of a segmentation's segments."""
    return _mask_figures(_warned(read_mask, path, notes=notes), ball)


def masks(path: Path, notes: list[str], ball: Ball = SMALL) -> Figures:
    """Every mask of a file. A changed name is no other figure."""
    found = _warned(read_masks, path, notes=notes).values()
    return {f"segment {n}": _mask_figures(one, ball) for n, one in enumerate(found, 1)}


def segmentation(path: Path, notes: list[str], ball: Ball = SMALL) -> Figures:
    """Every segment of a segmentation."""
    found = _warned(read_segmentation, path, notes=notes).values()
    return {f"segment {n}": _mask_figures(one, ball) for n, one in enumerate(found, 1)}


def command_line(path: Path, notes: list[str], ball: Ball) -> Figures:
    """The command `segment` with the shipped model; what it prints must be one line, the report is measured."""
    from LungNoduleUncertaintyLib.__main__ import main

    out, report = path.parent / "out.seg.nrrd", path.parent / "report.json"
    point = [f"{v:.3f}" for v in ball.center]
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        status = main(
            [
                "segment",
                str(path),
                "--point",
                *point,
                "--output",
                str(out),
                "--report",
                str(report),
                "--device",
                "cpu",
                "--quiet",
            ]
        )
    said = [line for line in error.getvalue().splitlines() if line.strip()]
    if status == 1:
        refusals = [line for line in said if line.startswith("error: ")]
        if len(refusals) != 1 or out.exists() or report.exists():
            raise AssertionError(f"a refusal is one line and leaves nothing behind, not {said!r}")
        raise NoduleError(refusals[0].removeprefix("error: "))
    if status:
        raise AssertionError(f"exit status {status}: {said!r}")
    written = json.loads(report.read_text(encoding="utf-8"))
    notes += written["warnings"] or said
    figures = written["measurements"]
    final = read_segmentation(out)["Final"]
    found = _mask_figures(final, ball)
    return {
        "volume_mm3": float(figures["volumes_mm3"]["final"]),
        "axis_mm": float(figures["mean_axis_mm"]["final"]),
        **{key: value for key, value in found.items() if key.startswith("at_")},
    }


def config(path: Path, notes: list[str]) -> Figures:
    """A training configuration, and the network that it describes."""
    from Training.config import load_config
    from Training.runs import build_network

    found = load_config(path)
    build_network(found)
    return record_dict(found)


def definition(path: Path, notes: list[str]) -> Figures:
    """An experiment's definition."""
    from Training.experiments.definition import load

    found = load(path, "tiny")
    return {"title": found.title, "rows": [row.key for row in found.rows]}


def _record(reader: str, of_folder: bool) -> Target:
    module, name = reader.rsplit(".", 1)

    def read(path: Path, notes: list[str]) -> Figures:
        from importlib import import_module

        found = getattr(import_module(module), name)(path.parent if of_folder else path)
        return record_dict(found[0] if isinstance(found, tuple) else found)

    return read


#: JSON files by their name: what reads them.
RECORDS: dict[str, Target] = {
    "config.json": _record("Training.runs.load_run", True),
    "split.json": _record("Training.runs.read_split", True),
    "conditions.json": _record("Training.runs.read_conditions", True),
    "job.json": _record("Training.experiments.jobs.read_job", True),
    "manifest.json": _record("Training.experiments.jobs.read_manifest", True),
    "experiment.json": _record("Training.experiments.outcome.read_outcome", False),
    "evaluation.json": _record("Training.evaluation.summary.read_evaluation", False),
    "calibration.json": _record("Training.evaluation.calibration.read_calibration", False),
}


def record(path: Path, notes: list[str]) -> Figures:
    """A JSON file that training or evaluation wrote."""
    return RECORDS[path.name](path, notes)


def store(path: Path, notes: list[str]) -> Figures:
    """The results of an experiment as the report reads them: its rows' jobs, their manifests and tables."""
    from Training.report.store import JobStore

    found = JobStore(path)
    jobs: Figures = {}
    for experiment in found.experiments():
        for row in experiment["rows"]:
            for fold, job in found.row_jobs(row).items():
                found.manifest(job)
                columns = {name: values.tolist() for name, values in found.scores(job).items()}
                jobs[f"{row.get('key')} {fold}"] = {"job": job, "columns": columns}
    return jobs


def nodules(path: Path, notes: list[str]) -> Figures:
    """A data folder of nodule cubes with their readers."""
    from Training.data.folder import load_folder

    found: Figures = {}
    for nodule in load_folder(path, progress=False):
        voxel = float(np.prod(nodule.spacing))
        volumes = {f"reader {n} mm3": float(mask.sum() * voxel) for n, mask in enumerate(nodule.readers, 1)}
        inside = nodule.hu[nodule.consensus]
        name = nodule.nodule_id if nodule.nodule_id not in found else f"{nodule.nodule_id} again"
        found[name] = {
            "patient": nodule.patient_id,
            "fold": nodule.fold,
            "hu": float(np.median(inside)) if inside.size else "nothing",
            **volumes,
        }
    return found


def images_table(path: Path, notes: list[str]) -> Figures:
    """The table of a folder of single images."""
    from Training.data.images.manifest import read_manifest

    return {row["image_id"]: {k: v for k, v in row.items() if v not in (None, "")} for row in read_manifest(path)}


def labeler_cases(path: Path, notes: list[str]) -> Figures:
    """The cases of a folder that SoftMaskLabeler builds a data set of."""
    from SoftMaskLabelerLib.dataset.sources import folder_cases

    return {case.name: {"patient": case.patient, "ct": case.ct.name, "z": case.z} for case in folder_cases(path)}


def decisions(path: Path, notes: list[str]) -> Figures:
    """The manifest of a data set of soft masks with its reviewer's decisions."""
    from SoftMaskLabelerLib.dataset.manifest import apply_decisions

    return dict(apply_decisions(path)[1])


def lesions(path: Path, notes: list[str]) -> Figures:
    """DeepLesion's table."""
    from SoftMaskLabelerLib.dataset.deeplesion import read_table

    return {
        lesion.name: {"patient": lesion.patient, "points": repr(lesion.points)}
        for lesion in _warned(read_table, path, notes=notes)
    }


def bundle(path: Path, notes: list[str]) -> Figures:
    """A model bundle, loaded, imported into a user's folder, and used on a small CT."""
    from LungNoduleUncertaintyLib.models.bundle import load_model
    from LungNoduleUncertaintyLib.models.store import summary
    from LungNoduleUncertaintyLib.outlining.segmentation import segment_nodule

    summary(path)
    model = load_model(path, "cpu")
    image = sitk.GetImageFromArray(SMALL.hu())
    image.SetSpacing(SMALL.spacing)
    image.SetOrigin(SMALL.origin)
    result = segment_nodule(image, tuple(SMALL.center), model=model)
    notes += result.warnings
    return {"volume_mm3": float(result.measurements["volumes_mm3"]["final"])}
