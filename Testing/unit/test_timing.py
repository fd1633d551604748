"""Times of a prediction: alternately measured, written once with their conditions, shown as ratios."""

import dataclasses
import json

import pytest
import torch

from LungNoduleKit.records import record_dict
from Training.__main__ import main
from Training.config import ConfigError
from Training.experiments import definition, timing
from Training.report import make_report
from Training.report.figures import FIGURES
from Training.report.store import JobStore
from training_data import write_folder


@pytest.fixture
def experiment():
    """The shipped definition, with three of its networks on 16 x 16 pixels."""
    loaded = definition.load("dsnet_time", "tiny")
    options = dataclasses.replace(loaded.options, size=16, batches=(1, 2), repeats=4, seconds=600)
    rows = tuple(row for row in loaded.rows if row.key in ("softgan", "softgan_enlarged", "drtm"))
    return dataclasses.replace(loaded, rows=rows, options=options)


def _timing(experiment, times) -> timing.Timing:
    known = {"device": "CPU, 1 threads", "processor": "P", "torch": "2", "date": "2026-01-02", "commit": "f" * 40}
    measured = [{"key": k, "batch": b, "parameters": 7, "ms": ms} for (k, b), ms in times.items()]
    given = {"id": "", "profile": "tiny", "conditions": {**known, "precision": "float32"}, "times": measured}
    return timing.timing_of({**record_dict(timing.settings(experiment)), **given}, "timing.json")


def test_every_network_passes_in_turn_on_its_own_input(experiment, monkeypatch):
    order = []

    def seconds(network, image, device):
        assert not network.training
        order.append(tuple(image.shape))
        network(image)
        return len(order) / 1000

    monkeypatch.setattr(timing, "_seconds", seconds)
    with torch.no_grad():
        found = timing.measure(timing.settings(experiment), torch.device("cpu"))
    one = [(1, 1, 16, 16), (1, 1, 64, 64), (1, 1, 16, 16)]
    rounds = timing.WARM_UP + 4
    assert order[: 3 * rounds] == one * rounds
    assert order[3 * rounds] == (2, 1, 16, 16)
    first = {entry.key: entry for entry in found if entry.batch == 1}
    assert first["softgan"].ms == (7, 10, 13, 16), "the first two rounds aren't counted"
    assert first["drtm"].ms == (9, 12, 15, 18)
    assert first["softgan"].parameters == first["softgan_enlarged"].parameters


def test_rounds_end_when_the_time_is_up_but_not_before_the_least_number(experiment, monkeypatch):
    monkeypatch.setattr(timing, "_seconds", lambda *given: 0.001)
    given = dataclasses.replace(timing.settings(experiment), seconds=0.0, repeats=50)
    assert {len(entry.ms) for entry in timing.measure(given, torch.device("cpu"))} == {timing.LEAST}


def test_ratios_are_those_of_the_least_times_and_of_rounds(experiment):
    times = {("softgan", 1): [5.0, 4.0, 10.0], ("drtm", 1): [10.0, 12.0, 20.0], ("softgan_enlarged", 1): [8, 8, 8]}
    rows = {row["key"]: row for row in timing.summary(_timing(experiment, times))}
    assert rows["drtm"]["ratio"] == 2.5
    assert rows["drtm"]["ratio_median"] == 2.0
    assert rows["drtm"]["ratio_to_enlarged"] == 1.25
    assert rows["softgan"]["ratio"] == 1
    assert rows["softgan"]["median_ms_a_slice"] == 5
    assert rows["drtm"]["paper_ms"] == 6.7
    assert rows["softgan_enlarged"]["input"] == "64 x 64"
    halves = {(key, 2): ms for (key, _), ms in times.items()}
    assert timing.summary(_timing(experiment, halves))[0]["least_ms_a_slice"] == 2


def test_what_was_measured_is_kept_and_other_settings_are_measured_anew(experiment, tmp_path, monkeypatch):
    calls = []
    measured = timing.measure

    def counted(given, device):
        calls.append(given)
        return measured(dataclasses.replace(given, repeats=1), device)

    monkeypatch.setattr(timing, "measure", counted)
    first = timing.run(experiment, tmp_path, device="cpu", threads=1)
    assert first.conditions.device == "CPU, 1 threads"
    assert first.conditions.precision == "float32"
    assert {"date", "commit", "torch", "processor"} <= record_dict(first.conditions).keys()
    assert timing.run(experiment, tmp_path, device="cpu") == first
    assert len(calls) == 1
    other = dataclasses.replace(experiment, options=dataclasses.replace(experiment.options, size=32))
    assert not timing.is_done(other, tmp_path)
    assert timing.run(other, tmp_path, device="cpu").id != first.id
    assert [p.name for p in (tmp_path / "dsnet_time").iterdir()] == ["timing.json"]


def test_options_that_name_no_row_are_refused(experiment):
    for wrong in ({"reference": "unet"}, {"enlarged": ("sdrfm",)}):
        with pytest.raises(ConfigError, match="name rows; there are drtm, softgan"):
            timing.settings(dataclasses.replace(experiment, options=dataclasses.replace(experiment.options, **wrong)))


def test_a_device_that_is_not_there_is_an_error(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        timing.run(experiment, tmp_path, device="cuda")
    assert not list(tmp_path.iterdir())


def test_from_the_command_to_the_page(tmp_path, capsys, monkeypatch):
    definition_file = tmp_path / "times.toml"
    text = (definition.FOLDER / "dsnet_time.toml").read_text(encoding="utf-8")
    small = {"size = 64": "size = 16", "batches = [1, 16]": "batches = [1]", "repeats = 20": "repeats = 2"}
    for old, new in small.items():
        assert old in text
        text = text.replace(old, new)
    definition_file.write_text(text, encoding="utf-8")
    data, output = write_folder(tmp_path / "data", 4), tmp_path / "out"
    command = ["experiment", str(definition_file), "--data", str(data), "--output", str(output), "--profile", "tiny"]
    command += ["--device", "cpu", "--quiet"]
    assert main([*command, "--list"]) == 0
    assert "open  times (times)" in capsys.readouterr().out
    assert main(command) == 0
    assert not (output / "jobs").exists(), "nothing is trained"
    assert main([*command, "--list"]) == 0
    assert "done  times (times)" in capsys.readouterr().out
    written = json.loads((output / "times" / "experiment.json").read_text(encoding="utf-8"))
    assert written["folds"] == []

    monkeypatch.setattr(timing, "measure", lambda *given: pytest.fail("the report measures nothing"))
    (section,), page = make_report(output, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert len(section.tables[0].records) == 6
    assert "The paper: 6.7 / 5.1 ms = 1.31 times." in section.sentences
    ratio = next(r for r in section.tables[0].records if r["key"] == "drtm")["ratio"]
    assert f"DRTM (v2) {ratio:.2f} times" in section.sentences[0]
    assert "beside SoftGAN on the input enlarged by four, which has as many pixels" in section.sentences[1]
    assert "CPU, " in section.drawn[0].caption
    assert "Profile tiny, folds" not in text, "there are no folds to run"
    experiment = JobStore(output).experiments()[0]
    timing.path_of("times", output).unlink()
    assert FIGURES["time"](experiment, JobStore(output)) == []
