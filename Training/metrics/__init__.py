"""Metrics of masks, of probability maps and of sets of masks from several readers. NumPy and SciPy, and for human
correction effort OpenCV and scikit-image.

Masks are arrays of any dimension (bool, or numbers where 0 is background); no argument is changed. Every metric states
what two empty masks and one empty mask give. `nsd_released` reproduces what UGS-Net's released code computes, the
other `*_released` what IFE's does. `METRICS` lists what is measured of every nodule, a record each.
"""

from .catalog import METRICS, Metric
from .checks import MetricError
from .correction_effort import human_correction_effort, human_correction_effort_released
from .dichotomous import (
    average_surface_distance_released,
    conformity,
    conformity_released,
    f_measure,
    f_measure_released,
    hausdorff_distance_released,
    mean_absolute_error,
    mean_absolute_error_released,
    minmax_cut,
    relative_volume_difference,
    score_image,
)
from .image import peak_signal_to_noise_ratio, structural_similarity
from .one_reader import consensus, leave_one_out, one_against_others
from .overlap import dice, iou, positive_predictive_value, sensitivity, soft_dice
from .panels import PanelCounts, another_panel, panel_counts
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
from .stats import DistributionDistance, PairedTest, distribution_distance, mean_interval, paired_test, population_sd
from .surface import (
    average_symmetric_surface_distance,
    hausdorff_distance,
    normalized_surface_dice,
    nsd_released,
    surface_distances,
)

__all__ = [
    "METRICS",
    "DistributionDistance",
    "Metric",
    "MetricError",
    "PairedTest",
    "PanelCounts",
    "another_panel",
    "average_surface_distance_released",
    "average_symmetric_surface_distance",
    "brier_score",
    "conformity",
    "conformity_released",
    "consensus",
    "dice",
    "distribution_distance",
    "dmax",
    "expected_calibration_error",
    "f_measure",
    "f_measure_released",
    "generalized_energy_distance",
    "hausdorff_distance",
    "hausdorff_distance_released",
    "human_correction_effort",
    "human_correction_effort_released",
    "hungarian_iou",
    "interval_coverage",
    "iou",
    "leave_one_out",
    "mean_absolute_error",
    "mean_absolute_error_released",
    "mean_interval",
    "minmax_cut",
    "normalized_surface_dice",
    "nsd_released",
    "one_against_others",
    "paired_test",
    "pairwise_dice",
    "pairwise_iou",
    "panel_counts",
    "peak_signal_to_noise_ratio",
    "population_sd",
    "positive_predictive_value",
    "relative_volume_difference",
    "score_human",
    "score_image",
    "score_nodule",
    "sensitivity",
    "soft_dice",
    "structural_similarity",
    "surface_distances",
]
