"""Metrics of masks, of probability maps and of sets of masks from several readers. NumPy and SciPy only.

Masks are arrays of any dimension (bool, or numbers where 0 is background); no argument is changed. Every metric states
what two empty masks and one empty mask give. `nsd_released` reproduces what UGS-Net's released code computes.
"""

from .checks import MetricError
from .human import consensus, leave_one_out, one_against_others
from .image import peak_signal_to_noise_ratio, structural_similarity
from .overlap import dice, iou, positive_predictive_value, sensitivity, soft_dice
from .per_nodule import score_human, score_nodule
from .readers import (
    brier_score,
    dmax,
    expected_calibration_error,
    generalized_energy_distance,
    hungarian_iou,
    interval_coverage,
    pairwise_dice,
    pairwise_iou,
)
from .stats import DistributionDistance, PairedTest, distribution_distance, paired_test, population_sd
from .surface import (
    average_symmetric_surface_distance,
    hausdorff_distance,
    normalized_surface_dice,
    nsd_released,
    surface_distances,
)

__all__ = [
    "DistributionDistance",
    "MetricError",
    "PairedTest",
    "average_symmetric_surface_distance",
    "brier_score",
    "consensus",
    "dice",
    "distribution_distance",
    "dmax",
    "expected_calibration_error",
    "generalized_energy_distance",
    "hausdorff_distance",
    "hungarian_iou",
    "interval_coverage",
    "iou",
    "leave_one_out",
    "normalized_surface_dice",
    "nsd_released",
    "one_against_others",
    "paired_test",
    "pairwise_dice",
    "pairwise_iou",
    "peak_signal_to_noise_ratio",
    "population_sd",
    "positive_predictive_value",
    "score_human",
    "score_nodule",
    "sensitivity",
    "soft_dice",
    "structural_similarity",
    "surface_distances",
]
