"""Model cards: prose and tables from the metadata; the shipped ones are what the export writes."""

import re

import pytest

from fake_model import bundle_metadata
from LungNoduleUncertaintyLib.models.card import model_card
from LungNoduleUncertaintyLib.models.metadata import CARD_FILE, read_metadata
from LungNoduleUncertaintyLib.models.store import available_bundles, find_bundle

TRAINING = {
    "configuration": {"training": {"epochs": 3, "init_from": "first-run/best.safetensors"}},
    "data": "some-nodules",
    "patients": {"training": 1200, "validation": 0},
    "nodules": {"training": 2400, "validation": 0},
    "conditions": {"date": "2026-01-01", "torch": "2"},
}
MEASURED = {
    "final": 0.8,
    "final_interval": [0.78, 0.82],
    "hc": 0.7,
    "coverage": 0.85,
    "failures": 0.01,
    "jitter": 0.997,
}
FIGURES = {
    "conditions": "Measured on others.",
    "test": {
        "four": {"nodules": 3, **MEASURED},
        "all": {"nodules": 5, **MEASURED},
        "human_four": {"nodules": 3, "final": 0.75, "coverage": 0.7},
        "human_all": {"nodules": 5, "final": 0.72, "coverage": 0.6},
    },
}


@pytest.mark.parametrize("name", available_bundles())
def test_shipped_cards_are_what_their_metadata_says(name):
    folder = find_bundle(name)
    assert (folder / CARD_FILE).read_text(encoding="utf-8") == model_card(read_metadata(folder))


@pytest.mark.parametrize("name", available_bundles())
def test_a_card_has_no_code_and_no_empty_sentences(name):
    card = model_card(read_metadata(find_bundle(name)))
    assert not re.search(r"[{}\[\]`]|None|\b0 nodules|\s$|  +[a-z]", card.rstrip("\n"))


def test_a_card_says_how_the_model_was_trained_and_measured():
    card = model_card(bundle_metadata(training=TRAINING, figures=FIGURES))
    assert "It was trained on 2,400 nodules of 1,200 patients (data set some-nodules)." in card
    assert "No nodules were kept aside for validation. Training took 3 epochs." in card
    assert "It started from the weights of the run first-run." in card
    assert "|  | 3 nodules with four readers | All 5 nodules with two or more readers |" in card
    assert "| Dice of HC with what every reader included | 0.700 | 0.700 |" in card
    assert "| Coverage: readers' volumes inside the interval | 85.0 % | 85.0 % |" in card
    assert "| Dice of Final between two clicks up to 1.5 mm beside the center | 0.997 | 0.997 |" in card
    assert "one reader has a Dice of 0.750 and 0.720 with what at least half of the other readers included" in card
    assert "and 70.0 % and 60.0 % of the volumes of one reader lie in the interval of the others" in card


def test_validation_nodules_are_named_and_a_model_without_a_history_has_a_card():
    parts = {"training": 10, "validation": 4}
    card = model_card(bundle_metadata(training={**TRAINING, "patients": parts, "nodules": parts}))
    assert "4 nodules of 4 other patients chose the best epoch." in card
    plain = model_card(bundle_metadata())
    assert "What it was trained on" not in plain
    assert "How good it is" not in plain
    assert "Network | ugsnet (width 8, levels 2, attention pool 2)" in plain
