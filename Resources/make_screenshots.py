"""Draws slice and 3D views of a nodule with its outlines, as the documentation shows them.

    python Resources/make_screenshots.py --output FOLDER
    python Resources/make_screenshots.py --ct FILE_OR_DICOM_FOLDER --point R A S --output FOLDER
    python Resources/make_screenshots.py --nodule FOLDER NAME --output FOLDER

Without a CT it takes the generated chest (`LungNoduleUncertaintyLib.phantom`). `--point` is in the world, mm, RAS.
`--nodule` takes FOLDER/NAME_ct.nrrd, and as the point the centroid of the consensus of the readers in
FOLDER/NAME_readers.seg.nrrd. The shipped model segments the nodule into an MRML scene, and Slicer's own displayable
managers draw it off screen; needed: slicer-core and OpenGL off screen (EGL or OSMesa).

LIDC-IDRI is CC BY 3.0: cite Armato et al. 2011, doi:10.1118/1.3528204, and The Cancer Imaging Archive,
doi:10.7937/K9/TCIA.2015.LO9QL9SX, wherever a picture of it is shown.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "LungNoduleUncertainty"), str(ROOT / "Testing/scene")]

VIEWS = ("axial", "coronal", "3d")


def phantom_nodule():
    """(CT, point in RAS) of the generated chest's spiculated nodule."""
    from LungNoduleUncertaintyLib.phantom.chest import chest_phantom

    ct, nodules = chest_phantom()
    x, y, z = nodules[0].center_lps
    return ct, (-x, -y, z)


def lidc_nodule(folder, name):
    """(CT, point in RAS) of a nodule that readers outlined; the point is the centroid of their consensus."""
    import numpy as np
    import SimpleITK as sitk

    from LungNoduleKit.images import read_ct
    from LungNoduleKit.segmentation_file import read_segmentation

    readers = list(read_segmentation(Path(folder) / f"{name}_readers.seg.nrrd").values())
    votes = np.mean([sitk.GetArrayFromImage(mask) for mask in readers], axis=0)
    middle = np.argwhere(votes >= 0.5).mean(0)[::-1]
    x, y, z = readers[0].TransformContinuousIndexToPhysicalPoint(middle.tolist())
    return read_ct(Path(folder) / f"{name}_ct.nrrd"), (-x, -y, z)


def make_screenshots(ct, point_ras, output, *, stem="nodule", device="auto", size=(600, 600)):
    """Segments and draws; returns the paths {"axial", "coronal", "3d", "views": PNG file}.

    `ct` is a SimpleITK image (HU), `point_ras` (R, A, S) in mm. The views show twice the nodule's extent and are
    centered on its final outline; "views" has all of them in a row.
    """
    import numpy as np
    import slicer
    from rendering import add_ct, new_scene, render_3d, render_slice

    from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns
    from LungNoduleUncertaintyLib.scene.segments import point_from_mask

    scene = new_scene()
    volume = add_ct(scene, ct)
    request = SegmentationRequest(volume, point_ras, name="", device=device)
    node = SegmentationRuns().run(request).segmentationNode
    segmentation = node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    final = next(i for i in ids if segmentation.GetSegment(i).GetName().endswith("Final"))
    center = point_from_mask((node, final))
    nodule = np.any([slicer.util.arrayFromSegmentBinaryLabelmap(node, i, volume) for i in ids], axis=0)
    extent = float((np.ptp(np.argwhere(nodule), axis=0)[::-1] * volume.GetSpacing()).max())
    paths = {view: Path(output) / f"{stem}-{view}.png" for view in (*VIEWS, "views")}
    pictures = [
        render_slice(
            scene,
            volume,
            center,
            orientation=view.capitalize(),
            field_of_view_mm=2 * extent,
            size=size,
            path=paths[view],
            ruler=True,
        )
        for view in VIEWS[:2]
    ]
    pictures.append(render_3d(scene, center, size=size, height_mm=1.4 * extent, path=paths["3d"], marker=True))
    _write_row([picture.pixels for picture in pictures], paths["views"])
    return paths


def _write_row(pictures, path, gap=6):
    """Pictures of one height side by side with white between them."""
    import numpy as np
    import SimpleITK as sitk

    from LungNoduleKit.files import write_whole

    space = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, space)][:-1]
    image = sitk.GetImageFromArray(np.concatenate(row, axis=1), isVector=True)
    write_whole(path, lambda temporary: sitk.WriteImage(image, str(temporary)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--nodule", nargs=2, metavar=("FOLDER", "NAME"), help="a nodule with its readers' outlines")
    source.add_argument("--ct", help="a CT: image file or folder of DICOM files; needs --point")
    parser.add_argument("--point", nargs=3, type=float, metavar=("R", "A", "S"), help="in the nodule, mm")
    parser.add_argument("--output", required=True, type=Path, help="folder for the PNG files")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    if (arguments.ct is None) != (arguments.point is None):
        parser.error("--ct and --point belong together")
    from rendering import off_screen_gl

    from LungNoduleKit.errors import NoduleError
    from LungNoduleKit.images import read_ct

    reason = off_screen_gl()
    if reason:
        parser.error(reason)
    stem = "phantom"
    try:
        if arguments.nodule:
            ct, point = lidc_nodule(*arguments.nodule)
            stem = arguments.nodule[1]
        elif arguments.ct:
            ct, point = read_ct(arguments.ct), tuple(arguments.point)
            stem = Path(arguments.ct).name.split(".")[0]
        else:
            ct, point = phantom_nodule()
        arguments.output.mkdir(parents=True, exist_ok=True)
        for path in make_screenshots(ct, point, arguments.output, stem=stem, device=arguments.device).values():
            print(path)
    except NoduleError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
