"""Sets of single images: their layouts, the split by patient, the task slice on them, and a job from end to end."""

import csv
import json

import numpy as np
import pytest

from image_files import disc, prepare, write, write_isbi
from Training.__main__ import main
from Training.config import ConfigError, changed, load_config
from Training.data.folder import load_folder
from Training.data.images import ImageItem, Sample, build, read_manifest
from Training.data.images.manifest import write_manifest
from Training.data.images.softening import soften
from Training.data.nodule import fingerprint
from Training.data.splits import configured_split
from Training.sampling.single_slices import SliceBatches
from Training.sampling.slice_images import cut_slices
from training_data import write_folder


@pytest.fixture
def config():
    config = load_config("dsnet")
    config = changed(config, {"input": {"window_hu": [0.0, 255.0]}})
    config = changed(config, {"data": dict(fit="pad", net_size=32, soft_label="given", validation_share=0.25)})
    return config


@pytest.fixture(scope="module")
def isbi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isbi")
    assert prepare("isbi2012", write_isbi(folder / "raw"), "--output", folder / "set", "--tile", 32) == 0
    return folder / "set"


def test_isbi_has_tiles_that_stay_with_their_block(isbi, config):
    rows = read_manifest(isbi)
    assert len(rows) == 10 * 4
    items = load_folder(isbi, progress=False)
    assert all(isinstance(item, ImageItem) for item in items)
    assert items[0].hu.shape == (1, 32, 32)
    assert items[0].readers.shape == (1, 1, 32, 32)
    # Blocks are sections that follow each other; 9 comes before 10 whatever their names' order.
    folds = {item.nodule_id.split("_")[1]: item.fold for item in items}
    assert [folds[f"{n:02d}"] for n in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for number in (0, 7):
        image, mask = disc(64, 64, 20, number)
        tile = next(i for i in items if i.nodule_id == f"isbi2012_{number:02d}_r32c0")
        assert np.array_equal(tile.hu[0], image[32:, :32])
        assert np.array_equal(tile.readers[0, 0], mask[32:, :32])  # the membrane is what is 0 in the label
        assert tile.labels == {"dataset": "ISBI2012", "organ": "membrane", "modality": "EM"}
    training, validation, test = configured_split(items, 1, config)
    assert {i.patient_id for i in test} == {"isbi2012-block1"}
    assert {i.patient_id for i in validation}.isdisjoint({i.patient_id for i in training})
    assert (len(training), len(validation), len(test)) == (24, 8, 8)


def test_isbi_as_the_challenge_publishes_it_and_with_cells_as_object(tmp_path):
    images, masks = (np.stack(part) for part in zip(*(disc(16, 16, 5, n) for n in range(6)), strict=True))
    write(tmp_path / "raw" / "train-volume.tif", images)
    write(tmp_path / "raw" / "train-labels.tif", np.where(masks, 0, 255).astype(np.uint8))
    options = ("--output", tmp_path / "set", "--folds", 3, "--foreground", "cells", "--soft", "none")
    assert prepare("isbi2012", tmp_path / "raw", *options) == 0
    items = load_folder(tmp_path / "set", progress=False)
    assert [i.fold for i in items] == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(items[3].hu[0], images[3])
    assert np.array_equal(items[3].readers[0, 0], ~masks[3])
    assert items[0].soft is None


def test_given_soft_masks_and_images_of_several_sizes_in_the_task_slice(tmp_path, config):
    shapes = [(40, 40), (48, 24), (20, 36), (64, 64)]
    samples = []
    for number, shape in enumerate(shapes):
        image, mask = disc(*shape, 7, number)
        samples.append(Sample(f"s{number}", image, mask, "a", "b", "c", f"p{number}", (0.5, 0.5)))
    build([lambda s=s: [s] for s in samples], tmp_path / "set", folds=4, soft="tenth", progress=False)
    items = load_folder(tmp_path / "set", progress=False)
    assert sorted(i.fold for i in items) == [0, 1, 2, 3]
    slices = cut_slices(items, config)
    assert slices.hu.shape == (4, 1, 32, 32)
    assert slices.valid.sum() == 4
    for item, sample, hu, mask, soft, spacing in zip(
        items, samples, slices.hu, slices.readers, slices.soft, slices.spacing_mm, strict=True
    ):
        height, width = sample.mask.shape
        side = max(height, width)
        assert spacing == pytest.approx([0.5 * side / 32] * 2)
        # Areas are kept, and what the square has beyond the image is black and no object.
        assert mask[0].sum() * (side / 32) ** 2 == pytest.approx(sample.mask.sum(), rel=0.12)
        assert soft.sum() * (side / 32) ** 2 == pytest.approx(float(item.soft.sum()), rel=0.05)
        edge = round((side - width) / 2 * 32 / side) - 1
        if edge > 1:
            assert not hu[0, :, :edge].any()
            assert not mask[:, :, :edge].any()
        assert hu[0, 10:22, 10:22].min() > 50
    assert set(slices.labels) == {"dataset", "organ", "modality"}
    assert slices.diameter_mm == pytest.approx([2 * np.sqrt(s.mask.sum() / 4 / np.pi) for s in samples])
    batch = SliceBatches(items, changed(config, {"training": {"batch": 4}}))(0)
    assert batch.soft.shape == (4, 1, 32, 32)
    assert 0 <= batch.image.min() < batch.image.max() <= 1


def test_a_crop_of_its_size_is_the_image(tmp_path, config):
    for number, side in enumerate((31, 32, 33, 34)):
        image, mask = disc(side, side, 6, number)
        build([lambda i=image, m=mask: [Sample("x", i, m, "", "", "", "p")]], tmp_path / f"{side}", folds=1)
        items = load_folder(tmp_path / f"{side}", progress=False)
        config = changed(config, {"data": dict(fit="crop", crop=side, net_size=0, soft_label="soft_mask_of_consensus")})
        slices = cut_slices(items, config)
        assert np.array_equal(slices.hu[0, 0], image)
        assert np.array_equal(slices.readers[0, 0] > 0, mask)
        assert np.mean((slices.soft[0, 0] >= 0.5) == mask) > 0.97
    with pytest.raises(ConfigError, match="'crop', 'pad'"):
        changed(config, {"data": {"fit": "stretch"}})
    config = changed(config, {"data": dict(fit="pad", soft_label="given")})
    with pytest.raises(ConfigError, match="x has no soft mask of its own"):
        cut_slices(items, config)


def test_thin_structures_keep_a_soft_mask_with_a_band_of_a_pixel():
    mask = np.zeros((96, 96), bool)
    mask[:, ::16] = mask[:, 1::16] = mask[:, 2::16] = mask[::24] = mask[1::24] = mask[2::24] = True
    image = np.where(mask, 60, 180).astype(np.uint8)
    found = {band: soften(image, mask, band, (1.0, 1.0)) for band in ("pixel", "tenth")}
    assert np.mean((found["pixel"] >= 0.5) == mask) > 0.97
    assert soften(image, mask, "none") is None
    assert np.array_equal(soften(image, np.zeros_like(mask), "pixel"), np.zeros((96, 96)))


def test_promise_slices_of_a_case_share_a_fold(tmp_path):
    for case in range(6):
        volume = np.random.default_rng(case).normal(300, 90, (7, 20, 24)).astype(np.int16)
        mask = np.zeros(volume.shape, np.int8)
        mask[2 : 4 + case % 3, 6:14, 8:18] = 1
        volume[mask > 0] += 400
        part = tmp_path / "raw" / f"part{case % 2}"
        write(part / f"Case{case:02d}.mhd", volume, (0.6, 0.7, 3.0))
        write(part / f"Case{case:02d}_segmentation.mhd", mask, (0.6, 0.7, 3.0))
    assert prepare("promise12", tmp_path / "raw", "--output", tmp_path / "set", "--folds", 3) == 0
    items = load_folder(tmp_path / "set", progress=False)
    assert len(items) == 2 * (2 + 3 + 4)
    assert {i.patient_id for i in items} == {f"Case{n:02d}" for n in range(6)}
    assert [sum(f == k for f in {i.patient_id: i.fold for i in items}.values()) for k in range(3)] == [2, 2, 2]
    first = items[0]
    assert first.nodule_id == "Case00_z002"
    assert first.spacing == pytest.approx([1.0, 0.7, 0.6])
    assert first.readers.sum() == 80
    assert (first.hu.min(), first.hu.max()) == (0, 255) or first.hu.max() > 200
    assert first.hu[first.readers[0]].mean() > first.hu[~first.readers[0]].mean() + 60
    assert first.soft.shape == (1, 20, 24)


def test_pairs_and_cosmos_names(tmp_path):
    raw = tmp_path / "raw"
    names = ["ISIC_skin_0001", "ISIC_skin_0002", "LUNA_lung_c1_01", "LUNA_lung_c1_02", "LUNA_lung_c2_01"]
    for number, name in enumerate(names):
        image, mask = disc(24, 30, 6, number)
        colors = np.stack([image, image // 2, image // 4], -1)
        write(raw / f"{name}.png", colors, vector=True)
        write(raw / f"{name}_mask.png", mask.astype(np.uint8) * 255)
    done = ("--modality", "ISIC=dermoscopy", "LUNA=CT", "--folds", 2)
    assert prepare("cosmos55k", raw, "--output", tmp_path / "cosmos", *done) == 0
    items = {i.nodule_id: i for i in load_folder(tmp_path / "cosmos", progress=False)}
    assert items["LUNA_lung_c1_01"].labels == {"dataset": "LUNA", "organ": "lung", "modality": "CT"}
    assert items["ISIC_skin_0001"].labels["modality"] == "dermoscopy"
    assert len({i.patient_id for i in items.values()}) == 4
    assert items["LUNA_lung_c1_01"].patient_id == items["LUNA_lung_c1_02"].patient_id
    image, _ = disc(24, 30, 6, 0)
    luma = 0.299 * image + 0.587 * (image // 2) + 0.114 * (image // 4)
    assert np.abs(items["ISIC_skin_0001"].hu[0] - luma).max() <= 0.5
    pattern = ("--patient-pattern", r"^(\w+?)_", "--organ", "any")
    assert prepare("pairs", raw, "--output", tmp_path / "pairs", "--folds", 2, *pattern) == 0
    assert {i.patient_id for i in load_folder(tmp_path / "pairs", progress=False)} == {"ISIC", "LUNA"}


def test_lidc_slices_keep_folds_and_hu_and_merge_with_others(tmp_path, isbi):
    nodules = write_folder(tmp_path / "nodules", 6)
    for values in ("gray", "hu"):
        assert prepare("lidc", nodules, "--output", tmp_path / values, "--values", values) == 0
    gray, hu = (load_folder(tmp_path / values, progress=False) for values in ("gray", "hu"))
    for nodule, a, b in zip(load_folder(nodules, progress=False), gray, hu, strict=True):
        z = int(nodule.consensus.sum((1, 2)).argmax())
        assert (a.nodule_id, a.patient_id, a.fold) == (nodule.nodule_id, nodule.patient_id, nodule.fold)
        assert np.array_equal(b.hu[0], nodule.hu[z])
        assert np.abs(a.hu[0] - (nodule.hu[z].clip(-1000, 400) + 1000.0) / 1400 * 255).max() <= 0.51
        assert np.array_equal(a.readers[0, 0], nodule.consensus[z])
        assert a.spacing == pytest.approx([1, *nodule.spacing[1:]], rel=1e-5)
        assert (a.matting_window, b.matting_window) == ((0.0, 255.0), None)
    assert main(["merge-images", str(isbi), str(tmp_path / "gray"), "--output", str(tmp_path / "both"), "--quiet"]) == 0
    both = load_folder(tmp_path / "both", progress=False)
    assert {i.labels["modality"] for i in both} == {"EM", "CT"}
    parts = load_folder(isbi, progress=False) + gray
    assert fingerprint(both) == fingerprint(parts)  # nothing of them changed
    parts[0].soft[0, 0, 0] += 0.5
    assert fingerprint(both) != fingerprint(parts)


def test_soft_masks_of_the_builder_keep_what_was_accepted(tmp_path):
    rows = []
    for number, decision in enumerate(("accept", "", "reject", "")):
        image, mask = disc(32, 32, 6, number)
        for layer, array in (
            ("image", (image.astype(np.uint16) * 4 + 32768 - 900)),
            ("soft", (mask * 60000).astype(np.uint16)),
            ("binary", mask.astype(np.uint8) * 255),
        ):
            write(tmp_path / "raw" / layer / f"c{number}.png", array)
        row = {"case": f"c{number}", "decision": decision, "status": "ok", "patient": number // 2}
        rows.append({**row, "source": "DeepLesion", "spacing_mm": "0.7 0.8"})
    rows[3]["status"] = "failed"
    with (tmp_path / "raw" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    options = ("--folds", 1, "--output")
    assert prepare("deeplesion", tmp_path / "raw", *options, tmp_path / "all") == 0
    assert prepare("deeplesion", tmp_path / "raw", *options, tmp_path / "own", "--undecided", "reject") == 0
    items = load_folder(tmp_path / "all", progress=False)
    assert [i.nodule_id for i in items] == ["c0", "c1"]
    assert [i.nodule_id for i in load_folder(tmp_path / "own", progress=False)] == ["c0"]
    image, mask = disc(32, 32, 6, 1)
    assert np.array_equal(items[1].hu[0], image.astype(int) * 4 - 900)
    assert np.array_equal(items[1].readers[0, 0], mask)
    assert items[1].soft[0][mask] == pytest.approx(60000 / 65535)
    assert items[1].spacing == pytest.approx([1, 0.7, 0.8])
    assert items[1].labels["organ"] == "lung"


def test_a_table_written_by_hand_may_point_into_volumes(tmp_path):
    volume = np.arange(3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9)
    write(tmp_path / "v.nii.gz", volume, (0.5, 0.6, 2.0))
    write(tmp_path / "m.nrrd", (volume > 100).astype(np.uint8), (0.5, 0.6, 2.0))
    row = {"image": "v.nii.gz", "mask": "m.nrrd", "dataset": "d", "organ": "", "modality": "", "patient_id": "p"}
    write_manifest(tmp_path / "images.csv", [{**row, "fold": 0, "slice": z} for z in (1, 2)])
    items = load_folder(tmp_path, progress=False)
    assert [i.nodule_id for i in items] == ["v_z1", "v_z2"]
    assert np.array_equal(items[0].hu[0], volume[1])
    assert np.array_equal(items[0].readers[0, 0], volume[1] > 100)
    assert items[0].spacing == pytest.approx([1, 0.6, 0.5])
    assert [i.nodule_id for i in load_folder(tmp_path, nodules={"v_z2"}, progress=False)] == ["v_z2"]


DEFINITION = """
title = "images"
source = "test"
kind = "table"
base = "dsnet"
options = { reference = "dsnet", measures = "dsnet", data = "images" }
[set]
input.window_hu = [0.0, 255.0]
data = { fit = "pad", net_size = 64, soft_label = "given", validation_share = 0.25 }
[[rows]]
key = "dsnet"
label = "DSNet"
network = { name = "dsnet", detail = "none", levels = 3 }
"""


def test_an_experiment_on_images_from_end_to_end(isbi, tmp_path, capsys):
    path, output = tmp_path / "small.toml", tmp_path / "out"
    path.write_text(DEFINITION, encoding="utf-8")
    command = ["experiment", str(path), "--output", str(output), "--profile", "tiny", "--folds", "0", "--quiet"]
    nodules = write_folder(tmp_path / "nodules", 4)
    assert main([*command, "--data", str(nodules)]) == 1
    assert "small wants a set of images" in capsys.readouterr().err
    assert main([*command, "--data", str(isbi), "--device", "cpu", "--threads", "1"]) == 0
    (job,) = (output / "jobs").iterdir()
    with (job / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert {(row["modality"], row["patient_id"], row["readers"]) for row in rows} == {("EM", "isbi2012-block0", "1")}
    manifest = json.loads((job / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"]["input"]["window_hu"] == [0.0, 255.0]
    assert manifest["config"]["data"]["net_size"] == 32  # the profile comes after what a definition sets for all
    assert manifest["patients_in_training_and_test"] == 0
    page = tmp_path / "report"
    assert main(["report", "--experiments", str(output), "--output", str(page), "--quiet"]) == 0
    (shown,) = json.loads((page / "report.json").read_text(encoding="utf-8"))["experiments"]
    assert not shown["problems"]
    by_row = {row["row"]: row for row in shown["tables"]["small-measures"]["rows"]}
    assert by_row["dsnet"]["dsc_consensus"] is not None
    assert by_row["human"]["dsc_consensus"] is None  # there is no other reader
    assert "NaN" not in (page / "index.html").read_text(encoding="utf-8")


def test_a_definition_for_images_gives_its_teacher_the_same_window():
    from Training.experiments import definition

    experiment = definition.load("generalization", "compact")
    assert all(row.config.input.window_hu == (0.0, 255.0) for row in experiment.rows)
    assert {row.config.data.net_size for row in experiment.rows} == {64}
    teacher = next(row.teacher for row in experiment.rows if row.key == "dsnet")
    assert teacher.input.window_hu == (0.0, 255.0)
    assert teacher.data.fit == "crop"


@pytest.mark.published("isbi2012")
def test_the_real_sections_become_blocks(published, tmp_path):
    source, options = published / "isbi2012", ("--tile", 256, "--soft", "none")
    assert prepare("isbi2012", source, "--output", tmp_path / "set", *options) == 0
    rows = read_manifest(tmp_path / "set")
    assert len(rows) == 30 * 4
    sections = {row["image_id"].split("_")[1]: row["fold"] for row in rows}
    assert [sections[f"{n:02d}"] for n in range(30)] == [n // 6 for n in range(30)]
    items = load_folder(tmp_path / "set", nodules={row["image_id"] for row in rows[:4]}, progress=False)
    assert 0.15 < np.mean([i.readers.mean() for i in items]) < 0.3  # membrane is the smaller part
