"""A model without training: it calls bright what lies above a HU value, so that tests know the right answer."""

from dataclasses import replace

import torch

from LungNoduleKit.records import read_record
from LungNoduleUncertaintyLib.models.bundle import Model
from LungNoduleUncertaintyLib.models.metadata import BundleMetadata

SMALL_NETWORK = {"name": "ugsnet", "width": 8, "levels": 2, "in_channels": 3, "attention_pool": 2}


def bundle_metadata(**extra) -> BundleMetadata:
    """A small bundle's metadata; `extra` is in place of its entries, as JSON values."""
    values = {
        "name": "small",
        "version": "0",
        "description": "a test",
        "network": SMALL_NETWORK,
        "input": {
            "slice_offsets": [-1, 0, 1],
            "position": False,
            "window_hu": [-1000.0, 300.0],
            "spacing_mm": None,
            "cube_sizes": [48, 64, 96, 128],
        },
        "outputs": {
            "segments": ["HC", "LC", "Final"],
            "probabilities": ["union", "intersection", "final"],
            "maps": ["union", "intersection", "final", "single"],
        },
        "thresholds": {"union": 0.5, "intersection": 0.5, "final": 0.5},
        "averaging": {"flips": [[]], "views": ["axial"]},
        "license": "Apache-2.0",
        "intended_use": "tests",
        **extra,
    }
    return read_record(BundleMetadata, values, "a test's metadata")


class BrightNetwork(torch.nn.Module):
    """Logits rise with the middle slice's HU: union above -650, final above -450, intersection above -250 HU."""

    def forward(self, x):
        hu = x[:, 1:2] * 1300 - 1000
        thresholds = {"union": -650, "final": -450, "single": -450, "intersection": -250}
        return {key: (hu - threshold) / 20 for key, threshold in thresholds.items()}


def bright_model() -> Model:
    return Model([BrightNetwork().eval()], bundle_metadata(sha256="0" * 64), torch.device("cpu"))


def with_input(model: Model, **options) -> Model:
    """The same model with other options of its input."""
    metadata = model.metadata
    model.metadata = replace(metadata, input=replace(metadata.input, **options))
    return model
