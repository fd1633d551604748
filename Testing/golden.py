"""The golden set: what the shipped models and both command lines compute, so that no change of a figure goes unseen.

    python Testing/golden.py write before.json --data FOLDER      before a change that must not change figures
    python Testing/golden.py compare before.json --data FOLDER    after it: 0 the same, 1 a line a difference

Arrays are kept as SHA-256 of type, shape and bytes, images with their geometry, measurements with all their digits.
Only public interfaces and command lines are used, so that the same tool runs on the code before and after. Comparing
computes everything anew, to the last bit: use the same machine and the same package versions (the file says which).
Not compared, because they may change without changing a result: colors, pictures, provenance texts, times. A warning
in other words and other versions are told as notes, which are no difference. The whole takes about four minutes.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

Found = Iterator[tuple[str, Any]]  # (name, figures and hashes) of one result after the other
# Bundle -> nodule -> (the scan's slice spacing in mm, how the CT is given): solid, part-solid and ground glass, 5 to
# 25 mm, of many slice spacings.
NODULES: dict[str, dict[str, tuple[float, str]]] = {
    "ugsnet-compact": {
        "LIDC-IDRI-0651-1-3": (0.45, "cube"),
        "LIDC-IDRI-0639-1-1": (0.625, "cube"),
        "LIDC-IDRI-0543-1-2": (0.75, "cube oblique"),
        "LIDC-IDRI-0141-1-1": (1.0, "cube"),
        "LIDC-IDRI-0192-1-3": (1.25, "cube thick"),
        "LIDC-IDRI-0973-1-2": (1.8, "cube thick"),
        "LIDC-IDRI-0120-2-3": (2.0, "cube thick"),
        "LIDC-IDRI-0023-1-1": (2.5, "cube thick oblique thick-oblique"),
        "LIDC-IDRI-0961-1-1": (3.0, "cube thick"),
        "LIDC-IDRI-0706-1-1": (5.0, "cube thick"),
    },
    "dsnet-compact": {
        "LIDC-IDRI-0651-1-3": (0.45, "cube"),
        "LIDC-IDRI-0192-1-3": (1.25, "thick"),
        "LIDC-IDRI-0023-1-1": (2.5, "cube"),
    },
}
SOFT_NODULES = [f"LIDC-IDRI-{name}" for name in ("0651-1-3", "0543-1-2", "0120-2-3", "0023-1-1", "0706-1-1")]
DICOM_NODULE = "LIDC-IDRI-0023-1-1"
IMAGES = ("hc", "lc", "final", "probability_union", "probability_intersection", "probability_final")


def of_array(array: np.ndarray) -> dict[str, Any]:
    """Hash of an array's type, shape and bytes in C order; the sum tells how far two arrays are apart."""
    what = f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    return {"sha256": hashlib.sha256(what).hexdigest(), "dtype": str(array.dtype), "sum": float(array.sum(dtype=float))}


def of_image(image: sitk.Image | None) -> dict[str, Any] | None:
    """An image's array, and its geometry in mm, LPS."""
    if image is None:
        return None
    geometry = {key: list(getattr(image, f"Get{key.title()}")()) for key in ("size", "spacing", "origin", "direction")}
    return {**of_array(sitk.GetArrayFromImage(image)), **geometry}


def of_text(value: Any) -> str:
    """Hash of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_figures(value: Any) -> Any:
    """Figures as they are, and long lists (curves) as a hash."""
    if isinstance(value, dict):
        return {str(key): of_figures(entry) for key, entry in value.items()}
    return of_text(list(value)) if isinstance(value, (list, tuple)) and len(value) > 8 else value


def of_warnings(texts: list[str]) -> dict[str, Any]:
    return {"number": len(texts), "texts": [str(text) for text in texts]}


def of_folder(folder: Path, at: str = "") -> Found:
    """All results in a folder: images, every segment as a mask of its own, reports' figures, names of pictures."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = at + path.relative_to(folder).as_posix()
        if name.endswith(".seg.nrrd"):
            yield name, {segment: of_image(mask) for segment, mask in segments_of(path)}
        elif name.endswith(".nrrd"):
            yield name, of_image(sitk.ReadImage(str(path)))
        elif name.endswith(".json"):
            report = json.loads(path.read_text(encoding="utf-8"))
            yield f"{name}/measurements", of_figures(report["measurements"])
            yield f"{name}/warnings", of_warnings(report["warnings"])
        else:
            yield name, "written"


def segments_of(path: Path) -> Iterator[tuple[str, sitk.Image]]:
    """(name, mask) of every segment of a Slicer segmentation."""
    image, number = sitk.ReadImage(str(path)), 0
    while image.HasMetaDataKey(f"Segment{number}_Name"):
        name, layer, label = (image.GetMetaData(f"Segment{number}_{key}") for key in ("Name", "Layer", "LabelValue"))
        one = image if image.GetNumberOfComponentsPerPixel() == 1 else sitk.VectorIndexSelectionCast(image, int(layer))
        yield name, sitk.Equal(one, int(label))
        number += 1


def read_nodule(data: Path, nodule: str) -> tuple[sitk.Image, list[np.ndarray], sitk.Image, tuple[float, ...]]:
    """(CT, readers' masks, consensus of at least half of them, its centroid in mm, LPS), on the nodule cube's grid."""
    ct = sitk.ReadImage(str(data / "lidc-nodules" / f"{nodule}_ct.nrrd"))
    segments = segments_of(data / "lidc-nodules" / f"{nodule}_readers.seg.nrrd")
    readers = [sitk.GetArrayFromImage(mask) for _, mask in segments]
    inside = (2 * np.sum(readers, axis=0) >= len(readers)).astype(np.uint8)
    consensus = sitk.GetImageFromArray(inside)
    consensus.CopyInformation(ct)
    middle = [float(value) for value in np.argwhere(inside).mean(axis=0)[::-1]]
    return ct, readers, consensus, ct.TransformContinuousIndexToPhysicalPoint(middle)


def given_as(ct: sitk.Image, how: str, slice_spacing: float) -> sitk.Image:
    """The nodule cube as it is, on a grid that lies oblique, or every n-th slice of it, about the scan's own."""
    if "oblique" in how:
        grid, middle = sitk.Image(ct.GetSize(), sitk.sitkInt16), [(size - 1) / 2 for size in ct.GetSize()]
        grid.SetSpacing(ct.GetSpacing())
        grid.SetDirection(sitk.Euler3DTransform([0.0, 0.0, 0.0], 0.2, -0.35, 0.5).GetMatrix())
        there, here = (image.TransformContinuousIndexToPhysicalPoint(middle) for image in (ct, grid))
        grid.SetOrigin([a - b for a, b in zip(there, here, strict=True)])
        ct = sitk.Resample(ct, grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, -1024)
    every = max(2, round(slice_spacing / ct.GetSpacing()[2])) if "thick" in how else 1
    return ct[:, :, every // 2 :: every]


def recist_points(mask: np.ndarray) -> np.ndarray:
    """End points (4, 2) x, y in pixels of the longest axis of a 2D mask and of its extent across that axis."""
    points = np.argwhere(mask)[:, ::-1].astype(float)
    lengths = np.linalg.norm(points[:, None] - points, axis=-1)
    one, other = points[list(np.unravel_index(lengths.argmax(), lengths.shape))]
    across = np.array([one[1] - other[1], other[0] - one[0]]) / lengths.max()
    middle, reach = (one + other) / 2, points @ across
    return np.array([one, other, *(middle + (end - middle @ across) * across for end in (reach.min(), reach.max()))])


def run(*arguments: str | Path) -> None:
    """A command line of the project, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(map(str, arguments))}\nended with {done.returncode}:\n{done.stderr}")


def networks(data: Path, folder: Path) -> Found:
    """every network: initial weights, outputs in evaluation, gradients of their sum; needs no data"""
    import torch

    from LungNoduleUncertaintyLib import networks as registry

    for name in registry.available():
        torch.manual_seed(17)
        network = registry.create(name).eval()
        weights = {key: of_array(value.numpy()) for key, value in network.state_dict().items()}
        # Classifiers of single pixels and DSNet's teacher take long.
        size = 12 if network.stride == 1 else 32 if network.stride <= 4 else 64
        shape = (1, getattr(network, "in_channels", 1), size, size)
        outputs = network(torch.randn(shape, generator=torch.Generator().manual_seed(23)))
        torch.stack([value.sum() for value in outputs.values()]).sum().backward()
        slopes = {key: parameter.grad for key, parameter in network.named_parameters()}
        gradients = {key: slope if slope is None else of_array(slope.numpy()) for key, slope in slopes.items()}
        yield f"{name}/parameters", sum(parameter.numel() for parameter in network.parameters())
        yield f"{name}/weights", of_text(weights)
        yield f"{name}/gradients", of_text(gradients)
        yield f"{name}/outputs", {key: of_array(value.detach().numpy()) for key, value in outputs.items()}


def nodules(data: Path, folder: Path) -> Found:
    """both shipped models on ten real nodules: nodule cubes, thick slices, oblique grids"""
    from LungNoduleUncertaintyLib import load_model, segment_nodule

    for bundle, wanted in NODULES.items():
        model = load_model(bundle, device="cpu")
        for nodule, (spacing, ways) in wanted.items():
            ct, _, consensus, centroid = read_nodule(data, nodule)
            for how in ways.split():
                image, at = given_as(ct, how, spacing), f"{bundle}/{nodule}/{how}"
                # The same place, said in both ways.
                place = {"near": consensus} if how == "thick" else {"point_lps": centroid}
                result = segment_nodule(image, **place, model=model)
                yield f"{at}/ct", of_image(image)
                yield from ((f"{at}/{name}", of_image(getattr(result, name))) for name in IMAGES)
                yield f"{at}/measurements", of_figures(result.measurements)
                yield f"{at}/thresholds", thresholds_of(result.provenance)
                yield f"{at}/warnings", of_warnings(result.warnings)


def thresholds_of(provenance: Any) -> dict[str, float]:
    """Thresholds by map, whether provenance has them as text ("final 0.460, union 0.260") or as numbers."""
    found = provenance["thresholds"] if isinstance(provenance, dict) else provenance.thresholds
    pairs = (item.split() for item in found.split(", ")) if isinstance(found, str) else dict(found).items()
    return {name: round(float(value), 3) for name, value in pairs}


def demo(data: Path, folder: Path) -> Found:
    """the demo on the generated chest phantom; needs no data"""
    run("LungNoduleUncertaintyLib", "demo", "--output", folder, "--device", "cpu", "--quiet")
    yield from of_folder(folder)


def soft(data: Path, folder: Path) -> Found:
    """trimaps and soft masks from a mask, readers and RECIST marks, by functions and by the command line"""
    from SoftMaskLabelerLib import closed_form_alpha, trimap_from_mask, trimap_from_readers, trimap_from_recist

    for nodule in SOFT_NODULES:
        ct, readers, consensus, _ = read_nodule(data, nodule)
        image = np.clip((sitk.GetArrayFromImage(ct).astype(np.float64) + 1000) / 1400, 0, 1)
        inside, spacing = sitk.GetArrayFromImage(consensus), ct.GetSpacing()[::-1]
        z = int(inside.sum(axis=(1, 2)).argmax())
        points = recist_points(inside[z])
        slices = [mask[z] for mask in readers]
        for name, pixels, trimap, dimension in (
            ("mask", image, trimap_from_mask(inside, spacing), 2),
            ("mask-3d", image, trimap_from_mask(inside, spacing, erode_mm=1.0, dilate_mm=2.0, dimension=3), 3),
            ("readers", image, trimap_from_readers(readers, spacing), 2),
            ("readers-slice", image[z], trimap_from_readers(slices, spacing[1:], dilate_mm=1.0), 2),
            ("recist", image[z], trimap_from_recist(image[z], points, spacing[1:]), 2),
        ):
            alpha = closed_form_alpha(pixels, trimap, dimension=dimension)
            yield f"{nodule}/functions/{name}", {"trimap": of_array(trimap), "alpha": of_array(alpha)}
        mask = folder / f"{nodule}-mask.nrrd"
        sitk.WriteImage(consensus, str(mask))
        ends = [value for x, y in points for value in ct.TransformContinuousIndexToPhysicalPoint((x, y, float(z)))]
        drawn, ct_file = (data / "lidc-nodules" / f"{nodule}_{end}.nrrd" for end in ("readers.seg", "ct"))
        for name, source in (("mask", [mask]), ("readers", [drawn]), ("recist", ends)):
            yield from soft_mask(ct_file, f"--{name}", *source, folder=folder, at=f"{nodule}/command/{name}/")


def soft_mask(ct: Path, *source: Any, folder: Path, at: str) -> Found:
    """SoftMaskLabelerLib's command line with all its outputs."""
    out = folder / at
    out.mkdir(parents=True)
    outputs: list[str | Path] = [
        "--output",
        out / "soft.nrrd",
        "--trimap",
        out / "trimap.nrrd",
        "--segment",
        out / "half.seg.nrrd",
    ]
    run("SoftMaskLabelerLib", ct, *source, *outputs, "--quiet")
    yield from of_folder(out, at)


def dicom(data: Path, folder: Path) -> Found:
    """both command lines on a folder of DICOM: a nodule, then the soft mask of its Final"""
    with tarfile.open(data / "lidc-dicom.tar.xz") as archive:
        archive.extractall(folder / "dicom", filter="data")
    series = min((folder / "dicom").rglob("*.dcm")).parent
    out = folder / "nodule"
    out.mkdir()
    outputs: list[str | Path] = [
        "--output",
        out / "nodule.seg.nrrd",
        "--probabilities",
        out / "maps",
        "--report",
        out / "report.json",
    ]
    point = read_nodule(data, DICOM_NODULE)[3]
    place: list[str | Path] = ["--point", *map(str, point), "--device", "cpu", "--quiet"]
    run("LungNoduleUncertaintyLib", "segment", series, *place, *outputs)
    yield from of_folder(out, "nodule/")
    sitk.WriteImage(dict(segments_of(out / "nodule.seg.nrrd"))["Final"], str(folder / "final.nrrd"))
    yield from soft_mask(series, "--mask", folder / "final.nrrd", folder=folder, at="soft-mask/")


PARTS = {part.__name__: part for part in (networks, nodules, demo, soft, dicom)}


def compute(parts: list[str], data: Path) -> dict[str, Any]:
    """What a golden set holds: versions, and the parts' entries by name."""
    import torch

    import LungNoduleUncertaintyLib

    print(f"code: {LungNoduleUncertaintyLib.__file__}", file=sys.stderr)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    packages = {"torch": torch.__version__, "numpy": np.__version__, "SimpleITK": sitk.Version_VersionString()}
    entries: dict[str, Any] = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            entries.update((f"{part}/{name}", value) for name, value in PARTS[part](data, Path(folder)))
        print(f"{part}: done", file=sys.stderr)
    versions = {"python": platform.python_version(), "machine": platform.machine(), **packages}
    return json.loads(json.dumps({"versions": versions, "entries": entries}))  # as it reads from a file


def flat(value: Any, at: str = "") -> Found:
    """(place, figure or hash) of everything in nested entries."""
    if isinstance(value, (dict, list)) and value:
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(entry, f"{at}/{key}" if at else str(key))
    else:
        yield at, value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for every figure or hash that isn't the same to the last bit; notes begin with "note: "."""
    one, other = dict(flat(before)), dict(flat(now))
    lines = []
    for place in dict.fromkeys([*one, *other]):
        a, b = (repr(values[place]) if place in values else "missing" for values in (one, other))
        note = "note: " if place.startswith("versions/") or "/warnings/texts" in place else ""
        lines += [f"{note}{place}: {a} before, {b} now"] * (a != b)
    return lines


def main(argv: list[str] | None = None) -> int:
    """Write a golden set, or compute it anew and compare; returns the exit status: 0 the same, 1 different."""
    about = "\n".join(f"  {name:<10}{part.__doc__}" for name, part in PARTS.items())
    formatting = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"parts:\n{about}", formatter_class=formatting)
    parser.add_argument("command", choices=("write", "compare"), help="write FILE.json, or compare with it")
    parser.add_argument("file", type=Path, metavar="FILE.json", help="the golden set")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of lidc-nodules/ and lidc-dicom.tar.xz")
    every = "only these; default: all (write), those in FILE.json (compare)"
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART", help=every)
    args = parser.parse_args(argv)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # for the command lines
    before = json.loads(args.file.read_text(encoding="utf-8")) if args.command == "compare" else None
    parts = args.parts or list(dict.fromkeys(name.split("/")[0] for name in before["entries"]) if before else PARTS)
    if set(parts) & {"nodules", "soft", "dicom"} and not (args.data and (args.data / "lidc-nodules").is_dir()):
        parser.error("nodules, soft and dicom need --data, the folder that lidc-nodules/ is in")
    now = compute(parts, (args.data or Path()).resolve())
    figures = sum(1 for _ in flat(now["entries"]))
    counted = f"{len(now['entries'])} entries, {figures} hashes and figures of {' '.join(parts)}"
    if before is None:
        args.file.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {args.file}: {counted}")
        return 0
    before["entries"] = {name: value for name, value in before["entries"].items() if name.split("/")[0] in parts}
    lines = differences(before, now)
    different = sum(not line.startswith("note: ") for line in lines)
    print("\n".join([*lines, f"compared {counted}: {different} differences"]))
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
