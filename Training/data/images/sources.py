"""Public layouts of images with masks, as cases for `builder.build`: ISBI 2012, volumes (PROMISE12), pairs of files.

Every function looks for its files at once, and reads them when its cases are called.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..nodule import DatasetError
from .builder import Sample
from .pixels import as_mask, read_file, to_gray

VOLUME_ENDINGS = (".mhd", ".mha", ".nrrd", ".nii", ".nii.gz")
PICTURE_ENDINGS = (".png", ".tif", ".tiff")
# Percentiles of an MR volume's voxels between which its values are taken: they have no unit.
MR_PERCENTILES = (0.5, 99.5)

Cases = list[Callable[[], list[Sample]]]


def isbi2012(source: str | Path, folds: int = 5, foreground: str = "membrane") -> Cases:
    """ISBI 2012's EM challenge (Arganda-Carreras et al. 2015): 30 sections of one volume, membranes 0 and cells 255.

    Either `image/N.png` with `label/N.png`, or the challenge's `train-volume.tif` with `train-labels.tif`. foreground:
    `membrane`, as the challenge has it, or `cells`. Neighboring sections look alike, so a fold is a block of
    sections that follow each other (five blocks of six), which also counts as the "patient": validation takes whole
    blocks too. What leaks all the same: all blocks are of one animal and one imaging session, and the sections at the
    two ends of a block have a neighbor in the next one. Sections are 50 nm apart, pixels 4 nm; spacings are left open
    (a pixel counts as 1 mm). Raises DatasetError.
    """
    source = Path(source)
    if foreground not in ("membrane", "cells"):
        raise DatasetError(f"foreground is membrane or cells, got {foreground!r}")
    volumes = source / "train-volume.tif", source / "train-labels.tif"
    if all(path.is_file() for path in volumes):
        (images, _), (labels, _) = map(read_file, volumes)
        if images.shape != labels.shape:
            raise DatasetError(f"{volumes[1]}: {labels.shape} pixels, the images have {images.shape}")
        loaders = [partial(lambda n: (images[n], labels[n]), n) for n in range(len(images))]
    else:
        files = {int(p.stem): p for p in (source / "image").glob("*.png") if p.stem.isdigit()}
        if not files:
            raise DatasetError(
                f"{source}: there is neither image/N.png nor train-volume.tif with train-labels.tif in it"
            )
        pairs = [(path, _there(source / "label" / path.name)) for _, path in sorted(files.items())]
        loaders = [partial(lambda a, b: (read_file(a)[0][0], read_file(b)[0][0]), *pair) for pair in pairs]
    if len(loaders) < folds:
        raise DatasetError(f"{source}: {len(loaders)} sections can't be split into {folds} folds")

    def case(number: int, load: Callable[[], tuple[np.ndarray, np.ndarray]]) -> list[Sample]:
        image, label = load()
        cells, block = as_mask(label), number * folds // len(loaders)
        mask = cells if foreground == "cells" else ~cells
        name = f"isbi2012_{number:02d}"
        return [Sample(name, image, mask, "ISBI2012", foreground, "EM", f"isbi2012-block{block}", fold=block)]

    return [partial(case, number, load) for number, load in enumerate(loaders)]


def volumes(
    source: str | Path, suffix: str, dataset: str, organ: str, modality: str, window: tuple[float, float] | None = None
) -> Cases:
    """Every slice with foreground of volumes `NAME.ext` with `NAME<suffix>.ext`, at any depth below `source`.

    A volume is a patient. Values become 0 to 255 between the ends of `window`, or without it between the 0.5 and
    99.5 % percentiles of the volume (MR has no unit). PROMISE12 (Litjens et al. 2014) is `CaseXX.mhd` with
    `CaseXX_segmentation.mhd`. Raises DatasetError.
    """
    source, found = Path(source), []
    for path in sorted(source.rglob("*")):
        ending = next((end for end in sorted(VOLUME_ENDINGS, key=len)[::-1] if path.name.lower().endswith(end)), "")
        stem = path.name[: len(path.name) - len(ending)]
        if ending and not stem.endswith(suffix):
            found.append((stem, path, _there(path.with_name(f"{stem}{suffix}{path.name[len(stem) :]}"))))
    if not found:
        raise DatasetError(f"{source}: there is no volume NAME.mhd with NAME{suffix}.mhd in it (or .nrrd, .nii.gz)")

    def case(stem: str, path: Path, mask_path: Path) -> list[Sample]:
        (image, spacing), (mask, _) = read_file(path), read_file(mask_path)
        if image.shape != mask.shape:
            raise DatasetError(f"{mask_path}: {mask.shape} voxels, the volume has {image.shape}")
        mask = as_mask(mask)
        if not mask.any():
            raise DatasetError(f"{mask_path}: the mask is empty")
        ends = window or np.percentile(image, MR_PERCENTILES)
        return [
            Sample(f"{stem}_z{z:03d}", to_gray(image[z], *ends), mask[z], dataset, organ, modality, stem, spacing)
            for z in np.flatnonzero(mask.any((1, 2)))
        ]

    return [partial(case, *item) for item in found]


def pairs(
    source: str | Path,
    suffix: str = "_mask",
    *,
    dataset: str = "",
    organ: str = "",
    modality: dict[str, str] | str = "",
    patient: str = "",
    cosmos: bool = False,
) -> Cases:
    """Files `X.png` with `X<suffix>.png` (PNG or TIFF; colors become gray), at any depth below `source`.

    patient: regular expression whose first group, found in X, is the patient; without it every image is a patient of
    its own, which leaks where a patient has several: give one. cosmos: Cosmos55k's names, `dataset_organ_...`, say data
    set and organ; its patient is X without a last number if something else is left beyond data set and organ (slices
    of one volume), or else X. modality: a word, or {data set: word}. Raises DatasetError.
    """
    source, found = Path(source), []
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in PICTURE_ENDINGS and not path.stem.endswith(suffix):
            found.append((path, _there(path.with_name(f"{path.stem}{suffix}{path.suffix}"))))
    if not found:
        raise DatasetError(f"{source}: there is no X.png with X{suffix}.png in it")
    try:
        pattern = re.compile(patient) if patient else None
    except re.error as error:
        raise DatasetError(f"patient pattern {patient!r}: {error}") from None
    if pattern and not pattern.groups:
        raise DatasetError(f"patient pattern {patient!r}: it has no group in parentheses")

    def known(name: str) -> tuple[str, str, str, str]:
        """(data set, organ, modality, patient) of a file's name."""
        words = name.split("_")
        if cosmos and len(words) < 3:
            raise DatasetError(f"{name}: Cosmos55k's names are dataset_organ_...")
        named = dataset or (words[0] if cosmos else source.name)
        shown = organ or (words[1] if cosmos else "")
        kind = modality.get(named, "") if isinstance(modality, dict) else modality
        person = "_".join(words[:-1]) if cosmos and len(words) > 3 and words[-1].isdigit() else name
        if pattern:
            match = pattern.search(name)
            if not match:
                raise DatasetError(f"{name}: the patient pattern {patient!r} isn't in it")
            person = match.group(1)
        return named, shown, kind, person

    def case(path: Path, mask_path: Path) -> list[Sample]:
        image, mask = read_file(path)[0], read_file(mask_path)[0]
        if image.shape != mask.shape or len(image) > 1:
            raise DatasetError(
                f"{mask_path}: {mask.shape} pixels, the image has {image.shape}; one slice each is needed"
            )
        if image.dtype not in (np.uint8, np.uint16):
            raise DatasetError(f"{path}: {image.dtype} values; 8 or 16 bits without sign are needed")
        return [Sample(path.stem, image[0], as_mask(mask[0]), *known(path.stem))]

    return [partial(case, *pair) for pair in found]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file")
    return path
