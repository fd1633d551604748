"""A data set of soft masks from many cases, laid out like DSNet's LNSM: 64 x 64 crops of image, soft mask and mask.

    FOLDER/dataset.json       the settings; a later run must have the same
    FOLDER/manifest.csv       a row a case, with status, notes and the reviewer's decision (accept, reject or empty)
    FOLDER/image/CASE.png     16 bits: HU + 32768, as in DeepLesion
    FOLDER/soft/CASE.png      16 bits: alpha * 65535
    FOLDER/trimap/CASE.png    8 bits: 0 background, 128 unknown, 255 lesion
    FOLDER/binary/CASE.png    8 bits: 255 where alpha >= 0.5
    FOLDER/contact-sheets/    pages to look through

Trimap and matting see the whole slice; only the result is cropped.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.files import image_writer, read_image, write_all

from ..errors import OutputError, SoftMaskError
from ..pipeline import BINARY_FROM, Parameters, soft_mask_array, windowed
from ..trimap.morphology import bounding_box
from .contact_sheet import Tile, contact_sheet, write_png
from .manifest import Manifest
from .parallel import run_many
from .sources import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .sources import SourceCase

LAYERS = ("image", "soft", "trimap", "binary")
SHEETS = "contact-sheets"
_HU_OFFSET = 32768
# How often the manifest is brought up to date; a killed run repeats at most what this long took.
_SECONDS_BETWEEN_WRITES = 2.0


@dataclass(frozen=True)
class Settings:
    """What makes a case's files what they are; kept in `dataset.json`."""

    strategy: str = "readers"
    """mask (one reader's), readers (all) or recist"""
    size: int = 64
    """Side of the crops in pixels"""
    reader: int = 1
    """Whose mask, for the strategy mask"""
    own_window: bool = False
    """Whether an image's own window (DeepLesion's DICOM_windows) takes the place of `parameters.window`"""
    parameters: Parameters = field(default_factory=Parameters)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"a strategy is one of {', '.join(STRATEGIES)}, not {self.strategy!r}")
        if self.parameters.dimension != 2:
            raise ValueError("a data set's cases are slices: dimension is 2")
        for name in ("size", "reader"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is a whole number from 1, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Summary:
    """What a run of `build` did."""

    done: int
    failed: int
    skipped: int
    """Cases that were done before"""
    seconds: float
    """Of the cases alone, without contact sheets"""
    pages: int


def build(
    cases: Sequence[SourceCase],
    output: str | Path,
    settings: Settings | None = None,
    *,
    jobs: int = 1,
    per_page: int = 20,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Builds or continues the data set in the folder `output`; cases that are done already are skipped.

    A case that fails is recorded with the reason and tried again by the next run. `jobs` processes work on the cases
    (start them from a script guarded by `if __name__ == "__main__"`); `progress(done, total)` follows. Raises
    `OutputError` if the folder can't be written or holds a data set with other settings.
    """
    settings = settings or Settings()
    output = Path(output)
    _prepare(output, settings)
    manifest = Manifest(output)
    order = {case.name: number for number, case in enumerate(cases)}
    left = [case for case in cases if not _is_done(manifest.rows.get(case.name), output, case.name)]
    if left:  # sheets of before don't show the cases to come, which would go unnoticed if this run were stopped
        _remove_sheets(output, 0)
    begun = last = time.monotonic()
    failed = 0
    try:
        for count, (case, row) in enumerate(_results(left, output, settings, jobs), 1):
            failed += row["status"] != "ok"
            manifest.put({"case": case.name, **row})
            if progress:
                progress(count, len(left))
            if time.monotonic() - last > _SECONDS_BETWEEN_WRITES:
                manifest.write(order)
                last = time.monotonic()
    finally:
        manifest.write(order)
    seconds = time.monotonic() - begun
    pages = write_sheets(output, manifest, order, jobs, per_page, anew=bool(left))
    return Summary(len(left) - failed, failed, len(cases) - len(left), seconds, pages)


def make_case(case: SourceCase, output: Path, settings: Settings) -> dict[str, Any]:
    """Makes one case's files and returns its row of the manifest; whatever goes wrong is in the row, never raised."""
    row: dict[str, Any] = {"patient": case.patient, "source": case.source, "strategy": settings.strategy}
    try:
        return {**row, "status": "ok", **_make(case, output, settings)}
    except SoftMaskError as error:
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return {**row, "status": "failed", "notes": " ".join(reason.split())}


def write_sheets(
    output: Path, manifest: Manifest, order: dict[str, int], jobs: int, per_page: int, *, anew: bool
) -> int:
    """Writes the contact sheets, and into the manifest on which page a case is; returns the number of pages."""
    names = sorted(
        (n for n, row in manifest.rows.items() if row.get("status") == "ok"), key=lambda n: order.get(n, len(order))
    )
    pages = [names[first : first + per_page] for first in range(0, len(names), per_page)]
    work = []
    for number, page in enumerate(pages, 1):
        for tile, name in enumerate(page, 1):
            manifest.put({"case": name, "page": number, "tile": tile})
        title = f"page {number} of {len(pages)}   image | outline of alpha >= 0.5 | trimap | soft mask"
        path = output / SHEETS / f"page-{number:03d}.png"
        if anew or not path.exists():
            work.append((path, title, [dict(manifest.rows[name]) for name in page]))
    manifest.write(order)
    for _ in run_many(partial(_write_sheet, output), work, jobs if len(work) > 4 * jobs else 1):
        pass
    _remove_sheets(output, len(pages))
    return len(pages)


def _remove_sheets(output: Path, kept: int) -> None:
    """Deletes the contact sheets after so many."""
    for path in (output / SHEETS).glob("page-*.png"):
        if path.stem[5:].isdigit() and int(path.stem[5:]) > kept:
            path.unlink(missing_ok=True)


def read_case(output: str | Path, name: str) -> dict[str, np.ndarray]:
    """A case's four layers as they are meant: image in HU, soft in [0, 1], trimap 0/128/255, binary bool."""
    raw = {layer: sitk.GetArrayFromImage(read_image(_layer(Path(output), layer, name))) for layer in LAYERS}
    return {
        "image": raw["image"].astype(np.int32) - _HU_OFFSET,
        "soft": raw["soft"].astype(np.float32) / np.float32(65535),
        "trimap": raw["trimap"],
        "binary": raw["binary"] > 0,
    }


def _results(
    cases: list[SourceCase], output: Path, settings: Settings, jobs: int
) -> Iterator[tuple[SourceCase, dict[str, Any]]]:
    for case, row in run_many(partial(make_case, output=output, settings=settings), cases, jobs):
        died = {"patient": case.patient, "source": case.source, "strategy": settings.strategy, "status": "failed"}
        yield case, row or {**died, "notes": "its process died (out of memory, or a crash)"}


def _make(case: SourceCase, output: Path, settings: Settings) -> dict[str, Any]:
    """Files of a case; returns what the manifest says of a case that is done."""
    loaded = case.load(settings.strategy, settings.reader)
    parameters, notes = settings.parameters, list(loaded.notes)
    if settings.own_window and loaded.window:
        parameters = replace(parameters, window=loaded.window)
    alpha, trimap = soft_mask_array(
        loaded.image,
        loaded.spacing,
        masks=loaded.masks,
        recist=loaded.points,
        parameters=parameters,
        notes=notes,
    )
    binary = alpha >= BINARY_FROM
    corner = crop_corner(trimap, settings.size)
    layers = {
        "image": (np.asarray(loaded.image, np.float64).round() + _HU_OFFSET).clip(0, 65535).astype(np.uint16),
        "soft": (alpha * 65535).round().astype(np.uint16),
        "trimap": trimap,
        "binary": binary.astype(np.uint8) * 255,
    }
    crops = {layer: crop(array, corner, settings.size, layer == "image") for layer, array in layers.items()}
    if np.count_nonzero(crops["trimap"]) < np.count_nonzero(trimap):
        notes.append(f"the lesion and its band are larger than the crop of {settings.size} pixels")
    write_all([(_layer(output, layer, case.name), _png_writer(array)) for layer, array in crops.items()])
    pixel = math.prod(loaded.spacing)
    return {
        "slice": loaded.slice,
        "first_row": corner[0],
        "first_column": corner[1],
        "spacing_mm": " ".join(f"{step:.6g}" for step in loaded.spacing),
        "window_hu": " ".join(f"{end:g}" for end in parameters.window),
        "area_mm2": float(binary.sum() * pixel),
        "soft_area_mm2": float(alpha.sum(dtype=np.float64) * pixel),
        "unknown_pixels": int((trimap == 128).sum()),
        "notes": "; ".join(notes),
    }


def crop_corner(trimap: np.ndarray, size: int) -> tuple[int, int]:
    """First row and column of a crop around what isn't background; inside the slice wherever that is large enough."""
    corner = []
    for part, length in zip(bounding_box(trimap > 0, (0, 0)), trimap.shape, strict=True):
        first = (part.start + part.stop - size) // 2
        corner.append(max(0, min(first, length - size)) if length >= size else (length - size) // 2)
    return corner[0], corner[1]


def crop(array: np.ndarray, corner: tuple[int, int], size: int, repeat_edge: bool) -> np.ndarray:
    """`size` x `size` pixels from `corner` on; beyond the array its edge values, or 0."""
    before = [max(0, -first) for first in corner]
    after = [max(0, first + size - length) for first, length in zip(corner, array.shape, strict=True)]
    padded = np.pad(array, list(zip(before, after, strict=True)), mode="edge" if repeat_edge else "constant")
    first = [start + extra for start, extra in zip(corner, before, strict=True)]
    return padded[first[0] : first[0] + size, first[1] : first[1] + size]


def _write_sheet(output: Path, work: tuple[Path, str, list[dict[str, str]]]) -> None:
    path, title, rows = work
    tiles = []
    for row in rows:
        layers = read_case(output, row["case"])
        low, high = (float(end) for end in row["window_hu"].split())
        label = f"{row['tile']}: {row['case']}  {float(row['area_mm2']):.0f} mm2" + (
            "  (see notes)" * bool(row["notes"])
        )
        gray = windowed(layers["image"], (low, high))
        tiles.append(Tile(gray, layers["trimap"], layers["soft"], label, bool(row["notes"])))
    write_all([(path, lambda target: write_png(target, contact_sheet(tiles, title)))])


def _png_writer(array: np.ndarray) -> Callable[[Path], None]:
    return image_writer(sitk.GetImageFromArray(array), compression=1)


def _layer(output: Path, layer: str, name: str) -> Path:
    return output / layer / f"{name}.png"


def _is_done(row: dict[str, str] | None, output: Path, name: str) -> bool:
    return (
        row is not None and row.get("status") == "ok" and all(_layer(output, layer, name).is_file() for layer in LAYERS)
    )


def _prepare(output: Path, settings: Settings) -> None:
    """Makes the folders, and the settings' file unless it is there and says the same."""
    wanted = json.loads(json.dumps(asdict(settings)))
    try:
        for name in (*LAYERS, SHEETS):
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: its folders can't be made ({error.strerror})") from error
    path = output / "dataset.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            raise OutputError(f"{path}: it isn't a data set's settings; choose another folder") from None
        if there != wanted:
            told = {**there, **there.get("parameters", {})}, {**wanted, **wanted["parameters"]}
            differ = [key for key in told[1] if key != "parameters" and told[0].get(key) != told[1][key]]
            raise OutputError(
                f"{output}: its data set was built with another {', '.join(differ)}; choose another folder"
            )
        return
    text = json.dumps({"format": 1, "settings": wanted, "layers": list(LAYERS)}, indent=2) + "\n"
    write_all([(path, lambda target: target.write_text(text, encoding="utf-8"))])
