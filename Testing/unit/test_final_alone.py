"""Models that have Final alone, a soft mask or a probability: metadata, library, command line, export, evaluation."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from fake_model import BrightNetwork, bundle_metadata
from LungNoduleKit.errors import BundleError, NoduleError, NoNoduleError
from LungNoduleKit.records import read_record, record_dict
from LungNoduleKit.segmentation_file import read_segmentation
from LungNoduleUncertaintyLib import __main__ as command_line
from LungNoduleUncertaintyLib import load_model, networks, segment_nodule
from LungNoduleUncertaintyLib.measuring import table as nodule_table
from LungNoduleUncertaintyLib.measuring.figure import measurement_lines, result_figure
from LungNoduleUncertaintyLib.measuring.measurements import measure
from LungNoduleUncertaintyLib.measuring.size_classes import size_classes, size_sentence
from LungNoduleUncertaintyLib.models import outputs
from LungNoduleUncertaintyLib.models import store as model_store
from LungNoduleUncertaintyLib.models.bundle import Model, write_bundle
from LungNoduleUncertaintyLib.models.metadata import metadata_sha256, read_metadata
from LungNoduleUncertaintyLib.models.network_input import Averaging
from LungNoduleUncertaintyLib.models.outputs import outputs_of_network
from LungNoduleUncertaintyLib.models.store import DEFAULT_BUNDLE, find_bundle
from LungNoduleUncertaintyLib.outlining.masks import final_mask
from LungNoduleUncertaintyLib.segments import SEGMENTS
from Training.config import ConfigError, Network, changed, load_config
from Training.evaluation.export import export_bundle
from Training.evaluation.models import run_model
from Training.evaluation.nodules import evaluate_ensemble, evaluate_nodule
from Training.evaluation.score import write_scores
from Training.evaluation.summary import summarize
from Training.runs import build_network
from training_data import make_nodule

EVERYTHING = ("HC", "LC", "Final"), ("union", "intersection", "final")
SOFT = {"segments": ["Final"], "probabilities": ["soft"], "maps": ["final", "soft"]}
PLAIN = {"segments": ["Final"], "probabilities": ["final"], "maps": ["final"]}


class SoftNetwork(torch.nn.Module):
    """DSNet's two outputs: the soft mask reaches 0.5 at -500 HU; `final`, which mustn't be looked at, at -300 HU."""

    def forward(self, x):
        hu = x[:, 1:2] * 1300 - 1000
        return {"final": (hu + 300) / 20, "soft": (hu + 500) / 300}


def model(outputs, network=None, thresholds=None):
    metadata = bundle_metadata(outputs=outputs, thresholds=thresholds or {"final": 0.5}, sha256="0" * 64)
    return Model([(network or SoftNetwork()).eval()], metadata, torch.device("cpu"))


def ct_with_balls(*balls, shape=(40, 60, 60), spacing=(0.8, 0.8, 1.2), edge=2.0):
    """CT of lung with balls (center (z, y, x) in voxels, radius in mm) whose HU fall from 40 to -850 over `edge` mm."""
    k, j, i = np.indices(shape)
    hu = np.full(shape, -850.0)
    for center, radius in balls:
        distance = np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip((i, j, k), center[::-1], spacing, strict=True)))
        hu = np.maximum(hu, -850 + 890 * np.clip((radius - distance) / edge + 0.5, 0, 1))
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing(spacing)
    return image


def at(image, center):
    return image.TransformContinuousIndexToPhysicalPoint([float(v) for v in center[::-1]])


@pytest.fixture(scope="module")
def ct():
    return ct_with_balls(((20, 30, 30), 7.0))


@pytest.fixture(scope="module")
def soft(ct):
    return segment_nodule(ct, at(ct, (20, 30, 30)), model=model(SOFT))


# Metadata ------------------------------------------------------------------------------------------------------------


def test_the_shipped_bundle_has_everything():
    metadata = read_metadata(find_bundle())
    assert (metadata.outputs.segments, metadata.outputs.probabilities) == EVERYTHING
    assert metadata.outputs.has_interval
    assert metadata.outputs.thresholds == EVERYTHING[1]
    assert set(metadata.size_calibration) <= set(metadata.outputs.maps)


@pytest.mark.parametrize(
    ("maps", "intervals", "segments", "probabilities", "thresholds"),
    [
        (["final", "intersection", "single", "union"], False, *EVERYTHING, EVERYTHING[1]),
        (["final"], False, ("Final",), ("final",), ("final",)),
        (["final", "soft"], False, ("Final",), ("soft",), ("final",)),
        (["final"], True, EVERYTHING[0], ("final",), EVERYTHING[1]),
        (["final", "soft"], True, EVERYTHING[0], ("soft",), EVERYTHING[1]),
        (["image"], True, (), (), ()),
    ],
)
def test_what_is_written_for_a_network_is_read_back(tmp_path, maps, intervals, segments, probabilities, thresholds):
    outputs = record_dict(outputs_of_network(maps, intervals))
    metadata = bundle_metadata(outputs=outputs, thresholds=dict.fromkeys(thresholds, 0.5))
    found = read_metadata(write_bundle(tmp_path / "bundle", [{"w": torch.zeros(1)}], metadata, "")).outputs
    assert (found.segments, found.probabilities, found.thresholds) == (segments, probabilities, thresholds)
    assert found.maps == tuple(maps)
    assert found.final_map == ("soft" if "soft" in maps else "final")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("final", "'outputs' must be a table, not 'final'"),
        ({"segments": ["Final"]}, "lacks 'outputs.probabilities', 'outputs.maps'"),
        ({"segments": ["HC"], "probabilities": ["final"], "maps": []}, r"outputs: segments \['HC'\] are neither"),
        ({"segments": ["Final"], "probabilities": [], "maps": []}, r"outputs: probabilities \[\] are neither"),
        ({"segments": ["Final"], "probabilities": ["mask"], "maps": []}, r"outputs: probabilities \['mask'\] are"),
        ({"segments": ["Final"], "probabilities": [*EVERYTHING[1]], "maps": []}, "outputs: .* one probability map"),
    ],
)
def test_a_bundle_with_a_senseless_declaration_is_refused_by_name(tmp_path, given, reason):
    folder = write_bundle(tmp_path / "odd", [{"w": torch.zeros(1)}], bundle_metadata(), "")
    content = {**json.loads((folder / "metadata.json").read_text()), "outputs": given}
    (folder / "metadata.json").write_text(json.dumps({**content, "sha256": metadata_sha256(content)}))
    with pytest.raises(BundleError, match=rf"odd.metadata.json: {reason}"):
        read_metadata(folder)


def test_a_bundle_has_the_thresholds_of_its_segments(tmp_path):
    def written(name, **entries):
        return write_bundle(tmp_path / name, [{"w": torch.zeros(1)}], bundle_metadata(**entries), "")

    assert read_metadata(written("alone", outputs=SOFT, thresholds={"final": 0.5})).thresholds == {"final": 0.5}
    with pytest.raises(BundleError, match="lacks threshold union, intersection"):
        read_metadata(written("three", thresholds={"final": 0.5}))


# Library -------------------------------------------------------------------------------------------------------------


def test_a_soft_mask_is_the_probability_and_its_half_is_final(ct, soft):
    assert (soft.hc, soft.lc, soft.probability_union, soft.probability_intersection) == (None,) * 4
    assert soft.multi_confidence_map is None
    assert list(soft.probabilities) == ["soft"]
    assert soft.probabilities["soft"] is soft.probability_final
    alpha, final = sitk.GetArrayFromImage(soft.probability_final), sitk.GetArrayFromImage(soft.final)
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(final, alpha >= 0.5)
    # z reaches 0 at -500 HU: final is the ball up to where its edge has that value, 0.2 mm outside of its middle.
    volume = soft.measurements["volumes_mm3"]["final"]
    assert volume == pytest.approx(4 / 3 * math.pi * 7.2**3, rel=0.03)
    # alpha is (tanh z + 1) / 2 of z = (HU + 500) / 300: in lung (-850 HU) and in the ball (40 HU)
    assert alpha.min() == pytest.approx((math.tanh(-350 / 300) + 1) / 2, abs=1e-3)
    assert alpha.max() == pytest.approx((math.tanh(540 / 300) + 1) / 2, abs=1e-3)
    assert soft.provenance.thresholds == {"final": 0.5}
    assert soft.provenance.texts()["thresholds"] == "final 0.500"


def test_final_alone_measures_without_interval(soft):
    m = soft.measurements
    assert "interval" not in m
    assert "lc_share" not in m
    for key in ("volumes_mm3", "long_axis_mm", "short_axis_mm", "mean_axis_mm", "equivalent_diameter_mm", "mean_hu"):
        assert list(m[key]) == ["final"]
    assert list(m["hu_density"]) == ["hu", "final"]
    assert m["mass_mg"]["final"] > 0
    assert json.loads(json.dumps(m)) == m
    assert size_classes(m) == {"final": "4A"}
    axis = m["mean_axis_mm"]["final"]
    assert size_sentence(m) == f"{axis:.1f} mm: Lung-RADS size class 4A"
    with pytest.raises(NoNoduleError, match="mask lc: it is missing"):
        measure(soft.final, soft.final, None, soft.final)


def test_final_is_the_same_as_that_of_three_thresholds_of_the_map(ct, soft):
    """Declared otherwise, the same network has HC and LC too, and the same Final."""
    given = {**SOFT, "segments": list(SEGMENTS)}
    thresholds = {"union": 0.5, "intersection": 0.8, "final": 0.5}
    three = segment_nodule(ct, at(ct, (20, 30, 30)), model=model(given, thresholds=thresholds))
    arrays = [sitk.GetArrayFromImage(m) > 0 for m in (three.hc, three.lc, three.final)]
    assert all(a.any() for a in arrays)
    assert not (arrays[0] & arrays[1]).any()
    assert list(three.probabilities) == ["soft"]
    assert three.measurements["volumes_mm3"]["final"] == soft.measurements["volumes_mm3"]["final"]
    assert three.measurements["interval"]["volume_mm3"][0] < soft.measurements["volumes_mm3"]["final"]


def test_a_neighbor_and_a_click_beside_the_nodule():
    """Final alone: the nodule that the point means and not the one beside it; from anywhere near it the same one."""
    a, b = (20, 30, 22), (20, 30, 40)
    image = ct_with_balls((a, 5.0), (b, 6.0))
    found = [segment_nodule(image, at(image, c), model=model(SOFT)) for c in (a, (20, 30, 15), b)]
    volumes = [r.measurements["volumes_mm3"]["final"] for r in found]
    assert volumes[0] == volumes[1] == pytest.approx(4 / 3 * math.pi * 5.2**3, rel=0.04)
    assert volumes[2] == pytest.approx(4 / 3 * math.pi * 6.2**3, rel=0.04)
    with pytest.raises(NoNoduleError):
        segment_nodule(image, at(image, (5, 5, 5)), model=model(SOFT))


def test_a_nodule_larger_than_the_first_cube_is_whole():
    image = ct_with_balls(((32, 50, 50), 22.0), shape=(64, 100, 100))
    found = segment_nodule(image, at(image, (32, 50, 56)), model=model(SOFT))
    assert found.measurements["volumes_mm3"]["final"] == pytest.approx(4 / 3 * math.pi * 22.2**3, rel=0.02)


def test_slices_thicker_than_the_nodule_leave_its_best_voxel():
    notes, weak = [], np.zeros((3, 3, 3))
    weak[1, 1, 1] = 0.4
    mask = final_mask(weak, weak, 0.5, notes)
    assert mask.sum() == 1
    assert mask[1, 1, 1]
    assert "smaller than the CT's voxels" in notes[0]


def test_a_threshold_that_the_model_has_no_use_for_is_an_error(ct):
    point = at(ct, (20, 30, 30))
    with pytest.raises(NoduleError, match=r"threshold union: model 'small 0' has Final; its thresholds are final"):
        segment_nodule(ct, point, model=model(SOFT), thresholds={"union": 0.3})
    larger = segment_nodule(ct, point, model=model(SOFT), thresholds={"final": 0.2})
    assert larger.measurements["volumes_mm3"]["final"] > 1500


def test_a_plain_map_is_called_final(ct):
    class Single(BrightNetwork):
        def forward(self, x):
            return {"final": super().forward(x)["final"]}

    found = segment_nodule(ct, at(ct, (20, 30, 30)), model=model(PLAIN, Single()))
    assert list(found.probabilities) == ["final"]
    assert found.hc is None


# Text, table, picture ------------------------------------------------------------------------------------------------


def test_table_and_text_have_a_dash_or_nothing_for_intervals(soft):
    m = soft.measurements
    volume, axis = nodule_table.interval_text(m)
    assert (volume, axis) == (f"{m['volumes_mm3']['final']:.0f} [–]", f"{m['mean_axis_mm']['final']:.1f} [–]")
    shown = nodule_table.row("N", m, "solid", "ds")
    row = dict(zip(nodule_table.columns(), shown.cells(), strict=True))
    empty = {title for title, value in row.items() if value is None}
    assert empty == {
        *("Volume low [mm³]", "Volume high [mm³]", "Mean axis low [mm]", "Mean axis high [mm]", "Mass low [mg]"),
        *("Mass high [mg]", "Mean density HC [HU]", "Mean density LC [HU]", "LC share [%]"),
    }
    assert row["Lung-RADS size class"] == "4A"
    lines = nodule_table.as_csv([shown]).splitlines()
    assert lines[0] == ",".join(nodule_table.columns())
    assert lines[1].startswith(f"N,{row['Volume [mm³]']},,,{row['Mean axis [mm]']},,,")
    text = nodule_table.as_text("N", m, "solid", "ds")
    assert "HC" not in text
    assert "LC" not in text
    assert "[" not in text
    assert f"Volume {m['volumes_mm3']['final']:.0f} mm³" in text
    assert "Outlined by ds; the model has no interval. For research" in text


def test_the_picture_has_one_outline_and_no_interval(ct, soft, tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    result_figure(ct, soft, tmp_path / "n.png", title="a ball")
    (figure,) = drawn
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["Final"]
    words = " ".join(t.get_text() for t in figure.findobj(Text))
    assert "HC" not in words
    assert "union" not in words
    assert "soft mask" in words
    assert all(interval == "" for _, _, interval in measurement_lines(soft.measurements))


# Command line --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    """A real DSNet of one level of width 2 as a bundle; its weights make it call bright what lies above -500 HU."""
    options = {"name": "dsnet", "in_channels": 3, "width": 4, "levels": 2, "detail": "none"}
    torch.manual_seed(0)
    built = networks.create(options["name"], **{k: v for k, v in options.items() if k != "name"})
    given = record_dict(outputs_of_network(sorted(built.eval()(torch.zeros(1, 3, 16, 16)))))
    metadata = bundle_metadata(name="tiny-dsnet", network=options, outputs=given, thresholds={"final": 0.5})
    return write_bundle(tmp_path / "tiny-dsnet", [built.state_dict()], metadata, "card")


def test_segment_writes_final_its_soft_mask_and_a_report(ct, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "load_model", lambda *a, **k: model(SOFT))
    sitk.WriteImage(ct, str(tmp_path / "ct.nrrd"))
    x, y, z = at(ct, (20, 30, 30))
    arguments = ["segment", str(tmp_path / "ct.nrrd"), "--point", str(x), str(y), str(z)]
    arguments += ["--output", str(tmp_path / "n.seg.nrrd"), "--probabilities", str(tmp_path / "maps")]
    arguments += ["--report", str(tmp_path / "n.json"), "--figure", str(tmp_path / "n.png")]
    assert command_line.main(arguments) == 0
    said = capsys.readouterr().out
    assert "[" not in said
    assert "LC" not in said
    assert "(no interval: Final alone)" in said
    assert list(read_segmentation(tmp_path / "n.seg.nrrd")) == ["Final"]
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["probability-soft.nrrd"]
    alpha = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "maps" / "probability-soft.nrrd")))
    assert 0 < alpha.max() <= 1
    report = json.loads((tmp_path / "n.json").read_text())
    assert "interval" not in report["measurements"]
    assert report["measurements"]["volumes_mm3"].keys() == {"final"}
    assert (tmp_path / "n.png").stat().st_size > 10_000


def test_models_says_what_each_predicts(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(model_store.FOLDER_VARIABLE, str(tmp_path))
    assert command_line.main(["models"]) == 0
    first, second = capsys.readouterr().out.split("tiny-dsnet: ")
    assert first.startswith(DEFAULT_BUNDLE)
    assert "segments: HC, LC, Final, with an interval on every size\n" in first
    assert "probability maps: union, intersection, final\n" in first
    assert "segments: Final, without intervals\n  probability maps: soft\n" in second
    shown = model_store.summary("tiny-dsnet")
    assert (shown.outputs.segments, shown.outputs.probabilities) == (("Final",), ("soft",))
    assert shown.outputs.maps == ("final", "soft")
    loaded = load_model(bundle, "cpu")
    assert loaded.outputs == shown.outputs
    assert loaded.outputs.final_map == "soft"


# Export and evaluation -----------------------------------------------------------------------------------------------

MEASURED = {"final": 0.8, "final_sd": 0.1, "hc": 0.7, "hc_sd": 0.1, "union": 0.7, "union_sd": 0.1, "coverage": 0.8}
FIGURES = {
    "test": {"all": {"nodules": 3, **MEASURED, "width_ratio": 1.0, "ged": 0.3, "failures": 0.25}},
    "calibration": {"hc": 0.7},
    "calibrated_on": "something",
}
CALIBRATED = {"union": 0.3, "intersection": 0.7, "final": 0.46}


@pytest.fixture
def run(tmp_path):
    """Function that makes a run folder as training leaves it, of an untrained network."""

    def make(network, folder="run"):

        config = load_config("ugsnet-compact")
        config = replace(config, network=read_record(Network, network, "test"))
        config = changed(config, {"input": {"slice_offsets": [-1, 0, 1], "position": False}})
        out = tmp_path / folder
        out.mkdir()
        state = {k: v.contiguous() for k, v in build_network(config).state_dict().items()}
        save_file(state, out / "best.safetensors")
        part = {"patients": ["P"], "nodules": ["N"]}
        (out / "config.json").write_text(json.dumps(record_dict(config)))
        (out / "split.json").write_text(json.dumps({"training": part, "validation": part}))
        (out / "conditions.json").write_text("{}")
        return out

    return make


UNET = {"name": "unet", "width": 4, "levels": 2}
DSNET = {"name": "dsnet", "width": 4, "levels": 2, "detail": "none"}
UGSNET = {"name": "ugsnet", "width": 8, "levels": 2, "attention_pool": 2}


def exported(run, tmp_path, **more):
    given = {"thresholds": CALIBRATED, "averaging": Averaging(), "figures": FIGURES, **more}
    folder = export_bundle([run], tmp_path / "bundle", version="1", **given)
    return load_model(folder, "cpu"), (folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("network", "intervals", "thresholds", "segments", "probabilities"),
    [
        (UGSNET, False, CALIBRATED, *EVERYTHING),
        (UNET, False, {"final": 0.46}, ("Final",), ("final",)),
        (UNET, True, CALIBRATED, EVERYTHING[0], ("final",)),
        (DSNET, False, {"final": 0.5}, ("Final",), ("soft",)),
        (DSNET, True, CALIBRATED, EVERYTHING[0], ("soft",)),
    ],
)
def test_export_says_what_the_network_predicts(run, tmp_path, network, intervals, thresholds, segments, probabilities):
    loaded, card = exported(run(network), tmp_path, intervals=intervals)
    assert (loaded.outputs.segments, loaded.outputs.probabilities) == (segments, probabilities)
    assert loaded.metadata.thresholds == thresholds
    alone = segments == ("Final",)
    assert ("HC" in card) != alone
    assert ("Coverage" in card) != alone
    assert "{" not in card
    assert "| Dice of Final with what at least half of the readers included | 0.800 |" in card
    assert "All 3 nodules with two or more readers" in card
    assert ("hc" in loaded.metadata.figures.test["all"]) != alone
    assert (loaded.metadata.figures.calibration is None) == alone


def test_a_card_shows_pooled_figures_with_their_intervals(run, tmp_path):
    spread = {"final_interval": [0.78, 0.82], "final_folds_sd": 0.01, "hc_interval": [0.6, 0.8], "hc_folds_sd": 0.02}
    figures = {"test": {"all": {**FIGURES["test"]["all"], **spread}}}
    loaded, card = exported(run(UNET), tmp_path, figures=figures)
    assert "at least half of the readers included | 0.800 (0.780 to 0.820) |" in card
    assert "95 % intervals" in card
    shown = loaded.metadata.figures.test["all"]
    assert {k for k in shown if k.endswith(("_interval", "_folds_sd"))} == {"final_interval", "final_folds_sd"}
    loaded, card = exported(run(UGSNET, "other"), tmp_path / "other", figures=figures)
    assert "0.700 (0.600 to 0.800)" in card


def test_export_carries_the_calibration_for_size_where_there_is_an_interval(run, tmp_path):
    slopes = {"intersection": 0.8}
    loaded, card = exported(run(UGSNET), tmp_path, size_calibration=slopes)
    assert loaded.metadata.size_calibration == slopes
    assert "logits of the intersection by 0.8 for every doubling of the diameter from 8 mm" in card
    loaded, card = exported(run(UNET, "other"), tmp_path / "alone", size_calibration=slopes)
    assert not loaded.metadata.size_calibration
    assert "doubling" not in card


def test_export_without_calibration_and_with_other_figures(run, tmp_path):
    ds = run(DSNET)
    loaded, _ = exported(ds, tmp_path, thresholds=None, averaging=None, figures={})
    assert loaded.metadata.thresholds == {"final": 0.5}
    with pytest.raises(ConfigError, match="HC and LC need calibrated thresholds"):
        exported(ds, tmp_path, thresholds=None, intervals=True)
    elsewhere = {**FIGURES, "test_conditions": {"thresholds": CALIBRATED}}
    with pytest.raises(ConfigError, match=r"measured at a threshold of final of 0\.46, the bundle's is 0\.5"):
        exported(ds, tmp_path, figures=elsewhere)


def test_runs_of_all_networks_are_compared_with_three_segments(run):
    for number, network in enumerate((UNET, DSNET, UGSNET)):
        found = run_model(run(network, f"run{number}"))
        assert found.outputs.segments == EVERYTHING[0]
        assert found.metadata.thresholds == dict.fromkeys(EVERYTHING[1], 0.5)


def test_final_alone_is_evaluated_by_final_alone(tmp_path):
    nodules = [make_nodule(n) for n in range(2)]
    alone = model(SOFT)
    scores = [evaluate_nodule(n, alone, jitter=2) for n in nodules]
    assert all(s.final > 0.8 and s.hc is None and s.union is None and s.interval_mm3 is None for s in scores)
    figures = record_dict(summarize(scores))
    assert {"final", "final_sd", "ged", "failures", "jitter"} <= figures.keys()
    assert not {"hc", "union", "coverage", "width_ratio"} & figures.keys()
    assert 0 < figures["ged"] < 1
    nothing = evaluate_nodule(nodules[0], model(SOFT, thresholds={"final": 0.9999}))
    assert nothing.error
    assert (nothing.final, nothing.hc) == (0.0, None)
    write_scores(tmp_path / "s.csv", scores)
    header, first, _ = (line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines())
    row = dict(zip(header, first, strict=True))
    assert (row["hc"], row["interval_mm3"], row["readers_inside"]) == ("", "", "")
    members = evaluate_ensemble(nodules[0], [alone, model(SOFT, thresholds={"final": 0.3})])
    assert members.union is not None
    assert members.hc > 0.5


def test_known_names_are_those_of_segments():
    assert EVERYTHING[1] == outputs.INTERVAL_MAPS
    assert list(SEGMENTS) == list(EVERYTHING[0])
