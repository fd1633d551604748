"""A short run of the fuzzer, always of the same inputs; and the fuzzer itself: what it finds, and what it excuses."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import claims
import fuzz
import trial
from judge import differences, measure
from kinds import KINDS
from LungNoduleKit.errors import ImageError
from seeds import SMALL

INPUTS = 330  # each kind at least twice

WORKER = """
import json, os, sys
for line in sys.stdin:
    kind, number = line.split()
    if number == "1":
        open(sys.argv[1], "w").write("last words")
        os.abort()
    while number == "2":
        pass
    print(json.dumps({"kind": kind, "number": int(number), "verdict": "same"}), flush=True)
"""


def test_damaged_inputs_are_refused_read_right_or_warned_of():
    verdicts = list(fuzz.run(list(KINDS), count=INPUTS))
    assert {verdict.kind for verdict in verdicts} == set(KINDS)
    failures = [f"{v.kind} {v.number}: {v.verdict}: {v.detail[:300]} ({v.about})" for v in verdicts if not v.good]
    assert not failures, "\n".join([*failures, "again: python Testing/robustness/fuzz.py --only KIND NUMBER"])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", KINDS)
def test_an_input_depends_on_its_kind_and_number_alone(name, tmp_path):
    made = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        about = trial.build(name, 5, folder)[2]
        made.append((about, content(folder)))
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["dicom", "multi-frame", "compressed", "nrrd", "nifti", "metaimage"])
def test_a_plain_image_is_what_it_says(name, tmp_path):
    said = claims.claimed(KINDS[name].undisturbed(tmp_path))
    expected = measure(SMALL.hu(), SMALL.matrix, np.asarray(SMALL.origin), SMALL.center)
    assert not differences(expected, measure(*said, SMALL.center))
    assert expected["volume_mm3"] == pytest.approx(358, abs=1)


def test_what_isnt_plain_says_nothing(tmp_path):
    path = KINDS["nrrd"].undisturbed(tmp_path)
    whole = path.read_bytes()
    assert claims.claimed(path)[1][0, 0] == 0.8
    for damaged in (
        whole[:-10],
        whole.replace(b"space directions: ", b"space direction: "),
        whole.replace(b"0.8", b"nan"),
        whole.replace(b"0.8", b"800"),
        whole.replace(b"sizes:", b"sizes: 24 24 12\nsizes:"),
    ):
        path.write_bytes(damaged)
        assert claims.claimed(path) is None


def test_differences_of_two_percent_count():
    figures = {"volume_mm3": 100.0, "at_x": 5.0, "hu": 20.0, "found": "x"}
    assert not differences(figures, {**figures, "volume_mm3": 101.9, "at_x": 5.15, "hu": 35.0})
    for changed in ({"volume_mm3": 97.9}, {"at_x": 5.3}, {"hu": 45.0}, {"found": "y"}, {"volume_mm3": float("nan")}):
        assert len(differences(figures, {**figures, **changed})) == 1
    assert len(differences({"a": {"volume_mm3": 1.0}}, {"a": {}, "b": {}})) == 2


def stand_in(found=None, notes=(), error=None):
    def target(path, told):
        told += notes
        if error:
            raise error
        return found

    return target


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (stand_in({"volume_mm3": 357.6}), "silent"),
        (stand_in({"volume_mm3": 357.6}, notes=["it is tilted"]), "warned"),
        (stand_in({"found": "nothing"}), "nothing there"),
        (stand_in(error=ImageError("/x/ct.nrrd: no image")), "refused"),
        (stand_in(error=ImageError("no image")), "no line"),
        (stand_in(error=ImageError("ct.nrrd" + "x" * 1000)), "no line"),
        (stand_in(error=KeyError("Rows")), "exception"),
        (stand_in(error=MemoryError()), "exception"),
        (stand_in(error=SystemExit(1)), "exception"),
    ],
)
def test_what_comes_of_an_input_is_judged(monkeypatch, target, verdict, tmp_path):
    path = KINDS["nrrd"].undisturbed(tmp_path)
    expected = measure(SMALL.hu(), SMALL.matrix, np.asarray(SMALL.origin), SMALL.center)
    monkeypatch.setattr(trial, "undisturbed", lambda name, target: (expected, []))
    assert trial._judged("nrrd", target, path)[0] == verdict
    assert trial._judged("nrrd", stand_in(expected), path)[0] == "same"


def test_a_process_that_ends_or_hangs_is_known_by_its_input(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(fuzz, "TIMEOUT", 0.5)
    for number, verdict in ((0, "same"), (1, "abort"), (2, "hang")):
        child = fuzz.Child(script)
        try:
            found = child.attempt("nrrd", number)
        finally:
            child.close()
        assert (found.kind, found.number, found.verdict) == ("nrrd", number, verdict)
        assert verdict != "abort" or "last words" in found.detail


def test_kinds_come_in_proportion_and_evenly():
    names = [
        name for name, _ in itertools.islice(fuzz.schedule(list(KINDS), 0), 2 * sum(k.share for k in KINDS.values()))
    ]
    assert {name: names.count(name) for name in KINDS} == {name: 2 * kind.share for name, kind in KINDS.items()}
    numbers = [number for name, number in itertools.islice(fuzz.schedule(["nrrd", "dicom"], 7), 40) if name == "nrrd"]
    assert numbers == list(range(7, 7 + 10))


def test_a_failing_input_is_kept_with_the_command_that_repeats_it(tmp_path, capsys):
    verdict = trial.Verdict("nrrd", 3, "silent", "header", "volume 1 became 2", "nrrd: volume")
    fuzz._keep(verdict, tmp_path)
    assert "--only nrrd 3" in (tmp_path / "nrrd-3" / "about.txt").read_text()
    assert any((tmp_path / "nrrd-3" / "input").iterdir())
    table = fuzz.summary([verdict, trial.Verdict("nrrd", 4, "as it says")], 1.0)
    assert "1 x silent: nrrd: volume" in table
    assert "only header says another sound image" in table
    assert "2 inputs in 1 s, 1 failures" in table
    with pytest.raises(SystemExit):
        fuzz.main(["--only", "nrrd", "x"])
    assert "a kind and a number are wanted" in capsys.readouterr().err
