"""Files of training and evaluation that can't be used: refused in one line with the file, the key and the reason."""

import json

import pytest

from LungNoduleKit.files import write_record
from LungNoduleKit.records import record_dict
from Training.config import ConfigError, load_config, read_config
from Training.data.nodule import DatasetError
from Training.evaluation.calibration import read_calibration
from Training.evaluation.summary import read_evaluation
from Training.experiments.definition import load
from Training.experiments.jobs import Counts, DataSet, Manifest, Seconds, SplitCounts, read_manifest
from Training.runs import Conditions, build_network, load_run


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("network.widths = 16", "unknown key 'network.widths'; known here: "),
        ('network.width = ""', "'network.width' must be a whole number, not ''"),
        ("network.width = 65536", "'network.width' must be at least 0 and at most 4096, not 65536"),
        ("network.teacher.blocks = 65536", "'network.teacher.blocks' must be at least 0 and at most 256, not 65536"),
        ("network.teacher.widths = 1", "unknown key 'network.teacher.widths'; known here: "),
        ('network.preset = "x"', "network 'ugsnet' has no preset 'x'; available: "),
        ('network.name = "x"', "unknown network 'x'; available: "),
        (f"network.{'a.' * 1500}a = 1", "not valid TOML: tables or lists are nested more than 50 deep"),
        (f"seed = 1{'0' * 5000}", "not valid TOML: "),
        ("input.slice_offsets = []", "input: slice_offsets has to be one or more numbers within 64"),
        ("input.window_hu = []", "input: window_hu has to be "),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_with_file_and_key(tmp_path, text, reason):
    path = tmp_path / "odd.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"^{path}: {reason}") as raised:
        load_config(path)
    assert len(str(raised.value)) < 500 + len(str(path))


def test_what_only_the_network_refuses_names_the_file_and_the_key_too(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text('name = "mine"\nnetwork.otsu = "all"\n', encoding="utf-8")
    config = load_config(path, ["training.epochs=2"])
    with pytest.raises(ConfigError, match=rf"^{path}: network ugsnet: otsu must be one of "):
        build_network(config)
    assert "source" not in record_dict(config)
    assert config == read_config(record_dict(config), "elsewhere")
    path.write_text("network.in_channels = 9\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"^{path}: network.in_channels is 9, the input has 1"):
        build_network(load_config(path))


@pytest.mark.parametrize("content", ["[1]", "[[]]", "null", '"x"', "[" * 900 + "]" * 900])
def test_a_run_whose_configuration_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.json: (its content must be a table|can't be read as JSON)"):
        load_run(tmp_path)


CALIBRATED = {
    **{"thresholds": {"final": 0.5}, "averaging": {}, "slices": "native", "calibrated_on": "x", "figures": {}},
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"thresholds": {"final": float("nan")}}, "'thresholds.final' must be a finite number, not nan"),
        ({"thresholds": {"final": 0.5, "": 0.5}}, "unknown key 'thresholds.'; known here: union, intersection, final"),
        ({"thresholds": {"final": 1}}, "'thresholds.final' has to lie between 0 and 1, not 1"),
        ({"size_calibration": {"all": 1.0}}, "unknown key 'size_calibration.all'; known here: union"),
        ({"size_calibration": {"final": 99.0}}, "'size_calibration.final' has to lie between -10 and 10, not 99.0"),
        ({"figures": {"hc": float("nan")}}, "'figures.hc' must be a finite number, not nan"),
    ],
)
def test_calibrations_have_known_thresholds_and_finite_figures(tmp_path, changes, reason):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(CALIBRATED), encoding="utf-8")
    assert read_calibration(path).thresholds == {"final": 0.5}
    path.write_text(json.dumps({**CALIBRATED, **changes}), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"calibration.json: {reason}"):
        read_calibration(path)


def test_evaluations_have_known_thresholds_and_finite_figures(tmp_path):
    path, figures = tmp_path / "evaluation.json", {"all": {}, "four": {}, "human_all": {}, "human_four": {}}
    values = {"model": "m", "data": "d", "slices": "native", "thresholds": {"final": 0.5}, **figures}
    path.write_text(json.dumps(values), encoding="utf-8")
    assert read_evaluation(path).all.hc is None
    for change, reason in (
        ({"all": {"hc": float("nan")}}, "'all.hc' must be a finite number, not nan"),
        ({"human_all": {"final": float("inf")}}, "'human_all.final' must be a finite number, not inf"),
        ({"thresholds": {"all": 0.5}}, "unknown key 'thresholds.all'"),
    ):
        path.write_text(json.dumps({**values, **change}), encoding="utf-8")
        with pytest.raises(DatasetError, match=rf"evaluation.json: {reason}"):
            read_evaluation(path)


def test_rows_of_a_definition_that_is_not_there_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    for name in ("nothing", "../../nothing", "x" * 5000):
        path.write_text(f'title = "t"\nsource = "s"\nkind = "table"\nuse = {{ experiment = "{name}", rows = ["a"] }}\n')
        with pytest.raises(
            ConfigError, match=r"mine.toml: use.experiment '.*': no such definition beside it"
        ) as raised:
            load(path)
        assert len(str(raised.value)) < 200 + len(str(path))


def test_figures_that_are_not_defined_are_written_as_none(tmp_path):
    conditions = Conditions()
    counts = SplitCounts(Counts(1, 1), Counts(1, 1), Counts(1, 1))
    manifest = Manifest(
        *("job", "unet", load_config("unet-compact"), 0, DataSet("d", "0", 3), counts, 0, "0", 1, {"final": 0.5}),
        *(Seconds(1, 2, 3), conditions, 1, {"auc": float("nan"), "dice": 0.75}),
    )
    write_record(tmp_path / "manifest.json", manifest)
    assert read_manifest(tmp_path).pooled == {"auc": None, "dice": 0.75}
