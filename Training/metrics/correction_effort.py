"""Human correction effort (HCE): how many clicks turn a predicted mask into the true one.

Source: Qin et al., Highly accurate dichotomous image segmentation (ECCV 2022). Wrong regions thinner than `relax`
pixels count as drawn well enough, but for the truth's skeleton. Of the others, every vertex of the outline to be
redrawn (after Ramer-Douglas-Peucker) and every region to be removed or filled as a whole is one click. Needs OpenCV
and scikit-image.
"""

from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError, mask_pair
from .neighbors import joint_box

RELAX = 5
EPSILON = 2.0
SIDE = 64  # what IFE's code resizes masks to before it counts


def _opencv() -> ModuleType:
    """OpenCV, or a MetricError that says how to install it."""
    try:
        import cv2
    except ImportError as error:
        raise MetricError("human correction effort wants OpenCV: pip install opencv-python-headless") from error
    return cv2


def _image_pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = mask_pair(predicted, truth)
    if predicted.ndim != 2:
        raise MetricError(f"masks of shape {predicted.shape}; human correction effort is of images (rows, columns)")
    return predicted, truth


def human_correction_effort(
    predicted: ArrayLike, truth: ArrayLike, relax: int = RELAX, epsilon: float = EPSILON, size: int | None = None
) -> int:
    """Clicks, a whole number from 0 (nothing to correct), for two masks (rows, columns).

    relax: pixels; epsilon: tolerance of the outline in pixels. It isn't free of scale: twice the resolution takes more
    clicks, so with `size` both masks are first resized to size x size (bilinear, threshold 0.5). Two empty masks: 0. An
    empty truth: one click a predicted region that the relaxation leaves; an empty prediction: the truth's outline. At
    the image's edge nothing counts as thin.
    Raises MetricError for differing shapes, other than two axes, bad options, and where OpenCV is missing.
    """
    first, second = _image_pair(predicted, truth)
    if relax != int(relax) or relax < 0 or not epsilon >= 0 or (size is not None and size < 1):
        raise MetricError(f"relax {relax}, epsilon {epsilon}, size {size}: whole numbers and a tolerance from 0 on")
    if size is not None and first.shape != (size, size) and first.size:
        cv2 = _opencv()
        first, second = (cv2.resize(m.astype(np.float32), (size, size)) >= 0.5 for m in (first, second))
    if np.array_equal(first, second):
        return 0
    # Nothing farther from the masks than the relaxation reaches can matter.
    margin = int(relax) + 2
    box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in joint_box(first, second) or ())
    first, second = first[box], second[box]
    both = first & second
    return _clicks(both, first & ~second, second & ~first, second, int(relax), epsilon)


def human_correction_effort_released(predicted: ArrayLike, truth: ArrayLike) -> int:
    """HCE as IFE's released code counts it, of masks (rows, columns). For comparison only.

    Both masks are resized to 64 x 64 bilinearly and stay gray. There a gray pixel counts as foreground, and since its
    value differs from that of a certain pixel, it is a hit and an error at once. For masks of 64 x 64 it is
    `human_correction_effort`. Raises MetricError as that does.
    """
    predicted, truth = _image_pair(predicted, truth)
    if not predicted.size:
        return 0
    cv2 = _opencv()
    gray, wanted = (cv2.resize(m.astype(np.uint8) * 255, (SIDE, SIDE)) for m in (predicted, truth))
    both = (gray > 0) & (wanted > 0)
    certain = both.astype(np.uint8) * 255
    return _clicks(both, gray != certain, wanted != certain, wanted > 128, RELAX, EPSILON)


def _clicks(
    both: np.ndarray, extra: np.ndarray, missing: np.ndarray, truth: np.ndarray, relax: int, epsilon: float
) -> int:
    """Clicks of bool images: hits, false positives, false negatives, and the truth whose skeleton must be there."""
    cv2 = _opencv()
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    both, extra, missing = (part.astype(np.uint8) for part in (both, extra, missing))
    inner = cv2.erode(both | extra | missing, cross, iterations=relax)

    def relaxed(wrong: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What of a wrong region is thick enough: its part in `inner`, grown back to where it came from."""
        grown = wrong & inner
        if grown.any():
            for _ in range(relax):
                grown = cv2.dilate(grown, cross) & (1 - others)
        return wrong & grown

    extra_left, missing_left = relaxed(extra, both | missing), relaxed(missing, both | extra)
    if (truth > both).any():
        from skimage.morphology import skeletonize

        missing_left |= skeletonize(truth).astype(np.uint8) & (1 - both)
    return _clicks_of(extra_left, both | missing_left, cross, epsilon) + _clicks_of(
        missing_left, 1 - (both | extra_left | missing_left), cross, epsilon
    )


def _clicks_of(region: np.ndarray, neighbor: np.ndarray, cross: np.ndarray, epsilon: float) -> int:
    """Vertices of the outline of `region` where it touches `neighbor`, and regions that touch it nowhere."""
    if not region.any():
        return 0
    cv2 = _opencv()
    contours, _ = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(contours)
    flat = points[:, 0, 1] * region.shape[1] + points[:, 0, 0]
    # A pixel that an outline passes twice (a thin part) is drawn once.
    drawn = np.zeros(len(flat), bool)
    drawn[np.unique(flat, return_index=True)[1]] = True
    drawn &= cv2.dilate(neighbor, cross).ravel()[flat] > 0
    clicks, begin = 0, 0
    for contour in contours:
        end = begin + len(contour)
        clicks += sum(len(cv2.approxPolyDP(run, epsilon, False)) for run in _runs(points, drawn, begin, end))
        begin = end
    count, labels = cv2.connectedComponents(region, connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels.ravel()[flat[drawn]]] = True
    return clicks + count - 1 - int(touched[1:].sum())


def _runs(points: np.ndarray, drawn: np.ndarray, begin: int, end: int) -> list[np.ndarray]:
    """Stretches (n, 1, 2) of one contour's drawn points; one across the contour's first point is put together."""
    edges = np.flatnonzero(np.diff(drawn[begin:end], prepend=False, append=False)) + begin
    runs = [points[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if len(runs) > 1 and np.abs(runs[0][0] - runs[-1][-1]).max() == 1:
        # Turned round, as in the reference implementation: the joint isn't where the two stretches meet.
        runs = [*runs[1:-1], np.concatenate((runs[-1], runs[0][::-1]))]
    return runs
