"""Experiments: definitions, jobs that can be killed, failures that are kept, and the report at the end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from LungNoduleKit.records import record_dict
from LungNoduleUncertaintyLib import networks
from Training.__main__ import main
from Training.config import ConfigError, changed
from Training.data.folder import load_folder
from Training.data.nodule import DatasetError, fingerprint
from Training.data.splits import SPLIT_KEYS
from Training.experiments import definition, engines, jobs
from Training.experiments.jobs import JobError
from Training.experiments.rows import _differing, default_width, job_id
from training_data import write_folder

ROOT = Path(__file__).resolve().parents[2]

TABLE = """
title = "two networks"
source = "test"
kind = "table"
options.reference = "ugsnet"

[[rows]]
key = "unet"
label = "U-Net"
network = { name = "unet", width = 4, levels = 2 }
set.loss.target = "first"
paper = { dsc = 80.0 }

[[rows]]
key = "ugsnet"
label = "UGS-Net"
network = { name = "ugsnet", width = 8, levels = 2 }
set.training.epochs = 3
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "nodules")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TABLE, encoding="utf-8")
    return path


def arguments(table, data, output, *more):
    return [
        *("experiment", str(table), "--data", str(data), "--output", str(output), "--profile", "tiny"),
        *("--folds", "0", "--device", "cpu", "--threads", "1", "--quiet", *more),
    ]


@pytest.mark.parametrize("profile", ["full", "compact"])
@pytest.mark.parametrize("name", definition.available())
def test_shipped_definitions_build_their_networks(name, profile):
    experiment = definition.load(name, profile)
    assert len({row.key for row in experiment.rows}) == len(experiment.rows)
    named = {getattr(experiment.options, key) for key in ("reference", "baseline", "ours", "control")} - {None}
    assert named <= {row.key for row in experiment.rows}
    for row in experiment.rows:
        network = row.config.network
        assert row.config.data.task == ("super_resolution" if name == "super_resolution" else "slice")
        assert network.name in networks.available()
        if profile == "compact":
            full = definition.load(name, "full")
            own = next(r for r in full.rows if r.key == row.key).config.network
            divisor = 8 if row.config.data.soft_label else 4
            assert divisor * network.options["width"] == own.options.get("width", default_width(network.name))


def test_table_one_has_every_network_and_tables_share_jobs():
    table1 = definition.load("table1", "compact")
    wanted = {"fcn32s", "unet", "r2_unet", "r2_attention_unet", "attention_unet", "nested_unet", "channel_unet"}
    assert {r.config.network.name for r in table1.rows} == wanted | {"nnunet", "ugsnet_v1", "ugsnet"}
    ids = {
        name: {row.key: job_id(row.config, 0, "x") for row in definition.load(name, "compact").rows}
        for name in ("table1", "table2", "table3", "leak", "ambiguity")
    }
    for name in ("table2", "table3", "leak", "ambiguity"):
        assert ids[name]["ugsnet"] == ids["table1"]["ugsnet"]
    assert ids["table3"]["unet_seed2"] != ids["table3"]["unet"]
    assert ids["leak"]["unet_by_nodule"] != ids["leak"]["unet"]
    assert len(set(ids["ambiguity"].values())) == len(ids["ambiguity"])


def test_an_option_added_later_keeps_the_names_of_known_jobs():
    row = definition.load("table1", "compact").rows[1]
    before = job_id(row.config, 0, "x")
    assert _differing({"data": {"crop": 3, "new": 1}}, {"data": {"crop": 2, "new": 1}}) == {"data": {"crop": 3}}
    assert job_id(changed(row.config, {"name": "other"}), 0, "x") == before
    assert job_id(changed(row.config, {"seed": 5}), 0, "x") != before
    assert job_id(row.config, 0, "y") != before


@pytest.mark.parametrize("row", definition.load("table1", "tiny").rows, ids=lambda row: row.key)
def test_every_network_of_the_table_works_in_the_predictor(row, tmp_path):
    """Weights of a run folder become a model whose cubes the network takes, whatever its stride and outputs."""
    from safetensors.torch import save_file

    from LungNoduleUncertaintyLib.outlining.prediction import predict_cube
    from Training.evaluation.models import run_model
    from Training.runs import build_network

    if row.key == "nnunet":
        pytest.importorskip("dynamic_network_architectures", reason="nnU-Net's package is optional")
    network = build_network(row.config)
    (tmp_path / "config.json").write_text(json.dumps(record_dict(row.config)))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "best.safetensors")
    model = run_model(tmp_path)
    options = model.metadata.input
    assert options.magnification == 1.28
    assert options.cube_sizes[0] == 64
    assert not any(size % network.stride for size in options.cube_sizes)
    assert ("union" in model.outputs.maps) == row.key.startswith("ugsnet")
    hu = np.random.default_rng(0).normal(-600, 300, (4, 64, 64)).astype(np.float32)
    maps = predict_cube(model, hu, (-2, -32, -32), (0.7, 0.7, 0.7))
    assert {"union", "intersection", "final"} <= set(maps)
    assert all(m.shape == hu.shape and 0 <= m.min() <= m.max() <= 1 for m in maps.values())
    assert np.array_equal(maps["union"], maps["final"]) == (not row.key.startswith("ugsnet"))


def test_presets_change_the_base_and_keep_the_network():
    paper, released = (definition.load("table1", "full", preset) for preset in ("paper", "released"))
    assert {r.config.optimizer.name for r in paper.rows} == {"sgd"}
    by_key = {r.key: r.config for r in released.rows}
    assert by_key["ugsnet_v1"].network.preset == "released"
    assert by_key["unet"].network.preset == "default"
    assert by_key["unet"].training.batch == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace('kind = "table"', 'kind = "chart"'), "a kind of table"),
        (TABLE.replace("epochs = 3", "epoch = 3"), "unknown key 'training.epoch'"),
        ('title = "a"\nsource = "b"\nkind = "table"', "has no rows"),
        (
            'title = "a"\nsource = "b"\nkind = "table"\n[use]\nexperiment = "small"\nrows = ["x"]\n[[rows]]\n'
            'key="y"\nlabel="Y"\nnetwork.name = "unet"',
            "no row 'x'",
        ),
        ("title = ", "not valid TOML"),
        (TABLE.replace("source", "sources"), "small.toml: unknown key 'sources'"),
        (TABLE.replace("options.reference", "options.references"), "'options.references' must be a table"),
        (TABLE.replace('label = "UGS-Net"', 'labels = "UGS-Net"'), r"unknown key 'rows\[1\].labels'"),
        (TABLE.replace('name = "unet"', 'name = "you-net"'), "row unet: network.name 'you-net' is none of"),
    ],
)
def test_bad_definitions_are_named(tmp_path, text, message):
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        definition.load(path)
    with pytest.raises(ConfigError, match="no such profile"):
        definition.load("table1", "huge")
    with pytest.raises(ConfigError, match="no such experiment"):
        definition.load("table9")


def test_a_row_keeps_what_the_base_sets_for_its_network():
    generator = definition.load("super_resolution", "compact").rows[0].config.network.options
    assert generator["skip"] == "bicubic"
    student = next(row for row in definition.load("dsnet_ablation", "compact").rows if row.key == "drtm_soft_gan")
    assert student.teacher.network.options["skip"] == "bicubic"
    assert student.config.network.options["teacher"]["skip"] == "bicubic"
    assert "skip" not in definition.load("dsnet_ablation", "compact").rows[0].config.network.options  # U-Net's


def test_a_teacher_is_split_as_its_student():
    for name in ("dsnet_proportions", "dsnet_four_folds"):
        student = definition.load(name, "compact").rows[-1]
        assert student.config.data.least_readers == 4
        assert all(getattr(student.teacher.data, key) == getattr(student.config.data, key) for key in SPLIT_KEYS)


def test_an_experiment_has_folds_of_its_own(data, tmp_path, capsys):
    run = ["experiment", "dsnet_four_folds", "--data", str(data), "--output", str(tmp_path / "out"), "--list"]
    assert main([*run, "--rows", "unet"]) == 0
    assert [line.split("-")[-1] for line in capsys.readouterr().out.splitlines()[1:]] == [f"fold{k}" for k in range(4)]
    assert main([*run, "--rows", "unet", "--folds", "2"]) == 0
    assert [line.split("-")[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["fold2"]


def test_a_profile_may_add_to_one_experiment():
    other = definition.load("dsnet_networks", "compact").rows[0].config.training
    own = definition.load("generalization", "compact").rows[0].config.training
    assert own.epochs > other.epochs
    assert replace(own, epochs=other.epochs) == other


def results(output):
    """Everything of a run's jobs that its figures rest on."""
    found = {}
    for job in sorted((output / "jobs").iterdir()):
        manifest = json.loads((job / "manifest.json").read_text(encoding="utf-8"))
        found[job.name] = (
            manifest["weights_sha256"],
            (job / "scores.csv").read_text(encoding="utf-8"),
            {k: v.tobytes() for k, v in np.load(job / "predictions.npz").items()},
        )
    return found


def test_a_killed_table_gives_the_same_when_it_goes_on(table, data, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert main(arguments(table, data, straight)) == 0
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "LungNoduleUncertainty", "SoftMaskLabeler")),
    }
    command = [sys.executable, "-m", "Training", *arguments(table, data, killed)]
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(killed.glob("jobs/ugsnet-*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the runner and the job that it has started
    process.wait()
    open_jobs = [j for j in (killed / "jobs").iterdir() if not jobs.is_done(j)]
    assert open_jobs, "the kill came too late to show anything"
    assert main(arguments(table, data, killed)) == 0
    assert results(killed) == results(straight)
    # Again: nothing is computed, nothing changes.
    before = {p: p.stat().st_mtime_ns for p in (killed / "jobs").rglob("*")}
    assert main(arguments(table, data, killed)) == 0
    assert before == {p: p.stat().st_mtime_ns for p in (killed / "jobs").rglob("*")}


def test_outcome_and_report(table, data, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(arguments(table, data, output, "--list")) == 0
    assert "2 jobs, 0 of them done" in capsys.readouterr().out
    assert main(arguments(table, data, output, "--jobs", "2")) == 0
    outcome = json.loads((output / "small" / "experiment.json").read_text(encoding="utf-8"))
    assert [row["key"] for row in outcome["rows"]] == ["unet", "ugsnet"]
    assert all(set(row["jobs"]) == {"0"} and not row["failed"] for row in outcome["rows"])
    folder = output / "jobs" / outcome["rows"][1]["jobs"]["0"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["patients_in_training_and_test"] == 0
    assert manifest["config"]["training"]["epochs"] == 3
    nodules = load_folder(data, progress=False)
    assert manifest["data"] == {"name": "nodules", "sha256": fingerprint(nodules), "nodules": 12}
    predictions = np.load(folder / "predictions.npz")
    assert list(predictions["nodule_id"]) == [n.nodule_id for n in nodules if n.fold == 0]
    assert predictions["union"].shape == predictions["final"].shape == (len(predictions["hu"]), 64, 64)
    assert not (folder / "last.ckpt").exists()
    assert main(arguments(table, data, output, "--rows", "unet", "none")) == 1
    assert "--rows none: no such row" in capsys.readouterr().err
    # Another profile in the same folder would mix results of two sizes.
    other = [a if a != "tiny" else "full" for a in arguments(table, data, output)]
    assert main(other) == 1
    assert "give another --output" in capsys.readouterr().err
    assert main(["report", "--experiments", str(output), "--output", str(tmp_path / "report"), "--quiet"]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "two networks" in page
    assert "UGS-Net" in page


DETAIL = """
title = "detail"
source = "test"
kind = "table"
base = "dsnet"
options = { reference = "drtm", measures = "dsnet" }

[[rows]]
key = "drtm"
label = "DRTM"
network = { name = "dsnet", detail = "drtm", levels = 3 }
teacher = true
paper = { dice = 84.89, sen = 90.56, ppv = 84.69 }

[[rows]]
key = "unet"
label = "U-Net"
network = { name = "unet", width = 4, levels = 2 }
set.loss.final_target = "consensus"
"""


def test_a_teacher_is_trained_first_on_the_same_patients_and_kept_by_its_student(data, tmp_path):
    path, output = tmp_path / "detail.toml", tmp_path / "out"
    path.write_text(DETAIL, encoding="utf-8")
    assert main(arguments(path, data, output)) == 0
    found = {job.name.rsplit("-", 2)[0]: job for job in (output / "jobs").iterdir()}
    assert set(found) == {"srgan_generator", "dsnet", "unet"}
    manifests = {name: json.loads((job / "manifest.json").read_text(encoding="utf-8")) for name, job in found.items()}
    assert manifests["dsnet"]["config"]["training"]["teacher"] == f"job:{found['srgan_generator'].name}"
    splits = {name: json.loads((job / "split.json").read_text(encoding="utf-8")) for name, job in found.items()}
    assert splits["srgan_generator"] == splits["dsnet"]
    teacher, student = (load_file(found[name] / "best.safetensors") for name in ("srgan_generator", "dsnet"))
    assert all(np.array_equal(student[f"teacher.{key}"], value) for key, value in teacher.items())
    assert {"psnr", "psnr_bicubic", "ssim", "ssim_bicubic"} == set(manifests["srgan_generator"]["pooled"])
    page = tmp_path / "report"
    assert main(["report", "--experiments", str(output), "--output", str(page), "--quiet"]) == 0
    report = json.loads((page / "report.json").read_text(encoding="utf-8"))
    (shown,) = report["experiments"]
    assert not shown["problems"]
    assert "Highest mean DICE against the readers' consensus" in shown["sentences"][0]
    first = shown["tables"]["detail-measures"]["rows"][0]
    with (found["dsnet"] / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert first["sen_consensus"] == pytest.approx(np.mean([float(r["sen_consensus"]) for r in rows]))
    assert (first["paper_dice"], first["paper_ppv"]) == (84.89, 84.69)


def test_super_resolution_is_reported_with_its_picture(data, tmp_path):
    output, page = tmp_path / "out", tmp_path / "report"
    assert main(arguments("super_resolution", data, output, "--rows", "srgan")) == 0
    assert main(["report", "--experiments", str(output), "--output", str(page), "--quiet"]) == 0
    (shown,) = json.loads((page / "report.json").read_text(encoding="utf-8"))["experiments"]
    assert not shown["problems"]
    (row,) = shown["figures"][0]["data"]["table"]
    (job,) = (output / "jobs").iterdir()
    pooled = json.loads((job / "manifest.json").read_text(encoding="utf-8"))["pooled"]
    assert row["psnr_db"] == pytest.approx(pooled["psnr"], abs=1e-3)
    low, high = row["psnr_db_gain_95"]
    assert low <= pooled["psnr"] - pooled["psnr_bicubic"] <= high
    assert (page / "figures" / "super_resolution-slices.png").is_file()


def test_a_failing_job_is_tried_again_reported_and_costs_no_other(table, data, tmp_path, capsys):
    table.write_text(TABLE.replace("width = 4, levels = 2 }", "width = 4, levels = 1 }"))
    output = tmp_path / "out"
    assert main(arguments(table, data, output, "--retries", "1")) == 1
    assert "levels at least 2" in capsys.readouterr().err
    rows = json.loads((output / "small" / "experiment.json").read_text(encoding="utf-8"))["rows"]
    assert "levels at least 2" in rows[0]["failed"]["0"]
    assert rows[1]["jobs"]
    log = next((output / "jobs").glob("unet-*/output.log")).read_text(encoding="utf-8")
    assert log.count("levels at least 2") == 2


def test_a_job_refuses_other_data_and_a_second_process(table, data, tmp_path):
    nodules = load_folder(data, progress=False)
    row = definition.load(table, "tiny").rows[0]
    job = jobs.prepare(tmp_path, jobs.Job("one", row.config, 0, jobs.DataSet("d", "0", len(nodules))))
    with pytest.raises(DatasetError, match="isn't the data"):
        jobs.run_job(job, data, device="cpu", progress=False)
    with jobs.claimed(job), pytest.raises(JobError, match="another process"), jobs.claimed(job):
        pass
    with pytest.raises(JobError, match="prepared by"):
        jobs.run_job(tmp_path / "nowhere", data)
    given = json.loads((job / jobs.JOB).read_text(encoding="utf-8"))
    given["config"]["training"]["epoch"] = 3
    (job / jobs.JOB).write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(JobError, match=r"one/job.json: unknown key 'config.training.epoch'"):
        jobs.run_job(job, data)


def test_launch_command_and_environment(tmp_path, monkeypatch):
    launch = engines.Launch(tmp_path, "cuda", threads=3, devices=2)
    command = launch.command(tmp_path / "job")
    assert "torch.distributed.run" in command
    assert command[command.index("--nproc-per-node") + 1] == "2"
    alone = engines.Launch(tmp_path, threads=3)
    assert alone.environment(5, 4)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in launch.environment(5, 4)
    assert alone.environment()["OMP_NUM_THREADS"] == "3"


def test_a_job_trains_on_two_devices_under_torchrun(table, data, tmp_path):
    """`--devices 2`: DDP inside the job, one manifest; here the devices are two processes on the CPU."""
    output = tmp_path / "out"
    assert main(arguments(table, data, output, "--rows", "unet", "--devices", "2")) == 0
    (job,) = (output / "jobs").iterdir()
    manifest = json.loads((job / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["processes"] == 2
    assert len((job / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert len(np.load(job / "predictions.npz")["final"]) == manifest["split"]["test"]["nodules"]


def test_the_ray_engine_gives_the_same(table, data, tmp_path):
    pytest.importorskip("ray", reason="the package ray is optional and not installed")
    assert main(arguments(table, data, tmp_path / "local")) == 0
    assert main(arguments(table, data, tmp_path / "ray", "--engine", "ray")) == 0
    assert results(tmp_path / "ray") == results(tmp_path / "local")


def test_without_ray_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install ray"):
        engines.run_ray([], engines.Launch(tmp_path))
