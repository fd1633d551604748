"""The trimap of a volume alone, without the matting: what is shown while parameters are chosen, and edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import RecistError
from ..pipeline import windowed
from .trimap import trimap_from_mask, trimap_from_readers, trimap_from_recist

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..pipeline import Parameters


def trimap_of_volume(
    image: sitk.Image,
    parameters: Parameters,
    *,
    masks: list[sitk.Image] | None = None,
    recist_points_lps: list | None = None,
    notes: list[str] | None = None,
) -> sitk.Image:
    """The trimap that `pipeline.soft_mask_volume` works with: uint8 (0, 128, 255) on the image's grid.

    `masks`: one, or several readers', on the image's grid. `recist_points_lps`: (4, 3) LPS mm on one slice, the long
    axis' ends, then the short axis'. `notes`, if given, gets a line for each thing done otherwise than asked. Raises
    `MaskError`, `RecistError` or `ImageError`.
    """
    spacing = image.GetSpacing()[::-1]
    radii = {"erode_mm": parameters.erode_mm, "dilate_mm": parameters.dilate_mm, "notes": notes}
    if recist_points_lps is not None:
        array = _of_recist(image, spacing, recist_points_lps, parameters, radii)
    else:
        arrays = [sitk.GetArrayViewFromImage(mask) != 0 for mask in masks]
        if len(arrays) == 1:
            array = trimap_from_mask(arrays[0], spacing, dimension=parameters.dimension, **radii)
        else:
            radii = {**radii, "erode_mm": radii["erode_mm"] or 0.0, "dilate_mm": radii["dilate_mm"] or 0.0}
            array = trimap_from_readers(np.stack(arrays), spacing, dimension=parameters.dimension, **radii)
    out = sitk.GetImageFromArray(array)
    out.CopyInformation(image)
    return out


def _of_recist(image, spacing, points_lps, parameters, radii):
    if parameters.dimension == 3:
        raise RecistError("RECIST marks lie on one slice: their soft mask is 2D, not 3D")
    indices = np.array([image.TransformPhysicalPointToContinuousIndex([float(v) for v in p]) for p in points_lps])
    z = int(np.rint(indices[:, 2].mean()))
    if np.abs(indices[:, 2] - z).max() > 0.51:
        told = ", ".join(f"{depth:.1f}" for depth in indices[:, 2])
        raise RecistError(f"the RECIST end points lie on different slices ({told}); they must lie on one")
    gray = windowed(sitk.GetArrayViewFromImage(image)[z], parameters.window)
    array = np.zeros(image.GetSize()[::-1], np.uint8)
    array[z] = trimap_from_recist(gray, indices[:, :2], spacing[1:], iterations=parameters.iterations, **radii)
    return array
