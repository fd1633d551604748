"""How good HC, LC and final are on nodules of patients that the model never saw, through the product's own path.

Every nodule is segmented by `LungNoduleUncertaintyLib` from its CT cube and a point, as a user would, and compared in
3D with its readers. The human rows compare one reader with the others by the same metrics.
"""

import csv
import hashlib
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.geometry import Grid
from LungNoduleUncertaintyLib import NoduleError, segment_nodule
from LungNoduleUncertaintyLib.measuring.measurements import equivalent_diameter_mm
from LungNoduleUncertaintyLib.models.bundle import Model

from ..data.nodule import DatasetError, Nodule
from ..metrics import dice, generalized_energy_distance


def nodule_image(nodule: Nodule):
    """The CT cube as a SimpleITK image at the origin (a cube's place in the scan doesn't matter here)."""
    image = sitk.GetImageFromArray(nodule.hu)
    image.SetSpacing(tuple(float(v) for v in nodule.spacing[::-1]))
    return image


def center_point(nodule: Nodule) -> tuple[float, float, float]:
    """The consensus centroid in the image's LPS mm."""
    return tuple(float(v) for v in (nodule.center() * nodule.spacing)[::-1])


@dataclass
class Score:
    """Figures of one nodule. Volumes in mm3; `error` says why there is no result (all Dice are then 0).

    Of a model that gives Final alone `hc`, `union` and the intervals are None, and `readers_inside` is empty.
    """

    nodule_id: str
    patient_id: str
    readers: int
    equivalent_diameter_mm: float
    final: float = 0.0
    hc: float | None = 0.0
    union: float | None = 0.0
    readers_inside: list = field(default_factory=list)
    interval_mm3: tuple | None = (0.0, 0.0)
    readers_interval_mm3: tuple = (0.0, 0.0)
    ged: float = 1.0
    jitter: float | None = None
    error: str = ""

    @property
    def width_ratio(self) -> float:
        """Width of [V(HC), V(union)] over the width of the readers' own [V(intersection), V(union)]."""
        own = self.readers_interval_mm3[1] - self.readers_interval_mm3[0]
        if self.interval_mm3 is None:
            return float("nan")
        return (self.interval_mm3[1] - self.interval_mm3[0]) / own if own else float("nan")


def place(mask_zyx, region, nodule: Nodule) -> np.ndarray:
    """A mask on `region` (a part of the cube's grid) as bool on the whole cube."""
    out = np.zeros(nodule.hu.shape, bool)
    start = np.round(np.array(region.origin)[::-1] / nodule.spacing).astype(int)
    out[tuple(slice(s, s + n) for s, n in zip(start, mask_zyx.shape, strict=True))] = mask_zyx > 0
    return out


def compare(nodule: Nodule, hc: np.ndarray | None, lc: np.ndarray | None, final: np.ndarray, samples=None) -> Score:
    """Score of masks (z, y, x) on the cube: final against >= 50 %, HC against all, HC and LC against any reader.

    HC and LC are None for a model that gives Final alone. `samples` are the masks whose generalised energy distance
    (squared, d = 1 - IoU, in 3D) to the readers is taken: those of HC, final and the union that there are, unless given
    (an ensemble's members).
    """
    voxel = float(np.prod(nodule.spacing))
    union = interval = None
    if hc is not None:
        union = hc | lc
        interval = (float(hc.sum() * voxel), float(union.sum() * voxel))
    samples = [m for m in (hc, final, union) if m is not None] if samples is None else samples
    volumes = nodule.readers.sum((1, 2, 3)) * voxel
    consensus = nodule.consensus
    own = (float(nodule.readers.all(0).sum() * voxel), float(nodule.readers.any(0).sum() * voxel))
    return Score(
        nodule.nodule_id,
        nodule.patient_id,
        len(nodule.readers),
        equivalent_diameter_mm(consensus.sum() * voxel),
        dice(final, consensus),
        None if hc is None else dice(hc, nodule.readers.all(0)),
        None if union is None else dice(union, nodule.readers.any(0)),
        [] if interval is None else [bool(interval[0] <= v <= interval[1]) for v in volumes],
        interval,
        own,
        generalized_energy_distance(np.stack(samples), nodule.readers),
    )


def remembering(model):
    """The same model with networks that remember their answers: jittered points mostly end in the same cube, and
    computing it once gives the same figures.
    """
    import torch

    class Remembering(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.known = network, {}

        def forward(self, x):
            key = hashlib.sha256(x.cpu().numpy().tobytes()).digest()
            if key not in self.known:
                self.known[key] = self.network(x)
            return self.known[key]

    return Model([Remembering(n) for n in model.networks], model.metadata, model.device, model.folder)


def evaluate_nodule(nodule: Nodule, model, jitter: int = 0, averaging=None, thresholds=None, seed: int = 0) -> Score:
    """Segment from the consensus centroid and compare; `jitter` more points (uniform +-1.5 mm an axis) give the mean
    Dice of their final masks with each other.
    """
    image = nodule_image(nodule)
    model = remembering(model) if jitter else model

    def masks(point):
        result = segment_nodule(image, point, model=model, averaging=averaging, thresholds=thresholds)
        region = Grid.of(result.final)
        return [
            None if m is None else place(sitk.GetArrayFromImage(m), region, nodule)
            for m in (result.hc, result.lc, result.final)
        ]

    center = center_point(nodule)
    try:
        score = compare(nodule, *masks(center))
    except NoduleError as error:
        empty = np.zeros(nodule.hu.shape, bool)
        alone = not model.outputs.has_interval
        score = compare(nodule, None if alone else empty, None if alone else empty, empty)
        score.error = str(error)
    if jitter:
        # The point's own random numbers, so that a nodule's figure doesn't depend on the others evaluated with it.
        rng = np.random.default_rng([seed, *nodule.nodule_id.encode()])
        finals = []
        for offset in rng.uniform(-1.5, 1.5, (jitter, 3)):
            try:
                finals.append(masks(tuple(np.array(center) + offset))[2])
            except NoduleError:
                finals.append(np.zeros(nodule.hu.shape, bool))
        pairs = [dice(a, b) if a.any() or b.any() else 0.0 for i, a in enumerate(finals) for b in finals[i + 1 :]]
        score.jitter = float(np.mean(pairs))
    return score


def evaluate_ensemble(nodule: Nodule, models: list) -> Score:
    """The usual way to an uncertainty: several networks' own finals, of which all, the majority and any give HC, final
    and the union. A member that finds nothing has an empty mask; `error` counts them.
    """
    image, point, finals, silent = nodule_image(nodule), center_point(nodule), [], 0
    for model in models:
        try:
            result = segment_nodule(image, point, model=model)
            finals.append(place(sitk.GetArrayFromImage(result.final), Grid.of(result.final), nodule))
        except NoduleError:
            finals.append(np.zeros(nodule.hu.shape, bool))
            silent += 1
    finals = np.stack(finals)
    hc, union = finals.all(0), finals.any(0)
    score = compare(nodule, hc, union & ~hc, 2 * finals.sum(0) >= len(finals), finals)
    score.error = f"{silent} of {len(models)} members find nothing" if silent else ""
    return score


def human_scores(nodules: list[Nodule]) -> dict[str, float]:
    """One reader against the majority of the others (Dice), and how often a reader's volume lies inside the others'
    [V(intersection), V(union)]; each nodule counts once. Nodules with two readers are compared with the other reader.
    """
    if not nodules:
        return {"nodules": 0}
    agreement, inside = [], []
    for nodule in nodules:
        per_reader, covered = [], []
        for index in range(len(nodule.readers)):
            others = np.delete(nodule.readers, index, 0)
            reader = nodule.readers[index]
            per_reader.append(dice(reader, 2 * others.sum(0) >= len(others)))
            covered.append(others.all(0).sum() <= reader.sum() <= others.any(0).sum())
        agreement.append(np.mean(per_reader))
        inside.append(np.mean(covered))
    return {"final": float(np.mean(agreement)), "coverage": float(np.mean(inside)), "nodules": len(nodules)}


def summarize(scores: list[Score]) -> dict:
    """Means over nodules; `coverage` counts reader volumes, `width_ratio` is a median, `failures` Dice < 0.3.

    Figures of HC, the union and intervals are left out where a model gives Final alone.
    """
    if not scores:
        return {"nodules": 0, "patients": 0}

    def mean(values):
        return float(np.mean(values))

    inside = [x for s in scores for x in s.readers_inside]
    has_interval = all(s.interval_mm3 is not None for s in scores)
    keys = ("final", "hc", "union") if has_interval else ("final",)
    of_intervals = {}
    if has_interval:
        widths = [s.width_ratio for s in scores]
        of_intervals = {"coverage": mean(inside), "width_ratio": float(np.nanmedian(widths))}
    out = {
        "nodules": len(scores),
        "patients": len({s.patient_id for s in scores}),
        **{key: mean([getattr(s, key) for s in scores]) for key in keys},
        **{f"{key}_sd": float(np.std([getattr(s, key) for s in scores])) for key in keys},
        **of_intervals,
        "ged": mean([s.ged for s in scores]),
        "failures": mean([s.final < 0.3 for s in scores]),
        "errors": sum(bool(s.error) for s in scores),
    }
    jitter = [s.jitter for s in scores if s.jitter is not None]
    return {**out, "jitter": mean(jitter)} if jitter else out


def summary_table(scores: list[Score], nodules: list[Nodule]) -> dict:
    """`four` (four readers), `all`, and the human rows of the same nodules."""
    four = [n for n in nodules if len(n.readers) == 4]
    return {
        "four": summarize([s for s in scores if s.readers == 4]),
        "all": summarize(scores),
        "human_four": human_scores(four),
        "human_all": human_scores(nodules),
    }


def write_csv(scores: list[Score], path) -> None:
    """One row a nodule; what a model doesn't give is an empty cell."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = [{**asdict(s), "width_ratio": s.width_ratio} for s in scores]
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            for key in ("readers_inside", "interval_mm3", "readers_interval_mm3"):
                row[key] = " ".join(f"{float(v):g}" for v in row[key] or ())
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def read_csv(path) -> list[Score]:
    """What `write_csv` wrote (to four decimals). Raises `DatasetError` for a file that isn't such a table."""

    def numbers(text: str) -> list[float]:
        return [float(value) for value in text.split()]

    def score(row: dict) -> Score:
        given = {f.name: row[f.name] for f in fields(Score)}
        for key in ("equivalent_diameter_mm", "final", "hc", "union", "ged", "jitter"):
            given[key] = float(given[key]) if given[key] else None
        given["readers"] = int(given["readers"])
        given["readers_inside"] = [bool(value) for value in numbers(given["readers_inside"])]
        given["interval_mm3"] = tuple(numbers(given["interval_mm3"])) or None
        given["readers_interval_mm3"] = tuple(numbers(given["readers_interval_mm3"]))
        return Score(**given)

    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return [score(row) for row in csv.DictReader(stream)]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: isn't an evaluation's table ({error!r})") from error
