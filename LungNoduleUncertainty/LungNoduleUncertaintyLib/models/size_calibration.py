"""Probability maps of small and large nodules made comparable, so that one threshold serves every size.

On nodules that UGS-Net wasn't fitted to, the threshold of its intersection that agrees best with the readers falls with
the nodule's size: one threshold draws HC too large in small nodules and too small in large ones. A shift of the map's
logit in proportion to the logarithm of the diameter evens that out; a bundle's `size_calibration` has its maps' slopes.
"""

from collections.abc import Mapping

import numpy as np

REFERENCE_MM = 8.0  # here nothing is shifted
_DOUBLINGS = (-1.0, 2.0)  # from 4 to 32 mm; smaller and larger nodules count as these


def calibrated(
    maps: dict[str, np.ndarray], diameter_mm: float, slopes: Mapping[str, float] | None
) -> dict[str, np.ndarray]:
    """The maps {output: probabilities} of a nodule of that diameter, as they would be at `REFERENCE_MM`.

    slopes: shift of an output's logit for every doubling of the diameter; outputs without one stay as they are.
    """
    if not slopes:
        return maps
    doublings = np.clip(np.log2(max(diameter_mm, 1e-3) / REFERENCE_MM), *_DOUBLINGS)
    out = dict(maps)
    for name in slopes.keys() & maps.keys():
        odds = np.exp(slopes[name] * doublings)
        out[name] = (maps[name] * odds / (1 - maps[name] + maps[name] * odds)).astype(np.float32)
    return out
