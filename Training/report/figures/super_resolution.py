"""Super-resolution beside bicubic interpolation: a picture of some test slices, and PSNR and SSIM of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..store import Columns, Experiment, Record, Store
from . import style
from .drawn import Drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    ("low", "a quarter of the resolution"),
    ("bicubic", "bicubic"),
    ("made", "super-resolution"),
    ("truth", "CT"),
)
MEASURES = (("psnr", "psnr_db"), ("ssim", "ssim"))


def super_resolution(experiment: Experiment, jobs: Store) -> list[Drawn]:
    """One `Drawn` with the first finished row's slices; its table has every row's figures, none without a job."""
    finished = [(row, jobs.row_jobs(row)) for row in experiment["rows"]]
    finished = [(row, by_fold) for row, by_fold in finished if by_fold]
    if not finished:
        return []
    table = [_figures(row["label"], [jobs.scores(job) for job in by_fold.values()]) for row, by_fold in finished]
    row, by_fold = finished[0]
    fold, job = next(iter(by_fold.items()))
    images, manifest = jobs.predictions(job), jobs.manifest(job)
    low, high = manifest["config"]["input"]["window_hu"]
    caption = (
        f"Slices of test fold {fold}, none of whose patients {row['label']} was trained on: the first "
        f"{len(images['nodule_id'])} of the fold. Each was reduced to a quarter of its resolution (bicubic, "
        f"antialiased) and enlarged again. CT window {low:g} to {high:g} HU. PSNR and SSIM of the table are on the "
        f"central slice of every test nodule, in that window; gains are paired, with 95 % intervals over 1000 "
        f"resamples of the patients. "
        f"Parameters: {manifest['parameters']:,}; {manifest['config']['training']['epochs']} epochs."
    )
    title = "Super-resolution by four beside bicubic interpolation"
    return [Drawn("slices", title, caption, _draw(images), {"table": table})]


def _figures(label: str, scores: Sequence[Columns]) -> Record:
    """Means of one row over the nodules of all its folds, and the gain over bicubic with its interval."""
    patients = np.concatenate([s["patient_id"] for s in scores])
    _, of = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(of.max() + 1, np.full(of.max() + 1, 1 / (of.max() + 1)), size=1000)[
        :, of
    ]
    out = {"row": label, "nodules": len(patients), "patients": int(of.max()) + 1}
    for key, name in MEASURES:
        ours = np.concatenate([np.asarray(s[key], float) for s in scores])
        plain = np.concatenate([np.asarray(s[f"{key}_bicubic"], float) for s in scores])
        gains = drawn @ (ours - plain) / drawn.sum(1)
        out |= {name: round(float(ours.mean()), 3), f"{name}_bicubic": round(float(plain.mean()), 3)}
        out[f"{name}_gain_95"] = [round(float(v), 4) for v in np.quantile(gains, (0.025, 0.975))]
    return out


def _draw(images: dict[str, np.ndarray]) -> "Figure":
    figure, axes, _ = style.panel_grid(len(images["nodule_id"]), len(COLUMNS), top=0.4)
    for row, line in enumerate(axes):
        name = str(images["nodule_id"][row]).removeprefix("LIDC-IDRI-")
        for panel, (key, title) in zip(line, COLUMNS, strict=True):
            panel.imshow(images[key][row].astype(float), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_axis_off()
            if row == 0:
                panel.set_title(title, fontsize=10, color=style.TEXT)
        line[0].text(-0.04, 0.5, name, transform=line[0].transAxes, ha="right", va="center", color=style.TEXT)
    return figure
