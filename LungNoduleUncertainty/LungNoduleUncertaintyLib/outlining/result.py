"""What `segment_nodule` returns: masks, probability maps, measurements, and where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import SimpleITK as sitk

from LungNoduleKit.records import record_dict

from ..measuring.measurements import Measurements
from ..models.network_input import Averaging


@dataclass(frozen=True)
class Provenance:
    """Which model and settings made a result, the point (LPS, mm) that was segmented, and the codes of its warnings."""

    model: str
    model_version: str
    model_sha256: str
    software: str
    thresholds: dict[str, float]
    averaging: Averaging
    point_lps: tuple[float, float, float]
    size_calibration: dict[str, float] = field(default_factory=dict)
    warning_codes: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        """The same in words, for the tags of segments, which hold nothing but text."""
        thresholds = ", ".join(
            f"{name} {self.thresholds[name]:.3f}"
            for name in ("intersection", "final", "union")
            if name in self.thresholds
        )
        sizes = ", ".join(f"{name} {slope:g} per doubling" for name, slope in sorted(self.size_calibration.items()))
        return {
            **{key: str(getattr(self, key)) for key in ("model", "model_version", "model_sha256", "software")},
            "thresholds": thresholds,
            **({"size_calibration": sizes} if sizes else {}),
            "averaging": f"{len(self.averaging.flips)} flips of {', '.join(self.averaging.views)} slices",
            "point_lps": " ".join(repr(v) for v in self.point_lps),
            **({"warning_codes": " ".join(self.warning_codes)} if self.warning_codes else {}),
        }

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return record_dict(self)


@dataclass(frozen=True)
class NoduleSegmentation:
    """Result of `segment_nodule`. Images are SimpleITK, LPS, on the CT's own grid cropped to the nodule's region.

    hc, lc, final: uint8 masks. HC and LC are disjoint; HC is inside Final, and Final inside HC and LC together. hc and
    lc are None for a model that has Final alone. probability_union, probability_intersection, probability_final:
    float32 in [0, 1]; the first two are None for a model with a single map. final_map: `soft` if probability_final is a
    soft mask (DSNet), else `final`. warnings: what the caller should know, one sentence each; their codes are in the
    provenance.
    """

    hc: sitk.Image | None
    lc: sitk.Image | None
    final: sitk.Image
    probability_union: sitk.Image | None
    probability_intersection: sitk.Image | None
    probability_final: sitk.Image
    measurements: Measurements
    provenance: Provenance
    warnings: list[str] = field(default_factory=list)
    final_map: str = "final"

    def tag_texts(self) -> dict[str, str]:
        """Provenance and warnings in words, for the tags of segments, which hold nothing but text."""
        warnings = {"warnings": json.dumps(self.warnings, ensure_ascii=False)} if self.warnings else {}
        return {**self.provenance.texts(), **warnings}

    @property
    def probabilities(self) -> dict[str, sitk.Image]:
        """The probability maps that there are, by name: `union`, `intersection` and `final`, or `final`, or `soft`."""
        maps = {"union": self.probability_union, "intersection": self.probability_intersection}
        maps[self.final_map] = self.probability_final
        return {name: image for name, image in maps.items() if image is not None}

    @property
    def multi_confidence_map(self) -> sitk.Image | None:
        """(union + intersection) / 2, the papers' Multi-Confidence Mask (MCM) before it is thresholded.

        None for a model with a single map.
        """
        if self.probability_union is None or self.probability_intersection is None:
            return None
        return sitk.Cast((self.probability_union + self.probability_intersection) * 0.5, sitk.sitkFloat32)
