"""Bundles: written whole, checked by hash, never unpickled, refused when anything doesn't fit."""

import json

import pytest
import torch

from fake_model import SMALL_NETWORK, bundle_metadata
from LungNoduleKit.errors import BundleError
from LungNoduleUncertaintyLib import NoduleError, load_model, networks
from LungNoduleUncertaintyLib.models.bundle import choose_device, write_bundle
from LungNoduleUncertaintyLib.models.metadata import checked_weights, file_sha256, metadata_sha256, read_metadata
from LungNoduleUncertaintyLib.models.store import available_bundles, find_bundle

NAN, HALF = float("nan"), {"union": 0.5, "intersection": 0.5}
ALL = {"segments": ["HC", "LC", "Final"], "probabilities": ["union", "intersection", "final"]}
THREE = {"slice_offsets": [-1, 0, 1]}


def small_network(seed=0):
    torch.manual_seed(seed)
    options = dict(SMALL_NETWORK)
    return networks.create(options.pop("name"), **options).eval()


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "small", [small_network().state_dict()], bundle_metadata(), "# card\n")


def rewrite(bundle, sign=True, **changes):
    path = bundle / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    if sign:
        metadata["sha256"] = metadata_sha256(metadata)
    path.write_text(json.dumps(metadata))


def test_round_trip_in_half_precision(bundle):
    model = load_model(bundle, "cpu")
    original, loaded = small_network().state_dict(), model.networks[0].state_dict()
    for key, value in original.items():
        torch.testing.assert_close(loaded[key], value, atol=2e-3, rtol=2e-3)
    assert {p.name for p in bundle.iterdir()} == {"model.safetensors", "metadata.json", "MODEL_CARD.md"}
    assert not model.networks[0].training
    assert model.outputs.maps == ("union", "intersection", "final", "single")


def test_several_networks_are_all_loaded(tmp_path):
    states = [small_network(seed).state_dict() for seed in (0, 1)]
    model = load_model(write_bundle(tmp_path / "pair", states, bundle_metadata(), ""), "cpu")
    assert len(model.networks) == 2


def test_the_network_for_rare_nodules_lies_beside_the_others(tmp_path):
    usual, rare = (small_network(seed).state_dict() for seed in (0, 1))
    record = {"training": {"configuration": {}, "data": "d", "patients": {}, "nodules": {"training": 3}}}
    folder = write_bundle(tmp_path / "both", [usual], bundle_metadata(rare=record), "", rare)
    model = load_model(folder, "cpu")
    assert len(model.networks) == 1
    assert model.rare.metadata is model.metadata
    assert model.rare.rare is None
    for key, value in model.rare.networks[0].state_dict().items():
        torch.testing.assert_close(value, rare[key], atol=2e-3, rtol=2e-3)
    (folder / "rare.safetensors").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"rare\.safetensors.*SHA-256"):
        load_model(folder, "cpu")


def test_changed_weights_are_refused(bundle):
    path = bundle / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"model.safetensors: corrupted or changed"):
        load_model(bundle)


def test_changed_metadata_is_refused(bundle):
    rewrite(bundle, sign=False, thresholds={"union": 0.1, "intersection": 0.9, "final": 0.5})
    with pytest.raises(BundleError, match=r"metadata.json: was changed after the bundle was written"):
        load_model(bundle)


@pytest.mark.parametrize(
    ("slopes", "reason"),
    [
        (0.8, "'size_calibration' must be a table"),
        ({"intersection": "much"}, "'size_calibration.intersection' must be a number"),
        ({"middle": 0.8}, "unknown key 'size_calibration.middle'"),
    ],
)
def test_a_calibration_for_size_without_slopes_is_refused(bundle, slopes, reason):
    rewrite(bundle, size_calibration={"intersection": 0.8})
    assert read_metadata(bundle).size_calibration == {"intersection": 0.8}
    rewrite(bundle, size_calibration=slopes)
    with pytest.raises(BundleError, match=rf"metadata.json: {reason}"):
        load_model(bundle)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": {}}, "unknown key 'inputs'"),
        ({"input": {"slice_offset": [0]}}, "unknown key 'input.slice_offset'"),
        ({"input": {"through_plane": "own"}}, "'input.through_plane' must be one of 'isotropic', 'native'"),
        ({"thresholds": {"union": 0.5, "intersection": 0.5, "final": "0.5"}}, "'thresholds.final' must be a number"),
        ({"thresholds": {"all": 0.5}}, "unknown key 'thresholds.all'"),
        ({"averaging": {"views": ["oblique"]}}, r"'averaging.views\[0\]' must be one of 'axial'"),
        ({"outputs": ["union", "intersection", "final"]}, "'outputs' must be a table"),
        ({"weights": []}, "names no file of weights"),
        ({"weights": [{"file": "", "sha256": ""}]}, "weights '': missing; the bundle is incomplete"),
        ({"weights": [{"file": "x" * 5000, "sha256": ""}]}, "weights 'xxx.*xxx': missing; the bundle is incomplete"),
        ({"averaging": {"views": []}}, "averaging: views has to be one or more of axial, coronal, sagittal"),
        ({"averaging": {"views": ["axial", "axial"]}}, "averaging: views has to be .* each once"),
        ({"averaging": {"flips": []}}, "averaging: flips has to be one or more lists of the axes 0, 1 and 2"),
        ({"averaging": {"flips": [[], [3]]}}, "averaging: flips has to be .*, not "),
        ({"averaging": {"flips": [[1, 1]]}}, "averaging: flips has to be .* each once"),
        ({"input": {"cube_sizes": []}}, r"input: cube_sizes has to ascend between 8 and 512, not \(\)"),
        ({"input": {"cube_sizes": [64, 48]}}, "input: cube_sizes has to ascend"),
        ({"input": {"cube_sizes": [64, 4096]}}, "input: cube_sizes has to ascend"),
        ({"input": {"slice_offsets": []}}, "input: slice_offsets has to be one or more numbers within 64"),
        ({"input": {"window_hu": []}}, "input: window_hu has to be "),
        ({"input": {"window_hu": [400, -1000]}}, "input: window_hu has to be "),
        ({"input": {"spacing_mm": 0}}, "input: spacing_mm has to lie between"),
        ({"input": {"magnification": -1}}, "input: magnification has to lie between"),
        (
            {"thresholds": {**HALF, "final": 50}},
            "'thresholds.final' has to lie between 0 and 1",
        ),
        (
            {"thresholds": {**HALF, "final": NAN}},
            "'thresholds.final' must be a finite number, not nan",
        ),
        ({"size_calibration": {"final": 1e9}}, "'size_calibration.final' has to lie between -10 and 10"),
        ({"figures": {"test": {"all": {"final": NAN}}}}, "'figures.test.all.final' must be a finite number"),
        ({"outputs": {**ALL, "maps": ["final"]}}, "outputs: probabilities .* aren't all among the network's maps"),
    ],
)
def test_a_key_or_value_that_isnt_known_is_named_with_the_file(bundle, changes, reason):
    rewrite(bundle, **changes)
    with pytest.raises(BundleError, match=rf"small/metadata.json: {reason}") as raised:
        checked_weights(bundle, read_metadata(bundle))
    assert len(str(raised.value)) < 400 + len(str(bundle))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}"])
def test_broken_metadata_is_refused(bundle, content):
    (bundle / "metadata.json").write_text(content)
    with pytest.raises(BundleError, match=r"metadata.json"):
        load_model(bundle)


def test_missing_weights_and_truncated_weights(bundle):
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    rewrite(bundle, weights=[{"file": path.name, "sha256": file_sha256(path)}])
    with pytest.raises(BundleError, match="doesn't fit the network"):
        load_model(bundle)
    path.unlink()
    with pytest.raises(BundleError, match="missing; the bundle is incomplete"):
        load_model(bundle)


def test_weights_of_another_network_are_refused(bundle):
    rewrite(bundle, network={**SMALL_NETWORK, "width": 16})
    with pytest.raises(BundleError, match="doesn't fit the network"):
        load_model(bundle)
    rewrite(bundle, network={"name": "nothing"})
    with pytest.raises(BundleError, match="unknown network 'nothing'"):
        load_model(bundle)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    state = small_network().state_dict()
    name = next(name for name, weights in state.items() if weights.is_floating_point())
    state[name].view(-1)[3] = value
    bundle = write_bundle(tmp_path / "odd", [state], bundle_metadata(), "# card\n")
    with pytest.raises(BundleError, match=f"weights {name} aren't finite"):
        load_model(bundle, "cpu")


def test_a_weight_file_is_never_looked_for_outside_of_the_bundle(bundle, tmp_path):
    (tmp_path / "elsewhere.safetensors").write_bytes((bundle / "model.safetensors").read_bytes())
    entry = {"file": "../elsewhere.safetensors", "sha256": file_sha256(tmp_path / "elsewhere.safetensors")}
    rewrite(bundle, weights=[entry])
    with pytest.raises(BundleError, match="missing"):
        load_model(bundle)


def test_a_pickle_is_not_opened(bundle, tmp_path):
    """A file that would run code when unpickled is refused as weights, although its hash is right."""

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = bundle / "model.safetensors"
    torch.save({"weight": Trap()}, path)
    rewrite(bundle, weights=[{"file": path.name, "sha256": file_sha256(path)}])
    with pytest.raises(BundleError):
        load_model(bundle)
    assert not (tmp_path / "sprung").exists()


def test_another_format_and_unknown_names(bundle, tmp_path):
    rewrite(bundle, format=99)
    with pytest.raises(BundleError, match="bundle format 99"):
        load_model(bundle)
    with pytest.raises(BundleError, match="model 'nowhere': neither a known bundle"):
        find_bundle("nowhere")
    assert issubclass(BundleError, NoduleError)


def test_writing_leaves_nothing_behind_when_it_fails(tmp_path):
    with pytest.raises(TypeError):
        write_bundle(
            tmp_path / "small", [small_network().state_dict()], bundle_metadata(network={"extra": object()}), ""
        )
    assert list(tmp_path.iterdir()) == []


def test_devices():
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(BundleError, match="no CUDA device"):
            choose_device("cuda")
    with pytest.raises(BundleError, match="not a device"):
        choose_device("abacus")


def test_shipped_bundles_are_sound_and_small():
    assert "ugsnet-compact" in available_bundles()
    for name in available_bundles():
        folder = find_bundle(name)
        metadata = read_metadata(folder)
        assert load_model(name, "cpu").metadata == metadata
        assert sum(p.stat().st_size for p in folder.iterdir()) < 25e6
        assert metadata.data_license
        assert metadata.figures.test
        assert metadata.name in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": {"slice_offsets": [0]}}, "it takes 3 channels of a size in steps of 2, not 1 channels"),
        (
            {"input": {**THREE, "cube_sizes": [48, 65]}},
            "it takes 3 channels of a size in steps of 2, not cube_sizes 65",
        ),
        (
            {"outputs": {**ALL, "maps": ["union", "intersection", "final", "soft"]}},
            "it has no map 'soft' of the input's",
        ),
        ({"network": {**SMALL_NETWORK, "widht": 8}}, "unknown key 'network.widht'"),
        ({"network": {**SMALL_NETWORK, "width": "8"}}, "'network.width' must be a whole number, not '8'"),
        ({"network": {**SMALL_NETWORK, "width": 10**6}}, "'network.width' must be at least 0 and at most 4096"),
        ({"network": {**SMALL_NETWORK, "attention_pool": 100}}, ""),
        ({"network": {"name": "x" * 5000}}, "unknown network 'xxx"),
        ({"network": {}}, "unknown network ''"),
    ],
)
def test_a_network_that_cannot_take_what_the_metadata_says_is_refused(bundle, changes, reason):
    rewrite(bundle, **changes)
    with pytest.raises(BundleError, match=rf"doesn't fit the network that the metadata names: .*{reason}") as raised:
        load_model(bundle, "cpu")
    assert len(str(raised.value)) < 500 + len(str(bundle))


def test_a_format_of_any_length_is_shown_in_a_line(bundle):
    rewrite(bundle, format="x" * 5000)
    with pytest.raises(BundleError, match=r"bundle format 'xxx.*xxx', this version reads 1") as raised:
        load_model(bundle, "cpu")
    assert len(str(raised.value)) < 200 + len(str(bundle))
