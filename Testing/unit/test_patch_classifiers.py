"""Patch classifiers: what is cut, pooled and classified, what training draws, and that they learn and resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.networks.cascaded_cnn import OneLargeKernel
from LungNoduleUncertaintyLib.networks.cf_cnn import CentralPool, central_bins
from LungNoduleUncertaintyLib.networks.db_resnet import central_intensities
from LungNoduleUncertaintyLib.networks.mc_cnn import MultiCropPool
from LungNoduleUncertaintyLib.networks.mcroi_cnn import channels
from LungNoduleUncertaintyLib.networks.patch_classifier import (
    PatchClassifier,
    PatchStack,
    between,
    nearest_slices,
    resize,
    stretch,
)
from LungNoduleUncertaintyLib.outlining.prediction import predict_cube
from Training.config import NETWORK_TABLES, ConfigError, Network, Patch, changed, load_config
from Training.data.folder import load_folder
from Training.data.nodule import fingerprint
from Training.evaluation.models import run_model
from Training.experiments import definition, jobs
from Training.experiments.rows import jobs_of
from Training.trainers.patches import PatchTrainer, boundary_distance, pixel_weights, sample_pixels
from Training.trainers.registry import TRAINERS, make_trainer
from training_data import make_nodule, write_folder

# Name, slices, options of a small form.
SMALL = [
    ("cascaded_cnn", 1, {"width": 2, "patch": 17}),
    ("cf_cnn", 3, {"width": 9, "patch": 13, "context": 21}),
    ("db_resnet", 5, {"width": 4, "patch": 13, "scales": (13, 17, 21), "slice_step": 2}),
    ("mc_cnn", 1, {"width": 8, "patch": 19}),
    ("mcroi_cnn", 1, {"width": 4, "patch": 13}),
    ("mv_dcnn", 5, {"width": 6, "patch": 13, "context": 21, "slice_step": 2}),
]
small = pytest.mark.parametrize(("name", "slices", "options"), SMALL, ids=[name for name, _, _ in SMALL])


def build(name, slices, seed=0, **options):
    torch.manual_seed(seed)
    return networks.create(name, in_channels=slices, **options)


def pixels(*rows):
    return torch.tensor(rows)


# --- cutting ---


def padded(stack, size, depth=None):
    """The stack with `size // 2` pixels of edge, and its slices repeated to `depth`, by numpy."""
    missing = 0 if depth is None else depth - stack.shape[1]
    return np.pad(stack.numpy(), [(0, 0), (missing // 2, missing // 2), *([(size // 2, size // 2)] * 2)], mode="edge")


@pytest.mark.parametrize("size", [5, 9])
def test_patches_are_pieces_of_the_padded_stack_in_all_views(size):
    stack = torch.rand(2, 5, 8, 11)
    points = pixels((0, 0, 0), (1, 7, 10), (1, 3, 6), (0, 7, 0))
    cut, half = PatchStack(stack), size // 2
    flat, deep = padded(stack, size), padded(stack, size, size)
    for index, (b, y, x) in enumerate(points.tolist()):
        axial = flat[b, 1:4, y : y + size, x : x + size]
        assert np.array_equal(cut.axial(points, size, 3)[index].numpy(), axial)
        assert np.array_equal(cut.axial(points, size)[index, 0].numpy(), axial[1])
        assert np.array_equal(cut.coronal(points, size)[index, 0].numpy(), deep[b, :, y + half, x : x + size])
        assert np.array_equal(cut.sagittal(points, size)[index, 0].numpy(), deep[b, :, y : y + size, x + half])
        centers = [view[index, 0, half, half] for view in (cut.axial(points, size), cut.coronal(points, size))]
        assert centers[0] == centers[1] == stack[b, 2, y, x]


def test_too_deep_a_stack_is_cut_about_its_middle_and_too_flat_a_one_repeated():
    stack = torch.arange(7.0)[None, :, None, None].expand(1, 7, 4, 4)
    assert nearest_slices(stack, 3)[0, :, 0, 0].tolist() == [2, 3, 4]
    assert nearest_slices(stack, 9)[0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 6]
    assert PatchStack(stack).coronal(pixels((0, 1, 1)), 5)[0, 0, :, 2].tolist() == [1, 2, 3, 4, 5]


def test_slices_farther_apart_than_pixels_are_interpolated():
    stack = torch.tensor([0.0, 2.0, 8.0])[None, :, None, None]
    assert stretch(stack, 2).flatten().tolist() == [0, 1, 2, 5, 8]
    assert stretch(stack, 1) is stack
    rows = PatchStack(stack, slice_step=2).sagittal(pixels((0, 0, 0)), 7)[0, 0, :, 3]
    assert rows.tolist() == [0, 0, 1, 2, 5, 8, 8]


def test_resizing_keeps_the_center():
    patch = torch.rand(2, 1, 65, 65)
    small = resize(patch, 35)
    assert small.shape == (2, 1, 35, 35)
    assert torch.allclose(small[..., 17, 17], patch[..., 32, 32])
    assert torch.allclose(small[..., 0, -1], patch[..., 0, -1])


# --- pooling ---


def test_central_pooling_by_hand():
    assert central_bins(13) == [(0, 3, 3), (3, 5, 2), (5, 8, 1), (8, 10, 2), (10, 13, 3)]
    assert [CentralPool.out_size(size) for size in (3, 5, 7, 9, 17, 35)] == [3, 3, 3, 5, 9, 17]
    x = torch.arange(13.0).expand(1, 1, 13, 13)
    ends = [2, 4, 5, 6, 7, 9, 12]
    assert CentralPool()(x)[0, 0].tolist() == [ends] * 7
    assert CentralPool()(x.mT)[0, 0].T.tolist() == [ends] * 7
    field = torch.rand(2, 3, 35, 35)
    out = CentralPool()(field)
    assert torch.equal(out[..., 8, 8], field[..., 17, 17])  # the middle pixel is kept as it is
    assert torch.equal(out.flip(2, 3), CentralPool()(field.flip(2, 3)))
    assert torch.equal(out.amax((2, 3)), field.amax((2, 3)))  # every pixel is in a bin
    with pytest.raises(ValueError, match="odd"):
        central_bins(8)


def test_multi_crop_pooling_by_hand():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    whole, half, inner = MultiCropPool()(x)[0]
    assert whole.tolist() == [[27, 31], [59, 63]]
    assert half.tolist() == [[27, 29], [43, 45]]
    assert inner.tolist() == [[27, 28], [35, 36]]
    with pytest.raises(ValueError, match="multiple of 8"):
        MultiCropPool()(torch.zeros(1, 1, 12, 12))


def test_central_intensities_by_hand():
    x = torch.zeros(1, 2, 7, 7)
    x[0, 0, 3, 3], x[0, 1, 1, 1] = 9.0, 25.0
    assert central_intensities(x, (1, 3, 5))[0].tolist() == pytest.approx([9, 0, 1, 0, 9 / 25, 1])


def test_channels_of_mcroi():
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    own, shape, gradient = channels(ramp)[0]
    assert torch.equal(own, ramp[0, 0])
    assert shape[0].tolist() == [0, 0, 2, 3, 4]
    assert torch.allclose(gradient[2], torch.tensor([0.5, 1, 1, 1, 0.5]))


def test_the_large_kernel_is_a_convolution():
    layer = OneLargeKernel(3, 5)
    x = torch.rand(2, 3, 9, 12)
    assert torch.allclose(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias), atol=1e-5)


# --- networks ---


@small
@pytest.mark.parametrize("size", [(16, 16), (12, 19)])
def test_forward_is_every_pixels_classification(name, slices, options, size):
    network = build(name, slices, chunk=50, **options).eval()
    image = torch.rand(2, slices, *size)
    with torch.no_grad():
        out = network(image)
        points = torch.cartesian_prod(torch.arange(2), torch.arange(size[0]), torch.arange(size[1]))
        patches = network.cut(PatchStack(image, network.slice_step), points)
        one_by_one = network.classify(*patches).view(2, 1, *size)
        some = points[::7]
        at = network(image, some)["final"][:, 0]
    assert list(out) == ["final"]
    assert out["final"].shape == (2, 1, *size)
    assert torch.allclose(out["final"], one_by_one, atol=1e-5)
    assert torch.allclose(at, out["final"][some[:, 0], 0, some[:, 1], some[:, 2]], atol=1e-5)
    assert out["final"].std() > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cf_cnn", {"in_channels": 2}, "odd number of slices"),
        ("cf_cnn", {"patch": 34}, "patches odd"),
        ("mc_cnn", {"patch": 33}, "multiple of 16"),
        ("mcroi_cnn", {"patch": 7}, "at least 9"),
        ("cascaded_cnn", {"patch": 11}, "at least 13"),
        ("db_resnet", {"scales": (35, 65)}, "three scales"),
        ("mv_dcnn", {"evaluation_stride": 0}, "at least 1"),
        ("mv_dcnn", {"width": 0}, "width"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        networks.create(name, **options)


def test_a_coarser_grid_is_interpolated_and_refined():
    coarse = torch.tensor([[[-4.0, 4.0], [-4.0, -8.0]]])
    logits, unsure = between(coarse, 4, 3, 2)
    assert torch.allclose(logits[0, 0], torch.tensor([-4.0, 0, 4]))
    assert torch.allclose(logits[0, 1], torch.tensor([-4.0, -3, -2]))
    assert torch.equal(logits[0, 3], logits[0, 2])  # beyond the grid's last row
    assert unsure[0].tolist() == [[False, True, False], [False, True, True], [False] * 3, [False] * 3]


def test_refined_pixels_are_the_exact_ones():
    image = torch.rand(2, 1, 17, 14)
    exact = build("mcroi_cnn", 1, width=4, patch=13).eval()
    coarse = build("mcroi_cnn", 1, width=4, patch=13, evaluation_stride=3, refine=False).eval()
    refined = build("mcroi_cnn", 1, width=4, patch=13, evaluation_stride=3).eval()
    with torch.no_grad():
        for network in (exact, coarse, refined):
            network.head[-1].weight *= 60
            network.head[-1].bias *= 0
        middle = exact(image)["final"].median()
        for network in (exact, coarse, refined):
            network.head[-1].bias -= middle
        a, b, c = (network(image)["final"] for network in (exact, coarse, refined))
        unsure = between(b[:, 0, ::3, ::3], 17, 14, 3)[1][:, None]
    assert 0.05 < unsure.float().mean() < 0.95
    assert torch.allclose(c[unsure], a[unsure], atol=1e-4)
    assert torch.equal(c[~unsure], b[~unsure])
    assert torch.allclose(b[..., ::3, ::3], a[..., ::3, ::3], atol=1e-4)


# --- sampling ---


def disk(radius=6.0, size=48):
    grid = torch.arange(size) - size / 2 + 0.5
    return (grid[:, None] ** 2 + grid**2).sqrt() < radius


def sampling(kind, count=4000, share=0.5):
    return Patch(count, kind, nodule_share=share, boundary_px=3.0, boundary_floor=0.05)


def draw(mask, options, seed=0):
    return sample_pixels(mask, options, torch.Generator().manual_seed(seed))


def test_distance_to_the_outline():
    mask = torch.zeros(3, 5, 5)
    mask[0, :, :2], mask[1] = 1, 1
    distance = boundary_distance(mask)
    assert distance[0, 2].tolist() == [1.5, 0.5, 0.5, 1.5, 2.5]
    assert torch.isinf(distance[1:]).all()


@pytest.mark.parametrize("kind", ["uniform", "balanced", "boundary"])
def test_shares_of_what_is_drawn(kind):
    masks = torch.stack([disk(), torch.zeros(48, 48, dtype=torch.bool), torch.ones(48, 48, dtype=torch.bool)])
    points = draw(masks, sampling(kind, share=0.4))
    assert points[:, 0].bincount().tolist() == [4000] * 3
    inside = masks[tuple(points.unbind(1))].view(3, -1).float().mean(1)
    assert inside[1:].tolist() == [0, 1]
    expected = disk().float().mean() if kind == "uniform" else 0.4
    assert inside[0] == pytest.approx(float(expected), abs=0.02 if kind == "uniform" else 1e-6)
    assert torch.equal(points, draw(masks, sampling(kind, share=0.4)))
    assert not torch.equal(points, draw(masks, sampling(kind, share=0.4), seed=1))


def test_boundary_sampling_draws_as_its_weights_say():
    mask = disk()[None]
    options = sampling("boundary", 20000)
    weights, distance = pixel_weights(mask, options), boundary_distance(mask)
    assert weights.min() >= 0.05
    assert weights[distance == 0.5].min() == pytest.approx(0.05 + 0.95 * np.exp(-1 / 72))
    far = (distance > 9) & ~mask
    wanted = float(weights[far].sum() / weights[~mask].sum())
    points = draw(mask, options)
    y, x = points[:, 1], points[:, 2]
    outside = ~mask[0, y, x]
    assert float(far[0, y, x][outside].float().mean()) == pytest.approx(wanted, abs=0.015)
    uniform = draw(mask, sampling("balanced", 20000))
    assert far[0, uniform[:, 1], uniform[:, 2]].float().mean() > 2 * far[0, y, x].float().mean()


def test_an_unknown_sampling_is_refused():
    with pytest.raises(ConfigError, match=r"patch\.sampling"):
        load_config("patch", ["patch.sampling=hard"])


# --- training ---


def configuration(name="mcroi_cnn", slices=1, **more):
    config = load_config(
        "patch",
        ["data.crop=24", "training.batch=2", "training.epochs=2", "patch.per_slice=64", "schedule.name=constant"],
    )
    config = changed(config, {"input": {"slice_offsets": list(range(-(slices // 2), slices // 2 + 1))}})
    return replace(config, network=Network(name, options=more))


def test_every_patch_classifier_has_this_trainer():
    assert {name for name, _, _ in SMALL} <= set(NETWORK_TABLES["patch"])
    for name in networks.available():
        patches = issubclass(networks.network_class(name), PatchClassifier)
        assert (TRAINERS[networks.training_of(name)] is PatchTrainer) == patches == (name in NETWORK_TABLES["patch"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loss.fusion=bce+dice", "single pixels"),
        ("training.accumulate=2", "accumulate"),
        ("patch.per_slice=0", "per_slice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message, tmp_path):
    config = load_config("patch", [change])
    with pytest.raises(ConfigError, match=message):
        make_trainer(config, [make_nodule(0)], [], tmp_path)


@small
def test_each_overfits_two_nodules(name, slices, options, tmp_path):
    width = 2 * options["width"] if name in ("cascaded_cnn", "mcroi_cnn") else options["width"]
    config = configuration(name, slices, **{**options, "width": width}, evaluation_stride=4)
    config = changed(config, {"training": dict(epochs=40, validate_every=40)})
    config = changed(config, {"optimizer": {"lr": 5e-3 if name == "cascaded_cnn" else 1e-2}})
    nodules = [make_nodule(0), make_nodule(3)]
    trainer = make_trainer(config, nodules, nodules, tmp_path, progress=False)
    assert trainer.train()["score"] > 0.75


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path):
    config = configuration(width=4, patch=13, evaluation_stride=4)
    nodules = [make_nodule(number) for number in range(6)]
    states = []
    for folder, stops in (("whole", [None]), ("stopped", [3, None])):
        for stop in stops:
            trainer = make_trainer(
                config, nodules[:4], nodules[4:], tmp_path / folder, progress=False, checkpoint_seconds=0.0
            )
            trainer.train(stop_at_step=stop)
        states.append(trainer.model.module.state_dict())
    assert trainer.step == 4
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_target_is_what_the_loss_names(tmp_path):
    """With half of the readers inside, the consensus is 1 and the annotations' mean is not."""
    nodules = [make_nodule(2), make_nodule(5)]
    losses = {}
    for target in ("consensus", "annotations"):
        config = configuration(width=4, patch=13)
        config = changed(config, {"loss": {"final_target": target}})
        trainer = make_trainer(config, nodules, [], tmp_path / target, progress=False)
        parts = trainer._train_step()
        losses[target] = float(parts["total"].detach())
        assert set(parts) == {"final", "total"}
    assert losses["consensus"] != losses["annotations"]


def test_the_first_stage_of_the_cascade_learns_too(tmp_path):
    config = configuration("cascaded_cnn", 1, width=2, patch=17)
    trainer = make_trainer(config, [make_nodule(0), make_nodule(3)], [], tmp_path, progress=False)
    parts = trainer._train_step()
    assert set(parts) == {"final", "sides", "total"}
    assert torch.allclose(parts["total"], parts["final"] + parts["sides"])


# --- experiments ---


def test_rows_have_their_own_base():
    rows = {row.key: row for row in definition.load("dsnet_networks", "compact").rows}
    full = {row.key: row for row in definition.load("dsnet_networks", "full").rows}
    for name, _, _ in SMALL:
        config = rows[name].config
        assert config.network.name == name
        assert config.data.soft_label == ""
        assert config.loss.final_target == "consensus"
        assert config.data.crop == rows["unet"].config.data.crop
        assert full[name].config.data.crop == full["unet"].config.data.crop
        assert full[name].config.training.epochs == load_config("patch").training.epochs
        assert set(rows[name].paper) == {"dice", "sen", "ppv", "dice_sd", "sen_sd", "ppv_sd"}
    assert rows["unet"].config.data.soft_label
    offsets = rows["db_resnet"].config.input.slice_offsets
    assert set(np.diff(offsets)) == {rows["db_resnet"].config.network.options["slice_step"]}


def test_a_row_of_the_tiny_profile_runs_and_its_network_predicts_cubes(tmp_path):
    data = write_folder(tmp_path / "nodules")
    nodules = load_folder(data, progress=False)
    row = next(row for row in definition.load("dsnet_networks", "tiny").rows if row.key == "db_resnet")
    (identity, config), *others = jobs_of(row, 0, fingerprint(nodules))
    assert not others
    data_set = jobs.DataSet("nodules", fingerprint(nodules), len(nodules))
    job = jobs.prepare(tmp_path / "jobs", jobs.Job(identity, config, 0, data_set))
    manifest = jobs.run_job(job, data, device="cpu", threads=1, progress=False)
    assert manifest.network == "db_resnet"
    with np.load(job / "predictions.npz") as found:
        assert found["final"].shape == found["hu"].shape
    hu = np.random.default_rng(0).normal(-600, 300, (3, 32, 32)).astype(np.float32)
    maps = predict_cube(run_model(job), hu, (-2, -16, -16), (0.7, 0.7, 0.7))
    assert maps["final"].shape == hu.shape
