"""Reader panels: counted by hand, and what another panel would reach checked on readers that nobody had counted."""

import json

import numpy as np
import pytest

from Training.__main__ import main
from Training.metrics import MetricError, another_panel, dice, one_against_others, panel_counts
from training_data import write_folder


def lines(*spans):
    """Masks of one row of twelve voxels, each full from a to b."""
    masks = np.zeros((len(spans), 1, 1, 12), bool)
    for mask, (a, b) in zip(masks, spans, strict=True):
        mask[..., a:b] = True
    return masks


def discs(rng, spread, count):
    """`count` readers of a disc: its radius, center and shape differ from one to the other."""
    y, x = np.mgrid[-16:17, -16:17]
    radius, angle, found = rng.uniform(4, 10), np.arctan2(y, x), []
    for _ in range(count):
        waves = sum(rng.normal(0, 0.05) * np.cos((k + 1) * angle + rng.uniform(0, 6.3)) for k in range(4))
        a, b = rng.normal(0, 0.5, 2)
        own = np.minimum(radius * np.exp(spread * rng.standard_t(4)), 15) * (1 + waves)
        found.append(np.hypot(y - a, x - b) <= own)
    return np.array(found)


def test_three_nested_readers():
    counts = panel_counts(lines((0, 3), (0, 5), (0, 9)))
    # Of the three panels of two, one leaves out the largest reader, one the smallest, and one the middle one.
    np.testing.assert_allclose(counts.below, [1 / 2, 1 / 3])
    np.testing.assert_allclose(counts.above, [1 / 2, 1 / 3])
    np.testing.assert_allclose(counts.width, [0, (2 + 6 + 4) / 3 / 6, 1])
    pairs = [2 * 3 / 8, 2 * 3 / 12, 2 * 5 / 14]
    np.testing.assert_allclose([counts.union, counts.intersection], [[np.mean(pairs)]] * 2)
    found = another_panel([counts], ["A"])
    assert found == {"coverage": pytest.approx(1 - 2 * (1 / 3) ** 2 / (1 / 2))}


def test_four_readers_beside_each_other():
    counts = panel_counts(lines((0, 4), (2, 6), (4, 8), (6, 10)))
    unions = [2 * 2 / 12, 2 * 6 / 16, 2 * 4 / 14]  # 0-6 with 4-10; 0-8 with 2-10; 0-4 and 6-10 with 2-8
    np.testing.assert_allclose(counts.union[1], np.mean(unions))
    # What both include: 2-4 and 6-8; nothing and nothing, which agree; nothing and 4-6.
    np.testing.assert_allclose(counts.intersection[1], np.mean([0, 1, 0]))
    np.testing.assert_allclose(counts.above, [0, 0, 0])


def test_readers_who_agree():
    counts = panel_counts(lines((2, 6), (2, 6), (2, 6), (2, 6)))
    assert not counts.below.any()
    assert not counts.above.any()
    assert np.isnan(counts.width).all()
    assert another_panel([counts], ["A"]) == {"coverage": 1.0, "union": 1.0, "intersection": 1.0}


@pytest.mark.parametrize("spread", [0.05, 0.1, 0.2])
def test_another_panel_reaches_no_more(spread):
    """Four of eight readers tell what the other four reach; these come close, and don't do better."""
    rng = np.random.default_rng(7)
    counts, reached = [], []
    for _ in range(400):
        readers = discs(rng, spread, 8)
        one, other = readers[:4], readers[4:]
        counts.append(panel_counts(one))
        low, high, volumes = other.all(0), other.any(0), one.sum((1, 2))
        inside = np.mean((low.sum() <= volumes) & (volumes <= high.sum()))
        reached.append((inside, dice(high, one.any(0)), dice(low, one.all(0))))
    found = another_panel(counts, range(400), resamples=500)
    for key, value in zip(("coverage", "union", "intersection"), np.mean(reached, 0), strict=True):
        low, high = found[f"{key}_interval"]
        assert low < found[key] < high
        assert high - 0.08 < value < high, key


def test_patients_widen_the_intervals():
    rng = np.random.default_rng(1)
    counts = [panel_counts(discs(rng, 0.1, 4)) for _ in range(30)]
    alone = another_panel(counts, range(30))
    together = another_panel(counts * 4, list(range(30)) * 4)
    blind = another_panel(counts * 4, range(120))
    assert together["coverage"] == pytest.approx(alone["coverage"])
    width = {name: np.ptp(f["union_interval"]) for name, f in (("a", alone), ("t", together), ("b", blind))}
    assert width["t"] == pytest.approx(width["a"], rel=0.1)
    assert width["b"] < 0.6 * width["a"]


def test_panels_refuse():
    with pytest.raises(MetricError, match="readers: 1; panels"):
        panel_counts(lines((0, 3)))
    two, three = panel_counts(lines((0, 3), (0, 4))), panel_counts(lines((0, 3), (0, 4), (0, 5)))
    assert another_panel([two], ["A"]) == {}  # too few readers to go on from
    with pytest.raises(MetricError, match=r"2 nodules with \[2, 3\] readers"):
        another_panel([two, three], ["A", "B"])


def test_readers_command(tmp_path, capsys):
    data, output = write_folder(tmp_path / "data"), tmp_path / "figures" / "readers.json"
    assert main(["readers", "--data", str(data), "--cubes", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert (found["readers"], found["nodules"], found["patients"]) == (4, 4, 4)
    assert [panel["readers"] for panel in found["panels"]] == [1, 2, 3]
    assert found["panels"][0]["union"] < found["one_against_the_others"] < 1
    assert found["panels"][2].keys() == {"readers", "below", "above", "width", "coverage"}
    # These readers are nested: one of four is outside the others on each side.
    assert found["panels"][2]["coverage"] == pytest.approx(0.5)
    assert {"coverage", "union", "intersection"} < found["another_panel_at_most"].keys()
    assert main(["readers", "--data", str(data), "--cubes", "--readers", "3", "--fold", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["fold"] == [0]
    assert main(["readers", "--data", str(data), "--readers", "7", "--fold", "0", "1"]) == 1
    assert "no nodule with 7 readers in fold 0 1" in capsys.readouterr().err


@pytest.mark.published("lidc-nodules")
def test_real_readers(published):
    """Panels of one reader are readers; larger panels agree better and hold more volumes."""
    from Training.data.folder import load_folder
    from Training.data.nodule_files import read_table

    folder = published / "lidc-nodules"
    ids = [row["nodule_id"] for row in read_table(folder) if row["readers"] == "4"][:40]
    counts, pairs = [], []
    for nodule in load_folder(folder, nodules=set(ids), progress=False):
        counts.append(panel_counts(nodule.readers))
        pairs.append(one_against_others(nodule.readers, dice, "pairwise"))
    union, below = (np.mean([getattr(c, key) for c in counts], 0) for key in ("union", "below"))
    assert union[0] == pytest.approx(np.mean(pairs))
    assert union[1] > union[0]
    assert below[0] > below[1] > below[2] > 0
