"""How alike two images are: peak signal-to-noise ratio and structural similarity."""

import numpy as np
from numpy.typing import ArrayLike

from .checks import MetricError


def _pair(image: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise MetricError(f"images: shapes {first.shape} and {second.shape}; two equal (H, W) are wanted")
    return first, second


def peak_signal_to_noise_ratio(image: ArrayLike, truth: ArrayLike, data_range: float = 1.0) -> float:
    """PSNR in dB of (H, W) images, 10 log10(range^2 / MSE); infinite for equal ones. Raises MetricError for shapes."""
    first, second = _pair(image, truth)
    error = np.mean((first - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def structural_similarity(image: ArrayLike, truth: ArrayLike, data_range: float = 1.0) -> float:
    """SSIM of (H, W) images with the Gaussian window of 1.5 pixels of Wang et al. (2004); 1 for equal ones."""
    from skimage.metrics import structural_similarity as ssim

    first, second = _pair(image, truth)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(ssim(first, second, data_range=data_range, **options))
